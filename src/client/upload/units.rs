//! What a tree is put in: small files together, larger ones each by itself. Called by `tree.rs`.

use super::walk::{FoundFile, Item, Walk};
use crate::client::batch::Batch;
use crate::error::Error;
use crate::types::DfsPath;
use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;

/// What is put in one step of its own.
pub(super) enum Unit {
    Small(Vec<FoundFile>),
    Large(FoundFile),
    Part(PathBuf),
    Failed(Error),
}

/// Turns what the walk finds into what is put together.
pub(super) struct Units {
    /// `None`: everything was found.
    pub(super) walk: Option<Walk>,
    ready: VecDeque<Unit>,
    small: Batch<FoundFile>,
    small_bytes_max: u64,
    failed_dirs: BTreeSet<DfsPath>,
}

impl Units {
    /// What is below `failed_dirs` fails too.
    pub(super) fn new(walk: Walk, small_bytes_max: u64, failed_dirs: BTreeSet<DfsPath>) -> Units {
        Units {
            walk: Some(walk),
            ready: VecDeque::new(),
            small: Batch::default(),
            small_bytes_max,
            failed_dirs,
        }
    }

    /// What is to be put next, of what was sorted so far.
    pub(super) fn next(&mut self) -> Option<Unit> {
        self.ready.pop_front()
    }

    /// Takes what the walk gave; nothing at its end.
    pub(super) fn sort(&mut self, walk: Walk, items: Vec<Item>) {
        if items.is_empty() {
            self.ready.extend(self.small.take().map(Unit::Small));
            return;
        }
        self.walk = Some(walk);
        for item in items {
            match item {
                Item::Dir { .. } => {}
                Item::Part(local) => self.ready.push_back(Unit::Part(local)),
                Item::Failed(error) => self.ready.push_back(Unit::Failed(error)),
                Item::File(file) if is_below(&self.failed_dirs, &file.remote) => {
                    let error = Error::failed("its directory could not be made");
                    let error = error.at(file.local.display());
                    self.ready.push_back(Unit::Failed(error));
                }
                Item::File(file) if file.size > self.small_bytes_max => {
                    self.ready.push_back(Unit::Large(file));
                }
                Item::File(file) => {
                    let cost = file.size + file.remote.as_str().len() as u64;
                    self.ready
                        .extend(self.small.push(file, cost).map(Unit::Small));
                }
            }
        }
    }
}

/// True if one of the directories is `path` or above it.
pub(super) fn is_below(dirs: &BTreeSet<DfsPath>, path: &DfsPath) -> bool {
    !dirs.is_empty()
        && std::iter::successors(Some(path.clone()), DfsPath::parent).any(|at| dirs.contains(&at))
}
