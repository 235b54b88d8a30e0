//! Pure: what the stretches of a segment are: checkpoint, batches that were synced for certain, the
//! last write, space that was never used. Called by `replay`.

use super::begin::CHECKPOINT_COPIES;
use super::format::{Kind, RECORDS_AT};
use super::replay::SegmentInput;
use super::scan::{self, Piece, Stretch};

/// What a stretch of the last segment counts as.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Synced for certain: what is missing is damage.
    Synced,
    /// Never acknowledged: what is missing is missed by nobody.
    Unsynced,
    /// The last write: what is missing may or may not have been acknowledged.
    Torn,
}

/// Nothing but zeros, at the segment's end.
pub(super) fn is_unused(input: &SegmentInput, stretch: &Stretch) -> bool {
    !input.exact
        && stretch.head.is_none()
        && stretch.pieces.iter().all(|piece| match piece {
            Piece::Record(_) => false,
            Piece::Gap { from, to } => scan::is_blank(&input.file, *from, *to),
        })
}

/// Nothing but its two checkpoints, both of them whole, and space that was never used.
pub(super) fn is_bare(input: &SegmentInput, stretches: &[Stretch], data: usize) -> bool {
    let (checkpoints, rest) = stretches.split_at(data);
    let whole = |copy: &Stretch| copy.rows.is_some() && copy.is_whole(input.limit);
    input.header.is_some()
        && checkpoints.len() as u64 == CHECKPOINT_COPIES
        && checkpoints.iter().all(whole)
        && rest.iter().all(|stretch| is_unused(input, stretch))
}

pub(super) fn first_batch(input: &SegmentInput, stretches: &[Stretch]) -> u64 {
    let seen = stretches.iter().enumerate().find_map(|(at, stretch)| {
        let sequence = stretch.head?.sequence;
        Some(sequence.saturating_sub(at as u64))
    });
    input
        .header
        .map(|header| header.first_batch)
        .or(seen)
        .unwrap_or(0)
}

/// The sequence of each stretch, guessed from the one before where its header is gone.
pub(super) fn sequences(stretches: &[Stretch], first_batch: u64) -> Vec<u64> {
    let mut next = first_batch;
    stretches
        .iter()
        .map(|stretch| {
            let sequence = stretch.head.map_or(next, |head| head.sequence);
            next = sequence.saturating_add(1);
            sequence
        })
        .collect()
}

pub(super) fn is_checkpoint(stretch: &Stretch, sequence: u64, first_batch: u64) -> bool {
    sequence <= first_batch.saturating_add(1)
        || stretch
            .records()
            .any(|found| found.header.kind == Kind::Checkpoint)
}

/// Batches up to this one were synced: the checkpoints, and what later batches say.
pub(super) fn synced_up_to(stretches: &[Stretch], first_batch: u64) -> u64 {
    let heads = stretches.iter().filter_map(|stretch| stretch.head);
    heads.fold(first_batch.saturating_add(1), |most, head| {
        most.max(head.synced)
    })
}

/// Where the last batch ends that was synced for certain.
pub(super) fn certain_end(stretches: &[Stretch], sequences: &[u64], synced: u64) -> u64 {
    let known = stretches.iter().zip(sequences);
    known
        .filter(|(stretch, sequence)| stretch.head.is_some() && **sequence <= synced)
        .fold(RECORDS_AT, |end, (stretch, _)| end.max(stretch.end))
}

pub(super) fn standings(
    input: &SegmentInput,
    stretches: &[Stretch],
    sequences: &[u64],
    synced: u64,
) -> Vec<Standing> {
    if !input.last {
        return vec![Standing::Synced; stretches.len()];
    }
    let newest = stretches.iter().rposition(|stretch| stretch.head.is_some());
    stretches
        .iter()
        .zip(sequences)
        .enumerate()
        .map(|(at, (stretch, sequence))| {
            if *sequence <= synced && (stretch.head.is_some() || newest.is_some_and(|n| at < n)) {
                Standing::Synced
            } else if newest.is_some_and(|n| at < n) {
                Standing::Unsynced
            } else if Some(at) == newest && stretch.is_whole(input.limit) {
                // Whole: nothing is missing, whatever was or was not acknowledged.
                Standing::Synced
            } else {
                Standing::Torn
            }
        })
        .collect()
}
