//! Damaged copies: how they are named, counted and kept out of use until they are written again.

use crate::error::Error;
use crate::types::ChunkHash;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::path::PathBuf;

/// Hashes remembered as damaged (32 MiB of memory would be far more than a usable disk has).
const QUARANTINED_MAX: usize = 65_536;

/// A place on disk that does not hold what it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    pub path: PathBuf,
    /// Bytes from the file's start.
    pub offset: u64,
    pub why: String,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} at byte {}: {}",
            self.path.display(),
            self.offset,
            self.why
        )
    }
}

impl Damage {
    pub fn into_error(self, hash: ChunkHash) -> Error {
        Error::corrupt(format!(
            "chunk {hash} is damaged at byte {} ({})",
            self.offset, self.why
        ))
        .at(self.path.display())
        .hint("another copy is used and this one is written again from it")
    }
}

/// Chunks found damaged since the start. They count as not there (`have`), so that whoever keeps
/// copies writes them again, which ends the quarantine.
#[derive(Default)]
pub(super) struct Quarantine {
    hashes: Mutex<HashSet<ChunkHash>>,
}

impl Quarantine {
    pub fn add(&self, hash: ChunkHash) {
        let mut hashes = self.hashes.lock();
        if hashes.len() < QUARANTINED_MAX {
            hashes.insert(hash);
        }
    }

    pub fn holds(&self, hash: &ChunkHash) -> bool {
        self.hashes.lock().contains(hash)
    }

    pub fn len(&self) -> u64 {
        self.hashes.lock().len() as u64
    }

    pub fn end(&self, hash: &ChunkHash) {
        self.hashes.lock().remove(hash);
    }
}
