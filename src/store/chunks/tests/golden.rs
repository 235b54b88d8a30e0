//! Bytes of packs and chunk files as they were first written: a build that writes others cannot
//! read what is stored.

use super::{World, sample};
use crate::types::ChunkHash;
use std::path::Path;

fn hex(bytes: &[u8]) -> String {
    bytes
        .chunks(32)
        .map(|line| {
            line.iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
                + "\n"
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_pack_with_a_record_and_a_tombstone() {
    let world = World::new(1).await;
    world.put(&sample(1, 70)).await.unwrap();
    let dead = world.put(&sample(2, 5)).await.unwrap();
    world.store.remove(dead).await.unwrap();
    let path = Path::new("/node/packs/0000000001.pack");
    let bytes = world.handles.disk.contents(path).unwrap();
    let golden = include_str!("../../../../testdata/golden/chunks-pack.hex");
    assert_eq!(hex(&bytes), golden);
}

#[tokio::test(start_paused = true)]
async fn a_chunk_file() {
    let world = World::new(1).await;
    let hash = world.put(&sample(1, 2_048)).await.unwrap();
    assert_eq!(hash, ChunkHash::of(&sample(1, 2_048)));
    let path = world.store.core.large.path(hash);
    let bytes = world.handles.disk.contents(&path).unwrap();
    let golden = include_str!("../../../../testdata/golden/chunks-file.hex");
    assert_eq!(hex(&bytes), golden);
}
