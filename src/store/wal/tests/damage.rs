//! A small log, damaged at every byte: it opens or says why not, gives only what was written,
//! and hides nothing.

use super::{DIR, G1, G2, all, append, at, entry, long, open, run, try_open};
use crate::env::OpenMode;
use crate::env::sim::{self, SimDisk};
use crate::store::wal::format::SegmentHeader;
use crate::store::wal::{LogEntry, Wal};
use crate::types::{GroupId, LogIndex};
use bytes::Bytes;
use std::path::{Path, PathBuf};

fn segment(number: u64) -> PathBuf {
    PathBuf::from(format!("{DIR}/{number:016x}.wal"))
}

const G3: GroupId = GroupId(3);

/// What every group should have in the end.
fn expected(group: GroupId) -> Vec<LogEntry> {
    match group {
        G1 => vec![
            entry(G1, 1, 2),
            long(G1, 1, 3, 100),
            entry(G1, 3, 4),
            entry(G1, 3, 5),
        ],
        _ => vec![entry(G2, 2, 1), entry(G2, 2, 2)],
    }
}

/// A log of two groups: an acknowledged vote each, entries, a truncation, a purge. `idle`: the
/// writer has said what is synced.
async fn build(idle: bool) -> SimDisk {
    let disk = SimDisk::new(5);
    let (wal, _) = open(&disk).await;
    append(&wal, G1, (1..=2).map(|i| entry(G1, 1, i)).collect())
        .await
        .unwrap();
    wal.save_vote(G1, Bytes::from_static(b"first"))
        .await
        .unwrap();
    append(&wal, G2, vec![entry(G2, 2, 1)]).await.unwrap();
    append(&wal, G1, vec![long(G1, 1, 3, 100), entry(G1, 1, 4)])
        .await
        .unwrap();
    wal.truncate_after(G1, Some(at(1, 3))).await.unwrap();
    wal.purge(G1, at(1, 1)).await.unwrap();
    wal.save_vote(G1, Bytes::from_static(b"vote"))
        .await
        .unwrap();
    wal.save_vote(G2, Bytes::from_static(b"vote"))
        .await
        .unwrap();
    wal.append(G1, vec![entry(G1, 3, 4)], Box::new(|_| {}))
        .unwrap();
    wal.append(G2, vec![entry(G2, 2, 2)], Box::new(|_| {}))
        .unwrap();
    append(&wal, G1, vec![entry(G1, 3, 5)]).await.unwrap();
    if idle {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    let disk = disk.kill();
    let (env, _) = sim::env_on(5, disk.clone());
    let file = env.disk.open(&segment(1), OpenMode::Write).await.unwrap();
    file.sync().await.unwrap();
    env.disk.sync_dir(Path::new(DIR)).await.unwrap();
    disk
}

/// The same disk once more: all of it is durable.
fn copy(disk: &SimDisk) -> SimDisk {
    disk.crash()
}

/// Invariants 5 and 6: what is given is right, and what is missing is told of.
async fn check(wal: &Wal, what: &str) {
    let damaged = wal.damaged();
    for group in [G1, G2] {
        let expected = expected(group);
        let state = wal.state(group);
        let doubtful = state.doubtful_tail;
        assert!(
            doubtful || state.vote.as_deref() == Some(b"vote"),
            "{what}: the vote of {group} is lost: {state:?}"
        );
        for entry in expected {
            let index = entry.position.index;
            let reported = damaged
                .iter()
                .find(|d| d.group == group && d.index == index);
            if let Some(position) = reported.and_then(|d| d.position) {
                assert_eq!(position, entry.position, "{what}");
            }
            match wal.read(group, index, index.next(), 1).await.as_deref() {
                // Without its end the log is an older one.
                Ok([found]) if doubtful && *found == self::entry(G1, 1, 4) => {}
                Ok([found]) => assert_eq!(*found, entry, "{what}: {state:?}"),
                outcome => assert!(
                    doubtful || reported.is_some(),
                    "{what}: {index} of {group} is lost ({outcome:?}): {state:?}"
                ),
            }
        }
        if !doubtful {
            assert!(
                state.purged.unwrap_or_default().index <= LogIndex(1),
                "{what}"
            );
        }
    }
}

/// Repairs what is damaged as a peer would, and looks whether the log is as it was.
async fn repair(wal: &Wal) {
    for damaged in wal.damaged() {
        let entry = expected(damaged.group)
            .into_iter()
            .find(|e| e.position.index == damaged.index);
        let wrong = LogEntry {
            position: at(99, damaged.index.0),
            payload: Bytes::new(),
        };
        if damaged.position.is_some() {
            assert!(wal.repair(damaged.group, wrong).await.is_err());
        }
        // Nobody has one that was purged: its mark was lost with it.
        if let Some(entry) = entry {
            wal.repair(damaged.group, entry).await.unwrap();
        } else {
            wal.purge(damaged.group, at(1, damaged.index.0))
                .await
                .unwrap();
        }
    }
    assert_eq!(wal.damaged(), []);
}

async fn opened(disk: &SimDisk, what: &str) -> Option<std::sync::Arc<Wal>> {
    match try_open(disk).await {
        Ok((wal, handles)) => {
            assert_eq!(handles.spawn.panics(), Vec::<String>::new(), "{what}");
            Some(wal)
        }
        Err(error) => {
            assert!(error.message.contains("damaged"), "{what}: {error}");
            None
        }
    }
}

/// Opens a damaged log, twice: what was found the first time must still be known.
async fn check_twice(disk: SimDisk, what: &str) -> bool {
    let Some(wal) = opened(&disk, what).await else {
        return false;
    };
    check(&wal, what).await;
    let doubtful = [G1, G2].map(|g| wal.state(g).doubtful_tail);
    let disk = disk.kill();
    let wal = opened(&disk, what).await.expect("it opened before");
    check(&wal, &format!("{what}, again")).await;
    assert_eq!(
        [G1, G2].map(|g| wal.state(g).doubtful_tail),
        doubtful,
        "{what}, again"
    );
    repair(&wal).await;
    if doubtful.contains(&true) {
        wal.clear_doubt(G1).await.unwrap();
        wal.clear_doubt(G2).await.unwrap();
    } else {
        let disk = disk.kill();
        let wal = opened(&disk, what).await.expect("it opened before");
        for group in [G1, G2] {
            assert_eq!(
                all(&wal, group).await.unwrap(),
                expected(group),
                "{what}, repaired"
            );
        }
    }
    true
}

/// Bytes of a segment that were written.
fn written(disk: &SimDisk) -> u64 {
    let bytes = disk.contents(&segment(1)).unwrap();
    bytes.iter().rposition(|b| *b != 0).unwrap() as u64 + 1
}

#[test]
fn an_undamaged_log_is_whole() {
    for idle in [true, false] {
        run(async {
            let (wal, _) = open(&build(idle).await).await;
            assert_eq!(wal.damaged(), []);
            for group in [G1, G2] {
                assert_eq!(all(&wal, group).await.unwrap(), expected(group));
                assert!(!wal.state(group).doubtful_tail);
            }
            assert_eq!(wal.state(G1).purged, Some(at(1, 1)));
        });
    }
}

#[test]
fn one_flipped_bit_anywhere_is_reported_or_harmless() {
    for idle in [true, false] {
        let built = run(build(idle));
        let end = written(&built);
        // Without the seal only the end is judged differently.
        let from = if idle { 0 } else { end - 700 };
        for offset in from..end + 64 {
            run(async {
                let disk = copy(&built);
                assert!(disk.flip_bit(&segment(1), offset, (offset % 8) as u8));
                let what = format!("bit flipped in byte {offset} of {end}, idle {idle}");
                if offset % 5 == 0 {
                    assert!(check_twice(disk, &what).await, "{what}");
                } else {
                    check(&opened(&disk, &what).await.unwrap(), &what).await;
                }
            });
        }
    }
}

#[test]
fn damage_of_a_sealed_log_is_never_taken_for_a_torn_tail() {
    run(async {
        let built = build(true).await;
        // The seal itself is the last block.
        for offset in (0..written(&built) - 64).step_by(16) {
            let disk = copy(&built);
            disk.flip_bit(&segment(1), offset, 1);
            let wal = opened(&disk, "").await.unwrap();
            for group in [G1, G2] {
                let state = wal.state(group);
                let tail = state.doubt.is_some_and(|doubt| !doubt.vote);
                assert!(!tail, "offset {offset}: {state:?}");
            }
        }
    });
}

#[test]
fn a_log_cut_anywhere_is_doubtful() {
    run(async {
        let built = build(true).await;
        let (whole, end) = (disk_len(&built), written(&built));
        for len in (0..end + 70).chain([whole - 1]) {
            let disk = copy(&built);
            assert!(disk.truncate(&segment(1), len));
            let what = format!("cut at {len} of {end}");
            let wal = opened(&disk, &what)
                .await
                .expect("the salt's copy is whole");
            for group in [G1, G2] {
                assert!(wal.state(group).doubtful_tail, "{what}");
            }
            check(&wal, &what).await;
        }
    });
}

fn disk_len(disk: &SimDisk) -> u64 {
    disk.contents(&segment(1)).unwrap().len() as u64
}

#[test]
fn a_flipped_bit_in_an_older_segment_loses_nothing_else() {
    run(async {
        let built = build(true).await;
        let (wal, _) = open(&built).await;
        append(&wal, G3, vec![entry(G3, 1, 1)]).await.unwrap();
        let built = built.kill();
        for offset in (0..written(&built)).step_by(7) {
            let disk = copy(&built);
            disk.flip_bit(&segment(1), offset, 3);
            let what = format!("bit flipped in byte {offset} of an old segment");
            let wal = opened(&disk, &what).await.unwrap();
            assert!(
                [G1, G2, G3].iter().all(|g| !wal.state(*g).doubtful_tail),
                "{what}"
            );
            assert!(wal.damaged().len() <= 1, "{what}: {:?}", wal.damaged());
            check(&wal, &what).await;
            repair(&wal).await;
            let (wal, _) = open(&disk.kill()).await;
            for group in [G1, G2] {
                assert_eq!(all(&wal, group).await.unwrap(), expected(group), "{what}");
            }
            assert_eq!(all(&wal, G3).await.unwrap(), [entry(G3, 1, 1)], "{what}");
        }
    });
}

#[test]
fn a_whole_lost_sector_is_noticed() {
    run(async {
        let built = build(true).await;
        for sector in 0..written(&built) / 512 {
            let disk = copy(&built);
            for offset in sector * 512..(sector + 1) * 512 {
                for bit in 0..8 {
                    if bit == 2 || offset % 3 == bit {
                        disk.flip_bit(&segment(1), offset, bit as u8);
                    }
                }
            }
            check_twice(disk, &format!("sector {sector}")).await;
        }
    });
}

fn salt() -> PathBuf {
    PathBuf::from(format!("{DIR}/salt"))
}

/// Both headers of a segment get a flipped bit.
fn lose_headers(disk: &SimDisk, number: u64) {
    for header in [0, 512] {
        assert!(disk.flip_bit(&segment(number), header + 30, 2));
    }
}

#[test]
fn a_log_that_lost_all_headers_is_read_with_the_copy_of_its_salt() {
    run(async {
        let built = build(true).await;
        let disk = copy(&built);
        lose_headers(&disk, 1);
        assert!(check_twice(disk, "no header").await);
        let disk = copy(&built);
        lose_headers(&disk, 1);
        let wal = opened(&disk, "no header").await.unwrap();
        // How long the file should be is not known.
        assert!([G1, G2].iter().all(|g| wal.state(*g).doubtful_tail));
        assert_eq!(wal.damaged(), []);
        for group in [G1, G2] {
            assert_eq!(all(&wal, group).await.unwrap(), expected(group));
        }
    });
}

#[test]
fn a_damaged_copy_of_the_salt_is_made_again() {
    run(async {
        let built = build(true).await;
        let whole = built.contents(&salt()).unwrap();
        for byte in 0..whole.len() as u64 {
            let disk = copy(&built);
            disk.flip_bit(&salt(), byte, 5);
            let wal = opened(&disk, "damaged salt").await.unwrap();
            check(&wal, "damaged salt").await;
            assert_eq!(disk.kill().contents(&salt()).unwrap(), whole);
        }
        let disk = copy(&built);
        disk.flip_bit(&salt(), 9, 5);
        lose_headers(&disk, 1);
        refused(&disk, "the headers of all 1 segments").await;
    });
}

async fn refused(disk: &SimDisk, what: &str) {
    let Err(error) = try_open(disk).await else {
        panic!("opened, not: {what}");
    };
    assert!(error.message.contains(what), "{error}");
}

#[test]
fn a_log_whose_segments_are_gone_is_refused() {
    run(async {
        let disk = copy(&build(true).await);
        let (env, _) = sim::env_on(5, disk.clone());
        env.disk.remove(&segment(1)).await.unwrap();
        refused(&disk, "all segments of the log are missing").await;
        env.disk.remove(&salt()).await.unwrap();
        assert!(opened(&disk, "nothing is left").await.is_some());
    });
}

#[test]
fn parts_of_another_log_are_refused() {
    run(async {
        let built = build(true).await;
        let other = SimDisk::new(6);
        let (env, _) = sim::env_on(2, other.clone());
        let log = Wal::open_with(env, Path::new(DIR), super::options());
        drop(log.await.unwrap());
        for (path, what) in [
            (salt(), "the salt is another log's"),
            (segment(2), "this segment is another log's"),
        ] {
            let disk = copy(&built);
            let (env, _) = sim::env_on(5, disk.clone());
            if disk.contents(&path).is_some() {
                env.disk.remove(&path).await.unwrap();
            }
            let file = env.disk.open(&path, OpenMode::CreateNew).await.unwrap();
            let from = if path == salt() { salt() } else { segment(1) };
            let mut bytes = other.contents(&from).unwrap().to_vec();
            if path == segment(2) {
                // As the second of its log would be.
                let header = SegmentHeader::decode(&bytes).unwrap().unwrap();
                let second = SegmentHeader {
                    number: 2,
                    ..header
                };
                bytes.splice(..1_024, second.encode());
            }
            file.write_sync(0, vec![bytes.into()]).await.unwrap();
            refused(&disk, what).await;
        }
    });
}

#[test]
fn an_entry_that_rots_while_the_log_is_open_is_not_returned() {
    run(async {
        let disk = SimDisk::new(5);
        let (wal, _) = open(&disk).await;
        append(&wal, G1, (1..=9).map(|i| long(G1, 1, i, 500)).collect())
            .await
            .unwrap();
        let bytes = disk.contents(&segment(1)).unwrap();
        let at = bytes.windows(6).position(|w| w == b"1/1/3/").unwrap() as u64;
        disk.flip_bit(&segment(1), at + 100, 0);
        let read = wal
            .read(G1, LogIndex(1), LogIndex(9), 1 << 20)
            .await
            .unwrap();
        assert_eq!(read.len(), 2);
        let error = wal
            .read(G1, LogIndex(3), LogIndex(9), 1 << 20)
            .await
            .unwrap_err();
        assert_eq!(error.code, crate::error::Code::Corrupt);
        assert_eq!(wal.damaged().len(), 1);
        assert_eq!(wal.position(G1, LogIndex(3)), Some(super::at(1, 3)));
        // Its header is whole, and says what the payload was.
        let other = LogEntry {
            payload: Bytes::from(vec![7; 500]),
            ..long(G1, 1, 3, 500)
        };
        let error = wal.repair(G1, other).await.unwrap_err();
        assert_eq!(error.code, crate::error::Code::Conflict);
        wal.repair(G1, long(G1, 1, 3, 500)).await.unwrap();
        assert_eq!(all(&wal, G1).await.unwrap().len(), 9);
    });
}

#[test]
fn two_segments_with_swapped_names_are_refused() {
    run(async {
        let disk = build(true).await;
        drop(open(&disk).await);
        let (env, _) = crate::env::sim::env_on(1, disk.kill());
        env.disk.rename(&segment(1), &segment(7)).await.unwrap();
        let outcome = Wal::open_with(env, std::path::Path::new(DIR), super::options()).await;
        assert!(outcome.err().unwrap().message.contains("renamed"));
    });
}
