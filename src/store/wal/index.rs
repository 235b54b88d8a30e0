//! Pure: what the log keeps in memory of a group: where its entries stand, and the payloads of
//! the newest ones. Called by `replay` (which fills it), `state` and `writer`.
//!
//! Payloads are in memory only while they are unsynced or within the cache's bound; everything
//! else is some 40 bytes an entry.

use super::LogPosition;
use crate::types::LogIndex;
use std::collections::{BTreeMap, VecDeque};

/// Where an entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Appended, not yet synced; the payload is in the cache. The ticket tells apart entries
    /// that had the same index one after the other.
    Pending { ticket: u64 },
    /// Synced in this segment.
    At { segment: u64, offset: u32 },
    /// Damaged. Segment 0: not even its place is known.
    Lost { segment: u64, offset: u32 },
}

/// One entry; its index is where it stands in [`Entries`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub term: u64,
    pub leader: u64,
    pub place: Place,
    /// Bytes of the payload.
    pub length: u32,
    /// Term and leader are known; false only for some lost entries.
    pub known: bool,
}

impl Slot {
    fn lost(term: u64, leader: u64, known: bool) -> Slot {
        Slot {
            term,
            leader,
            place: Place::Lost {
                segment: 0,
                offset: 0,
            },
            length: 0,
            known,
        }
    }
}

/// Records that nobody needs once the mark that made them void is durable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Released {
    /// By segment.
    pub written: BTreeMap<u64, Live>,
    /// Tickets of those that were not yet synced. They are written all the same, and until the
    /// mark is durable a restart would look for them.
    pub pending: Vec<u64>,
}

/// Records of a segment that somebody still needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Live {
    pub records: u64,
    /// With their headers.
    pub bytes: u64,
}

impl Live {
    pub(super) fn add(&mut self, payload: u32) {
        self.records = self.records.saturating_add(1);
        let bytes = super::format::record_bytes(payload as usize);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    pub(super) fn subtract(&mut self, other: Live) {
        self.records = self.records.saturating_sub(other.records);
        self.bytes = self.bytes.saturating_sub(other.bytes);
    }
}

impl Released {
    /// Notes that the record of `slot` is not needed any more.
    pub fn add(&mut self, slot: &Slot) {
        match slot.place {
            Place::At { segment, .. } | Place::Lost { segment, .. } => {
                self.written.entry(segment).or_default().add(slot.length);
            }
            Place::Pending { ticket } => self.pending.push(ticket),
        }
    }
}

/// Entries of one group: those behind `purged`, without a gap.
#[derive(Clone, Debug, Default)]
pub(super) struct Entries {
    purged: LogPosition,
    slots: VecDeque<Slot>,
}

impl Entries {
    /// Entries up to here are gone; index 0 if none are.
    pub fn purged(&self) -> LogPosition {
        self.purged
    }

    /// Index of the first entry there is, or would be.
    pub fn first_index(&self) -> LogIndex {
        LogIndex(self.purged.index.0.saturating_add(1))
    }

    pub fn last_index(&self) -> LogIndex {
        LogIndex(self.purged.index.0.saturating_add(self.slots.len() as u64))
    }

    /// The last entry, or `purged`.
    pub fn last(&self) -> LogPosition {
        let index = self.last_index();
        self.slots.back().map_or(self.purged, |slot| LogPosition {
            term: slot.term,
            leader: slot.leader,
            index,
        })
    }

    fn offset_of(&self, index: LogIndex) -> Option<usize> {
        let offset = index.0.checked_sub(self.first_index().0)?;
        usize::try_from(offset)
            .ok()
            .filter(|at| *at < self.slots.len())
    }

    pub fn slot(&self, index: LogIndex) -> Option<&Slot> {
        self.slots.get(self.offset_of(index)?)
    }

    pub fn slot_mut(&mut self, index: LogIndex) -> Option<&mut Slot> {
        let at = self.offset_of(index)?;
        self.slots.get_mut(at)
    }

    pub fn position(&self, index: LogIndex) -> Option<LogPosition> {
        let slot = self.slot(index)?;
        Some(LogPosition {
            term: slot.term,
            leader: slot.leader,
            index,
        })
    }

    pub fn iter(&self) -> impl Iterator<Item = (LogIndex, &Slot)> {
        (self.first_index().0..).map(LogIndex).zip(&self.slots)
    }

    /// Bytes of the payloads behind `index`.
    pub fn bytes_behind(&self, index: LogIndex) -> u64 {
        let skipped = index.0.saturating_sub(self.purged.index.0);
        let skipped = usize::try_from(skipped).unwrap_or(usize::MAX);
        let skipped = skipped.min(self.slots.len());
        let behind = self.slots.range(skipped..);
        behind.fold(0, |sum, slot| sum.saturating_add(u64::from(slot.length)))
    }

    /// The last entry that lies in a segment before this one.
    pub fn last_before(&self, segment: u64) -> Option<LogIndex> {
        let lies_before = |slot: &Slot| match slot.place {
            Place::At { segment: here, .. } | Place::Lost { segment: here, .. } => here < segment,
            Place::Pending { .. } => false,
        };
        let last = self.slots.iter().rposition(lies_before)?;
        Some(LogIndex(self.purged.index.0 + 1 + last as u64))
    }

    pub fn push(&mut self, slot: Slot) {
        self.slots.push_back(slot);
    }

