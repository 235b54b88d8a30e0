//! `fsck`: a read-only check of everything this node holds: records, totals, sums, references,
//! and that every referenced chunk is here and whole.

use super::Node;
use crate::error::Result;
use crate::proto::FsckReport;
use crate::shard::records::ManifestPage;
use crate::shard::{self, keys, records};
use crate::store::SlotRead;
use crate::store::overlay::View;
use crate::types::{ChunkHash, DfsPath, ReadLevel};
use bytes::Bytes;
use std::sync::Arc;

/// Manifest pages looked at under one view.
const PAGES_AT_ONCE: usize = 64;
/// Problems reported; more are counted.
const PROBLEMS_MAX: usize = 1_000;
/// Places named of what the start found damaged.
const DAMAGE_TOLD: usize = 10;

impl Node {
    /// Checks the shard that holds `path`, and its chunks; with `chunks` every byte of them.
    pub(super) async fn fsck(self: &Arc<Self>, path: DfsPath, chunks: bool) -> Result<FsckReport> {
        // A path that is not there is the caller's error, not a finding.
        self.shard
            .read(ReadLevel::Linearizable, move |view| {
                shard::read::stat(view, &path)
            })
            .await?;
        let machine = self.shard.machine.clone();
        let mut report = self
            .env
            .run_blocking(move || shard::check::check(&machine.view()?))
            .await?;
        self.check_references(&mut report).await?;
        let (stored, bytes) = self.chunks.totals();
        (report.chunks, report.chunk_bytes) = (stored, bytes);
        report.problems.extend(self.damage_found_at_start());
        if chunks {
            report.problems.extend(self.chunks.check().await?.problems);
        }
        let found = report.problems.len();
        if found > PROBLEMS_MAX {
            report.problems.truncate(PROBLEMS_MAX);
            report
                .problems
                .push(format!("and {} more", found - PROBLEMS_MAX));
        }
        Ok(report)
    }

    /// Every chunk of every manifest is here with its length. Goes on under a new view every few
    /// pages: what is committed meanwhile is as whole as what was there.
    async fn check_references(&self, report: &mut FsckReport) -> Result<()> {
        let mut from = keys::table(keys::MANIFESTS);
        loop {
            let machine = self.shard.machine.clone();
            let start = from.clone();
            let pages = self
                .env
                .run_blocking(move || manifest_pages(&machine.view()?, &start))
                .await?;
            let Some((last, _)) = pages.last() else {
                return Ok(());
            };
            // The first key behind the last one.
            from = [&last[..], &[0]].concat().into();
            for (key, page) in &pages {
                for chunk in &page.chunks {
                    let inode = keys::number_at(key, 1).unwrap_or_default();
                    self.check_chunk(inode, chunk.hash, u64::from(chunk.len), report)
                        .await?;
                }
            }
        }
    }

    async fn check_chunk(
        &self,
        inode: u64,
        hash: ChunkHash,
        len: u64,
        report: &mut FsckReport,
    ) -> Result<()> {
        let stored = self.chunks.present(hash).await?;
        if stored == Some(len) || !self.is_referenced(hash).await? {
            // Or cleaned up since its page was read.
            return Ok(());
        }
        match stored {
            Some(stored) => report.problems.push(format!(
                "inode {inode}: chunk {hash} has {stored} bytes, its manifest says {len}"
            )),
            None => report
                .problems
                .push(format!("inode {inode}: chunk {hash} is missing")),
        }
        Ok(())
    }
}

impl Node {
    async fn is_referenced(&self, hash: ChunkHash) -> Result<bool> {
        let read = move |view: &View| shard::read::is_referenced(view, &hash);
        self.shard.read(ReadLevel::Linearizable, read).await
    }

    /// Of the chunks that the start did not find, those that files refer to.
    pub(super) async fn find_lost(&self) -> Result<Vec<ChunkHash>> {
        let mut lost = Vec::new();
        for &hash in self.chunks.vanished_at_open() {
            if self.is_referenced(hash).await? {
                lost.push(hash);
            }
        }
        Ok(lost)
    }

    /// Why chunks that files refer to cannot be read now.
    pub(super) async fn lost_chunks(&self) -> Result<Vec<String>> {
        let id = self.id;
        let mut reasons = Vec::new();
        let lost = self.garbage.lost.get().cloned().unwrap_or_default();
        let stored = self.chunks.have_many(lost).await?;
        let missing = stored.iter().filter(|stored| stored.is_none()).count();
        if missing > 0 {
            reasons.push(format!(
                "node {id}: {missing} chunks that files need are missing; `dfs fsck` names the \
                 files, put them again"
            ));
        }
        let damaged = self.chunks.damaged_now();
        if damaged > 0 {
            reasons.push(format!(
                "node {id}: {damaged} stored chunks are damaged; `dfs fsck --chunks` names them, \
                 put their files again"
            ));
        }
        Ok(reasons)
    }

    /// Damage that the start met in the chunk store, told until the next start.
    pub(super) fn damage_found_at_start(&self) -> Vec<String> {
        let damage = self.chunks.damage_at_open();
        let mut told: Vec<String> = damage.iter().take(DAMAGE_TOLD).cloned().collect();
        if damage.len() > DAMAGE_TOLD {
            told.push(format!(
                "and {} more in the node's log",
                damage.len() - DAMAGE_TOLD
            ));
        }
        told
    }
}

fn manifest_pages(view: &View, from: &[u8]) -> Result<Vec<(Bytes, ManifestPage)>> {
    let mut pages = Vec::new();
    let end = keys::after(&keys::table(keys::MANIFESTS));
    view.scan(from, end.as_deref(), &mut |key, page| {
        pages.push((Bytes::copy_from_slice(key), records::decode(page)?));
        Ok(pages.len() < PAGES_AT_ONCE)
    })?;
    Ok(pages)
}
