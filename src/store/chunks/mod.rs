//! The chunk store of one node: content-addressed, verified on every read, durable on return.
//! Called by `node` and its data plane; knows nothing of files, placement or the network.
//!
//! # Writing
//! A chunk of `pack_chunk_bytes_max` (1 MiB) or more becomes a file: its bytes go to a temporary
//! name while they are hashed, the outboard and a footer behind them, then fdatasync, rename,
//! sync of the directory. A smaller one is gathered in memory, verified, and appended to the
//! newest pack by one task (`appender`) that takes everything queued, writes once, syncs once
//! and answers everyone. So hashing, arrival and flush of different chunks overlap, and syncs
//! are shared. Writing a chunk that is there is fine: a file is replaced by an equal one, a
//! record is not written again unless the one on disk is known to be damaged.
//!
//! # Removing
//! A file is unlinked and its directory synced. A record gets a tombstone in the slots at the
//! head of its own pack: they were allocated with the pack, so that removal needs no space, and
//! go with it, so that no other pack has to remember. Synced records are never touched again.
//! When half of a pack is dead, `compaction` copies what is alive and removes it.
//!
//! # Finding
//! The `index` maps hashes to places. It is a cache: changes reach its base in batches, after
//! they are durable. At open, `recovery` reads what is behind the indexed part of each pack
//! (everything, if the index was lost) and `survey` compares the directories of files with it.
//! A damaged one is made anew. After the loss of the index a removed chunk may be back if its
//! removal and a crash within a compaction came together, or if its row was damaged when it was
//! removed or written again; that is garbage, and the census finds it as such.
//!
//! # Damage
//! Small chunks are verified as a whole, large ones group by group against their outboard,
//! which was verified against the hash first. What does not fit is an error of kind `corrupt`
//! that names file and offset; the chunk then counts as not there ([`ChunkStore::have`]) until
//! it is written again. A damaged outboard over whole data is computed again, and such a chunk
//! written again from its own data ([`ChunkStore::mend`]). Damage between
//! records is skipped by searching for the next record that names its own place.
//!
//! # Full and failing disks
//! No space is an ordinary error: what was written in part is removed, reads and removals work
//! on. Any other error of a write or sync ends the process (`on_fatal`).
//!
//! # Bytes
//! All numbers little-endian, CRC is CRC-32C of the 60 bytes before it.
//!
//! ```text
//! chunks/tmp/N                 being written; removed at open
//! chunks/ab/cdef…              hash abcdef…:
//!   data                       len bytes
//!   outboard                   32 bytes a group, if there is more than one: BLAKE3 chaining values
//!   footer (64)                magic[8] format u32  group_bytes u32  len u64  hash[32] 0[4] crc u32
//!
//! packs/0000000001.pack
//!   header (64)                magic[8] format u32  slots u32        number u64  0[36]   crc u32
//!   tombstones                 slots × { unit u32, crc u32 of (number u64, unit) }; 0: free;
//!                              unit = record's offset / 64; 2^32-1: retired, the pack may go
//!   records, 64-byte aligned   magic[8] len u32     offset / 64 u32  number u64  hash[32] 0[4] crc u32
//!                              data, zeros up to the next multiple of 64
//! ```
//!
//! # Invariants
//! 1. What [`ChunkWriter::finish`] acknowledged is found and readable after any crash.
//! 2. No byte is returned that was not verified against the chunk's hash.
//! 3. What [`ChunkStore::remove`] acknowledged does not come back through a crash.
//! 4. The index made from nothing equals the one that was kept.
//! 5. Memory is bounded by the options, not by chunks stored or requests waiting.

mod appender;
mod check;
mod compaction;
mod core;
mod damage;
mod dirsync;
mod guard;
mod incoming;
mod index;
mod large;
mod layout;
mod ops;
mod options;
mod outboard;
mod outgoing;
mod packs;
mod recovery;
mod scan;
mod store;
mod survey;
#[cfg(test)]
mod tests;

pub use check::ChunkPart;
pub use incoming::ChunkWriter;
pub use options::{ChunkOptions, OnFatal};
pub use outgoing::ChunkReader;
pub use store::ChunkStore;

use crate::types::ChunkHash;

/// The hash behind this one; `None` behind the last.
pub fn after(hash: ChunkHash) -> Option<ChunkHash> {
    let mut next = hash.0;
    for byte in next.iter_mut().rev() {
        let (sum, carried) = byte.overflowing_add(1);
        *byte = sum;
        if !carried {
            return Some(ChunkHash(next));
        }
    }
    None
}
