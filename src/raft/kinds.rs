//! The types that openraft is instantiated with, and their translation to ours.
//! Called by every file of `raft`; nothing here leaves the module.

use super::Reply;
use super::runtime::TickingRuntime;
use crate::store::wal::LogPosition;
use crate::types::{LogIndex, NodeId};
use bytes::Bytes;
use openraft::rt::deterministic_rng::DeterministicRng;
use openraft::type_config::alias;
use openraft::vote::RaftVote;
use std::fmt;

/// Tokio with shared ticks, and with randomness from a seed that `RaftGroup::start` draws from the
/// environment: tasks that openraft spawns derive their seeds from it, so a simulation repeats. It also keeps
/// openraft away from the operating system's random devices.
#[allow(deprecated)] // The crate of this type is no direct dependency of ours.
pub(super) type Runtime = DeterministicRng<TickingRuntime>;

openraft::declare_raft_types!(
    pub(super) Types:
        D = Command,
        R = Answer,
        NodeId = u64,
        Node = Host,
        AsyncRuntime = Runtime,
);

pub(super) type Entry = alias::EntryOf<Types>;
pub(super) type LogId = alias::LogIdOf<Types>;
pub(super) type LeaderId = alias::LeaderIdOf<Types>;
pub(super) type Vote = alias::VoteOf<Types>;
pub(super) type Membership = openraft::Membership<u64, Host>;
pub(super) type StoredMembership = alias::StoredMembershipOf<Types>;

/// Where a replica lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Host(pub(super) NodeId);

/// A command of the state machine, opaque here.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Command(pub(super) Bytes);

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// The same as `Display`: openraft prints entries in its traces, and a command may be large.
impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What the state machine answered.
pub(super) struct Answer(pub(super) Reply);

pub(super) fn log_id(position: LogPosition) -> LogId {
    LogId::new(
        LeaderId {
            term: position.term,
            node_id: position.leader,
        },
        position.index.0,
    )
}

pub(super) fn position(id: &LogId) -> LogPosition {
    LogPosition {
        term: id.leader_id.term,
        leader: id.leader_id.node_id,
        index: LogIndex(id.index),
    }
}

/// Position of a state that may be empty: index 0 is none.
pub(super) fn log_id_if_any(position: LogPosition) -> Option<LogId> {
    (position.index.0 != 0).then(|| log_id(position))
}

pub(super) fn vote(term: u64, node: u64, committed: bool) -> Vote {
    Vote::from_leader_id(
        LeaderId {
            term,
            node_id: node,
        },
        committed,
    )
}
