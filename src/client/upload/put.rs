//! Putting one content: from memory, from a file, from a pipe.

use super::same::{Heard, Mine};
use super::stream::{Moved, Source, fill};
use crate::client::changes::shown_id;
use crate::client::core::{Client, is_passing};
use crate::client::local::{LocalFile, Opened};
use crate::client::manifest::Manifest;
use crate::client::opid::OpId;
use crate::client::options::{OpIds, Overwrite, PutOptions};
use crate::client::progress::Progress;
use crate::client::report::{OpState, PutReport};
use crate::client::send::Sent;
use crate::client::window::Window;
use crate::error::{Code, Error, Result};
use crate::limits::{DIRECT_BYTES_MAX, INLINE_BYTES_MAX};
use crate::proto::EntryView;
use crate::shard::command::{Done, Op};
use crate::types::{Ack, ChunkHash, DfsPath, Precondition, ReadLevel};
use bytes::{Bytes, BytesMut};
use std::path::Path;
use std::sync::Arc;
use tokio::io::AsyncRead;

/// Permission bits where the source has none.
const MODE_DEFAULT: u16 = 0o644;

/// What one put writes to, and under which name it is sent.
pub(super) struct Target {
    pub(super) path: DfsPath,
    pub(super) precondition: Precondition,
    pub(super) mode: u16,
    pub(super) ack: Ack,
    pub(super) ids: OpIds,
    /// The step of a given id that commits: empty for the only file of a put.
    pub(super) step: String,
}

impl Client {
    /// A whole content from memory.
    pub async fn put_bytes(
        &self,
        data: Bytes,
        to: &DfsPath,
        options: &PutOptions,
    ) -> Result<PutReport> {
        let mode = options.mode.unwrap_or(MODE_DEFAULT);
        let window = window(options);
        let put = async {
            let target = match self.target(to, mode, options, "").await? {
                Ok(target) => target,
                Err(before) => return self.same(before, Mine::Memory(&data)).await,
            };
            if data.len() as u64 <= self.direct_bytes() {
                return self.put_direct(&target, data).await;
            }
            let none = crate::client::progress::NoProgress;
            let source = Source::Memory(data.clone());
            // Boxed: most files are small and need not make room for this.
            let done = Box::pin(self.put_chunked(&target, source, &window, &none, None)).await;
            self.or_done_before(&target, done, Mine::Memory(&data))
                .await
        };
        put.await.map_err(|error: Error| error.at(to))
    }

    /// A local file. A pipe or device is read to its end, and so is a file whose system does not
    /// know its size.
    ///
    /// # Errors
    /// `conflict` naming the local file if it changed meanwhile; nothing is committed then.
    pub async fn put_file(
        &self,
        local: &Path,
        to: &DfsPath,
        options: &PutOptions,
        progress: &dyn Progress,
    ) -> Result<PutReport> {
        let path = local.to_owned();
        let opened = self.core.env.run_blocking(move || LocalFile::open(&path));
        let report = match opened.await? {
            Opened::Regular(file) => {
                progress.expect(1, file.print.size);
                let window = window(options);
                self.put_opened(Arc::new(file), to, options, "", &window, progress)
                    .await
            }
            Opened::Stream(file) => {
                let mut reader = tokio::fs::File::from_std(file);
                return self.put_reader(&mut reader, to, options, progress).await;
            }
            Opened::Unsized(file, mode) => {
                let (mut reader, options) =
                    (tokio::fs::File::from_std(file), options.for_mode(mode));
                return self.put_reader(&mut reader, to, &options, progress).await;
            }
        }?;
        progress.put(&report);
        Ok(report)
    }

    /// A stream of unknown length (standard input).
    pub async fn put_reader(
        &self,
        from: &mut (dyn AsyncRead + Send + Unpin),
        to: &DfsPath,
        options: &PutOptions,
        progress: &dyn Progress,
    ) -> Result<PutReport> {
        let window = window(options);
        let put = self.put_stream(from, to, options, "", &window, progress);
        let report = put.await?;
        progress.put(&report);
        Ok(report)
    }

