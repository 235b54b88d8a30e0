//! Clusters whose logs are damaged while nobody runs: different entries on every node, the end of one,
//! the same entry on all. Nothing is lost, and no replica is made anew where it can be mended.

use super::cluster::{Cluster, Connector, Shape};
use super::machine::Death;
use crate::client::{GetOptions, NoProgress, PutOptions};
use crate::types::{DfsPath, GroupId, ReplicaId};
use bytes::Bytes;
use parking_lot::Mutex;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub(super) const NODES: usize = 3;
const START_MAX: Duration = Duration::from_secs(20);
/// Mending needs all nodes, each of which starts, and an election.
const MENDED_MAX: Duration = Duration::from_secs(20);
const ANSWER_MAX: Duration = Duration::from_secs(15);
pub(super) const FILES: usize = 12;

/// Longer than any test: what is acknowledged is in the logs alone.
pub(super) const NEVER: Duration = Duration::from_secs(3_600);

pub(super) type Replicas = Vec<Vec<(GroupId, ReplicaId)>>;

fn path(file: usize) -> DfsPath {
    DfsPath::parse(&format!("/file{file}")).unwrap()
}

/// Text that stands once in a log.
pub(super) fn text(file: usize) -> String {
    format!("the needle of file number {file:04} in this haystack")
}

/// All nodes serve, and all replicas run.
pub(super) fn all_open(cluster: &Cluster) -> bool {
    (0..NODES).all(|node| {
        let replicas = cluster.replicas(node);
        replicas.is_some_and(|(running, held)| running.len() == 2 && held.is_empty())
    })
}

pub(super) fn replicas(cluster: &Cluster) -> Replicas {
    let of = |node| cluster.replicas(node).map(|(running, _)| running);
    (0..NODES).filter_map(of).collect()
}

/// Runs a client's work to its end.
pub(super) fn ask<F>(cluster: &mut Cluster, work: impl FnOnce(Connector) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let done = Arc::new(Mutex::new(false));
    let told = done.clone();
    cluster.start_client(0, ANSWER_MAX, |connector| {
        let work = work(connector);
        async move {
            work.await;
            *told.lock() = true;
        }
    });
    let ended = cluster.run_until(ANSWER_MAX * 3, |_| *done.lock());
    cluster.end_client(0);
    assert_eq!(cluster.take_panics(), Vec::<String>::new());
    assert!(ended, "the client does not come to its end");
}

pub(super) async fn put(connector: Connector, files: std::ops::Range<usize>) {
    let client = connector.connect().await;
    for file in files {
        let (path, options) = (path(file), PutOptions::default());
        let content = Bytes::from(text(file));
        client.put_bytes(content, &path, &options).await.unwrap();
    }
}

pub(super) async fn read(connector: Connector, files: std::ops::Range<usize>) {
    let client = connector.connect().await;
    for file in files {
        let (path, mut bytes) = (path(file), Vec::new());
        let options = GetOptions::default();
        let reading = client.cat(&path, &mut bytes, &options, &NoProgress);
        reading.await.unwrap();
        assert_eq!(String::from_utf8(bytes).unwrap(), text(file));
    }
}

/// The same, and the check of everything finds nothing.
pub(super) async fn read_and_check(connector: Connector, files: std::ops::Range<usize>) {
    read(connector.clone(), files).await;
    let client = connector.connect().await;
    let report = client.fsck(&DfsPath::root(), true).await.unwrap();
    // One node is down in turn.
    let unseen = |problem: &String| problem.contains("checked (cannot reach");
    let found: Vec<String> = report.problems.into_iter().filter(|p| !unseen(p)).collect();
    assert_eq!(found, Vec::<String>::new());
}

/// A cluster of three replicas that has acknowledged all files, and whose nodes have all been
/// killed a while later.
pub(super) fn killed(seed: u64, fold_after: Duration) -> (Cluster, Replicas) {
    let mut cluster = Cluster::new(&Shape {
        seed,
        nodes: NODES,
        spares: 0,
        clients: 1,
        segment_bytes: 256 << 10,
        fold_after,
        latency: Duration::from_millis(1),
        sync_latency: Duration::from_millis(1),
        grace_ms: 3_600_000,
        upload_ttl_ms: 3_600_000,
    });
    (0..NODES).for_each(|node| cluster.start_node(node));
    assert!(cluster.run_until(START_MAX, all_open), "the first start");
    ask(&mut cluster, |connector| put(connector, 0..FILES));
    // Everybody has everything, and the log has said that it is synced.
    let end = cluster.world.now() + Duration::from_secs(3);
    cluster.run_until(NEVER, |cluster| cluster.world.now() >= end);
    let before = replicas(&cluster);
    (0..NODES).for_each(|node| cluster.end_node(node, Death::Killed, None));
    (cluster, before)
}

