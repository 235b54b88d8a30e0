//! Segments: switching, freeing, recycling, rewriting; the cache; the queue.

use super::{DIR, G1, G2, all, append, at, entry, long, open, options, run};
use crate::env::sim::{self, Fault, FaultError, OpKind, SimDisk};
use crate::store::wal::{LogEntry, Wal};
use crate::types::{GroupId, LogIndex};
use bytes::Bytes;
use std::path::Path;
use std::time::Duration;

#[test]
fn a_seeded_group_begins_behind_its_purged_position() {
    run(async {
        let disk = SimDisk::new(1);
        let (wal, _) = open(&disk).await;
        assert!(wal.groups().is_empty());
        wal.purge(G1, at(0, 1)).await.unwrap();
        assert_eq!(wal.synced(G1), LogIndex(1));
        wal.wait_synced(G1, LogIndex(1)).await;
        assert!(
            wal.append(G1, vec![entry(G1, 1, 3)], Box::new(|_| {}))
                .is_err()
        );
        append(&wal, G1, vec![entry(G1, 1, 2)]).await.unwrap();
        wal.save_committed(G1, Bytes::from_static(b"c"));
        wal.close().await;
        assert!(
            wal.append(G1, vec![entry(G1, 1, 3)], Box::new(|_| {}))
                .is_err()
        );
        let (wal, _) = open(&disk.kill()).await;
        let state = wal.state(G1);
        assert_eq!((state.purged, state.last), (Some(at(0, 1)), Some(at(1, 2))));
        assert_eq!(state.committed.as_deref(), Some(&b"c"[..]));
        assert!(!state.doubtful_tail && wal.damaged().is_empty());
        assert_eq!(all(&wal, G1).await.unwrap(), [entry(G1, 1, 2)]);
        assert!(wal.read(G1, LogIndex(1), LogIndex(2), 9).await.is_err());
        assert!(
            wal.read(G1, LogIndex(3), LogIndex(9), 9)
                .await
                .unwrap()
                .is_empty()
        );
    });
}

/// However little room the segment has left: for both, for one, for none.
#[test]
fn a_log_that_is_closed_keeps_what_is_committed() {
    for blocks in 0..128 {
        run(async {
            let disk = SimDisk::new(1);
            let (wal, _) = open(&disk).await;
            append(&wal, G1, vec![long(G1, 1, 1, 64 * blocks)])
                .await
                .unwrap();
            wal.save_committed(G1, Bytes::from_static(b"one"));
            wal.save_committed(G2, Bytes::from_static(b"two"));
            wal.close().await;
            let (wal, _) = open(&disk.kill()).await;
            for (group, committed) in [(G1, "one"), (G2, "two")] {
                let found = wal.state(group).committed;
                assert_eq!(found.as_deref(), Some(committed.as_bytes()), "{blocks}");
            }
        });
    }
}

#[test]
fn a_log_whose_state_was_replaced_goes_on_far_behind_its_end() {
    run(async {
        let disk = SimDisk::new(1);
        let (wal, _) = open(&disk).await;
        let entries: Vec<LogEntry> = (1..=5).map(|i| entry(G1, 3, i)).collect();
        append(&wal, G1, entries).await.unwrap();
        // An image of an older term than the entries that nobody committed.
        wal.purge(G1, at(2, 90)).await.unwrap();
        wal.wait_synced(G1, LogIndex(90)).await;
        append(&wal, G1, vec![entry(G1, 4, 91)]).await.unwrap();
        wal.close().await;
        let (wal, _) = open(&disk.kill()).await;
        let state = wal.state(G1);
        assert_eq!(
            (state.purged, state.last),
            (Some(at(2, 90)), Some(at(4, 91)))
        );
        assert_eq!(all(&wal, G1).await.unwrap(), [entry(G1, 4, 91)]);
        assert!(!state.doubtful_tail && wal.damaged().is_empty());
    });
}

#[test]
fn entries_are_readable_before_they_are_synced_and_called_back_after() {
    run(async {
        let disk = SimDisk::new(1);
        let (wal, handles) = open(&disk).await;
        handles
            .disk
            .set_sync_latency(std::time::Duration::from_millis(100));
        let (send, mut receive) = tokio::sync::oneshot::channel();
        let entries: Vec<LogEntry> = (1..=5).map(|i| long(G1, 1, i, 2_000)).collect();
        wal.append(
            G1,
            entries.clone(),
            Box::new(|done| send.send(done.is_ok()).unwrap()),
        )
        .unwrap();
        assert_eq!(all(&wal, G1).await.unwrap(), entries);
        assert_eq!(wal.synced(G1), LogIndex(0));
        assert!(receive.try_recv().is_err());
        wal.wait_synced(G1, LogIndex(5)).await;
        assert!(receive.await.unwrap());
        assert!(wal.shared.state.lock().cached_bytes() <= options().cache_bytes);
        assert_eq!(all(&wal, G1).await.unwrap(), entries);
    });
}

