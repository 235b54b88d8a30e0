//! Keeps on this node the chunks that belong here: asks the shards what is referenced, fetches
//! what is missing, lets go of what belongs elsewhere (`surplus`). Movement after a change of the
//! ring, repair after the loss of a node or of a copy, and the count of what is missing are one
//! thing.
//!
//! A **pass** goes through all chunks that this node should hold under the newest epoch, in order
//! of their hashes. It begins anew when the epoch or the set of silent nodes changes. A pass that
//! found everything, or fetched it, settles the epoch for this node: the root group's leader closes
//! older epochs when all nodes have said so.
//!
//! A chunk that is **lost** does not keep an epoch open: every node of the cluster, those of older
//! epochs and silent ones too, was asked under the newest epoch and has said that it has no whole
//! copy. So a reader finds no more by asking the owners of older epochs; and what is put again comes
//! to the owners of the newest one. One node that cannot be asked is enough for a chunk to count as
//! missing instead.

use super::Node;
use super::copies::is_lost;
use super::passes::{Pass, Pauses};
use super::peers::odd;
use super::view::View;
use crate::error::{Code, Error, Result};
use crate::proto::{Look, PeerAnswer, PeerCall, RepairView};
use crate::shard::command::HOLD_MS;
use crate::types::{ChunkHash, Epoch, GroupId, NodeId};
use futures::future::select;
use futures::{StreamExt, stream};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// How often the ring is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// After a hint that a copy is missing somewhere: many come at once.
const HINT_AFTER: Duration = Duration::from_secs(1);
/// References asked for at once.
const PAGE: u32 = 10_000;
/// Chunks fetched at once: enough to keep several other nodes busy, few enough to leave room for
/// users' work.
const FETCHES: usize = 4;
/// One question.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);
/// A node is told that something is missing on it.
const TELL_TIMEOUT: Duration = Duration::from_millis(500);
/// Chunks that are fetched at once because a reader met damage; more wait for the next pass.
const URGENT_MAX: usize = 1_024;

/// A damaged copy that nothing refers to goes so long after its last use: whoever asked for it
/// before it was found damaged may still refer to it.
const DAMAGED_GRACE: Duration = Duration::from_secs(30);
const _: () = assert!(DAMAGED_GRACE.as_millis() as u64 * 2 >= HOLD_MS * 3);
/// A damaged copy that could not be replaced is looked at again after so long, or a bit more: two
/// nodes that have one must not keep each other busy.
const DOUBTFUL_AGAIN: Duration = Duration::from_secs(5);
const DOUBTFUL_SPREAD_MS: u64 = 2_000;

/// How far this node is.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    wanted: u64,
    missing: u64,
    lost: u64,
    surplus: u64,
    copied: u64,
    copied_bytes: u64,
    /// When the last whole pass ended.
    counted: Option<Duration>,
    running: bool,
    settled: Epoch,
}

/// What the node knows of its own copies.
#[derive(Default)]
pub struct Repairs {
    progress: Mutex<Progress>,
    urgent: Mutex<Vec<ChunkHash>>,
    /// Damaged copies that no other node replaced, and when to look again.
    doubtful: Mutex<BTreeMap<ChunkHash, Duration>>,
    hinted: AtomicBool,
    /// Nodes that are to look for what is missing on them.
    to_tell: Mutex<BTreeSet<NodeId>>,
    wake: Notify,
}

impl Repairs {
    /// Copies that belong on these nodes were not made, or were not found there: they are told.
    pub fn missed(&self, nodes: impl IntoIterator<Item = NodeId>) {
        self.to_tell.lock().extend(nodes);
    }

    /// A copy that belongs here was not there, or damaged.
    pub fn urgent(&self, hash: ChunkHash) {
        let mut urgent = self.urgent.lock();
        if urgent.len() < URGENT_MAX && !urgent.contains(&hash) {
            urgent.push(hash);
        }
        self.wake.notify_one();
    }

    /// Begin a pass now.
    pub fn now(&self) {
        self.hinted.store(true, Ordering::Relaxed);
        self.wake.notify_one();
    }

    /// The newest epoch under which everything that belongs here was here, or nowhere.
    pub fn settled(&self) -> Epoch {
        self.progress.lock().settled
    }

    /// So many surplus copies are still here.
    pub(super) fn left_over(&self, copies: u64) {
        self.progress.lock().surplus = copies;
    }

    /// For operators.
    pub fn view(&self, node: NodeId, now: Duration) -> RepairView {
        let progress = *self.progress.lock();
        let ago = |at| u64::try_from(now.saturating_sub(at).as_millis()).unwrap_or(u64::MAX);
        RepairView {
            node,
            wanted: progress.wanted,
            missing: progress.missing,
            lost: progress.lost,
            surplus: progress.surplus,
            copied: progress.copied,
            copied_bytes: progress.copied_bytes,
            counted_ms_ago: progress.counted.map(ago),
            running: progress.running,
        }
    }
}

/// What a pass is made under; another one makes it worthless.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Terms {
    epoch: Epoch,
    offline: BTreeSet<NodeId>,
}

