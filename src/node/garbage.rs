//! Garbage: which chunks may go, and their removal.
//!
//! A **census** goes through all stored chunks in order of their hashes, a page at a time. Of
//! those that neither arrived nor were in use for the grace time it asks the shard, by a
//! linearizable read, which are referenced (staged, current, old and deleted contents all are,
//! until their records are cleaned up), and removes the others.
//!
//! # Why no commit loses a chunk
//! A reference to a chunk that nothing referred to comes into being in one way only: a `Stage`,
//! `Commit` or `PutChunk` that names it. (Copies, restored versions and undeleted files refer to
//! what their source refers to in the same entry of the log.) Before the shard's leader proposes
//! one, it asks the chunk's holders for it, or has them store it (`direct`). To say that it is there counts as its arrival at that moment, `A`;
//! the entry carries the shard time `H` of just before the question, and the state machine refuses
//! it, unexecuted, if the entry's own shard time is more than `HOLD_MS` after `H`.
//!
//! A holder removes the chunk under a claim as of a moment `T`. After `T` it asked the shard, which
//! answered from behind an entry `Q` of its log that was proposed for this question. Let `E` be the
//! entry that refers to the chunk, and let it be applied:
//! - **`E` is before `Q` in the log**: the answer saw the reference, and nobody asks for a claim;
//!   unless it was cleaned up again: then the chunk may go;
//! - **`E` is after `Q`**: `E` was proposed after `T`, so `A` is later than `T` less `HOLD_MS` (and
//!   a fifth of it, for clocks that count differently). The grace is longer: there is no claim.
//!   If `A` came while a claim was alive it waited for its end, and found no chunk.
//!
//! A read index instead of `Q` would not do: `E` may be in the leader's log, proposed long ago and
//! not committed, when a read is answered. A claim lives until the removal is done, which runs in a
//! task of its own.
//!
//! So the grace time must be longer than `HOLD_MS`. That it is much longer spares uploads: their
//! chunks arrive long before they are named in a `Stage` or `Commit`.
//!
//! # Times
//! All in the node's monotonic time, the start of the process counts as an arrival of everything.
//! The grace is the `grace` of deleted files, at most 24 hours; `dfs gc --now` asks for none. It
//! is never below one minute, and not below one hour while there is an unfinished upload
//! anywhere in the shard: a page of its manifest may take so long to fill. After `--now` another
//! census follows when each of these times has passed, for what was too young.
//!
//! Memory: one page of hashes, and the pins.

use super::Node;
use super::group::Group;
use super::holders::Held;
use super::peers::odd;
use super::pins::Pins;
use crate::env::Clock;
use crate::error::{Code, Error, Result};
use crate::limits::{GRACE_MS_DEFAULT, REQUEST_TIMEOUT};
use crate::proto::{Look, PeerAnswer, PeerCall};
use crate::shard::command::{HOLD_MS, Op, Request};
use crate::shard::read;
use crate::shard::records::ChunkRef;
use crate::store::chunks::{self, ChunkStore};
use crate::store::overlay::View;
use crate::types::{Ack, ChunkHash, GroupId, ReadLevel, ShardTime};
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The longest grace, whatever the setting for deleted files is.
const GRACE_MAX: Duration = Duration::from_millis(GRACE_MS_DEFAULT);
/// The shortest, while there are unfinished uploads and while there are none.
const GRACE_MIN_UPLOADS: Duration = Duration::from_secs(3_600);
const GRACE_MIN: Duration = Duration::from_secs(60);
const _: () = assert!(GRACE_MIN.as_millis() as u64 > 2 * HOLD_MS);
/// Chunks asked about in one read: each is a short scan.
const PAGE: usize = 256;
/// Removals at once: those of packed chunks share their syncs.
const REMOVALS: usize = 64;
/// How often the worker looks whether a census is due.
const LOOK: Duration = Duration::from_secs(10);
/// How often there is a census: four times within the grace, between these.
const EVERY_MIN: Duration = Duration::from_secs(60);
const EVERY_MAX: Duration = Duration::from_secs(3_600);

/// What the node needs for garbage.
pub struct Garbage {
    pub pins: Arc<Pins>,
    /// One census at a time.
    running: tokio::sync::Mutex<()>,
    /// When the censuses that follow a hurried one are due, in order.
    again: Mutex<Vec<Duration>>,
}

impl Garbage {
    pub fn new(clock: Arc<dyn Clock>) -> Garbage {
        Garbage {
            pins: Pins::new(clock),
            running: tokio::sync::Mutex::default(),
            again: Mutex::default(),
        }
    }

    /// True if a census that follows a hurried one is due.
    fn take_due(&self, now: Duration) -> bool {
        let mut again = self.again.lock();
        let before = again.len();
        again.retain(|due| *due > now);
        again.len() < before
    }
}

/// Whether a census may take what arrived not long ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hurry {
    /// As long as deleted files can be brought back, milliseconds.
    No { grace_ms: u64 },
    /// As short as it can be.
    Now,
}

