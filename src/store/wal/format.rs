//! Pure: the bytes of the log: segment header, record header, directory of a batch, checkpoint
//! of a group. Called by everything in this folder; the layout is drawn in `mod.rs`.
//!
//! Decoding takes any bytes and never panics; whatever fails a check is simply not a header.

use super::{Doubt, LogPosition};
use crate::types::{GroupId, LogIndex};
use bytes::Bytes;

/// Records begin at multiples of this; also the size of every header.
pub(super) const BLOCK: u64 = 64;
/// What is written or not written as a whole by a disk.
pub(super) const SECTOR: usize = 512;
/// Two copies of the segment header, a sector each; the first record stands behind them.
pub(super) const RECORDS_AT: u64 = 2 * SECTOR as u64;
/// Version of everything below.
pub(super) const FORMAT: u32 = 1;

const SEGMENT_MAGIC: [u8; 8] = *b"dfs-wal\n";
const RECORD_MAGIC: [u8; 4] = *b"dfsR";
const HEADER: usize = BLOCK as usize;

/// Bytes a payload takes together with the padding behind it.
pub(super) fn padded(len: u64) -> u64 {
    len.next_multiple_of(BLOCK)
}

/// Bytes of a record with a payload of `len` bytes.
pub(super) fn record_bytes(len: usize) -> u64 {
    BLOCK + padded(len as u64)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let part = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(part.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let part = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_le_bytes(part.try_into().ok()?))
}

fn position_at(bytes: &[u8], at: usize) -> Option<LogPosition> {
    Some(LogPosition {
        term: u64_at(bytes, at)?,
        leader: u64_at(bytes, at.checked_add(8)?)?,
        index: LogIndex(u64_at(bytes, at.checked_add(16)?)?),
    })
}

fn put_position(out: &mut Vec<u8>, position: LogPosition) {
    out.extend_from_slice(&position.term.to_le_bytes());
    out.extend_from_slice(&position.leader.to_le_bytes());
    out.extend_from_slice(&position.index.0.to_le_bytes());
}

/// What a segment begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    /// Also the file's name.
    pub number: u64,
    /// Drawn when the log was made, the same in all its segments: nobody who may put bytes into
    /// payloads can make one look like a record.
    pub salt: u64,
    /// Length of the file. A shorter one was cut.
    pub bytes: u64,
    /// Sequence of the first of the two checkpoint batches.
    pub first_batch: u64,
    /// Bytes of the segment before that count; what stands behind is void. 0 in the first one.
    pub previous_end: u64,
}

impl SegmentHeader {
    /// Both copies, `RECORDS_AT` bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut one = Vec::with_capacity(RECORDS_AT as usize);
        one.extend_from_slice(&SEGMENT_MAGIC);
        one.extend_from_slice(&FORMAT.to_le_bytes());
        one.extend_from_slice(&[0; 4]);
        for number in [
            self.number,
            self.salt,
            self.bytes,
            self.first_batch,
            self.previous_end,
        ] {
            one.extend_from_slice(&number.to_le_bytes());
        }
        one.extend_from_slice(&[0; 4]);
        let sum = crc32c::crc32c(&one);
        one.extend_from_slice(&sum.to_le_bytes());
        one.resize(SECTOR, 0);
        let copy = one.clone();
        one.extend_from_slice(&copy);
        one
    }

    /// The header of a segment, from whichever copy is intact.
    ///
    /// # Errors
    /// The format version found, if it is another one.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, u32> {
        for at in [0, SECTOR] {
            if let Some((format, header)) = Self::decode_copy(bytes, at) {
                return if format == FORMAT {
                    Ok(Some(header))
                } else {
                    Err(format)
                };
            }
        }
        Ok(None)
    }

    fn decode_copy(bytes: &[u8], at: usize) -> Option<(u32, Self)> {
        let copy = bytes.get(at..at.checked_add(HEADER)?)?;
        if copy.get(..8)? != SEGMENT_MAGIC || u32_at(copy, 60)? != crc32c::crc32c(copy.get(..60)?) {
            return None;
        }
        let header = SegmentHeader {
            number: u64_at(copy, 16)?,
            salt: u64_at(copy, 24)?,
            bytes: u64_at(copy, 32)?,
            first_batch: u64_at(copy, 40)?,
            previous_end: u64_at(copy, 48)?,
        };
        Some((u32_at(copy, 8)?, header))
    }
}