    /// A stream; `step` names it under a given id.
    pub(super) async fn put_stream(
        &self,
        from: &mut (dyn AsyncRead + Send + Unpin),
        to: &DfsPath,
        options: &PutOptions,
        step: &str,
        window: &Window,
        progress: &dyn Progress,
    ) -> Result<PutReport> {
        let mode = options.mode.unwrap_or(MODE_DEFAULT);
        let mut from = Heard::new(from, matches!(options.op, OpIds::Given(_)));
        let put = async {
            let target = match self.target(to, mode, options, step).await? {
                Ok(target) => target,
                Err(before) => return self.same(before, Mine::Pipe(&mut from)).await,
            };
            let limit = usize::try_from(self.direct_bytes()).unwrap_or(usize::MAX - 1);
            let start = fill(&mut from, BytesMut::new(), limit + 1).await?;
            if start.len() <= limit {
                progress.advance(start.len() as u64);
                return self.put_direct(&target, start).await;
            }
            let source = Source::Pipe(start, Box::new(&mut from));
            let done = self.put_chunked(&target, source, window, progress, None);
            let done = done.await;
            self.or_done_before(&target, done, Mine::Pipe(&mut from))
                .await
        };
        put.await.map_err(|error: Error| error.at(to))
    }

    /// An opened regular file; `step` names it under a given id.
    pub(super) async fn put_opened(
        &self,
        file: Arc<LocalFile>,
        to: &DfsPath,
        options: &PutOptions,
        step: &str,
        window: &Window,
        progress: &dyn Progress,
    ) -> Result<PutReport> {
        let mode = options.mode.unwrap_or(file.mode);
        let put = async {
            let target = match self.target(to, mode, options, step).await? {
                Ok(target) => target,
                Err(before) => return self.same(before, Mine::File(file)).await,
            };
            if file.print.size <= self.direct_bytes() {
                let bytes = self.core.env.run_blocking(move || file.read_whole());
                let report = self.put_direct(&target, bytes.await?).await?;
                progress.advance(report.size);
                return Ok(report);
            }
            let resume = self.resume_of(&file, &target, options, progress).await;
            let source = Source::File(Arc::clone(&file));
            let put = self.put_chunked(&target, source, window, progress, resume);
            let done = Box::pin(put).await;
            self.or_done_before(&target, done, Mine::File(file)).await
        };
        put.await.map_err(|error: Error| error.at(to))
    }

    /// Decides the precondition, once. `Err(report)`: a put under the same given id was done
    /// before, if of the same content is not known yet.
    async fn target(
        &self,
        path: &DfsPath,
        mode: u16,
        options: &PutOptions,
        step: &str,
    ) -> Result<Result<Target, PutReport>> {
        if let Some(report) = self.done_before(path, &options.op, step).await? {
            return Ok(Err(report));
        }
        let precondition = match options.overwrite {
            Overwrite::IfAbsent => Precondition::Absent,
            Overwrite::IfVersion(version) => Precondition::Version(version),
            Overwrite::Current => {
                let seen = self.stat(path, ReadLevel::Linearizable).await;
                precondition_of(seen)?
            }
        };
        Ok(Ok(Target {
            path: path.clone(),
            precondition,
            mode,
            ack: options.ack,
            ids: options.op.clone(),
            step: step.to_owned(),
        }))
    }

    /// What a put of this name under the same given id did, if one was executed.
    pub(super) async fn done_before(
        &self,
        path: &DfsPath,
        ids: &OpIds,
        step: &str,
    ) -> Result<Option<PutReport>> {
        let OpIds::Given(id) = ids else {
            return Ok(None);
        };
        let id_of_step = OpId::named(id, step)?;
        let state = self.op_state(self.shard_of(path), id_of_step).await?;
        let OpState::Applied(outcomes) = state else {
            return Ok(None);
        };
        let first = outcomes.into_iter().next();
        let done = first.ok_or_else(|| crate::client::core::odd("an outcome"))??;
        let op_id = shown_id(ids, step, id_of_step);
        self.report_of_before(path, done, op_id).await.map(Some)
    }

    /// A put that was refused, unless an earlier run of it did it: one whose end nobody heard may
    /// have been executed since this run asked, and then its file is what is in the way.
    pub(super) async fn or_done_before(
        &self,
        target: &Target,
        done: Result<PutReport>,
        mine: Mine<'_, '_>,
    ) -> Result<PutReport> {
        let Err(error) = done else {
            return done;
        };
        if is_passing(&error) || error.may_have_happened {
            return Err(error);
        }
        let before = self.done_before(&target.path, &target.ids, &target.step);
        let before = before.await?.ok_or(error)?;
        self.same(before, mine).await
    }

