//! Tasks on a tokio runtime and blocking work on threads, for `env::real`.

use super::pool::{Pool, abort_process, panic_text};
use crate::env::Spawn;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::panic::AssertUnwindSafe;
use tokio::runtime::Handle;

/// Spawns on a runtime; a task that panics ends the process.
pub struct RealSpawn {
    handle: Handle,
    pool: Pool,
}

impl RealSpawn {
    /// `threads`: the most that run blocking work at once.
    pub fn new(handle: Handle, threads: usize) -> Self {
        RealSpawn {
            handle,
            pool: Pool::new("dfs-work", threads, abort_process),
        }
    }
}

impl Spawn for RealSpawn {
    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) {
        self.handle.spawn(async move {
            if let Err(panic) = AssertUnwindSafe(task).catch_unwind().await {
                abort_process(name, &panic_text(&*panic));
            }
        });
    }

    fn blocking(&self, work: Box<dyn FnOnce() + Send>) {
        self.pool.submit(work);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn a_task_and_blocking_work_run() {
        let spawn = RealSpawn::new(Handle::current(), 2);
        let (send, task) = oneshot::channel();
        spawn.spawn("test", Box::pin(async move { send.send(1).unwrap() }));
        let (send, work) = oneshot::channel();
        spawn.blocking(Box::new(move || send.send(2).unwrap()));
        assert_eq!((task.await, work.await), (Ok(1), Ok(2)));
    }

    #[tokio::test]
    async fn run_blocking_answers_from_a_thread_of_the_pool() {
        let env = crate::env::real::env(Handle::current());
        let name = env
            .run_blocking(|| std::thread::current().name().map(str::to_owned))
            .await;
        assert!(name.unwrap().starts_with("dfs-work-"));
    }
}
