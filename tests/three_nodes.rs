//! Three real nodes: what one of them is told all of them know, and any one of them may die,
//! freeze, or come back.

mod support;

use std::time::Duration;
use support::cluster::{Cluster, HEALTHY_WITHIN};
use support::{bytes, until};

/// A local tree of files of all kinds: empty, inline, packed, chunks of their own, several chunks.
fn make_tree(cluster: &Cluster, name: &str, seed: u64, files: u64) {
    for at in 0..files {
        let len = [0, 1, 900, 16 << 10, (16 << 10) + 1, 70_000, 1_200_000][at as usize % 7];
        let dir = format!("{name}/d{}/e{}", at % 3, at % 2);
        cluster.write(&format!("{dir}/f{at}"), &bytes(seed + at, len));
    }
    cluster.write(&format!("{name}/large"), &bytes(seed, (17 << 20) + 3));
}

/// `fsck` finds nothing and nothing is missing anywhere.
#[track_caller]
fn clean(cluster: &Cluster) {
    cluster.until_health("green", HEALTHY_WITHIN);
    cluster.dfs(&["fsck"]).ok();
}

#[test]
fn what_is_put_through_one_node_is_there_through_each() {
    let cluster = Cluster::start(3);
    for through in 0..3 {
        let (local, remote) = (format!("tree{through}"), format!("/t{through}"));
        make_tree(&cluster, &local, 1_000 * (through as u64 + 1), 14);
        cluster
            .dfs_at(through, &["put", "-q", "-r", &local, &remote])
            .ok();
        for reader in 0..3 {
            cluster.same_tree(reader, &local, &remote);
        }
        cluster.write("now", format!("version {through}").as_bytes());
        cluster
            .dfs_at(through, &["put", "--overwrite", "now", "/now"])
            .ok();
        for reader in 0..3 {
            let now = cluster.dfs_at(reader, &["cat", "/now"]).ok();
            assert_eq!(now, format!("version {through}"), "through {reader}");
            let listing = cluster.dfs_at(reader, &["ls", "/"]).ok();
            assert_eq!(listing.lines().count() as u64, 2 + through as u64);
        }
    }
    // Each node holds each chunk: the three of them are all there are.
    until(HEALTHY_WITHIN, "three copies of each chunk", || {
        let nodes = cluster.status()["nodes"].clone();
        let counts: Vec<_> = (0..3).map(|n| nodes[n]["chunks"].as_u64()).collect();
        counts[0] >= Some(3 * (6 + 2)) && counts.iter().all(|count| *count == counts[0])
    });
    clean(&cluster);
    let checked = cluster.dfs(&["--json", "fsck"]).ok();
    let checked: serde_json::Value = serde_json::from_str(&checked).unwrap();
    let nodes = cluster.status()["nodes"].clone();
    for counted in ["chunks", "chunk_bytes"] {
        let copies: u64 = (0..3).map(|n| nodes[n][counted].as_u64().unwrap()).sum();
        assert_eq!(checked[counted].as_u64(), Some(copies), "every copy once");
    }
}

#[test]
fn a_put_goes_on_by_itself_when_the_leader_of_everything_dies() {
    let mut cluster = Cluster::start(3);
    make_tree(&cluster, "tree", 1, 150);
    let leader = cluster.leader(1);
    // Whom it talks to first dies, so that it must find the others by itself.
    let put = cluster.command_at(leader, &["--json", "put", "-r", "tree", "/stored"]);
    let put = { put }.stdout(std::process::Stdio::piped()).spawn();
    let mut put = put.unwrap();
    let mut reader = std::io::BufReader::new(put.stdout.take().unwrap());
    let mut line = String::new();
    for _ in 0..10 {
        assert_ne!(
            std::io::BufRead::read_line(&mut reader, &mut line).unwrap(),
            0
        );
    }
    assert!(put.try_wait().unwrap().is_none(), "the put was too short");
    cluster.kill(leader);
    std::io::copy(&mut reader, &mut std::io::sink()).unwrap();
    assert_eq!(put.wait().unwrap().code(), Some(0));

    for reader in (0..3).filter(|place| *place != leader) {
        cluster.same_tree(reader, "tree", "/stored");
    }
    cluster.run(leader);
    cluster.same_tree(leader, "tree", "/stored");
    clean(&cluster);
}

