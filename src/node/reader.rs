//! Reads of one group, gathered: all that wait share one read barrier and one view.
//!
//! A read is answered from a view taken after a barrier that began after the read arrived, so it
//! shows everything that was acknowledged before it (invariant 2 of the system). The reads
//! themselves run on the blocking pool, because a page fault of the base must not hold up a
//! thread that serves connections.

use super::machine::Machine;
use crate::env::Env;
use crate::error::{Code, Error, Result};
use crate::raft::RaftGroup;
use crate::store::overlay::View;
use crate::types::ReadLevel;
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Reads that may wait; beyond it the answer is `busy`.
const QUEUED_MAX: usize = 8_192;
/// Reads of one view: bounds how long the view lives.
const GATHERED_MAX: usize = 128;
/// Batches at work at once.
const BATCHES_MAX: usize = 3;

/// Reads; what it returns hands the answer over.
type Job = Box<dyn FnOnce(Result<&View>) -> Delivery + Send>;
type Delivery = Box<dyn FnOnce() + Send>;

/// Stale reads at work at once: they must leave threads to the others.
const STALE_MAX: usize = 2;

/// The queue of one group's reads.
pub struct Reader {
    /// Stale reads that wait or are at work.
    waiting: Semaphore,
    /// Those at work.
    stale: Semaphore,
    fresh: mpsc::Sender<Job>,
    env: Env,
    machine: Arc<Machine>,
}

impl Reader {
    pub fn start(env: &Env, raft: Arc<RaftGroup>, machine: Arc<Machine>) -> Reader {
        let (send, receive) = mpsc::channel(QUEUED_MAX);
        let task = serve(env.clone(), raft, machine.clone(), receive);
        env.spawn.spawn("reads", Box::pin(task));
        Reader {
            waiting: Semaphore::new(QUEUED_MAX),
            stale: Semaphore::new(STALE_MAX),
            fresh: send,
            env: env.clone(),
            machine,
        }
    }

    /// Runs one read as fresh as asked.
    ///
    /// # Errors
    /// `busy` when too many wait; what the barrier or the read says.
    pub async fn read<T: Send + 'static>(
        &self,
        level: ReadLevel,
        read: impl FnOnce(&View) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        // Nobody knows how old a follower's state is: a bounded age is had from the leader.
        if level == ReadLevel::Stale {
            let _waits = self.waiting.try_acquire().map_err(|_| too_many())?;
            let _turn = self.stale.acquire().await.expect("never closed");
            let machine = self.machine.clone();
            return self.env.run_blocking(move || read(&machine.view()?)).await;
        }
        let (send, receive) = oneshot::channel();
        let job: Job = Box::new(move |view| {
            let answer = view.and_then(read);
            Box::new(move || {
                // The caller may have given up; nobody misses the answer then.
                let _ = send.send(answer);
            })
        });
        self.fresh.try_send(job).map_err(|_| too_many())?;
        receive
            .await
            .map_err(|_| Error::unavailable("the node is stopping"))?
    }
}

fn too_many() -> Error {
    Error::new(Code::Busy, "too many reads wait on this node").hint("try again")
}

async fn serve(
    env: Env,
    raft: Arc<RaftGroup>,
    machine: Arc<Machine>,
    mut queue: mpsc::Receiver<Job>,
) {
    let batches = Arc::new(Semaphore::new(BATCHES_MAX));
    while let Some(first) = queue.recv().await {
        let permit = batches.clone().acquire_owned().await.expect("never closed");
        let mut jobs = vec![first];
        while jobs.len() < GATHERED_MAX
            && let Ok(job) = queue.try_recv()
        {
            jobs.push(job);
        }
        let (raft, machine, env2) = (raft.clone(), machine.clone(), env.clone());
        env.spawn.spawn(
            "read batch",
            Box::pin(async move {
                let barrier = raft.read_barrier().await;
                env2.run_blocking(move || {
                    let view = barrier.and_then(|()| machine.view());
                    let read = |job: Job| job(view.as_ref().map_err(Clone::clone));
                    // All at once: the callers that wake together send together.
                    let answers: Vec<Delivery> = jobs.into_iter().map(read).collect();
                    answers.into_iter().for_each(|deliver| deliver());
                })
                .await;
                drop(permit);
            }),
        );
    }
}