impl Terms {
    pub fn of(view: &View) -> Terms {
        Terms {
            epoch: view.newest_epoch(),
            offline: view.offline.clone(),
        }
    }
}

/// Repairs until the process ends.
pub(super) async fn run(node: Arc<Node>) {
    let mut done: Option<Terms> = None;
    let mut next = Duration::ZERO;
    let mut pauses = Pauses::default();
    let mut lacking = Lacking::default();
    loop {
        // A hint wakes earlier.
        let hint = node.repairs.wake.notified();
        select(pin!(hint), pin!(node.env.look_every(LOOK))).await;
        node.fetch_urgent().await;
        node.settle_doubtful().await;
        node.tell_others().await;
        let now = node.env.clock.now();
        if node.repairs.hinted.swap(false, Ordering::Relaxed) {
            next = next.min(now + HINT_AFTER);
        }
        let terms = Terms::of(&node.views.now());
        let anew = done.as_ref() != Some(&terms);
        if !anew && now < next && !lacking.is_better(&node).await {
            continue;
        }
        node.repairs.progress.lock().running = true;
        let passed = node.pass(&terms).await;
        node.repairs.progress.lock().running = false;
        let pause = match passed {
            Ok(pass) => {
                let pause = pauses.after(&pass, anew);
                lacking = Lacking {
                    space: node.must_have_space().is_ok(),
                    chunks: pass.named,
                };
                pause
            }
            Err(error) => {
                tracing::debug!(%error, "a pass over this node's chunks broke off");
                pauses.after_broken(anew)
            }
        };
        next = node.env.clock.now() + pause;
        done = Some(terms);
    }
}

/// What the last pass left to be done, as far as another pass can be worth it at once.
#[derive(Default)]
struct Lacking {
    /// Some of the chunks that were missing, with their lengths.
    chunks: Vec<(ChunkHash, u32)>,
    /// There was space for them.
    space: bool,
}

impl Lacking {
    /// There is space now, or one of the chunks has come by itself.
    async fn is_better(&self, node: &Node) -> bool {
        if self.chunks.is_empty() {
            return false;
        }
        if !self.space && node.must_have_space().is_ok() {
            return true;
        }
        let missing = node.not_here(self.chunks.clone()).await;
        missing.is_ok_and(|missing| missing.len() < self.chunks.len())
    }
}

impl Node {
    /// One pass; `Err` when it could not be finished under its terms.
    async fn pass(self: &Arc<Self>, terms: &Terms) -> Result<Pass> {
        let mut pass = Pass::default();
        for group in self.shards() {
            let mut from = Some(ChunkHash([0; 32]));
            while let Some(start) = from {
                if Terms::of(&self.views.now()) != *terms {
                    return Err(Error::new(Code::Busy, "the ring has changed"));
                }
                let began = self.env.clock.now();
                let (chunks, next) = self.wanted_here(group, start, terms.epoch).await?;
                from = next;
                pass.wanted += chunks.len() as u64;
                let missing = self.not_here(chunks).await?;
                let looked = self.env.clock.now().saturating_sub(began);
                self.fetch_all(missing, &mut pass).await;
                // At half the speed it could have, so that users' requests find room.
                tokio::time::sleep(looked).await;
            }
        }
        {
            let now = self.env.clock.now();
            let mut progress = self.repairs.progress.lock();
            progress.wanted = pass.wanted;
            progress.missing = pass.missing;
            progress.lost = pass.lost;
            progress.counted = Some(now);
            if pass.is_settled() {
                progress.settled = progress.settled.max(terms.epoch);
            }
        }
        if pass.is_settled() {
            self.beat_now.notify_one();
        }
        self.drop_surplus(terms, &mut pass).await?;
        Ok(pass)
    }

    /// The shards there are.
    fn shards(&self) -> Vec<GroupId> {
        vec![GroupId::FIRST]
    }

    async fn wanted_here(
        self: &Arc<Self>,
        group: GroupId,
        from: ChunkHash,
        epoch: Epoch,
    ) -> Result<(Vec<(ChunkHash, u32)>, Option<ChunkHash>)> {
        let leads = self.groups.raft(group).is_some_and(|raft| raft.is_leader());
        let answer = match leads {
            true => self.wanted_of(group, self.id, from, PAGE, epoch).await?,
            false => {
                let call = PeerCall::Wanted {
                    group,
                    from,
                    limit: PAGE,
                    epoch,
                };
                self.ask_leader(group, &call, ASK_TIMEOUT).await?
            }
        };
        match answer {
            PeerAnswer::Wanted { chunks, next } => Ok((chunks, next)),
            other => Err(odd(&other)),
        }
    }

    /// Those of these chunks that are not here.
    async fn not_here(&self, chunks: Vec<(ChunkHash, u32)>) -> Result<Vec<(ChunkHash, u32)>> {
        let hashes = chunks.iter().map(|(hash, _)| *hash).collect();
        let stored = self.chunks.have_many(hashes).await?;
        let missing = chunks
            .into_iter()
            .zip(stored)
            .filter(|((_, len), stored)| *stored != Some(u64::from(*len)))
            .map(|(chunk, _)| chunk);
        Ok(missing.collect())
    }

