//! Stand-ins for tests of this module: a log in memory that can lose what it has not synced, a
//! state machine that remembers commands, a network in the process that loses messages and takes
//! its time for images.

use super::log::LogStore;
use super::{
    AppliedMark, Committed, CommittedWhat, CutImage, PeerTransport, RaftGroup, ReceivedImage,
    Reply, Route, StagedImage, StateMachine, Timers, Urgency, group, seed_members,
};
use crate::env::{Clock, Env, sim};
use crate::error::{Error, Result};
use crate::store::wal::{Flushed, GroupState, LogEntry, LogPosition};
use crate::types::{GroupId, LogIndex, NodeId, ReplicaId, WallTime};
use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub(super) const GROUP: GroupId = GroupId(5);

/// A log of one group in memory.
#[derive(Default)]
pub(super) struct ModelLog {
    inner: Mutex<ModelInner>,
}

#[derive(Default)]
struct ModelInner {
    state: GroupState,
    entries: BTreeMap<u64, LogEntry>,
    synced: u64,
    /// Flushes wait instead of finishing at once.
    holding: bool,
    held: Vec<(u64, Flushed)>,
    failing: bool,
}

impl ModelLog {
    /// A log that begins with the seed.
    pub(super) fn seeded() -> Arc<Self> {
        let log = ModelLog::default();
        log.inner.lock().state = GroupState {
            purged: Some(group::SEED),
            last: Some(group::SEED),
            ..GroupState::default()
        };
        Arc::new(log)
    }

    /// Lets flushes wait, or finishes all that wait.
    pub(super) fn hold_flushes(&self, hold: bool) {
        let mut inner = self.inner.lock();
        inner.holding = hold;
        let held = if hold {
            Vec::new()
        } else {
            std::mem::take(&mut inner.held)
        };
        for (upto, _) in &held {
            inner.synced = inner.synced.max(*upto);
        }
        drop(inner);
        held.into_iter().for_each(|(_, done)| done(Ok(())));
    }

    /// Every flush from here on fails.
    pub(super) fn fail_flushes(&self) {
        self.inner.lock().failing = true;
    }

    /// What a power cut leaves.
    pub(super) fn after_power_cut(&self) -> Arc<Self> {
        let inner = self.inner.lock();
        let entries: BTreeMap<u64, LogEntry> = (inner.entries.iter())
            .filter(|(index, _)| **index <= inner.synced)
            .map(|(index, entry)| (*index, entry.clone()))
            .collect();
        let mut state = inner.state.clone();
        state.last = (entries.values().next_back())
            .map(|e| e.position)
            .or(state.purged);
        Arc::new(ModelLog {
            inner: Mutex::new(ModelInner {
                state,
                entries,
                synced: inner.synced,
                ..ModelInner::default()
            }),
        })
    }

    /// Entries that it holds.
    pub(super) fn entries(&self) -> usize {
        self.inner.lock().entries.len()
    }

    pub(super) fn forget_committed(&self) {
        self.inner.lock().state.committed = None;
    }
}

impl LogStore for ModelLog {
    fn state(&self, _group: GroupId) -> GroupState {
        self.inner.lock().state.clone()
    }

    async fn ready(&self) {}

    fn append(&self, _group: GroupId, entries: Vec<LogEntry>, done: Flushed) -> Result<()> {
        let mut inner = self.inner.lock();
        for entry in entries {
            let expected = inner.state.last.map_or(0, |p| p.index.0) + 1;
            assert_eq!(entry.position.index.0, expected, "no holes in the log");
            inner.state.last = Some(entry.position);
            inner.entries.insert(entry.position.index.0, entry);
        }
        let upto = inner.state.last.map_or(0, |p| p.index.0);
        if inner.holding {
            inner.held.push((upto, done));
            return Ok(());
        }
        let outcome = if inner.failing {
            Err(io::Error::other("the disk is gone"))
        } else {
            inner.synced = upto;
            Ok(())
        };
        drop(inner);
        done(outcome);
        Ok(())
    }

    async fn save_vote(&self, _group: GroupId, vote: Bytes) -> Result<()> {
        self.inner.lock().state.vote = Some(vote);
        Ok(())
    }

