//! Stand-ins for tests of this module: a log in memory that can lose what it has not synced, a
//! state machine that remembers commands, a network in the process.

use super::log::LogStore;
use super::{
    AppliedMark, Committed, CommittedWhat, PeerTransport, RaftGroup, Reply, StateMachine, Timers,
    group, seed_members,
};
use crate::env::{Env, sim};
use crate::error::{Error, Result};
use crate::store::wal::{Flushed, GroupState, LogEntry, LogPosition};
use crate::types::{GroupId, LogIndex, NodeId, ReplicaId};
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

    pub(super) fn forget_committed(&self) {
        self.inner.lock().state.committed = None;
    }
}

impl LogStore for ModelLog {
    fn state(&self, _group: GroupId) -> GroupState {
        self.inner.lock().state.clone()
    }

    fn append(&self, _group: GroupId, entries: Vec<LogEntry>, done: Flushed) -> Result<()> {
        let mut inner = self.inner.lock();
        for entry in entries {
            let expected = inner.state.last.map_or(1, |p| p.index.0 + 1);
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
        inner.entries.retain(|index, _| *index > upto.index.0);
        inner.state.purged = Some(upto);
        inner.state.last = inner.state.last.max(Some(upto));
        Ok(())
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
}

#[derive(Clone)]
struct JournalState {
    mark: AppliedMark,
    commands: Vec<Bytes>,
}

impl Journal {
    fn seeded(voters: &[(ReplicaId, NodeId)]) -> Arc<Self> {
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
}

/// Carries messages between the replicas of one process; replicas can be cut off.
#[derive(Default)]
pub(super) struct Switchboard {
    groups: Mutex<BTreeMap<NodeId, Arc<RaftGroup>>>,
    cut: Mutex<BTreeSet<NodeId>>,
    pub(super) calls: AtomicU64,
}

impl Switchboard {
    pub(super) fn cut(&self, replica: u64) {
        self.cut.lock().insert(node(replica));
    }
    pub(super) fn heal(&self) {
        self.cut.lock().clear();
    }
}

impl PeerTransport for Switchboard {
    fn call(
        &self,
        to_node: NodeId,
        _group: GroupId,
        from: ReplicaId,
        _to: ReplicaId,
        message: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<Bytes>> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let cut = |node: &NodeId| self.cut.lock().contains(node);
            if cut(&to_node) || cut(&node(from.0)) {
                tokio::time::sleep(timeout).await;
                return Err(Error::unavailable("cut off"));
            }
            let target = self.groups.lock().get(&to_node).cloned();
            let target = target.ok_or_else(|| Error::unavailable("nobody there"))?;
            let answer = target.receive(message).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
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

/// A group in one process.
pub(super) struct Cluster {
    pub(super) env: Env,
    pub(super) board: Arc<Switchboard>,
    pub(super) replicas: BTreeMap<u64, Replica>,
}

impl Cluster {
    /// A seeded group of `size` voters with ids from 1, started.
    pub(super) async fn start(size: u64, seed: u64) -> Cluster {
        let voters: Vec<_> = (1..=size).map(|id| (ReplicaId(id), node(id))).collect();
        let mut cluster = Cluster {
            env: sim::env(seed).0,
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
        for id in 1..=size {
            cluster.run(id).await;
        }
        cluster
    }

    /// Starts a replica on what it has.
    pub(super) async fn run(&mut self, id: u64) {
        let replica = self.replicas.get_mut(&id).unwrap();
        let group = RaftGroup::start_on(
            self.env.clone(),
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
