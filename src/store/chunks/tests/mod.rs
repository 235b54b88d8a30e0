//! Tests of the chunk store on a simulated disk: a small world that can be reopened, killed and
//! cut from power, with sizes so small that every byte can be damaged in turn.

mod crash;
mod damage;
mod faults;
mod golden;
mod model;
mod real;

use super::index::{Location, PackRow, Totals};
use super::{ChunkOptions, ChunkStore};
use crate::env::sim::{self, SimDisk, SimHandles};
use crate::error::Result;
use crate::types::ChunkHash;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

pub(super) const DIR: &str = "/node";
pub(super) const INDEX: &str = "/node/index";

/// Limits so small that a few chunks fill a pack. Chunks from 2,048 bytes on are files.
pub(super) fn small() -> ChunkOptions {
    ChunkOptions {
        pack_chunk_bytes_max: 2_048,
        chunk_bytes_max: 64 << 10,
        pack_bytes_max: 6 << 10,
        pack_records_max: 12,
        group_bytes: 1_024,
        slice_bytes: 4_096,
        queued_bytes_max: 16 << 10,
        index_changes_max: 16,
        compact_in_background: false,
        ..ChunkOptions::default()
    }
}

pub(super) struct World {
    pub handles: SimHandles,
    pub store: Arc<ChunkStore>,
    /// What `on_fatal` was told.
    pub fatal: Arc<Mutex<Vec<String>>>,
}

impl World {
    pub async fn new(seed: u64) -> World {
        Self::on(SimDisk::new(seed), INDEX, small()).await.unwrap()
    }

    /// Opens the store on a disk, with the index base at `index`.
    pub async fn on(disk: SimDisk, index: &str, mut options: ChunkOptions) -> Result<World> {
        let (env, handles) = sim::env_on(7, disk);
        let fatal = Arc::new(Mutex::new(Vec::new()));
        let told = fatal.clone();
        options.on_fatal =
            Arc::new(move |what, error| told.lock().push(format!("{what}: {error}")));
        let base = handles.base(Path::new(index));
        let store = ChunkStore::open_with(env, Path::new(DIR), base, options).await?;
        Ok(World {
            handles,
            store,
            fatal,
        })
    }

    /// The process ends and another starts; `index` may name another base.
    pub async fn restart(self, index: &str) -> World {
        self.handles.spawn.stop();
        self.checked();
        Self::on(self.handles.disk.kill(), index, small())
            .await
            .unwrap()
    }

    /// No task panicked and no disk failed.
    pub fn checked(&self) {
        assert_eq!(self.handles.spawn.panics(), Vec::<String>::new());
        assert_eq!(*self.fatal.lock(), Vec::<String>::new());
    }

    pub async fn put(&self, bytes: &Bytes) -> Result<ChunkHash> {
        put(&self.store, bytes).await
    }
}

pub(super) async fn put(store: &Arc<ChunkStore>, bytes: &Bytes) -> Result<ChunkHash> {
    let hash = ChunkHash::of(bytes);
    let mut writer = store.begin(hash, bytes.len() as u64).await?;
    for part in bytes.chunks(1_500) {
        writer.write(Bytes::copy_from_slice(part)).await?;
    }
    writer.finish().await?;
    Ok(hash)
}

/// Bytes that differ for each `salt`.
pub(super) fn sample(salt: u64, len: usize) -> Bytes {
    let mut out = vec![0; len];
    blake3::Hasher::new()
        .update(&salt.to_le_bytes())
        .finalize_xof()
        .fill(&mut out);
    Bytes::from(out)
}

/// The whole chunk, by the piecewise reader.
pub(super) async fn get(store: &ChunkStore, hash: ChunkHash) -> Result<Bytes> {
    let mut reader = store.open_read(hash).await?;
    let mut out = Vec::new();
    while let Some(piece) = reader.next(1_700).await? {
        assert!(!piece.is_empty() && piece.len() <= 1_700);
        out.extend_from_slice(&piece);
    }
    assert_eq!(out.len() as u64, reader.chunk_len());
    Ok(Bytes::from(out))
}

/// All that the index holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Dump {
    pub chunks: BTreeMap<ChunkHash, Location>,
    rows: BTreeMap<u64, PackRow>,
    totals: Totals,
}

pub(super) async fn dump(store: &ChunkStore) -> Dump {
    let index = &store.core.index;
    let all = index.list(ChunkHash([0; 32]), None, 1 << 20).await.unwrap();
    Dump {
        chunks: all.into_iter().collect(),
        rows: index.rows(),
        totals: index.totals(),
    }
}