    fn save_committed(&self, _group: GroupId, committed: Bytes) {
        self.inner.lock().state.committed = Some(committed);
    }

    async fn truncate_after(&self, _group: GroupId, last: Option<LogPosition>) -> Result<()> {
        let mut inner = self.inner.lock();
        let keep = last.map_or(0, |p| p.index.0);
        inner.entries.retain(|index, _| *index <= keep);
        inner.state.last = last;
        inner.synced = inner.synced.min(keep);
        Ok(())
    }

    async fn purge(&self, _group: GroupId, upto: LogPosition) -> Result<()> {
        let mut inner = self.inner.lock();
        let index = |p: Option<LogPosition>| p.map_or(0, |p| p.index.0);
        if upto.index.0 <= index(inner.state.purged) {
            return Ok(());
        }
        inner.entries.retain(|index, _| *index > upto.index.0);
        inner.state.purged = Some(upto);
        if index(inner.state.last) < upto.index.0 {
            inner.state.last = Some(upto);
        }
        inner.synced = inner.synced.max(upto.index.0);
        Ok(())
    }

    fn bytes_behind(&self, _group: GroupId, index: LogIndex) -> u64 {
        let inner = self.inner.lock();
        let behind = inner.entries.range(index.0 + 1..);
        behind.map(|(_, e)| e.payload.len() as u64).sum()
    }

    async fn read(
        &self,
        _group: GroupId,
        from: LogIndex,
        to: LogIndex,
        bytes_max: usize,
    ) -> Result<Vec<LogEntry>> {
        let inner = self.inner.lock();
        let (mut out, mut bytes) = (Vec::new(), 0);
        for index in from.0..to.0 {
            let entry = inner.entries.get(&index);
            let entry = entry.ok_or_else(|| Error::corrupt(format!("no entry {index}")))?;
            bytes += entry.payload.len();
            if !out.is_empty() && bytes > bytes_max {
                break;
            }
            out.push(entry.clone());
        }
        Ok(out)
    }
}

/// A state machine that keeps every command; its reply is the command's number.
pub(super) struct Journal {
    live: Mutex<JournalState>,
    fold: Mutex<JournalState>,
    /// Most entries that came in one call.
    pub(super) batch_max: AtomicU64,
    /// Images cut, installed, let go.
    pub(super) cut: AtomicU64,
    pub(super) installed: AtomicU64,
    pub(super) discarded: AtomicU64,
}

#[derive(Clone, Default)]
struct JournalState {
    mark: AppliedMark,
    commands: Vec<Bytes>,
}

impl Journal {
    /// A state that waits for an image.
    pub(super) fn empty() -> Arc<Self> {
        Self::with(JournalState::default())
    }

    pub(super) fn seeded(voters: &[(ReplicaId, NodeId)]) -> Arc<Self> {
        Self::with(JournalState {
            mark: AppliedMark {
                position: group::SEED,
                members: seed_members(voters),
            },
            commands: Vec::new(),
        })
    }

    fn with(state: JournalState) -> Arc<Self> {
        Arc::new(Journal {
            live: Mutex::new(state.clone()),
            fold: Mutex::new(state),
            batch_max: AtomicU64::new(0),
            cut: AtomicU64::new(0),
            installed: AtomicU64::new(0),
            discarded: AtomicU64::new(0),
        })
    }

    pub(super) fn fold(&self) {
        *self.fold.lock() = self.live.lock().clone();
    }

    /// The state as a restart finds it.
    pub(super) fn restarted(&self) -> Arc<Self> {
        Self::with(self.fold.lock().clone())
    }

    pub(super) fn commands(&self) -> Vec<Bytes> {
        self.live.lock().commands.clone()
    }
}

impl StateMachine for Journal {
    fn applied(&self) -> AppliedMark {
        self.live.lock().mark.clone()
    }

    fn folded(&self) -> AppliedMark {
        self.fold.lock().mark.clone()
    }

