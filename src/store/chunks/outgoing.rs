//! Reading a whole chunk in verified pieces, so that a large one is never in memory as a whole.

use super::core::{Core, Found};
use crate::error::Result;
use crate::types::ChunkHash;
use bytes::Bytes;
use std::sync::Arc;

/// Hands out a chunk's bytes in order; every piece was verified.
pub struct ChunkReader {
    core: Arc<Core>,
    hash: ChunkHash,
    found: Found,
    len: u64,
    at: u64,
}

impl ChunkReader {
    pub(super) fn new(core: Arc<Core>, hash: ChunkHash, found: Found) -> Self {
        let len = found.len();
        ChunkReader {
            core,
            hash,
            found,
            len,
            at: 0,
        }
    }

    /// Bytes of the whole chunk. Not how many are left.
    pub fn chunk_len(&self) -> u64 {
        self.len
    }

    /// The next piece of at most `max` bytes (fewer at slice boundaries, so that nothing is
    /// read twice); `None` at the end.
    ///
    /// # Errors
    /// `corrupt` with file and offset; the pieces before it were right.
    pub async fn next(&mut self, max: usize) -> Result<Option<Bytes>> {
        let slice = self.core.options.slice_bytes;
        let boundary = (self.at / slice + 1).saturating_mul(slice).min(self.len);
        let end = boundary.min(self.at.saturating_add(max.max(1) as u64));
        if self.at >= self.len {
            return Ok(None);
        }
        let piece = self
            .core
            .read_found(self.hash, &self.found, self.at..end)
            .await?;
        self.at = end;
        Ok(Some(piece))
    }
}
