//! The write-ahead log of all Raft groups of a node. Called by `raft` (entries, votes) and `node`
//! (opening, status, compaction). Knows nothing of Raft's messages and never looks into a payload.
//!
//! One directory, one writer task, one sync for whatever all groups queued since the last one.
//!
//! # Files
//! ```text
//! log/0000000000000001.wal    segments, numbered; all but the newest are only read
//! log/spare-0                 the next segment: zeroed and synced ahead, named when it is begun
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
//! is before it was acknowledged. Any error of a write or sync ends the process (`fail_stop`).
//!
//! # Letting go
//! Segments go from the old end only, and only when no group needs a record of them and a newer
//! segment's checkpoint is durable. A segment that only a few records hold is freed by writing
//! these again at the end (kind Rewrite); this happens at a switch when there are more segments
//! than `WalOptions::segments_kept`. `pinned` says who holds old segments, so that `raft` can purge.
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
//! Then a new segment is begun: what was dropped lies behind the valid end that its header
//! names, and can never come back.
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
mod format;
mod index;
mod read;
mod recover;
mod replay;
mod scan;
mod segment;
mod state;
#[cfg(test)]
mod tests;
mod writer;

pub use index::Live;

use crate::env::Env;
use crate::error::{Code, Error, Result};
use crate::limits::{MIB, SEGMENT_BYTES};
use crate::types::{GroupId, LogIndex};
use bytes::Bytes;
use format::Kind;
use index::{Place, Released};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use state::{Item, State, Work};
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, oneshot, watch};

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
    /// With more segments than this the oldest is rewritten if little of it is live.
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
            on_fatal: Arc::new(|what, error| super::fail_stop(what, error)),
        }
    }
}

impl WalOptions {
    fn check(&self) -> Result<()> {
        let bytes = self.segment_bytes;
        let fits = (4_096..=1 << 30).contains(&bytes) && bytes.is_multiple_of(512);
        if !fits {
            let what = format!("log segments cannot have {bytes} bytes");
            return Err(Error::usage(what).hint("take 4 KiB to 1 GiB, a multiple of 512"));
        }
        Ok(())
    }
}

/// What the log's handle and its tasks share.
struct Shared {
    env: Env,
    dir: PathBuf,
    options: WalOptions,
    salt: u64,
    state: Mutex<State>,
    /// Wakes the writer.
    wake: Notify,
    /// Something left the queue.
    room: Notify,
    /// Counts the writer's rounds.
    rounds: watch::Sender<u64>,
    /// The writer has ended.
    finished: watch::Sender<bool>,
    spare: Arc<segment::Spare>,
}

impl Shared {
    /// Ends the process; in tests, the log. Whoever still waits gets an error.
    fn fail(&self, error: &std::io::Error) {
        (self.options.on_fatal)("the write-ahead log", error);
        let queue = {
            let mut state = self.state.lock();
            state.failed = true;
            state.queue_bytes = 0;
            std::mem::take(&mut state.queue)
        };
        for item in queue {
            if let Work::Entries {
                done: Some(done), ..
            } = item.work
            {
                done(Err(std::io::Error::new(error.kind(), error.to_string())));
            }
        }
        self.room.notify_waiters();
    }
}

/// The log of all groups of a node. See the module's text for what it promises.
pub struct Wal {
    shared: Arc<Shared>,
}

impl Drop for Wal {
    /// Lets the writer finish what is queued and end. Nothing relies on it.
    fn drop(&mut self) {
        self.shared.state.lock().closing = true;
        self.shared.wake.notify_one();
    }
}

/// In a checkpoint this group's doubt is that of all groups that are not in it: everything the
/// log held of a group may be in what was lost.
const UNKNOWN_GROUPS: GroupId = GroupId(u64::MAX);

/// Payload bytes in one queued item; a longer append is cut.
const ITEM_BYTES_MAX: usize = 4 << 20;

impl Wal {
    /// Opens or makes the log in `dir` and recovers every group's state.
    ///
    /// # Errors
    /// I/O errors; `corrupt` when no segment's header can be read or one has another's name;
    /// another format version. Damage within segments is no error: see `damaged` and
    /// `GroupState::doubtful_tail`.
    pub async fn open(env: Env, dir: &Path) -> Result<Arc<Wal>> {
        Self::open_with(env, dir, WalOptions::default()).await
    }