    fn apply(&self, entries: Vec<Committed>) -> BoxFuture<'_, Result<Vec<Reply>>> {
        Box::pin(async move {
            self.batch_max
                .fetch_max(entries.len() as u64, Ordering::Relaxed);
            let mut live = self.live.lock();
            let mut replies: Vec<Reply> = Vec::new();
            for Committed { position, what } in entries {
                let expected = live.mark.position.index.next();
                assert_eq!(position.index, expected, "entries are applied in order");
                live.mark.position = position;
                match what {
                    CommittedWhat::Blank => {}
                    CommittedWhat::Members(members) => live.mark.members = members,
                    CommittedWhat::Command(command) => live.commands.push(command),
                }
                replies.push(Box::new(live.commands.len()));
            }
            Ok(replies)
        })
    }

    fn cut_image(&self) -> BoxFuture<'_, Result<CutImage>> {
        self.cut.fetch_add(1, Ordering::Relaxed);
        let state = self.live.lock().clone();
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            Ok(CutImage {
                mark: state.mark.clone(),
                file: "cut".into(),
                keep: Box::new(state),
            })
        })
    }

    fn stage_image(&self, image: ReceivedImage) -> BoxFuture<'_, Result<StagedImage>> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let state: JournalState = *image.keep.downcast().unwrap();
            Ok(StagedImage {
                mark: state.mark.clone(),
                place: Box::new(state),
            })
        })
    }

    fn install_image(&self, image: StagedImage) -> BoxFuture<'_, Result<AppliedMark>> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            let state: JournalState = *image.place.downcast().unwrap();
            let before = self.live.lock().clone();
            assert!(state.mark.position.index > before.mark.position.index);
            assert!(
                state.commands.starts_with(&before.commands),
                "an image goes on from what was applied"
            );
            *self.live.lock() = state.clone();
            *self.fold.lock() = state.clone();
            self.installed.fetch_add(1, Ordering::Relaxed);
            Ok(state.mark)
        })
    }

    fn discard_image(&self, _image: StagedImage) -> BoxFuture<'_, Result<()>> {
        self.discarded.fetch_add(1, Ordering::Relaxed);
        Box::pin(std::future::ready(Ok(())))
    }
}

/// Carries messages between the replicas of one process; replicas can be cut off, messages get
/// lost, images take their time.
#[derive(Default)]
pub(super) struct Switchboard {
    pub(super) groups: Mutex<BTreeMap<NodeId, Arc<RaftGroup>>>,
    cut: Mutex<BTreeSet<NodeId>>,
    pub(super) calls: AtomicU64,
    /// Messages that could have waited for company.
    pub(super) heartbeats: AtomicU64,
    /// Images that were sent off, and whose answer got lost.
    pub(super) images: AtomicU64,
    pub(super) lose_image_answers: AtomicU64,
    /// How long an image travels, in milliseconds.
    pub(super) image_ms: AtomicU64,
    /// Of a thousand messages and answers so many get lost, at random.
    pub(super) lost_permille: AtomicU64,
    rng: Mutex<Option<Env>>,
}

impl Switchboard {
    pub(super) fn cut(&self, replica: u64) {
        self.cut.lock().insert(node(replica));
    }
    pub(super) fn heal(&self) {
        self.cut.lock().clear();
    }

    fn is_lost(&self) -> bool {
        let lost = self.lost_permille.load(Ordering::Relaxed);
        lost > 0 && (self.rng.lock().as_ref()).is_some_and(|e| e.rng.u64() % 1_000 < lost)
    }

    /// The receiver, if the message gets there; else waits and fails.
    async fn reach(&self, route: Route, timeout: Duration) -> Result<Arc<RaftGroup>> {
        let cut = |node: &NodeId| self.cut.lock().contains(node);
        if cut(&route.node) || cut(&node(route.from.0)) || self.is_lost() {
            tokio::time::sleep(timeout).await;
            return Err(Error::unavailable("cut off"));
        }
        let target = self.groups.lock().get(&route.node).cloned();
        target.ok_or_else(|| Error::unavailable("nobody there"))
    }
}

