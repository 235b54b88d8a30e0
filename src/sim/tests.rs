//! The seeds that every build runs, and those that are asked for. Each runs in a process of its
//! own: only so is what a seed decides everything (see `dice`).

use super::dice;
use super::run::{Report, run};
use super::schedule::Size;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tracing_subscriber::EnvFilter;

/// What a process is to run: a seed.
const SEED: &str = "DFS_SIM_SEED";
/// How many processes at once.
const JOBS: &str = "DFS_SIM_JOBS";

/// How one process ended.
struct Ended {
    passed: bool,
    output: String,
}

impl Ended {
    /// Number and hash of all events.
    fn trace(&self) -> Option<&str> {
        let (_, trace) = self.output.split_once(", trace ")?;
        trace.lines().next()
    }
}

/// Runs a seed in another process.
fn spawn(seed: u64) -> Ended {
    let program = std::env::current_exe().expect("a test knows its program");
    let test = "sim::tests::the_seed_of_this_process";
    let output = Command::new(program)
        .args([test, "--ignored", "--exact", "--nocapture"])
        .env(SEED, seed.to_string())
        .output()
        .expect("a test can start its own program");
    let passed = output.status.success();
    let told = String::from_utf8_lossy(&output.stdout);
    // What the test harness says around it.
    let noise = |line: &&str| line.is_empty() || line.starts_with("running ");
    let told = told.split("test result:").next().unwrap_or_default();
    let lines = told.lines().filter(|line| !noise(line));
    let mut output_text: String = lines.map(|line| format!("{line}\n")).collect();
    if !passed && !output_text.contains("again with") {
        output_text += &String::from_utf8_lossy(&output.stderr);
        output_text += &format!("again with: {}\n", line_of(seed));
    }
    Ended {
        passed,
        output: output_text,
    }
}

/// The line that shows the same again.
fn line_of(seed: u64) -> String {
    format!("scripts/sim.sh --seeds {seed}..{seed}")
}

/// Runs seeds, several at once; tells of each when it has ended.
fn run_all(seeds: &[u64]) -> Vec<Ended> {
    let jobs = match std::env::var(JOBS) {
        Ok(jobs) => jobs.parse().expect("a number of processes"),
        Err(_) => std::thread::available_parallelism().map_or(1, usize::from),
    };
    let next = AtomicUsize::new(0);
    let ended = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        let work = || loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(seed) = seeds.get(at) else {
                return;
            };
            let one = spawn(*seed);
            print!("{}", one.output);
            ended.lock().insert(at, one);
        };
        for _ in 1..jobs {
            scope.spawn(work);
        }
        work();
    });
    ended.into_inner().into_values().collect()
}

/// # Panics
/// When one fails, with the lines that run them again.
fn must_find_nothing(seeds: &[u64]) {
    let ended = run_all(seeds);
    let failed = seeds.iter().zip(&ended).filter(|(_, one)| !one.passed);
    let lines: Vec<String> = failed.map(|(seed, _)| line_of(*seed)).collect();
    assert!(lines.is_empty(), "again with:\n{}", lines.join("\n"));
}

/// `scripts/sim.sh` runs this with `DFS_SIM_SEEDS=A..B`.
#[test]
#[ignore = "runs the seeds it is given: see scripts/sim.sh"]
fn seeds_that_were_asked_for() {
    let text = std::env::var("DFS_SIM_SEEDS").expect("DFS_SIM_SEEDS=A..B");
    let (first, last) = text.split_once("..").expect("write A..B");
    let first: u64 = first.parse().expect("a number");
    let last: u64 = last.parse().expect("a number");
    must_find_nothing(&(first..=last).collect::<Vec<_>>());
}

/// A line of `testdata/sim/seeds`: the seed, and whether it is run twice.
fn kept() -> impl Iterator<Item = (u64, bool)> {
    let text = include_str!("../../testdata/sim/seeds");
    text.lines().filter_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let seed = words.next()?.parse().expect("a seed");
        Some((seed, words.next() == Some("twice")))
    })
}

/// Seeds that found a defect, real or planted.
#[test]
fn the_kept_seeds_find_nothing() {
    let seeds: Vec<u64> = kept().map(|(seed, _)| seed).collect();
    assert!(!seeds.is_empty());
    must_find_nothing(&seeds);
}

#[test]
fn a_seed_gives_the_same_trace_again() {
    let twice = kept().filter(|(_, twice)| *twice);
    let seeds: Vec<u64> = twice.flat_map(|(seed, _)| [seed, seed]).collect();
    assert!(!seeds.is_empty());
    let ended = run_all(&seeds);
    for (pair, seed) in ended.chunks(2).zip(seeds.iter().step_by(2)) {
        let traces: Vec<_> = pair.iter().map(Ended::trace).collect();
        assert!(traces[0].is_some(), "seed {seed} tells no trace");
        assert_eq!(
            traces[0], traces[1],
            "seed {seed}: see `scripts/sim.sh --trace`"
        );
    }
}

/// What the processes run that the others start.
#[test]
#[ignore = "runs the seed of the environment: see spawn"]
#[allow(clippy::disallowed_methods)] // For people: how fast it is.
fn the_seed_of_this_process() {
    let seed: u64 = std::env::var(SEED).expect(SEED).parse().expect("a seed");
    show_logs();
    let began = Instant::now();
    // A thread that has drawn nothing yet.
    let running = std::thread::spawn(move || {
        dice::seed(seed);
        run(seed, Size::of(seed))
    });
    let report = running
        .join()
        .expect("the simulation itself does not panic");
    tell(&report, began.elapsed());
    assert!(report.violations.is_empty(), "{}", line_of(seed));
}

/// What nodes and clients log, between the lines of the trace, if `DFS_LOG` names what is wanted.
fn show_logs() {
    let wanted = std::env::var("DFS_LOG");
    let Some(filter) = wanted.ok().and_then(|text| text.parse::<EnvFilter>().ok()) else {
        return;
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .without_time()
        .with_ansi(false)
        .with_writer(std::io::stdout)
        .init();
}

fn tell(report: &Report, took: Duration) {
    println!(
        "seed {} {:?}: {} nodes, {} answered (slowest {:?}), {} unknown, {} lives, {} undecided, \
         healed in {:?}, {:?} simulated in {took:.1?}, trace {} {}",
        report.seed,
        report.schedule.kinds,
        report.nodes,
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
        println!("again with: {}", line_of(report.seed));
    }
}
