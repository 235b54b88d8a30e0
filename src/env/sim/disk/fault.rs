//! Pure: which operation of a simulated disk fails and how, and how many there were. Called by
//! the simulated disk.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// A kind of operation of the disk or of an ordered base on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OpKind {
    Open,
    Create,
    Read,
    Write,
    /// Of a file; `write_sync` is a `Write` and a `Sync`.
    Sync,
    Len,
    SetLen,
    Zero,
    Rename,
    Remove,
    CreateDir,
    List,
    SyncDir,
    Space,
    Exists,
    BaseRead,
    BaseCommit,
}

impl OpKind {
    /// True where the operation changes what a later start may find: a crash point.
    pub fn mutates(self) -> bool {
        use OpKind as K;
        !matches!(
            self,
            K::Open | K::Read | K::Len | K::List | K::Space | K::Exists | K::BaseRead
        )
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultError {
    /// The device failed (EIO).
    Eio,
    /// The disk is full (ENOSPC).
    NoSpace,
    /// The power goes while it runs.
    PowerCut,
}

/// Operations that will fail.
#[derive(Clone, Debug)]
pub struct Fault {
    pub op: OpKind,
    /// Only on paths that contain this; empty for all.
    pub path_contains: String,
    /// So many matching operations succeed first.
    pub after: u64,
    /// So many fail then; `u64::MAX` for all.
    pub times: u64,
    pub error: FaultError,
}

impl Fault {
    /// The next `op` on a path that contains `path_contains` fails with EIO, once.
    pub fn once(op: OpKind, path_contains: impl Into<String>) -> Self {
        Fault {
            op,
            path_contains: path_contains.into(),
            after: 0,
            times: 1,
            error: FaultError::Eio,
        }
    }
}

/// What is to happen with an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Go,
    Fail(FaultError),
    /// The power goes while it runs: its effect is pending, its caller sees an error.
    PowerCut,
}

impl Verdict {
    pub fn into_result(self) -> io::Result<()> {
        match self {
            Verdict::Go => Ok(()),
            Verdict::Fail(error) => Err(error.into()),
            Verdict::PowerCut => Err(crashed()),
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Plan {
    faults: Vec<Fault>,
    crash_at: Option<u64>,
    pub crashed: bool,
    pub mutations: u64,
    pub counts: BTreeMap<OpKind, u64>,
}

impl Plan {
    pub fn add(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    pub fn clear_faults(&mut self) {
        self.faults.clear();
    }

    pub fn crash_at(&mut self, mutation: u64) {
        self.crash_at = Some(mutation);
    }

    /// Counts an operation and says what is to happen with it.
    ///
    /// # Errors
    /// "crashed", after the power went.
    pub fn admit(&mut self, op: OpKind, path: &Path) -> io::Result<Verdict> {
        if self.crashed {
            return Err(crashed());
        }
        *self.counts.entry(op).or_default() += 1;
        if op.mutates() {
            self.mutations += 1;
            if self.crash_at.is_some_and(|at| self.mutations >= at) {
                self.crashed = true;
                return Ok(Verdict::PowerCut);
            }
        }
        let path = path.to_string_lossy();
        for fault in &mut self.faults {
            if fault.op != op || !path.contains(&fault.path_contains) {
                continue;
            }
            if fault.after > 0 {
                fault.after -= 1;
            } else if fault.times > 0 {
                fault.times = fault
                    .times
                    .saturating_sub(u64::from(fault.times != u64::MAX));
                if fault.error == FaultError::PowerCut {
                    self.crashed = true;
                    return Ok(Verdict::PowerCut);
                }
                return Ok(Verdict::Fail(fault.error));
            }
        }
        Ok(Verdict::Go)
    }
}

impl From<FaultError> for io::Error {
    fn from(error: FaultError) -> Self {
        use rustix::io::Errno;
        match error {
            FaultError::Eio => Errno::IO.into(),
            FaultError::NoSpace => Errno::NOSPC.into(),
            FaultError::PowerCut => crashed(),
        }
    }
}

/// The error of every operation after the power went.
pub fn crashed() -> io::Error {
    io::Error::other("crashed: this simulated machine has lost power")
}
