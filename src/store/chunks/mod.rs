//! The chunk store of one node. (interface; implementation to come)

use crate::env::{Env, MetaBase};
use crate::error::Result;
use crate::types::ChunkHash;
use bytes::Bytes;
use std::path::Path;
use std::sync::Arc;

pub struct ChunkStore {}

/// What a check of the store found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChunkReport {
    pub chunks: u64,
    pub bytes: u64,
    /// Damaged or missing copies, each with file and offset.
    pub problems: Vec<String>,
}

impl ChunkStore {
    /// `index` is the pack index's own base (one writer each).
    pub async fn open(
        _env: Env,
        _dir: &Path,
        _index: Arc<dyn MetaBase>,
    ) -> Result<Arc<ChunkStore>> {
        unimplemented!()
    }
    /// Starts taking a chunk of `len` bytes.
    pub async fn begin(self: &Arc<Self>, _hash: ChunkHash, _len: u64) -> Result<ChunkWriter> {
        unimplemented!()
    }
    /// Length of a stored chunk; `None`: not here. Cheap: no disk access for small chunks.
    pub async fn have(&self, _hash: ChunkHash) -> Result<Option<u64>> {
        unimplemented!()
    }
    /// Reads and verifies `offset..offset+len` of a chunk. `not_found`, `corrupt`.
    pub async fn read(&self, _hash: ChunkHash, _offset: u64, _len: u64) -> Result<Bytes> {
        unimplemented!()
    }
    /// Removes a chunk if it is here. Durable when it returns.
    pub async fn remove(&self, _hash: ChunkHash) -> Result<()> {
        unimplemented!()
    }
    /// Re-verifies everything (read-only).
    pub async fn check(&self) -> Result<ChunkReport> {
        unimplemented!()
    }
    /// (chunks, bytes) stored, kept up to date.
    pub fn totals(&self) -> (u64, u64) {
        unimplemented!()
    }
}

/// Takes one chunk's bytes in order. Dropped unfinished, it leaves nothing behind.
pub struct ChunkWriter {}

impl ChunkWriter {
    /// The next bytes. `usage` when more than announced.
    pub async fn write(&mut self, _bytes: Bytes) -> Result<()> {
        unimplemented!()
    }
    /// Verifies length and hash and makes the chunk durable. `corrupt` when they do not fit.
    pub async fn finish(self) -> Result<()> {
        unimplemented!()
    }
}
