//! What must hold after each trouble, and in the end through every node.

use crate::client::{Common, FOUGHT_FOR, Known, content, hash, listed};
use crate::support::cluster::Cluster;
use crate::support::until;
use crate::trouble::Trouble;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// A new client is served through every node; how long that took.
#[allow(clippy::disallowed_methods)] // the run's own clock
pub fn serves_again(cluster: &Cluster, within: Duration, after: &Trouble) -> Duration {
    let healed = Instant::now();
    for place in 0..cluster.members.len() {
        until(
            within,
            &format!("node {place} serves after {after:?}"),
            || {
                let ran = cluster.dfs_at(place, &["--timeout", "1s", "ls", "/"]);
                ran.status == 0
            },
        );
    }
    healed.elapsed()
}

/// No node ended by itself.
pub fn all_run(cluster: &mut Cluster) {
    for place in 0..cluster.members.len() {
        if let Some(status) = cluster.ended_by_itself(place) {
            panic!(
                "node {place} ended by itself: {status:?}\n{}",
                cluster.log(place)
            );
        }
    }
}

/// Nobody panicked.
pub fn logs(cluster: &Cluster) {
    for place in 0..cluster.members.len() {
        let log = cluster.log(place);
        assert!(!log.contains("panicked"), "node {place}: {log}");
    }
}

/// A client's own directory, through every node: names, versions, bytes.
pub fn directory(cluster: &Cluster, number: usize, files: &BTreeMap<String, Known>) {
    let wanted: BTreeMap<String, (u64, String)> = (files.iter())
        .map(|(name, known)| (name.clone(), (known.version, hash(known.seed))))
        .collect();
    for place in 0..cluster.members.len() {
        let path = format!("/c{number}");
        let listing: Value = cluster.dfs_at(place, &["--json", "ls", &path]).json();
        assert_eq!(listed(&listing), wanted, "client {number}, node {place}");
        let back = cluster.path("back");
        let _ = std::fs::remove_dir_all(&back);
        let got = cluster.dfs_at(place, &["get", "-q", "-r", &path, "back"]);
        got.ok();
        for (name, known) in files {
            let bytes = std::fs::read(back.join(name)).unwrap();
            assert!(
                bytes == known.content(),
                "client {number}, node {place}: {name} is not {known:?}"
            );
        }
    }
}

/// Each version of a file that was fought for has the content of the one client who won it, and
/// there are no others.
pub fn fought_for(cluster: &Cluster, common: &Common) {
    let winners = common.winners.lock().unwrap();
    // Empty ones are all alike.
    let losers: BTreeSet<String> = (common.losers.lock().unwrap().iter())
        .filter(|seed| !content(**seed).is_empty())
        .map(|seed| hash(*seed))
        .collect();
    for file in 0..FOUGHT_FOR {
        let path = format!("/fought{file}");
        let won: BTreeMap<u64, u64> = (winners.iter())
            .filter(|((of, _), _)| *of == file)
            .map(|((_, version), seed)| (*version, *seed))
            .collect();
        let Some((newest, seed)) = won.last_key_value() else {
            continue;
        };
        let numbers: Vec<u64> = won.keys().copied().collect();
        assert_eq!(numbers, (1..=*newest).collect::<Vec<_>>(), "{path}");
        for place in 0..cluster.members.len() {
            let stat = cluster.dfs_at(place, &["--json", "stat", &path]).json();
            assert_eq!(stat["version"], *newest, "{path} through node {place}");
            let ran = cluster.dfs_at(place, &["get", "-q", "-f", &path, "back-fought"]);
            ran.ok();
            let bytes = std::fs::read(cluster.path("back-fought")).unwrap();
            assert!(bytes == content(*seed), "{path} through node {place}");
        }
        let versions = cluster.dfs(&["--json", "versions", &path]).json();
        let versions = versions["versions"].as_array().unwrap().clone();
        assert_eq!(versions.len(), won.len(), "{path}");
        for version in versions {
            let number = version["version"].as_u64().unwrap();
            let found = version["hash"].as_str().expect("a version has a hash");
            assert_eq!(found, hash(won[&number]), "{path} version {number}");
            assert!(!losers.contains(found), "{path}: a refused write is there");
        }
        println!("torture: {path}: {newest} versions, each won once");
    }
}