/// What the checksums of a segment's record headers begin with, so that a record of another
/// segment, of the file's former life or out of somebody's payload never passes for one of here.
pub(super) fn seed(salt: u64, segment: u64) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&salt.to_le_bytes()), &segment.to_le_bytes())
}

/// What a record says. Stored: append only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// Begins a batch; payload: its directory. See [`BatchHead`].
    Batch = 1,
    /// Everything about one group but its entries; payload: [`Marks`].
    Checkpoint = 2,
    /// An entry behind the group's last one.
    Entry = 3,
    /// An entry written again (its segment is to go, or it was damaged).
    Rewrite = 4,
    /// Payload: the vote.
    Vote = 5,
    /// Payload: the committed position.
    Committed = 6,
    /// Entries behind the position are gone.
    Truncate = 7,
    /// Entries up to the position are gone.
    Purge = 8,
    /// The group is gone.
    Remove = 9,
    /// The group's doubt is settled.
    Settle = 10,
}

impl Kind {
    fn of(byte: u8) -> Option<Kind> {
        use Kind as K;
        [
            K::Batch,
            K::Checkpoint,
            K::Entry,
            K::Rewrite,
            K::Vote,
            K::Committed,
            K::Truncate,
            K::Purge,
            K::Remove,
            K::Settle,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == byte)
    }
}

/// The 64 bytes in front of every payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordHeader {
    pub kind: Kind,
    pub group: GroupId,
    pub position: LogPosition,
    /// Sequence of its batch.
    pub batch: u64,
    /// Its place in the batch; the batch's own header is 0.
    pub number: u32,
    pub length: u32,
    pub payload_sum: u32,
}

impl RecordHeader {
    pub fn encode(&self, seed: u32) -> [u8; HEADER] {
        let mut out = Vec::with_capacity(HEADER);
        out.extend_from_slice(&RECORD_MAGIC);
        out.extend_from_slice(&[self.kind as u8, 0, 0, 0]);
        out.extend_from_slice(&self.group.0.to_le_bytes());
        put_position(&mut out, self.position);
        out.extend_from_slice(&self.batch.to_le_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.length.to_le_bytes());
        out.extend_from_slice(&self.payload_sum.to_le_bytes());
        let sum = crc32c::crc32c_append(seed, &out);
        out.extend_from_slice(&sum.to_le_bytes());
        out.try_into()
            .expect("the fields above are 64 bytes together")
    }

    /// The header at the beginning of `bytes`, if an intact one is there.
    pub fn decode(bytes: &[u8], seed: u32) -> Option<Self> {
        let bytes = bytes.get(..HEADER)?;
        if bytes.get(..4)? != RECORD_MAGIC
            || u32_at(bytes, 60)? != crc32c::crc32c_append(seed, bytes.get(..60)?)
        {
            return None;
        }
        Some(RecordHeader {
            kind: Kind::of(*bytes.get(4)?)?,
            group: GroupId(u64_at(bytes, 8)?),
            position: position_at(bytes, 16)?,
            batch: u64_at(bytes, 40)?,
            number: u32_at(bytes, 48)?,
            length: u32_at(bytes, 52)?,
            payload_sum: u32_at(bytes, 56)?,
        })
    }

    /// Bytes of the whole record with its padding.
    pub fn span(&self) -> u64 {
        BLOCK.saturating_add(padded(u64::from(self.length)))
    }
}

