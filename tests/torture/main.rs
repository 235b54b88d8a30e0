//! Torture: real processes under load while they are killed, stopped, cut off and lose power, and
//! clients that know what must be there. `scripts/torture.sh` prepares networks and disks and runs
//! it; without those it does what it can.
//!
//! Settings, all of the environment: `DFS_TORTURE_MINUTES` (1), `DFS_TORTURE_SEED` (drawn),
//! `DFS_TORTURE_NETWORK` (prefix of the namespaces that are there), `DFS_TORTURE_DISKS` (a
//! directory for loop-mounted disks), `DFS_TORTURE_CLIENTS` (4).

#[path = "../support/mod.rs"]
mod support;

mod check;
mod client;
mod dice;
mod door;
mod trouble;

use client::{Client, Common};
use dice::Dice;
use door::Way;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use support::cluster::{Cluster, free_address};
use support::machine::{LoopDisk, Network, without_syncs};
use trouble::{Below, Trouble};

const NODES: usize = 3;
/// A disk of a node: what it reserves and prefers to have free, and what four clients put in a
/// minute, of which nothing is let go.
const DISK_MIB: u64 = 3_000;
const DISK_MIB_A_MINUTE: f64 = 240.0;
/// From the end of a trouble until a new client is served. What has to hold is 10 s; a debug build
/// on a machine with other work gets more.
const SERVES_WITHIN: Duration = Duration::from_secs(if cfg!(debug_assertions) { 30 } else { 10 });
/// Reading all that is stored, and writing again what is damaged.
const SCRUBBED_WITHIN: Duration = Duration::from_secs(300);
const A_MINUTE_MORE: Duration = Duration::from_secs(15);
const GREEN_WITHIN: Duration = Duration::from_secs(180);
const SETTINGS: [(&str, &str); 3] = [
    ("DFS_CHUNK_SIZE", "1MiB"),
    // All winners of a file that is fought for are looked at in the end.
    ("DFS_KEEP_VERSIONS", "1000000"),
    ("DFS_OFFLINE_AFTER", "15s"),
];

fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}

fn minutes() -> f64 {
    setting("DFS_TORTURE_MINUTES").map_or(1.0, |text| text.parse().unwrap())
}

/// Says on a failure how to see it again.
struct Reproduce(String);

impl Drop for Reproduce {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("torture: failed; the same troubles again: {}", self.0);
        }
    }
}

/// The cluster with what is below it; no syncs: see `without_syncs`.
fn tortured(network: bool, disks: bool, syncs: bool) -> (Cluster, Below) {
    let mut cluster = Cluster::empty(&SETTINGS);
    let prefix = setting("DFS_TORTURE_NETWORK").filter(|_| network);
    let dir = setting("DFS_TORTURE_DISKS").filter(|_| disks);
    let disk_mib = DISK_MIB + (minutes() * DISK_MIB_A_MINUTE) as u64;
    let below = Below {
        network: prefix.clone().map(|prefix| Network { prefix }),
        disks: dir.map_or_else(Vec::new, |dir| {
            let make = |place| LoopDisk::make(dir.as_ref(), &format!("disk{place}"), disk_mib);
            (0..NODES).map(make).collect()
        }),
    };
    cluster = cluster.prepared(Box::new(move |place, command| {
        if let Some(prefix) = prefix.clone() {
            Network { prefix }.enter(place, command);
        }
        if !syncs {
            without_syncs(command);
        }
    }));
    for place in 0..NODES {
        let address = match below.network {
            Some(_) => format!("{}:7440", Network::host(place)),
            None => free_address(),
        };
        cluster.add(&format!("n{place}"), &address, &[]);
        if let Some(disk) = below.disks.get(place) {
            cluster.members[place].data = disk.path().join("data");
        }
        cluster.enter(place);
    }
    cluster.until_settled();
    (cluster, below)
}

