//! A flipped bit or a cut at every offset: never wrong bytes, never a panic, nothing else lost,
//! and what was lost can be written again.

use super::{INDEX, World, dump, get, put, sample, small};
use crate::env::base::ModelBase;
use crate::env::sim::SimDisk;
use crate::error::Code;
use crate::types::ChunkHash;
use bytes::Bytes;
use std::path::{Path, PathBuf};

/// Packed chunks with their sizes chosen so that records of one and of several units occur.
fn packed() -> Vec<Bytes> {
    [10, 64, 130, 0, 300]
        .iter()
        .zip(0..)
        .map(|(len, salt)| sample(salt, *len))
        .collect()
}

/// A disk with the chunks durable and indexed, and the path of its only pack or chunk file.
async fn disk_with(chunks: &[Bytes]) -> (SimDisk, PathBuf) {
    let world = World::new(3).await;
    for bytes in chunks {
        world.put(bytes).await.unwrap();
    }
    world.store.flush_index().await.unwrap();
    let files = world.handles.disk.files();
    let (path, _) = files.first().unwrap().clone();
    assert_eq!(files.len(), 1, "{files:?}");
    (world.handles.disk.crash(), path)
}

/// Reads everything after damage; returns how many chunks are not readable. Then writes them
/// again and expects everything back.
async fn survives(disk: SimDisk, index: &str, chunks: &[Bytes], what: &str) -> usize {
    let world = World::on(disk, index, small()).await.unwrap();
    let mut lost = 0;
    for bytes in chunks {
        let hash = ChunkHash::of(bytes);
        let have = world.store.have(hash).await.unwrap();
        match get(&world.store, hash).await {
            Ok(got) => {
                assert_eq!(got, bytes, "{what}: wrong bytes");
                assert_eq!(have, Some(bytes.len() as u64), "{what}");
            }
            Err(error) => {
                assert!(
                    matches!(error.code, Code::Corrupt | Code::NotFound),
                    "{what}: {error}"
                );
                assert_eq!(world.store.have(hash).await.unwrap(), None, "{what}");
                lost += 1;
            }
        }
    }
    // Without index a pack that ends between records looks as if nothing had followed.
    let between = index != INDEX && what.starts_with("cut") && lost > 0;
    let problems = world.store.problems_at_open().len() as u64 + world.store.damaged_now();
    assert!(lost == 0 || problems > 0 || between, "{what}: silent loss");
    for bytes in chunks {
        put(&world.store, bytes).await.unwrap();
        let hash = ChunkHash::of(bytes);
        assert_eq!(get(&world.store, hash).await.unwrap(), bytes, "{what}");
        assert_eq!(
            world.store.have(hash).await.unwrap(),
            Some(bytes.len() as u64)
        );
    }
    world.checked();
    lost
}