/// What the header record of a batch says, in the fields that other records use for group and
/// position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BatchHead {
    pub sequence: u64,
    /// Batches up to this one had been synced when this one was written.
    pub synced: u64,
    /// Bytes of the batch with this header.
    pub bytes: u64,
    /// Records behind this header.
    pub records: u64,
}

impl BatchHead {
    pub fn to_record(self, directory: &[u8]) -> RecordHeader {
        RecordHeader {
            kind: Kind::Batch,
            group: GroupId(self.synced),
            position: LogPosition {
                term: self.bytes,
                leader: 0,
                index: LogIndex(self.records),
            },
            batch: self.sequence,
            number: 0,
            length: directory.len() as u32,
            payload_sum: crc32c::crc32c(directory),
        }
    }

    pub fn of_record(header: &RecordHeader) -> Option<Self> {
        (header.kind == Kind::Batch).then_some(BatchHead {
            sequence: header.batch,
            synced: header.group.0,
            bytes: header.position.term,
            records: header.position.index.0,
        })
    }
}

/// One group in the directory of a batch: what the batch holds of it and where it stands then,
/// so that what is lost with a damaged header is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Row {
    pub group: GroupId,
    /// Records of the group in the batch.
    pub records: u32,
    /// There is a vote among them.
    pub vote: bool,
    /// There is something among them that somebody waits for (all but committed positions and
    /// entries written again).
    pub acknowledged: bool,
    /// The group is gone at the batch's end.
    pub removed: bool,
    /// Index of the first entry appended, 0 if there is none.
    pub first: LogIndex,
    /// At the batch's end.
    pub purged: LogPosition,
    /// At the batch's end.
    pub last: LogPosition,
}

pub(super) const ROW_BYTES: usize = 72;
const ROW_VOTE: u32 = 1;
const ROW_ACKNOWLEDGED: u32 = 2;
const ROW_REMOVED: u32 = 4;

pub(super) fn encode_rows(rows: &[Row]) -> Vec<u8> {
    let mut out = Vec::with_capacity(rows.len() * ROW_BYTES);
    for row in rows {
        let flag = |on: bool, bit: u32| if on { bit } else { 0 };
        let flags = flag(row.vote, ROW_VOTE)
            | flag(row.acknowledged, ROW_ACKNOWLEDGED)
            | flag(row.removed, ROW_REMOVED);
        out.extend_from_slice(&row.group.0.to_le_bytes());
        out.extend_from_slice(&row.records.to_le_bytes());
        out.extend_from_slice(&flags.to_le_bytes());
        out.extend_from_slice(&row.first.0.to_le_bytes());
        put_position(&mut out, row.purged);
        put_position(&mut out, row.last);
    }
    out
}

pub(super) fn decode_rows(bytes: &[u8]) -> Option<Vec<Row>> {
    if !bytes.len().is_multiple_of(ROW_BYTES) {
        return None;
    }
    bytes
        .chunks(ROW_BYTES)
        .map(|row| {
            let flags = u32_at(row, 12)?;
            Some(Row {
                group: GroupId(u64_at(row, 0)?),
                records: u32_at(row, 8)?,
                vote: flags & ROW_VOTE != 0,
                acknowledged: flags & ROW_ACKNOWLEDGED != 0,
                removed: flags & ROW_REMOVED != 0,
                first: LogIndex(u64_at(row, 16)?),
                purged: position_at(row, 24)?,
                last: position_at(row, 48)?,
            })
        })
        .collect()
}

/// Everything about a group but its entries, as of some point in the log. An index of 0 stands
/// for none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks {
    pub purged: LogPosition,
    pub last: LogPosition,
    pub vote: Option<Bytes>,
    pub committed: Option<Bytes>,
    pub doubt: Option<Doubt>,
}

