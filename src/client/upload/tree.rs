//! Putting a whole local tree: directories first, then small files in batches and larger ones
//! each by itself, several of these at once.

use super::put::{precondition_of, window};
use super::units::{Unit, Units, is_below};
use super::walk::{FoundFile, Item, Walk};
use crate::client::core::{Client, is_passing};
use crate::client::local::{LocalFile, Opened, has_content};
use crate::client::manifest::Shape;
use crate::client::opid::OpId;
use crate::client::options::{OpIds, Overwrite, PutOptions};
use crate::client::progress::Progress;
use crate::client::report::{PutReport, TreeReport};
use crate::client::window::Window;
use crate::error::{Code, Error, Result};
use crate::limits::BATCH_ITEMS_MAX;
use crate::proto::{EntryView, FileView};
use crate::shard::command::Op;
use crate::types::{ChunkHash, DfsPath, Precondition, ReadLevel};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Directories that could not be made and whose contents are therefore left out; beyond so many
/// the tree is given up.
const FAILED_DIRS_MAX: usize = 10_000;

struct TreePut<'a> {
    client: &'a Client,
    options: &'a PutOptions,
    progress: &'a dyn Progress,
    window: Window,
    /// An earlier run under the same id has made the tree's own directory.
    goes_on: bool,
    report: Mutex<TreeReport>,
}

impl Client {
    /// A local directory as the remote directory `to`, which is made if missing. What cannot be
    /// read or stored (links, devices) is told to `progress` and counted in `failed`. Where an
    /// earlier run under the same given id has made `to`, files that are there already with the
    /// same content are as good as put.
    ///
    /// # Errors
    /// The tree as a whole cannot be put: no node is reachable, the root cannot be read or made.
    pub async fn put_tree(
        &self,
        local: &Path,
        to: &DfsPath,
        options: &PutOptions,
        progress: &dyn Progress,
    ) -> Result<TreeReport> {
        if matches!(options.overwrite, Overwrite::IfVersion(_)) {
            return Err(Error::usage("a version cannot be demanded of a whole tree")
                .hint("put single files with --if-version"));
        }
        let mut tree = TreePut {
            client: self,
            options,
            progress,
            window: window(options),
            goes_on: false,
            report: Mutex::default(),
        };
        let local = Arc::new(local.to_owned());
        tree.goes_on = tree.make_root(&local, to).await?;
        let failed_dirs = tree.make_dirs(&local, to).await?;
        tree.put_files(&local, to, failed_dirs).await?;
        Ok(tree.report.into_inner())
    }
}