    /// [`Wal::open`] with settings.
    pub async fn open_with(env: Env, dir: &Path, options: WalOptions) -> Result<Arc<Wal>> {
        options.check()?;
        let shared = recover::open(env, dir, options).await?;
        Ok(Arc::new(Wal { shared }))
    }

    /// Writes what is queued and the committed positions, and ends the writer. Later calls fail.
    pub async fn close(&self) {
        self.shared.state.lock().closing = true;
        self.shared.wake.notify_one();
        let mut finished = self.shared.finished.subscribe();
        // The sender lives in `shared`, so waiting cannot fail.
        let _ = finished.wait_for(|finished| *finished).await;
    }

    /// Groups the log holds something of.
    pub fn groups(&self) -> Vec<GroupId> {
        self.shared.state.lock().groups.keys().copied().collect()
    }

    /// What the log knows of a group, with what is queued. Of an unknown group: nothing, and
    /// doubt if the log has lost something of it does not know whom.
    pub fn state(&self, group: GroupId) -> GroupState {
        let state = self.shared.state.lock();
        let Some(known) = state.groups.get(&group) else {
            return GroupState {
                doubtful_tail: state.unknown_doubt.is_some(),
                doubt: state.unknown_doubt,
                ..GroupState::default()
            };
        };
        let some = |position: LogPosition| (position.index.0 > 0).then_some(position);
        GroupState {
            purged: some(known.entries.purged()),
            last: some(known.entries.last()),
            vote: known.vote.clone(),
            committed: known.committed.clone(),
            doubtful_tail: known.doubt.is_some(),
            doubt: known.doubt,
        }
    }

    /// Waits until the queue has room. Call it before `append`.
    pub async fn ready(&self) {
        loop {
            let room = self.shared.room.notified();
            tokio::pin!(room);
            // Registered before the check, so that no wake-up is missed.
            room.as_mut().enable();
            {
                let state = self.shared.state.lock();
                if state.failed || state.queue_bytes <= self.shared.options.queue_bytes / 4 {
                    return;
                }
            }
            room.await;
        }
    }

    /// Appends entries: readable when this returns, durable when `done` is called. The first
    /// must follow the group's last entry, the others each other.
    ///
    /// # Errors
    /// `failed` when the indexes do not follow each other or a payload is longer than
    /// 1 GiB; `busy` when the queue is full (see `ready`); `unavailable` when the log is
    /// closed. Nothing was appended then, and `done` is not called.
    pub fn append(&self, group: GroupId, entries: Vec<LogEntry>, done: Flushed) -> Result<()> {
        if entries.is_empty() {
            done(Ok(()));
            return Ok(());
        }
        let mut state = self.accepting()?;
        if state.queue_bytes > self.shared.options.queue_bytes {
            let what = "the log's queue is full (the disk is slower than what arrives)";
            return Err(Error::new(Code::Busy, what));
        }
        let last = state.groups.get(&group).map(|g| g.entries.last_index());
        check_order(group, last.unwrap_or_default(), &entries)?;
        let mut ticket = state.append(group, &entries);
        for (part, done) in cut(entries, done) {
            let next = ticket.wrapping_add(part.len() as u64);
            let work = Work::Entries {
                ticket,
                entries: part,
                done,
            };
            state.push(Item { group, work });
            ticket = next;
        }
        drop(state);
        self.shared.wake.notify_one();
        Ok(())
    }

    /// Durable when it returns.
    pub async fn save_vote(&self, group: GroupId, vote: Bytes) -> Result<()> {
        let durable = {
            let mut state = self.accepting()?;
            state.groups.entry(group).or_default().vote = Some(vote.clone());
            self.mark(&mut state, group, Kind::Vote, vote, Released::default())
        };
        self.wait(durable).await
    }

    /// Written with the next batch, without a sync of its own. Lost if the log is closed.
    pub fn save_committed(&self, group: GroupId, committed: Bytes) {
        let mut state = self.shared.state.lock();
        state.groups.entry(group).or_default().committed = Some(committed);
        state.committed.insert(group);
        drop(state);
        self.shared.wake.notify_one();
    }

