//! Tasks for `env::sim`: plain tokio tasks of the current runtime, no threads.

use crate::env::Spawn;
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use tokio::task::AbortHandle;

/// Spawns on the current runtime, remembers panics, and can stop everything at once as a power
/// cut does. Outside of a runtime blocking work runs in place and tasks cannot be spawned.
#[derive(Default)]
pub struct SimSpawn {
    tasks: Mutex<Tasks>,
    panics: Arc<Mutex<Vec<String>>>,
}

#[derive(Default)]
struct Tasks {
    running: Vec<AbortHandle>,
    /// Finished tasks are swept out when `running` grows to this.
    sweep_at: usize,
    stopped: bool,
}

impl SimSpawn {
    /// Ends all tasks where they wait; later ones are not started.
    pub fn stop(&self) {
        let mut tasks = self.tasks.lock();
        tasks.stopped = true;
        for task in tasks.running.drain(..) {
            task.abort();
        }
    }

    /// `task: message` of every task that panicked; in production the first ends the process.
    pub fn panics(&self) -> Vec<String> {
        self.panics.lock().clone()
    }

    #[allow(clippy::disallowed_methods)] // This is the spawner that everything else asks.
    fn start(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock();
        if tasks.stopped {
            return;
        }
        let panics = self.panics.clone();
        let running = tokio::spawn(async move {
            if let Err(panic) = AssertUnwindSafe(task).catch_unwind().await {
                let text = match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
                    (Some(text), _) => text,
                    (_, Some(text)) => text.as_str(),
                    _ => "a panic without a text",
                };
                panics.lock().push(format!("{name}: {text}"));
            }
        });
        tasks.running.push(running.abort_handle());
        if tasks.running.len() >= tasks.sweep_at {
            tasks.running.retain(|task| !task.is_finished());
            tasks.sweep_at = (2 * tasks.running.len()).max(64);
        }
    }
}

impl Spawn for SimSpawn {
    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) {
        self.start(name, task);
    }

    fn blocking(&self, work: Box<dyn FnOnce() + Send>) {
        if tokio::runtime::Handle::try_current().is_err() {
            return work();
        }
        self.start("blocking work", async move { work() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::sim;

    #[tokio::test]
    async fn a_panic_of_a_task_is_remembered() {
        let (env, handles) = sim::env(1);
        let (send, receive) = tokio::sync::oneshot::channel::<()>();
        env.spawn.spawn(
            "weak",
            Box::pin(async move {
                let _held = send;
                panic!("broken")
            }),
        );
        // The sender is dropped by the panic.
        receive.await.unwrap_err();
        tokio::task::yield_now().await;
        assert_eq!(handles.spawn.panics(), ["weak: broken"]);
    }

    #[tokio::test]
    async fn after_stop_nothing_runs() {
        let (env, handles) = sim::env(1);
        let (send, receive) = tokio::sync::oneshot::channel::<()>();
        env.spawn.spawn(
            "endless",
            Box::pin(async move {
                let _held = send;
                std::future::pending().await
            }),
        );
        handles.spawn.stop();
        receive.await.unwrap_err();
        env.spawn
            .spawn("late", Box::pin(async { panic!("started") }));
        tokio::task::yield_now().await;
        assert!(handles.spawn.panics().is_empty());
    }

    #[test]
    fn blocking_work_outside_a_runtime_runs_in_place() {
        let (env, _) = sim::env(1);
        assert_eq!(env.run_blocking(|| 7).now_or_never(), Some(7));
    }
}
