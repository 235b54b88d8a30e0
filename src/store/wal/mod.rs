//! The write-ahead log of all groups of a node. (interface; implementation to come)

use crate::env::Env;
use crate::error::Result;
use crate::types::{GroupId, LogIndex};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;

/// Identifies a log entry: openraft's log id, flattened.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct LogPosition {
    pub term: u64,
    /// Replica id of the leader that proposed it.
    pub leader: u64,
    pub index: LogIndex,
}

/// One entry as the log keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    pub position: LogPosition,
    pub payload: Bytes,
}

/// Everything the log knows of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupState {
    /// Entries up to here are gone (covered by a synced fold).
    pub purged: Option<LogPosition>,
    /// The last entry, `purged` if there is none behind it.
    pub last: Option<LogPosition>,
    /// Encoded vote, as saved last.
    pub vote: Option<Bytes>,
    /// Encoded committed position, as saved last (not synced by itself).
    pub committed: Option<Bytes>,
    /// The group's last batch was torn and may have been acknowledged: it must not vote until a
    /// quorum has told it their last index.
    pub doubtful_tail: bool,
}

/// Called once, after the entries are durable, or with the error that ends the process.
pub type Flushed = Box<dyn FnOnce(std::io::Result<()>) + Send>;

pub struct Wal {}

impl Wal {
    /// Opens or makes the log in `dir` and recovers every group's state.
    pub async fn open(_env: Env, _dir: &Path) -> Result<Arc<Wal>> {
        unimplemented!()
    }
    /// Groups the log holds something of.
    pub fn groups(&self) -> Vec<GroupId> {
        unimplemented!()
    }
    pub fn state(&self, _group: GroupId) -> GroupState {
        unimplemented!()
    }
    /// Appends entries: readable when this returns, durable when `done` is called.
    pub fn append(&self, _group: GroupId, _entries: Vec<LogEntry>, _done: Flushed) -> Result<()> {
        unimplemented!()
    }
    /// Durable when it returns.
    pub async fn save_vote(&self, _group: GroupId, _vote: Bytes) -> Result<()> {
        unimplemented!()
    }
    /// Written with the next batch, without a sync of its own.
    pub fn save_committed(&self, _group: GroupId, _committed: Bytes) {
        unimplemented!()
    }
    /// Drops the entries behind `last` (`None`: all). Durable when it returns.
    pub async fn truncate_after(&self, _group: GroupId, _last: Option<LogPosition>) -> Result<()> {
        unimplemented!()
    }
    /// Entries up to `upto` are no longer needed. Also how a seeded group begins.
    pub async fn purge(&self, _group: GroupId, _upto: LogPosition) -> Result<()> {
        unimplemented!()
    }
    /// Entries in `from..to`, in order, cut at `bytes_max` (at least one). A gap is an error.
    pub async fn read(
        &self,
        _group: GroupId,
        _from: LogIndex,
        _to: LogIndex,
        _bytes_max: usize,
    ) -> Result<Vec<LogEntry>> {
        unimplemented!()
    }
    /// Highest index of the group that a finished sync covers.
    pub fn synced(&self, _group: GroupId) -> LogIndex {
        unimplemented!()
    }
    /// Waits until `synced(group) >= index`.
    pub async fn wait_synced(&self, _group: GroupId, _index: LogIndex) {
        unimplemented!()
    }
}
