//! Tests of placement: the format, the laws, the balance.

mod balance;
mod format;
mod laws;
mod measure;
mod open;

use super::{Epoch, Member, Ring};
use crate::types::{ChunkHash, NodeId};

/// A member; an empty zone or rack is not named.
fn member(node: u64, weight: u32, zone: &str, rack: &str) -> Member {
    Member {
        node: NodeId(node),
        weight,
        zone: zone.into(),
        rack: rack.into(),
    }
}

/// So many nodes of equal weight, from 1 up, in so many zones; 0 zones: not named.
fn equal(nodes: u64, zones: u64) -> Vec<Member> {
    let zone = |node: u64| match zones {
        0 => String::new(),
        zones => format!("zone-{}", node % zones),
    };
    (1..=nodes)
        .map(|node| member(node, 100, &zone(node), ""))
        .collect()
}

fn ring(members: Vec<Member>) -> Ring {
    Ring::build(&Epoch::first(members).unwrap()).unwrap()
}

/// A chunk's hash, different for each number.
fn chunk(number: u64) -> ChunkHash {
    ChunkHash::of(&number.to_le_bytes())
}
