//! The simulation's own tests, and the seeds that every build runs.

use super::run::{Report, run};
use super::schedule::Size;
use std::time::{Duration, Instant};

const SMALL: Size = Size {
    nodes: 3,
    clients: 3,
    work: Duration::from_secs(12),
};

/// Seeds of a range as `A..B`, both included.
fn seeds_from(text: &str) -> std::ops::RangeInclusive<u64> {
    let (first, last) = text.split_once("..").expect("write A..B");
    first.parse().expect("a number")..=last.parse().expect("a number")
}

fn tell(report: &Report, took: Duration) {
    println!(
        "seed {} {:?}: {} answered (slowest {:?}), {} unknown, {} lives, {} undecided, healed in {:?}, \
         {:?} simulated in {took:?}, trace {} {}",
        report.seed,
        report.schedule.kinds,
        report.answered,
        report.slowest,
        report.unknown,
        report.lives,
        report.undecided,
        report.healed_in,
        report.simulated,
        report.trace.0,
        report.trace.1,
    );
    for violation in &report.violations {
        println!("VIOLATION {violation}");
    }
    if !report.violations.is_empty() {
        println!("acts: {:#?}", report.schedule.acts);
        println!("again with: {}", report.line());
    }
}

#[allow(clippy::disallowed_methods)] // For people: how fast it is.
fn runs(seeds: impl IntoIterator<Item = u64>, size: Size) {
    let mut failed = Vec::new();
    for seed in seeds {
        let began = Instant::now();
        let report = run(seed, size);
        tell(&report, began.elapsed());
        if !report.violations.is_empty() {
            failed.push(report.line());
        }
    }
    assert!(failed.is_empty(), "again with:\n{}", failed.join("\n"));
}

/// `scripts/sim.sh` runs this with `DFS_SIM_SEEDS=A..B`.
#[test]
#[ignore = "runs the seeds it is given: see scripts/sim.sh"]
fn seeds_that_were_asked_for() {
    let text = std::env::var("DFS_SIM_SEEDS").expect("DFS_SIM_SEEDS=A..B");
    runs(seeds_from(&text), SMALL);
}

/// Every seed that ever found a defect, and a few that nothing is known of.
#[test]
fn the_kept_seeds_find_nothing() {
    let text = include_str!("../../testdata/sim/seeds");
    let seed = |line: &str| {
        let number = line.split('#').next().unwrap_or_default().trim();
        (!number.is_empty()).then(|| number.parse().expect("a seed"))
    };
    runs(text.lines().filter_map(seed), SMALL);
}

#[test]
fn a_seed_gives_the_same_trace_again() {
    // With several nodes the order of two datagrams of one moment still differs.
    let alone = Size { nodes: 1, ..SMALL };
    let first = run(1, alone);
    // On another thread, where maps are ordered otherwise.
    let again = std::thread::spawn(move || run(1, alone)).join().unwrap();
    assert_eq!(first.trace, again.trace);
}
