//! Getting one file into a local one.

use super::content::Content;

use super::part::{PartFile, check_target, write_small};
use super::sink::{Proof, Sink};
use super::state::Identity;
use super::whole::{WholeFile, check};
use crate::client::core::Client;
use crate::client::manifest::Want;
use crate::client::options::GetOptions;
use crate::client::progress::Progress;
use crate::client::report::GetReport;
use crate::client::tree_hash::is_subtree_size;
use crate::client::window::Window;
use crate::error::{Code, Error, Result};
use crate::proto::Ticket;
use crate::types::{ChunkHash, DfsPath};
use blake3::hazmat::ChainingValue;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// One file on its way to its place.
struct Fetch<'a> {
    content: &'a Content<'a>,
    range: Range<u64>,
    part: Arc<PartFile>,
    window: &'a Window,
    progress: &'a dyn Progress,
    kept_bytes: AtomicU64,
}

impl Client {
    /// A remote file (or a range of it) as the local file `local`: beside it first, renamed when
    /// whole. A fetch of a whole file that was interrupted is continued.
    ///
    /// # Errors
    /// `exists` when `local` exists and `force` is not given; `usage` naming the size for a range
    /// beyond the end; `corrupt` when the chunks of a whole file are not those it has.
    pub async fn get_file(
        &self,
        path: &DfsPath,
        local: &Path,
        options: &GetOptions,
        progress: &dyn Progress,
    ) -> Result<GetReport> {
        let window = Window::new(options.window_bytes);
        let report = self.get_within(path, local, options, &window, progress, true);
        let report = report.await?;
        progress.got(&report);
        Ok(report)
    }

    pub(super) async fn get_within(
        &self,
        path: &DfsPath,
        local: &Path,
        options: &GetOptions,
        window: &Window,
        progress: &dyn Progress,
        announce: bool,
    ) -> Result<GetReport> {
        let env = &self.core.env;
        let (target, force) = (local.to_owned(), options.force);
        env.run_blocking(move || check_target(&target, force))
            .await?;
        let content = Content::open(self, path, options).await?;
        let range = content.range(options.range)?;
        let bytes = range.end - range.start;
        if announce {
            progress.expect(1, bytes);
        }
        let mut report = report_of(&content, Some(local), bytes);
        let mode = content.file.attrs.mode;
        if let Some(inline) = content.inline() {
            // An inline content fits memory, so its offsets fit `usize`.
            let part = inline.slice(range.start as usize..range.end as usize);
            let target = local.to_owned();
            let random = env.rng.u64();
            env.run_blocking(move || write_small(&target, &part, (mode, force), random))
                .await?;
            progress.advance(bytes);
            return Ok(report);
        }
        let fetch = Fetch {
            part: self.open_part(&content, local, options, bytes).await?,
            content: &content,
            range,
            window,
            progress,
            kept_bytes: AtomicU64::new(0),
        };
        fetch.whole().await.map_err(|e| e.at(path))?;
        report.kept_bytes = fetch.kept_bytes.into_inner();
        report.fetched_bytes = bytes - report.kept_bytes;
        let part = Arc::try_unwrap(fetch.part);
        let part =
            part.map_err(|_| Error::failed("a write to the local file is still under way"))?;
        env.run_blocking(move || part.finish(mode, force)).await?;
        Ok(report)
    }

    async fn open_part(
        &self,
        content: &Content<'_>,
        local: &Path,
        options: &GetOptions,
        bytes: u64,
    ) -> Result<Arc<PartFile>> {
        let chunk_bytes = content.shape.map_or(0, |shape| shape.chunk_bytes);
        let resumable = options.range.is_none() && content.size() > chunk_bytes;
        let identity = resumable.then(|| Identity {
            cluster: self.told(|hello| hello.cluster),
            path: content.path.clone(),
            inode: content.file.inode,
            version: content.file.attrs.version,
            size: content.size(),
            hash: content.file.attrs.hash,
            chunk_bytes,
        });
        let (target, env) = (local.to_owned(), &self.core.env);
        let random = env.rng.u64();
        let open = move || PartFile::open(&target, bytes, identity.as_ref(), random);
        Ok(Arc::new(env.run_blocking(open).await?))
    }
}

