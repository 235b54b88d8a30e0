//! Pure: what an epoch means as a whole: who holds how much, who should, and what a change of
//! members moves. Called by `dfs ring plan`, the rebalancing and the tests; exact, over every part
//! of the circle.

use super::holders::{Holders, NODES, RACKS, ZONES};
use super::place::Ring;
use super::sweep::{CIRCLE, Part, Sweep};
use crate::limits::COPIES_MAX;
use crate::types::NodeId;
use std::cmp::{max, min};
use std::collections::BTreeMap;

/// What one node holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Share {
    pub node: NodeId,
    /// Its part of all copies; those of all nodes together are 1.
    pub share: f64,
    /// The part it should have: by weight, as far as copies may lie together. Zones of unequal
    /// size cannot be filled by weight if each must have a copy, and this counts that in; so
    /// `share / fair` is what chance makes, and `fair` against the weight is what the
    /// constraint makes. Where zones are few and unequal the walk favours the light ones a
    /// little against it.
    pub fair: f64,
}

/// What one node gets and gives when an epoch follows another, as parts of all copies.
#[derive(Clone, Debug, PartialEq)]
pub struct Moved {
    pub node: NodeId,
    pub gained: f64,
    pub lost: f64,
}

/// What moves when an epoch follows another.
#[derive(Clone, Debug, PartialEq)]
pub struct Movement {
    /// Part of all chunks of which at least one owner changes.
    pub changed: f64,
    /// Part of all copies that must be made: the sum of what nodes gain.
    pub copied: f64,
    /// Nodes that gain or lose something, in the order of their ids.
    pub nodes: Vec<Moved>,
}

impl Ring {
    /// What each node holds of all copies, in the order of node ids. Exact; takes as long as
    /// building the ring.
    pub fn shares(&self, copies: usize) -> Vec<Share> {
        let mut held = vec![0u64; self.holders.len()];
        let mut end = CIRCLE;
        for part in Sweep::new(self, copies) {
            for member in part.members() {
                held[usize::from(*member)] += end - part.from;
            }
            end = part.from;
        }
        let copies = placed(self, copies) as f64;
        let fair = fair_copies(&self.holders, copies);
        // Without copies all shares are 0.
        let copies = copies.max(1.0);
        let nodes = self.holders.nodes.iter().zip(held).zip(fair);
        nodes
            .map(|((node, held), fair)| Share {
                node: *node,
                share: held as f64 / (CIRCLE as f64 * copies),
                fair: fair / copies,
            })
            .collect()
    }
}

/// Copies that a ring can place.
fn placed(ring: &Ring, copies: usize) -> usize {
    min(copies, COPIES_MAX).min(ring.holders.len())
}

/// What has to move when `new` follows `old`. A chunk whose owners only change their order moves
/// nothing. Parts of all copies are those of the new epoch.
pub fn moved(old: &Ring, new: &Ring, copies: usize) -> Movement {
    let mut changed = 0u64;
    let mut nodes: BTreeMap<NodeId, (u64, u64)> = BTreeMap::new();
    for_each_pair(old, new, copies, |length, before, after| {
        let (before, after) = (before.owners(), after.owners());
        let gained = after.iter().filter(|node| !before.contains(node));
        let lost = before.iter().filter(|node| !after.contains(node));
        let mut differs = false;
        for node in gained {
            nodes.entry(*node).or_default().0 += length;
            differs = true;
        }
        for node in lost {
            nodes.entry(*node).or_default().1 += length;
            differs = true;
        }
        changed += if differs { length } else { 0 };
    });
    let all = CIRCLE as f64 * placed(new, copies).max(1) as f64;
    let nodes: Vec<Moved> = nodes
        .into_iter()
        .map(|(node, (gained, lost))| Moved {
            node,
            gained: gained as f64 / all,
            lost: lost as f64 / all,
        })
        .collect();
    Movement {
        changed: changed as f64 / CIRCLE as f64,
        copied: nodes.iter().map(|moved| moved.gained).sum(),
        nodes,
    }
}

