//! A disk in memory that keeps what is read apart from what is durable, counts every operation,
//! fails where it is told to, and can lose power. Used by tests through `env::sim`.
//!
//! What a crash finds is drawn from the seed and from the number of operations before it:
//! 1. Of each file: all that was synced, and any part of what was not, torn at 512-byte sectors.
//! 2. Of each directory: the names as of its last sync, or as of any later moment, name by name.
//! 3. Of each ordered base: every commit that returned; one that was running, whole or not at all.
//!
//! A process that ends without a power cut loses nothing: see [`SimDisk::kill`].

mod content;
mod fault;
mod file;
mod inode;
mod tree;

pub use fault::{Fault, FaultError, OpKind};

use super::super::base::BaseState;
use crate::env::{Disk, DiskFile, OpenMode, Space};
use bytes::Bytes;
use content::Content;
use fault::{Plan, Verdict, crashed};
use file::SimFile;
use futures::FutureExt;
use futures::future::BoxFuture;
use inode::Change;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tree::{InodeRef, Tree};

/// What [`Disk::space`] calls the size of a disk without a limit: 1 TiB.
const UNLIMITED_BYTES: u64 = 1 << 40;

/// The disk of one simulated machine. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

struct State {
    seed: u64,
    rng: StdRng,
    tree: Tree,
    bases: BTreeMap<PathBuf, BaseState>,
    plan: Plan,
    /// Bytes of pages of files that have a name.
    used: u64,
    limit: Option<u64>,
    latency: Duration,
}

/// Setting up faults and looking from outside.
impl SimDisk {
    /// An empty disk. The seed decides what crashes and failed operations leave behind.
    pub fn new(seed: u64) -> Self {
        Self::with_state(seed, Tree::default(), BTreeMap::new(), None)
    }

    fn with_state(
        seed: u64,
        tree: Tree,
        bases: BTreeMap<PathBuf, BaseState>,
        limit: Option<u64>,
    ) -> Self {
        let allocated = |(_, file): (PathBuf, InodeRef)| file.lock().live().allocated();
        let used = tree.files().into_iter().map(allocated).sum();
        let state = State {
            seed,
            rng: StdRng::seed_from_u64(seed),
            used,
            tree,
            bases,
            plan: Plan::default(),
            limit,
            latency: Duration::ZERO,
        };
        SimDisk {
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// The power goes during the `mutation`th mutating operation (counted from 1 since this disk
    /// was made) and every operation fails from there on.
    pub fn crash_at(&self, mutation: u64) {
        self.state.lock().plan.crash_at(mutation);
    }

    /// The power goes now.
    pub fn power_off(&self) {
        self.state.lock().plan.crashed = true;
    }

    pub fn is_crashed(&self) -> bool {
        self.state.lock().plan.crashed
    }

    /// Mutating operations so far: the crash points that a run has.
    pub fn mutations(&self) -> u64 {
        self.state.lock().plan.mutations
    }

    /// Operations of a kind so far.
    pub fn count(&self, op: OpKind) -> u64 {
        self.state.lock().plan.counts.get(&op).copied().unwrap_or(0)
    }

    pub fn add_fault(&self, fault: Fault) {
        self.state.lock().plan.add(fault);
    }

    pub fn clear_faults(&self) {
        self.state.lock().plan.clear_faults();
    }

    /// The disk's size in bytes, `None` for no limit. Files count in pages of 4 KiB, bases by
    /// their bytes.
    pub fn set_limit(&self, bytes: Option<u64>) {
        self.state.lock().limit = bytes;
    }

    /// How long a sync takes, in tokio's time; zero (the default) to answer at once.
    pub fn set_sync_latency(&self, latency: Duration) {
        self.state.lock().latency = latency;
    }

    /// The power goes (if it is not gone already); what the machine finds when it starts again.
    /// Asking twice gives the same.
    pub fn crash(&self) -> SimDisk {
        self.crash_variant(0)
    }

    /// [`crash`](Self::crash) with another draw for each `variant`.
    pub fn crash_variant(&self, variant: u64) -> SimDisk {
        self.power_off();
        self.if_crashed(variant)
    }

    /// What a machine would find if the power went now; this one goes on.
    pub fn if_crashed(&self, variant: u64) -> SimDisk {
        let state = self.state.lock();
        // Multiplied by odd constants, so that neighbouring numbers give unrelated draws.
        let seed = state
            .seed
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            .wrapping_add(state.plan.mutations.wrapping_mul(0xD1B5_4A32_D192_ED03))
            .wrapping_add(variant.wrapping_add(1).wrapping_mul(0x8CB9_2BA7_2F3D_8DD7));
        let tree = state.tree.after_crash(&mut StdRng::seed_from_u64(seed));
        Self::with_state(seed, tree, state.bases.clone(), state.limit)
    }

    /// The process ends without a power cut: the next one finds all that was written, what was
    /// not synced is still not durable. This disk's handles fail from now on.
    pub fn kill(&self) -> SimDisk {
        let mut state = self.state.lock();
        state.plan.crashed = true;
        let seed = state.rng.random();
        let tree = std::mem::take(&mut state.tree);
        let bases = std::mem::take(&mut state.bases);
        Self::with_state(seed, tree, bases, state.limit)
    }

    /// All files with their lengths, sorted by path.
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        let files = self.state.lock().tree.files();
        let len = |file: InodeRef| file.lock().live().len();
        files
            .into_iter()
            .map(|(path, file)| (path, len(file)))
            .collect()
    }

    /// A file's bytes as a read would see them; not counted as an operation.
    pub fn contents(&self, path: &Path) -> Option<Bytes> {
        let file = self.state.lock().tree.file(path).ok()?;
        let inode = file.lock();
        Some(Bytes::from(inode.live().read(0, usize::MAX)))
    }

    /// Turns over one bit on the platter; false if the file has no such byte.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u8) -> bool {
        self.damage(path, |content| content.flip_bit(offset, bit))
    }

