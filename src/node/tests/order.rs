//! The metadata on disk never holds what the log on disk may lose: a fold waits for the log.

use super::{Stores, powered, run};
use crate::env::sim::SimDisk;
use crate::store::overlay::ReplicaMark;
use crate::store::wal::{LogEntry, LogPosition};
use crate::types::{GroupId, LogIndex};
use bytes::Bytes;
use std::time::Duration;

const GROUP: GroupId = GroupId::FIRST;

/// As on a follower: an entry is applied while the local log still writes it.
async fn cut_while_the_log_syncs(seed: u64) -> SimDisk {
    let disk = SimDisk::new(seed);
    let stores = Stores::open(&disk).await.unwrap();
    let (wal, store) = (&stores.core.wal, &stores.core.store);
    let (record, _) = store.replica(GROUP).unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    disk.set_sync_latency(Duration::from_millis(50));
    let index = record.mark.position.index.next();
    let position = LogPosition {
        term: 1,
        leader: 1,
        index,
    };
    let entry = LogEntry {
        position,
        payload: Bytes::from(vec![7; 3_000]),
    };
    wal.append(GROUP, vec![entry], Box::new(|_| {})).unwrap();
    let mark = ReplicaMark {
        position,
        members: record.mark.members,
    };
    let change = (
        Bytes::from_static(b"\xf0key"),
        Some(Bytes::from_static(b"value")),
    );
    let replica = (GROUP, record.replica);
    store.publish(replica, mark, vec![change]).unwrap();
    let cut = async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        disk.power_off();
    };
    let (folded, ()) = tokio::join!(powered(&disk, store.fold(&stores.env, wal)), cut);
    assert!(folded.is_err(), "the log was not synced yet");
    stores.handles.spawn.stop();
    disk
}

#[test]
fn a_fold_never_holds_an_entry_that_the_log_may_lose() {
    let mut lost = 0;
    for seed in 0..10 {
        let disk = run(cut_while_the_log_syncs(seed));
        run(async {
            let stores = Stores::open(&disk.crash()).await.unwrap();
            let folded = stores.core.store.replica(GROUP).unwrap().1.mark.position;
            let last = stores.core.wal.state(GROUP).last.unwrap();
            assert!(
                folded <= last,
                "seed {seed}: {folded:?} is folded, the log ends at {last:?}"
            );
            lost += u64::from(last.index == LogIndex(1));
            stores.handles.spawn.stop();
        });
    }
    assert!(lost > 2, "in {lost} cuts the entry was lost");
}
