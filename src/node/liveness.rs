//! Pure: who was heard of when, in the memory of the root group's leader. Only changes of state
//! are ever logged, and not by this.

use crate::proto::{Beat, GroupPlace, ReplicaBeat};
use crate::types::{GroupId, NodeId, ReplicaId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A node that was heard of within this is online: it gets new work.
pub const ONLINE_WITHIN: Duration = Duration::from_secs(5);

/// What was heard of the nodes of the cluster since this leadership began.
#[derive(Default)]
pub struct Liveness {
    /// The term of the leadership; 0 before the first.
    term: u64,
    /// When it began, monotonic; silence is counted from there for those never heard.
    since: Duration,
    heard: BTreeMap<NodeId, (Duration, Beat)>,
}

impl Liveness {
    /// What was heard in the leadership of this term. A new one knows nobody yet: what was heard
    /// in an earlier one, or nothing at all, must not make anybody look silent.
    pub fn in_term(&mut self, term: u64, now: Duration) -> &mut Self {
        if self.term != term {
            *self = Liveness {
                term,
                since: now,
                heard: BTreeMap::new(),
            };
        }
        self
    }

    pub fn hear(&mut self, node: NodeId, beat: Beat, now: Duration) {
        self.heard.insert(node, (now, beat));
    }

    /// How long a node has been silent, as far as this leader can know.
    pub fn silence(&self, node: NodeId, now: Duration) -> Duration {
        let last = self.heard.get(&node).map_or(self.since, |(at, _)| *at);
        now.saturating_sub(last)
    }

    /// The last heartbeat of a node and its age; `None`: none since the leadership began.
    pub fn last(&self, node: NodeId, now: Duration) -> Option<(Duration, &Beat)> {
        let (at, beat) = self.heard.get(&node)?;
        Some((now.saturating_sub(*at), beat))
    }

    pub fn online(&self, now: Duration) -> BTreeSet<NodeId> {
        let fresh = |(at, _): &(Duration, Beat)| now.saturating_sub(*at) <= ONLINE_WITHIN;
        let heard = self.heard.iter().filter(|(_, heard)| fresh(heard));
        heard.map(|(node, _)| *node).collect()
    }

    /// Of these nodes, those that have been silent for `offline_after`.
    pub fn offline(
        &self,
        nodes: impl Iterator<Item = NodeId>,
        now: Duration,
        offline_after: Duration,
    ) -> BTreeSet<NodeId> {
        nodes
            .filter(|node| self.silence(*node, now) >= offline_after)
            .collect()
    }

    /// Where the groups are: what each group's leader of the newest term says.
    pub fn places(&self, now: Duration) -> Vec<GroupPlace> {
        let mut places: BTreeMap<GroupId, GroupPlace> = BTreeMap::new();
        for (node, (at, beat)) in &self.heard {
            let fresh = now.saturating_sub(*at) <= ONLINE_WITHIN;
            for replica in beat.replicas.iter().filter(|replica| replica.leads) {
                let place = GroupPlace {
                    group: replica.group,
                    prefix: prefix_of(replica.group),
                    leader: fresh.then_some(*node),
                    term: replica.term,
                    voters: replica.voters.clone(),
                    settled: replica.settled.clone(),
                    learners: replica.learners.clone(),
                    broken: self.broken(replica),
                    applied: replica.applied,
                    entries: replica.entries,
                    bytes: replica.bytes,
                    deletions: replica.deletions,
                };
                let known = places.entry(replica.group).or_insert_with(|| place.clone());
                if known.term <= place.term {
                    *known = place;
                }
            }
        }
        places.into_values().collect()
    }

    /// Members of the group that this leader leads that must be replaced.
    fn broken(&self, leader: &ReplicaBeat) -> Vec<ReplicaId> {
        let is_member = |id: ReplicaId| {
            let mut members = leader.voters.iter().chain(&leader.learners);
            members.any(|(member, _)| *member == id)
        };
        let replicas = self.heard.values().flat_map(|(_, beat)| &beat.replicas);
        let broken = replicas.filter(|one| one.group == leader.group && one.broken);
        let broken = broken.map(|one| one.replica);
        broken.filter(|id| is_member(*id)).collect()
    }
}

/// What is below a group.
pub fn prefix_of(group: GroupId) -> String {
    match group {
        GroupId::ROOT => "(root group)".into(),
        _ => "/".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const OFFLINE_AFTER: Duration = Duration::from_secs(30);

    fn offline(heard: &Liveness, now: Duration) -> BTreeSet<NodeId> {
        heard.offline([NodeId(1), NodeId(2)].into_iter(), now, OFFLINE_AFTER)
    }

    #[test]
    fn a_new_leadership_calls_nobody_gone_before_it_could_have_heard() {
        let mut heard = Liveness::default();
        let begun = 100 * SECOND;
        let beat = Beat::default();
        heard.in_term(3, begun).hear(NodeId(1), beat.clone(), begun);
        assert!(offline(&heard, begun).is_empty(), "the first leadership");
        let late = begun + 40 * SECOND;
        heard.in_term(3, late).hear(NodeId(1), beat.clone(), late);
        assert_eq!(offline(&heard, late), [NodeId(2)].into(), "the same one");
        // Another one led meanwhile.
        let again = late + 500 * SECOND;
        heard.in_term(5, again).hear(NodeId(2), beat, again);
        assert!(offline(&heard, again).is_empty(), "another leadership");
        assert_eq!(heard.online(again), [NodeId(2)].into());
        let late = again + 31 * SECOND;
        assert_eq!(
            offline(heard.in_term(5, late), late),
            [NodeId(1), NodeId(2)].into()
        );
    }
}
