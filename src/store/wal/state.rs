//! What the callers of the log and its writer share, under one mutex that nobody holds across an
//! `.await`: groups, queue, cache, segments. Touches no file.

use super::batch::Out;
use super::format::{Kind, Marks, record_bytes};
use super::index::{Entries, Live, Place, Released, Slot};
use super::{Doubt, Flushed, LogEntry, LogPosition};
use crate::env::DiskFile;
use crate::types::{GroupId, LogIndex};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use tokio::sync::oneshot;

/// Bytes that one write takes from the queue (at least one item): bounds the latency of a sync
/// and the space lost at a segment's end.
pub(super) const ROUND_BYTES_MAX: u64 = 8 << 20;

/// A group as its callers see it: with what is queued.
#[derive(Default)]
pub(super) struct Group {
    pub entries: Entries,
    /// Payloads of the last entries.
    tail: VecDeque<Bytes>,
    pub synced: LogIndex,
    pub vote: Option<Bytes>,
    pub committed: Option<Bytes>,
    pub doubt: Option<Doubt>,
}

impl Group {
    /// A group as a restart found it.
    pub fn recovered(entries: Entries, marks: Marks) -> Group {
        Group {
            synced: entries.last_index(),
            entries,
            tail: VecDeque::new(),
            vote: marks.vote,
            committed: marks.committed,
            doubt: marks.doubt,
        }
    }

    /// The payload, if it is in memory.
    pub fn cached(&self, index: LogIndex) -> Option<&Bytes> {
        let behind = self.entries.last_index().0.checked_sub(index.0)?;
        let at = (self.tail.len() as u64).checked_sub(behind.checked_add(1)?)?;
        self.tail.get(at as usize)
    }

    /// Index of the oldest payload in memory.
    fn cached_from(&self) -> LogIndex {
        LogIndex((self.entries.last_index().0 + 1).saturating_sub(self.tail.len() as u64))
    }
}

/// One file of the log.
pub(super) struct Segment {
    pub file: Arc<dyn DiskFile>,
    /// Length of the file.
    pub bytes: u64,
    /// What each group still needs of it.
    pub live: BTreeMap<GroupId, Live>,
}

/// Something to be written.
pub(super) enum Work {
    /// Entries with consecutive tickets; only the last part of an append has a callback.
    Entries {
        ticket: u64,
        entries: Vec<LogEntry>,
        done: Option<Flushed>,
    },
    Mark {
        kind: Kind,
        position: LogPosition,
        payload: Bytes,
        /// Records that nobody needs once the mark is durable.
        released: Released,
        done: oneshot::Sender<()>,
    },
    /// Entries that are in the log already, to be written again.
    Rewrite {
        entries: Vec<LogEntry>,
        done: Option<oneshot::Sender<()>>,
    },
}

pub(super) struct Item {
    pub group: GroupId,
    pub work: Work,
}

impl Item {
    /// Bytes that its records take.
    pub fn bytes(&self) -> u64 {
        match &self.work {
            Work::Entries { entries, .. } | Work::Rewrite { entries, .. } => entries
                .iter()
                .fold(0, |sum, e| sum + record_bytes(e.payload.len())),
            Work::Mark { payload, .. } => record_bytes(payload.len()),
        }
    }

    /// Its records, as they go to the disk.
    pub fn records(&self, out: &mut Vec<Out>) {
        let group = self.group;
        let mut put = |kind, position, payload: &Bytes| {
            out.push(Out {
                kind,
                group,
                position,
                payload: payload.clone(),
            });
        };
        match &self.work {
            Work::Entries { entries, .. } => entries
                .iter()
                .for_each(|e| put(Kind::Entry, e.position, &e.payload)),
            Work::Rewrite { entries, .. } => entries
                .iter()
                .for_each(|e| put(Kind::Rewrite, e.position, &e.payload)),
            Work::Mark {
                kind,
                position,
                payload,
                ..
            } => put(*kind, *position, payload),
        }
    }
}

/// Payloads in memory, oldest first, named by their groups.
#[derive(Default)]
struct Cache {
    order: VecDeque<GroupId>,
    entries: usize,
    bytes: u64,
}

