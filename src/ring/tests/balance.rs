//! How evenly data lie, and how much moves: for clusters of 10, 100, 1,000 nodes.

use super::super::{Epoch, Ring, Share, moved};
use super::{equal, member, ring};

/// The largest distance of a share from what it should be, in parts of that.
fn imbalance(shares: &[Share]) -> f64 {
    let off = shares
        .iter()
        .map(|share| (share.share / share.fair - 1.0).abs());
    off.fold(0.0, f64::max)
}

fn assert_even(nodes: u64, zones: u64, copies: usize) {
    let shares = ring(equal(nodes, zones)).shares(copies);
    let found = imbalance(&shares);
    println!(
        "{nodes} nodes, {zones} zones, {copies} copies: {:.2} %",
        found * 100.0
    );
    assert!(found < 0.05, "{nodes} nodes, {zones} zones: {found}");
    // Equal nodes in equal zones: each should have the same.
    if zones == 0 || nodes.is_multiple_of(zones) {
        assert!(
            shares
                .iter()
                .all(|share| (share.fair * nodes as f64 - 1.0).abs() < 1e-9)
        );
    }
}

/// A node joins a cluster of equal ones: the part of all copies that it gets against the ideal.
fn assert_moves_little(nodes: u64, zones: u64, copies: usize) {
    let old = Epoch::first(equal(nodes, zones)).unwrap();
    let new = old.next(equal(nodes + 1, zones)).unwrap();
    let movement = moved(
        &Ring::build(&old).unwrap(),
        &Ring::build(&new).unwrap(),
        copies,
    );
    let ideal = 1.0 / (nodes + 1) as f64;
    println!(
        "{nodes} nodes and one: {:.4} of the ideal",
        movement.copied / ideal
    );
    assert!(
        (movement.copied / ideal - 1.0).abs() < 0.1,
        "{}",
        movement.copied
    );
    let joined: Vec<_> = movement
        .nodes
        .iter()
        .filter(|node| node.gained > 0.0)
        .collect();
    assert_eq!(joined.len(), 1);
    assert_eq!(joined[0].node.0, nodes + 1);
}

#[test]
fn equal_nodes_hold_the_same_within_a_twentieth() {
    assert_even(10, 0, 3);
    assert_even(100, 0, 3);
}

#[test]
fn equal_nodes_in_three_zones_hold_the_same_within_a_twentieth() {
    assert_even(12, 3, 3);
    assert_even(99, 3, 3);
}

#[test]
#[ignore = "takes some ten seconds in a debug build; run with --release --ignored"]
fn a_thousand_equal_nodes_hold_the_same_within_a_twentieth() {
    assert_even(1_000, 0, 3);
    assert_even(999, 3, 3);
}

#[test]
fn a_node_that_joins_gets_its_part_and_nobody_else_gets_anything() {
    assert_moves_little(10, 0, 1);
    assert_moves_little(10, 0, 3);
    assert_moves_little(100, 0, 3);
}

#[test]
#[ignore = "takes some ten seconds in a debug build; run with --release --ignored"]
fn a_node_that_joins_a_thousand_gets_its_part_and_nobody_else_gets_anything() {
    assert_moves_little(1_000, 0, 3);
}

#[test]
fn in_three_zones_a_node_that_joins_takes_from_its_zone() {
    let old = Epoch::first(equal(30, 3)).unwrap();
    let new = old.next(equal(31, 3)).unwrap();
    let movement = moved(&Ring::build(&old).unwrap(), &Ring::build(&new).unwrap(), 3);
    // Each zone has a third of the copies, its now 11 nodes an eleventh of that each.
    let ideal = 1.0 / 33.0;
    assert!((movement.copied / ideal - 1.0).abs() < 0.1, "{movement:?}");
    for node in movement.nodes.iter().filter(|node| node.lost > 0.0) {
        assert_eq!(node.node.0 % 3, 31 % 3);
    }
}

