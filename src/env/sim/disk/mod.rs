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
mod names;
mod state;
#[cfg(test)]
mod tests;
mod tree;

pub use fault::{Fault, FaultError, OpKind};

use crate::env::base::BaseState;
use bytes::Bytes;
use content::Content;
use fault::{Plan, Verdict, crashed};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use state::State;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tree::{InodeRef, Tree};

/// The disk of one simulated machine. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
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
    pub fn available(&self) -> u64 {
        self.state.lock().space().available
    }
}
