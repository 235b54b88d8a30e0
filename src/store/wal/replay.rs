//! Pure: rebuilds every group's state from the segments, in order, and judges damage: what was
//! synced and is damaged, what was never synced, what cannot be told. Called by `recover`.
//!
//! The rules are in `mod.rs`, "Recovery"; the names here follow them.

use super::format::{Kind, Marks, RECORDS_AT, Row, SegmentHeader};
use super::index::{Entries, Place, Slot};
use super::scan::{self, Found, Piece, Stretch};
use super::standing::{
    Standing, certain_end, first_batch, is_bare, is_checkpoint, is_unused, sequences, standings,
    synced_up_to,
};
use super::{Doubt, LogPosition, UNKNOWN_GROUPS};
use crate::types::{GroupId, LogIndex};
use bytes::Bytes;
use std::collections::BTreeMap;

/// Descriptions of damage that are kept for the log file; more are only counted.
const NOTES_MAX: usize = 64;

/// One segment as it was read.
pub(super) struct SegmentInput {
    pub number: u64,
    /// `None`: both copies are damaged.
    pub header: Option<SegmentHeader>,
    pub seed: u32,
    pub file: Bytes,
    /// Where it ends: as the next segment's header says, else the length it should have.
    pub limit: u64,
    /// The limit is where its records end, so there is no unused space before it.
    pub exact: bool,
    /// No segment behind it.
    pub last: bool,
}

/// A group's state as far as it is read.
#[derive(Clone, Debug, Default)]
pub(super) struct Recovered {
    pub entries: Entries,
    pub marks: Marks,
}

/// Takes the segments one by one.
#[derive(Default)]
pub(super) struct Replay {
    groups: BTreeMap<GroupId, Recovered>,
    /// Something is lost, and it is not known of which group.
    doubt_all: Option<Doubt>,
    /// Above every sequence seen.
    next_batch: u64,
    /// Where the last segment's valid bytes end.
    end: u64,
    certain: u64,
    bare: bool,
    notes: Vec<String>,
}

/// What the segments hold together.
pub(super) struct Replayed {
    pub groups: BTreeMap<GroupId, Recovered>,
    pub next_batch: u64,
    /// Where the last segment's valid bytes end; what is behind is void.
    pub end: u64,
    /// Up to here it was synced; what was read between this and `end` may be in memory alone.
    pub certain: u64,
    /// The last segment holds its checkpoint, twice and whole, and has never held more.
    pub bare: bool,
    /// What was found damaged, for people.
    pub notes: Vec<String>,
}

impl Replay {
    /// Takes in the next segment.
    pub fn segment(&mut self, input: &SegmentInput) {
        let stretches = scan::stretches(scan::pieces(&input.file, input.seed, input.limit));
        self.note_sequences(input, &stretches);
        let first_batch = first_batch(input, &stretches);
        let sequences = sequences(&stretches, first_batch);
        let data = stretches
            .iter()
            .zip(&sequences)
            .position(|(stretch, sequence)| !is_checkpoint(stretch, *sequence, first_batch))
            .unwrap_or(stretches.len());
        self.adopt(input, &stretches[..data]);
        let synced = synced_up_to(&stretches, first_batch);
        let standings = standings(input, &stretches, &sequences, synced);
        self.certain = certain_end(&stretches, &sequences, synced);
        self.bare = is_bare(input, &stretches, data);
        self.end = RECORDS_AT;
        let mut torn = false;
        for (at, stretch) in stretches.iter().enumerate() {
            let blank = at + 1 == stretches.len() && is_unused(input, stretch);
            if !torn && !blank {
                self.end = stretch.end.min(input.limit);
            }
            if at < data || blank {
                continue;
            }
            match standings[at] {
                Standing::Synced => self.synced(input, stretch, sequences[at]),
                Standing::Unsynced => self.records(input, stretch),
                Standing::Torn => {
                    let cut = self.torn(input, stretch);
                    if !torn {
                        self.end = cut;
                    }
                    torn = true;
                }
            }
        }
    }

    /// The state at the end of the log.
    pub fn finish(mut self) -> Replayed {
        if self.doubt_all.is_some() {
            self.groups.entry(UNKNOWN_GROUPS).or_default();
        }
        for group in self.groups.values_mut() {
            if let Some(doubt) = self.doubt_all {
                doubt_more(&mut group.marks, doubt);
            }
            group.entries.infer_identities();
            group.marks.purged = group.entries.purged();
            group.marks.last = group.entries.last();
        }
        Replayed {
            groups: self.groups,
            next_batch: self.next_batch,
            end: self.end,
            certain: self.certain.min(self.end),
            bare: self.bare,
            notes: self.notes,
        }
    }

