//! Chunk files that rot under running nodes: every read is right, and the copies are mended.

mod support;

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use support::cluster::Cluster;
use support::{bytes, flip, until};

/// Until what is damaged is found and copied again.
const MENDED_WITHIN: Duration = Duration::from_secs(60);

/// Files of `with_files`: two that share a pack, two with chunk files of their own.
const FILES: [(&str, u64, usize); 4] = [
    ("packed", 1, 60_000),
    ("packed2", 2, 200_000),
    ("large", 3, 2_000_000),
    ("large2", 4, 3_000_000),
];

fn with_files() -> Cluster {
    let cluster = Cluster::start(3);
    for (name, seed, len) in FILES {
        cluster.write(&format!("tree/{name}"), &bytes(seed, len));
    }
    cluster
        .dfs(&["put", "-q", "-r", "--ack", "all", "tree", "/t"])
        .ok();
    cluster
}

/// Where these bytes lie in a node's stores: file and offset.
fn place_of(cluster: &Cluster, node: usize, what: &[u8]) -> Option<(PathBuf, u64)> {
    let member = &cluster.members[node];
    let files = [member.files("chunks"), member.files("packs")].concat();
    files.into_iter().find_map(|file| {
        // One that has just gone has nothing.
        let bytes = std::fs::read(&file).ok()?;
        let at = bytes.windows(what.len()).rposition(|found| found == what)?;
        Some((file, at as u64))
    })
}

fn content(name: &str) -> Vec<u8> {
    let (_, seed, len) = FILES[FILES.iter().position(|file| file.0 == name).unwrap()];
    bytes(seed, len)
}

fn damage(cluster: &Cluster, node: usize, name: &str, how: impl Fn(&Path, u64)) {
    let found = place_of(cluster, node, &content(name)[40_000..40_064]);
    let (file, at) = found.unwrap_or_else(|| panic!("{name} is not on node {node}"));
    how(&file, at);
}

fn cut(file: &Path, at: u64) {
    let opened = std::fs::OpenOptions::new().write(true).open(file).unwrap();
    opened.set_len(at).unwrap();
}

/// The file's own bytes are back on this node.
fn is_mended(cluster: &Cluster, node: usize, name: &str) -> bool {
    let content = content(name);
    let Some((file, start)) = place_of(cluster, node, &content[..64]) else {
        return false;
    };
    let mut back = vec![0; content.len()];
    let read = std::fs::File::open(file).and_then(|file| file.read_exact_at(&mut back, start));
    read.is_ok() && back == content
}

/// The place of the node that readers ask first for a file's chunk.
fn asked_first(cluster: &Cluster, name: &str) -> usize {
    let path = format!("/t/{name}");
    let chunks = cluster.dfs(&["--json", "ring", "locate", &path]).json();
    let first = chunks[0]["owners"][0].as_u64();
    let place = cluster.members.iter().position(|m| Some(m.id) == first);
    place.unwrap()
}

#[track_caller]
fn read_right(cluster: &Cluster) {
    for reader in 0..3 {
        cluster.same_tree(reader, "tree", "/t");
    }
}

#[test]
fn damage_is_found_by_reading_and_mended() {
    let cluster = with_files();
    for name in ["packed", "large", "large2"] {
        let node = asked_first(&cluster, name);
        match name {
            "large2" => damage(&cluster, node, name, cut),
            _ => damage(&cluster, node, name, |file, at| flip(file, at, 1)),
        }
        until(MENDED_WITHIN, name, || {
            read_right(&cluster);
            is_mended(&cluster, node, name)
        });
    }
    cluster.until_health("green", MENDED_WITHIN);
    cluster.dfs(&["fsck"]).ok();
}

#[test]
fn different_damage_on_every_node_costs_nothing() {
    let mut cluster = with_files();
    let damages: [(usize, &str); 6] = [
        (0, "packed"),
        (0, "large"),
        (1, "packed2"),
        (1, "large2"),
        (2, "large"),
        (2, "packed2"),
    ];
    for (node, name) in damages {
        match name {
            "large" => damage(&cluster, node, name, cut),
            _ => damage(&cluster, node, name, |file, at| flip(file, at, 1)),
        }
    }
    read_right(&cluster);
    cluster.dfs(&["scrub", "--now"]).ok();
    for (node, name) in damages {
        let what = format!("{name} is whole on node {node} again");
        until(MENDED_WITHIN, &what, || is_mended(&cluster, node, name));
    }
    cluster.until_health("green", MENDED_WITHIN);
    cluster.dfs(&["fsck"]).ok();
    // And stays so over a start, which reads packs from their indexes.
    (0..3).for_each(|node| cluster.kill(node));
    cluster.run_all(&[0, 1, 2]);
    cluster.until_health("green", MENDED_WITHIN);
    read_right(&cluster);
    cluster.dfs(&["fsck"]).ok();
}

#[test]
fn what_rotted_and_vanished_while_a_node_was_down_is_mended() {
    let mut cluster = with_files();
    cluster.kill(1);
    damage(&cluster, 1, "packed", |file, at| flip(file, at, 40));
    damage(&cluster, 1, "large", |file, at| flip(file, at, 40));
    damage(&cluster, 1, "large2", |file, _| {
        std::fs::remove_file(file).unwrap()
    });
    cluster.run(1);
    read_right(&cluster);
    cluster.dfs(&["scrub", "--now"]).ok();
    for name in ["packed", "large", "large2"] {
        let what = format!("{name} is whole again");
        until(MENDED_WITHIN, &what, || is_mended(&cluster, 1, name));
    }
    cluster.until_health("green", MENDED_WITHIN);
    read_right(&cluster);
    cluster.dfs(&["fsck"]).ok();
}
