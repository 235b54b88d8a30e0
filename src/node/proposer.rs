//! Proposals of one shard, gathered: requests that arrive while entries are on their way share
//! the next log entry. Stamps each entry with shard time and wall clock.

use super::clock::GroupClock;
use crate::codec;
use crate::env::Env;
use crate::error::{Code, Error, Result};
use crate::limits::{ENTRY_BYTES_MAX, ENTRY_ITEMS_MAX, PROPOSALS_QUEUED_MAX};
use crate::raft::RaftGroup;
use crate::shard::command::{Applied, Chore, ChoreDone, Command, Proposal, Request};
use crate::shard::records::Outcome;
use crate::store::overlay::MetaStore;
use crate::types::{Revision, ShardTime};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Entries of one shard on their way at once: one is being synced while the next is gathered.
const ENTRIES_IN_FLIGHT: usize = 3;

/// Bytes of one entry's requests: what is stamped around them fits into the rest of the entry.
const GATHERED_BYTES_MAX: usize = ENTRY_BYTES_MAX - (64 << 10);
/// Bytes of one request beside what its client encoded: numbers grow, names are filled in.
const REQUEST_EXTRA_BYTES: usize = 64;
/// So many references that a copy makes count as one operation: an entry that is full of them makes
/// as many records as fit into memory many times over.
const CHUNKS_AN_ITEM: usize = 64;
/// Bytes of requests that may wait; beyond it the answer is `busy`.
const QUEUED_BYTES_MAX: usize = 64 << 20;

/// Answers one request: the outcome of each of its operations and the shard's time.
type Answered = Result<(Vec<Outcome>, ShardTime)>;

enum Work {
    Request {
        request: Request,
        bytes: usize,
        items: usize,
        answer: oneshot::Sender<Answered>,
    },
    Chore {
        chore: Chore,
        answer: oneshot::Sender<Result<ChoreDone>>,
    },
}

/// The queue in front of one shard's log.
pub struct Proposer {
    queue: mpsc::Sender<Work>,
    /// Of the requests in the queue.
    queued_bytes: Arc<AtomicUsize>,
    store: Arc<MetaStore>,
    time: Arc<GroupClock>,
}

impl Proposer {
    pub fn start(env: &Env, raft: Arc<RaftGroup>, store: Arc<MetaStore>) -> Proposer {
        let (send, receive) = mpsc::channel(PROPOSALS_QUEUED_MAX);
        let time = Arc::new(GroupClock::new(env));
        let queued_bytes = Arc::new(AtomicUsize::new(0));
        let task = gather(
            env.clone(),
            raft,
            time.clone(),
            receive,
            queued_bytes.clone(),
        );
        env.spawn.spawn("proposals", Box::pin(task));
        Proposer {
            queue: send,
            queued_bytes,
            store,
            time,
        }
    }

    /// Counts on from this, the newest value in the state.
    pub fn set_time(&self, time: ShardTime) {
        self.time.set(time);
    }

    /// The shard's time as this node counts it.
    pub fn time(&self) -> ShardTime {
        self.time.now()
    }

    /// Proposes a request and waits until it is applied. Its copies refer to `copied` chunks.
    ///
    /// # Errors
    /// `busy` or `redirect` when it certainly was not proposed; an error with
    /// `may_have_happened` when its outcome is open. Refusals are outcomes, not errors.
    pub async fn propose(&self, request: Request, bytes: usize, copied: u64) -> Answered {
        let bytes = bytes + request.user.len() + request.group.len() + REQUEST_EXTRA_BYTES;
        if bytes > GATHERED_BYTES_MAX {
            return Err(Error::usage(format!(
                "a request of {bytes} bytes is too large"
            )));
        }
        let copies = usize::try_from(copied).unwrap_or(usize::MAX) / CHUNKS_AN_ITEM;
        let (answer, receive) = oneshot::channel();
        self.enqueue(Work::Request {
            items: request.ops.len().saturating_add(copies),
            request,
            bytes,
            answer,
        })?;
        receive.await.unwrap_or_else(|_| Err(stopping()))
    }

    /// Returns after an entry that was proposed after this call is applied: everything that was in
    /// the leader's log before is applied then too.
    pub async fn barrier(&self) -> Result<()> {
        let nothing = Chore::TrimChanges {
            upto: Revision(0),
            rows: 1,
        };
        self.chore(nothing).await.map(drop)
    }

    /// Proposes one bounded piece of the shard's own work.
    pub async fn chore(&self, chore: Chore) -> Result<ChoreDone> {
        let (answer, receive) = oneshot::channel();
        self.enqueue(Work::Chore { chore, answer })?;
        receive.await.unwrap_or_else(|_| Err(stopping()))
    }

