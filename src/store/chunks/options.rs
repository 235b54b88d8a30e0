//! Settings of a chunk store. `node` takes the defaults; tests take small ones.

use crate::error::{Error, Result};
use crate::limits::{CHUNK_BYTES_MAX, KIB, MIB, PACK_CHUNK_BYTES_MAX};
use std::sync::Arc;
use std::time::Duration;

/// Called once with what failed when the disk can no longer be trusted. The default,
/// [`crate::store::fail_stop`], does not return; if it returns, the store refuses everything.
pub type OnFatal = Arc<dyn Fn(&str, &Error) + Send + Sync>;

#[derive(Clone)]
pub struct ChunkOptions {
    /// Chunks below this many bytes go into packs, others into files of their own.
    pub pack_chunk_bytes_max: u64,
    /// Largest chunk taken, bytes.
    pub chunk_bytes_max: u64,
    /// A pack takes no further record once it has this many bytes. One sequential file of this
    /// size is what compaction rewrites at once.
    pub pack_bytes_max: u64,
    /// Records of one pack; each has a tombstone slot (8 bytes) at the pack's head. Must not
    /// change the meaning of old packs: their own number is in their header.
    pub pack_records_max: u32,
    /// Bytes of an outboard group: the least that a range read of a large chunk reads. A power
    /// of two, at least 1,024.
    pub group_bytes: u32,
    /// Bytes that are written, read and hashed at once. A multiple of `group_bytes`.
    pub slice_bytes: u64,
    /// Memory for small chunks on their way into a pack, bytes.
    pub queued_bytes_max: u64,
    /// Large chunks being written at once: each has an open file and one slice of memory.
    pub large_writers_max: usize,
    /// Large chunks kept open with their outboards (about 8 KiB for a chunk of 16 MiB).
    pub open_chunks_max: usize,
    /// Packs kept open.
    pub open_packs_max: usize,
    /// Records one group commit takes at most.
    pub batch_records_max: usize,
    /// Changes kept in memory before they must go into the index (about 100 bytes each).
    pub index_changes_max: usize,
    /// Changes go into the index after this time at the latest.
    pub index_after: Duration,
    /// Packs are compacted in the background. Off: only when [`super::ChunkStore::compact`] is
    /// called.
    pub compact_in_background: bool,
    pub on_fatal: OnFatal,
}

impl Default for ChunkOptions {
    fn default() -> Self {
        ChunkOptions {
            pack_chunk_bytes_max: PACK_CHUNK_BYTES_MAX,
            chunk_bytes_max: CHUNK_BYTES_MAX,
            pack_bytes_max: 128 * MIB,
            pack_records_max: 8_192,
            group_bytes: 64 * KIB as u32,
            slice_bytes: MIB,
            queued_bytes_max: 64 * MIB,
            large_writers_max: 256,
            open_chunks_max: 256,
            open_packs_max: 256,
            batch_records_max: 1_024,
            index_changes_max: 16_384,
            index_after: Duration::from_secs(1),
            compact_in_background: true,
            on_fatal: Arc::new(|what, error| crate::store::fail_stop(what, error)),
        }
    }
}

impl ChunkOptions {
    /// # Errors
    /// `usage` when the settings do not fit each other.
    pub(super) fn check(&self) -> Result<()> {
        let group = u64::from(self.group_bytes);
        let sound = self.group_bytes.is_power_of_two()
            && group >= KIB
            && self.slice_bytes >= group
            && self.slice_bytes.is_multiple_of(group)
            && self.pack_chunk_bytes_max <= self.chunk_bytes_max
            && self.pack_chunk_bytes_max <= self.queued_bytes_max
            && self.queued_bytes_max <= u64::from(u32::MAX)
            && self.chunk_bytes_max <= u64::from(u32::MAX)
            && self.pack_bytes_max <= 1 << 36
            && (1..=1 << 20).contains(&self.pack_records_max)
            && self.large_writers_max > 0
            && self.open_chunks_max > 0
            && self.open_packs_max > 0
            && self.batch_records_max > 0
            && self.index_changes_max > 0;
        if sound {
            Ok(())
        } else {
            Err(Error::usage(
                "the chunk store's settings do not fit each other",
            ))
        }
    }
}
