//! The seams: time, randomness, tasks, disk, ordered key-value base. Production and simulated
//! implementations stand side by side; everything above takes an [`Env`] and asks nothing else.
//!
//! Threads exist only inside the production implementations. Nobody above may call
//! `Instant::now`, spawn a bare task or open a file by another way (`clippy.toml` and
//! `tests/tidy.rs` see to it); the client's local files are the exception.

pub mod base;
pub mod disk;
#[cfg(test)]
mod disk_conformance;
pub mod real;
pub mod sim;

pub use base::{BaseOp, MetaBase, MetaRead};
pub use disk::{Disk, DiskFile, OpenMode, Space, WRITE_ALIGN};

use crate::types::WallTime;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;

/// Monotonic and wall time. Waiting is `tokio::time`, which a simulation controls as well.
pub trait Clock: Send + Sync + 'static {
    /// Monotonic time since an arbitrary origin (the process's start).
    fn now(&self) -> Duration;
    /// How long the machine has slept since an arbitrary origin: the time that passed without
    /// [`now`](Self::now), give or take a millisecond.
    fn slept(&self) -> Duration;
    /// Wall clock; for people, compared nowhere.
    fn wall(&self) -> WallTime;
}

/// Randomness: the operating system's, or a seed's.
pub trait Rng: Send + Sync + 'static {
    fn fill(&self, out: &mut [u8]);

    fn u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn bytes16(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        self.fill(&mut bytes);
        bytes
    }
}

/// Tasks. A task that panics ends the process: half a node is worse than none.
pub trait Spawn: Send + Sync + 'static {
    /// Runs a task to its end; `name` is for logs.
    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>);
    /// Runs blocking or long computing work on a bounded pool of threads (in simulation: a plain
    /// task).
    fn blocking(&self, work: Box<dyn FnOnce() + Send>);
}

/// From a time to the next whole multiple of `every`, which is not that time itself. Timers that
/// end at such times end together: an idle machine wakes once for all of them.
pub fn until_next(time: Duration, every: Duration) -> Duration {
    let every = every.as_nanos().max(1);
    let left = every - time.as_nanos() % every;
    Duration::from_nanos(u64::try_from(left).unwrap_or(u64::MAX))
}

/// What the world outside a node is made of.
#[derive(Clone)]
pub struct Env {
    pub clock: Arc<dyn Clock>,
    pub rng: Arc<dyn Rng>,
    pub spawn: Arc<dyn Spawn>,
    pub disk: Arc<dyn Disk>,
}

impl Env {
    /// Sleeps until the time is a whole multiple of `every`: for loops that look at something now
    /// and then ([`until_next`]).
    pub async fn look_every(&self, every: Duration) {
        tokio::time::sleep(until_next(self.clock.now(), every)).await;
    }

    /// Runs `work` on the blocking pool and waits for its result.
    pub async fn run_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let (send, receive) = tokio::sync::oneshot::channel();
        self.spawn.blocking(Box::new(move || {
            // The waiter may be gone (a cancelled request); its result is not needed then.
            let _ = send.send(work());
        }));
        receive
            .await
            .expect("a blocking task ends by answering or ends the process")
    }
}