    /// Drops the entries behind `index`.
    pub fn truncate(&mut self, index: LogIndex) -> Released {
        let keep = index.0.saturating_sub(self.purged.index.0);
        let keep = usize::try_from(keep)
            .unwrap_or(usize::MAX)
            .min(self.slots.len());
        let mut released = Released::default();
        for slot in self.slots.drain(keep..) {
            released.add(&slot);
        }
        released
    }

    /// Drops the entries up to `upto`; everything, if it is behind the last one.
    pub fn purge(&mut self, upto: LogPosition) -> Released {
        let mut released = Released::default();
        if upto.index < self.purged.index {
            return released;
        }
        let gone = upto.index.0 - self.purged.index.0;
        let gone = usize::try_from(gone)
            .unwrap_or(usize::MAX)
            .min(self.slots.len());
        for slot in self.slots.drain(..gone) {
            released.add(&slot);
        }
        self.purged = upto;
        released
    }

    /// Makes the log end at `last`: cuts it, or fills it with lost entries, of which only the
    /// last has a known identity.
    pub fn fit(&mut self, last: LogPosition) {
        if last.index <= self.last_index() {
            self.truncate(last.index);
            if self.last_index() == last.index && self.last() != last {
                match self.slots.back_mut() {
                    Some(slot) if !slot.known => {
                        (slot.term, slot.leader, slot.known) = (last.term, last.leader, true);
                    }
                    // The mark that cut the log and what was appended then are both gone.
                    _ => {
                        self.slots.pop_back();
                        self.distrust_below(last.term);
                    }
                }
            }
        }
        if self.last_index() < last.index {
            self.fill(LogIndex(last.index.0.saturating_sub(1)));
            self.push(Slot::lost(last.term, last.leader, true));
        }
    }

    /// Adds lost entries of unknown identity up to `index`.
    pub fn fill(&mut self, index: LogIndex) {
        while self.last_index() < index {
            self.push(Slot::lost(0, 0, false));
        }
    }

    /// Gives lost entries of unknown identity the one that their neighbours have, if both agree:
    /// terms never fall along a log and a term has one leader.
    pub fn infer_identities(&mut self) {
        let mut before = Some((self.purged.term, self.purged.leader));
        let mut at = 0;
        while at < self.slots.len() {
            if self.slots[at].known {
                before = Some((self.slots[at].term, self.slots[at].leader));
                at += 1;
                continue;
            }
            let run = self.slots.iter().skip(at).take_while(|s| !s.known).count();
            let after = self.slots.get(at + run).map(|s| (s.term, s.leader));
            for slot in self.slots.range_mut(at..at + run) {
                if let Some((term, leader)) = after.filter(|_| before == after) {
                    (slot.term, slot.leader, slot.known) = (term, leader, true);
                }
            }
            at += run;
        }
    }

    /// Makes every entry of a term below `term` a lost one: the mark that cut the log here is
    /// gone, so it is not known which of them it took away.
    pub fn distrust_below(&mut self, term: u64) {
        for slot in self
            .slots
            .iter_mut()
            .filter(|slot| slot.known && slot.term < term)
        {
            let (segment, offset) = match slot.place {
                Place::At { segment, offset } | Place::Lost { segment, offset } => {
                    (segment, offset)
                }
                Place::Pending { .. } => (0, 0),
            };
            slot.place = Place::Lost { segment, offset };
            slot.known = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(term: u64, index: u64) -> LogPosition {
        LogPosition {
            term,
            leader: 1,
            index: LogIndex(index),
        }
    }

    fn slot(term: u64, segment: u64) -> Slot {
        Slot {
            term,
            leader: 1,
            place: Place::At { segment, offset: 0 },
            length: 1,
            known: true,
        }
    }

    #[test]
    fn truncation_and_purge_release_the_records_of_what_goes() {
        let mut log = Entries::default();
        log.purge(at(0, 1));
        (1..=6).for_each(|i| log.push(slot(1, 1 + i / 4)));
        assert_eq!(
            (log.first_index(), log.last_index()),
            (LogIndex(2), LogIndex(7))
        );
        assert_eq!(log.bytes_behind(LogIndex(4)), 3);
        assert_eq!(log.bytes_behind(LogIndex(0)), 6);
        assert_eq!(log.bytes_behind(LogIndex(90)), 0);
        let released = log.truncate(LogIndex(5));
        assert_eq!(released.written[&2].records, 2);
        let released = log.purge(at(1, 4));
        assert_eq!(
            (released.written[&1].records, released.written[&1].bytes),
            (3, 384)
        );
        assert_eq!(log.last(), at(1, 5));
        log.purge(at(3, 90));
        assert_eq!((log.last(), log.first_index()), (at(3, 90), LogIndex(91)));
    }

    #[test]
    fn a_lost_entry_between_equal_neighbours_is_identified() {
        let mut log = Entries::default();
        log.push(slot(3, 1));
        log.fit(at(3, 4));
        log.push(slot(5, 1));
        log.infer_identities();
        let known: Vec<_> = log.iter().map(|(_, s)| (s.term, s.known)).collect();
        assert_eq!(
            known,
            [(3, true), (3, true), (3, true), (3, true), (5, true)]
        );
        let mut log = Entries::default();
        log.push(slot(3, 1));
        log.fit(at(4, 3));
        log.infer_identities();
        assert!(!log.slot(LogIndex(2)).unwrap().known);
        assert!(log.slot(LogIndex(3)).unwrap().known);
    }
}
