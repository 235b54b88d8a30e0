//! Read barriers, shared: many readers, one question to the quorum. Called by
//! `RaftGroup::read_barrier`; knows openraft's read index and nothing of reads.
//!
//! Invariant: a reader is answered by a question that was asked after the reader came. A reader
//! that comes while one is under way waits for the next.

use super::kinds::Types;
use super::machine::Machine;
use super::refusal;
use crate::error::{Code, Error, Result};
use crate::limits;
use openraft::errors::{LinearizableReadError, RaftError};
use openraft::{Raft, ReadPolicy};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// How long the state machine may take to reach the read index.
const APPLY_TIMEOUT: Duration = limits::REQUEST_TIMEOUT;
/// Readers waiting at one group; beyond it the answer is `busy`.
const READERS_MAX: usize = limits::PROPOSALS_QUEUED_MAX;

type Reader = oneshot::Sender<Result<()>>;

/// Whether readers wait for the quorum right now. openraft asks it by the same messages that are
/// signs of life otherwise; while somebody waits for the answers they must not be held back.
#[derive(Clone, Default)]
pub(super) struct Asking(Arc<AtomicBool>);

impl Asking {
    pub(super) fn now(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, asking: bool) {
        self.0.store(asking, Ordering::Relaxed);
    }
}

/// Where readers queue; the task that serves them ends with it.
pub(super) struct Barrier {
    queue: mpsc::Sender<Reader>,
}

impl Barrier {
    /// The queue, and the task that serves it.
    pub(super) fn new(
        raft: Raft<Types, Machine>,
        asking: Asking,
    ) -> (Barrier, impl Future<Output = ()> + Send + 'static) {
        let (queue, readers) = mpsc::channel(READERS_MAX);
        (Barrier { queue }, serve(raft, readers, asking))
    }

    /// Waits for a read index that was asked for after this call.
    pub(super) async fn pass(&self) -> Result<()> {
        let (reader, passed) = oneshot::channel();
        self.queue.try_send(reader).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => Error::new(Code::Busy, "too many readers wait"),
            mpsc::error::TrySendError::Closed(_) => refusal::stopped(),
        })?;
        passed.await.map_err(|_| refusal::stopped())?
    }
}

async fn serve(raft: Raft<Types, Machine>, mut readers: mpsc::Receiver<Reader>, asking: Asking) {
    let mut batch = Vec::new();
    while readers.recv_many(&mut batch, READERS_MAX).await > 0 {
        let outcome = ask(&raft, &asking).await;
        for reader in batch.drain(..) {
            // A reader that was cancelled needs no answer.
            let _ = reader.send(outcome.clone());
        }
    }
}

async fn ask(raft: &Raft<Types, Machine>, asking: &Asking) -> Result<()> {
    asking.set(true);
    let index = raft.get_read_linearizer(ReadPolicy::ReadIndex).await;
    asking.set(false);
    let index = index.map_err(|e| match e {
        RaftError::APIError(LinearizableReadError::ForwardToLeader(leader)) => {
            refusal::not_leader(&leader)
        }
        RaftError::APIError(LinearizableReadError::QuorumNotEnough(quorum)) => {
            refusal::no_quorum(&quorum)
        }
        RaftError::Fatal(fatal) => refusal::fatal(&fatal),
    })?;
    match index.try_await_ready(raft, Some(APPLY_TIMEOUT)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(behind)) => Err(Error::unavailable(format!(
            "the replica did not catch up within {APPLY_TIMEOUT:?} ({behind})"
        ))),
        Err(fatal) => Err(refusal::fatal(&fatal)),
    }
}