#[test]
fn one_sync_covers_what_all_groups_queued() {
    run(async {
        let disk = SimDisk::new(1);
        let (wal, handles) = open(&disk).await;
        handles
            .disk
            .set_sync_latency(std::time::Duration::from_millis(10));
        append(&wal, G1, vec![entry(G1, 1, 1)]).await.unwrap();
        let before = disk.count(OpKind::Sync);
        let group = |i: u64| GroupId(10 + i);
        for i in 0..16 {
            wal.append(group(i), vec![entry(group(i), 1, 1)], Box::new(|_| {}))
                .unwrap();
        }
        for i in 0..16 {
            wal.wait_synced(group(i), LogIndex(1)).await;
        }
        assert!(disk.count(OpKind::Sync) - before <= 3);
    });
}

#[test]
fn an_entry_longer_than_a_segment_gets_a_longer_one() {
    run(async {
        let disk = SimDisk::new(1);
        let (wal, _) = open(&disk).await;
        let entries = [long(G1, 1, 1, 50_000), entry(G1, 1, 2)];
        append(&wal, G1, entries.to_vec()).await.unwrap();
        wal.close().await;
        let (wal, _) = open(&disk.kill()).await;
        assert_eq!(all(&wal, G1).await.unwrap(), entries);
    });
}

#[test]
fn purged_segments_go_and_their_files_are_used_again() {
    run(async {
        let disk = SimDisk::new(1);
        let (wal, _) = open(&disk).await;
        wal.save_vote(G2, Bytes::from_static(b"vote"))
            .await
            .unwrap();
        for i in 1..=200 {
            append(&wal, G1, vec![long(G1, 1, i, 500)]).await.unwrap();
            if i % 20 == 0 {
                wal.purge(G1, at(1, i - 5)).await.unwrap();
            }
        }
        assert!(wal.segments().len() <= 5, "{:?}", wal.segments());
        assert!(wal.segments()[0].number > 10);
        let newest = wal.segments().last().unwrap().number;
        let creates = disk.count(OpKind::Create);
        assert!(
            creates < newest,
            "{creates} files were made for {newest} segments"
        );
        let last: Vec<LogEntry> = (196..=200).map(|i| long(G1, 1, i, 500)).collect();
        assert_eq!(all(&wal, G1).await.unwrap(), last);
        wal.close().await;
        let (wal, _) = open(&disk.kill()).await;
        assert_eq!(all(&wal, G1).await.unwrap(), last);
        assert_eq!(wal.state(G2).vote.as_deref(), Some(&b"vote"[..]));
        assert!(wal.damaged().is_empty() && !wal.state(G1).doubtful_tail);
    });
}

#[test]
fn what_lies_before_the_newest_segments_is_told() {
    run(async {
        let disk = SimDisk::new(1);
        let (wal, _) = open(&disk).await;
        append(&wal, G2, vec![entry(G2, 1, 1)]).await.unwrap();
        assert_eq!(wal.last_in_old(G2), None, "there is one segment");
        for i in 1..=200 {
            append(&wal, G1, vec![long(G1, 1, i, 500)]).await.unwrap();
        }
        let (wal, _) = open(&disk.kill()).await;
        assert!(wal.segments().len() > 8, "{:?}", wal.segments());
        assert_eq!(wal.last_in_old(G2), Some(LogIndex(1)));
        let upto = wal.last_in_old(G1).unwrap();
        wal.purge(G2, at(1, 1)).await.unwrap();
        wal.purge(G1, at(1, upto.0 - 1)).await.unwrap();
        assert_eq!(wal.last_in_old(G1), Some(upto));
        wal.purge(G1, at(1, upto.0)).await.unwrap();
        assert_eq!(wal.last_in_old(G1), None);
        assert_eq!(wal.segments().len(), 4);
        let kept = usize::try_from(200 - upto.0).unwrap();
        assert_eq!(all(&wal, G1).await.unwrap().len(), kept);
        assert!(kept > 20, "{kept}");
    });
}

