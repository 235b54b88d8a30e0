//! What holds for every ring: held against the sweep and against the definition, for clusters drawn
//! at random with named, unnamed and mixed zones and racks.

use super::super::holders::{NODES, RACKS, ZONES};
use super::super::plan::moved;
use super::super::sweep::{CIRCLE, Sweep};
use super::super::{Epoch, Member, Ring, Share};
use super::{chunk, member, ring};
use crate::types::{ChunkHash, NodeId};
use proptest::prelude::*;
use std::collections::BTreeSet;

/// Weights that are far apart, few zones and racks, some of them not named.
fn members(most: usize) -> impl Strategy<Value = Vec<Member>> {
    let weight = prop_oneof![Just(0u32), 1..4u32, 50..200u32, Just(100_000u32)];
    let name = prop_oneof![Just(""), Just("a"), Just("b"), Just("c")];
    let names = prop_oneof![
        (Just(""), Just("")),
        (Just(""), name.clone()),
        (name.clone(), Just("")),
        (name.clone(), name)
    ];
    let one = (weight, names);
    prop::collection::vec(one, 1..=most).prop_map(|list| {
        let nodes = list.into_iter().zip(1..);
        nodes
            .map(|((weight, (zone, rack)), node)| member(node, weight, zone, rack))
            .collect()
    })
}

/// A ring with few tokens, so that drawing many is quick: the base is too high for the weights.
fn small_ring(members: &[Member]) -> Ring {
    with_few_tokens(Epoch::first(members.to_vec()).unwrap())
}

fn with_few_tokens(mut epoch: Epoch) -> Ring {
    epoch.base = epoch.base.saturating_mul(40);
    Ring::build(&epoch).unwrap()
}

/// The definition, by brute force: of the nodes that are up in the order in which the walk meets
/// them, first those that are first in their zone, then those first in their rack, then the rest.
fn by_definition(
    ring: &Ring,
    hash: &ChunkHash,
    copies: usize,
    down: &BTreeSet<NodeId>,
) -> Vec<NodeId> {
    let from = super::super::place::position(hash);
    let start = ring.tokens.partition_point(|token| *token < from);
    let mut met: Vec<u16> = Vec::new();
    for at in 0..ring.tokens.len() {
        let token = ring.tokens[(start + at) % ring.tokens.len()];
        let member = super::super::place::member_of(token);
        if !met.contains(&member) && !down.contains(&ring.holders.node(member)) {
            met.push(member);
        }
    }
    let first_in = |level: usize, at: usize| {
        let domain = ring.holders.domain(level, met[at]);
        !met[..at]
            .iter()
            .any(|other| ring.holders.domain(level, *other) == domain)
    };
    let mut ranked: Vec<(usize, usize)> = (0..met.len())
        .map(|at| {
            let class = [ZONES, RACKS, NODES]
                .into_iter()
                .find(|level| first_in(*level, at));
            (class.unwrap(), at)
        })
        .collect();
    ranked.sort_unstable();
    let nodes = ranked.into_iter().map(|(_, at)| ring.holders.node(met[at]));
    nodes.take(copies).collect()
}