#[derive(Default)]
pub(super) struct State {
    pub groups: BTreeMap<GroupId, Group>,
    pub segments: BTreeMap<u64, Segment>,
    pub queue: VecDeque<Item>,
    pub queue_bytes: u64,
    /// Groups whose committed position is not written yet.
    pub committed: BTreeSet<GroupId>,
    /// Doubt of every group that is not in `groups`.
    pub unknown_doubt: Option<Doubt>,
    next_ticket: u64,
    /// Records (segment, payload bytes) of entries that went before they were synced, until the
    /// mark that made them void is durable too.
    orphans: BTreeMap<u64, (u64, u32)>,
    cache: Cache,
    /// No more is accepted; the writer ends when the queue is empty.
    pub closing: bool,
    /// The writer has ended after an error.
    pub failed: bool,
}

impl State {
    pub fn push(&mut self, item: Item) {
        self.queue_bytes = self.queue_bytes.saturating_add(item.bytes());
        self.queue.push_back(item);
    }

    /// Makes entries readable and returns the ticket of the first.
    pub fn append(&mut self, group: GroupId, entries: &[LogEntry]) -> u64 {
        let first = self.next_ticket;
        self.next_ticket = first.wrapping_add(entries.len() as u64);
        let target = self.groups.entry(group).or_default();
        for (ticket, entry) in (first..).zip(entries) {
            target.entries.push(Slot {
                term: entry.position.term,
                leader: entry.position.leader,
                place: Place::Pending { ticket },
                length: entry.payload.len() as u32,
                known: true,
            });
            target.tail.push_back(entry.payload.clone());
            self.cache.order.push_back(group);
            self.cache.entries += 1;
            self.cache.bytes = self.cache.bytes.saturating_add(entry.payload.len() as u64);
        }
        first
    }

    /// Drops entries behind `index` in memory.
    pub fn truncate(&mut self, group: GroupId, index: LogIndex) -> Released {
        let Some(target) = self.groups.get_mut(&group) else {
            return Released::default();
        };
        let keep = index
            .0
            .saturating_add(1)
            .saturating_sub(target.cached_from().0);
        let keep = (keep as usize).min(target.tail.len());
        let gone = target.tail.split_off(keep);
        self.cache.forget(gone.iter());
        target.synced = target.synced.min(index);
        target.entries.truncate(index)
    }

    /// Drops entries up to `upto` in memory.
    pub fn purge(&mut self, group: GroupId, upto: LogPosition) -> Released {
        let target = self.groups.entry(group).or_default();
        let gone = (upto.index.0 + 1).saturating_sub(target.cached_from().0);
        let gone = (gone as usize).min(target.tail.len());
        let kept = target.tail.split_off(gone);
        let gone = std::mem::replace(&mut target.tail, kept);
        self.cache.forget(gone.iter());
        target.entries.purge(upto)
    }

    /// Drops a group in memory.
    pub fn remove(&mut self, group: GroupId) -> Released {
        let mut released = Released::default();
        if let Some(gone) = self.groups.remove(&group) {
            self.cache.forget(gone.tail.iter());
            for (_, slot) in gone.entries.iter() {
                released.add(slot);
            }
        }
        self.committed.remove(&group);
        released
    }

    /// Counts records of a group out of their segments.
    pub fn release(&mut self, group: GroupId, released: &Released) {
        for ticket in &released.pending {
            if let Some((segment, length)) = self.orphans.remove(ticket) {
                let mut gone = Live::default();
                gone.add(length);
                self.release_in(group, segment, gone);
            }
        }
        for (number, gone) in &released.written {
            self.release_in(group, *number, *gone);
        }
    }

    fn release_in(&mut self, group: GroupId, segment: u64, gone: Live) {
        let Some(segment) = self.segments.get_mut(&segment) else {
            return;
        };
        if let Some(live) = segment.live.get_mut(&group) {
            live.subtract(gone);
            if live.records == 0 {
                segment.live.remove(&group);
            }
        }
    }

    /// Counts a record of a group into its segment.
    pub fn hold(&mut self, group: GroupId, segment: u64, length: u32) {
        if let Some(segment) = self.segments.get_mut(&segment) {
            segment.live.entry(group).or_default().add(length);
        }
    }