#[test]
fn a_segment_that_few_records_hold_is_freed_by_writing_them_again() {
    run(async {
        let disk = SimDisk::new(1);
        let (wal, _) = open(&disk).await;
        append(&wal, G2, (1..=3).map(|i| entry(G2, 1, i)).collect())
            .await
            .unwrap();
        for i in 1..=200 {
            append(&wal, G1, vec![long(G1, 1, i, 500)]).await.unwrap();
            wal.purge(G1, at(1, i)).await.unwrap();
        }
        assert!(wal.segments().len() <= 6, "{:?}", wal.segments());
        assert!(wal.segments()[0].number > 10);
        let kept: Vec<LogEntry> = (1..=3).map(|i| entry(G2, 1, i)).collect();
        assert_eq!(all(&wal, G2).await.unwrap(), kept);
        wal.close().await;
        let (wal, _) = open(&disk.kill()).await;
        assert_eq!(all(&wal, G2).await.unwrap(), kept);
        append(&wal, G2, vec![entry(G2, 1, 4)]).await.unwrap();
        assert!(wal.damaged().is_empty());
    });
}

#[test]
fn a_removed_group_is_gone_and_may_come_again() {
    run(async {
        let disk = SimDisk::new(1);
        let (wal, _) = open(&disk).await;
        append(&wal, G1, vec![entry(G1, 1, 1)]).await.unwrap();
        wal.save_vote(G1, Bytes::from_static(b"old")).await.unwrap();
        wal.remove_group(G1).await.unwrap();
        wal.purge(G2, at(0, 1)).await.unwrap();
        let disk = disk.kill();
        let (wal, _) = open(&disk).await;
        assert_eq!(wal.groups(), [G2]);
        wal.purge(G1, at(0, 1)).await.unwrap();
        append(&wal, G1, vec![entry(G1, 9, 2)]).await.unwrap();
        let (wal, _) = open(&disk.kill()).await;
        assert_eq!(wal.state(G1).vote, None);
        assert_eq!(all(&wal, G1).await.unwrap(), [entry(G1, 9, 2)]);
    });
}

#[test]
fn a_failed_sync_ends_the_log_and_nobody_is_told_it_worked() {
    run(async {
        let disk = SimDisk::new(1);
        let (env, handles) = sim::env_on(1, disk.clone());
        let fatal = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = fatal.clone();
        let mut options = options();
        options.on_fatal = std::sync::Arc::new(move |_, _| {
            count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        });
        let wal = Wal::open_with(env, Path::new(DIR), options).await.unwrap();
        append(&wal, G1, vec![entry(G1, 1, 1)]).await.unwrap();
        // The spare of this start is ready by now; only segments are written from here on.
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        handles.disk.add_fault(Fault::once(OpKind::Sync, ""));
        assert!(append(&wal, G1, vec![entry(G1, 1, 2)]).await.is_err());
        assert!(wal.save_vote(G1, Bytes::from_static(b"v")).await.is_err());
        assert_eq!(wal.synced(G1), LogIndex(1));
        assert_eq!(fatal.load(std::sync::atomic::Ordering::SeqCst), 1);
        wal.ready().await;
        wal.close().await;
    });
}