#[test]
fn weights_are_kept_without_zones() {
    let weights = [100, 100, 200, 200, 300, 100, 100, 200, 200, 300];
    let nodes = (1..).zip(weights);
    let shares = ring(
        nodes
            .map(|(node, weight)| member(node, weight, "", ""))
            .collect(),
    )
    .shares(1);
    for (share, weight) in shares.iter().zip(weights) {
        assert!((share.fair - f64::from(weight) / 1_800.0).abs() < 1e-9);
    }
    assert!(imbalance(&shares) < 0.05, "{shares:?}");
}

#[test]
fn a_small_zone_is_fuller_and_its_fair_share_says_so() {
    // 6, 6 and 3 nodes: each zone has a third, so those in the small one have twice as much.
    let zones = ["a", "a", "b", "b", "c"];
    let members = (1..=15).map(|node| member(node, 100, zones[node as usize % 5], ""));
    let shares = ring(members.collect()).shares(3);
    for share in &shares {
        let small = zones[share.node.0 as usize % 5] == "c";
        let fair = if small { 1.0 / 9.0 } else { 1.0 / 18.0 };
        assert!((share.fair - fair).abs() < 1e-9, "{share:?}");
    }
    assert!(imbalance(&shares) < 0.05, "{shares:?}");
}

#[test]
fn a_node_larger_than_all_others_has_one_copy_of_everything() {
    let mut members = equal(4, 0);
    members[0].weight = 1_000;
    let shares = ring(members).shares(2);
    assert!((shares[0].fair - 0.5).abs() < 1e-9);
    assert!((shares[1].fair - 1.0 / 6.0).abs() < 1e-9);
    assert!(shares[0].share > 0.45 && shares[0].share <= 0.5);
}

#[test]
fn two_zones_and_three_copies_fill_racks_by_their_room() {
    // One copy in each zone; the third in a second rack, which only zone a has.
    let members = vec![
        member(1, 100, "a", "1"),
        member(2, 100, "a", "2"),
        member(3, 100, "b", "1"),
        member(4, 100, "b", "1"),
    ];
    let shares = ring(members).shares(3);
    let fair = [1.0 / 3.0, 1.0 / 3.0, 1.0 / 6.0, 1.0 / 6.0];
    for (share, fair) in shares.iter().zip(fair) {
        assert!((share.fair - fair).abs() < 1e-9, "{shares:?}");
        assert!((share.share / fair - 1.0).abs() < 0.05, "{shares:?}");
    }
}

#[test]
fn another_base_moves_about_half_and_nothing_among_as_many_nodes_as_copies() {
    let twice = |epoch: &Epoch| {
        let mut other = epoch.clone();
        other.base *= 2;
        other
    };
    for (nodes, least, most) in [(3, 0.0, 0.0), (20, 0.3, 0.6)] {
        let epoch = Epoch::first(equal(nodes, 0)).unwrap();
        let (old, new) = (Ring::build(&epoch), Ring::build(&twice(&epoch)));
        let movement = moved(&old.unwrap(), &new.unwrap(), 3);
        println!("another base, {nodes} nodes: {:.3} copied", movement.copied);
        assert!(
            (least..=most).contains(&movement.copied),
            "{}",
            movement.copied
        );
    }
}

#[test]
fn the_first_nodes_of_a_cluster_get_copies_until_there_are_enough() {
    let one = Epoch::first(equal(1, 0)).unwrap();
    let two = one.next(equal(2, 0)).unwrap();
    let (one, two) = (Ring::build(&one).unwrap(), Ring::build(&two).unwrap());
    let movement = moved(&one, &two, 3);
    assert_eq!(movement.changed, 1.0);
    // One of two copies of everything is new, and the first node loses nothing.
    assert_eq!(movement.copied, 0.5);
    assert_eq!(movement.nodes.len(), 1);
    assert_eq!(movement.nodes[0].lost, 0.0);
}
