//! The store on a real file system with a real index.

use super::{get, put, sample};
use crate::env::base::LmdbBase;
use crate::env::real;
use crate::store::chunks::{ChunkOptions, ChunkStore};
use crate::types::ChunkHash;
use bytes::Bytes;
use std::sync::Arc;

#[tokio::test(flavor = "multi_thread")]
async fn stores_reads_removes_and_reopens_on_a_real_disk() {
    let dir = tempfile::tempdir().unwrap();
    let env = real::env(tokio::runtime::Handle::current());
    let sizes = [0, 100, 70_000, 1 << 20, (3 << 20) + 5];
    let chunks: Vec<Bytes> = sizes
        .iter()
        .zip(0..)
        .map(|(len, salt)| sample(salt, *len))
        .collect();
    for round in 0..2 {
        let index = dir.path().join(format!("index{round}"));
        std::fs::create_dir_all(&index).unwrap();
        let base = Arc::new(LmdbBase::open(&index, 64 << 20).unwrap());
        let options = ChunkOptions::default();
        let store = ChunkStore::open_with(env.clone(), dir.path(), base, options)
            .await
            .unwrap();
        assert_eq!(store.problems_at_open(), Vec::<String>::new());
        let puts = chunks.iter().map(|bytes| put(&store, bytes));
        for done in futures::future::join_all(puts).await {
            done.unwrap();
        }
        for bytes in &chunks {
            let hash = ChunkHash::of(bytes);
            assert_eq!(get(&store, hash).await.unwrap(), bytes);
        }
        assert_eq!(store.totals().0, chunks.len() as u64);
        assert!(store.check().await.unwrap().problems.is_empty());
        store.remove(ChunkHash::of(&chunks[1])).await.unwrap();
        store.remove(ChunkHash::of(&chunks[4])).await.unwrap();
        assert_eq!(store.totals().0, chunks.len() as u64 - 2);
    }
}
