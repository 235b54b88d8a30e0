//! Production implementations of the seams, and the one place that makes threads. Used by the
//! process's entry points; everything else sees an [`Env`].

mod clock;
mod disk;
#[cfg(test)]
mod disk_tests;
mod file;
mod pool;
mod rng;
mod spawn;

pub use clock::RealClock;
pub use disk::RealDisk;
pub use rng::OsRng;
pub use spawn::RealSpawn;

pub(crate) use file::{begin_writeback, forget};

pub(in crate::env) use disk::{create_dir_durably, sync_dir};

use super::Env;
use std::sync::Arc;
use tokio::runtime::Handle;

/// How many threads stand behind the seams. Threads start when they are first needed.
#[derive(Clone, Copy, Debug)]
pub struct Threads {
    /// For `Spawn::blocking`: hashing, commits of the ordered base, compression.
    pub blocking: usize,
    /// For reads, writes, syncs and changes of names.
    pub disk: usize,
    /// For `write_sync` alone, so that a log append never waits behind large writes.
    pub log: usize,
}

impl Default for Threads {
    /// Blocking: one a processor and 4 more, since commits wait for the disk. Disk: 16, where
    /// flushes of separate files stop gaining. Log: 4, one for each writer of appended files.
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(2, usize::from);
        Threads {
            blocking: processors + 4,
            disk: 16,
            log: 4,
        }
    }
}

/// The production environment; tasks run on `handle`'s runtime.
pub fn env(handle: Handle) -> Env {
    env_with(handle, Threads::default())
}

/// [`env()`] with chosen numbers of threads (each at least 1).
pub fn env_with(handle: Handle, threads: Threads) -> Env {
    Env {
        clock: Arc::new(RealClock::new()),
        rng: Arc::new(OsRng),
        spawn: Arc::new(RealSpawn::new(handle, threads.blocking)),
        disk: Arc::new(RealDisk::new(threads.disk, threads.log)),
    }
}
