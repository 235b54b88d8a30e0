//! Every fuzz target over its saved inputs, its well-formed ones, and seeded noise: the part of
//! fuzzing that each test run does. `scripts/fuzz.sh` looks for more.
//!
//! A failure prints the input; saved as a file in `testdata/fuzz/TARGET/` it is tried first from
//! then on. `DFS_FUZZ_RUNS` multiplies the noise, `DFS_FUZZ_SEED` changes it, `DFS_BLESS=1` writes
//! the well-formed inputs to the corpora, for the fuzzer to begin from.

use dfs::fuzzing::{TARGETS, Target};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// An input may make this much of memory be held, and this much for each of its bytes.
const HELD_BYTES_MAX: usize = 32 << 20;
const HELD_PER_BYTE_MAX: usize = 1_024;
/// Nothing takes longer, on whatever machine.
const RUN_MAX: Duration = Duration::from_secs(10);
const INPUT_BYTES_MAX: usize = 64 << 10;

/// Counts what each thread holds.
struct Counting;

thread_local! {
    static HELD: Cell<(isize, isize)> = const { Cell::new((0, 0)) };
}

fn count(bytes: isize) {
    // Threads that are ending have no counter any more.
    let _ = HELD.try_with(|held| {
        let (now, most) = held.get();
        let now = now + bytes;
        held.set((now, most.max(now)));
    });
}

// SAFETY: everything is handed to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn corpus_dir(target: &Target) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("testdata/fuzz")
        .join(target.name)
}

fn saved(target: &Target) -> Vec<Vec<u8>> {
    let Ok(entries) = std::fs::read_dir(corpus_dir(target)) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
        .iter()
        .map(|path| std::fs::read(path).unwrap())
        .collect()
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable)
        .ok()
        .map_or(default, |text| text.parse().unwrap())
}

/// Another input, made from known ones.
fn noise(rng: &mut StdRng, known: &[Vec<u8>]) -> Vec<u8> {
    if known.is_empty() || rng.random_ratio(1, 8) {
        let mut bytes = vec![0; rng.random_range(0..300)];
        rng.fill(&mut bytes[..]);
        return bytes;
    }
    let mut bytes = known[rng.random_range(0..known.len())].clone();
    for _ in 0..rng.random_range(1..6) {
        change(rng, known, &mut bytes);
    }
    bytes.truncate(INPUT_BYTES_MAX);
    bytes
}

fn change(rng: &mut StdRng, known: &[Vec<u8>], bytes: &mut Vec<u8>) {
    // Numbers at the edges, as single bytes and as the codec's long ones.
    const EDGES: [&[u8]; 6] = [
        &[0],
        &[1],
        &[0x7f],
        &[0xff],
        &[0xff; 9],
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    ];
    let at = rng.random_range(0..=bytes.len());
    let rest = bytes.len() - at;
    match rng.random_range(0..7) {
        0 if rest > 0 => bytes[at] ^= 1 << rng.random_range(0..8),
        1 if rest > 0 => bytes[at] = rng.random(),
        2 => bytes.truncate(at),
        3 => {
            let gone = rng.random_range(0..=rest.min(16));
            bytes.drain(at..at + gone);
        }
        4 => {
            let edge = EDGES[rng.random_range(0..EDGES.len())];
            let replaced = rng.random_range(0..=rest.min(edge.len()));
            bytes.splice(at..at + replaced, edge.iter().copied());
        }
        5 => {
            let other = &known[rng.random_range(0..known.len())];
            let from = rng.random_range(0..=other.len());
            bytes.splice(at.., other[from..].iter().copied());
        }
        _ => {
            let copied = bytes[at..at + rng.random_range(0..=rest.min(64))].to_vec();
            bytes.splice(at..at, copied);
        }
    }
}

fn shown(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[allow(clippy::disallowed_methods)] // the time of the test itself
fn try_one(target: &Target, bytes: &[u8], what: &str) {
    let (before, _) = HELD.get();
    HELD.set((before, before));
    let started = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(bytes)));
    let (took, held) = (started.elapsed(), HELD.get().1 - before);
    let name = target.name;
    assert!(outcome.is_ok(), "{name} panics on {what}: {}", shown(bytes));
    assert!(
        took < RUN_MAX,
        "{name} takes {took:?} for {what}: {}",
        shown(bytes)
    );
    let most = HELD_BYTES_MAX + HELD_PER_BYTE_MAX * bytes.len();
    assert!(
        held < most as isize,
        "{name} holds {held} bytes for {what}: {}",
        shown(bytes)
    );
}

fn try_target(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let mut known = (target.seeds)();
    assert!(!known.is_empty());
    if std::env::var_os("DFS_BLESS").is_some() {
        std::fs::create_dir_all(corpus_dir(target)).unwrap();
        for (number, bytes) in known.iter().enumerate() {
            std::fs::write(corpus_dir(target).join(format!("sound-{number:02}")), bytes).unwrap();
        }
    }
    known.extend(saved(target));
    for (number, bytes) in known.iter().enumerate() {
        try_one(target, bytes, &format!("known input {number}"));
    }
    let seed = number("DFS_FUZZ_SEED", 1);
    let mut rng = StdRng::seed_from_u64(seed);
    for round in 0..target.runs as u64 * number("DFS_FUZZ_RUNS", 1) {
        let bytes = noise(&mut rng, &known);
        try_one(
            target,
            &bytes,
            &format!("DFS_FUZZ_SEED={seed}, round {round}"),
        );
    }
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                try_target(stringify!($name));
            }
        )*

        #[test]
        fn every_target_is_tried_and_has_a_binary() {
            let tried = [$(stringify!($name)),*];
            let fuzz = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz");
            let manifest = std::fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
            for target in TARGETS {
                assert!(tried.contains(&target.name), "{} is not tried here", target.name);
                let binary = format!("fuzz_targets/{}.rs", target.name);
                assert!(fuzz.join(&binary).exists() && manifest.contains(&binary), "{binary}");
            }
            assert_eq!(tried.len(), TARGETS.len());
        }
    };
}

targets! {
    wire_call wire_answer request raft_message commands records shard_state root_command
    log_segment pack chunk_file image identity certificate
    certificate_request sealed_authority config names
}
