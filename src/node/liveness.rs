//! Pure: who was heard of when, in the memory of the root group's leader. Only changes of state
//! are ever logged, and not by this.

use crate::proto::{Beat, GroupPlace};
use crate::types::{GroupId, NodeId, ReplicaId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A node that was heard of within this is online: it gets new work.
pub const ONLINE_WITHIN: Duration = Duration::from_secs(5);

/// What was heard of the nodes of the cluster since this leadership began.
#[derive(Default)]
pub struct Liveness {
    /// When the leadership began, monotonic; silence is counted from there for those never heard.
    since: Duration,
    heard: BTreeMap<NodeId, (Duration, Beat)>,
}

impl Liveness {
    /// A new leadership knows nobody yet.
    pub fn begin(&mut self, now: Duration) {
        self.since = now;
        self.heard.clear();
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
                    learners: replica.learners.clone(),
                    broken: self.broken(replica.group),
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

    /// Replicas of a group that must be replaced.
    fn broken(&self, group: GroupId) -> Vec<ReplicaId> {
        let replicas = self.heard.values().flat_map(|(_, beat)| &beat.replicas);
        let broken = replicas.filter(|replica| replica.group == group && replica.broken);
        broken.map(|replica| replica.replica).collect()
    }
}

/// What is below a group.
pub fn prefix_of(group: GroupId) -> String {
    match group {
        GroupId::ROOT => "(root group)".into(),
        _ => "/".into(),
    }
}