    /// Notes something found, with its place.
    pub fn note(&mut self, segment: u64, what: &str) {
        if self.notes.len() < NOTES_MAX {
            self.notes.push(format!("segment {segment:016x}: {what}"));
        }
    }

    /// Marks all groups: something is lost that may have been anybody's.
    pub fn doubt_all(&mut self, unwritten: bool) {
        let mut marks = Marks {
            doubt: self.doubt_all,
            ..Marks::default()
        };
        let doubt = Doubt {
            vote: true,
            unwritten,
            lost_to: None,
        };
        doubt_more(&mut marks, doubt);
        self.doubt_all = marks.doubt;
    }

    fn note_sequences(&mut self, input: &SegmentInput, stretches: &[Stretch]) {
        // The two checkpoints of a segment take two.
        let declared = input.header.map_or(0, |h| h.first_batch.saturating_add(1));
        let seen = stretches
            .iter()
            .flat_map(Stretch::records)
            .map(|found| found.header.batch)
            .chain(stretches.iter().filter_map(|s| s.head.map(|h| h.sequence)))
            .fold(declared, u64::max);
        self.next_batch = self.next_batch.max(seen.saturating_add(1));
    }

    /// Takes over the checkpoint at a segment's beginning, from whichever copy is intact, or
    /// what both have together.
    fn adopt(&mut self, input: &SegmentInput, copies: &[Stretch]) {
        let mut marks: BTreeMap<GroupId, Marks> = BTreeMap::new();
        for found in copies.iter().flat_map(Stretch::records) {
            let read = found.payload.as_deref().and_then(Marks::decode);
            if let (Kind::Checkpoint, Some(read)) = (found.header.kind, read) {
                marks.insert(found.header.group, read);
            }
        }
        let expected = copies.iter().find_map(|copy| copy.head).map(|h| h.records);
        if expected == Some(marks.len() as u64) {
            self.groups.retain(|group, _| marks.contains_key(group));
            self.doubt_all = None;
        } else {
            self.note(input.number, "both copies of the checkpoint are damaged");
            self.doubt_all(false);
        }
        for (group, read) in marks {
            let group = self.groups.entry(group).or_default();
            group.entries.purge(read.purged);
            group.entries.fit(read.last);
            group.marks = read;
        }
    }

    fn records(&mut self, input: &SegmentInput, stretch: &Stretch) {
        for found in stretch.records() {
            self.record(input, found);
        }
    }

    /// A stretch that was synced: what is missing in it is damage.
    fn synced(&mut self, input: &SegmentInput, stretch: &Stretch, sequence: u64) {
        let gap = stretch
            .pieces
            .iter()
            .any(|piece| matches!(piece, Piece::Gap { .. }));
        let rows = stretch.rows.as_ref().filter(|_| stretch.end <= input.limit);
        if !gap || stretch.lost_only_its_header(sequence) {
            return self.records(input, stretch);
        }
        let at = stretch.damaged_at().unwrap_or(stretch.start);
        self.note(input.number, &format!("records at offset {at} are damaged"));
        for row in rows.into_iter().flatten() {
            // The mark that cut the log here may be among what is lost.
            if let (Some(group), true) = (self.groups.get_mut(&row.group), row.first.0 > 0) {
                group
                    .entries
                    .truncate(LogIndex(row.first.0.saturating_sub(1)));
            }
        }
        self.records(input, stretch);
        match rows {
            Some(rows) => rows.iter().for_each(|row| self.reconcile(stretch, row)),
            None => self.doubt_all(false),
        }
    }

    /// Brings a group to where the directory of a damaged batch says that the batch left it.
    fn reconcile(&mut self, stretch: &Stretch, row: &Row) {
        if row.removed {
            self.groups.remove(&row.group);
            return;
        }
        let group = self.groups.entry(row.group).or_default();
        group.entries.purge(row.purged);
        group.entries.fit(row.last);
        if row.vote && !has_vote(stretch, row.group) {
            let doubt = Doubt {
                vote: true,
                unwritten: false,
                lost_to: None,
            };
            doubt_more(&mut group.marks, doubt);
        }
    }