#[test]
fn a_node_that_was_stopped_answers_nothing_old_when_it_goes_on() {
    let cluster = Cluster::start(3);
    cluster.write("v0", b"before");
    cluster.dfs(&["put", "v0", "/f"]).ok();
    for round in 1..4 {
        let stopped = cluster.leader(1);
        cluster.signal(stopped, "STOP");
        let (new, other) = (format!("round {round}"), (stopped + 1) % 3);
        cluster.write("new", new.as_bytes());
        cluster
            .dfs_at(other, &["put", "--overwrite", "new", "/f"])
            .ok();
        assert_eq!(cluster.dfs_at(other, &["cat", "/f"]).ok(), new);
        cluster.signal(stopped, "CONT");
        // At once: it may still think that it leads.
        let ran = cluster.dfs_at(stopped, &["cat", "/f"]);
        assert_eq!(ran.ok(), new);
    }
    clean(&cluster);
}

/// Nor what its own replica of the root group has.
#[test]
fn a_node_that_hears_of_no_majority_does_not_say_who_the_users_are() {
    let cluster = Cluster::start(3);
    let asked = (cluster.leader(0) + 1) % 3;
    let users = cluster.dfs_at(asked, &["user", "ls"]).ok();
    let others = [(asked + 1) % 3, (asked + 2) % 3];
    others
        .iter()
        .for_each(|place| cluster.signal(*place, "STOP"));
    // At once, while it still lets clients in.
    let ran = cluster.dfs_at(asked, &["--timeout", "3s", "user", "ls"]);
    others
        .iter()
        .for_each(|place| cluster.signal(*place, "CONT"));
    ran.fails(6);
    assert_eq!(cluster.dfs_at(asked, &["user", "ls"]).ok(), users);
}

#[test]
fn all_killed_at_once_start_again_with_everything() {
    let mut cluster = Cluster::start(3);
    make_tree(&cluster, "tree", 1, 40);
    cluster.dfs(&["put", "-q", "-r", "tree", "/t"]).ok();
    for round in 0..3 {
        let name = format!("/last{round}");
        cluster.write("last", name.as_bytes());
        cluster.dfs(&["put", "last", &name]).ok();
        (0..3).for_each(|place| cluster.kill(place));
        // Each time another one is the last to come.
        cluster.run_all(&[round, (round + 1) % 3, (round + 2) % 3]);
        for reader in 0..3 {
            for done in 0..=round {
                let name = format!("/last{done}");
                assert_eq!(cluster.dfs_at(reader, &["cat", &name]).ok(), name);
            }
        }
    }
    cluster.same_tree(1, "tree", "/t");
    clean(&cluster);
}

#[test]
fn a_majority_serves_and_a_minority_refuses() {
    let mut cluster = Cluster::start(3);
    cluster.write("a", b"content");
    cluster.dfs(&["put", "a", "/a"]).ok();
    cluster.kill(1);
    assert_eq!(cluster.dfs(&["cat", "/a"]).ok(), "content");
    cluster.dfs(&["put", "a", "/b"]).ok();
    cluster.kill(2);
    // While its lease lasts a leader answers, rightly: nobody else can lead yet.
    until(Duration::from_secs(10), "the lease is over", || {
        let asked = cluster.dfs_at(0, &["--timeout", "3s", "cat", "/a"]);
        asked.status == 6
    });
    for line in [&["cat", "/a"][..], &["put", "a", "/c"], &["ls", "/"]] {
        let error = cluster
            .dfs_at(0, &[&["--json", "--timeout", "3s"], line].concat())
            .error(6);
        assert_eq!(error["code"], "unavailable", "{line:?}: {error}");
    }
    // Later it lets no new client in at all, and says why.
    until(Duration::from_secs(30), "the reason is told", || {
        let said = cluster.dfs_at(0, &["--timeout", "2s", "ls", "/"]).fails(6);
        said.contains("no quorum: this node hears nothing of the cluster's root group")
    });
    cluster.run(2);
    until(Duration::from_secs(10), "a majority serves again", || {
        cluster.dfs(&["ls", "/"]).status == 0
    });
    // The refused put was not done, or is there whole.
    let listing = cluster.dfs(&["ls", "/"]).ok();
    assert!(
        matches!(listing.as_str(), "a\nb\n" | "a\nb\nc\n"),
        "{listing}"
    );
    cluster.run(1);
    clean(&cluster);
}