/// Calls with each part of the circle in which the owners of neither ring change: its length, the
/// part of the old ring and that of the new it lies in.
fn for_each_pair(old: &Ring, new: &Ring, copies: usize, mut each: impl FnMut(u64, &Part, &Part)) {
    let (mut olds, mut news) = (Sweep::new(old, copies), Sweep::new(new, copies));
    let (mut before, mut after) = (olds.next(), news.next());
    let mut end = CIRCLE;
    while let (Some(old), Some(new)) = (&before, &after) {
        let from = max(old.from, new.from);
        if from < end {
            each(end - from, old, new);
        }
        end = from;
        let (old_done, new_done) = (old.from == from, new.from == from);
        if old_done {
            before = olds.next();
        }
        if new_done {
            after = news.next();
        }
    }
}

/// Domains of one level within one of the level before: what they weigh, how many racks and nodes
/// they have.
#[derive(Clone, Default)]
struct Group {
    weight: f64,
    racks: f64,
    nodes: f64,
    /// The domains, of the next level, that lie in it.
    inside: BTreeMap<u16, Group>,
}

/// Copies of a chunk that each holder should have on average, as the rules of the walk allow: one
/// for each zone by weight; what is left for racks, then for nodes, by weight.
fn fair_copies(holders: &Holders, copies: f64) -> Vec<f64> {
    let mut root = Group::default();
    for member in 0..holders.len() {
        let weight = f64::from(holders.weights[member]);
        let mut group = &mut root;
        group.weight += weight;
        for level in [ZONES, RACKS, NODES] {
            let domain = holders.domains[level][member];
            group = group.inside.entry(domain).or_default();
            group.weight += weight;
            group.nodes += 1.0;
        }
    }
    for zone in root.inside.values_mut() {
        zone.racks = zone.inside.len() as f64;
        zone.inside.values_mut().for_each(|rack| {
            rack.racks = 1.0;
            rack.inside.values_mut().for_each(|node| node.racks = 1.0);
        });
    }
    let mut fair = vec![0.0; holders.len()];
    for (zone, copies) in spread(&root, copies) {
        for (rack, copies) in spread(zone, copies) {
            for (member, (_, copies)) in rack.inside.keys().zip(spread(rack, copies)) {
                // At the level of nodes the domain is the holder's index.
                fair[usize::from(*member)] = copies;
            }
        }
    }
    fair
}

/// Spreads copies over what is inside a group: first one each, then as many as there are more
/// racks, then as many as there are more nodes.
fn spread(group: &Group, copies: f64) -> Vec<(&Group, f64)> {
    let parts: Vec<&Group> = group.inside.values().collect();
    let mut got = vec![0.0; parts.len()];
    let mut left = copies;
    let rounds: [fn(&Group) -> f64; 3] = [
        |_| 1.0,
        |part| part.racks - 1.0,
        |part| part.nodes - part.racks,
    ];
    for most in rounds {
        let room: Vec<f64> = parts.iter().map(|part| most(part)).collect();
        let amount = left.min(room.iter().sum());
        fill(&parts, &room, amount, &mut got);
        left -= amount;
    }
    parts.into_iter().zip(got).collect()
}

/// Gives an amount out by weight, to none more than it has room for; what it cannot take goes to
/// the others.
fn fill(parts: &[&Group], room: &[f64], amount: f64, got: &mut [f64]) {
    let mut order: Vec<usize> = (0..parts.len()).collect();
    let fullness = |at: &usize| room[*at] / parts[*at].weight;
    order.sort_by(|a, b| fullness(a).total_cmp(&fullness(b)));
    let mut weight: f64 = parts.iter().map(|part| part.weight).sum();
    let mut left = amount;
    for at in order {
        // Sums of fractions leave a rest that is not quite zero.
        let given = (left * parts[at].weight / weight.max(parts[at].weight)).min(room[at]);
        got[at] += given;
        left -= given;
        weight -= parts[at].weight;
    }
}