    /// The report of what was done before, if that is what this put is of.
    ///
    /// # Errors
    /// `conflict` if the id was used for another content.
    async fn same(&self, before: PutReport, mine: Mine<'_, '_>) -> Result<PutReport> {
        if mine.is(&self.core.env, before.size, before.hash).await? {
            return Ok(before);
        }
        let what = format!(
            "another content was put under this operation id (version {})",
            before.version
        );
        Err(Error::new(Code::Conflict, what).hint("use a new --op-id to put this one"))
    }

    async fn report_of_before(
        &self,
        path: &DfsPath,
        done: Done,
        op_id: String,
    ) -> Result<PutReport> {
        let gone = || {
            let version = done.version;
            let what =
                format!("this operation was done before (version {version}), and that is gone");
            Error::not_found(what).hint("use a new --op-id to put the file again")
        };
        let or_gone = |error: Error| match error.code {
            // Something else than a file is there now.
            Code::NotFound | Code::Conflict => gone(),
            _ => error,
        };
        let there = self.stat(path, ReadLevel::Linearizable).await;
        let is_same = match there.map_err(or_gone)? {
            EntryView::File(file) => file.inode == done.inode,
            _ => false,
        };
        let versions = self.versions(path, ReadLevel::Linearizable).await;
        let mut versions = versions.map_err(or_gone)?.into_iter();
        let found = versions.find(|view| is_same && view.attrs.version == done.version);
        let view = found.ok_or_else(gone)?;
        Ok(PutReport {
            path: path.clone(),
            inode: done.inode,
            version: done.version,
            size: view.attrs.size,
            hash: view.attrs.hash,
            chunks: 0,
            sent_bytes: 0,
            reused_bytes: view.attrs.size,
            op_id,
        })
    }

    /// A whole content with its request.
    async fn put_direct(&self, target: &Target, data: Bytes) -> Result<PutReport> {
        let done = self.send_direct(target, data.clone()).await;
        self.or_done_before(target, done, Mine::Memory(&data)).await
    }

    async fn send_direct(&self, target: &Target, data: Bytes) -> Result<PutReport> {
        let (size, hash) = (data.len() as u64, ChunkHash::of(&data));
        let op = Op::Put {
            path: target.path.clone(),
            precondition: target.precondition,
            mode: target.mode,
            hash,
            data,
        };
        let shard = self.shard_of(&target.path);
        let sent = self.send_acked(shard, vec![op], &target.ids, &target.step, target.ack);
        let sent = sent.await?;
        let manifest = Manifest {
            size,
            hash,
            chunks: self.chunks_of(size),
            tail: Vec::new(),
        };
        let moved = Moved {
            sent_bytes: size,
            reused_bytes: 0,
        };
        report(target, sent, &manifest, &moved)
    }

    /// Contents up to this size go with their request: inline, or as one chunk.
    pub(super) fn direct_bytes(&self) -> u64 {
        let (inline, chunk) = self.told(|hello| (hello.inline_bytes, hello.chunk_bytes));
        // The wire has room for this much; what a node tells beyond is not believed.
        inline
            .min(INLINE_BYTES_MAX)
            .max(chunk.min(DIRECT_BYTES_MAX))
    }

    /// How many chunks the shard makes of a content that went with its request.
    pub(super) fn chunks_of(&self, size: u64) -> u64 {
        u64::from(size > self.told(|hello| hello.inline_bytes))
    }
}

pub(super) fn window(options: &PutOptions) -> Window {
    Window::new(options.window_bytes)
}

/// The state that an overwrite has seen.
pub(super) fn precondition_of(seen: Result<EntryView>) -> Result<Precondition> {
    match seen {
        Ok(EntryView::File(file)) => Ok(Precondition::Exactly {
            inode: file.inode,
            version: file.attrs.version,
        }),
        Ok(_) => Err(Error::new(Code::Conflict, "is a directory")
            .hint("end the target in `/` to put into it")),
        Err(error) if error.code == Code::NotFound => Ok(Precondition::Absent),
        Err(error) => Err(error),
    }
}

pub(super) fn report(
    target: &Target,
    sent: Sent,
    manifest: &Manifest,
    moved: &Moved,
) -> Result<PutReport> {
    let op_id = shown_id(&target.ids, &target.step, sent.id);
    let (_, done) = sent.one()?;
    Ok(PutReport {
        path: target.path.clone(),
        inode: done.inode,
        version: done.version,
        size: manifest.size,
        hash: manifest.hash,
        chunks: manifest.chunks,
        sent_bytes: moved.sent_bytes,
        reused_bytes: moved.reused_bytes,
        op_id,
    })
}
