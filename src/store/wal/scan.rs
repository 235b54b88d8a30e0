//! Pure: finds the records of a segment in its bytes, also behind damage, and sorts them into
//! stretches: batches whose header is intact, and what lies outside of any such batch.
//! Called by `replay`.

use super::format::{self, BLOCK, BatchHead, Kind, RECORDS_AT, RecordHeader, Row, SECTOR};
use bytes::Bytes;

/// A record whose header is intact.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub offset: u64,
    pub header: RecordHeader,
    /// `None` if the payload fails its checksum.
    pub payload: Option<Bytes>,
}

/// What stands in a range of a segment.
#[derive(Clone, Debug)]
pub(super) enum Piece {
    Record(Found),
    /// No intact header in here.
    Gap {
        from: u64,
        to: u64,
    },
}

impl Piece {
    fn range(&self) -> (u64, u64) {
        match self {
            Piece::Record(found) => (
                found.offset,
                found.offset.saturating_add(found.header.span()),
            ),
            Piece::Gap { from, to } => (*from, *to),
        }
    }

    /// True for a gap and for a record with a damaged payload.
    pub fn is_damaged(&self) -> bool {
        match self {
            Piece::Record(found) => found.payload.is_none(),
            Piece::Gap { .. } => true,
        }
    }
}

/// A batch with an intact header, or (`head` is `None`) a range outside of any.
#[derive(Clone, Debug)]
pub(super) struct Stretch {
    pub head: Option<BatchHead>,
    /// The batch's directory, `None` if it is damaged.
    pub rows: Option<Vec<Row>>,
    pub start: u64,
    /// Where it ends; may lie behind the end of what was read.
    pub end: u64,
    /// Without the batch's header record.
    pub pieces: Vec<Piece>,
}

impl Stretch {
    /// True where nothing but the batch's header or directory can be missing.
    pub fn is_whole(&self, limit: u64) -> bool {
        self.head.is_some() && self.end <= limit && !self.pieces.iter().any(Piece::is_damaged)
    }

    /// True for a range without a batch header in which no record but that header is missing:
    /// the first record is the first of the batch that is expected here.
    pub fn lost_only_its_header(&self, sequence: u64) -> bool {
        let (Some(Piece::Gap { .. }), Some(Piece::Record(first))) =
            (self.pieces.first(), self.pieces.get(1))
        else {
            return false;
        };
        self.head.is_none()
            && (first.header.batch, first.header.number) == (sequence, 1)
            && !self.pieces.iter().skip(1).any(Piece::is_damaged)
    }

    /// Offset of the first damage.
    pub fn damaged_at(&self) -> Option<u64> {
        self.pieces
            .iter()
            .find(|p| p.is_damaged())
            .map(|p| p.range().0)
    }

    pub fn records(&self) -> impl Iterator<Item = &Found> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Record(found) => Some(found),
            Piece::Gap { .. } => None,
        })
    }
}

/// Records and gaps of `file` from the first record up to `limit`. Bytes that the file should
/// have and has not (`limit` behind its end) are a gap.
pub(super) fn pieces(file: &Bytes, seed: u32, limit: u64) -> Vec<Piece> {
    let have = (file.len() as u64).min(limit);
    let mut out = Vec::new();
    let mut at = RECORDS_AT;
    while at < have {
        match RecordHeader::decode(slice(file, at, have), seed) {
            Some(header) => {
                let found = check(file, at, have, header);
                at = at.saturating_add(found.header.span());
                out.push(Piece::Record(found));
            }
            None => {
                let next = next_header(file, seed, at, have);
                out.push(Piece::Gap { from: at, to: next });
                at = next;
            }
        }
    }
    let from = at.clamp(have, limit.max(have)).max(RECORDS_AT);
    if from < limit {
        out.push(Piece::Gap { from, to: limit });
    }
    out
}

fn slice(file: &Bytes, from: u64, to: u64) -> &[u8] {
    let to = (to as usize).min(file.len());
    file.get(from as usize..to).unwrap_or_default()
}

fn check(file: &Bytes, offset: u64, have: u64, header: RecordHeader) -> Found {
    let from = offset.saturating_add(BLOCK);
    let to = from.saturating_add(u64::from(header.length));
    let payload = (to <= have)
        .then(|| file.slice(from as usize..to as usize))
        .filter(|payload| crc32c::crc32c(payload) == header.payload_sum);
    Found {
        offset,
        header,
        payload,
    }
}

fn next_header(file: &Bytes, seed: u32, from: u64, have: u64) -> u64 {
    let mut at = from.saturating_add(BLOCK);
    while at < have {
        if RecordHeader::decode(slice(file, at, have), seed).is_some() {
            return at;
        }
        at = at.saturating_add(BLOCK);
    }
    have
}

/// Sorts pieces into stretches. Gaps that reach over the end of a batch are cut there.
pub(super) fn stretches(pieces: Vec<Piece>) -> Vec<Stretch> {
    let mut out: Vec<Stretch> = Vec::new();
    for piece in pieces {
        let mut rest = Some(piece);
        while let Some(piece) = rest.take() {
            rest = place(&mut out, piece);
        }
    }
    out
}

/// Puts a piece where it belongs; what lies behind the open batch's end comes back.
fn place(out: &mut Vec<Stretch>, piece: Piece) -> Option<Piece> {
    let (from, to) = piece.range();
    if let Piece::Record(found) = &piece
        && let Some(head) = BatchHead::of_record(&found.header)
    {
        out.push(Stretch {
            head: Some(head),
            rows: found.payload.as_deref().and_then(format::decode_rows),
            start: from,
            end: from.saturating_add(head.bytes),
            pieces: Vec::new(),
        });
        return None;
    }
    let open = out
        .last_mut()
        .filter(|open| open.head.is_none() || from < open.end);
    let Some(open) = open else {
        out.push(Stretch {
            head: None,
            rows: None,
            start: from,
            end: to,
            pieces: vec![piece],
        });
        return None;
    };
    if open.head.is_none() {
        open.end = to;
    } else if let Piece::Gap { from, to } = piece
        && to > open.end
    {
        let cut = open.end;
        open.pieces.push(Piece::Gap { from, to: cut });
        return Some(Piece::Gap { from: cut, to });
    }
    open.pieces.push(piece);
    None
}

/// True where the range reads as zeros: nothing was ever written there.
pub(super) fn is_blank(file: &Bytes, from: u64, to: u64) -> bool {
    to <= file.len() as u64 && slice(file, from, to).iter().all(|byte| *byte == 0)
}

/// True where damage in `from..to` looks like a write that did not get that far: a part of it
/// within one sector, a header at least, still has the zeros that stood there before.
pub(super) fn looks_unwritten(file: &Bytes, from: u64, to: u64) -> bool {
    let to = to.min(file.len() as u64);
    let mut at = from;
    while at < to {
        let next = (at.saturating_add(1))
            .next_multiple_of(SECTOR as u64)
            .min(to);
        if next - at >= BLOCK && is_blank(file, at, next) {
            return true;
        }
        at = next;
    }
    false
}

/// Kinds that take an entry's place in a group's log.
pub(super) fn is_entry(kind: Kind) -> bool {
    matches!(kind, Kind::Entry | Kind::Rewrite)
}
