//! Clusters whose metadata records are damaged while they run: on the leader alone, different ones on
//! every node, and lost ones. Clients are answered rightly all the while, and all is whole again.

use super::cluster::{Cluster, DIR};
use super::damaged_logs::{
    FILES, NEVER, NODES, all_open, ask, read, read_and_check, replicas, start, text,
};
use crate::env::base::{BaseOp, MetaBase, ModelBase};
use crate::proto::AdminCall;
use std::path::Path;
use std::time::Duration;

/// A replica looks after damage that a read met, or an image replaces it.
const HEALED_MAX: Duration = Duration::from_secs(60);
const FOLD_AFTER: Duration = Duration::from_millis(100);

fn base(cluster: &mut Cluster, node: usize) -> ModelBase {
    ModelBase::open(&cluster.node(node).disk, &Path::new(DIR).join("meta"))
}

/// The keys under which a file's text stands, each with where in the value.
fn places(base: &ModelBase, file: usize) -> Vec<(Vec<u8>, usize)> {
    let (text, mut found) = (text(file), Vec::new());
    let mut visit = |key: &[u8], value: &[u8]| {
        let mut windows = value.windows(text.len());
        let at = windows.position(|window| window == text.as_bytes());
        found.extend(at.map(|at| (key.to_vec(), at)));
        true
    };
    let view = base.begin_read().unwrap();
    view.scan(&[], None, &mut visit).unwrap();
    assert!(!found.is_empty(), "file {file} is not in the base");
    found
}

fn damage(cluster: &mut Cluster, node: usize, file: usize) {
    let base = base(cluster, node);
    for (key, at) in places(&base, file) {
        assert!(base.flip_bit(&key, at, 3));
    }
}

/// All files are in the bases of all nodes.
fn folded(seed: u64) -> Cluster {
    let (mut cluster, _) = super::damaged_logs::killed(seed, FOLD_AFTER);
    start(&mut cluster);
    assert!(cluster.run_until(HEALED_MAX, all_open), "the second start");
    cluster
}

/// Waits until no node's base holds a record that is damaged: of all that were there.
fn is_whole(cluster: &mut Cluster, file: usize) -> bool {
    (0..NODES).all(|node| {
        let base = base(cluster, node);
        let view = base.begin_read().unwrap();
        let (text, mut found) = (text(file), false);
        let mut visit = |_: &[u8], value: &[u8]| {
            found = value.windows(text.len()).any(|at| at == text.as_bytes());
            !found
        };
        view.scan(&[], None, &mut visit).unwrap();
        found
    })
}

fn rest(cluster: &mut Cluster, time: Duration) {
    let end = cluster.world.now() + time;
    cluster.run_until(NEVER, |cluster| cluster.world.now() >= end);
}

#[test]
fn records_damaged_on_every_node_are_taken_from_each_other() {
    for seed in 0..2 {
        let mut cluster = folded(seed);
        let before = replicas(&cluster);
        for node in 0..NODES {
            for file in [3 * node, 3 * node + 1] {
                damage(&mut cluster, node, file);
            }
        }
        // Every node that leads finds its own, and gives the lead away.
        for _ in 0..NODES {
            ask(&mut cluster, |connector| read(connector, 0..FILES));
        }
        assert_eq!(replicas(&cluster), before, "none was made anew");
        ask(&mut cluster, |connector| async move {
            let client = connector.connect().await;
            let call = AdminCall::Scrub { now: true };
            client.admin(call).await.unwrap();
        });
        rest(&mut cluster, Duration::from_secs(5));
        let whole = (0..FILES).all(|file| is_whole(&mut cluster, file));
        assert!(whole, "all records are right again");
        ask(&mut cluster, |connector| {
            read_and_check(connector, 0..FILES)
        });
        assert_eq!(replicas(&cluster), before, "none was made anew");
    }
}

/// Applying what the log holds meets the damage before anything runs that could mend it.
#[test]
fn a_node_that_starts_with_damaged_records_serves_and_its_replicas_are_made_anew() {
    let (mut cluster, before) = super::damaged_logs::killed(8, NEVER);
    let rotten = base(&mut cluster, 1);
    let mut keys = Vec::new();
    let view = rotten.begin_read().unwrap();
    let mut visit = |key: &[u8], _: &[u8]| {
        // The node's own records say which replicas there are.
        keys.extend((key[..4] != [0; 4]).then(|| key.to_vec()));
        true
    };
    view.scan(&[], None, &mut visit).unwrap();
    drop(view);
    assert!(keys.len() > 2, "the seeds of two groups");
    assert!(keys.iter().all(|key| rotten.flip_bit(key, 0, 1)));
    start(&mut cluster);
    let healed = |cluster: &Cluster| all_open(cluster) && replicas(cluster) != before;
    let is_healed = cluster.run_until(HEALED_MAX, healed);
    let held: Vec<_> = (0..NODES).map(|node| cluster.replicas(node)).collect();
    assert!(
        is_healed,
        "{held:?}, refused: {:?}",
        cluster.take_refusals()
    );
    // Until everybody has heard of it.
    rest(&mut cluster, Duration::from_secs(5));
    ask(&mut cluster, |connector| {
        read_and_check(connector, 0..FILES)
    });
}

#[test]
fn a_replica_that_lost_records_is_made_anew() {
    let mut cluster = folded(7);
    let before = replicas(&cluster);
    let lossy = base(&mut cluster, 1);
    let lost = places(&lossy, 4).into_iter();
    let lost = lost.map(|(key, _)| BaseOp::Delete(key.into()));
    lossy.commit(lost.collect()).unwrap();
    ask(&mut cluster, |connector| async move {
        let client = connector.connect().await;
        let call = AdminCall::Scrub { now: true };
        client.admin(call).await.unwrap();
    });
    let healed = |cluster: &Cluster| all_open(cluster) && replicas(cluster) != before;
    assert!(
        cluster.run_until(HEALED_MAX, healed),
        "another replica is there"
    );
    rest(&mut cluster, Duration::from_secs(5));
    assert!(is_whole(&mut cluster, 4), "and has everything");
    ask(&mut cluster, |connector| {
        read_and_check(connector, 0..FILES)
    });
}