impl PeerTransport for Switchboard {
    fn call(
        &self,
        route: Route,
        urgency: Urgency,
        message: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<Bytes>> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if urgency == Urgency::Heartbeat {
            self.heartbeats.fetch_add(1, Ordering::Relaxed);
        }
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let target = self.reach(route, timeout).await?;
            let answer = target.receive(message).await;
            self.reach(route, timeout).await?;
            tokio::time::sleep(Duration::from_millis(1)).await;
            answer
        })
    }

    fn send_image<'a>(
        &'a self,
        route: Route,
        head: Bytes,
        image: &'a CutImage,
    ) -> BoxFuture<'a, Result<Bytes>> {
        self.images.fetch_add(1, Ordering::Relaxed);
        let stalled = Duration::from_millis(500);
        Box::pin(async move {
            let took = self.image_ms.load(Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(took)).await;
            let target = self.reach(route, stalled).await?;
            let state: &JournalState = image.keep.downcast_ref().unwrap();
            let received = ReceivedImage {
                file: image.file.clone(),
                keep: Box::new(state.clone()),
            };
            let answer = target.receive_image(head, received).await;
            let lose = |n: u64| n.checked_sub(1);
            let losing = &self.lose_image_answers;
            let lost = losing.fetch_update(Ordering::Relaxed, Ordering::Relaxed, lose);
            if lost.is_ok() {
                return Err(Error::unavailable("the answer got lost"));
            }
            self.reach(route, stalled).await?;
            answer
        })
    }
}

/// Node of a replica in these tests.
pub(super) fn node(replica: u64) -> NodeId {
    NodeId(100 + replica)
}

/// One replica: what survives a restart, and the running group if it runs.
pub(super) struct Replica {
    pub(super) log: Arc<ModelLog>,
    pub(super) state: Arc<Journal>,
    pub(super) group: Option<Arc<RaftGroup>>,
}

/// The clock of one node: what it shows has nothing to do with another's.
struct Ahead(Arc<sim::SimClock>, Duration);

impl Clock for Ahead {
    fn now(&self) -> Duration {
        self.0.now() + self.1
    }

    fn slept(&self) -> Duration {
        self.0.slept()
    }

    fn wall(&self) -> WallTime {
        self.0.wall()
    }
}

/// A group in one process.
pub(super) struct Cluster {
    pub(super) env: Env,
    /// What the replicas take for the time, where they do not wait for it: it can jump.
    pub(super) clock: Arc<sim::SimClock>,
    pub(super) board: Arc<Switchboard>,
    pub(super) replicas: BTreeMap<u64, Replica>,
}

impl Cluster {
    /// A seeded group of `size` voters with ids from 1, started.
    pub(super) async fn start(size: u64, seed: u64) -> Cluster {
        let voters: Vec<_> = (1..=size).map(|id| (ReplicaId(id), node(id))).collect();
        let (env, handles) = sim::env(seed);
        let mut cluster = Cluster {
            env,
            clock: handles.clock,
            board: Arc::default(),
            replicas: BTreeMap::new(),
        };
        for id in 1..=size {
            let replica = Replica {
                log: ModelLog::seeded(),
                state: Journal::seeded(&voters),
                group: None,
            };
            cluster.replicas.insert(id, replica);
        }
        *cluster.board.rng.lock() = Some(cluster.env.clone());
        for id in 1..=size {
            cluster.run(id).await;
        }
        cluster
    }

    /// Starts a replica that has nothing.
    pub(super) async fn add_empty(&mut self, id: u64) {
        let replica = Replica {
            log: Arc::default(),
            state: Journal::empty(),
            group: None,
        };
        self.replicas.insert(id, replica);
        self.run(id).await;
    }

    /// Folds what a replica has applied, as far as its log has synced, and compacts.
    pub(super) async fn compact(&self, id: u64) {
        let replica = &self.replicas[&id];
        let synced = replica.log.inner.lock().synced;
        if replica.state.applied().position.index.0 <= synced {
            replica.state.fold();
        }
        self.group(id).compact(LogIndex(u64::MAX)).await.unwrap();
    }

