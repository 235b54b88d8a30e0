//! What the store's handles and tasks share, and reading of one record wherever it is.

use super::damage::{Damage, Quarantine};
use super::guard::Guard;
use super::index::{Index, Location, Place};
use super::large::LargeFiles;
use super::layout;
use super::options::ChunkOptions;
use super::packs::{Packs, ReadFailure};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::types::ChunkHash;
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{Notify, Semaphore};

/// From this many bytes on hashing goes to the blocking pool: 100 µs of work at most stay where
/// they are, as a hop there and back costs some tens.
pub(super) const HASH_INLINE_BYTES_MAX: usize = 256 << 10;

/// How often a read follows a record that compaction moved meanwhile.
const MOVES_FOLLOWED_MAX: usize = 8;

pub(super) struct Core {
    pub env: Env,
    pub options: ChunkOptions,
    pub guard: Arc<Guard>,
    pub index: Index,
    pub packs: Packs,
    pub large: LargeFiles,
    pub quarantine: Quarantine,
    /// Told when a pack may have become worth compacting.
    pub compaction: Notify,
    /// Number of the pack that is appended to; 0: none yet.
    pub appending: AtomicU64,
    /// Bytes of small chunks that may be in memory.
    pub queued_bytes: Arc<Semaphore>,
}

/// A chunk's bytes, found and located.
pub(super) enum Found {
    Small(Bytes),
    Large(Arc<super::large::LargeChunk>),
}

impl Found {
    pub fn len(&self) -> u64 {
        match self {
            Found::Small(bytes) => bytes.len() as u64,
            Found::Large(chunk) => chunk.outboard.len(),
        }
    }
}

impl Core {
    /// Half of the pack is dead and nothing is appended to it.
    pub fn is_compactable(&self, pack: u64) -> bool {
        let Some(row) = self.index.row(pack) else {
            return false;
        };
        let used = row.end.saturating_sub(layout::data_start(row.slots));
        pack != self.appending.load(Ordering::Acquire)
            && row.records > 0
            && (row.dead_bytes.saturating_mul(2) >= used || row.dead_records >= row.records)
    }

    /// Where a chunk is; one that is known to be damaged is not there.
    pub async fn usable(&self, hash: ChunkHash) -> Result<Option<Location>> {
        let location = self.index.get(hash).await?;
        Ok(location.filter(|_| !self.quarantine.holds(&hash)))
    }

    /// Finds a chunk: the bytes of a small one, verified; a large one opened, its outboard
    /// verified.
    pub async fn find(&self, hash: ChunkHash) -> Result<Found> {
        for _ in 0..MOVES_FOLLOWED_MAX {
            let Some(location) = self.index.get(hash).await? else {
                return Err(Error::not_found(format!(
                    "chunk {hash} is not on this node"
                )));
            };
            let found = match location {
                Location::Pack { place, len } => {
                    let read = self.read_record(place, len, hash).await;
                    read.map(Found::Small)
                }
                Location::File { len } => self.large.open(hash, len).await.map(Found::Large),
            };
            match found {
                Ok(found) => return Ok(found),
                Err(ReadFailure::Other(error)) => return Err(error),
                Err(ReadFailure::Damaged(damage)) => return Err(self.damaged(hash, damage)),
                // Moved or removed since it was looked up, or lost.
                Err(ReadFailure::Gone) => {
                    self.large.settled(hash).await;
                    if self.index.get(hash).await? == Some(location) {
                        return Err(self.damaged(hash, self.missing(hash, location)));
                    }
                }
            }
        }
        Err(Error::unavailable(format!("chunk {hash} keeps moving")).hint("try again"))
    }

    /// Reads a range that lies within a found chunk.
    pub async fn read_found(
        &self,
        hash: ChunkHash,
        found: &Found,
        range: Range<u64>,
    ) -> Result<Bytes> {
        match found {
            Found::Small(bytes) => Ok(bytes.slice(range.start as usize..range.end as usize)),
            Found::Large(_) if range.is_empty() => Ok(Bytes::new()),
            Found::Large(chunk) => self.large.read(chunk, range).await.map_err(|damage| {
                self.large.forget(hash);
                self.damaged(hash, damage)
            }),
        }
    }

    pub fn missing(&self, hash: ChunkHash, location: Location) -> Damage {
        let (path, offset) = match location {
            Location::Pack { place, .. } => (self.packs.path(place.pack), place.offset),
            Location::File { .. } => (self.large.path(hash), 0),
        };
        let why = "the file is missing".to_string();
        Damage { path, offset, why }
    }

    /// Reads and verifies one record of a pack.
    pub async fn read_record(
        &self,
        place: Place,
        len: u32,
        hash: ChunkHash,
    ) -> Result<Bytes, ReadFailure> {
        let bytes = self.packs.read_raw(place, len, hash).await?;
        if hash_of(&self.env, vec![bytes.clone()]).await == hash {
            return Ok(bytes);
        }
        Err(ReadFailure::Damaged(Damage {
            path: self.packs.path(place.pack),
            offset: place.offset,
            why: "the data does not match its hash".to_string(),
        }))
    }

    /// Counts damage and puts the copy out of use.
    pub fn damaged(&self, hash: ChunkHash, damage: Damage) -> Error {
        self.quarantine.add(hash);
        let error = damage.into_error(hash);
        tracing::warn!(%hash, %error, "a stored chunk is damaged");
        error
    }
}

/// BLAKE3 over all parts, on the blocking pool when it takes long.
pub(super) async fn hash_of(env: &Env, parts: Vec<Bytes>) -> ChunkHash {
    let bytes: usize = parts.iter().map(Bytes::len).sum();
    let work = move || {
        let mut hasher = blake3::Hasher::new();
        for part in &parts {
            hasher.update(part);
        }
        ChunkHash(*hasher.finalize().as_bytes())
    };
    if bytes < HASH_INLINE_BYTES_MAX {
        work()
    } else {
        env.run_blocking(work).await
    }
}
