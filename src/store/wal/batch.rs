//! Pure: lays out one batch, the unit that is written and synced at once. Called by `writer`
//! and, for checkpoints, by `segment`.

use super::LogPosition;
use super::format::{BatchHead, Kind, Marks, RecordHeader, Row, encode_rows, padded, record_bytes};
use crate::types::{GroupId, LogIndex};
use bytes::{Bytes, BytesMut};
use std::collections::BTreeMap;

/// Payloads from here on are handed to the disk as they are instead of being copied.
const COPY_BYTES_MAX: usize = 8 << 10;

/// A record to be written.
#[derive(Clone, Debug)]
pub(super) struct Out {
    pub kind: Kind,
    pub group: GroupId,
    pub position: LogPosition,
    pub payload: Bytes,
}

/// The bytes of a batch.
pub(super) struct Laid {
    /// To be written one behind the other.
    pub parts: Vec<Bytes>,
    pub bytes: u64,
    /// Where each record stands, counted from the batch's beginning.
    pub offsets: Vec<u64>,
}

/// Builds the directory of a batch: `marks` gives a group's state before it.
pub(super) fn directory<'a>(
    records: &[Out],
    marks: impl Fn(GroupId) -> Option<&'a Marks>,
) -> Vec<Row> {
    let mut open: BTreeMap<GroupId, (Row, Marks)> = BTreeMap::new();
    for record in records {
        let (row, state) = open.entry(record.group).or_insert_with(|| {
            let state = marks(record.group).cloned().unwrap_or_default();
            (Row::default(), state)
        });
        row.group = record.group;
        row.records = row.records.saturating_add(1);
        row.vote |= record.kind == Kind::Vote;
        row.acknowledged |= !matches!(record.kind, Kind::Committed | Kind::Rewrite);
        row.removed = record.kind == Kind::Remove;
        // A truncation within the batch can only make the first appended index smaller.
        if record.kind == Kind::Entry
            && (row.first == LogIndex(0) || record.position.index < row.first)
        {
            row.first = record.position.index;
        }
        state.apply(record.kind, record.position, &record.payload);
    }
    open.into_values()
        .map(|(mut row, state)| {
            row.purged = state.purged;
            row.last = state.last;
            row
        })
        .collect()
}

/// Upper bound of the bytes of a batch of these records.
pub(super) fn bytes_max(groups: usize, records: impl Iterator<Item = usize>) -> u64 {
    let directory = record_bytes(groups.saturating_mul(super::format::ROW_BYTES));
    records.fold(directory, |sum, len| sum.saturating_add(record_bytes(len)))
}

/// Lays out a batch. `synced`: batches up to this one are known to be synced.
pub(super) fn lay_out(
    seed: u32,
    sequence: u64,
    synced: u64,
    rows: &[Row],
    records: &[Out],
) -> Laid {
    let directory = encode_rows(rows);
    let mut offsets = Vec::with_capacity(records.len());
    let mut end = record_bytes(directory.len());
    for record in records {
        offsets.push(end);
        end = end.saturating_add(record_bytes(record.payload.len()));
    }
    let head = BatchHead {
        sequence,
        synced,
        bytes: end,
        records: records.len() as u64,
    };
    let mut out = Parts::default();
    out.put(
        &head.to_record(&directory).encode(seed),
        &Bytes::from(directory),
    );
    for (number, record) in (1u32..).zip(records) {
        let header = RecordHeader {
            kind: record.kind,
            group: record.group,
            position: record.position,
            batch: sequence,
            number,
            length: record.payload.len() as u32,
            payload_sum: crc32c::crc32c(&record.payload),
        };
        out.put(&header.encode(seed), &record.payload);
    }
    Laid {
        parts: out.finish(),
        bytes: end,
        offsets,
    }
}

/// Collects small pieces into one buffer and passes large ones on.
#[derive(Default)]
struct Parts {
    done: Vec<Bytes>,
    open: BytesMut,
}