#[tokio::test(start_paused = true)]
async fn a_flipped_bit_anywhere_in_a_pack_costs_at_most_its_own_record() {
    let chunks = packed();
    let (disk, path) = disk_with(&chunks).await;
    let len = disk.contents(&path).unwrap().len() as u64;
    for offset in 0..len {
        // Each byte once, with and without the index in turn.
        let index = if offset % 2 == 0 {
            INDEX
        } else {
            "/node/empty"
        };
        let copy = disk.if_crashed(0);
        assert!(copy.flip_bit(&path, offset, (offset / 2 % 8) as u8));
        let what = format!("bit at {offset}, index {index}");
        let lost = survives(copy, index, &chunks, &what).await;
        assert!(lost <= 1, "{what}: {lost} chunks lost");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pack_cut_anywhere_keeps_the_records_before_the_cut() {
    let chunks = packed();
    let (disk, path) = disk_with(&chunks).await;
    let len = disk.contents(&path).unwrap().len() as u64;
    for cut in (0..len).filter(|cut| cut % 3 == 0 || cut % 64 < 2) {
        for index in [INDEX, "/node/empty"] {
            let copy = disk.if_crashed(0);
            assert!(copy.truncate(&path, cut));
            survives(
                copy,
                index,
                &chunks,
                &format!("cut at {cut}, index {index}"),
            )
            .await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_flipped_bit_or_cut_anywhere_in_a_chunk_file_never_gives_wrong_bytes() {
    let chunks = [sample(1, 2_100)];
    let (disk, path) = disk_with(&chunks).await;
    let len = disk.contents(&path).unwrap().len() as u64;
    let cases = [(INDEX, false), ("/node/empty", false), (INDEX, true)];
    for offset in 0..len {
        for (number, (index, cut)) in cases.into_iter().enumerate() {
            // The data in turn, outboard and footer in each way.
            if offset < 2_100 && offset % 3 != number as u64 {
                continue;
            }
            let copy = disk.if_crashed(0);
            if cut {
                assert!(copy.truncate(&path, offset));
            } else {
                assert!(copy.flip_bit(&path, offset, (offset / 3 % 8) as u8));
            }
            let what = format!("offset {offset}, cut {cut}, index {index}");
            let lost = survives(copy, index, &chunks, &what).await;
            // Where only outboard or footer are hurt, the outboard is computed again.
            if offset < 2_100 {
                assert_eq!(lost, 1, "{what}");
            } else if index == INDEX {
                assert_eq!(lost, 0, "{what}");
            }
        }
    }
}

/// Invariant 2: a range is verified alone.
#[tokio::test(start_paused = true)]
async fn a_damaged_group_spoils_only_the_ranges_that_touch_it() {
    let chunks = [sample(1, 5_000)];
    let (disk, path) = disk_with(&chunks).await;
    disk.flip_bit(&path, 1_500, 3);
    let world = World::on(disk, INDEX, small()).await.unwrap();
    let hash = ChunkHash::of(&chunks[0]);
    let sound = world.store.read(hash, 2_100, 2_900).await.unwrap();
    assert_eq!(sound, chunks[0].slice(2_100..));
    let error = world.store.read(hash, 1_900, 300).await.unwrap_err();
    assert_eq!(error.code, Code::Corrupt);
    assert!(error.to_string().contains("at byte 1024"), "{error}");
    assert_eq!(error.path, Some(path.display().to_string()));
    assert_eq!(world.store.have(hash).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn check_names_every_damaged_copy_with_file_and_offset() {
    let world = World::new(1).await;
    let (small, large, whole) = (sample(1, 500), sample(2, 3_000), sample(3, 500));
    for bytes in [&small, &large, &whole] {
        world.put(bytes).await.unwrap();
    }
    let disk = &world.handles.disk;
    let pack = Path::new("/node/packs/0000000001.pack");
    assert!(disk.flip_bit(pack, 400, 1));
    let file = world.store.core.large.path(ChunkHash::of(&large));
    // In the outboard: the data are whole, and still it is reported.
    assert!(disk.flip_bit(&file, 3_010, 1));
    let report = world.store.check().await.unwrap();
    assert_eq!((report.chunks, report.bytes), (3, 4_000));
    assert_eq!(report.problems.len(), 2, "{:?}", report.problems);
    let all = report.problems.join("\n");
    assert!(
        all.contains("0000000001.pack") && all.contains("at byte "),
        "{all}"
    );
    assert!(all.contains(&file.display().to_string()), "{all}");
    // Written again, everything is sound.
    for bytes in [&small, &large] {
        world.put(bytes).await.unwrap();
    }
    assert!(world.store.check().await.unwrap().problems.is_empty());
}

/// A pack as somebody's content must not bring chunks into the store, whatever is damaged.
#[tokio::test(start_paused = true)]
async fn records_within_data_are_not_taken_for_records() {
    let chunks = packed();
    let (disk, path) = disk_with(&chunks).await;
    let stored_pack = disk.contents(&path).unwrap();
    let world = World::new(9).await;
    world.put(&stored_pack).await.unwrap();
    let copy = world.handles.disk.crash();
    copy.flip_bit(&path, 170, 0);
    let world = World::on(copy, "/node/empty", small()).await.unwrap();
    for bytes in chunks {
        assert_eq!(world.store.have(ChunkHash::of(&bytes)).await.unwrap(), None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_pack_is_reported_and_its_chunks_are_not_there() {
    let chunks = packed();
    let (disk, path) = disk_with(&chunks).await;
    use crate::env::Disk;
    disk.remove(&path).await.unwrap();
    let world = World::on(disk, INDEX, small()).await.unwrap();
    assert_eq!(world.store.totals(), (0, 0));
    assert_eq!(world.store.problems_at_open().len(), 1);
    assert!(world.store.problems_at_open()[0].contains("5 chunks"));
    for bytes in &chunks {
        world.put(bytes).await.unwrap();
    }
    assert_eq!(world.store.totals().0, 5);
}

/// A write of several records that was cut off may leave a later one whole.
#[tokio::test(start_paused = true)]
async fn a_bad_record_before_a_good_one_of_the_newest_pack_is_no_damage() {
    let world = World::new(5).await;
    for seed in 1..4 {
        world.put(&sample(seed, 500)).await.unwrap();
    }
    let disk = world.handles.disk.crash();
    let pack = Path::new("/node/packs/0000000001.pack");
    let first = sample(1, 500);
    let bytes = disk.contents(pack).unwrap();
    let at = bytes.windows(16).position(|bytes| bytes == &first[..16]);
    assert!(disk.flip_bit(pack, at.unwrap() as u64 + 100, 2));
    let world = World::on(disk, "/lost", small()).await.unwrap();
    assert!(world.store.damage_at_open().is_empty());
    assert_eq!(world.store.problems_at_open().len(), 1);
    let hash = ChunkHash::of(&first);
    assert_eq!(world.store.have(hash).await.unwrap(), None);
    for seed in 2..4 {
        let good = sample(seed, 500);
        let got = get(&world.store, ChunkHash::of(&good)).await;
        assert_eq!(got.unwrap(), good);
    }
}

/// Nobody has read the damage since the start: the bytes that come again heal it all the same.
#[tokio::test(start_paused = true)]
async fn a_put_heals_a_copy_that_was_damaged_before_the_start() {
    for len in [500, 3_000] {
        let chunks = [sample(1, len)];
        let hash = ChunkHash::of(&chunks[0]);
        let (disk, path) = disk_with(&chunks).await;
        let record = disk.contents(&path).unwrap();
        let at = record
            .windows(16)
            .position(|bytes| bytes == &chunks[0][..16])
            .unwrap();
        assert!(disk.flip_bit(&path, at as u64 + 100, 2));
        let world = World::on(disk, INDEX, small()).await.unwrap();
        world.put(&chunks[0]).await.unwrap();
        assert_eq!(get(&world.store, hash).await.unwrap(), chunks[0]);
        assert_eq!(world.store.damaged_now(), 0);
        let world = world.restart(INDEX).await;
        assert_eq!(get(&world.store, hash).await.unwrap(), chunks[0]);
        assert!(world.store.check().await.unwrap().problems.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn confirm_believes_the_disk_and_not_the_index() {
    let world = World::new(4).await;
    let (small, large) = (sample(1, 500), sample(2, 3_000));
    for bytes in [&small, &large] {
        let hash = world.put(bytes).await.unwrap();
        assert_eq!(
            world.store.confirm(hash).await.unwrap(),
            Some(bytes.len() as u64)
        );
    }
    let disk = &world.handles.disk;
    assert!(disk.flip_bit(Path::new("/node/packs/0000000001.pack"), 400, 1));
    let small = ChunkHash::of(&small);
    assert_eq!(world.store.present(small).await.unwrap(), Some(500));
    assert_eq!(world.store.confirm(small).await.unwrap(), None);
    let hash = ChunkHash::of(&large);
    let file = world.store.core.large.path(hash);
    assert!(disk.truncate(&file, 3_000));
    assert_eq!(world.store.present(hash).await.unwrap(), None);
    use crate::env::Disk;
    disk.remove(&file).await.unwrap();
    assert_eq!(world.store.have(hash).await.unwrap(), Some(3_000));
    assert_eq!(world.store.present(hash).await.unwrap(), None);
    assert_eq!(world.store.have(hash).await.unwrap(), None);
    assert_eq!(world.store.damaged_now(), 2);
    world.put(&large).await.unwrap();
    assert_eq!(world.store.confirm(hash).await.unwrap(), Some(3_000));
    assert_eq!(world.store.damaged_now(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_vanished_chunk_file_is_not_there_and_a_torn_tail_is_no_damage() {
    let large = [sample(2, 3_000)];
    let (disk, path) = disk_with(&large).await;
    use crate::env::Disk;
    disk.remove(&path).await.unwrap();
    let world = World::on(disk, INDEX, small()).await.unwrap();
    let hash = ChunkHash::of(&large[0]);
    assert_eq!(world.store.have(hash).await.unwrap(), None);
    assert_eq!(world.store.totals(), (0, 0));

    let chunks = packed();
    let (disk, path) = disk_with(&chunks).await;
    let len = disk.contents(&path).unwrap().len() as u64;
    assert!(disk.truncate(&path, len - 70));
    let world = World::on(disk, "/node/empty", small()).await.unwrap();
    assert!(!world.store.problems_at_open().is_empty());
    assert_eq!(world.store.damage_at_open(), Vec::<String>::new());
}

/// The key of a chunk's row in the index.
fn row_of(hash: ChunkHash) -> Vec<u8> {
    [&b"c"[..], &hash.0].concat()
}

#[tokio::test(start_paused = true)]
async fn a_row_of_the_index_that_rots_costs_its_own_chunk_alone() {
    for len in [500, 3_000] {
        let world = World::new(6).await;
        let (rotten, sound) = (sample(1, len), sample(2, len));
        let hash = world.put(&rotten).await.unwrap();
        let other = world.put(&sound).await.unwrap();
        world.store.flush_index().await.unwrap();
        let totals = world.store.totals();
        let base = ModelBase::open(&world.handles.disk, Path::new(INDEX));
        assert!(base.flip_bit(&row_of(hash), 1, 3));
        let here = Some(len as u64);
        let both = world.store.have_many(vec![hash, other]).await.unwrap();
        assert_eq!(both, [None, here]);
        let all = world.store.list(ChunkHash([0; 32]), None, 9).await.unwrap();
        assert_eq!(all, [(other, len as u64)]);
        assert_eq!(get(&world.store, other).await.unwrap(), sound);
        let lost = get(&world.store, hash).await.unwrap_err();
        assert_eq!(lost.code, Code::NotFound);
        assert_eq!(world.store.unreadable_rows(), 1);
        // Whoever has a copy writes it again, together with others.
        let more = sample(3, len);
        let puts = [&rotten, &more].map(|bytes| put(&world.store, bytes));
        for done in futures::future::join_all(puts).await {
            done.unwrap();
        }
        assert_eq!(get(&world.store, hash).await.unwrap(), rotten);
        assert_eq!(world.store.unreadable_rows(), 0);
        let (chunks, bytes) = totals;
        assert_eq!(world.store.totals(), (chunks + 1, bytes + len as u64));
        world.store.flush_index().await.unwrap();
        let world = world.restart(INDEX).await;
        assert_eq!(get(&world.store, hash).await.unwrap(), rotten);
        assert_eq!(world.store.damage_at_open(), Vec::<String>::new());
        world.checked();
    }
}

#[tokio::test(start_paused = true)]
async fn a_rotten_index_is_made_anew_at_open() {
    let world = World::new(6).await;
    let chunks: Vec<Bytes> = (0..30)
        .map(|salt| sample(salt, 900 + 70 * salt as usize))
        .collect();
    for bytes in &chunks {
        world.put(bytes).await.unwrap();
    }
    for bytes in &chunks[..5] {
        world.store.remove(ChunkHash::of(bytes)).await.unwrap();
    }
    world.store.flush_index().await.unwrap();
    let before = dump(&world.store).await;
    let first_pack = [&b"p"[..], &1u64.to_be_bytes()].concat();
    let (packed, large) = (ChunkHash::of(&chunks[6]), ChunkHash::of(&chunks[29]));
    let keys = [b"t".to_vec(), first_pack, row_of(packed), row_of(large)];
    let disk = world.handles.disk.crash();
    for key in keys {
        let copy = disk.if_crashed(0);
        assert!(ModelBase::open(&copy, Path::new(INDEX)).flip_bit(&key, 2, 1));
        let world = World::on(copy, INDEX, small()).await.unwrap();
        assert_eq!(dump(&world.store).await, before);
        assert_eq!(world.store.unreadable_rows(), 0);
        // A chunk file is told by its name.
        let anew = world.store.damage_at_open();
        assert_eq!(anew.len(), usize::from(key != row_of(large)), "{anew:?}");
        let world = world.restart(INDEX).await;
        assert_eq!(dump(&world.store).await, before);
        assert_eq!(world.store.damage_at_open(), Vec::<String>::new());
        world.checked();
    }
}

/// The rows go in several commits; the power may go between any two of them.
#[tokio::test(start_paused = true)]
async fn a_cut_while_the_index_is_made_anew_loses_nothing() {
    let world = World::new(6).await;
    let chunks: Vec<Bytes> = (0..12).map(|salt| sample(salt, 700)).collect();
    for bytes in &chunks {
        world.put(bytes).await.unwrap();
    }
    world.store.flush_index().await.unwrap();
    let before = dump(&world.store).await;
    let disk = world.handles.disk.crash();
    let rotten = row_of(ChunkHash::of(&chunks[3]));
    for cut in 1.. {
        let copy = disk.if_crashed(0);
        assert!(ModelBase::open(&copy, Path::new(INDEX)).flip_bit(&rotten, 2, 1));
        copy.crash_at(cut);
        let whole = World::on(copy.clone(), INDEX, small()).await.is_ok() && !copy.is_crashed();
        let world = World::on(copy.crash(), INDEX, small()).await.unwrap();
        assert_eq!(dump(&world.store).await, before, "cut at {cut}");
        world.checked();
        if whole {
            assert!(cut > 3, "it was cut in the middle");
            break;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_chunk_of_which_only_the_outboard_is_damaged_is_mended_from_its_own_data() {
    let chunks = [sample(1, 3_000)];
    let hash = ChunkHash::of(&chunks[0]);
    let (disk, path) = disk_with(&chunks).await;
    for (offset, whole) in [(3_010, true), (1_500, false)] {
        let copy = disk.if_crashed(0);
        assert!(copy.flip_bit(&path, offset, 1));
        let world = World::on(copy, INDEX, small()).await.unwrap();
        assert!(!world.store.mend(hash).await.unwrap(), "nobody has met it");
        assert_eq!(
            world.store.verify(hash).await.unwrap_err().code,
            Code::Corrupt
        );
        assert_eq!(world.store.have(hash).await.unwrap(), None);
        assert_eq!(world.store.mend(hash).await.unwrap(), whole);
        let here = whole.then_some(3_000);
        assert_eq!(world.store.have(hash).await.unwrap(), here);
        assert_eq!(world.store.verify(hash).await.is_ok(), whole);
        world.checked();
    }
}