#[test]
#[ignore = "run by scripts/torture.sh"]
#[allow(clippy::disallowed_methods)] // the run's own clock
fn torture() {
    let minutes = minutes();
    let seed = setting("DFS_TORTURE_SEED").map_or_else(
        || u64::from(std::process::id()) ^ 0x7072,
        |text| text.parse().unwrap(),
    );
    let clients: u64 = setting("DFS_TORTURE_CLIENTS").map_or(4, |text| text.parse().unwrap());
    println!("torture: seed {seed}, {minutes} minutes, {clients} clients");
    let _reproduce = Reproduce(format!(
        "scripts/torture.sh --seed {seed} --minutes {minutes}"
    ));
    let (mut cluster, below) = tortured(true, true, true);
    let network = below.network.is_some();
    println!(
        "torture: partitions {network}, power cuts {}",
        !below.disks.is_empty()
    );

    let dice = Dice::new(seed);
    let common = Arc::new(Common {
        stop: false.into(),
        done: 0.into(),
        winners: Default::default(),
        losers: Default::default(),
    });
    let way = Way {
        home: cluster.dir.clone(),
        nodes: cluster.members.iter().map(|m| m.address.clone()).collect(),
    };
    let known = std::thread::scope(|scope| {
        let running: Vec<_> = (0..clients)
            .map(|number| {
                let client = Client::new(&way, number, dice.of(number + 1), common.clone());
                scope.spawn(move || client.run())
            })
            .collect();
        let until = Instant::now() + Duration::from_secs_f64(minutes * 60.0);
        let mut dice = dice.of(0);
        let mut rounds = 0;
        while Instant::now() < until && !running.iter().any(|client| client.is_finished()) {
            let trouble = Trouble::draw(&mut dice, NODES, &below);
            let before = common.done.load(Ordering::Relaxed);
            trouble.happen(&mut cluster, &below, &mut dice);
            let took = check::serves_again(&cluster, SERVES_WITHIN, &trouble);
            rounds += 1;
            let done = common.done.load(Ordering::Relaxed);
            println!(
                "torture: {rounds}: {trouble:?}; served {took:.1?} later; {} operations meanwhile",
                done - before
            );
            trouble::wait(&mut dice, 3_000);
            check::all_run(&mut cluster);
        }
        // Also if a client has ended early, with what it found wrong.
        common.stop.store(true, Ordering::Relaxed);
        let ended = running.into_iter().map(|client| client.join());
        ended.collect::<Result<Vec<_>, _>>()
    });
    let known = known.expect("no client found anything wrong");
    let again: u64 = known.iter().map(|(_, again)| again).sum();
    let done = common.done.load(Ordering::Relaxed);
    println!("torture: {done} operations, {again} sent again until their outcome was known");
    for (number, (files, _)) in known.iter().enumerate() {
        check::directory(&cluster, number, files);
    }
    check::fought_for(&cluster, &common);
    cluster.until_health("green", GREEN_WITHIN);
    // Bits that flipped where nobody has read since are found by reading everything.
    cluster.dfs(&["scrub", "--now"]).ok();
    // There is the more to read the longer it went.
    let deadline = Instant::now() + SCRUBBED_WITHIN + A_MINUTE_MORE.mul_f64(minutes);
    loop {
        let checked = cluster.dfs(&["fsck"]);
        if checked.status == 0 {
            break;
        }
        let (said, why) = (&checked.stdout, &checked.stderr);
        assert!(Instant::now() < deadline, "never mended: {said}{why}");
    }
    check::logs(&cluster);
    println!("torture: everything is where it must be; fsck is clean, the status green");
}

/// The control: nodes whose syncs do nothing must lose something when the power goes everywhere.
/// If they do not, the power cuts of `torture` prove nothing.
#[test]
#[ignore = "run by scripts/torture.sh; needs DFS_TORTURE_DISKS"]
fn without_syncs_a_power_cut_loses_data() {
    assert!(setting("DFS_TORTURE_DISKS").is_some(), "no disks to cut");
    let (mut cluster, below) = tortured(false, true, false);
    // All but what is acknowledged from here on.
    let tops = below
        .disks
        .iter()
        .map(|disk| disk.path().display().to_string());
    tops.for_each(|top| drop(support::machine::run("sync", &["-f", &top])));
    for number in 0..20u64 {
        cluster.write("local", &support::bytes(number, 200_000));
        cluster.dfs(&["put", "local", &format!("/f{number}")]).ok();
    }
    below.disks.iter().for_each(LoopDisk::cut_power);
    (0..NODES).for_each(|place| cluster.kill(place));
    below.disks.iter().for_each(LoopDisk::return_power);
    // Nodes that refuse to start have lost something, too.
    if let Err((place, said)) = cluster.try_run_all(&[0, 1, 2]) {
        let last = said.lines().last().unwrap_or_default();
        return println!("torture: without syncs node {place} does not start any more: {last}");
    }
    let whole = (0..20u64).filter(|number| {
        let ran = cluster.dfs(&[
            "--timeout",
            "5s",
            "get",
            "-f",
            &format!("/f{number}"),
            "back",
        ]);
        ran.status == 0
            && std::fs::read(cluster.path("back")).unwrap() == support::bytes(*number, 200_000)
    });
    let whole = whole.count();
    println!("torture: without syncs {whole} of 20 files are whole after a power cut");
    assert!(whole < 20, "a power cut without syncs lost nothing");
}
