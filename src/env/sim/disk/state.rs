//! All that a simulated disk holds, and how one operation changes it. Called by the simulated disk
//! and its files, under one lock.

use super::OpKind;
use super::fault::{FaultError, Plan, Verdict};
use super::inode::Change;
use super::tree::{InodeRef, Tree};
use crate::env::base::BaseState;
use crate::env::{OpenMode, Space};
use rand::Rng;
use rand::rngs::StdRng;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What `Disk::space` calls the size of a disk without a limit: 1 TiB.
const UNLIMITED_BYTES: u64 = 1 << 40;

pub struct State {
    pub seed: u64,
    pub rng: StdRng,
    pub tree: Tree,
    pub bases: BTreeMap<PathBuf, BaseState>,
    pub plan: Plan,
    /// Bytes of pages of files that have a name.
    pub used: u64,
    pub limit: Option<u64>,
    pub latency: Duration,
}

impl State {
    pub fn space(&self) -> Space {
        let total = self.limit.unwrap_or(UNLIMITED_BYTES);
        let bases: u64 = self.bases.values().map(BaseState::bytes).sum();
        Space {
            total,
            available: total.saturating_sub(self.used.saturating_add(bases)),
        }
    }

    /// Applies a change to a file, minding the limit and the plan.
    pub fn change(
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
            Change::SetLen(_) => 0,
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
    pub fn unlink(&mut self, file: &InodeRef) {
        let mut inode = file.lock();
        inode.links = inode.links.saturating_sub(1);
        if inode.links == 0 {
            self.used -= inode.live().allocated();
        }
    }

    /// Runs a change of names; when the power goes while it runs, it is pending.
    pub fn change_names<T>(
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

    pub fn open(&mut self, path: &Path, mode: OpenMode) -> io::Result<InodeRef> {
        if mode == OpenMode::CreateNew {
            return self.change_names(OpKind::Create, path, |state| state.tree.create(path));
        }
        self.plan.admit(OpKind::Open, path)?.into_result()?;
        self.tree.file(path)
    }
}
