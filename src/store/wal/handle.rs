//! The log as its callers hold it: changes the state in memory, queues records for `writer`,
//! waits for them. Touches no file itself.

use super::format::Kind;
use super::index::{Live, Released};
use super::segment::Spare;
use super::state::{Item, Segment, State, Work};
use super::{Flushed, GroupState, LogEntry, LogPosition, SegmentInfo, WalOptions, read, recover};
use crate::env::Env;
use crate::error::{Code, Error, Result};
use crate::types::{GroupId, LogIndex};
use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{Notify, oneshot, watch};

/// What the log's handle and its tasks share.
pub(super) struct Shared {
    pub env: Env,
    pub dir: PathBuf,
    pub options: WalOptions,
    pub salt: u64,
    pub state: Mutex<State>,
    /// Wakes the writer.
    pub wake: Notify,
    /// Something left the queue.
    pub room: Notify,
    /// Counts the writer's rounds.
    pub rounds: watch::Sender<u64>,
    /// The writer has ended.
    pub finished: watch::Sender<bool>,
    pub spare: Arc<Spare>,
    /// The writer waits for room on the disk.
    pub full: AtomicBool,
}

impl Shared {
    /// Ends the process; in tests, the log.
    pub fn fail(&self, error: &std::io::Error) {
        (self.options.on_fatal)("the write-ahead log", error);
        self.end(error);
    }

    /// Nothing more is written. Whoever still waits gets the error.
    pub fn end(&self, error: &std::io::Error) {
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
    pub(super) shared: Arc<Shared>,
}

impl Drop for Wal {
    /// Lets the writer finish what is queued and end. Nothing relies on it.
    fn drop(&mut self) {
        self.shared.state.lock().closing = true;
        self.shared.wake.notify_one();
    }
}

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

    /// True while nothing can be written because the disk has no room for another segment.
    pub fn is_full(&self) -> bool {
        self.shared.full.load(Ordering::Relaxed)
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

    /// Highest index of the group that a finished sync covers; a durable purge covers what it
    /// let go, also what the log never held.
    pub fn synced(&self, group: GroupId) -> LogIndex {
        let state = self.shared.state.lock();
        state.groups.get(&group).map_or(LogIndex(0), |g| g.synced)
    }

    /// Bytes of the payloads behind an index.
    pub fn bytes_behind(&self, group: GroupId, index: LogIndex) -> u64 {
        let state = self.shared.state.lock();
        let known = state.groups.get(&group);
        known.map_or(0, |g| g.entries.bytes_behind(index))
    }

    /// Waits until `synced(group) >= index`; for ever if that entry never comes.
    pub async fn wait_synced(&self, group: GroupId, index: LogIndex) {
        let mut rounds = self.shared.rounds.subscribe();
        while self.synced(group) < index {
            // The sender lives in `shared`, so waiting cannot fail.
            let _ = rounds.changed().await;
        }
    }

    /// All segments, oldest first.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        let state = self.shared.state.lock();
        let info = |(number, segment): (&u64, &Segment)| SegmentInfo {
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

    /// The last entry of a group before the newest [`segments_kept`](WalOptions::segments_kept)
    /// segments. Purging all groups up to theirs frees the older ones.
    pub fn last_in_old(&self, group: GroupId) -> Option<LogIndex> {
        let state = self.shared.state.lock();
        let kept = self.shared.options.segments_kept.max(1);
        let oldest = *state.segments.keys().rev().nth(kept - 1)?;
        let mut old = state.segments.range(..oldest);
        if !old.any(|(_, segment)| segment.live.contains_key(&group)) {
            // Its entries need not be looked through.
            return None;
        }
        state.groups.get(&group)?.entries.last_before(oldest)
    }

    /// The state, if the log still takes something.
    pub(super) fn accepting(&self) -> Result<MutexGuard<'_, State>> {
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

    pub(super) async fn wait(&self, durable: oneshot::Receiver<()>) -> Result<()> {
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