/// No room for a new segment: nothing is acknowledged and nothing lost, until there is room.
#[test]
fn a_full_disk_holds_the_log_up_until_there_is_room() {
    for op in [OpKind::Create, OpKind::Zero, OpKind::Rename] {
        run(async {
            let disk = SimDisk::new(1);
            let (wal, handles) = open(&disk).await;
            append(&wal, G1, vec![entry(G1, 1, 1)]).await.unwrap();
            let fault = Fault {
                times: u64::MAX,
                error: FaultError::NoSpace,
                ..Fault::once(op, "spare-")
            };
            handles.disk.add_fault(fault);
            let mut index = 2;
            while !wal.is_full() {
                let entry = vec![long(G1, 1, index, 1_000)];
                let full = async {
                    while !wal.is_full() {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                };
                tokio::select! {
                    biased;
                    done = append(&wal, G1, entry) => done.unwrap(),
                    () = full => {}
                }
                index += 1;
                assert!(index < 1_000, "{op:?}: the disk is never full");
            }
            let synced = wal.synced(G1);
            tokio::time::sleep(Duration::from_secs(60)).await;
            assert_eq!(wal.synced(G1), synced, "{op:?}");
            assert_eq!(
                spares(&handles.disk),
                0,
                "{op:?}: space is kept for nothing"
            );
            handles.disk.clear_faults();
            append(&wal, G1, vec![entry(G1, 1, index)]).await.unwrap();
            assert!(!wal.is_full(), "{op:?}");
            let (wal, _) = open(&disk.kill()).await;
            assert_eq!(all(&wal, G1).await.unwrap().len() as u64, index, "{op:?}");
        });
    }
}

#[test]
fn a_log_that_waits_for_room_can_be_closed() {
    run(async {
        let disk = SimDisk::new(1);
        let (env, handles) = sim::env_on(1, disk.clone());
        let mut options = options();
        options.on_fatal = std::sync::Arc::new(|what, error| panic!("{what}: {error}"));
        let wal = Wal::open_with(env, Path::new(DIR), options).await.unwrap();
        handles.disk.add_fault(Fault {
            times: u64::MAX,
            error: FaultError::NoSpace,
            ..Fault::once(OpKind::Zero, "spare-")
        });
        let mut index = 1;
        while !wal.is_full() {
            // Of those that wait nobody is told that they were written.
            let entry = vec![long(G1, 1, index, 1_000)];
            wal.append(G1, entry, Box::new(|_| {})).unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
            index += 1;
        }
        let synced = wal.synced(G1);
        wal.close().await;
        assert_eq!(wal.synced(G1), synced);
        assert_eq!(handles.spawn.panics(), Vec::<String>::new());
        let (wal, _) = open(&disk.kill()).await;
        assert_eq!(all(&wal, G1).await.unwrap().len() as u64, synced.0);
    });
}

fn spares(disk: &SimDisk) -> usize {
    let files = disk.files().into_iter();
    files
        .filter(|(path, _)| path.to_string_lossy().contains("spare-"))
        .count()
}

#[test]
fn a_full_queue_refuses_and_ready_waits_for_room() {
    run(async {
        let disk = SimDisk::new(1);
        let (env, handles) = sim::env_on(1, disk.clone());
        let mut options = options();
        options.queue_bytes = 10_000;
        let wal = Wal::open_with(env, Path::new(DIR), options).await.unwrap();
        handles
            .disk
            .set_sync_latency(std::time::Duration::from_millis(100));
        let mut index = 1;
        while wal
            .append(G1, vec![long(G1, 1, index, 1_000)], Box::new(|_| {}))
            .is_ok()
        {
            index += 1;
            assert!(index < 20);
        }
        wal.ready().await;
        append(&wal, G1, vec![long(G1, 1, index, 1_000)])
            .await
            .unwrap();
        assert_eq!(all(&wal, G1).await.unwrap().len() as u64, index);
    });
}

#[test]
fn reads_are_cut_at_the_bytes_asked_for_but_give_one() {
    run(async {
        let (wal, _) = open(&SimDisk::new(1)).await;
        let entries: Vec<LogEntry> = (1..=20).map(|i| long(G1, 1, i, 300)).collect();
        append(&wal, G1, entries.clone()).await.unwrap();
        let read = |bytes| wal.read(G1, LogIndex(2), LogIndex(20), bytes);
        assert_eq!(read(1).await.unwrap(), entries[1..2]);
        assert_eq!(read(900).await.unwrap(), entries[1..4]);
        assert_eq!(read(90_000).await.unwrap(), entries[1..19]);
    });
}

/// A start begins a segment before it is known whether the node will serve.
#[test]
fn starts_after_which_nothing_is_written_leave_one_segment() {
    run(async {
        let disk = SimDisk::new(1);
        let (wal, _) = open(&disk).await;
        append(&wal, G1, vec![entry(G1, 1, 1)]).await.unwrap();
        wal.save_vote(G2, Bytes::from_static(b"vote"))
            .await
            .unwrap();
        wal.close().await;
        let mut disk = disk.kill();
        for start in 0..6 {
            let (wal, _) = open(&disk).await;
            let numbers: Vec<u64> = wal.segments().iter().map(|s| s.number).collect();
            assert_eq!(numbers, [1, 2], "start {start}");
            assert_eq!(all(&wal, G1).await.unwrap(), [entry(G1, 1, 1)]);
            assert_eq!(wal.state(G2).vote.as_deref(), Some(&b"vote"[..]));
            assert!(wal.damaged().is_empty() && !wal.state(G1).doubtful_tail);
            if start % 2 == 0 {
                wal.close().await;
            }
            disk = disk.kill();
        }
        let (wal, _) = open(&disk).await;
        append(&wal, G1, vec![entry(G1, 1, 2)]).await.unwrap();
        wal.close().await;
        let (wal, _) = open(&disk.kill()).await;
        assert_eq!(wal.segments().len(), 3, "what holds something stays");
        let both = [entry(G1, 1, 1), entry(G1, 1, 2)];
        assert_eq!(all(&wal, G1).await.unwrap(), both);
    });
}