impl Parts {
    fn put(&mut self, header: &[u8], payload: &Bytes) {
        self.open.extend_from_slice(header);
        if payload.len() < COPY_BYTES_MAX {
            self.open.extend_from_slice(payload);
        } else {
            self.done.push(self.open.split().freeze());
            self.done.push(payload.clone());
        }
        let padding = padded(payload.len() as u64) as usize - payload.len();
        let filled = self.open.len() + padding;
        self.open.resize(filled, 0);
    }

    fn finish(mut self) -> Vec<Bytes> {
        if !self.open.is_empty() {
            self.done.push(self.open.freeze());
        }
        self.done
    }
}

#[cfg(test)]
mod tests {
    use super::super::format::RECORDS_AT;
    use super::super::scan::{self, Piece};
    use super::*;
    use proptest::prelude::*;

    fn entry(group: u64, index: u64, len: usize) -> Out {
        Out {
            kind: Kind::Entry,
            group: GroupId(group),
            position: LogPosition {
                term: 1,
                leader: 1,
                index: LogIndex(index),
            },
            payload: vec![index as u8; len].into(),
        }
    }

    fn file(laid: &Laid) -> Vec<u8> {
        let mut file = vec![0; RECORDS_AT as usize];
        laid.parts.iter().for_each(|p| file.extend_from_slice(p));
        assert_eq!(file.len() as u64, RECORDS_AT + laid.bytes);
        file
    }

    proptest! {
        #[test]
        fn a_scan_finds_what_was_laid_out(
            lens in proptest::collection::vec(0usize..20_000, 1..8),
        ) {
            let records: Vec<Out> =
                lens.iter().enumerate().map(|(i, len)| entry(i as u64 % 3, 1 + i as u64, *len)).collect();
            let rows = directory(&records, |_| None);
            let laid = lay_out(5, 9, 8, &rows, &records);
            prop_assert!(
                laid.bytes <= bytes_max(3, lens.iter().copied())
            );
            let file = Bytes::from(file(&laid));
            let limit = file.len() as u64;
            let stretches = scan::stretches(scan::pieces(&file, 5, limit));
            prop_assert_eq!(stretches.len(), 1);
            prop_assert!(stretches[0].is_whole(limit));
            prop_assert_eq!(stretches[0].rows.as_ref(), Some(&rows));
            for ((found, record), offset) in
                stretches[0].records().zip(&records).zip(&laid.offsets)
            {
                prop_assert_eq!(found.payload.as_ref(), Some(&record.payload));
                prop_assert_eq!(found.header.position, record.position);
                prop_assert_eq!(found.offset, RECORDS_AT + offset);
            }
        }

        #[test]
        fn a_scan_takes_any_damage_and_gives_only_what_was_written(
            lens in proptest::collection::vec(0usize..200, 1..6),
            damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..40),
            cut in any::<proptest::sample::Index>(),
        ) {
            let records: Vec<Out> =
                lens.iter().enumerate().map(|(i, len)| entry(7, 1 + i as u64, *len)).collect();
            let rows = directory(&records, |_| None);
            let mut file = file(&lay_out(5, 9, 8, &rows, &records));
            let limit = file.len() as u64;
            for (at, byte) in damage {
                let at = at.index(file.len());
                file[at] = byte;
            }
            file.truncate(cut.index(file.len() + 1));
            let pieces = scan::pieces(&file.into(), 5, limit);
            let mut at = RECORDS_AT;
            for piece in &pieces {
                let (from, to) = match piece {
                    Piece::Record(f) => (f.offset, f.offset + f.header.span()),
                    Piece::Gap { from, to } => (*from, *to),
                };
                prop_assert_eq!(from, at);
                at = to;
            }
            prop_assert_eq!(at, limit);
            for found in scan::stretches(pieces).iter().flat_map(scan::Stretch::records) {
                let written = &records[found.header.number as usize - 1];
                prop_assert_eq!(found.header.position, written.position);
                if let Some(payload) = &found.payload {
                    prop_assert_eq!(payload, &written.payload);
                }
            }
        }
    }
}
