//! The node's log as openraft's storage of one group. Called by openraft only; built by
//! `RaftGroup::start`. It keeps nothing in memory: the log has its own tail cache.
//!
//! An error of the log, at once or from a flush, stops the group: what is durable is unknown.

use super::kinds::{Entry, LogId, Types, Vote, log_id, position};
use super::stored;
use crate::codec;
use crate::error::Result;
use crate::store::wal::{Flushed, GroupState, LogEntry, LogPosition, Wal};
use crate::types::{GroupId, LogIndex};
use bytes::Bytes;
use futures::{Stream, stream};
use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::fmt::Debug;
use std::future::Future;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

/// Bytes read from the log at once, for sending and for applying: one message stays far below
/// the largest frame, and entries on their way to the state machine are bounded.
pub(super) const READ_BYTES_MAX: usize = 1 << 20;

/// What `raft` needs of the log; the methods mean what those of [`Wal`] mean.
pub(super) trait LogStore: Send + Sync + 'static {
    fn state(&self, group: GroupId) -> GroupState;
    fn ready(&self) -> impl Future<Output = ()> + Send;
    fn append(&self, group: GroupId, entries: Vec<LogEntry>, done: Flushed) -> Result<()>;
    fn save_vote(&self, group: GroupId, vote: Bytes) -> impl Future<Output = Result<()>> + Send;
    fn save_committed(&self, group: GroupId, committed: Bytes);
    fn truncate_after(
        &self,
        group: GroupId,
        last: Option<LogPosition>,
    ) -> impl Future<Output = Result<()>> + Send;
    fn purge(&self, group: GroupId, upto: LogPosition) -> impl Future<Output = Result<()>> + Send;
    fn bytes_behind(&self, group: GroupId, index: LogIndex) -> u64;
    fn read(
        &self,
        group: GroupId,
        from: LogIndex,
        to: LogIndex,
        bytes_max: usize,
    ) -> impl Future<Output = Result<Vec<LogEntry>>> + Send;
}

impl LogStore for Wal {
    fn state(&self, group: GroupId) -> GroupState {
        Wal::state(self, group)
    }
    async fn ready(&self) {
        Wal::ready(self).await
    }
    fn append(&self, group: GroupId, entries: Vec<LogEntry>, done: Flushed) -> Result<()> {
        Wal::append(self, group, entries, done)
    }
    async fn save_vote(&self, group: GroupId, vote: Bytes) -> Result<()> {
        Wal::save_vote(self, group, vote).await
    }
    fn save_committed(&self, group: GroupId, committed: Bytes) {
        Wal::save_committed(self, group, committed)
    }
    async fn truncate_after(&self, group: GroupId, last: Option<LogPosition>) -> Result<()> {
        Wal::truncate_after(self, group, last).await
    }
    async fn purge(&self, group: GroupId, upto: LogPosition) -> Result<()> {
        Wal::purge(self, group, upto).await
    }
    fn bytes_behind(&self, group: GroupId, index: LogIndex) -> u64 {
        Wal::bytes_behind(self, group, index)
    }
    async fn read(
        &self,
        group: GroupId,
        from: LogIndex,
        to: LogIndex,
        bytes_max: usize,
    ) -> Result<Vec<LogEntry>> {
        Wal::read(self, group, from, to, bytes_max).await
    }
}

/// Makes a log begin behind a state that an image put beyond it: the power may have gone between
/// the two. What stands in the log then was for an older state, or was never committed.
pub(super) async fn follow_state<L: LogStore>(
    log: &L,
    group: GroupId,
    applied: LogPosition,
) -> Result<()> {
    let state = log.state(group);
    let purged = state.purged.unwrap_or_default();
    let last = state.last.unwrap_or_default();
    if applied.index <= purged.index {
        return Ok(());
    }
    if last.index >= applied.index {
        let behind = applied.index.next();
        let entries = log
            .read(group, applied.index, behind, READ_BYTES_MAX)
            .await?;
        if entries.first().is_some_and(|e| e.position == applied) {
            return Ok(());
        }
        log.truncate_after(group, state.purged).await?;
    }
    log.purge(group, applied).await
}

/// The image that is being given to openraft, if there is one.
///
/// If this replica's log has another entry where the image ends, openraft first drops all of the
/// log that is not known to be committed here, then installs the image. Among what it drops may
/// be entries that this replica acknowledged and that are committed without its knowing: should
/// the power go between the two, they would be lost here, while the leader counts on them. So
/// the log keeps them until the image is installed.
#[derive(Clone, Default)]
pub(super) struct Installing(Arc<Mutex<Option<LogIndex>>>);

impl Installing {
    /// An image as of this index, until the guard is dropped.
    pub(super) fn begin(&self, at: LogIndex) -> InstallingGuard {
        *self.0.lock() = Some(at);
        InstallingGuard(self.clone())
    }

