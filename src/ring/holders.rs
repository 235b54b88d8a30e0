//! Pure: the members of an epoch that hold something, by index, and which of them fail together.
//! Called by the ring and the planner.
//!
//! A name that is not given is as small as the next smaller thing that is known: a node without a
//! rack is a rack of its own, and a node without a zone has its rack for a zone. So:
//! - with nothing named, every node is a zone of its own, and copies lie on distinct nodes;
//! - with racks only, racks are the zones;
//! - with zones only, nodes are the racks.
//!
//! What a node counts for depends on its own names alone, so that naming one node's zone moves
//! nothing between others. The price, where only some are named: nodes without a zone are believed
//! to stand apart although nothing says so, and a single one beside two zones gets a copy of every
//! chunk if there are three, like a third zone would. Name all zones or none.

use super::epoch::Epoch;
use crate::types::NodeId;
use std::collections::HashMap;

/// What copies are spread over, widest first. Each domain of a level lies within one of the level
/// before: a node in one rack, a rack in one zone.
pub(super) const LEVELS: [usize; 3] = [ZONES, RACKS, NODES];
pub(super) const ZONES: usize = 0;
pub(super) const RACKS: usize = 1;
pub(super) const NODES: usize = 2;

/// Members of weight above 0, in the order of their node ids; an index is a position in it.
pub(super) struct Holders {
    pub(super) nodes: Vec<NodeId>,
    /// In units of capacity.
    pub(super) weights: Vec<u32>,
    /// Tokens of each.
    pub(super) tokens: Vec<u32>,
    /// By level: the domain of each.
    pub(super) domains: [Vec<u16>; 3],
    /// By level: how many domains there are.
    pub(super) counts: [usize; 3],
}

/// A domain by what names it.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Domain<'a> {
    Zone(&'a str),
    Rack(&'a str, &'a str),
    Node(NodeId),
}

impl Holders {
    /// Of an epoch whose invariants hold.
    pub(super) fn of(epoch: &Epoch) -> Holders {
        let mut holders = Holders {
            nodes: Vec::new(),
            weights: Vec::new(),
            tokens: Vec::new(),
            domains: [Vec::new(), Vec::new(), Vec::new()],
            counts: [0; 3],
        };
        let mut known = [HashMap::new(), HashMap::new(), HashMap::new()];
        for member in epoch.members.iter().filter(|member| member.weight > 0) {
            holders.nodes.push(member.node);
            holders.weights.push(member.weight);
            holders.tokens.push(epoch.tokens(member.weight));
            let node = Domain::Node(member.node);
            let rack = match member.rack.as_str() {
                "" => node.clone(),
                rack => Domain::Rack(&member.zone, rack),
            };
            let zone = match member.zone.as_str() {
                "" => rack.clone(),
                zone => Domain::Zone(zone),
            };
            for (level, domain) in LEVELS.into_iter().zip([zone, rack, node]) {
                let new = known[level].len();
                let index = *known[level].entry(domain).or_insert(new);
                let index = u16::try_from(index).expect("an epoch has at most 20,000 members");
                holders.domains[level].push(index);
            }
        }
        holders.counts = LEVELS.map(|level| known[level].len());
        holders
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The domain of a holder at a level.
    pub(super) fn domain(&self, level: usize, member: u16) -> u16 {
        self.domains[level][usize::from(member)]
    }

    pub(super) fn node(&self, member: u16) -> NodeId {
        self.nodes[usize::from(member)]
    }
}