impl TreePut<'_> {
    async fn walk(&self, local: &Arc<PathBuf>, to: &DfsPath) -> Result<Walk> {
        let (local, to) = (Arc::clone(local), to.clone());
        let env = &self.client.core.env;
        env.run_blocking(move || Walk::new(&local, &to)).await
    }

    async fn take(&self, mut walk: Walk) -> (Walk, Vec<Item>) {
        let env = &self.client.core.env;
        env.run_blocking(move || {
            let items = walk.take(BATCH_ITEMS_MAX);
            (walk, items)
        })
        .await
    }

    /// True if an earlier run has made it.
    async fn make_root(&self, local: &Arc<PathBuf>, to: &DfsPath) -> Result<bool> {
        let step = PutOptions::root_step(to);
        let ids = match &self.options.op {
            OpIds::Automatic => &self.options.root_op,
            given => given,
        };
        // The local root is tried first: nothing is made for a tree that cannot be read.
        self.walk(local, to).await?;
        match self.client.stat(to, ReadLevel::Linearizable).await {
            Ok(EntryView::File(_)) => Err(Error::new(Code::Exists, "is a file").at(to)),
            Ok(_) => self.client.is_made_by(to, &self.options.op, &step).await,
            Err(error) if error.code == Code::NotFound => {
                let local = Arc::clone(local);
                let env = &self.client.core.env;
                let mode = env.run_blocking(move || {
                    let meta = std::fs::metadata(&*local);
                    meta.map_or(0o755, |meta| crate::client::local::permission_bits(&meta))
                });
                let op = Op::Mkdir {
                    path: to.clone(),
                    mode: mode.await,
                    parents: false,
                };
                let made = self.send(vec![op], ids, &step).await?.pop();
                made.unwrap_or_else(|| Err(missing()))
                    .map_err(|e| e.at(to))?;
                self.report.lock().dirs += 1;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Makes all directories and counts what is to come. Returns those that could not be made.
    async fn make_dirs(&self, local: &Arc<PathBuf>, to: &DfsPath) -> Result<BTreeSet<DfsPath>> {
        let mut walk = self.walk(local, to).await?;
        let mut failed = BTreeSet::new();
        loop {
            let (rest, items) = self.take(walk).await;
            walk = rest;
            if items.is_empty() {
                return Ok(failed);
            }
            let (mut dirs, mut files, mut bytes) = (Vec::new(), 0, 0);
            for item in items {
                match item {
                    Item::Dir { remote, mode } if !is_below(&failed, &remote) => {
                        dirs.push((remote, mode));
                    }
                    Item::File(file) => {
                        files += 1;
                        bytes += file.size;
                    }
                    // Told when the files are put.
                    Item::Dir { .. } | Item::Part(_) | Item::Failed(_) => {}
                }
            }
            self.progress.expect(files, bytes);
            self.make_some(dirs, &mut failed).await?;
        }
    }

    async fn make_some(
        &self,
        dirs: Vec<(DfsPath, u16)>,
        failed: &mut BTreeSet<DfsPath>,
    ) -> Result<()> {
        if dirs.is_empty() {
            return Ok(());
        }
        let ops = dirs.iter().map(|(path, mode)| Op::Mkdir {
            path: path.clone(),
            mode: *mode,
            parents: true,
        });
        // No step of a given id: another run may meet more of the tree, and with it other batches;
        // a directory that is there is as good as one that is made.
        let outcomes = self.send(ops.collect(), &OpIds::Automatic, "").await?;
        for ((path, _), outcome) in dirs.into_iter().zip(outcomes) {
            match outcome {
                Ok(_) => self.report.lock().dirs += 1,
                Err(error) if failed.len() >= FAILED_DIRS_MAX => return Err(error.at(&path)),
                Err(error) => {
                    // What is below one that failed, failed because of it.
                    if !is_below(failed, &path) {
                        self.failed(error.at(&path));
                    }
                    failed.insert(path);
                }
            }
        }
        Ok(())
    }

    async fn put_files(
        &self,
        local: &Arc<PathBuf>,
        to: &DfsPath,
        failed_dirs: BTreeSet<DfsPath>,
    ) -> Result<()> {
        let walk = self.walk(local, to).await?;
        let units = Units::new(walk, self.client.direct_bytes(), failed_dirs);
        let units = stream::unfold(units, |mut units| async {
            loop {
                if let Some(unit) = units.next() {
                    return Some((unit, units));
                }
                let (walk, items) = self.take(units.walk.take()?).await;
                units.sort(walk, items);
            }
        });
        let mut done = units
            .map(|unit| self.put_unit(unit))
            .buffer_unordered(self.options.jobs.max(1))
            .boxed();
        while let Some(result) = done.next().await {
            result?;
        }
        Ok(())
    }

    /// An error ends the whole tree; what concerns single files is told and counted.
    fn put_unit(&self, unit: Unit) -> BoxFuture<'_, Result<()>> {
        self.put_one(unit).boxed()
    }

    async fn put_one(&self, unit: Unit) -> Result<()> {
        match unit {
            Unit::Failed(error) => {
                self.failed(error);
                Ok(())
            }
            Unit::Part(local) => {
                let local = local.display();
                let note = format!("{local}: left out (of a get that was interrupted)");
                self.progress.note(&note);
                Ok(())
            }
            // Each file has a name of its own under a given id, so that the same id means the
            // same file however the tree is walked.
            Unit::Small(files) if self.options.op == OpIds::Automatic => {
                self.put_small(files).await
            }
            Unit::Small(files) => self.put_each(files).await,
            Unit::Large(file) => self.put_each(vec![file]).await,
        }
    }

    async fn put_each(&self, files: Vec<FoundFile>) -> Result<()> {
        let there = self.there(&files).await?;
        for (file, there) in files.into_iter().zip(there) {
            let put = match there {
                Some(report) => Ok(report),
                None => self.put_large(&file).await,
            };
            match put {
                Ok(report) => self.succeeded(&report),
                Err(error) if is_passing(&error) => return Err(error),
                Err(error) => self.failed(error),
            }
        }
        Ok(())
    }

    /// Those that are there already, where the tree goes on: an earlier run may have put them
    /// in one request with others, and then not under the id.
    async fn there(&self, files: &[FoundFile]) -> Result<Vec<Option<PutReport>>> {
        let mut there = vec![None; files.len()];
        if !self.goes_on || self.options.overwrite != Overwrite::IfAbsent {
            return Ok(there);
        }
        let paths: Vec<_> = files.iter().map(|file| file.remote.clone()).collect();
        let seen = self.client.stat_many(&paths, ReadLevel::Linearizable);
        let seen = seen.await?.into_iter().zip(files);
        for (there, (seen, file)) in there.iter_mut().zip(seen) {
            if let Ok(EntryView::File(view)) = seen {
                *there = self.as_put(file, &view).await?;
            }
        }
        Ok(there)
    }

    /// What is there as if this run had put it, if it is the local file.
    async fn as_put(&self, file: &FoundFile, view: &FileView) -> Result<Option<PutReport>> {
        let OpIds::Given(id) = &self.options.op else {
            return Ok(None);
        };
        let (local, size, hash) = (file.local.clone(), view.attrs.size, view.attrs.hash);
        let env = &self.client.core.env;
        let same = env.run_blocking(move || has_content(&local, size, &hash));
        if !same.await {
            return Ok(None);
        }
        self.progress.advance(size);
        Ok(Some(PutReport {
            path: file.remote.clone(),
            inode: view.inode,
            version: view.attrs.version,
            size,
            hash,
            chunks: Shape::of(view)?.map_or(0, |shape| shape.chunks()),
            sent_bytes: 0,
            reused_bytes: size,
            op_id: OpId::named(id, file.remote.as_str())?.to_string(),
        }))
    }

    async fn put_large(&self, found: &FoundFile) -> Result<PutReport> {
        let (client, path) = (self.client, found.local.clone());
        let env = &client.core.env;
        let opened = env.run_blocking(move || LocalFile::open(&path)).await?;
        let (to, options) = (&found.remote, self.options);
        let (step, window, progress) = (to.as_str(), &self.window, self.progress);
        match opened {
            Opened::Regular(file) => {
                let file = Arc::new(file);
                let put = client.put_opened(file, to, options, step, window, progress);
                put.await
            }
            Opened::Unsized(file, mode) => {
                let mut reader = tokio::fs::File::from_std(file);
                let options = &options.for_mode(mode);
                let put = client.put_stream(&mut reader, to, options, step, window, progress);
                put.await
            }
            Opened::Stream(_) => Err(no_file_any_more(found)),
        }
    }

    async fn put_small(&self, files: Vec<FoundFile>) -> Result<()> {
        let total = files.iter().map(|file| file.size).sum();
        let permit = self.window.take(total).await;
        let preconditions = self.preconditions(&files).await?;
        let mode = self.options.mode;
        let env = &self.client.core.env;
        let read = env.run_blocking(move || {
            let files = files.into_iter().zip(preconditions);
            let read = files.map(|(file, precondition)| {
                let read = precondition.and_then(|seen| read_small(&file, seen, mode));
                (file, read)
            });
            read.collect::<Vec<_>>()
        });
        let (mut ops, mut facts, mut alone) = (Vec::new(), Vec::new(), Vec::new());
        for (file, read) in read.await {
            match read {
                Ok(Some((op, path, size, hash))) => {
                    ops.push(op);
                    facts.push((path, size, hash));
                }
                Ok(None) => alone.push(file),
                Err(error) => self.failed(error),
            }
        }
        if !ops.is_empty() {
            self.send_small(ops, facts).await?;
        }
        // They take of the window what they need.
        drop(permit);
        self.put_each(alone).await
    }

    async fn send_small(&self, ops: Vec<Op>, facts: Vec<(DfsPath, u64, ChunkHash)>) -> Result<()> {
        let shard = self.client.shard_of(&facts[0].0);
        let ack = self.options.ack;
        let sent = self
            .client
            .send_acked(shard, ops, &OpIds::Automatic, "", ack);
        let sent = sent.await;
        let sent = sent.map_err(|e| e.at_first_of(&facts[0].0, facts.len()))?;
        for ((path, size, hash), outcome) in facts.into_iter().zip(sent.outcomes) {
            match outcome {
                Ok(done) => {
                    self.progress.advance(size);
                    self.succeeded(&PutReport {
                        path,
                        inode: done.inode,
                        version: done.version,
                        size,
                        hash,
                        chunks: self.client.chunks_of(size),
                        sent_bytes: size,
                        reused_bytes: 0,
                        op_id: sent.id.to_string(),
                    });
                }
                Err(error) => self.failed(error.at(path)),
            }
        }
        Ok(())
    }

    async fn preconditions(&self, files: &[FoundFile]) -> Result<Vec<Result<Precondition>>> {
        if self.options.overwrite != Overwrite::Current {
            return Ok(files.iter().map(|_| Ok(Precondition::Absent)).collect());
        }
        let paths: Vec<_> = files.iter().map(|file| file.remote.clone()).collect();
        let seen = self.client.stat_many(&paths, ReadLevel::Linearizable);
        let seen = seen.await?.into_iter().zip(paths);
        let judged = seen.map(|(seen, path)| precondition_of(seen).map_err(|e| e.at(path)));
        Ok(judged.collect())
    }

    async fn send(
        &self,
        ops: Vec<Op>,
        ids: &OpIds,
        step: &str,
    ) -> Result<Vec<crate::shard::records::Outcome>> {
        let Some(Op::Mkdir { path, .. }) = ops.first() else {
            return Err(missing());
        };
        let (shard, first, count) = (self.client.shard_of(path), path.clone(), ops.len());
        let sent = self.client.send(shard, ops, ids, step).await;
        let sent = sent.map_err(|e| e.at_first_of(first, count))?;
        Ok(sent.outcomes)
    }

    fn succeeded(&self, report: &PutReport) {
        self.progress.put(report);
        let mut tree = self.report.lock();
        tree.files += 1;
        tree.bytes += report.size;
        tree.moved_bytes += report.sent_bytes;
        tree.reused_bytes += report.reused_bytes;
    }

    fn failed(&self, error: Error) {
        self.progress.failed(&error);
        self.report.lock().failed += 1;
    }
}

type SmallPut = (Op, DfsPath, u64, ChunkHash);

/// `None` for a file that can only be read in order, to be put by itself.
fn read_small(
    found: &FoundFile,
    precondition: Precondition,
    mode: Option<u16>,
) -> Result<Option<SmallPut>> {
    let changed = || {
        Error::new(Code::Conflict, "the local file changed while it was read")
            .at(found.local.display())
    };
    let file = match LocalFile::open(&found.local)? {
        Opened::Regular(file) => file,
        Opened::Unsized(..) => return Ok(None),
        Opened::Stream(_) => return Err(no_file_any_more(found)),
    };
    // Its place in the batch is for the size it had.
    if file.print.size != found.size {
        return Err(changed());
    }
    let data: Bytes = file.read_whole()?;
    let (size, hash) = (data.len() as u64, ChunkHash::of(&data));
    let op = Op::Put {
        path: found.remote.clone(),
        precondition,
        mode: mode.unwrap_or(file.mode),
        hash,
        data,
    };
    Ok(Some((op, found.remote.clone(), size, hash)))
}

fn no_file_any_more(found: &FoundFile) -> Error {
    Error::new(Code::Conflict, "is no regular file any more").at(found.local.display())
}

fn missing() -> Error {
    crate::client::core::odd("one outcome an operation")
}