    /// Drops the entries behind `last` (`None`: all). Durable when it returns.
    ///
    /// # Errors
    /// `failed` when `last` is below what is purged or is not an entry of the log.
    pub async fn truncate_after(&self, group: GroupId, last: Option<LogPosition>) -> Result<()> {
        let durable = {
            let mut state = self.accepting()?;
            let entries = state.groups.get(&group).map(|g| &g.entries);
            let purged = entries.map(|e| e.purged()).unwrap_or_default();
            let last = last.unwrap_or(purged);
            let end = entries.map(|e| e.last_index()).unwrap_or_default();
            if last.index < purged.index || last.index > end {
                let what = format!(
                    "group {group}: cannot cut the log behind entry {} (it has {} to {end})",
                    last.index,
                    purged.index.next()
                );
                return Err(Error::failed(what));
            }
            let released = state.truncate(group, last.index);
            self.mark(&mut state, group, Kind::Truncate, Bytes::new(), released)
        };
        self.wait(durable).await
    }

    /// Entries up to `upto` are no longer needed. Also how a seeded group begins: with nothing
    /// in the log, `upto` may be any position, and the log goes on behind it.
    pub async fn purge(&self, group: GroupId, upto: LogPosition) -> Result<()> {
        let durable = {
            let mut state = self.accepting()?;
            let entries = state.groups.get(&group).map(|g| &g.entries);
            let purged = entries.map(|e| e.purged()).unwrap_or_default();
            if upto.index <= purged.index {
                return Ok(());
            }
            let released = state.purge(group, upto);
            self.mark(&mut state, group, Kind::Purge, Bytes::new(), released)
        };
        self.wait(durable).await
    }

    /// Forgets a group and all it has, its vote too. Durable when it returns.
    pub async fn remove_group(&self, group: GroupId) -> Result<()> {
        let durable = {
            let mut state = self.accepting()?;
            let released = state.remove(group);
            self.mark(&mut state, group, Kind::Remove, Bytes::new(), released)
        };
        self.wait(durable).await
    }

    /// The group's doubt is settled: a quorum has told what it may have lost. Durable when it
    /// returns.
    pub async fn clear_doubt(&self, group: GroupId) -> Result<()> {
        let durable = {
            let mut state = self.accepting()?;
            let unknown = state
                .unknown_doubt
                .filter(|_| !state.groups.contains_key(&group));
            let doubt = state
                .groups
                .get(&group)
                .map_or(unknown, |known| known.doubt);
            if doubt.is_none() {
                return Ok(());
            }
            state.groups.entry(group).or_default().doubt = None;
            self.mark(
                &mut state,
                group,
                Kind::Settle,
                Bytes::new(),
                Released::default(),
            )
        };
        self.wait(durable).await
    }

    /// Entries in `from..to`, in order, cut at `bytes_max` (at least one) and at the log's end.
    ///
    /// # Errors
    /// `not_found` when `from` is purged (or was while this ran); `corrupt`, with segment and
    /// offset, when an entry is damaged (and nothing before it was asked for).
    pub async fn read(
        &self,
        group: GroupId,
        from: LogIndex,
        to: LogIndex,
        bytes_max: usize,
    ) -> Result<Vec<LogEntry>> {
        read::read(&self.shared, group, from, to, bytes_max).await
    }

    /// Highest index of the group that a finished sync covers.
    pub fn synced(&self, group: GroupId) -> LogIndex {
        let state = self.shared.state.lock();
        state.groups.get(&group).map_or(LogIndex(0), |g| g.synced)
    }

    /// Waits until `synced(group) >= index`; for ever if that entry never comes.
    pub async fn wait_synced(&self, group: GroupId, index: LogIndex) {
        let mut rounds = self.shared.rounds.subscribe();
        while self.synced(group) < index {
            // The sender lives in `shared`, so waiting cannot fail.
            let _ = rounds.changed().await;
        }
    }

    /// Entries that cannot be read, of all groups. A group must not open before its own are
    /// repaired.
    pub fn damaged(&self) -> Vec<DamagedEntry> {
        let state = self.shared.state.lock();
        let mut out = Vec::new();
        for (group, known) in &state.groups {
            for (index, slot) in known.entries.iter() {
                let Place::Lost { segment, offset } = slot.place else {
                    continue;
                };
                out.push(DamagedEntry {
                    group: *group,
                    index,
                    position: known.entries.position(index).filter(|_| slot.known),
                    place: (segment > 0).then_some((segment, u64::from(offset))),
                });
            }
        }
        out
    }

