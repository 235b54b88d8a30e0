//! What the appender is asked for, and the book-keeping of pack rows that a batch changes.

use super::index::{Index, Location, PackRow, Place, Update};
use super::layout;
use crate::error::{Error, Result};
use crate::types::ChunkHash;
use bytes::Bytes;
use std::collections::BTreeMap;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// Requests that may wait for the appender; their bytes are bounded by `queued_bytes_max`.
pub(super) const QUEUE_MAX: usize = 4_096;

pub(super) type Reply = oneshot::Sender<Result<()>>;
/// True: nothing was appended, a copy that counts as good is there already.
pub(super) type PutReply = oneshot::Sender<Result<bool>>;

pub(super) enum Op {
    Put(Put),
    Remove {
        hash: ChunkHash,
        reply: Reply,
    },
    /// Marks a pack of which no record is alive as removable; `conflict` otherwise.
    Retire {
        pack: u64,
        reply: Reply,
    },
    /// Appends go to a new pack from here on.
    Roll {
        reply: Reply,
    },
}

/// Verified bytes to append.
pub(super) struct Put {
    pub hash: ChunkHash,
    pub data: Vec<Bytes>,
    pub len: u32,
    /// A copy made by compaction: only if the chunk is still at this place.
    pub moved_from: Option<Place>,
    /// Memory given back when the bytes are on disk.
    pub _permit: Option<OwnedSemaphorePermit>,
    pub reply: PutReply,
}

impl Op {
    pub fn hash(&self) -> Option<ChunkHash> {
        match self {
            Op::Put(put) => Some(put.hash),
            Op::Remove { hash, .. } => Some(*hash),
            Op::Retire { .. } | Op::Roll { .. } => None,
        }
    }

    /// Bytes it may add to a pack.
    pub fn record_bytes(&self) -> u64 {
        match self {
            Op::Put(put) => layout::record_bytes(put.len),
            _ => 0,
        }
    }

    /// Not mixed with others in one batch.
    pub fn is_alone(&self) -> bool {
        matches!(self, Op::Retire { .. } | Op::Roll { .. })
    }

    pub fn refuse(self, error: &Error) {
        match self {
            Op::Put(Put { reply, .. }) => answer(reply, Err(error.clone())),
            Op::Remove { reply, .. } | Op::Retire { reply, .. } | Op::Roll { reply } => {
                answer(reply, Err(error.clone()));
            }
        }
    }
}

pub(super) fn answer<T>(reply: oneshot::Sender<Result<T>>, result: Result<T>) {
    // Whoever gave up waiting needs no answer.
    let _ = reply.send(result);
}

/// Changes of one batch (or of a part of a recovery) before they become visible together.
pub(super) struct Ledger<'a> {
    index: &'a Index,
    rows: BTreeMap<u64, PackRow>,
    update: Update,
}

impl<'a> Ledger<'a> {
    pub fn new(index: &'a Index) -> Self {
        Ledger {
            index,
            rows: BTreeMap::new(),
            update: Update::default(),
        }
    }

    /// The row of a pack that exists.
    pub fn row(&mut self, pack: u64) -> Option<&mut PackRow> {
        if !self.rows.contains_key(&pack) {
            self.rows.insert(pack, self.index.row(pack)?);
        }
        self.rows.get_mut(&pack)
    }

    /// A record that no location points to any more.
    pub fn died(&mut self, place: Place, len: u32) {
        if let Some(row) = self.row(place.pack) {
            row.dead_records += 1;
            row.dead_bytes += layout::record_bytes(len);
        }
    }

    pub fn located(&mut self, hash: ChunkHash, before: Option<Location>, after: Option<Location>) {
        self.update.chunks.push((hash, before, after));
    }

    /// Makes everything visible.
    pub fn post(mut self) {
        let rows = self.rows.into_iter().map(|(pack, row)| (pack, Some(row)));
        self.update.packs.extend(rows);
        self.index.apply(self.update);
    }
}
