//! What every machine must agree on: tokens, positions, the stored epoch.

use super::super::place::{member_of, position, token};
use super::super::{Epoch, Ring, TOKENS_PER_NODE, weight_of};
use super::{chunk, equal, member, ring};
use crate::codec;
use crate::limits::{GIB, RING_MEMBERS_MAX};
use crate::types::{self, ChunkHash, NodeId};

/// Computed from the published definition of seahash, not by this program.
#[test]
fn tokens_are_what_they_always_were() {
    let golden = [
        (1, 0, 0xe7c0_7458_43d1_bea7),
        (1, 1, 0x819d_4b4a_9af4_e5b1),
        (2, 0, 0x4c06_78a3_cb49_be2d),
        (10_000, 3_999, 0x5774_e4a6_6910_cd57),
        (u64::MAX, u32::MAX, 0xcd59_98cf_34c2_c8c8),
    ];
    for (node, index, expected) in golden {
        assert_eq!(
            token(NodeId(node), index),
            expected,
            "token {index} of {node}: {:#018x}",
            token(NodeId(node), index)
        );
    }
}

#[test]
fn a_chunk_stands_where_its_hash_begins() {
    let mut hash = ChunkHash([0xff; 32]);
    hash.0[..8].copy_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(position(&hash), 0x0102_0304_0506_0000);
}

#[test]
fn owners_are_what_they_always_were() {
    let places = [("a", "1"), ("a", "2"), ("b", "1"), ("", "9"), ("", "")];
    let members = (1..=10).map(|node| {
        let (zone, rack) = places[node as usize % places.len()];
        member(node, 10 * node as u32, zone, rack)
    });
    let ring = ring(members.collect());
    let owners: Vec<Vec<u64>> = (0..4)
        .map(|number| {
            let owners = ring.owners(&chunk(number), 4);
            owners.iter().map(|node| node.0).collect()
        })
        .collect();
    assert_eq!(
        owners,
        [[10u64, 3, 7, 4], [6, 9, 7, 3], [7, 8, 1, 9], [9, 8, 7, 6]]
    );
}

#[test]
fn an_epoch_is_stored_as_it_always_was() {
    let epoch = Epoch {
        epoch: types::Epoch(7),
        base: 300,
        members: vec![member(1, 200, "z", "r"), member(300, 400, "", "")],
    };
    let bytes = codec::encode(&epoch);
    let expected = [
        1, 7, 0xac, 2, 2, 1, 0xc8, 1, 1, b'z', 1, b'r', 0xac, 2, 0x90, 3, 0, 0,
    ];
    assert_eq!(bytes, expected);
    assert_eq!(codec::decode::<Epoch>(&bytes).unwrap(), epoch);
}

#[test]
fn tokens_are_sorted_and_of_the_right_number() {
    let ring = ring(vec![
        member(3, 100, "", ""),
        member(1, 300, "", ""),
        member(2, 0, "", ""),
    ]);
    assert!(ring.tokens.is_sorted());
    assert_eq!(ring.nodes(), [NodeId(1), NodeId(3)]);
    assert_eq!(ring.tokens(), 12_000);
    let first = ring.tokens.iter().filter(|token| member_of(**token) == 0);
    assert_eq!(first.count(), 9_000);
}

#[test]
fn the_smallest_node_has_a_token_and_a_node_without_weight_none() {
    let ring = ring(vec![
        member(1, u32::MAX, "", ""),
        member(2, 1, "", ""),
        member(3, 0, "", ""),
    ]);
    assert_eq!(ring.tokens(), 12_001);
    assert_eq!(ring.owners(&chunk(1), 3).len(), 2);
}

#[test]
fn nobody_owns_anything_where_nobody_has_weight() {
    for members in [vec![], vec![member(1, 0, "", "")]] {
        let ring = ring(members);
        assert!(ring.owners(&chunk(1), 3).is_empty());
        assert!(ring.shares(3).is_empty());
        assert_eq!(super::super::moved(&ring, &ring, 3).copied, 0.0);
    }
}

#[test]
fn a_capacity_is_rounded_up_to_units() {
    assert_eq!(weight_of(0), 0);
    assert_eq!(weight_of(1), 1);
    assert_eq!(weight_of(GIB), 1);
    assert_eq!(weight_of(GIB + 1), 2);
    assert_eq!(weight_of(u64::MAX), u32::MAX);
}

#[test]
fn the_base_stays_until_the_mean_weight_has_doubled_or_halved() {
    let first = Epoch::first(equal(4, 0)).unwrap();
    assert_eq!((first.epoch, first.base), (types::Epoch(1), 100));
    let mean = |weight| (1..=4).map(|node| member(node, weight, "", "")).collect();
    for (weight, base) in [(200, 100), (201, 201), (50, 100), (49, 49)] {
        let next = first.next(mean(weight)).unwrap();
        assert_eq!((next.epoch, next.base), (types::Epoch(2), base), "{weight}");
        let tokens = Ring::build(&next).unwrap().tokens() as u64;
        assert!((3_000..=12_000).contains(&(tokens / 4)));
        assert!(weight != base || tokens == 4 * TOKENS_PER_NODE);
    }
}

#[test]
fn epochs_that_cannot_be_are_refused() {
    let good = Epoch::first(equal(3, 0)).unwrap();
    good.check().unwrap();
    let broken: [fn(&mut Epoch); 6] = [
        |epoch| epoch.members.reverse(),
        |epoch| epoch.members[1].node = NodeId(1),
        |epoch| epoch.base = 0,
        |epoch| epoch.base = 49,
        |epoch| epoch.members[0].weight = u32::MAX,
        |epoch| epoch.members[2].rack = "r".repeat(65),
    ];
    for (number, change) in broken.into_iter().enumerate() {
        let mut epoch = good.clone();
        change(&mut epoch);
        assert!(Ring::build(&epoch).is_err(), "{number}");
    }
    assert!(Epoch::first(vec![member(1, 1, "", ""), member(1, 2, "", "")]).is_err());
    let mut crowd = good.clone();
    crowd.members = equal(RING_MEMBERS_MAX as u64 + 1, 0);
    assert!(crowd.check().is_err());
    assert!(codec::decode::<Epoch>(&codec::encode(&crowd)).is_err());
}
