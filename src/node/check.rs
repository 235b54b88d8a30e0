//! `fsck`: a read-only check of everything: records, totals, sums, references of every replica,
//! and that every referenced chunk is on all its holders; with the bytes of all chunks on all
//! nodes. Asked of the leader.

use super::Node;
use crate::error::Result;
use crate::proto::{FsckReport, Look};
use crate::shard::records::ManifestPage;
use crate::shard::{self, keys, records};
use crate::store::SlotRead;
use crate::store::overlay::View;
use crate::types::{ChunkHash, DfsPath, GroupId, ReadLevel};
use bytes::Bytes;
use std::sync::Arc;

/// Manifest pages looked at under one view.
const PAGES_AT_ONCE: usize = 64;
/// Chunks asked for in one question: those of many small files, and no more than a slow disk finds
/// in time.
const CHUNKS_AT_ONCE: usize = 256;
/// Problems reported; more are counted.
const PROBLEMS_MAX: usize = 1_000;
/// Places named of what the start found damaged.
const DAMAGE_TOLD: usize = 10;

impl Node {
    /// Checks the shard that holds `path`, on all nodes, and its chunks; with `chunks` every byte
    /// of them.
    pub(super) async fn fsck(self: &Arc<Self>, path: DfsPath, chunks: bool) -> Result<FsckReport> {
        // A path that is not there is the caller's error, not a finding.
        let shard = self.groups.shard(GroupId::FIRST)?;
        shard
            .read(ReadLevel::Linearizable, move |view| {
                shard::read::stat(view, &path)
            })
            .await?;
        let own = self.check_records(GroupId::FIRST).await?;
        let mut report = own.report.clone();
        self.check_others(&own, GroupId::FIRST, &mut report).await;
        self.check_references(&mut report).await?;
        // From here on copies, on all nodes, that were read.
        (report.chunks, report.chunk_bytes) = (0, 0);
        let beats = self.beats_of_all().await?;
        for (node, _, beat) in &beats {
            if !chunks {
                // Those that are said to be there.
                report.chunks += beat.chunks;
                report.chunk_bytes += beat.chunk_bytes;
            }
            let told = beat.damage.iter();
            let told = told.map(|reason| format!("node {node}: {reason}"));
            report.problems.extend(told);
        }
        if chunks {
            self.check_all_chunks(&mut report).await;
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
    async fn check_references(self: &Arc<Self>, report: &mut FsckReport) -> Result<()> {
        let mut from = keys::table(keys::MANIFESTS);
        loop {
            let machine = self.groups.shard(GroupId::FIRST)?.machine.clone();
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
            let mut wanted = Vec::new();
            for (key, page) in &pages {
                let inode = keys::number_at(key, 1).unwrap_or_default();
                let refs = page.chunks.iter();
                wanted.extend(refs.map(|chunk| (inode, chunk.hash, u64::from(chunk.len))));
            }
            for some in wanted.chunks(CHUNKS_AT_ONCE) {
                self.check_held(some, report).await?;
            }
        }
    }

    /// Each of these chunks of files is on all its holders with its length.
    async fn check_held(
        self: &Arc<Self>,
        chunks: &[(u64, ChunkHash, u64)],
        report: &mut FsckReport,
    ) -> Result<()> {
        let wanted: Vec<(ChunkHash, Option<u64>)> = chunks
            .iter()
            .map(|(_, hash, len)| (*hash, Some(*len)))
            .collect();
        let held = self.hold_everywhere(&wanted, Look::Present, None).await?;
        for ((inode, hash, _), held) in chunks.iter().copied().zip(held) {
            if held.copies >= held.holders || !self.is_referenced(hash).await? {
                // Or cleaned up since its page was read.
                continue;
            }
            report.problems.push(match (held.copies, held.silent) {
                (0, 0) => format!("inode {inode}: chunk {hash} is missing"),
                (copies, silent) => format!(
                    "inode {inode}: chunk {hash} is on {copies} of {} nodes{}",
                    held.holders,
                    match silent {
                        0 => String::new(),
                        _ => format!(", and {silent} did not answer"),
                    }
                ),
            });
        }
        Ok(())
    }
}

impl Node {
    async fn is_referenced(&self, hash: ChunkHash) -> Result<bool> {
        let read = move |view: &View| shard::read::is_referenced(view, &hash);
        let shard = self.groups.shard(GroupId::FIRST)?;
        shard.read(ReadLevel::Linearizable, read).await
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
