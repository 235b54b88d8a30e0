//! Pure: which nodes should have a replica of a group, and the next step towards it. Called by
//! `membership` on the group's leader with what it knows; one step is done at a time.
//!
//! # Rules
//! 1. A group has three voters; two only while the cluster has two nodes, one while it has one.
//! 2. Voters stand in as many zones as possible, then in as many racks.
//! 3. A replica is moved only off a node that is draining, removed or offline, off a broken
//!    replica, or to a zone or rack that adds a domain: never just to be elsewhere.
//! 4. A voter is dropped only in the same change that brings its successor, which has caught up
//!    by then; a node that is offline keeps its vote until there is a successor.
//! 5. A node that is not heard of gets nothing new.
//! 6. A new replica takes the place of a broken one on its node, which is forgotten then with its
//!    vote: so one at a time, and where a majority could not do without that vote, it is taken
//!    from the replica first. A broken replica may be running and its vote be worth something.

use crate::proto::{NodeInfo, NodeState};
use crate::types::{NodeId, ReplicaId};
use std::collections::{BTreeMap, BTreeSet};

/// Voters of a group, where the cluster has so many nodes.
pub const VOTERS: usize = 3;

/// One replica of the group, as its leader knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replica {
    pub id: ReplicaId,
    pub node: NodeId,
    pub votes: bool,
    /// It has nearly all that the leader has, and what else a voter of its group needs.
    pub can_vote: bool,
    /// Its node says that it cannot be used, or it has not moved for too long.
    pub broken: bool,
}

/// What the leader knows.
pub struct Known<'a> {
    pub replicas: &'a [Replica],
    pub leader: ReplicaId,
    /// All nodes of the cluster.
    pub nodes: &'a [NodeInfo],
    pub online: &'a BTreeSet<NodeId>,
    /// Silent for too long; a node may be neither.
    pub offline: &'a BTreeSet<NodeId>,
    /// Replicas of all groups on a node.
    pub loads: &'a BTreeMap<NodeId, usize>,
}

/// The next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make a replica on this node and let it learn.
    AddLearner(NodeId),
    RemoveLearner(ReplicaId),
    /// These vote from here on, all others are removed.
    ChangeVoters(BTreeSet<ReplicaId>),
}