impl Fetch<'_> {
    /// Fetches everything and proves it. If that fails, what cannot be continued is removed.
    async fn whole(&self) -> Result<()> {
        let expected = self.content.file.attrs.hash;
        let (error, gone) = match self.found(expected).await {
            Ok(None) => return Ok(()),
            Ok(Some(found)) => match check(found, expected) {
                Ok(()) => return Ok(()),
                Err(error) => (error, true),
            },
            Err(error) => {
                // Another content stands at its path now, or none.
                let gone = matches!(error.code, Code::NotFound | Code::Conflict);
                (error, gone)
            }
        };
        let (part, env) = (Arc::clone(&self.part), &self.content.client.core.env);
        env.run_blocking(move || part.leave(gone)).await;
        Err(error)
    }

    /// Fetches everything, twice if it is not what was expected. The hash of the file, if all of it
    /// was wanted.
    async fn found(&self, expected: ChunkHash) -> Result<Option<ChunkHash>> {
        let found = self.run(false).await?;
        if !self.by_tree() || found.is_none_or(|found| found == expected) {
            return Ok(found);
        }
        tracing::debug!(path = %self.content.path, "what came is not the file: chunk by chunk again");
        self.run(true).await
    }

    /// Fetches everything. The hash of the file, if all of it was wanted. `again`: after it was
    /// another than the file's, each chunk is proved by its own hash, and fetched where it fails.
    async fn run(&self, again: bool) -> Result<Option<ChunkHash>> {
        let chunk_bytes = self.chunk_bytes();
        let mut whole = WholeFile::default();
        let mut last = None;
        let mut wants = self
            .content
            .wants(self.range.clone())
            .map(|want| self.one(want, again))
            .buffer_unordered(self.window.pieces(chunk_bytes))
            .boxed();
        while let Some((want, subtree)) = wants.try_next().await? {
            if let Some(subtree) = subtree {
                whole.add(want.index, subtree);
            }
            last = Some(want.location.hash);
        }
        drop(wants);
        if !self.is_whole() {
            return Ok(None);
        }
        if self.by_tree() {
            return Ok(Some(whole.finish()));
        }
        if self.content.size() <= chunk_bytes {
            // Its only chunk, which was proved.
            return Ok(last);
        }
        let part = Arc::clone(&self.part);
        let env = &self.content.client.core.env;
        Ok(Some(env.run_blocking(move || part.hash()).await?))
    }

    /// True if the chunks are proved together by the hash of the file.
    fn by_tree(&self) -> bool {
        let chunk_bytes = self.chunk_bytes();
        self.is_whole() && is_subtree_size(chunk_bytes) && self.content.size() > chunk_bytes
    }

    fn is_whole(&self) -> bool {
        self.range == (0..self.content.size())
    }

    fn chunk_bytes(&self) -> u64 {
        self.content.shape.map_or(1, |shape| shape.chunk_bytes)
    }

    /// Boxed: the compiler cannot see through the stream otherwise that it may move between
    /// threads.
    fn one(
        &self,
        want: Result<(Want, Arc<Ticket>)>,
        again: bool,
    ) -> BoxFuture<'_, Result<(Want, Option<ChainingValue>)>> {
        async move {
            let (want, ticket) = want?;
            let subtree = match again {
                false => self.fetch_one(&want, &ticket).await?,
                true => self.prove_one(&want, &ticket).await?,
            };
            Ok((want, subtree))
        }
        .boxed()
    }

    async fn fetch_one(&self, want: &Want, ticket: &Ticket) -> Result<Option<ChainingValue>> {
        let len = u64::from(want.len);
        let _permit = self.window.take(len).await;
        let (at, chunk_bytes) = (want.offset - self.range.start, self.chunk_bytes());
        if want.is_whole() {
            let (part, index, len) = (Arc::clone(&self.part), want.index, want.len);
            let hash = want.location.hash;
            let held = move || part.held(index, at, len, chunk_bytes, &hash);
            if let Some(part) = self.content.client.core.env.run_blocking(held).await {
                self.kept_bytes.fetch_add(u64::from(len), Ordering::Relaxed);
                self.progress.advance(u64::from(len));
                return Ok(part.subtree);
            }
        }
        let proof = match self.by_tree() {
            true => Proof::Tree(want.offset),
            false => Proof::Own,
        };
        let moved = |bytes| self.progress.advance(bytes);
        self.fetch_as(want, ticket, proof, &moved).await
    }

    /// The chunk's value in the tree once its bytes in the local file are those of its hash;
    /// fetched again if they are not.
    async fn prove_one(&self, want: &Want, ticket: &Ticket) -> Result<Option<ChainingValue>> {
        let _permit = self.window.take(u64::from(want.len)).await;
        let (at, chunk_bytes) = (want.offset - self.range.start, self.chunk_bytes());
        let (len, hash) = (want.len, want.location.hash);
        let env = &self.content.client.core.env;
        let proved = || {
            let part = Arc::clone(&self.part);
            env.run_blocking(move || part.proved(at, len, chunk_bytes, &hash))
        };
        if let Some(part) = proved().await {
            return Ok(part.subtree);
        }
        self.fetch_as(want, ticket, Proof::Own, &|_| {}).await?;
        let part = proved().await.ok_or_else(|| {
            Error::corrupt("the local file does not keep what is written to it")
                .hint("check the local disk")
        })?;
        Ok(part.subtree)
    }

    async fn fetch_as(
        &self,
        want: &Want,
        ticket: &Ticket,
        proof: Proof,
        moved: &(dyn Fn(u64) + Sync),
    ) -> Result<Option<ChainingValue>> {
        let client = self.content.client;
        let at = want.offset - self.range.start;
        let mut sink = Sink::file(Arc::clone(&self.part.file), at, proof);
        let fetched = client.fetch(ticket, want, &mut sink, moved).await?;
        let (part, index) = (Arc::clone(&self.part), want.index);
        client
            .core
            .env
            .run_blocking(move || part.mark(index))
            .await?;
        Ok(fetched.subtree)
    }
}

pub(super) fn report_of(content: &Content<'_>, local: Option<&Path>, bytes: u64) -> GetReport {
    let attrs = &content.file.attrs;
    GetReport {
        path: content.path.clone(),
        local: local.map(Path::to_owned),
        version: attrs.version,
        size: bytes,
        hash: attrs.hash,
        chunks: content.shape.map_or(0, |shape| shape.chunks()),
        fetched_bytes: bytes,
        kept_bytes: 0,
    }
}
