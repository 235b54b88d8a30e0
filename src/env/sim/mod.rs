//! Simulated implementations of the seams: time that stands still unless moved, seeded
//! randomness, plain tasks, a disk in memory that can lose power. Used by tests alone.
//!
//! Deterministic: the same seed and the same calls in the same order give the same results, the
//! same faults and the same wreckage after a crash.

mod clock;
pub mod disk;
mod rng;
mod spawn;

pub use clock::SimClock;
pub use disk::{Fault, FaultError, OpKind, SimDisk};
pub use rng::SeededRng;
pub use spawn::SimSpawn;

use super::base::{MetaBase, ModelBase};
use super::{Disk, Env};
use std::path::Path;
use std::sync::Arc;

/// The strings of a simulated environment.
#[derive(Clone)]
pub struct SimHandles {
    pub disk: SimDisk,
    pub clock: Arc<SimClock>,
    pub spawn: Arc<SimSpawn>,
}

impl SimHandles {
    /// The ordered base at `path` of this disk, made if it is not there.
    pub fn base(&self, path: &Path) -> Arc<dyn MetaBase> {
        Arc::new(ModelBase::open(&self.disk, path))
    }
}

/// A fresh machine. Its clock follows tokio's if called inside a runtime (start it paused), else
/// it moves by [`SimClock::advance`] alone.
pub fn env(seed: u64) -> (Env, SimHandles) {
    env_on(seed, SimDisk::new(seed))
}

/// A machine started on a disk that was there before: what [`SimDisk::crash`] returned.
pub fn env_on(seed: u64, disk: SimDisk) -> (Env, SimHandles) {
    let clock = Arc::new(match tokio::runtime::Handle::try_current() {
        Ok(_) => SimClock::following_tokio(),
        Err(_) => SimClock::manual(),
    });
    let spawn = Arc::new(SimSpawn::default());
    let shared_disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let env = Env {
        clock: clock.clone(),
        rng: Arc::new(SeededRng::new(seed)),
        spawn: spawn.clone(),
        disk: shared_disk,
    };
    (env, SimHandles { disk, clock, spawn })
}