    /// Loses the end of a file; false if the file is not longer.
    pub fn truncate(&self, path: &Path, len: u64) -> bool {
        self.damage(path, |content| {
            let longer = content.len() > len;
            content.set_len(content.len().min(len));
            longer
        })
    }

    fn damage(&self, path: &Path, harm: impl FnMut(&mut Content) -> bool) -> bool {
        let mut state = self.state.lock();
        let Ok(file) = state.tree.file(path) else {
            return false;
        };
        let mut inode = file.lock();
        let before = inode.live().allocated();
        let done = inode.damage(harm);
        state.used = state.used + inode.live().allocated() - before;
        done
    }
}

/// What `base::ModelBase` does on this disk.
impl SimDisk {
    /// Runs `work` on the base at `path` (made if it is not there) as one operation.
    pub(in crate::env) fn on_base<T>(
        &self,
        op: OpKind,
        path: &Path,
        work: impl FnOnce(&mut BaseState) -> T,
    ) -> io::Result<T> {
        let mut state = self.state.lock();
        let verdict = state.plan.admit(op, path)?;
        let survives = verdict == Verdict::Go || state.rng.random();
        if let Verdict::Fail(FaultError::NoSpace) = verdict {
            return Err(FaultError::NoSpace.into());
        }
        if !survives {
            return Err(match verdict {
                Verdict::Fail(error) => error.into(),
                Verdict::Go | Verdict::PowerCut => crashed(),
            });
        }
        let result = work(state.bases.entry(path.to_owned()).or_default());
        match verdict {
            Verdict::Go => Ok(result),
            Verdict::Fail(error) => Err(error.into()),
            Verdict::PowerCut => Err(crashed()),
        }
    }

    /// Bytes that may still be written.
    pub(in crate::env) fn available(&self) -> u64 {
        self.state.lock().space().available
    }
}

impl State {
    fn space(&self) -> Space {
        let total = self.limit.unwrap_or(UNLIMITED_BYTES);
        let bases: u64 = self.bases.values().map(BaseState::bytes).sum();
        Space {
            total,
            available: total.saturating_sub(self.used.saturating_add(bases)),
        }
    }

    /// Applies a change to a file, minding the limit and the plan.
    fn change(
        &mut self,
        op: OpKind,
        path: &Path,
        file: &InodeRef,
        change: Change,
    ) -> io::Result<()> {
        let verdict = self.plan.admit(op, path)?;
        let mut inode = file.lock();
        let needed = match &change {
            Change::Write { offset, data } => {
                inode.live().would_allocate(*offset, data.len() as u64)
            }
            Change::Zero { offset, len } => inode.live().would_allocate(*offset, *len),
            Change::Punch { .. } | Change::SetLen(_) => 0,
        };
        if self.limit.is_some() && needed > self.space().available {
            return Err(FaultError::NoSpace.into());
        }
        let change = match (verdict, change) {
            (Verdict::Fail(_), Change::Write { offset, data }) => {
                // A failed write may have written the beginning.
                let part = self.rng.random_range(0..=data.len());
                let data = data.slice(..part);
                Some(Change::Write { offset, data })
            }
            (Verdict::Fail(_), _) => None,
            (Verdict::Go | Verdict::PowerCut, change) => Some(change),
        };
        if let Some(change) = change {
            let before = inode.live().allocated();
            inode.change(change);
            if inode.links > 0 {
                self.used = self.used + inode.live().allocated() - before;
            }
        }
        verdict.into_result()
    }

