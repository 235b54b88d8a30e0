//! Chunks that were lost or damaged under a node: it says so, and what is put again heals them.

mod support;

use std::path::{Path, PathBuf};
use std::time::Duration;
use support::{Node, bytes, until};

/// The only file of a large chunk.
fn chunk_file(node: &Node) -> PathBuf {
    fn find(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => find(&path, found),
                false => found.push(path),
            }
        }
    }
    let mut found = Vec::new();
    find(&node.path("data/chunks"), &mut found);
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

#[test]
fn a_chunk_file_that_vanished_shows_and_is_healed_by_a_put() {
    let mut node = Node::start();
    node.write("a", &bytes(1, 2_000_000));
    node.dfs(&["put", "a", "/a"]).ok();
    assert_eq!(node.dfs(&["--json", "status"]).json()["health"], "yellow");
    assert_eq!(node.stop(), 0);
    std::fs::remove_file(chunk_file(&node)).unwrap();
    node.run();
    until(Duration::from_secs(20), "the status is red", || {
        node.dfs(&["--json", "status"]).json()["health"] == "red"
    });
    let said = node.dfs(&["--json", "status"]).json()["reasons"].to_string();
    assert!(
        said.contains("chunks that files need are missing on every node that answers (1 copies)"),
        "{said}"
    );
    assert_ne!(node.dfs(&["fsck"]).status, 0);
    assert_ne!(node.dfs(&["get", "/a", "back"]).status, 0);
    node.dfs(&["put", "a", "/again"]).ok();
    until(
        Duration::from_secs(20),
        "the status is yellow again",
        || node.dfs(&["--json", "status"]).json()["health"] == "yellow",
    );
    node.dfs(&["get", "-f", "/a", "back"]).ok();
    assert!(std::fs::read(node.path("back")).unwrap() == bytes(1, 2_000_000));
    node.dfs(&["fsck"]).ok();
}

/// The chunks of removed files go, and only theirs. Slow: a chunk stays for a minute at least.
#[test]
#[ignore = "takes more than a minute; run with --ignored"]
fn chunks_of_removed_files_go_after_gc_now() {
    let node = Node::start();
    node.write("a", &bytes(1, 2_000_000));
    node.write("b", &bytes(2, 100_000));
    node.write("c", &bytes(3, 100_000));
    node.dfs(&["put", "a", "b", "c", "/"]).ok();
    let chunks = || {
        let status = node.dfs(&["--json", "status"]).json();
        status["nodes"][0]["chunks"].as_u64().unwrap()
    };
    assert_eq!(chunks(), 3);
    node.dfs(&["rm", "/a", "/b"]).ok();
    node.dfs(&["gc", "--now"]).ok();
    assert_eq!(chunks(), 3, "they have only just come");
    until(
        Duration::from_secs(120),
        "the chunks of /a and /b go",
        || chunks() == 1,
    );
    node.dfs(&["get", "/c", "back"]).ok();
    assert!(std::fs::read(node.path("back")).unwrap() == bytes(3, 100_000));
    node.dfs(&["fsck"]).ok();
}
