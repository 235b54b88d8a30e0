//! Full and failing disks, bounded queues, shared syncs, abandoned writers.

use super::{INDEX, World, get, put, sample, small};
use crate::env::sim::{Fault, FaultError, OpKind, SimDisk};
use crate::error::Code;
use crate::types::ChunkHash;
use bytes::Bytes;
use std::time::Duration;

fn always(op: OpKind, path: &str, error: FaultError) -> Fault {
    Fault {
        op,
        path_contains: path.to_string(),
        after: 0,
        times: u64::MAX,
        error,
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_sync_stops_the_store_and_acknowledges_nothing() {
    for (len, op, path) in [
        (500, OpKind::Sync, "packs"),
        (500, OpKind::Write, "packs"),
        (500, OpKind::SyncDir, "packs"),
        (3_000, OpKind::Sync, "chunks/tmp"),
        (3_000, OpKind::Write, "chunks/tmp"),
        (3_000, OpKind::SyncDir, "chunks"),
        (3_000, OpKind::Rename, "chunks/tmp"),
    ] {
        let world = World::new(1).await;
        let large = sample(8, 3_000);
        world.put(&large).await.unwrap();
        world.handles.disk.add_fault(Fault::once(op, path));
        let bytes = sample(1, len);
        let error = world.put(&bytes).await.unwrap_err();
        assert_eq!(error.code, Code::Failed, "{op:?} {path}: {error}");
        assert_eq!(world.fatal.lock().len(), 1, "{op:?} {path}");
        assert_eq!(world.store.have(ChunkHash::of(&bytes)).await.unwrap(), None);
        // Everything afterwards is refused, although the disk works again.
        assert_eq!(world.put(&bytes).await.unwrap_err().code, Code::Unavailable);
        let removal = world.store.remove(ChunkHash::of(&large)).await;
        assert_eq!(removal.unwrap_err().code, Code::Unavailable);
        assert_eq!(world.fatal.lock().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_index_commit_stops_the_store() {
    let world = World::new(1).await;
    world.put(&sample(1, 10)).await.unwrap();
    world
        .handles
        .disk
        .add_fault(Fault::once(OpKind::BaseCommit, ""));
    assert!(world.store.flush_index().await.is_err());
    assert_eq!(world.fatal.lock().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_refuses_puts_and_still_reads_and_removes() {
    let world = World::new(1).await;
    let chunks: Vec<Bytes> = (0..10)
        .map(|salt| sample(salt, 1_000 + 300 * salt as usize))
        .collect();
    for bytes in &chunks {
        world.put(bytes).await.unwrap();
    }
    world.handles.disk.set_limit(Some(1));
    for salt in 20..24 {
        for len in [1_900, 9_000] {
            let error = world.put(&sample(salt, len)).await.unwrap_err();
            assert_eq!(error.code, Code::NoSpace, "{error}");
        }
    }
    // Abandoned files go in the background.
    tokio::time::sleep(Duration::from_millis(1)).await;
    let files = world.handles.disk.files();
    assert!(
        !files
            .iter()
            .any(|(path, _)| path.starts_with("/node/chunks/tmp")),
        "{files:?}"
    );
    for bytes in &chunks {
        let hash = ChunkHash::of(bytes);
        assert_eq!(get(&world.store, hash).await.unwrap(), bytes);
        world.store.remove(hash).await.unwrap();
        assert_eq!(world.store.have(hash).await.unwrap(), None);
    }
    world.store.roll().await.unwrap();
    world.handles.disk.set_limit(None);
    for bytes in &chunks {
        world.put(bytes).await.unwrap();
    }
    world.store.compact().await.unwrap();
    assert!(world.store.check().await.unwrap().problems.is_empty());
    world.checked();
}

/// An index that cannot grow holds up puts, not removals.
#[tokio::test(start_paused = true)]
async fn a_full_index_refuses_puts_when_too_much_is_pending() {
    let world = World::new(1).await;
    let chunks: Vec<Bytes> = (0..40).map(|salt| sample(salt, 100)).collect();
    let fault = always(OpKind::BaseCommit, "", FaultError::NoSpace);
    world.handles.disk.add_fault(fault);
    let mut stored = Vec::new();
    for bytes in &chunks {
        match world.put(bytes).await {
            Ok(hash) => stored.push(hash),
            Err(error) => assert_eq!(error.code, Code::NoSpace),
        }
    }
    assert!(stored.len() < 20, "{}", stored.len());
    for hash in &stored {
        world.store.remove(*hash).await.unwrap();
    }
    world.handles.disk.clear_faults();
    for bytes in &chunks {
        world.put(bytes).await.unwrap();
    }
    world.checked();
}

#[tokio::test(start_paused = true)]
async fn a_read_error_counts_as_damage_of_that_copy() {
    for len in [500, 3_000] {
        let world = World::new(1).await;
        let bytes = sample(1, len);
        let hash = world.put(&bytes).await.unwrap();
        let path = if len == 500 { "packs" } else { "chunks/" };
        world
            .handles
            .disk
            .add_fault(always(OpKind::Read, path, FaultError::Eio));
        let error = world.store.read(hash, 0, len as u64).await.unwrap_err();
        assert_eq!(error.code, Code::Corrupt, "{error}");
        assert!(world.fatal.lock().is_empty());
        world.handles.disk.clear_faults();
        world.put(&bytes).await.unwrap();
        assert_eq!(get(&world.store, hash).await.unwrap(), bytes);
    }
}

/// A tail that cannot be read may be acknowledged: it is neither cut nor written over.
#[tokio::test(start_paused = true)]
async fn an_unreadable_tail_is_kept() {
    let world = World::new(1).await;
    let chunks: Vec<Bytes> = (0..3).map(|salt| sample(salt, 500)).collect();
    for bytes in &chunks {
        world.put(bytes).await.unwrap();
    }
    let disk = world.handles.disk.crash();
    disk.add_fault(Fault {
        after: 3,
        ..always(OpKind::Read, "packs", FaultError::Eio)
    });
    let world = World::on(disk.clone(), INDEX, small()).await.unwrap();
    assert!(!world.store.problems_at_open().is_empty());
    disk.clear_faults();
    world.put(&sample(9, 500)).await.unwrap();
    let world = world.restart(INDEX).await;
    let world = world.restart("/node/empty").await;
    for bytes in &chunks {
        assert_eq!(
            get(&world.store, ChunkHash::of(bytes)).await.unwrap(),
            bytes
        );
    }
}

#[tokio::test(start_paused = true)]
async fn wrong_length_or_hash_is_refused_and_leaves_nothing() {
    let world = World::new(1).await;
    for len in [500usize, 3_000] {
        let bytes = sample(1, len);
        let hash = ChunkHash::of(&bytes);
        let mut writer = world.store.begin(hash, len as u64).await.unwrap();
        writer.write(bytes.slice(1..)).await.unwrap();
        assert_eq!(writer.finish().await.unwrap_err().code, Code::Corrupt);
        let mut writer = world.store.begin(hash, len as u64).await.unwrap();
        let more = writer.write(sample(1, len + 1)).await;
        assert_eq!(more.unwrap_err().code, Code::Usage);
        drop(writer);
        let mut writer = world.store.begin(hash, len as u64).await.unwrap();
        writer.write(sample(2, len)).await.unwrap();
        assert_eq!(writer.finish().await.unwrap_err().code, Code::Corrupt);
        assert_eq!(world.store.have(hash).await.unwrap(), None);
    }
    let too_large = world.store.begin(ChunkHash([0; 32]), 1 << 40).await;
    assert_eq!(too_large.err().unwrap().code, Code::Usage);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(world.handles.disk.files().is_empty());
    assert_eq!(world.store.totals(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn puts_at_the_same_time_share_syncs_and_equal_ones_a_record() {
    let mut options = small();
    options.pack_bytes_max = 1 << 20;
    options.pack_records_max = 1_000;
    options.queued_bytes_max = 1 << 20;
    let world = World::on(SimDisk::new(1), INDEX, options).await.unwrap();
    world
        .handles
        .disk
        .set_sync_latency(Duration::from_millis(5));
    let before = world.handles.disk.count(OpKind::Sync);
    let chunks: Vec<Bytes> = (0..200).map(|n| sample(n / 2, 800)).collect();
    let puts = chunks.iter().map(|bytes| put(&world.store, bytes));
    for done in futures::future::join_all(puts).await {
        done.unwrap();
    }
    let syncs = world.handles.disk.count(OpKind::Sync) - before;
    assert!(syncs <= 6, "{syncs} syncs for 200 chunks");
    assert_eq!(world.store.totals(), (100, 80_000));
    let row = world.store.core.index.row(1).unwrap();
    assert_eq!((row.records, row.dead_records), (100, 0));
}

/// Invariant 5.
#[tokio::test(start_paused = true)]
async fn begin_waits_while_too_many_bytes_are_on_their_way() {
    let world = World::new(1).await;
    let mut writers = Vec::new();
    for salt in 0..8 {
        let hash = ChunkHash::of(&sample(salt, 2_047));
        writers.push(world.store.begin(hash, 2_047).await.unwrap());
    }
    let bytes = sample(9, 2_047);
    let hash = ChunkHash::of(&bytes);
    let mut waiting = Box::pin(world.store.begin(hash, 2_047));
    let early = tokio::time::timeout(Duration::from_secs(5), &mut waiting).await;
    assert!(early.is_err(), "16 KiB are the limit");
    writers.pop();
    let mut writer = waiting.await.unwrap();
    writer.write(bytes.clone()).await.unwrap();
    writer.finish().await.unwrap();
}

/// A caller that gives up in the middle of `finish` leaves the chunk whole or not at all.
#[tokio::test(start_paused = true)]
async fn a_cancelled_finish_leaves_nothing_half_done() {
    for wait_ms in 0..20 {
        let world = World::new(1).await;
        world
            .handles
            .disk
            .set_sync_latency(Duration::from_millis(5));
        let bytes = sample(1, 3_000);
        let hash = ChunkHash::of(&bytes);
        let patience = Duration::from_millis(wait_ms);
        let _ = tokio::time::timeout(patience, put(&world.store, &bytes)).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        let have = world.store.have(hash).await.unwrap();
        let files = world.handles.disk.files();
        assert_eq!(files.len(), usize::from(have.is_some()), "{files:?}");
        world.checked();
    }
}

/// Reads go on while a pack is emptied and removed under them.
#[tokio::test(start_paused = true)]
async fn a_chunk_is_readable_at_every_moment_of_its_pack_being_compacted() {
    let world = World::new(1).await;
    world
        .handles
        .disk
        .set_sync_latency(Duration::from_millis(3));
    let chunks: Vec<Bytes> = (0..4).map(|salt| sample(salt, 1_200)).collect();
    for bytes in &chunks {
        world.put(bytes).await.unwrap();
    }
    for bytes in &chunks[..3] {
        world.store.remove(ChunkHash::of(bytes)).await.unwrap();
    }
    world.store.roll().await.unwrap();
    world.put(&sample(9, 100)).await.unwrap();
    let hash = ChunkHash::of(&chunks[3]);
    let mut compaction = Box::pin(world.store.compact());
    loop {
        let step = Duration::from_millis(1);
        let done = tokio::time::timeout(step, &mut compaction).await;
        assert_eq!(get(&world.store, hash).await.unwrap(), chunks[3]);
        if let Ok(done) = done {
            assert_eq!(done.unwrap(), 1);
            break;
        }
    }
    assert!(world.store.core.index.row(1).is_none());
}

#[tokio::test(start_paused = true)]
async fn half_dead_packs_are_compacted_in_the_background() {
    let mut options = small();
    options.compact_in_background = true;
    let world = World::on(SimDisk::new(1), INDEX, options).await.unwrap();
    let chunks: Vec<Bytes> = (0..30).map(|salt| sample(salt, 1_000)).collect();
    for bytes in &chunks {
        world.put(bytes).await.unwrap();
    }
    let packs = world.handles.disk.files().len();
    for bytes in chunks.iter().filter(|bytes| bytes[0] % 4 != 0) {
        world.store.remove(ChunkHash::of(bytes)).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(world.handles.disk.files().len() < packs);
    assert!(world.store.check().await.unwrap().problems.is_empty());
    world.checked();
}
