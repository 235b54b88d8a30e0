//! Consensus: openraft behind one door. No openraft type leaves this module.
//!
//! (interface; implementation to come)

use crate::env::Env;
use crate::error::Result;
use crate::store::wal::{LogPosition, Wal};
use crate::types::{GroupId, NodeId, ReplicaId};
use bytes::Bytes;
use futures::future::BoxFuture;
use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

/// What a state machine answers to one command; handed to the proposer as it is.
pub type Reply = Box<dyn Any + Send + Sync>;

/// An entry that a majority holds, to be applied.
pub struct Committed {
    pub position: LogPosition,
    pub what: CommittedWhat,
}

pub enum CommittedWhat {
    /// A new leader's empty entry: only moves the applied position.
    Blank,
    Command(Bytes),
    /// The group's members from here on, encoded; stored with the applied position.
    Members(Bytes),
}

/// Applied position and the members it knows, as stored with a fold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedMark {
    pub position: LogPosition,
    /// Encoded membership.
    pub members: Bytes,
}

/// The replicated state of one group, implemented by `node` over `shard` and `store`.
pub trait StateMachine: Send + Sync + 'static {
    /// What is applied (in memory; the log makes it durable).
    fn applied(&self) -> AppliedMark;
    /// What the last synced fold holds: entries up to here may leave the log.
    fn folded(&self) -> AppliedMark;
    /// Applies entries in order and answers one reply for each. An error stops the replica.
    fn apply(&self, entries: Vec<Committed>) -> BoxFuture<'_, Result<Vec<Reply>>>;
}

/// Carries encoded Raft messages to another node; answered by its `RaftGroup::receive`.
pub trait PeerTransport: Send + Sync + 'static {
    fn call(
        &self,
        node: NodeId,
        group: GroupId,
        from: ReplicaId,
        to: ReplicaId,
        message: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<Bytes>>;
}

/// Timers (design: 75 ms, 250-400 ms up to about 200 groups a node).
#[derive(Clone, Copy, Debug)]
pub struct Timers {
    pub heartbeat: Duration,
    pub election_min: Duration,
    pub election_max: Duration,
}

impl Default for Timers {
    fn default() -> Self {
        Timers {
            heartbeat: Duration::from_millis(75),
            election_min: Duration::from_millis(250),
            election_max: Duration::from_millis(400),
        }
    }
}

/// What `status` shows of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupStatus {
    pub group: GroupId,
    pub replica: ReplicaId,
    pub leader: Option<ReplicaId>,
    pub term: u64,
    pub applied: u64,
    pub last: u64,
    pub voters: Vec<(ReplicaId, NodeId)>,
}

/// The encoded membership of a group's seed: these voters.
pub fn seed_members(_voters: &[(ReplicaId, NodeId)]) -> Bytes {
    unimplemented!()
}

/// One replica of one group.
pub struct RaftGroup {}

impl RaftGroup {
    /// Starts the replica on its log and state. A new group's seed must be in both already: log
    /// purged at (term 0, index 1), state applied there with `seed_members`.
    pub async fn start(
        _env: Env,
        _group: GroupId,
        _replica: ReplicaId,
        _wal: Arc<Wal>,
        _state: Arc<dyn StateMachine>,
        _transport: Arc<dyn PeerTransport>,
        _timers: Timers,
    ) -> Result<Arc<RaftGroup>> {
        unimplemented!()
    }
    /// Proposes a command and waits until it is applied here. `redirect` when not the leader
    /// (nothing was proposed); `unavailable` with `may_have_happened` when the outcome is open.
    pub async fn propose(&self, _command: Bytes) -> Result<Reply> {
        unimplemented!()
    }
    /// Returns once every entry that was acknowledged before the call is applied here
    /// (ReadIndex). `redirect` when not the leader, `unavailable` without a quorum.
    pub async fn read_barrier(&self) -> Result<()> {
        unimplemented!()
    }
    /// Answers a message of another replica.
    pub async fn receive(&self, _message: Bytes) -> Result<Bytes> {
        unimplemented!()
    }
    /// Lets the log go up to what the last synced fold holds.
    pub async fn compact(&self) -> Result<()> {
        unimplemented!()
    }
    pub fn status(&self) -> GroupStatus {
        unimplemented!()
    }
    /// Waits until this replica is the leader or the deadline has passed.
    pub async fn wait_leader(&self, _deadline: Duration) -> Result<()> {
        unimplemented!()
    }
    pub async fn shutdown(&self) -> Result<()> {
        unimplemented!()
    }
}