const MARKS_BYTES: usize = 72;
const HAS_VOTE: u32 = 1;
const HAS_COMMITTED: u32 = 2;
const DOUBTFUL: u32 = 4;
const DOUBT_VOTE: u32 = 8;
const DOUBT_UNWRITTEN: u32 = 16;

impl Marks {
    /// Takes in one record, as it stands in the log.
    pub fn apply(&mut self, kind: Kind, position: LogPosition, payload: &Bytes) {
        match kind {
            Kind::Entry | Kind::Truncate => self.last = position,
            Kind::Purge => {
                self.purged = position;
                if self.last.index <= position.index {
                    self.last = position;
                }
            }
            Kind::Vote => self.vote = Some(payload.clone()),
            Kind::Committed => self.committed = Some(payload.clone()),
            Kind::Settle => self.doubt = None,
            Kind::Remove => *self = Marks::default(),
            Kind::Batch | Kind::Checkpoint | Kind::Rewrite => {}
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let vote = self.vote.as_deref().unwrap_or_default();
        let committed = self.committed.as_deref().unwrap_or_default();
        let doubt = self.doubt.unwrap_or_default();
        let flag = |on: bool, bit: u32| if on { bit } else { 0 };
        let flags = flag(self.vote.is_some(), HAS_VOTE)
            | flag(self.committed.is_some(), HAS_COMMITTED)
            | flag(self.doubt.is_some(), DOUBTFUL)
            | flag(doubt.vote, DOUBT_VOTE)
            | flag(doubt.unwritten, DOUBT_UNWRITTEN);
        let mut out = Vec::with_capacity(MARKS_BYTES + vote.len() + committed.len());
        put_position(&mut out, self.purged);
        put_position(&mut out, self.last);
        out.extend_from_slice(&flags.to_le_bytes());
        out.extend_from_slice(&(vote.len() as u32).to_le_bytes());
        out.extend_from_slice(&(committed.len() as u32).to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&doubt.lost_to.map_or(0, |i| i.0).to_le_bytes());
        out.extend_from_slice(vote);
        out.extend_from_slice(committed);
        out
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let flags = u32_at(bytes, 48)?;
        let vote_end = MARKS_BYTES.checked_add(u32_at(bytes, 52)? as usize)?;
        let end = vote_end.checked_add(u32_at(bytes, 56)? as usize)?;
        if end != bytes.len() {
            return None;
        }
        let part = |bit: u32, from: usize, to: usize| {
            (flags & bit != 0).then(|| Bytes::copy_from_slice(&bytes[from..to]))
        };
        let lost_to = u64_at(bytes, 64)?;
        Some(Marks {
            purged: position_at(bytes, 0)?,
            last: position_at(bytes, 24)?,
            vote: part(HAS_VOTE, MARKS_BYTES, vote_end),
            committed: part(HAS_COMMITTED, vote_end, end),
            doubt: (flags & DOUBTFUL != 0).then_some(Doubt {
                vote: flags & DOUBT_VOTE != 0,
                unwritten: flags & DOUBT_UNWRITTEN != 0,
                lost_to: (lost_to != 0).then_some(LogIndex(lost_to)),
            }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn position(term: u64, leader: u64, index: u64) -> LogPosition {
        LogPosition {
            term,
            leader,
            index: LogIndex(index),
        }
    }

    fn header() -> SegmentHeader {
        SegmentHeader {
            number: 7,
            salt: 0x0123_4567_89ab_cdef,
            bytes: 64 << 20,
            first_batch: 41,
            previous_end: 4_096,
        }
    }

    fn record() -> RecordHeader {
        RecordHeader {
            kind: Kind::Entry,
            group: GroupId(3),
            position: position(5, 9, 1_000),
            batch: 43,
            number: 2,
            length: 5,
            payload_sum: crc32c::crc32c(b"hello"),
        }
    }

    fn golden(name: &str, bytes: &[u8]) {
        let path = format!("{}/testdata/golden/{name}", env!("CARGO_MANIFEST_DIR"));
        let text: String = bytes
            .chunks(32)
            .map(|row| row.iter().map(|b| format!("{b:02x}")).collect::<String>() + "\n")
            .collect();
        if std::env::var_os("DFS_WRITE_GOLDEN").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "{path}");
    }

    #[test]
    fn golden_bytes_of_segment_header_and_record() {
        golden("wal_segment_header.hex", &header().encode());
        let mut bytes = record().encode(seed(header().salt, 7)).to_vec();
        bytes.extend_from_slice(b"hello");
        bytes.resize(128, 0);
        golden("wal_record.hex", &bytes);
        let row = Row {
            group: GroupId(3),
            records: 2,
            vote: true,
            acknowledged: true,
            removed: false,
            first: LogIndex(1_000),
            purged: position(4, 9, 900),
            last: position(5, 9, 1_000),
        };
        golden("wal_directory_row.hex", &encode_rows(&[row]));
        let marks = Marks {
            purged: position(4, 9, 900),
            last: position(5, 9, 1_000),
            vote: Some(Bytes::from_static(b"vote")),
            committed: Some(Bytes::from_static(b"committed")),
            doubt: Some(Doubt {
                vote: false,
                unwritten: true,
                lost_to: Some(LogIndex(1_001)),
            }),
        };
        golden("wal_checkpoint.hex", &marks.encode());
    }

    #[test]
    fn every_flipped_bit_of_a_record_header_is_noticed() {
        let bytes = record().encode(1);
        assert_eq!(RecordHeader::decode(&bytes, 1), Some(record()));
        assert_eq!(RecordHeader::decode(&bytes, 2), None);
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(RecordHeader::decode(&bytes, 1), None);
        }
    }

    #[test]
    fn one_damaged_copy_of_the_segment_header_does_no_harm() {
        let bytes = header().encode();
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x55;
            assert_eq!(SegmentHeader::decode(&bytes), Ok(Some(header())));
        }
    }

    #[test]
    fn another_format_is_named() {
        let mut bytes = header().encode();
        for at in [0, SECTOR] {
            bytes[at + 8] = 9;
            let sum = crc32c::crc32c(&bytes[at..at + 60]);
            bytes[at + 60..at + 64].copy_from_slice(&sum.to_le_bytes());
        }
        assert_eq!(SegmentHeader::decode(&bytes), Err(9));
    }

    proptest! {
        #[test]
        fn marks_and_rows_go_both_ways(
            vote in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40)),
            committed in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40)),
            doubt in proptest::option::of((any::<bool>(), any::<bool>(), proptest::option::of(1u64..))),
            numbers: [u64; 6],
        ) {
            let marks = Marks {
                purged: position(numbers[0], numbers[1], numbers[2]),
                last: position(numbers[3], numbers[4], numbers[5]),
                vote: vote.map(Bytes::from),
                committed: committed.map(Bytes::from),
                doubt: doubt.map(|(vote, unwritten, lost_to)| Doubt {
                    vote, unwritten, lost_to: lost_to.map(LogIndex),
                }),
            };
            prop_assert_eq!(Marks::decode(&marks.encode()), Some(marks.clone()));
            let row = Row {
                group: GroupId(numbers[0]), records: numbers[1] as u32, vote: marks.vote.is_some(),
                acknowledged: marks.doubt.is_some(), removed: marks.committed.is_some(),
                first: LogIndex(numbers[2]), purged: marks.purged, last: marks.last,
            };
            prop_assert_eq!(decode_rows(&encode_rows(&[row, row])), Some(vec![row, row]));
        }

        #[test]
        fn decoding_takes_any_bytes(bytes: Vec<u8>) {
            let _ = Marks::decode(&bytes);
            let _ = decode_rows(&bytes);
            let _ = RecordHeader::decode(&bytes, 0);
            let _ = SegmentHeader::decode(&bytes);
        }
    }
}
