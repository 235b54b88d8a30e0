//! Pure: what the log and its callers say to each other: positions, entries, states, settings.

use super::Live;
use crate::error::{Error, Result};
use crate::limits::{MIB, SEGMENT_BYTES};
use crate::types::{GroupId, LogIndex};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

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
    /// Encoded committed position, as saved last (not synced by itself). After a crash it may be
    /// ahead of `last`.
    pub committed: Option<Bytes>,
    /// The group's last batch was torn and may have been acknowledged: it must not vote until a
    /// quorum has told it their last index. Equal to `doubt.is_some()`.
    pub doubtful_tail: bool,
    /// What is known about that.
    pub doubt: Option<Doubt>,
}

/// What may be lost of a group. A group with a single member has nobody to ask: after a power cut
/// in the middle of a write, which is by far the commonest cause, `unwritten` is true, nothing
/// that was acknowledged is lost, and it should start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Doubt {
    /// A vote may be lost; else only entries behind `GroupState::last` (or a mark).
    pub vote: bool,
    /// Part of what is missing still reads as the zeros from before the write: the write did not
    /// get that far. False: other bytes are there, or the file is too short; rather rot than a
    /// torn write.
    pub unwritten: bool,
    /// The last index that the lost batch would have reached, if that is known.
    pub lost_to: Option<LogIndex>,
}

/// An entry that the log should have and cannot read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DamagedEntry {
    pub group: GroupId,
    pub index: LogIndex,
    /// `None`: its header is damaged too and the term changes around here. By the log matching
    /// property every peer that has the entry behind it has the right one.
    pub position: Option<LogPosition>,
    /// Segment and offset of the record, if known.
    pub place: Option<(u64, u64)>,
}

/// One segment, for `status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    pub number: u64,
    /// Length of its file.
    pub bytes: u64,
    /// What all groups together still need of it.
    pub live: Live,
}

/// Called once, after the entries are durable, or with the error that ends the process.
pub type Flushed = Box<dyn FnOnce(std::io::Result<()>) + Send>;

/// Called with what failed and why, when durability is no longer known.
pub type OnFatal = Arc<dyn Fn(&str, &dyn Display) + Send + Sync>;

/// Settings of a log.
#[derive(Clone)]
pub struct WalOptions {
    /// Length of a segment, 4 KiB to 1 GiB, in multiples of 512.
    pub segment_bytes: u64,
    /// Payloads of synced entries kept in memory, bytes for all groups together. 0: none.
    pub cache_bytes: u64,
    /// Bytes that may be queued; `ready` waits below a quarter of it, `append` fails above it.
    pub queue_bytes: u64,
    /// So many are kept for others that lag. With more the oldest is rewritten if little of it is
    /// live.
    pub segments_kept: usize,
    /// An idle log says after this time what is synced.
    pub seal_after: Duration,
    /// Ends the process (`store::fail_stop`), except in tests.
    pub on_fatal: OnFatal,
}

impl Default for WalOptions {
    fn default() -> Self {
        WalOptions {
            segment_bytes: SEGMENT_BYTES,
            cache_bytes: 64 * MIB,
            queue_bytes: 256 * MIB,
            segments_kept: 4,
            seal_after: Duration::from_millis(50),
            on_fatal: Arc::new(|what, error| crate::store::fail_stop(what, error)),
        }
    }
}

impl WalOptions {
    /// Refuses settings that no log can have.
    pub(super) fn check(&self) -> Result<()> {
        let bytes = self.segment_bytes;
        let fits = (4_096..=1 << 30).contains(&bytes) && bytes.is_multiple_of(512);
        if !fits {
            let what = format!("log segments cannot have {bytes} bytes");
            return Err(Error::usage(what).hint("take 4 KiB to 1 GiB, a multiple of 512"));
        }
        Ok(())
    }
}
