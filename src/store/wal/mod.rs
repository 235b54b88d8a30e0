//! The write-ahead log of all Raft groups of a node. Called by `raft` (entries, votes) and `node`
//! (opening, status, compaction). Knows nothing of Raft's messages and never looks into a payload.
//!
//! One directory, one writer task, one sync for whatever all groups queued since the last one.
//!
//! # Files
//! ```text
//! log/0000000000000001.wal    segments, numbered; all but the newest are only read
//! log/spare-0                 the next segment: zeroed and synced ahead, named when it is begun
//! log/salt                    the salt once more, in case that all headers are damaged
//!
//! segment:  | header | header again | checkpoint | checkpoint again | batch | batch | ... | 0 0 0
//! batch:    | batch record: directory | record | record | ...
//! record:   | 64 bytes of header | payload | zeros up to the next multiple of 64 |
//! ```
//! All numbers are little-endian. Checksums are CRC32C.
//! ```text
//! segment header (64 bytes at 0 and at 512)    record header (64 bytes)
//!  0  8  "dfs-wal\n"                            0  4  "dfsR"
//!  8  4  format version, 1                      4  1  kind (format::Kind), 3 zeros
//! 12  4  zeros                                  8  8  group
//! 16  8  number of the segment                 16 24  term, leader, index
//! 24  8  salt of the log                       40  8  sequence of the batch
//! 32  8  length of the file                    48  4  number in the batch
//! 40  8  sequence of the first batch           52  4  length of the payload
//! 48  8  valid bytes of the segment before     56  4  checksum of the payload
//! 56  4  zeros                                 60  4  checksum of salt, segment number, 0..60
//! 60  4  checksum of 0..60
//!
//! batch record: number 0, group = batches up to this one are synced, term = bytes of the batch,
//! index = records behind it; payload: its directory, for each group in it
//!  0  8 group   8  4 records   12  4 flags: 1 a vote, 2 somebody waits, 4 the group is removed
//! 16  8 first index appended   24 24 purged at its end   48 24 last entry at its end
//!
//! checkpoint (payload, one record for each group)
//!  0 24 purged  24 24 last   48  4 flags: 1 vote, 2 committed, 4 doubtful, 8 vote in doubt, 16 blank
//! 52  4 bytes of vote   56  4 bytes of committed   60  4 zeros   64  8 lost up to   72.. vote, committed
//! ```
//! The salt is drawn when the log is made. It goes into every header's checksum, so that neither
//! a record of another segment (or of a file's former life) nor bytes that a user stored in a
//! payload can pass for a record when a reader looks for the next header behind damage.
//!
//! # Writing
//! Callers change the state in memory and queue a record; the writer lays out what is queued as
//! one batch, writes and syncs it, and only then calls back. A batch lies in one segment; one
//! that does not fit begins the next segment, which is longer than usual if it must be.
//! Committed positions ride along. When nothing came for a while (`WalOptions::seal_after`) the
//! writer adds a batch without a sync that says what is synced: recovery can then tell that what
//! is before it was acknowledged. Any error of a write or sync ends the process (`fail_stop`), but
//! for a new segment that finds no room on the disk: nothing stands in it yet. The writer waits for
//! room, and everybody for the writer ([`Wal::is_full`]).
//!
//! # Letting go
//! Segments go from the old end only, and only when no group needs a record of them and a newer
//! segment's checkpoint is durable. A segment that only a few records hold is freed by writing
//! these again at the end (kind Rewrite); this happens at a switch when there are more segments
//! than `WalOptions::segments_kept`. `last_in_old` says what to purge so that no more are held.
//! A purge counts for that once its mark is durable, not before.
//!
//! # Recovery
//! Each segment's checkpoint replaces whatever was known of votes and marks; its records follow.
//! Damage is judged by whether a sync covered it:
//! - *Synced for certain*: every batch up to the highest "synced" that a batch header or a later
//!   segment tells of. An entry with a damaged payload is reported by `damaged` with its position;
//!   of one with a damaged header the batch's directory, the checkpoint or its neighbours tell the
//!   index, and its position unless the term changes there (then any peer that has the following
//!   entry has the right one). Nothing is cut. Give it back with `repair`. A damaged vote that no
//!   later one replaces makes its group doubtful, with `Doubt::vote`.
//! - *Never acknowledged*: batches between that and the newest batch header; only committed
//!   positions are there.
//! - *The last write*: a batch that is not whole with no batch behind it. A write that a power cut
//!   tore and one that was acknowledged and rotted look alike. What stands before the damage is
//!   kept, and so is every intact vote; the rest is dropped, and the groups that lost something
//!   (by the directory; all groups if that is damaged too, also those that the log does not know)
//!   are `doubtful_tail` until `clear_doubt`, across restarts. A file that is shorter than its header says is treated the
//!   same way, for all groups.
//!
//! What is kept of the last segment behind what is known to be synced may be in the system's memory
//! alone: the process was killed before a sync ended, or the sync failed, and then no later one
//! writes these pages. It is written again and synced (`store::renew`); since every batch tells what
//! is synced before it, that is the last batch or two.
//!
//! Then a new segment is begun: what was dropped lies behind the valid end that its header
//! names, and can never come back. It replaces a last segment that holds nothing but its checkpoint,
//! so that starts that fail do not fill the disk.
//!
//! # Caveats
//! - A last batch of which not one byte reached the disk leaves no trace; a disk that says it
//!   synced such a batch cannot be caught here (peers notice, who know what was acknowledged).
//! - Unless the disk is written between, damage of the very last batch within `seal_after` of
//!   its sync is doubtful although it was acknowledged.
//! - The committed position may be ahead of the last entry after a crash: take the lower.
//! - Opening reads each segment into memory, one at a time.
//! - A damaged entry holds its segment until it is repaired, purged or truncated.
//!
//! # Invariants
//! 1. A callback is called, or a call returns, only after a sync that covers the record.
//! 2. Records of one group reach the disk in the order of the calls.
//! 3. A file has a segment's name only after its header and checkpoint are durable.
//! 4. A segment is removed only if it is the oldest, after every mark that made its records
//!    unnecessary is durable.
//! 5. No entry is returned that fails its checksum or is not the one asked for.
//! 6. What was acknowledged is returned, or reported as damaged, or its group is doubtful.
//! 7. Memory: payloads are in memory while unsynced (`queue_bytes`) or within `cache_bytes`;
//!    besides that some 40 bytes an entry.

mod batch;
mod begin;
mod format;
mod handle;
mod index;
mod read;
mod recover;
mod repair;
mod replay;
mod rewrite;
mod salt;
mod scan;
mod segment;
mod standing;
mod state;
#[cfg(test)]
mod tests;
mod types;
mod writer;

pub use handle::Wal;
pub use index::Live;
pub use types::{
    DamagedEntry, Doubt, Flushed, GroupState, LogEntry, LogPosition, OnFatal, SegmentInfo,
    WalOptions,
};

use crate::types::GroupId;
use handle::Shared;

/// In a checkpoint this group's doubt is that of all groups that are not in it: everything the
/// log held of a group may be in what was lost.
const UNKNOWN_GROUPS: GroupId = GroupId(u64::MAX);