impl Hurry {
    fn grace(self) -> Grace {
        let wanted = match self {
            Hurry::Now => Duration::ZERO,
            Hurry::No { grace_ms } => Duration::from_millis(grace_ms).min(GRACE_MAX),
        };
        Grace {
            quiet: wanted.max(GRACE_MIN),
            uploads: wanted.max(GRACE_MIN_UPLOADS),
        }
    }
}

/// How long an unused chunk stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Grace {
    /// While nothing is being uploaded; the shorter one.
    quiet: Duration,
    /// While there are unfinished uploads.
    uploads: Duration,
}

/// What one census did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Swept {
    /// Chunks stored.
    pub seen: u64,
    /// Chunks removed, and their bytes.
    pub removed: u64,
    pub bytes: u64,
}

/// An answer about some chunks, of one state of the shard not older than the question.
struct Known {
    /// In the order asked.
    referenced: Vec<bool>,
    /// There are unfinished uploads.
    uploads: bool,
}

/// Who knows which chunks are referenced.
trait References: Send + Sync {
    fn ask(&self, hashes: Vec<ChunkHash>) -> BoxFuture<'_, Result<Known>>;
}

impl References for Node {
    fn ask(&self, hashes: Vec<ChunkHash>) -> BoxFuture<'_, Result<Known>> {
        Box::pin(async move {
            let group = GroupId::FIRST;
            let leads = self.groups.raft(group).is_some_and(|raft| raft.is_leader());
            let answer = match leads {
                true => self.referenced(group, hashes).await?,
                false => {
                    let call = PeerCall::Referenced { group, hashes };
                    self.ask_leader(group, &call, REQUEST_TIMEOUT).await?
                }
            };
            match answer {
                PeerAnswer::Referenced {
                    referenced,
                    uploads,
                } => Ok(Known {
                    referenced,
                    uploads,
                }),
                other => Err(odd(&other)),
            }
        })
    }
}

/// One census.
struct Census<'a> {
    chunks: &'a Arc<ChunkStore>,
    pins: &'a Arc<Pins>,
    references: &'a dyn References,
    clock: &'a dyn Clock,
    grace: Grace,
}