    fn covers(&self, behind: Option<LogPosition>) -> bool {
        let index = behind.map_or(LogIndex(0), |p| p.index);
        self.0.lock().is_some_and(|at| index < at)
    }
}

pub(super) struct InstallingGuard(Installing);

impl Drop for InstallingGuard {
    fn drop(&mut self) {
        *self.0.0.lock() = None;
    }
}

/// One group's part of a node's log.
pub(super) struct GroupLog<L> {
    store: Arc<L>,
    group: GroupId,
    installing: Installing,
    /// A truncation that waits for an image, as it was asked for.
    put_off: Option<Option<LogPosition>>,
}

impl<L> Clone for GroupLog<L> {
    fn clone(&self) -> Self {
        GroupLog {
            store: self.store.clone(),
            group: self.group,
            installing: self.installing.clone(),
            put_off: None,
        }
    }
}

impl<L: LogStore> GroupLog<L> {
    pub(super) fn new(store: Arc<L>, group: GroupId, installing: Installing) -> Self {
        GroupLog {
            store,
            group,
            installing,
            put_off: None,
        }
    }

    /// Does what was put off: the log is changed otherwise now, or the image is installed.
    async fn catch_up(&mut self) -> io::Result<()> {
        if let Some(last) = self.put_off.take() {
            let done = self.store.truncate_after(self.group, last).await;
            done.map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Entries in `from..to`, cut at [`READ_BYTES_MAX`], at least one.
    async fn page(&self, from: u64, to: u64) -> io::Result<Vec<Entry>> {
        let entries = self
            .store
            .read(self.group, LogIndex(from), LogIndex(to), READ_BYTES_MAX)
            .await
            .map_err(io::Error::other)?;
        if entries.is_empty() {
            return Err(io::Error::other(format!(
                "the log of group {} gave no entry of {from}..{to}",
                self.group
            )));
        }
        entries
            .into_iter()
            .map(|entry| stored::entry_from_log(entry).map_err(io::Error::other))
            .collect()
    }
}

/// `start..end` of any range of indexes.
fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(&start) => start,
        Bound::Excluded(&before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(&last) => last.saturating_add(1),
        Bound::Excluded(&end) => end,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

impl<L: LogStore> RaftLogReader<Types> for GroupLog<L> {
    /// Entries of the range that the log has; openraft asks so for short ranges only.
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let (start, end) = bounds(&range);
        let state = self.store.state(self.group);
        let mut from = start.max(index_after(state.purged));
        let end = end.min(index_after(state.last));
        let mut entries = Vec::new();
        while from < end {
            let page = self.page(from, end).await?;
            from = from.saturating_add(page.len() as u64);
            entries.extend(page);
        }
        Ok(entries)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        if start >= end {
            return Ok(Vec::new());
        }
        self.page(start, end).await
    }

    /// Entries to apply, page by page: however far the state machine is behind, one page is in
    /// memory.
    async fn entries_stream<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = io::Result<Entry>> + OptionalSend {
        let (from, end) = bounds(&range);
        let start = (self.clone(), VecDeque::new(), from);
        stream::try_unfold(start, move |(log, mut page, mut from)| async move {
            if page.is_empty() && from < end {
                page = log.page(from, end).await?.into();
                from = from.saturating_add(page.len() as u64);
            }
            Ok(page.pop_front().map(|entry| (entry, (log, page, from))))
        })
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        let vote = self.store.state(self.group).vote;
        vote.map(|bytes| stored::decode_vote(&bytes).map_err(io::Error::other))
            .transpose()
    }
}

/// The index behind a position, 0 behind none: where openraft counts from.
fn index_after(position: Option<LogPosition>) -> u64 {
    position.map_or(0, |p| p.index.0.saturating_add(1))
}

impl<L: LogStore> RaftLogStorage<Types> for GroupLog<L> {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let state = self.store.state(self.group);
        Ok(LogState {
            last_purged_log_id: state.purged.map(log_id),
            last_log_id: state.last.map(log_id),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let bytes = stored::encode_vote(vote);
        (self.store.save_vote(self.group, bytes).await).map_err(io::Error::other)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        if let Some(committed) = committed {
            let bytes = codec::encode(&position(&committed)).into();
            self.store.save_committed(self.group, bytes);
        }
        Ok(())
    }

    /// The committed position, cut at the last entry: a follower may hear that an entry is
    /// committed before its own copy is synced, and lose that copy in a crash. What is left is
    /// then still a prefix of what was committed, and the leader sends the rest again.
    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        let state = self.store.state(self.group);
        let (Some(committed), Some(last)) = (state.committed, state.last) else {
            return Ok(None);
        };
        let committed: LogPosition = codec::decode(&committed).map_err(io::Error::other)?;
        let known = if committed.index > last.index {
            last
        } else {
            committed
        };
        Ok(Some(log_id(known)))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries = entries.into_iter().map(stored::entry_to_log).collect();
        self.catch_up().await?;
        // An error here ends the group: a disk that is slower than what arrives only holds it up.
        self.store.ready().await;
        let done: Flushed = Box::new(move |outcome| callback.io_completed(outcome));
        (self.store.append(self.group, entries, done)).map_err(io::Error::other)
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let last = last.as_ref().map(position);
        if self.installing.covers(last) {
            self.put_off = Some(last);
            return Ok(());
        }
        self.put_off = None;
        (self.store.truncate_after(self.group, last).await).map_err(io::Error::other)
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.catch_up().await?;
        (self.store.purge(self.group, position(&upto)).await).map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::sim::{self, SimDisk};
    use crate::raft::kinds::log_id_if_any;
    use crate::raft::model_tests::{GROUP, ModelLog};
    use crate::store::wal::WalOptions;
    use std::path::Path;
    use std::time::Duration;

    fn at(term: u64, index: u64) -> LogPosition {
        LogPosition {
            term,
            leader: 1,
            index: LogIndex(index),
        }
    }

    /// Entries 2 to 10, of term 3.
    async fn filled() -> Arc<ModelLog> {
        let log = ModelLog::seeded();
        let entries = (2..=10).map(|index| LogEntry {
            position: at(3, index),
            payload: codec::encode(&stored::Payload::Blank).into(),
        });
        (log.append(GROUP, entries.collect(), Box::new(|_| {}))).unwrap();
        log
    }

    #[tokio::test]
    async fn what_an_image_replaces_stays_until_it_is_installed() {
        let (store, installing) = (filled().await, Installing::default());
        let mut log = GroupLog::new(store.clone(), GROUP, installing.clone());
        let guard = installing.begin(LogIndex(8));
        log.truncate_after(log_id_if_any(at(3, 4))).await.unwrap();
        assert_eq!(store.entries(), 9);
        // Installed: openraft lets the log begin behind it.
        log.purge(log_id_if_any(at(4, 8)).unwrap()).await.unwrap();
        assert_eq!(store.entries(), 0);
        assert_eq!(store.state(GROUP).last, Some(at(4, 8)));
        drop(guard);

        let store = filled().await;
        let mut log = GroupLog::new(store.clone(), GROUP, installing.clone());
        let guard = installing.begin(LogIndex(8));
        log.truncate_after(log_id_if_any(at(3, 9))).await.unwrap();
        assert_eq!(store.entries(), 8, "not because of the image");
        log.truncate_after(log_id_if_any(at(3, 4))).await.unwrap();
        drop(guard);
        log.truncate_after(log_id_if_any(at(3, 3))).await.unwrap();
        assert_eq!(store.entries(), 2);
    }

    #[tokio::test]
    async fn a_log_that_does_not_reach_its_state_begins_behind_it() {
        let cases = [
            // Applied, what is left, where it ends.
            (at(3, 10), 9, at(3, 10)),
            (at(3, 6), 9, at(3, 10)),
            (at(2, 90), 0, at(2, 90)),
            // Another entry where the state ends: none of these was ever committed.
            (at(4, 10), 0, at(4, 10)),
            (at(4, 6), 0, at(4, 6)),
        ];
        for (applied, left, last) in cases {
            let log = filled().await;
            for _ in 0..2 {
                follow_state(&*log, GROUP, applied).await.unwrap();
                assert_eq!(log.entries(), left, "{applied:?}");
                assert_eq!(log.state(GROUP).last, Some(last), "{applied:?}");
            }
        }
        let empty = Arc::<ModelLog>::default();
        follow_state(&*empty, GROUP, LogPosition::default())
            .await
            .unwrap();
        assert_eq!(empty.state(GROUP), GroupState::default());
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_of_the_log_is_waited_for() {
        let (env, handles) = sim::env_on(1, SimDisk::new(1));
        let options = WalOptions {
            segment_bytes: 64 << 10,
            queue_bytes: 10_000,
            ..WalOptions::default()
        };
        let wal = Wal::open_with(env, Path::new("/log"), options).await;
        let wal = wal.unwrap();
        handles.disk.set_sync_latency(Duration::from_millis(100));
        let mut log = GroupLog::new(wal.clone(), GROUP, Installing::default());
        for index in 1..=40 {
            let payload = stored::Payload::Command(Bytes::from(vec![7; 1_000]));
            let entry = LogEntry {
                position: at(1, index),
                payload: codec::encode(&payload).into(),
            };
            let entry = stored::entry_from_log(entry).unwrap();
            log.append([entry], IOFlushed::noop()).await.unwrap();
        }
        wal.wait_synced(GROUP, LogIndex(40)).await;
    }
}