    /// Puts back a damaged entry, as a peer has it. Durable when it returns.
    ///
    /// # Errors
    /// `conflict` when that entry is not damaged or is known to have another position.
    pub async fn repair(&self, group: GroupId, entry: LogEntry) -> Result<()> {
        let (send, durable) = oneshot::channel();
        {
            let mut state = self.accepting()?;
            let index = entry.position.index;
            let entries = state.groups.get(&group).map(|g| &g.entries);
            let slot = entries.and_then(|e| e.slot(index));
            let position = entries.and_then(|e| e.position(index));
            let fits = slot.is_some_and(|slot| {
                matches!(slot.place, Place::Lost { .. })
                    && (!slot.known || position == Some(entry.position))
            });
            if !fits {
                let what = format!(
                    "group {group}: entry {index} needs no repair with this one (it is intact, \
                     gone, or has another term)"
                );
                return Err(Error::new(Code::Conflict, what));
            }
            let work = Work::Rewrite {
                entries: vec![entry],
                done: Some(send),
            };
            state.push(Item { group, work });
        }
        self.shared.wake.notify_one();
        self.wait(durable).await
    }

    /// All segments, oldest first.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        let state = self.shared.state.lock();
        let info = |(number, segment): (&u64, &state::Segment)| SegmentInfo {
            number: *number,
            bytes: segment.bytes,
            live: segment
                .live
                .values()
                .fold(Live::default(), |sum, live| Live {
                    records: sum.records.saturating_add(live.records),
                    bytes: sum.bytes.saturating_add(live.bytes),
                }),
        };
        state.segments.iter().map(info).collect()
    }

    /// Every segment but the newest, oldest first, with the groups that need entries of it.
    /// Purging these groups frees it.
    pub fn pinned(&self) -> Vec<(u64, Vec<GroupId>)> {
        let state = self.shared.state.lock();
        let mut out: Vec<_> = state
            .segments
            .iter()
            .map(|(number, segment)| (*number, segment.live.keys().copied().collect()))
            .collect();
        out.pop();
        out
    }

    fn accepting(&self) -> Result<parking_lot::MutexGuard<'_, State>> {
        let state = self.shared.state.lock();
        if state.closing || state.failed {
            return Err(stopped());
        }
        Ok(state)
    }

    /// Queues a mark at the group's position as it is in memory now.
    fn mark(
        &self,
        state: &mut State,
        group: GroupId,
        kind: Kind,
        payload: Bytes,
        released: Released,
    ) -> oneshot::Receiver<()> {
        let (done, durable) = oneshot::channel();
        let entries = state.groups.get(&group).map(|g| &g.entries);
        let position = match kind {
            Kind::Purge => entries.map(|e| e.purged()),
            _ => entries.map(|e| e.last()),
        };
        let work = Work::Mark {
            kind,
            position: position.unwrap_or_default(),
            payload,
            released,
            done,
        };
        state.push(Item { group, work });
        self.shared.wake.notify_one();
        durable
    }

    async fn wait(&self, durable: oneshot::Receiver<()>) -> Result<()> {
        durable.await.map_err(|_| stopped())
    }
}

fn stopped() -> Error {
    Error::unavailable("the write-ahead log has stopped (a write failed, or the node is stopping)")
        .unknown_outcome()
}

fn check_order(group: GroupId, last: LogIndex, entries: &[LogEntry]) -> Result<()> {
    let mut expected = last.next();
    for entry in entries {
        let found = entry.position.index;
        if found != expected {
            let what = format!(
                "group {group}: entry {found} cannot follow in the log (expected {expected})"
            );
            return Err(Error::failed(what));
        }
        if entry.payload.len() > 1 << 30 {
            let what = format!(
                "group {group}: entry {found} has {} bytes (limit 1 GiB)",
                entry.payload.len()
            );
            return Err(Error::failed(what));
        }
        expected = expected.next();
    }
    Ok(())
}

/// Cuts a long append; the callback goes with the last part.
fn cut(entries: Vec<LogEntry>, done: Flushed) -> Vec<(Vec<LogEntry>, Option<Flushed>)> {
    let mut parts: Vec<(Vec<LogEntry>, Option<Flushed>)> = Vec::new();
    let mut bytes = 0;
    for entry in entries {
        bytes += entry.payload.len();
        match parts.last_mut() {
            Some((part, _)) if bytes <= ITEM_BYTES_MAX => part.push(entry),
            _ => {
                bytes = entry.payload.len();
                parts.push((vec![entry], None));
            }
        }
    }
    if let Some((_, last)) = parts.last_mut() {
        *last = Some(done);
    }
    parts
}
