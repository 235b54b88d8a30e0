//! Pure: the bytes that the simulated clients put. A content is told from its bytes alone, and
//! some contents share chunks, so that references are counted wrongly if they can be.

use super::history::ContentId;
use bytes::Bytes;

/// Bytes of a block: a chunk.
const BLOCK: usize = super::cluster::CHUNK_BYTES as usize;
/// Different blocks that many contents share.
const SHARED: u32 = 8;

/// The bytes of a content. At least 8 bytes: the first four, or the last block, are its own.
pub fn bytes_of(content: ContentId, len: usize) -> Bytes {
    let mut out = Vec::with_capacity(len);
    while out.len() < len {
        let block = (out.len() / BLOCK) as u32;
        let size = BLOCK.min(len - out.len());
        let last = out.len() + size == len;
        let mixed = content.wrapping_mul(31).wrapping_add(block);
        let key = match !last && mixed.is_multiple_of(3) {
            true => (u32::MAX, mixed % SHARED),
            false => (content, block),
        };
        let start = out.len();
        out.resize(start + size, 0);
        blake3::Hasher::new()
            .update(&key.0.to_le_bytes())
            .update(&key.1.to_le_bytes())
            .update(&(len as u64).to_le_bytes())
            .finalize_xof()
            .fill(&mut out[start..]);
    }
    out.into()
}
