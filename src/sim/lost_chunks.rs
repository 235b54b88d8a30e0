//! A cluster that has lost a chunk on all of its nodes grows all the same: what there is moves, and
//! what no longer belongs where it is goes.

use super::cluster::{Cluster, Connector, DIR, Shape};
use super::damaged_logs::{NODES, all_open, ask, start};
use super::machine::Death;
use crate::client::PutOptions;
use crate::env::Disk;
use crate::proto::{AdminAnswer, AdminCall, RepairView};
use crate::types::{ChunkHash, DfsPath};
use bytes::Bytes;
use parking_lot::Mutex;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const FILES: usize = 8;
const START_MAX: Duration = Duration::from_secs(20);
/// A copy stays for a minute after its last use, whether it belongs there or not.
const MOVED_MAX: Duration = Duration::from_secs(200);
const ASKED_EVERY: Duration = Duration::from_secs(1);

/// More than goes into a record or a pack: each file is one chunk in a file of its own.
fn content(file: usize) -> Bytes {
    let mut out = vec![0; 3_500];
    blake3::Hasher::new()
        .update(&file.to_le_bytes())
        .finalize_xof()
        .fill(&mut out);
    out.into()
}

async fn put_all(connector: Connector) {
    let client = connector.connect().await;
    for file in 0..FILES {
        let path = DfsPath::parse(&format!("/file{file}")).unwrap();
        let options = PutOptions::default();
        let put = client.put_bytes(content(file), &path, &options);
        put.await.unwrap();
    }
}

/// A cluster whose nodes have all lost the chunk of the first file.
fn with_a_lost_chunk() -> Cluster {
    let mut cluster = Cluster::new(&Shape {
        seed: 3,
        nodes: NODES,
        spares: 1,
        clients: 1,
        segment_bytes: 256 << 10,
        fold_after: Duration::from_millis(100),
        latency: Duration::from_millis(1),
        sync_latency: Duration::from_millis(1),
        grace_ms: 3_600_000,
        upload_ttl_ms: 3_600_000,
    });
    start(&mut cluster);
    assert!(cluster.run_until(START_MAX, all_open), "the first start");
    ask(&mut cluster, put_all);
    (0..NODES).for_each(|node| cluster.end_node(node, Death::Killed, None));
    let name = ChunkHash::of(&content(0)).to_string();
    let file = Path::new(DIR)
        .join("chunks")
        .join(&name[..2])
        .join(&name[2..]);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    for node in 0..NODES {
        let disk = cluster.node(node).disk.clone();
        runtime.block_on(disk.remove(&file)).unwrap();
    }
    start(&mut cluster);
    assert!(cluster.run_until(START_MAX, all_open), "the second start");
    cluster
}

/// What is to be seen of repairs, and the epochs that are open.
async fn seen(connector: &Connector) -> Option<(Vec<RepairView>, Vec<u64>)> {
    let client = connector.connect().await;
    let AdminAnswer::Repair(views) = client.admin(AdminCall::Repair).await.ok()? else {
        return None;
    };
    let AdminAnswer::Ring(ring) = client.admin(AdminCall::Ring).await.ok()? else {
        return None;
    };
    Some((views.told, ring.epochs))
}

#[test]
fn a_lost_chunk_keeps_neither_an_epoch_open_nor_surplus_copies() {
    let mut cluster = with_a_lost_chunk();
    cluster.set_used(NODES, true);
    cluster.start_node(NODES);
    let newest = Arc::new(Mutex::new(None));
    let told = newest.clone();
    cluster.start_client(0, MOVED_MAX, |connector| async move {
        loop {
            let now = seen(&connector).await;
            *told.lock() = now;
            tokio::time::sleep(ASKED_EVERY).await;
        }
    });
    let moved = cluster.run_until(MOVED_MAX, |_| {
        newest.lock().as_ref().is_some_and(|(views, epochs)| {
            let sum = |of: fn(&RepairView) -> u64| views.iter().map(of).sum::<u64>();
            // Three copies of each file but the first.
            let copied = sum(|view| view.copied);
            let whole = sum(|view| view.wanted - view.missing) == 3 * (FILES as u64 - 1);
            let (lost, surplus) = (sum(|view| view.lost), sum(|view| view.surplus));
            let all = views.len() == NODES + 1 && copied > 0 && whole;
            all && lost == 3 && surplus == 0 && epochs.len() == 1
        })
    });
    assert!(moved, "{:?}", newest.lock());
    assert_eq!(cluster.take_panics(), Vec::<String>::new());
}
