//! Scrubbing of a node that is restarted: it goes on where it was, and heals from its own data what
//! it can.

use super::{DIR, Life, run, sample};
use crate::env::sim::SimDisk;
use crate::node::scrub;
use crate::store::scrubbed::{self, Scrubbed};
use crate::types::ChunkHash;
use bytes::Bytes;
use std::path::Path;
use std::time::Duration;

/// Longer than it takes to see that scrubbing is due, and to note how far it is.
const WHILE: Duration = Duration::from_secs(700);
/// A run over a few chunks takes less.
const MOMENT: Duration = Duration::from_secs(2);
const INTERVAL_MS: u64 = 30 * 24 * 3_600_000;

async fn put(life: &Life, bytes: &Bytes) -> ChunkHash {
    let hash = ChunkHash::of(bytes);
    let chunks = &life.node.chunks;
    let mut writer = chunks.begin(hash, bytes.len() as u64).await.unwrap();
    writer.write(bytes.clone()).await.unwrap();
    writer.finish().await.unwrap();
    hash
}

/// A node with some chunks, in order of their hashes, that has scrubbed for so long.
async fn scrubbed_since(from: Scrubbed) -> (Life, Vec<ChunkHash>) {
    let life = Life::start(&SimDisk::new(1)).await.unwrap();
    let mut hashes = Vec::new();
    for salt in 0..5 {
        hashes.push(put(&life, &sample(salt, 1_000)).await);
    }
    hashes.sort_unstable();
    let from = Scrubbed {
        at: from.at.map(|_| hashes[3]),
        ..from
    };
    let disk = &*life.node.env.disk;
    scrubbed::write(disk, Path::new(DIR), from).await.unwrap();
    let mut scrubbing = Box::pin(scrub::run(life.node.clone()));
    let began = tokio::time::timeout(MOMENT, &mut scrubbing).await;
    assert!(began.is_err(), "it ends with the process");
    tokio::time::advance(WHILE).await;
    let _ = tokio::time::timeout(MOMENT, &mut scrubbing).await;
    (life, hashes)
}

async fn noted(life: &Life) -> Scrubbed {
    let disk = &*life.node.env.disk;
    scrubbed::read(disk, Path::new(DIR)).await.unwrap()
}

#[test]
fn the_time_of_earlier_lives_counts() {
    run(async {
        for (before, verified) in [(INTERVAL_MS - 300_000, 5), (1_000_000, 0)] {
            let from = Scrubbed {
                since_ms: before,
                at: None,
            };
            let (life, _) = scrubbed_since(from).await;
            assert_eq!(life.node.scrub(false).verified, verified);
            let now = noted(&life).await;
            assert_eq!(now.at, None);
            match verified {
                0 => assert!(now.since_ms >= 1_600_000, "{now:?}"),
                _ => assert!(now.since_ms < 700_000, "{now:?}"),
            }
            life.end();
        }
    });
}

#[test]
fn a_run_that_a_restart_broke_off_goes_on() {
    run(async {
        let from = Scrubbed {
            since_ms: 5,
            at: Some(ChunkHash([0; 32])),
        };
        let (life, _) = scrubbed_since(from).await;
        assert_eq!(
            life.node.scrub(false).verified,
            2,
            "from the fourth of five"
        );
        assert_eq!(noted(&life).await.at, None);
        life.end();
    });
}

/// No other node has the chunk.
#[test]
fn a_damaged_outboard_is_made_again_from_whole_data() {
    run(async {
        let life = Life::start(&SimDisk::new(1)).await.unwrap();
        let bytes = sample(7, 3_000);
        let hash = put(&life, &bytes).await;
        let files = life.handles.disk.files();
        let place = files
            .iter()
            .find(|(path, _)| path.starts_with("/node/chunks"));
        let (path, _) = place.unwrap();
        assert!(life.handles.disk.flip_bit(path, 3_010, 1));
        life.node.chunks.verify(hash).await.unwrap_err();
        assert_eq!(life.node.chunks.have(hash).await.unwrap(), None);
        life.node.fetch(hash, 3_000).await.unwrap();
        assert_eq!(life.node.chunks.have(hash).await.unwrap(), Some(3_000));
        assert_eq!(life.node.chunks.verify(hash).await.unwrap(), 3_000);
        life.checked();
        life.end();
    });
}