#[test]
fn what_is_asked_of_every_node_names_those_that_did_not_answer() {
    let mut cluster = Cluster::start(3);
    let verbs = [&["scrub"][..], &["scrub", "--now"], &["repair", "--status"]];
    for verb in verbs {
        let rows = cluster.dfs(&[&["--json"], verb].concat()).json();
        assert_eq!(rows.as_array().unwrap().len(), 3, "{verb:?}: {rows}");
    }
    cluster.kill(2);
    let name = format!("node {}", cluster.members[2].id);
    let incomplete = |cluster: &Cluster| {
        for verb in verbs {
            let ran = cluster.dfs(verb);
            assert_eq!(ran.stdout.lines().count(), 3, "{verb:?}: {ran:?}");
            let said = ran.fails(10);
            assert!(said.starts_with(&format!("dfs: {name}: ")), "{said}");
            let ran = cluster.dfs(&[&["--json"], verb].concat());
            let rows: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
            assert_eq!(rows.as_array().unwrap().len(), 2, "{verb:?}: {rows}");
            let error = ran.error(10);
            assert_eq!(error["path"], name.as_str());
            assert_eq!(error["code"], "unavailable");
        }
    };
    incomplete(&cluster);
    until(HEALTHY_WITHIN, "the node is offline", || {
        let ran = cluster.dfs(&["--json", "node", "ls"]);
        ran.stdout.contains("\"offline\"")
    });
    incomplete(&cluster);
    cluster.run(2);
    until(HEALTHY_WITHIN, "all answer", || {
        verbs.iter().all(|verb| cluster.dfs(verb).status == 0)
    });
}

#[test]
fn a_node_that_waits_for_others_ends_when_it_is_told_to() {
    let mut cluster = Cluster::start(3);
    for place in 0..3 {
        cluster.kill(place);
    }
    cluster.run_without_waiting(0);
    until(HEALTHY_WITHIN, "it waits", || {
        cluster.log(0).contains("waiting for the root group")
    });
    assert_eq!(cluster.stop(0), 0, "{}", cluster.log(0));
    // Nothing was harmed by it.
    cluster.run_all(&[0, 1, 2]);
    cluster.dfs(&["mkdir", "/d"]).ok();
}

#[test]
fn a_node_that_is_told_twice_to_end_does_not_wait_for_others() {
    let mut cluster = Cluster::start(3);
    let leads = cluster.leader(0);
    // Nobody takes the lead over.
    for other in (0..3).filter(|place| *place != leads) {
        cluster.signal(other, "STOP");
    }
    cluster.signal(leads, "TERM");
    let mut ended = None;
    until(HEALTHY_WITHIN, "it ends", || {
        ended = cluster.ended_by_itself(leads);
        if ended.is_none() {
            cluster.signal(leads, "TERM");
        }
        ended.is_some()
    });
    let log = cluster.log(leads);
    assert_eq!(ended.unwrap().code(), Some(130), "{log}");
    assert!(
        !log.contains("panicked") && !log.contains("has stopped"),
        "{log}"
    );
}
