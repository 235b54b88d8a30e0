//! The ordered base of a simulated machine: a map on a `SimDisk`, with its crash points and
//! faults. Made by `env::sim`, used through `MetaBase`.
//!
//! Invariants:
//! 1. A commit is atomic; once returned, it is there after a crash.
//! 2. A reader's map never changes: commits copy it while it has readers.
//! 3. After a commit that failed for anything but space, nothing more is committed or read.

use super::{BaseOp, MetaBase, MetaRead, Visit, check_ops, check_range};
use crate::env::sim::{OpKind, SimDisk};
use crate::error::{Code, Error, Result};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What an entry costs besides its bytes, roughly as in LMDB.
const ENTRY_BYTES: u64 = 10;

type Map = BTreeMap<Bytes, Bytes>;

/// The entries of one base; kept by the disk.
#[derive(Clone, Debug, Default)]
pub struct BaseState {
    map: Arc<Map>,
    bytes: u64,
}

impl BaseState {
    /// Bytes in use.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn apply(&mut self, ops: Vec<BaseOp>) {
        let map = Arc::make_mut(&mut self.map);
        for op in ops {
            match op {
                BaseOp::Put(key, value) => {
                    self.bytes += entry_bytes(&key, &value);
                    if let Some(old) = map.insert(key.clone(), value) {
                        self.bytes -= entry_bytes(&key, &old);
                    }
                }
                BaseOp::Delete(key) => {
                    if let Some(old) = map.remove(&key) {
                        self.bytes -= entry_bytes(&key, &old);
                    }
                }
            }
        }
    }
}

fn entry_bytes(key: &Bytes, value: &Bytes) -> u64 {
    (key.len() + value.len()) as u64 + ENTRY_BYTES
}

/// An ordered base on a simulated disk.
pub struct ModelBase {
    disk: SimDisk,
    path: PathBuf,
    failed: AtomicBool,
}

impl ModelBase {
    /// The base at `path`; it is empty if there was none.
    pub fn open(disk: &SimDisk, path: &Path) -> ModelBase {
        ModelBase {
            disk: disk.clone(),
            path: path.to_owned(),
            failed: AtomicBool::new(false),
        }
    }

    /// Turns over one bit of the value of `key`; false if it has no such byte.
    pub fn flip_bit(&self, key: &[u8], byte: usize, bit: u8) -> bool {
        let flipped = self.disk.on_base(OpKind::BaseRead, &self.path, |state| {
            let value = Arc::make_mut(&mut state.map).get_mut(key)?;
            let mut bytes = value.to_vec();
            *bytes.get_mut(byte)? ^= 1 << (bit % 8);
            *value = Bytes::from(bytes);
            Some(())
        });
        matches!(flipped, Ok(Some(())))
    }

    fn check_alive(&self) -> Result<()> {
        if self.failed.load(Ordering::Acquire) {
            return Err(Error::failed("a commit failed earlier").at(self.path.display()));
        }
        Ok(())
    }

    fn read<T>(&self, work: impl FnOnce(&mut BaseState) -> T) -> Result<T> {
        self.check_alive()?;
        self.disk
            .on_base(OpKind::BaseRead, &self.path, work)
            .map_err(|error| Error::io("read the database", &self.path, &error))
    }
}

impl MetaBase for ModelBase {
    fn begin_read(&self) -> Result<Box<dyn MetaRead>> {
        let map = self.read(|state| state.map.clone())?;
        let disk = self.disk.clone();
        Ok(Box::new(ModelRead { disk, map }))
    }

    fn commit(&self, ops: Vec<BaseOp>) -> Result<()> {
        check_ops(&ops)?;
        self.check_alive()?;
        let needed = ops.iter().map(|op| match op {
            BaseOp::Put(key, value) => entry_bytes(key, value),
            BaseOp::Delete(_) => 0,
        });
        if needed.sum::<u64>() > self.disk.available() {
            return Err(no_space(&self.path));
        }
        let done = self
            .disk
            .on_base(OpKind::BaseCommit, &self.path, |state| state.apply(ops));
        match done {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => {
                Err(no_space(&self.path))
            }
            Err(error) => {
                self.failed.store(true, Ordering::Release);
                Err(Error::io("commit", &self.path, &error))
            }
        }
    }

    fn used_bytes(&self) -> Result<u64> {
        self.read(|state| state.bytes)
    }
}

fn no_space(path: &Path) -> Error {
    Error::new(Code::NoSpace, "cannot commit (the simulated disk is full)").at(path.display())
}

struct ModelRead {
    disk: SimDisk,
    map: Arc<Map>,
}

impl ModelRead {
    fn check_alive(&self) -> Result<()> {
        if self.disk.is_crashed() {
            return Err(Error::failed("this simulated machine has lost power"));
        }
        Ok(())
    }
}

impl MetaRead for ModelRead {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.check_alive()?;
        Ok(self.map.get(key).cloned())
    }

    fn scan(&self, from: &[u8], to: Option<&[u8]>, visit: &mut Visit<'_>) -> Result<()> {
        self.check_alive()?;
        let Some((from, to)) = check_range(from, to) else {
            return Ok(());
        };
        let upper = to.map_or(Bound::Unbounded, Bound::Excluded);
        let range = self.map.range::<[u8], _>((Bound::Included(from), upper));
        for (key, value) in range {
            if !visit(key, value) {
                break;
            }
        }
        Ok(())
    }
}
