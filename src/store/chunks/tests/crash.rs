//! The power goes at every operation of a script: whatever was acknowledged holds.

use super::{INDEX, World, dump, get, put, sample, small};
use crate::env::sim::SimDisk;
use crate::types::ChunkHash;
use bytes::Bytes;
use std::collections::BTreeMap;

/// What a caller knows of a chunk.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Known {
    There,
    Gone,
    /// The last operation on it was not answered.
    Unknown,
}

type Told = BTreeMap<ChunkHash, (Known, Bytes)>;

fn sizes() -> [(u64, usize); 12] {
    [
        (0, 700),
        (1, 1_500),
        (2, 2_100),
        (3, 64),
        (4, 1_900),
        (5, 4_500),
        (6, 0),
        (7, 1_200),
        (8, 900),
        (9, 2_048),
        (10, 333),
        (11, 1_000),
    ]
}

/// Puts (some at once), removals, compaction, index flushes. Stops at the first error.
async fn script(world: &World, told: &mut Told) -> Option<()> {
    let chunks: Vec<Bytes> = sizes()
        .iter()
        .map(|(salt, len)| sample(*salt, *len))
        .collect();
    for pair in chunks.chunks(3) {
        for bytes in pair {
            told.insert(ChunkHash::of(bytes), (Known::Unknown, bytes.clone()));
        }
        let puts = pair.iter().map(|bytes| put(&world.store, bytes));
        let done = futures::future::join_all(puts).await;
        let failed = done.iter().any(Result::is_err);
        for hash in done.into_iter().flatten() {
            told.get_mut(&hash)?.0 = Known::There;
        }
        if failed {
            return None;
        }
    }
    for at in [1, 5, 0, 7, 8, 4] {
        remove(world, told, &chunks[at]).await?;
        if at == 0 {
            world.store.flush_index().await.ok()?;
        }
    }
    world.store.compact().await.ok()?;
    for at in [1, 5] {
        told.get_mut(&ChunkHash::of(&chunks[at]))?.0 = Known::Unknown;
        let hash = put(&world.store, &chunks[at]).await.ok()?;
        told.get_mut(&hash)?.0 = Known::There;
    }
    world.store.roll().await.ok()?;
    for at in [3, 1, 10, 11] {
        remove(world, told, &chunks[at]).await?;
    }
    world.store.compact().await.ok()?;
    Some(())
}

async fn remove(world: &World, told: &mut Told, bytes: &Bytes) -> Option<()> {
    let hash = ChunkHash::of(bytes);
    told.get_mut(&hash)?.0 = Known::Unknown;
    world.store.remove(hash).await.ok()?;
    told.get_mut(&hash)?.0 = Known::Gone;
    Some(())
}

async fn holds(disk: SimDisk, told: &Told, what: &str) {
    // As it comes up with its index, and from nothing, twice.
    let rebuilt = disk.if_crashed(0);
    let world = World::on(disk, INDEX, small()).await.unwrap();
    for (hash, (known, bytes)) in told {
        let have = world.store.have(*hash).await.unwrap();
        match known {
            Known::There => assert!(have.is_some(), "{what}: invariant 1: {hash} is lost"),
            Known::Gone => assert_eq!(have, None, "{what}: invariant 3: {hash} is back"),
            Known::Unknown => {}
        }
        if have.is_some() {
            assert_eq!(get(&world.store, *hash).await.unwrap(), bytes, "{what}");
        }
    }
    assert!(
        world.store.check().await.unwrap().problems.is_empty(),
        "{what}"
    );
    let tmp = |path: &std::path::Path| path.starts_with("/node/chunks/tmp");
    assert!(
        !world.handles.disk.files().iter().any(|(path, _)| tmp(path)),
        "{what}"
    );
    let kept = dump(&world.store).await;
    let other = World::on(rebuilt, "/node/empty", small()).await.unwrap();
    assert_eq!(dump(&other.store).await, kept, "{what}: invariant 4");
    // And it works on.
    for (_, bytes) in told.values() {
        world.put(bytes).await.unwrap();
    }
    world.store.compact().await.unwrap();
    for (hash, (_, bytes)) in told {
        assert_eq!(get(&world.store, *hash).await.unwrap(), bytes, "{what}");
    }
    world.checked();
}

#[tokio::test(start_paused = true)]
async fn what_was_acknowledged_survives_a_power_cut_at_every_operation() {
    let world = World::new(5).await;
    let opened = world.handles.disk.mutations();
    let mut told = Told::new();
    script(&world, &mut told).await.unwrap();
    world.checked();
    let mutations = world.handles.disk.mutations();
    assert!(mutations > opened + 60, "{mutations}");
    drop(world);
    for at in 1..=mutations + 1 {
        let disk = SimDisk::new(5);
        disk.crash_at(at);
        let mut told = Told::new();
        if let Ok(world) = World::on(disk.clone(), INDEX, small()).await {
            let finished = script(&world, &mut told).await;
            assert_eq!(finished.is_none(), at <= mutations, "at {at}");
            world.handles.spawn.stop();
        }
        for variant in 0..3 {
            let wreck = disk.crash_variant(variant);
            holds(
                wreck,
                &told,
                &format!("power cut at {at}, variant {variant}"),
            )
            .await;
        }
    }
}

/// The recovery is cut as well.
#[tokio::test(start_paused = true)]
async fn recovery_survives_a_power_cut_at_every_operation() {
    let disk = SimDisk::new(6);
    let mut told = Told::new();
    let world = World::on(disk.clone(), INDEX, small()).await.unwrap();
    disk.crash_at(disk.mutations() + 55);
    assert!(script(&world, &mut told).await.is_none());
    world.handles.spawn.stop();
    let wreck = disk.crash();
    let twin = wreck.if_crashed(0);
    World::on(twin.clone(), INDEX, small()).await.unwrap();
    for at in 1..=twin.mutations() {
        let again = wreck.if_crashed(0);
        again.crash_at(at);
        let _ = World::on(again.clone(), INDEX, small()).await;
        holds(
            again.crash(),
            &told,
            &format!("power cut at {at} of the recovery"),
        )
        .await;
    }
}
