//! One node's disk: the write-ahead log, the metadata state (overlay on LMDB), images, chunks.
//! Called by `raft`, `shard` and `node`; knows nothing of names, Raft or the network.
//!
//! ```text
//! DIR/
//!   node             identity of this directory: cluster, node id, format
//!   lock             held while a process runs on the directory
//!   log/             the write-ahead log's segments            (wal/)
//!   meta/            LMDB environment of all slots             (overlay/, env::MetaBase)
//!   chunks/          one file a large chunk, by hash prefix    (chunks/)
//!   packs/ index/    packs of small chunks, their LMDB index   (chunks/)
//!   starts           the number of this directory's life       (starts)
//!   scrubbed         how far scrubbing is                      (scrubbed)
//!   reserve          space given up so that deletes work on a full disk
//! ```
//!
//! # Rules
//! 1. What a caller was told is durable is durable: every write path ends in a sync that was
//!    waited for, of the file and, for a new name, of its directory.
//! 2. An error of a sync ends the process (`fail_stop`); it is never retried.
//! 3. What a start reads and nobody is known to have synced is written again and synced before
//!    anything is built on it (`renew`).
//! 4. Every byte read is checked: log records and pack records by CRC, chunks by their BLAKE3,
//!    metadata records by a checksum that is bound to their key.

pub mod chunks;
pub mod image;
pub mod overlay;
pub mod record;
mod renew;
pub mod replace;
pub mod reserve;
pub mod scrubbed;
pub mod starts;
pub mod wal;

use crate::error::Result;
use bytes::Bytes;

/// Calls back with (key, value) in key order; `false` stops the scan.
pub type VisitRecord<'a> = dyn FnMut(&[u8], &[u8]) -> Result<bool> + 'a;

/// One unchanging state of one slot: what the shard's code reads. Keys are without the slot,
/// values without their checksum (checked already).
pub trait SlotRead {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>>;
    /// Visits records with `from <= key < to` in key order (`to` `None`: to the slot's end).
    fn scan(&self, from: &[u8], to: Option<&[u8]>, visit: &mut VisitRecord<'_>) -> Result<()>;
}

/// One change of a record of a slot: `None` deletes.
pub type Change = (Bytes, Option<Bytes>);

/// Ends the process after a sync failed: what is durable is no longer known, so nothing may be
/// acknowledged and nothing written over (rule 2).
pub fn fail_stop(what: &str, error: &dyn std::fmt::Display) -> ! {
    tracing::error!(what, %error, "a sync failed; stopping, since what is on disk is not known");
    eprintln!(
        "dfs: {what}: writing to disk failed ({error}); the node stops so that nothing is \
         acknowledged that may be lost; check the disk, then start it again"
    );
    std::process::exit(74)
}
