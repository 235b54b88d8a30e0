//! Consensus: openraft behind one door. No openraft type leaves this module.
//!
//! Called by `node`, which implements [`StateMachine`] (over `shard` and `store`) and
//! [`PeerTransport`] (over `net`), and gives the node's log. One [`RaftGroup`] is one replica.
//!
//! | file | what it is |
//! |---|---|
//! | `group` | the replica: propose, read barrier, receive, compact |
//! | `barrier` | readers that share a question to the quorum |
//! | `log`, `machine`, `network` | openraft's three traits over ours |
//! | `stored`, `message` | bytes in the log and between replicas |
//! | `kinds`, `refusal` | openraft's types and errors in our words |
//!
//! # Birth
//! A group is never "initialized" in openraft's sense. It starts from a seed that counts as an
//! entry: the log is purged at (term 0, index 1), the state is applied and folded there with
//! [`seed_members`]. So a replica without the seed can never be filled from the log alone. A
//! group with one voter elects itself after one election timeout.
//!
//! # Restart
//! The log holds the vote and the committed position; the state machine starts at its last fold.
//! [`RaftGroup::start`] applies what lies between the two before it returns, without asking
//! anyone: these entries were committed. What was committed but not noted is applied as soon as
//! a leader says so, or this replica is elected. A leader never takes its lead up again without
//! an election: it could not know what it applied before.
//!
//! # Compaction
//! openraft purges only what a snapshot covers. Here a snapshot is a position and its members,
//! nothing else: those of the last synced fold. [`RaftGroup::compact`] notes it and purges the
//! log up to it. Whoever needs entries that are gone needs an image of the group.
//!
//! # Caveats
//! * A follower may apply an entry before its own log has synced it. A fold must hold only what
//!   the local log has synced; the state machine sees to that.
//! * A replica that comes back with an empty log under its old id would be counted as a copy and
//!   never filled. Replica ids are never used again, log reversion is off, and a leader refuses
//!   answers below what a replica acknowledged.
//! * Cores and timers run on the tokio runtime in whose context [`RaftGroup::start`] is polled. To
//!   keep them apart from bulk work give them a runtime of their own and start groups with
//!   `handle.spawn(RaftGroup::start(..)).await`; proposals and barriers may come from any runtime.
//! * openraft draws election timeouts from a generator seeded by `env.rng`: with a simulated
//!   environment on a single-threaded runtime with paused time, runs repeat.

mod barrier;
mod group;
mod kinds;
mod log;
mod machine;
mod message;
mod network;
mod refusal;
mod stored;

pub use group::{RaftGroup, seed_members};
#[doc(hidden)]
pub use message::takes_message;

use crate::error::Result;
use crate::store::wal::LogPosition;
use crate::types::{GroupId, NodeId, ReplicaId};
use bytes::Bytes;
use futures::future::BoxFuture;
use std::any::Any;
use std::time::Duration;

/// What a state machine answers to one command; handed to the proposer as it is.
pub type Reply = Box<dyn Any + Send + Sync>;

/// An entry that a majority holds, to be applied.
pub struct Committed {
    pub position: LogPosition,
    pub what: CommittedWhat,
}

/// What a committed entry says.
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
    /// One message and its answer, both below a frame's size. Any error is taken as "not
    /// reachable": the caller tries again by itself, after a pause.
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

/// Timers of a group. The defaults are for up to about 200 groups a node; beyond, all three grow
/// together. Failover takes a little longer than `election_max`: followers of a leader refuse
/// their vote for that long.
#[derive(Clone, Copy, Debug)]
pub struct Timers {
    /// A leader speaks up at least this often. Default 75 ms.
    pub heartbeat: Duration,
    /// A follower that hears nothing campaigns after a random time from here. Default 250 ms.
    pub election_min: Duration,
    /// To here; also a leader's lease. Default 400 ms.
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
    /// As far as this replica knows.
    pub leader: Option<ReplicaId>,
    pub term: u64,
    /// Index of the last applied entry.
    pub applied: u64,
    /// Index of the last entry in the log.
    pub last: u64,
    /// Who votes, and on which node each lives.
    pub voters: Vec<(ReplicaId, NodeId)>,
}

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;
