//! Begins a segment: header and checkpoint, then the name. Called by `recover` and `writer`.

use super::Shared;
use super::batch::{self, Out};
use super::format::{self, Kind, Marks, SegmentHeader};
use super::segment;
use super::state::Segment;
use crate::env::DiskFile;
use crate::types::GroupId;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// Every segment begins with its checkpoint, written so many times (as one batch each).
pub(super) const CHECKPOINT_COPIES: u64 = 2;

/// The segment that is written to.
pub(super) struct Active {
    pub number: u64,
    pub seed: u32,
    pub file: Arc<dyn DiskFile>,
    /// Length of the file.
    pub bytes: u64,
    /// Where the next batch goes.
    pub end: u64,
    /// Where the last synced batch ends.
    pub synced_end: u64,
}

/// What a new segment follows on.
pub(super) struct Previous {
    pub number: u64,
    /// Where its valid bytes end.
    pub end: u64,
    /// Sequence of the next batch.
    pub sequence: u64,
    /// Batches up to this one are synced.
    pub synced: u64,
}

/// Makes the next segment, with room for `bytes` behind its checkpoint. The header and the
/// checkpoint are durable before the file gets its name, and the name before anything else is
/// written (invariant 3). Where the disk is full nothing has changed: the file is gone again.
pub(super) async fn begin_segment(
    shared: &Arc<Shared>,
    durable: &BTreeMap<GroupId, Marks>,
    previous: &Previous,
    bytes: u64,
) -> io::Result<Active> {
    let number = previous.number + 1;
    let seed = format::seed(shared.salt, number);
    let records = checkpoint(durable);
    let lay_out = |sequence| batch::lay_out(seed, sequence, previous.synced, &[], &records);
    let copies = [lay_out(previous.sequence), lay_out(previous.sequence + 1)];
    let end = copies
        .iter()
        .fold(format::RECORDS_AT, |end, copy| end + copy.bytes);
    let usual = shared.options.segment_bytes;
    let length = usual.max(format::padded(end.saturating_add(bytes)));
    if length > u64::from(u32::MAX) {
        let what = format!("a log segment of {length} bytes would be needed (limit 4 GiB)");
        return Err(io::Error::other(what));
    }
    let (spare, file) = shared.spare.take(&shared.env, &shared.dir, usual).await?;
    let header = SegmentHeader {
        number,
        salt: shared.salt,
        bytes: length,
        first_batch: previous.sequence,
        previous_end: previous.end,
    };
    let mut parts = vec![Bytes::from(header.encode())];
    copies.into_iter().for_each(|copy| parts.extend(copy.parts));
    let (disk, path) = (&shared.env.disk, segment::path(&shared.dir, number));
    let named = async {
        segment::zero(file.as_ref(), usual, length).await?;
        file.write_sync(0, parts).await?;
        disk.rename(&spare, &path).await
    };
    if let Err(error) = named.await {
        segment::give_up(disk.as_ref(), &spare, &error).await;
        return Err(error);
    }
    disk.sync_dir(&shared.dir).await?;
    let segment = Segment {
        file: file.clone(),
        bytes: length,
        live: BTreeMap::new(),
    };
    shared.state.lock().segments.insert(number, segment);
    shared.spare.prepare(&shared.env, &shared.dir, usual);
    Ok(Active {
        number,
        seed,
        file,
        bytes: length,
        end,
        synced_end: end,
    })
}

fn checkpoint(durable: &BTreeMap<GroupId, Marks>) -> Vec<Out> {
    durable
        .iter()
        .map(|(group, marks)| Out {
            kind: Kind::Checkpoint,
            group: *group,
            position: marks.last,
            payload: marks.encode().into(),
        })
        .collect()
}