    /// Notes that an entry is synced at a place. If it was truncated or purged meanwhile, its
    /// record is still needed until the mark that says so is durable.
    pub fn synced(&mut self, group: GroupId, entry: &LogEntry, ticket: u64, at: (u64, u32)) {
        let (segment, offset) = at;
        let index = entry.position.index;
        let length = entry.payload.len() as u32;
        self.hold(group, segment, length);
        if let Some(target) = self.groups.get_mut(&group)
            && let Some(slot) = target.entries.slot_mut(index)
            && slot.place == (Place::Pending { ticket })
        {
            slot.place = Place::At { segment, offset };
            target.synced = target.synced.max(index);
        } else {
            self.orphans.insert(ticket, (segment, length));
        }
    }

    /// Notes that an entry was written again at a place, unless it is gone meanwhile.
    pub fn moved(&mut self, group: GroupId, entry: &LogEntry, at: (u64, u32)) {
        let (segment, offset) = at;
        let LogPosition {
            term,
            leader,
            index,
        } = entry.position;
        let slot = self
            .groups
            .get_mut(&group)
            .and_then(|g| g.entries.slot_mut(index))
            .filter(|slot| !slot.known || (slot.term, slot.leader) == (term, leader))
            .filter(|slot| !matches!(slot.place, Place::Pending { .. }));
        let Some(slot) = slot else {
            return;
        };
        let mut released = Released::default();
        released.add(slot);
        *slot = Slot {
            term,
            leader,
            place: Place::At { segment, offset },
            length: entry.payload.len() as u32,
            known: true,
        };
        let length = slot.length;
        self.release(group, &released);
        self.hold(group, segment, length);
    }

    /// Marks an entry that failed its check, if it still stands where it was read.
    /// Returns false if it does not.
    pub fn lost(&mut self, group: GroupId, index: LogIndex, at: (u64, u32)) -> bool {
        let (segment, offset) = at;
        let slot = self
            .groups
            .get_mut(&group)
            .and_then(|g| g.entries.slot_mut(index));
        match slot {
            Some(slot) if slot.place == (Place::At { segment, offset }) => {
                slot.place = Place::Lost { segment, offset };
                true
            }
            Some(slot) => slot.place == (Place::Lost { segment, offset }),
            None => false,
        }
    }

    /// Takes what the next write is to hold: at least one item, more while they fit `room` and
    /// [`ROUND_BYTES_MAX`]. `overhead` is what each item may cost besides its records.
    pub fn take(&mut self, room: u64, overhead: u64) -> Vec<Item> {
        let room = room.min(ROUND_BYTES_MAX);
        let mut taken = Vec::new();
        let mut bytes = 0u64;
        while let Some(item) = self.queue.front() {
            let records = item.bytes();
            let cost = records.saturating_add(overhead);
            if !taken.is_empty() && bytes.saturating_add(cost) > room {
                break;
            }
            bytes = bytes.saturating_add(cost);
            self.queue_bytes = self.queue_bytes.saturating_sub(records);
            taken.extend(self.queue.pop_front());
        }
        taken
    }

    /// Lets go of the oldest payloads beyond `bytes_max`, but of none that is not synced.
    pub fn evict(&mut self, bytes_max: u64) {
        while self.cache.bytes > bytes_max {
            let Some(group) = self.cache.order.front().copied() else {
                return;
            };
            if let Some(target) = self.groups.get_mut(&group)
                && !target.tail.is_empty()
            {
                let slot = target.entries.slot(target.cached_from());
                if slot.is_some_and(|s| matches!(s.place, Place::Pending { .. })) {
                    return;
                }
                let gone = target.tail.pop_front();
                self.cache.forget(gone.iter());
            }
            self.cache.order.pop_front();
        }
        self.tidy_cache();
    }

    /// Names of payloads that are gone by another way must not pile up.
    fn tidy_cache(&mut self) {
        if self.cache.order.len() > 2 * self.cache.entries + 1_024 {
            self.cache.order.clear();
            for (group, target) in &self.groups {
                let names = std::iter::repeat_n(*group, target.tail.len());
                self.cache.order.extend(names);
            }
        }
    }

    /// Bytes of payloads in memory.
    #[cfg(test)]
    pub fn cached_bytes(&self) -> u64 {
        self.cache.bytes
    }
}

impl Cache {
    fn forget<'a>(&mut self, gone: impl Iterator<Item = &'a Bytes>) {
        for payload in gone {
            self.entries = self.entries.saturating_sub(1);
            self.bytes = self.bytes.saturating_sub(payload.len() as u64);
        }
    }
}