    /// The last write, which did not come out whole. Takes what stands before the damage and
    /// every vote; marks the groups that lost something. Returns where the valid bytes end.
    fn torn(&mut self, input: &SegmentInput, stretch: &Stretch) -> u64 {
        let cut = stretch.damaged_at().unwrap_or(input.limit);
        let unwritten = stretch
            .pieces
            .iter()
            .filter(|piece| piece.is_damaged())
            .any(|piece| {
                let (from, to) = match piece {
                    Piece::Record(f) => (f.offset, f.offset.saturating_add(f.header.span())),
                    Piece::Gap { from, to } => (*from, *to),
                };
                scan::looks_unwritten(&input.file, from, to.min(stretch.end))
            });
        self.note(
            input.number,
            &format!("the last write is incomplete from offset {cut} on"),
        );
        let Some(rows) = &stretch.rows else {
            let votes = stretch.records().filter(|f| f.header.kind == Kind::Vote);
            votes.for_each(|found| self.record_if_intact(input, found));
            self.doubt_all(unwritten);
            return stretch.start;
        };
        let mut kept: BTreeMap<GroupId, u32> = BTreeMap::new();
        for found in stretch.records() {
            if found.offset < cut {
                *kept.entry(found.header.group).or_default() += 1;
                self.record(input, found);
            } else if found.header.kind == Kind::Vote {
                self.record_if_intact(input, found);
            }
        }
        for row in rows {
            let whole = kept.get(&row.group) == Some(&row.records);
            if whole || !row.acknowledged {
                continue;
            }
            let doubt = Doubt {
                vote: row.vote && !has_vote(stretch, row.group),
                unwritten,
                lost_to: (row.first.0 > 0).then_some(row.last.index),
            };
            doubt_more(&mut self.groups.entry(row.group).or_default().marks, doubt);
        }
        cut
    }

    fn record_if_intact(&mut self, input: &SegmentInput, found: &Found) {
        if found.payload.is_some() {
            self.record(input, found);
        }
    }

    fn record(&mut self, input: &SegmentInput, found: &Found) {
        let header = &found.header;
        match header.kind {
            Kind::Batch | Kind::Checkpoint => {}
            Kind::Remove => {
                self.groups.remove(&header.group);
            }
            Kind::Entry | Kind::Rewrite => self.entry(input, found),
            Kind::Truncate | Kind::Purge => {
                let group = self.groups.entry(header.group).or_default();
                if header.kind == Kind::Purge {
                    group.entries.purge(header.position);
                } else {
                    group.entries.fit(header.position);
                }
            }
            Kind::Vote | Kind::Committed | Kind::Settle => {
                let group = self.groups.entry(header.group).or_default();
                match &found.payload {
                    // The copy lets go of the segment's bytes.
                    Some(payload) => group.marks.apply(
                        header.kind,
                        header.position,
                        &Bytes::copy_from_slice(payload),
                    ),
                    None if header.kind == Kind::Vote => {
                        let doubt = Doubt {
                            vote: true,
                            unwritten: false,
                            lost_to: None,
                        };
                        doubt_more(&mut group.marks, doubt);
                        let what = format!(
                            "vote of group {} is damaged at byte {}",
                            header.group, found.offset
                        );
                        self.note(input.number, &what);
                    }
                    None => {}
                }
            }
        }
    }

    fn entry(&mut self, input: &SegmentInput, found: &Found) {
        let header = &found.header;
        let LogPosition {
            term,
            leader,
            index,
        } = header.position;
        // Segments are below 4 GiB (`WalOptions::check`); a longer file is cut when it is read.
        let offset = u32::try_from(found.offset).unwrap_or(u32::MAX);
        let segment = input.number;
        let place = if found.payload.is_some() {
            Place::At { segment, offset }
        } else {
            Place::Lost { segment, offset }
        };
        let slot = Slot {
            term,
            leader,
            place,
            length: header.length,
            known: true,
        };
        let entries = &mut self.groups.entry(header.group).or_default().entries;
        if header.kind == Kind::Rewrite {
            if let Some(old) = entries.slot_mut(index) {
                let same = !old.known || (old.term, old.leader) == (term, leader);
                if same && (found.payload.is_some() || !old.known) {
                    *old = slot;
                }
            }
        } else if index > entries.purged().index {
            if index <= entries.last_index() {
                entries.truncate(LogIndex(index.0.saturating_sub(1)));
                entries.distrust_below(term);
            }
            entries.fill(LogIndex(index.0.saturating_sub(1)));
            entries.push(slot);
        }
        if found.payload.is_none() {
            let what = format!(
                "entry {index} of group {} is damaged at byte {}",
                header.group, found.offset
            );
            self.note(input.number, &what);
        }
    }
}

/// Adds to a group's doubt.
fn doubt_more(marks: &mut Marks, more: Doubt) {
    marks.doubt = Some(match marks.doubt {
        None => more,
        Some(old) => Doubt {
            vote: old.vote || more.vote,
            unwritten: old.unwritten && more.unwritten,
            lost_to: old.lost_to.max(more.lost_to),
        },
    });
}

fn has_vote(stretch: &Stretch, group: GroupId) -> bool {
    stretch.records().any(|found| {
        found.header.kind == Kind::Vote && found.header.group == group && found.payload.is_some()
    })
}