    /// A name of the file is gone.
    fn unlink(&mut self, file: &InodeRef) {
        let mut inode = file.lock();
        inode.links = inode.links.saturating_sub(1);
        if inode.links == 0 {
            self.used -= inode.live().allocated();
        }
    }

    /// Runs a change of names; when the power goes while it runs, it is pending.
    fn rename_with<T>(
        &mut self,
        op: OpKind,
        path: &Path,
        work: impl FnOnce(&mut Self) -> io::Result<T>,
    ) -> io::Result<T> {
        let verdict = self.plan.admit(op, path)?;
        if let Verdict::Fail(error) = verdict {
            return Err(error.into());
        }
        let done = work(self)?;
        verdict.into_result().map(|()| done)
    }

    fn open(&mut self, path: &Path, mode: OpenMode) -> io::Result<InodeRef> {
        if mode == OpenMode::CreateNew {
            return self.rename_with(OpKind::Create, path, |state| state.tree.create(path));
        }
        self.plan.admit(OpKind::Open, path)?.into_result()?;
        self.tree.file(path)
    }
}

impl Verdict {
    fn into_result(self) -> io::Result<()> {
        match self {
            Verdict::Go => Ok(()),
            Verdict::Fail(error) => Err(error.into()),
            Verdict::PowerCut => Err(crashed()),
        }
    }
}

impl SimDisk {
    /// Runs one operation when its future is first polled.
    fn run<'a, T: Send + 'a>(
        &'a self,
        work: impl FnOnce(&mut State) -> io::Result<T> + Send + 'a,
    ) -> BoxFuture<'a, io::Result<T>> {
        async move { work(&mut self.state.lock()) }.boxed()
    }
}

impl Disk for SimDisk {
    fn open<'a>(
        &'a self,
        path: &'a Path,
        mode: OpenMode,
    ) -> BoxFuture<'a, io::Result<Arc<dyn DiskFile>>> {
        self.run(move |state| {
            let inode = state.open(path, mode)?;
            let disk = self.clone();
            let writable = mode != OpenMode::Read;
            let file: Arc<dyn DiskFile> = Arc::new(SimFile::new(disk, path, inode, writable));
            Ok(file)
        })
    }

    fn rename<'a>(&'a self, from: &'a Path, to: &'a Path) -> BoxFuture<'a, io::Result<()>> {
        self.run(move |state| {
            state.rename_with(OpKind::Rename, from, |state| {
                if let Some(replaced) = state.tree.rename(from, to)? {
                    state.unlink(&replaced);
                }
                Ok(())
            })
        })
    }

    fn remove<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, io::Result<()>> {
        self.run(move |state| {
            state.rename_with(OpKind::Remove, path, |state| {
                let file = state.tree.remove(path)?;
                state.unlink(&file);
                Ok(())
            })
        })
    }

    fn create_dir<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, io::Result<()>> {
        self.run(move |state| {
            let verdict = state.plan.admit(OpKind::CreateDir, path)?;
            if verdict == Verdict::Go || (verdict == Verdict::PowerCut && state.rng.random()) {
                state.tree.create_dir(path)?;
            }
            verdict.into_result()
        })
    }

    fn list<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, io::Result<Vec<PathBuf>>> {
        self.run(move |state| {
            state.plan.admit(OpKind::List, path)?.into_result()?;
            state.tree.list(path)
        })
    }

    fn sync_dir<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, io::Result<()>> {
        self.run(move |state| {
            state.plan.admit(OpKind::SyncDir, path)?.into_result()?;
            state.tree.sync_dir(path)
        })
    }

    fn space<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, io::Result<Space>> {
        self.run(move |state| {
            state.plan.admit(OpKind::Space, path)?.into_result()?;
            state.tree.lookup(path)?.ok_or(ErrorKind::NotFound)?;
            Ok(state.space())
        })
    }

    fn exists<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, io::Result<bool>> {
        self.run(move |state| {
            state.plan.admit(OpKind::Exists, path)?.into_result()?;
            match state.tree.lookup(path) {
                Ok(entry) => Ok(entry.is_some()),
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
                Err(error) => Err(error),
            }
        })
    }
}

#[cfg(test)]
mod tests;
