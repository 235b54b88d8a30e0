//! What is told of a group and set for it: timers, status, members, progress.

use crate::store::wal::LogPosition;
use crate::types::{GroupId, LogIndex, NodeId, ReplicaId};
use std::time::Duration;

/// Timers of a group. The defaults are for up to about 200 groups a node; beyond, all three grow
/// together. Failover takes a little longer than `election_max`: followers of a leader refuse
/// their vote for that long.
#[derive(Clone, Copy, Debug)]
pub struct Timers {
    /// A leader speaks up at least this often, in an idle group every other time. Default 75 ms.
    pub heartbeat: Duration,
    /// A follower that hears nothing campaigns after a random time from here. Default 250 ms.
    pub election_min: Duration,
    /// To here; also a leader's lease. Default 400 ms.
    pub election_max: Duration,
    /// Whether a leader that a majority has just heard answers reads without asking again
    /// (`raft/mod.rs`, Leases). Default yes.
    pub lease_reads: bool,
}

impl Default for Timers {
    fn default() -> Self {
        Timers {
            heartbeat: Duration::from_millis(75),
            election_min: Duration::from_millis(250),
            election_max: Duration::from_millis(400),
            lease_reads: true,
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
    /// Who votes, and on which node each lives. While a change is under way: of both sets.
    pub voters: Vec<(ReplicaId, NodeId)>,
    /// Those of `voters` that vote whatever becomes of a change that is under way or not yet known
    /// to be committed: one that is not among them cannot stand in for another yet.
    pub settled: Vec<ReplicaId>,
    /// Who gets all entries and does not vote.
    pub learners: Vec<(ReplicaId, NodeId)>,
}

/// Members of a group, as one replica knows them: those of the newest entry in its log that says
/// so, committed or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members {
    /// Who votes; while `joint` those of the old and of the new set.
    pub voters: Vec<(ReplicaId, NodeId)>,
    /// Who gets all entries and does not vote.
    pub learners: Vec<(ReplicaId, NodeId)>,
    /// A change of the voters is under way: majorities of both sets must agree.
    pub joint: bool,
    /// The entry that says so; index 0 if none is known.
    pub at: LogPosition,
}

/// How far a member is, as its leader knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// It has the leader's log up to here, synced. `None`: it has not been heard of since this
    /// replica leads, or it has nothing.
    pub matched: Option<LogIndex>,
}
