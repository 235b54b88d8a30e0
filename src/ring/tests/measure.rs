//! Measures what a ring costs, for the table in the module's doc.

use super::super::place::token;
use super::super::{Epoch, Member, OpenEpochs, Ring, moved};
use super::{chunk, equal, member};
use crate::types::NodeId;
use std::sync::Arc;
use std::time::Duration;

/// Time that this thread had a processor, so that others on the machine do not count; exact to some
/// milliseconds.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let nanoseconds = text.split(' ').next().unwrap();
    Duration::from_nanos(nanoseconds.parse().unwrap())
}

fn timed<T>(what: impl FnOnce() -> T) -> (Duration, T) {
    let start = processor_time();
    let result = what();
    (processor_time() - start, result)
}

/// Time of one answer.
fn one_of(count: u64, mut ask: impl FnMut(u64)) -> Duration {
    let (took, ()) = timed(|| (0..count).for_each(&mut ask));
    took / count as u32
}

#[test]
#[ignore = "measures; run with --release --nocapture"]
fn build_memory_and_answers() {
    println!("| nodes | tokens | memory | build | owners | a zone down | shares | join |");
    for nodes in [3, 100, 1_000, 10_000] {
        let epoch = Epoch::first(equal(nodes, 3)).unwrap();
        let (built, ring) = timed(|| Ring::build(&epoch).unwrap());
        let hashes: Vec<_> = (0..100_000).map(chunk).collect();
        let hash = |number: u64| &hashes[number as usize];
        let owners = one_of(100_000, |number| {
            std::hint::black_box(ring.owners(hash(number), 3));
        });
        let zone_down = one_of(1_000, |number| {
            std::hint::black_box(ring.owners_without(hash(number), 3, &|node| node.0 % 3 == 0));
        });
        let (shares, list) = timed(|| ring.shares(3));
        let off = list
            .iter()
            .map(|share| (share.share / share.fair - 1.0).abs());
        let off = off.fold(0.0, f64::max);
        let next = epoch.next(equal(nodes + 1, 3)).unwrap();
        let next = Ring::build(&next).unwrap();
        let (join, _) = timed(|| moved(&ring, &next, 3));
        println!(
            "| {nodes} | {} | {:.1} MB | {built:.1?} | {owners:.0?} | {zone_down:.1?} | {shares:.1?}, {:.1} % | {join:.1?} |",
            ring.tokens(),
            ring.tokens() as f64 * 8e-6,
            off * 100.0,
        );
    }
}

#[test]
#[ignore = "measures; run with --release --nocapture"]
fn answers_where_a_zone_is_small() {
    for (what, weight) in [
        ("like the others", 1_000),
        ("a hundredth", 10),
        ("a thousandth", 1),
    ] {
        let mut members: Vec<Member> = (1..=9_999)
            .map(|node| member(node, 1_000, ["a", "b"][node as usize % 2], ""))
            .collect();
        members.push(member(10_000, weight, "c", ""));
        let ring = Ring::build(&Epoch::first(members).unwrap()).unwrap();
        let took = one_of(1_000, |number| {
            std::hint::black_box(ring.owners(&chunk(number), 3));
        });
        println!("10,000 nodes, one of them alone in the third zone, {what}: {took:.1?}");
    }
    let (took, _) = timed(|| {
        let tokens = (0..1_000_000).map(|index| token(NodeId(1), index));
        std::hint::black_box(tokens.fold(0, u64::wrapping_add))
    });
    println!("a token is computed in {:.1?}", took / 1_000_000);
    let rings = vec![Arc::new(
        Ring::build(&Epoch::first(equal(1_000, 3)).unwrap()).unwrap(),
    )];
    let open = OpenEpochs::new(rings).unwrap();
    let took = one_of(10_000, |number| {
        std::hint::black_box(open.readers(&chunk(number), 3, &|_| false).count());
    });
    println!("readers of one epoch: {took:.1?}");
}
