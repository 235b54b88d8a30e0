//! kill -9 at any moment under load: what was acknowledged is there, byte for byte, and nothing
//! half-done shows.

mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::{Node, bytes};

/// Rounds of load and kill; each ends at another moment.
const ROUNDS: u64 = 6;
const WRITERS: u64 = 4;

/// What a writer knows of one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// Acknowledged with this seed's content.
    There(u64),
    /// Sent, no answer: there with this seed's content, or not at all.
    Open(u64),
}

fn content(seed: u64) -> Vec<u8> {
    // Inline, packed, a chunk of its own.
    bytes(seed, [700, 60_000, 1_500_000][seed as usize % 3])
}

#[test]
fn acknowledged_files_survive_kills_under_load() {
    let mut node = Node::start();
    node.dfs(&["mkdir", "/k"]).ok();
    let known: Arc<Mutex<BTreeMap<String, Known>>> = Arc::default();
    for round in 0..ROUNDS {
        let stop = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (known, stop) = (known.clone(), stop.clone());
                let (home, address) = (node.home.path().to_owned(), node.address.clone());
                std::thread::spawn(move || write(round, writer, &home, &address, &known, &stop))
            })
            .collect();
        // Another moment each time: after so many acknowledgements of this round.
        let before = known.lock().unwrap().len() as u64;
        support::until(Duration::from_secs(60), "writers get on", || {
            known.lock().unwrap().len() as u64 >= before + 5 + 7 * round
        });
        node.kill();
        stop.store(true, Ordering::Relaxed);
        writers
            .into_iter()
            .for_each(|writer| writer.join().unwrap());
        node.run();
        check(&node, &known.lock().unwrap());
    }
}

/// Puts files until it is stopped or the node is gone.
fn write(
    round: u64,
    writer: u64,
    home: &std::path::Path,
    address: &str,
    known: &Mutex<BTreeMap<String, Known>>,
    stop: &AtomicBool,
) {
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let seed = round * 1_000_000 + writer * 10_000 + number;
        let (local, remote) = (home.join(format!("w{writer}")), format!("/k/f{seed}"));
        std::fs::write(&local, content(seed)).unwrap();
        known
            .lock()
            .unwrap()
            .insert(remote.clone(), Known::Open(seed));
        let status = std::process::Command::new(support::program())
            .env_clear()
            .env("HOME", home)
            .env("DFS_CLUSTER", address)
            .args(["--timeout", "2s", "put"])
            .arg(&local)
            .arg(&remote)
            .output()
            .unwrap()
            .status;
        if !status.success() {
            return;
        }
        known.lock().unwrap().insert(remote, Known::There(seed));
    }
}

fn check(node: &Node, known: &BTreeMap<String, Known>) {
    let listing = node.dfs(&["ls", "/k"]).ok();
    let listed: std::collections::BTreeSet<_> =
        listing.lines().map(|name| format!("/k/{name}")).collect();
    for name in &listed {
        assert!(known.contains_key(name), "{name} was never put");
    }
    let back = node.path("back");
    let _ = std::fs::remove_dir_all(&back);
    node.dfs(&["get", "-q", "-r", "/k", "back"]).ok();
    for (name, state) in known {
        let (seed, acknowledged) = match state {
            Known::There(seed) => (*seed, true),
            Known::Open(seed) => (*seed, false),
        };
        assert!(
            listed.contains(name) || !acknowledged,
            "{name} was acknowledged and is gone"
        );
        if listed.contains(name) {
            let local = back.join(name.strip_prefix("/k/").unwrap());
            assert!(
                std::fs::read(local).unwrap() == content(seed),
                "{name} has other bytes"
            );
        }
    }
    node.dfs(&["fsck"]).ok();
}