    /// Compacts until the log holds nothing.
    pub(super) async fn compact_whole(&self, id: u64) {
        for _ in 0..1_000 {
            self.compact(id).await;
            if self.group(id).log_entries() == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("never: the log of replica {id} is let go");
    }

    /// Asks whoever leads, again and again, until it is done.
    pub(super) async fn on_leader<F: Future<Output = Result<()>>>(
        &self,
        what: &str,
        ask: impl Fn(Arc<RaftGroup>) -> F,
    ) {
        let mut last = None;
        for _ in 0..2_000 {
            for replica in self.replicas.values() {
                let Some(group) = replica.group.clone().filter(|g| g.is_leader()) else {
                    continue;
                };
                match ask(group).await {
                    Ok(()) => return,
                    Err(error) => last = Some(error),
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never: {what} ({last:?})");
    }

    /// Makes an empty replica a learner, waits until it has caught up.
    pub(super) async fn fill(&self, id: u64) {
        self.on_leader("a learner", |group| async move {
            group.add_learner(ReplicaId(id), node(id)).await
        })
        .await;
        self.on_leader("a learner that has caught up", |group| async move {
            let status = group.status();
            let matched = group
                .progress()
                .and_then(|p| p.get(&ReplicaId(id))?.matched);
            if matched.is_some_and(|m| m.0 + 64 >= status.last) {
                return Ok(());
            }
            Err(Error::unavailable(format!(
                "{matched:?} of {}",
                status.last
            )))
        })
        .await;
    }

    pub(super) async fn change_voters(&self, voters: &[u64]) {
        let voters: BTreeSet<ReplicaId> = voters.iter().map(|id| ReplicaId(*id)).collect();
        self.on_leader("a change of the voters", |group| {
            let voters = voters.clone();
            async move { group.change_voters(&voters).await }
        })
        .await;
    }

    /// Waits until the replicas hold the same state, with at least these commands.
    pub(super) async fn agree(&self, ids: &[u64], at_least: usize) {
        eventually("equal states", || {
            let first = self.commands(ids[0]);
            first.len() >= at_least && ids.iter().all(|id| self.commands(*id) == first)
        })
        .await;
    }

    /// Starts a replica on what it has.
    pub(super) async fn run(&mut self, id: u64) {
        let replica = self.replicas.get_mut(&id).unwrap();
        let mut env = self.env.clone();
        env.clock = Arc::new(Ahead(self.clock.clone(), Duration::from_millis(id * 29)));
        let group = RaftGroup::start_on(
            env,
            GROUP,
            ReplicaId(id),
            replica.log.clone(),
            replica.state.clone(),
            self.board.clone(),
            Timers::default(),
        );
        let group = group.await.unwrap();
        self.board.groups.lock().insert(node(id), group.clone());
        replica.group = Some(group);
    }

    /// Stops a replica and leaves what a power cut would.
    pub(super) async fn stop(&mut self, id: u64) {
        self.board.groups.lock().remove(&node(id));
        let replica = self.replicas.get_mut(&id).unwrap();
        replica.group.take().unwrap().shutdown().await.unwrap();
        replica.log = replica.log.after_power_cut();
        replica.state = replica.state.restarted();
    }

    pub(super) fn group(&self, id: u64) -> &Arc<RaftGroup> {
        self.replicas[&id].group.as_ref().unwrap()
    }

    pub(super) fn commands(&self, id: u64) -> Vec<Bytes> {
        self.replicas[&id].state.commands()
    }

    /// The running replica that leads; polls for at most ten seconds.
    pub(super) async fn leader(&self) -> u64 {
        let mut found = None;
        eventually("a leader", || {
            let leads = |r: &Replica| r.group.as_ref().is_some_and(|g| g.is_leader());
            let mut leaders = self
                .replicas
                .iter()
                .filter(|(id, r)| !self.board.cut.lock().contains(&node(**id)) && leads(r));
            found = leaders.next().map(|(id, _)| *id);
            found.is_some()
        })
        .await;
        found.unwrap()
    }

    pub(super) async fn propose(&self, id: u64, text: &str) -> Result<usize> {
        let reply = self
            .group(id)
            .propose(Bytes::copy_from_slice(text.as_bytes()));
        reply.await.map(|reply| *reply.downcast().unwrap())
    }
}

/// Polls until it is so, for at most ten seconds.
pub(super) async fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    for _ in 0..5_000 {
        if so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("never: {what}");
}