fn domains(ring: &Ring, level: usize, nodes: &[NodeId]) -> usize {
    let holder = |node: &NodeId| ring.nodes().iter().position(|other| other == node).unwrap();
    let used: BTreeSet<u16> = nodes
        .iter()
        .map(|node| ring.holders.domains[level][holder(node)])
        .collect();
    used.len()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn the_walk_gives_what_the_definition_says(
        members in members(12), copies in 0usize..8, number: u64, down in prop::collection::btree_set(1u64..13, 0..6),
    ) {
        let ring = small_ring(&members);
        let down: BTreeSet<NodeId> = down.into_iter().map(NodeId).collect();
        let hash = chunk(number);
        let owners = ring.owners_without(&hash, copies, &|node| down.contains(&node));
        prop_assert_eq!(&owners[..], &by_definition(&ring, &hash, copies, &down)[..]);
        prop_assert_eq!(
            &ring.owners(&hash, copies)[..],
            &by_definition(&ring, &hash, copies, &BTreeSet::new())[..]
        );
    }

    #[test]
    fn owners_are_distinct_on_as_many_zones_then_racks_as_there_can_be(
        members in members(30), copies in 0usize..8, number: u64,
    ) {
        let ring = small_ring(&members);
        let owners = ring.owners(&chunk(number), copies);
        let holders = members.iter().filter(|member| member.weight > 0).count();
        prop_assert_eq!(owners.len(), copies.min(holders));
        prop_assert_eq!(domains(&ring, NODES, &owners), owners.len());
        prop_assert_eq!(domains(&ring, RACKS, &owners), copies.min(ring.holders.counts[RACKS]));
        prop_assert_eq!(domains(&ring, ZONES, &owners), copies.min(ring.holders.counts[ZONES]));
    }

    #[test]
    fn owners_that_are_up_stay_owners(
        members in members(20), copies in 1usize..8, number: u64,
        down in prop::collection::btree_set(1u64..21, 0..20),
    ) {
        let ring = small_ring(&members);
        let down = |node: NodeId| down.contains(&node.0);
        let hash = chunk(number);
        let repair = ring.owners_without(&hash, copies, &down);
        prop_assert!(!repair.iter().any(|node| down(*node)));
        for owner in ring.owners(&hash, copies).iter().filter(|node| !down(**node)) {
            prop_assert!(repair.contains(owner), "{owner:?} of {repair:?}");
        }
        let up = ring.nodes().iter().filter(|node| !down(**node)).count();
        prop_assert_eq!(repair.len(), copies.min(up));
    }

    #[test]
    fn a_node_that_joins_only_takes_and_one_that_leaves_only_gives(
        members in members(15), copies in 1usize..6, leaves: prop::sample::Index,
    ) {
        let with = Epoch::first(members.clone()).unwrap();
        let mut without = with.clone();
        // The same base: another one moves about everything.
        let gone = without.members.remove(leaves.index(members.len())).node;
        let (with, without) = (with_few_tokens(with), with_few_tokens(without));
        let joined = moved(&without, &with, copies);
        for node in &joined.nodes {
            prop_assert!(node.node == gone || node.gained == 0.0, "{joined:?}");
            prop_assert!(node.node != gone || node.lost == 0.0, "{joined:?}");
        }
        let left = moved(&with, &without, copies);
        for node in &left.nodes {
            prop_assert!(node.node == gone || node.lost == 0.0, "{left:?}");
            prop_assert!(node.node != gone || node.gained == 0.0, "{left:?}");
        }
    }

    #[test]
    fn the_order_of_members_does_not_matter(
        members in members(10), number: u64, turn in 0usize..10,
    ) {
        let mut turned = members.clone();
        turned.rotate_left(turn % members.len());
        turned.reverse();
        let (one, other) = (small_ring(&members), small_ring(&turned));
        prop_assert_eq!(&one.tokens, &other.tokens);
        prop_assert_eq!(one.owners(&chunk(number), 3), other.owners(&chunk(number), 3));
    }

    #[test]
    fn the_sweep_gives_what_walks_give(members in members(12), copies in 0usize..6) {
        let ring = small_ring(&members);
        let mut end = CIRCLE;
        let mut parts = 0;
        for part in Sweep::new(&ring, copies) {
            if part.from < end {
                // Both ends of the part.
                for at in [part.from, end - 1] {
                    prop_assert_eq!(part.owners(), ring.owners(&hash_at(at), copies));
                }
            }
            end = part.from;
            parts += 1;
        }
        prop_assert_eq!(end, 0);
        prop_assert_eq!(parts, ring.tokens() + 1);
    }

    #[test]
    fn shares_add_up(members in members(20), copies in 1usize..8) {
        let shares = small_ring(&members).shares(copies);
        let holders = members.iter().filter(|member| member.weight > 0).count();
        prop_assert_eq!(shares.len(), holders);
        let parts: [fn(&Share) -> f64; 2] = [|share| share.share, |share| share.fair];
        for of in parts {
            let sum: f64 = shares.iter().map(of).sum();
            prop_assert!(shares.is_empty() || (sum - 1.0).abs() < 1e-9, "{sum}");
            // No chunk lies twice on one node.
            let most = 1.0 / copies.min(holders).max(1) as f64;
            prop_assert!(shares.iter().map(of).all(|share| share < most + 1e-9));
        }
    }
}

/// A hash that stands at this position.
fn hash_at(position: u64) -> ChunkHash {
    let mut hash = ChunkHash([7; 32]);
    hash.0[..8].copy_from_slice(&(position << 16).to_be_bytes());
    hash
}

#[test]
fn zones_come_before_racks_and_racks_before_nodes() {
    let members = vec![
        member(1, 100, "a", "1"),
        member(2, 100, "a", "1"),
        member(3, 100, "a", "2"),
        member(4, 1, "b", "1"),
    ];
    let ring = ring(members);
    for number in 0..200 {
        let owners = ring.owners(&chunk(number), 4);
        let position = |node| {
            owners
                .iter()
                .position(|owner| *owner == NodeId(node))
                .unwrap()
        };
        // The small one is alone in its zone, so it has a copy of everything; the last is the one
        // that shares a rack with another.
        assert!(position(4) < 2);
        assert!(position(3) < 3);
    }
}

#[test]
fn nodes_without_a_zone_stand_apart_and_a_named_rack_holds_without_a_zone() {
    let members = vec![
        member(1, 100, "", "1"),
        member(2, 100, "", "1"),
        member(3, 100, "", "2"),
        member(4, 100, "", ""),
        member(5, 100, "", ""),
    ];
    let ring = ring(members);
    assert_eq!(ring.holders.counts, [4, 4, 5]);
    for number in 0..200 {
        let owners = ring.owners(&chunk(number), 4);
        assert!(!(owners.contains(&NodeId(1)) && owners.contains(&NodeId(2))));
    }
}

#[test]
fn more_copies_than_can_be_asked_for_are_cut() {
    let ring = ring(super::equal(40, 0));
    let most = crate::limits::COPIES_MAX;
    assert_eq!(ring.owners(&chunk(1), 100).len(), most);
    let sum: f64 = ring.shares(100).iter().map(|share| share.share).sum();
    assert!((sum - 1.0).abs() < 1e-9);
}

#[test]
fn a_long_walk_for_a_small_zone_is_cut_short_and_ends_where_it_would() {
    // Zone b has one token, or a hundredth of all: the walk computes it, or walks on.
    for weight in [1, 100_000] {
        let big = (1..=10).map(|node| member(node, 1_000_000, "a", ""));
        let ring = ring(big.chain([member(11, weight, "b", "")]).collect());
        for number in 0..40 {
            let hash = chunk(number);
            for down in [BTreeSet::new(), BTreeSet::from([NodeId(11)])] {
                let owners = ring.owners_without(&hash, 3, &|node| down.contains(&node));
                assert_eq!(owners[..], by_definition(&ring, &hash, 3, &down));
                assert!(!down.is_empty() || owners[..2].contains(&NodeId(11)));
            }
        }
    }
}