    fn enqueue(&self, work: Work) -> Result<()> {
        let busy = |why: &str| Err(Error::new(Code::Busy, why.to_owned()).hint("try again"));
        if self.store.is_full() {
            return busy("the node is still writing earlier changes to disk");
        }
        let (_, bytes) = Gathered::size(&work);
        let queued = self.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        if queued + bytes > QUEUED_BYTES_MAX || self.queue.try_send(work).is_err() {
            self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            return busy("too many changes wait on this shard");
        }
        Ok(())
    }
}

fn stopping() -> Error {
    Error::unavailable("the node is stopping").unknown_outcome()
}

async fn gather(
    env: Env,
    raft: Arc<RaftGroup>,
    time: Arc<GroupClock>,
    mut queue: mpsc::Receiver<Work>,
    queued_bytes: Arc<AtomicUsize>,
) {
    let in_flight = Arc::new(Semaphore::new(ENTRIES_IN_FLIGHT));
    let mut held: Option<Work> = None;
    loop {
        let Some(first) = (match held.take() {
            Some(work) => Some(work),
            None => queue.recv().await,
        }) else {
            return;
        };
        let permit = in_flight
            .clone()
            .acquire_owned()
            .await
            .expect("never closed");
        let mut batch = Gathered::default();
        batch.add(first);
        while batch.has_room() {
            match queue.try_recv() {
                Ok(work) if batch.fits(&work) => batch.add(work),
                Ok(work) => {
                    held = Some(work);
                    break;
                }
                Err(_) => break,
            }
        }
        queued_bytes.fetch_sub(batch.bytes, Ordering::Relaxed);
        let (raft, time, wall) = (raft.clone(), time.clone(), env.clock.wall());
        let proposal = Proposal {
            time: time.now(),
            wall,
            requests: batch.requests,
            chores: batch.chores,
        };
        let stamped = proposal.time;
        let command = codec::encode(&Command::Propose(proposal)).into();
        let mut proposing = Box::pin(async move { raft.propose(command).await });
        // Begun here, so that entries reach the log in the order of the queue and of their times:
        // `garbage` counts on it.
        let begun = futures::poll!(&mut proposing);
        let waiting = async move {
            let reply = match begun {
                Poll::Ready(reply) => reply,
                Poll::Pending => proposing.await,
            };
            drop(permit);
            answer(reply, stamped, batch.answers, batch.chore_answers);
        };
        env.spawn.spawn("proposal", Box::pin(waiting));
    }
}

#[derive(Default)]
struct Gathered {
    requests: Vec<Request>,
    chores: Vec<Chore>,
    answers: Vec<oneshot::Sender<Answered>>,
    chore_answers: Vec<oneshot::Sender<Result<ChoreDone>>>,
    items: usize,
    bytes: usize,
}

impl Gathered {
    fn size(work: &Work) -> (usize, usize) {
        match work {
            Work::Request { items, bytes, .. } => (*items, *bytes),
            // A chore writes as much as many operations do.
            Work::Chore { .. } => (ENTRY_ITEMS_MAX / 4, 0),
        }
    }

    fn has_room(&self) -> bool {
        self.items < ENTRY_ITEMS_MAX && self.bytes < GATHERED_BYTES_MAX
    }

    fn fits(&self, work: &Work) -> bool {
        let (items, bytes) = Self::size(work);
        self.items.saturating_add(items) <= ENTRY_ITEMS_MAX
            && self.bytes + bytes <= GATHERED_BYTES_MAX
    }

    fn add(&mut self, work: Work) {
        let (items, bytes) = Self::size(&work);
        self.items = self.items.saturating_add(items);
        self.bytes += bytes;
        match work {
            Work::Request {
                request, answer, ..
            } => {
                self.requests.push(request);
                self.answers.push(answer);
            }
            Work::Chore { chore, answer } => {
                self.chores.push(chore);
                self.chore_answers.push(answer);
            }
        }
    }
}

/// Hands each waiter its part. A waiter that has gone is not missed: its session knows.
fn answer(
    reply: Result<crate::raft::Reply>,
    time: ShardTime,
    answers: Vec<oneshot::Sender<Answered>>,
    chores: Vec<oneshot::Sender<Result<ChoreDone>>>,
) {
    let applied = reply.map(|reply| {
        *reply
            .downcast::<Applied>()
            .expect("a shard's machine answers a proposal with Applied")
    });
    match applied {
        Err(error) => {
            answers
                .into_iter()
                .for_each(|to| drop(to.send(Err(error.clone()))));
            chores
                .into_iter()
                .for_each(|to| drop(to.send(Err(error.clone()))));
        }
        Ok(applied) => {
            for (to, outcomes) in answers.into_iter().zip(applied.requests) {
                let _ = to.send(Ok((outcomes, time)));
            }
            for (to, done) in chores.into_iter().zip(applied.chores) {
                let _ = to.send(Ok(done));
            }
        }
    }
}