/// Where a file's text stands in the log of a node.
fn place(cluster: &mut Cluster, node: usize, file: usize) -> (PathBuf, u64) {
    let disk = &cluster.node(node).disk;
    for (path, _) in disk.files() {
        if path.extension().is_none_or(|extension| extension != "wal") {
            continue;
        }
        let (bytes, text) = (disk.contents(&path).unwrap(), text(file));
        let mut windows = bytes.windows(text.len());
        if let Some(at) = windows.position(|window| window == text.as_bytes()) {
            return (path, at as u64);
        }
    }
    panic!("file {file} is not in the log of node {node}");
}

fn damage(cluster: &mut Cluster, node: usize, file: usize) {
    let (path, at) = place(cluster, node, file);
    assert!(cluster.node(node).disk.flip_bit(&path, at, 3));
}

pub(super) fn start(cluster: &mut Cluster) {
    (0..NODES).for_each(|node| cluster.start_node(node));
}

/// All replicas open as they were, and everything is there; also after another restart, which finds
/// nothing to mend.
fn is_mended(mut cluster: Cluster, before: &Replicas) {
    start(&mut cluster);
    let open = cluster.run_until(MENDED_MAX, all_open);
    let held: Vec<_> = (0..NODES).map(|node| cluster.replicas(node)).collect();
    assert!(open, "{held:?}, refused: {:?}", cluster.take_refusals());
    assert_eq!(replicas(&cluster), *before, "none was made anew");
    ask(&mut cluster, |connector| {
        read_and_check(connector, 0..FILES)
    });
    ask(&mut cluster, |connector| put(connector, FILES..FILES + 2));
    (0..NODES).for_each(|node| cluster.end_node(node, Death::PowerCut, None));
    // A quorum without one node must have everything, whichever it is.
    for down in 0..NODES {
        let up: Vec<usize> = (0..NODES).filter(|node| *node != down).collect();
        up.iter().for_each(|node| cluster.start_node(*node));
        let serve = |cluster: &Cluster| up.iter().all(|node| cluster.is_serving(*node));
        assert!(cluster.run_until(START_MAX, serve), "without node {down}");
        ask(&mut cluster, |connector| {
            read_and_check(connector, 0..FILES + 2)
        });
        up.iter()
            .for_each(|node| cluster.end_node(*node, Death::PowerCut, None));
    }
    let refused = cluster.take_refusals();
    assert!(refused.is_empty(), "{refused:?}");
}

#[test]
fn different_entries_damaged_on_every_node_are_taken_from_each_other() {
    for seed in 0..3 {
        let (mut cluster, before) = killed(seed, NEVER);
        for node in 0..NODES {
            // Neighbours, and one apart.
            for file in [3 * node, 3 * node + 1, 9 + node] {
                damage(&mut cluster, node, file);
            }
        }
        is_mended(cluster, &before);
    }
}

#[test]
fn a_log_that_lost_its_end_gets_it_back_while_others_are_damaged() {
    for (seed, file) in [(3, 11), (4, 4)] {
        let (mut cluster, before) = killed(seed, NEVER);
        let (path, at) = place(&mut cluster, 1, file);
        assert!(cluster.node(1).disk.truncate(&path, at));
        damage(&mut cluster, 0, 2);
        damage(&mut cluster, 2, 3);
        is_mended(cluster, &before);
    }
}

#[test]
fn an_entry_damaged_on_all_nodes_is_let_go_where_the_state_holds_it() {
    let (mut cluster, before) = killed(5, Duration::from_millis(100));
    (0..NODES).for_each(|node| damage(&mut cluster, node, 5));
    is_mended(cluster, &before);
}

/// Nothing is made up: without that entry no group is what it was.
#[test]
fn an_entry_that_nobody_has_keeps_the_group_closed() {
    let (mut cluster, _) = killed(6, NEVER);
    (0..NODES).for_each(|node| damage(&mut cluster, node, 5));
    start(&mut cluster);
    let open = cluster.run_until(MENDED_MAX * 3, |cluster| {
        (0..NODES).any(|node| {
            let replicas = cluster.replicas(node);
            replicas.is_some_and(|(running, _)| running.len() == 2)
        })
    });
    assert!(!open, "a group opened without an acknowledged entry");
    for node in 0..NODES {
        let (running, held) = cluster.replicas(node).expect("the root group is whole");
        assert_eq!(running.len(), 1, "the root group");
        assert!(held[0].contains("no other node has given them"), "{held:?}");
    }
    assert_eq!(cluster.take_panics(), Vec::<String>::new());
    let refused = cluster.take_refusals();
    assert!(refused.is_empty(), "{refused:?}");
}
