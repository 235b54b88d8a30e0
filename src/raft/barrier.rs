//! Read barriers, shared: many readers, one look at the lease or one question to the quorum. Called
//! by `RaftGroup::read_barrier`; knows openraft's read index and nothing of reads.
//!
//! Invariant: a reader is answered by a look or a question that came after the reader. A reader
//! that comes while one is under way waits for the next. Why a lease is safe stands in
//! `raft/mod.rs`.

use super::kinds::Types;
use super::machine::Machine;
use super::refusal;
use super::status::Timers;
use crate::env::Clock;
use crate::error::{Code, Error, Result};
use crate::limits;
use openraft::errors::{LinearizableReadError, RaftError};
use openraft::raft::linearizable_read::Linearizer;
use openraft::{LinearizerOption, Raft, ReadPolicy};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// How long the state machine may take to reach the read index.
const APPLY_TIMEOUT: Duration = limits::REQUEST_TIMEOUT;
/// Readers waiting at one group; beyond it the answer is `busy`.
const READERS_MAX: usize = limits::PROPOSALS_QUEUED_MAX;

/// A machine that slept for longer than this in one go has slept: less may be the time between the
/// two clocks' being asked.
const SLEPT_AT_LEAST: Duration = Duration::from_millis(1);

type Reader = oneshot::Sender<Result<()>>;
type Index = std::result::Result<Linearizer<Types>, RaftError<Types, LinearizableReadError<Types>>>;

/// For how long after a majority heard this leader it may answer without asking again; not at all
/// if leases are off. A twelfth of the shortest election timeout, 20 ms: many readers share one
/// question then, which is all that a longer one would give them, and a minority that was just cut
/// off refuses reads as soon as one could try. Clocks may run at rates that differ by far more than
/// half, and still nobody else leads that soon.
pub(super) fn lease(timers: Timers) -> Duration {
    match timers.lease_reads {
        true => timers.election_min / 12,
        false => Duration::ZERO,
    }
}

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
    /// The queue, and the task that serves it. A `lease` of zero asks the quorum every time.
    pub(super) fn new(
        raft: Raft<Types, Machine>,
        asking: Asking,
        clock: Arc<dyn Clock>,
        lease: Duration,
    ) -> (Barrier, impl Future<Output = ()> + Send + 'static) {
        let (queue, readers) = mpsc::channel(READERS_MAX);
        let slept = clock.slept();
        let asker = Asker {
            raft,
            asking,
            clock,
            lease,
            slept,
        };
        (Barrier { queue }, asker.serve(readers))
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

/// Serves the queue.
struct Asker {
    raft: Raft<Types, Machine>,
    asking: Asking,
    clock: Arc<dyn Clock>,
    lease: Duration,
    /// How long the machine had slept when the quorum was asked last.
    slept: Duration,
}

impl Asker {
    async fn serve(mut self, mut readers: mpsc::Receiver<Reader>) {
        let mut batch = Vec::new();
        while readers.recv_many(&mut batch, READERS_MAX).await > 0 {
            let outcome = self.pass().await;
            for reader in batch.drain(..) {
                // A reader that was cancelled needs no answer.
                let _ = reader.send(outcome.clone());
            }
        }
    }

    async fn pass(&mut self) -> Result<()> {
        let index = match self.under_lease().await {
            Some(index) => index,
            None => self.ask().await.map_err(|e| match e {
                RaftError::APIError(LinearizableReadError::ForwardToLeader(leader)) => {
                    refusal::not_leader(&leader)
                }
                RaftError::APIError(LinearizableReadError::QuorumNotEnough(quorum)) => {
                    refusal::no_quorum(&quorum)
                }
                RaftError::Fatal(fatal) => refusal::fatal(&fatal),
            })?,
        };
        match index.try_await_ready(&self.raft, Some(APPLY_TIMEOUT)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(behind)) => Err(Error::unavailable(format!(
                "the replica did not catch up within {APPLY_TIMEOUT:?} ({behind})"
            ))),
            Err(fatal) => Err(refusal::fatal(&fatal)),
        }
    }

    /// The read index, if a majority heard this leader within the lease.
    async fn under_lease(&self) -> Option<Linearizer<Types>> {
        if self.lease.is_zero() {
            return None;
        }
        let heard =
            LinearizerOption::new(Some(self.lease), false).with_wait_timeout(Duration::ZERO);
        let index = self.raft.get_read_linearizer(heard).await.ok()?;
        // Asked after the look: a sleep before it is seen, one behind it does no harm. openraft's
        // clock stands still in the machine's sleep, the others' do not.
        let slept = self.clock.slept().saturating_sub(self.slept);
        (slept < SLEPT_AT_LEAST).then_some(index)
    }

    /// The read index, once a majority has said that this replica leads.
    async fn ask(&mut self) -> Index {
        // The lesser of two: a pause within one makes it more, and would hide a sleep later.
        let slept = self.clock.slept().min(self.clock.slept());
        self.asking.set(true);
        let index = self.raft.get_read_linearizer(ReadPolicy::ReadIndex).await;
        self.asking.set(false);
        if index.is_ok() {
            self.slept = slept;
        }
        index
    }
}