impl Known<'_> {
    /// `None`: nothing to do, or something to wait for.
    pub fn next(&self) -> Option<Step> {
        let wanted = self.wanted();
        if wanted.is_empty() {
            return None;
        }
        let usable = |replica: &&Replica| !replica.broken;
        let on = |node: NodeId| {
            let mut all = self.replicas.iter().filter(usable);
            all.find(|replica| replica.node == node)
        };
        // A learner that is of no use goes first: its node may get a new one.
        let useless = self
            .replicas
            .iter()
            .find(|replica| !replica.votes && (replica.broken || !wanted.contains(&replica.node)));
        if let Some(useless) = useless {
            return Some(Step::RemoveLearner(useless.id));
        }
        let voters: BTreeSet<ReplicaId> = self
            .replicas
            .iter()
            .filter(|replica| replica.votes)
            .map(|replica| replica.id)
            .collect();
        let learns = self.replicas.iter().any(|replica| !replica.votes);
        for node in &wanted {
            if on(*node).is_some() || !self.online.contains(node) {
                continue;
            }
            match self.broken_voter_on(*node) {
                None => return Some(Step::AddLearner(*node)),
                Some(_) if learns => {}
                Some(lost) if voters.len() == 2 => {
                    let others = voters.into_iter().filter(|voter| *voter != lost);
                    return Some(Step::ChangeVoters(others.collect()));
                }
                Some(_) => return Some(Step::AddLearner(*node)),
            }
        }
        let mut next = BTreeSet::new();
        for node in &wanted {
            let Some(replica) = on(*node) else {
                // Its turn comes when the one that learns now votes.
                next.insert(self.broken_voter_on(*node)?);
                continue;
            };
            if !replica.votes && !replica.can_vote {
                return None;
            }
            next.insert(replica.id);
        }
        (next != voters).then_some(Step::ChangeVoters(next))
    }

    fn broken_voter_on(&self, node: NodeId) -> Option<ReplicaId> {
        let mut all = self.replicas.iter();
        let found = all.find(|one| one.node == node && one.votes && one.broken);
        found.map(|replica| replica.id)
    }

    /// The nodes that should have a voter.
    fn wanted(&self) -> BTreeSet<NodeId> {
        let members: Vec<&NodeInfo> = self
            .nodes
            .iter()
            .filter(|node| node.state == NodeState::Member)
            .collect();
        let candidates: Vec<&NodeInfo> = members
            .iter()
            .copied()
            .filter(|node| self.online.contains(&node.node) || self.votes_on(node.node))
            .collect();
        let target = match candidates.len() {
            0 => return BTreeSet::new(),
            1 => 1,
            2 => 2,
            _ => VOTERS,
        };
        let mut chosen: Vec<&NodeInfo> = Vec::new();
        while chosen.len() < target {
            let left = candidates
                .iter()
                .copied()
                .filter(|node| chosen.iter().all(|other| other.node != node.node));
            let Some(best) = left.max_by_key(|node| self.rank(node, &chosen)) else {
                break;
            };
            chosen.push(best);
        }
        chosen.into_iter().map(|node| node.node).collect()
    }

    /// Rules 2, 3 and 4 in order of weight.
    fn rank(&self, node: &NodeInfo, chosen: &[&NodeInfo]) -> impl Ord + use<> {
        let alive = !self.offline.contains(&node.node);
        let new = |domain: fn(&NodeInfo) -> (&str, &str)| {
            let own = domain(node);
            chosen.iter().all(|other| domain(other) != own)
        };
        let zone = new(|node| (&node.zone, ""));
        let rack = new(|node| (&node.zone, &node.rack));
        let leads = self
            .replicas
            .iter()
            .any(|replica| replica.id == self.leader && replica.node == node.node);
        let here = self
            .replicas
            .iter()
            .any(|replica| replica.node == node.node && !replica.broken);
        let load = self.loads.get(&node.node).copied().unwrap_or(0);
        (
            alive,
            zone,
            rack,
            leads,
            self.votes_on(node.node),
            here,
            std::cmp::Reverse(load),
            std::cmp::Reverse(node.node),
        )
    }

    fn votes_on(&self, node: NodeId) -> bool {
        self.replicas
            .iter()
            .any(|replica| replica.node == node && replica.votes && !replica.broken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::Life;
    use proptest::prelude::*;

    fn node(id: u64, zone: &str) -> NodeInfo {
        NodeInfo {
            node: NodeId(id),
            address: String::new(),
            zone: zone.into(),
            rack: String::new(),
            life: Life::default(),
            version: String::new(),
            weight: 1,
            state: NodeState::Member,
        }
    }

    struct World {
        nodes: Vec<NodeInfo>,
        replicas: Vec<Replica>,
        next: u64,
        online: BTreeSet<NodeId>,
        offline: BTreeSet<NodeId>,
        /// Voters whose node has another replica now: they never answer again.
        forgotten: BTreeSet<ReplicaId>,
    }

    impl World {
        fn new(zones: &[&str]) -> World {
            let nodes: Vec<_> = zones
                .iter()
                .zip(1..)
                .map(|(zone, id)| node(id, zone))
                .collect();
            World {
                online: nodes.iter().map(|node| node.node).collect(),
                nodes,
                replicas: vec![Replica {
                    id: ReplicaId(1),
                    node: NodeId(1),
                    votes: true,
                    can_vote: true,
                    broken: false,
                }],
                next: 2,
                offline: BTreeSet::new(),
                forgotten: BTreeSet::new(),
            }
        }

        /// More than half of the voters answer.
        fn assert_majority(&self) {
            let voters = self.replicas.iter().filter(|r| r.votes);
            let (mut all, mut live) = (0, 0);
            for voter in voters {
                all += 1;
                let answers = !self.forgotten.contains(&voter.id);
                live += usize::from(answers && !self.offline.contains(&voter.node));
            }
            assert!(live * 2 > all, "{live} of {all} voters answer");
        }

        fn next(&self) -> Option<Step> {
            let voter = self.replicas.iter().find(|replica| {
                replica.votes && !replica.broken && !self.offline.contains(&replica.node)
            });
            Known {
                replicas: &self.replicas,
                leader: voter.expect("somebody leads").id,
                nodes: &self.nodes,
                online: &self.online,
                offline: &self.offline,
                loads: &BTreeMap::new(),
            }
            .next()
        }

        /// Does steps until there are none; learners catch up at once.
        fn settle(&mut self) -> Vec<u64> {
            for _ in 0..50 {
                let Some(step) = self.next() else {
                    let mut on: Vec<u64> = self.replicas.iter().map(|r| r.node.0).collect();
                    on.sort_unstable();
                    return on;
                };
                match step {
                    Step::AddLearner(node) => {
                        assert!(self.online.contains(&node));
                        let live = |r: &Replica| r.node == node && !r.broken;
                        assert!(!self.replicas.iter().any(live));
                        let forgotten = self.replicas.iter().filter(|r| r.node == node);
                        self.forgotten.extend(forgotten.map(|r| r.id));
                        self.assert_majority();
                        self.replicas.push(Replica {
                            id: ReplicaId(self.next),
                            node,
                            votes: false,
                            can_vote: true,
                            broken: false,
                        });
                        self.next += 1;
                    }
                    Step::RemoveLearner(id) => {
                        self.replicas.retain(|r| r.id != id);
                    }
                    Step::ChangeVoters(voters) => {
                        assert!(!voters.is_empty());
                        self.assert_majority();
                        self.replicas.retain(|r| voters.contains(&r.id));
                        self.replicas.iter_mut().for_each(|r| r.votes = true);
                        self.assert_majority();
                    }
                }
            }
            panic!("it never settles");
        }

        fn silence(&mut self, id: u64) {
            self.online.remove(&NodeId(id));
            self.offline.insert(NodeId(id));
        }
    }

    #[test]
    fn groups_grow_with_the_cluster_up_to_three() {
        for (nodes, expected) in [(1, vec![1]), (2, vec![1, 2]), (3, vec![1, 2, 3])] {
            assert_eq!(World::new(&vec![""; nodes]).settle(), expected);
        }
        assert_eq!(World::new(&[""; 7]).settle().len(), 3);
    }

    #[test]
    fn voters_stand_in_different_zones() {
        let mut world = World::new(&["a", "a", "a", "b", "c"]);
        assert_eq!(world.settle(), [1, 4, 5]);
        // A zone that comes later takes a voter of a zone that has two.
        let mut world = World::new(&["a", "a", "b"]);
        assert_eq!(world.settle(), [1, 2, 3]);
        world.nodes.push(node(4, "c"));
        world.online.insert(NodeId(4));
        assert_eq!(world.settle(), [1, 3, 4]);
    }

    #[test]
    fn an_offline_voter_stays_until_there_is_a_successor() {
        let mut world = World::new(&[""; 3]);
        world.settle();
        world.silence(2);
        assert_eq!(world.next(), None);
        world.nodes.push(node(4, ""));
        world.online.insert(NodeId(4));
        assert_eq!(world.settle(), [1, 3, 4]);
    }

    #[test]
    fn a_draining_node_is_left_and_a_broken_replica_replaced_where_it_is() {
        let mut world = World::new(&[""; 4]);
        assert_eq!(world.settle(), [1, 2, 3]);
        world.nodes[0].state = NodeState::Draining;
        assert_eq!(world.settle(), [2, 3, 4]);
        world.replicas[1].broken = true;
        let lost = world.replicas[1];
        world.settle();
        assert_eq!(world.replicas.len(), 3);
        assert!(world.replicas.iter().all(|r| r.id != lost.id && !r.broken));
    }

    #[test]
    fn damaged_replicas_are_replaced_without_ever_losing_the_majority() {
        for nodes in 2..5 {
            for damaged in 1..nodes.min(VOTERS) {
                let mut world = World::new(&vec![""; nodes]);
                let before = world.settle();
                for replica in world.replicas.iter_mut().skip(1).take(damaged) {
                    replica.broken = true;
                }
                assert_eq!(world.settle().len(), before.len());
                assert!(world.replicas.iter().all(|r| r.votes && !r.broken));
            }
        }
    }

    #[test]
    fn nothing_moves_while_a_node_is_only_quiet() {
        let mut world = World::new(&[""; 4]);
        world.settle();
        world.online.remove(&NodeId(2));
        assert_eq!(world.next(), None);
    }

    proptest! {
        /// Whatever the cluster is, it settles, and on what the rules say.
        #[test]
        fn always_settles(
            zones in prop::collection::vec(0u8..4, 1..9),
            silent in prop::collection::btree_set(2u64..9, 0..3),
        ) {
            let names: Vec<String> = zones.iter().map(|zone| format!("z{zone}")).collect();
            let mut world = World::new(&names.iter().map(String::as_str).collect::<Vec<_>>());
            world.settle();
            for id in silent.iter().filter(|id| **id as usize <= zones.len()) {
                let quorum = world.replicas.iter().filter(|r| r.node.0 != *id).count();
                if quorum * 2 > world.replicas.len() {
                    world.silence(*id);
                    world.settle();
                }
            }
            let on = world.settle();
            prop_assert!(on.len() <= VOTERS);
            prop_assert!(!on.is_empty());
            let distinct: BTreeSet<_> = on.iter().collect();
            prop_assert_eq!(distinct.len(), on.len());
        }
    }
}