    async fn fetch_all(self: &Arc<Self>, missing: Vec<(ChunkHash, u32)>, pass: &mut Pass) {
        let mut fetches = stream::iter(missing)
            .map(|(hash, len)| async move { (len, self.fetch(hash, len).await, hash) })
            .buffer_unordered(FETCHES);
        while let Some((len, fetched, hash)) = fetches.next().await {
            match fetched {
                Ok(()) => {
                    pass.moved += 1;
                    let mut progress = self.repairs.progress.lock();
                    progress.copied += 1;
                    progress.copied_bytes += u64::from(len);
                }
                Err(error) => {
                    pass.lacks(hash, len, is_lost(&error));
                    tracing::debug!(%hash, %error, "a chunk could not be fetched");
                }
            }
        }
    }

    /// Tells other nodes that something is missing on them. One that is down looks by itself when
    /// it is back.
    async fn tell_others(self: &Arc<Self>) {
        let nodes = std::mem::take(&mut *self.repairs.to_tell.lock());
        for node in nodes {
            if node == self.id {
                self.repairs.now();
                continue;
            }
            let told = self.peers.call(node, &PeerCall::RepairNow, TELL_TIMEOUT);
            if told.await.is_err() && !self.views.now().is_down(node) {
                self.repairs.to_tell.lock().insert(node);
            }
        }
    }

    /// Fetches what readers missed here.
    async fn fetch_urgent(self: &Arc<Self>) {
        let urgent = std::mem::take(&mut *self.repairs.urgent.lock());
        for hash in urgent {
            if let Err(error) = self.fetch_known(hash).await {
                tracing::debug!(%hash, %error, "a damaged copy could not be replaced");
                self.look_again(hash);
            }
        }
    }

    fn look_again(&self, hash: ChunkHash) {
        let spread = Duration::from_millis(self.env.rng.u64() % DOUBTFUL_SPREAD_MS);
        let at = self.env.clock.now() + DOUBTFUL_AGAIN + spread;
        let mut doubtful = self.repairs.doubtful.lock();
        match doubtful.len() < URGENT_MAX {
            true => drop(doubtful.insert(hash, at)),
            // What is referred to is found by a pass.
            false => self.repairs.hinted.store(true, Ordering::Relaxed),
        }
    }

    /// Settles what becomes of damaged copies that no other node replaced: what is referred to is
    /// left to the next pass, the rest goes.
    async fn settle_doubtful(self: &Arc<Self>) {
        let now = self.env.clock.now();
        let due: Vec<ChunkHash> = {
            let mut doubtful = self.repairs.doubtful.lock();
            doubtful
                .extract_if(.., |_, at| *at <= now)
                .map(|(hash, _)| hash)
                .collect()
        };
        for hash in due {
            match self.drop_damaged(hash).await {
                Ok(true) => tracing::info!(%hash, "a damaged copy that nothing refers to is gone"),
                Ok(false) => self.repairs.now(),
                Err(error) => {
                    tracing::debug!(%hash, %error, "a damaged copy is looked at again later");
                    self.look_again(hash);
                }
            }
        }
    }

    /// Removes a damaged copy of what nothing refers to: no other node may have it any more, and
    /// nobody would write it again. False if it is referred to, or good by now.
    async fn drop_damaged(self: &Arc<Self>, hash: ChunkHash) -> Result<bool> {
        if self.chunks.have(hash).await?.is_some() {
            return Ok(false);
        }
        let as_of = self.env.clock.now();
        if self.is_referenced_anywhere(hash).await? {
            return Ok(false);
        }
        let claim = self.garbage.pins.claim(hash, as_of, DAMAGED_GRACE);
        let claim = claim.ok_or_else(|| Error::new(Code::Busy, "the chunk is in use"))?;
        let damaged = self.chunks.have(hash).await?.is_none();
        if damaged {
            self.chunks.remove(hash).await?;
        }
        drop(claim);
        Ok(damaged)
    }

    /// Fetches a chunk whose length is not known here.
    async fn fetch_known(self: &Arc<Self>, hash: ChunkHash) -> Result<()> {
        if self.chunks.have(hash).await?.is_some() || self.mend_own(hash).await? {
            return Ok(());
        }
        let readers = self.views.now().readers(&hash);
        let mut last = Error::not_found(format!("no other node has chunk {hash}"));
        for node in readers.into_iter().filter(|node| *node != self.id) {
            let call = PeerCall::Hold {
                hashes: vec![hash],
                look: Look::Known,
            };
            match self.peers.call(node, &call, ASK_TIMEOUT).await {
                Ok(PeerAnswer::Held(held)) => {
                    let len = held.first().copied().flatten();
                    if let Some(len) = len.and_then(|len| u32::try_from(len).ok()) {
                        self.fetch(hash, len).await?;
                        let mut progress = self.repairs.progress.lock();
                        progress.copied += 1;
                        progress.copied_bytes += u64::from(len);
                        return Ok(());
                    }
                }
                Ok(other) => last = odd(&other),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}