impl Census<'_> {
    /// Goes through all chunks, at half the speed it could, so that users' requests find room.
    async fn run(&self) -> Result<Swept> {
        let mut swept = Swept::default();
        let mut from = Some(ChunkHash([0; 32]));
        while let Some(start) = from {
            let began = self.clock.now();
            let page = self.chunks.list(start, None, PAGE).await?;
            let last = page.last().filter(|_| page.len() >= PAGE);
            from = last.and_then(|(hash, _)| chunks::after(*hash));
            swept.seen += page.len() as u64;
            self.sweep(page, &mut swept).await?;
            tokio::time::sleep(self.clock.now().saturating_sub(began)).await;
        }
        Ok(swept)
    }

    async fn sweep(&self, page: Vec<(ChunkHash, u64)>, swept: &mut Swept) -> Result<()> {
        // Before the read: see the module's argument.
        let as_of = self.clock.now();
        let mut old = page;
        old.retain(|(hash, _)| self.pins.is_old(hash, as_of, self.grace.quiet));
        if old.is_empty() {
            return Ok(());
        }
        let hashes = old.iter().map(|(hash, _)| *hash).collect();
        let known = self.references.ask(hashes).await?;
        let grace = match known.uploads {
            true => self.grace.uploads,
            false => self.grace.quiet,
        };
        let dead = old.into_iter().zip(known.referenced);
        let dead = dead.filter_map(|(chunk, referenced)| (!referenced).then_some(chunk));
        let removals = dead.map(|(hash, len)| async move {
            let Some(claim) = self.pins.claim(hash, as_of, grace) else {
                return Ok(None);
            };
            self.chunks.remove(hash).await?;
            drop(claim);
            Ok::<_, Error>(Some(len))
        });
        let mut removed = stream::iter(removals).buffer_unordered(REMOVALS);
        let mut failed = None;
        // To the end, whatever one of them meets: the others are under way in the store, and their
        // claims must not end before they do.
        while let Some(done) = removed.next().await {
            match done {
                Ok(len) => {
                    swept.removed += u64::from(len.is_some());
                    swept.bytes += len.unwrap_or(0);
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(()), Err)
    }
}

/// Holds a census when one is due; ends with the process.
pub(super) async fn run(node: Arc<Node>) {
    let mut last = node.garbage.pins.start();
    loop {
        tokio::time::sleep(LOOK).await;
        let now = node.env.clock.now();
        let again = node.garbage.take_due(now);
        let hurry = match again {
            true => Hurry::Now,
            false => Hurry::No {
                grace_ms: node.settings().grace_ms,
            },
        };
        let every = (hurry.grace().quiet / 4).clamp(EVERY_MIN, EVERY_MAX);
        if !again && now.saturating_sub(last) < every {
            continue;
        }
        last = now;
        match node.census(hurry).await {
            Ok(_) => {}
            // The queue is full of users' work, or the group has no leader just now.
            Err(error) if matches!(error.code, Code::Busy | Code::Unavailable) => {}
            Err(error) => tracing::warn!(%error, "the census of chunks failed; again later"),
        }
    }
}

impl Node {
    /// Removes chunks that nothing refers to.
    pub(super) async fn census(self: &Arc<Self>, hurry: Hurry) -> Result<Swept> {
        let (send, receive) = tokio::sync::oneshot::channel();
        let node = self.clone();
        // In a task of its own: a claim must not end before its removal.
        let task = async move {
            let _one = node.garbage.running.lock().await;
            let census = Census {
                chunks: &node.chunks,
                pins: &node.garbage.pins,
                references: &*node,
                clock: &*node.env.clock,
                grace: hurry.grace(),
            };
            let swept = census.run().await;
            tracing::info!(?swept, ?hurry, "census of chunks");
            // Whoever gave up waiting needs no answer.
            let _ = send.send(swept);
        };
        self.env.spawn.spawn("census", Box::pin(task));
        receive.await.unwrap_or_else(|_| Err(stopping()))
    }

    /// Removes chunks that nothing refers to now, and what is too young for it as soon as it may
    /// go.
    pub(super) async fn census_now(self: &Arc<Self>) -> Result<()> {
        let now = self.env.clock.now();
        *self.garbage.again.lock() = vec![now + GRACE_MIN, now + GRACE_MIN_UPLOADS];
        self.census(Hurry::Now).await.map(|_| ())
    }

    /// [`Node::census_now`] on every node that answers.
    pub(super) async fn census_everywhere(self: &Arc<Self>) -> Result<()> {
        let view = self.views.now();
        for node in view.members().map(|info| info.node) {
            if node != self.id
                && let Err(error) = self.peers.call(node, &PeerCall::Gc, REQUEST_TIMEOUT).await
            {
                tracing::warn!(%node, %error, "a node was not asked to remove its garbage");
            }
        }
        self.census_now().await
    }

    /// True if the shard refers to a chunk, or will by what is in its log already.
    pub(super) async fn is_referenced_anywhere(&self, hash: ChunkHash) -> Result<bool> {
        let known = self.ask(vec![hash]).await?;
        Ok(known.referenced != [false])
    }

    /// True if the shard remembers an answer to the request, or to a later one of its lane: it
    /// refers to nothing any more.
    pub(super) async fn was_answered(&self, shard: &Group, request: &Request) -> Result<bool> {
        let (session, lane) = (request.session, request.lane);
        let read = move |view: &View| read::lane(view, session, lane);
        let last = shard.read(ReadLevel::Linearizable, read).await?;
        Ok(last.is_some_and(|row| row.seq >= request.seq))
    }

    /// Sees that every chunk that a request would refer to is on as many of its holders as `ack`
    /// wants, and stays there until the request is applied or refused. The shard time of just
    /// before; `None` where it refers to none.
    ///
    /// # Errors
    /// `not_stored` when one is on too few nodes; `unavailable` when no holder answers. A request
    /// that was answered before passes: it refers to nothing any more.
    pub(super) async fn hold_references(
        self: &Arc<Self>,
        shard: &Group,
        request: &Request,
        ack: Ack,
    ) -> Result<Option<ShardTime>> {
        let wanted: Vec<(ChunkHash, Option<u64>)> = referred_to(&request.ops)?
            .into_iter()
            .map(|(hash, len)| (hash, Some(len)))
            .collect();
        if wanted.is_empty() {
            return Ok(None);
        }
        let since = shard.proposer.time();
        let held = self
            .hold_everywhere(&wanted, Look::Known, Some(ack))
            .await?;
        let few = |held: &Held| !held.is_enough(ack);
        let Some(at) = held.iter().position(few) else {
            return Ok(Some(since));
        };
        if self.was_answered(shard, request).await? {
            return Ok(Some(since));
        }
        let (hash, held) = (wanted[at].0, held[at]);
        self.repairs.now();
        let (copies, needed) = (held.copies, ack.needed(held.holders));
        let is_gone = copies + held.silent == 0
            && !self.views.now().misses_owner(&hash)
            && !self.is_with_replacements(hash).await;
        let why = match is_gone {
            true => format!("chunk {hash} is not stored"),
            false => format!("chunk {hash} is on {copies} of {needed} nodes"),
        };
        Err(Error::new(Code::NotStored, why))
    }
}

fn stopping() -> Error {
    Error::unavailable("the node is stopping")
}

/// The chunks that operations would refer to, with their lengths.
fn referred_to(ops: &[Op]) -> Result<BTreeMap<ChunkHash, u64>> {
    let mut wanted = BTreeMap::new();
    for op in ops {
        let (Op::Stage { chunks, .. } | Op::Commit { tail: chunks, .. }) = op else {
            continue;
        };
        for ChunkRef { hash, len } in chunks {
            let len = u64::from(*len);
            if wanted.insert(*hash, len).is_some_and(|other| other != len) {
                return Err(Error::usage(format!("chunk {hash} was given two lengths")));
            }
        }
    }
    Ok(wanted)
}

#[cfg(test)]
#[path = "garbage_tests.rs"]
mod tests;
