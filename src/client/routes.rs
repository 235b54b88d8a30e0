//! Pure: which shard owns a path, who leads it, and what its time was when we last heard it.

use crate::limits::SESSION_HORIZON_MS;
use crate::proto::RouteView;
use crate::types::{DfsPath, GroupId, NodeId, ShardTime};
use std::collections::BTreeMap;
use std::time::Duration;

/// Routes a client keeps at most; more are dropped, the shortest prefixes stay.
const ROUTES_MAX: usize = 10_000;
/// A shard's time heard longer ago than this is asked for again before a session meets the
/// shard with it: a sixth of the horizon.
const TIME_FRESH: Duration = Duration::from_millis(SESSION_HORIZON_MS / 6);

/// What the client knows of the map.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    /// By length of the prefix, the longest first.
    routes: Vec<(DfsPath, GroupId)>,
    leaders: BTreeMap<GroupId, Leader>,
    /// Newest shard time heard, and when by our clock.
    times: BTreeMap<GroupId, (ShardTime, Duration)>,
}

/// Who leads a shard, by what nodes say: of themselves they know it best.
#[derive(Clone, Copy, Debug, Default)]
struct Leader {
    /// The last node that said it of itself, and took it back by no word since.
    own: Option<NodeId>,
    /// What was said last, by whoever it was.
    said: Option<NodeId>,
}

impl Routes {
    /// Takes what a node said, heard at `now` of our clock. Malformed prefixes are left out:
    /// the node redirects where a route is missing.
    pub(crate) fn learn(&mut self, by: NodeId, views: &[RouteView], now: Duration) {
        let mut routes: Vec<_> = views
            .iter()
            .filter_map(|view| Some((DfsPath::parse(&view.prefix).ok()?, view.shard)))
            .collect();
        routes.sort_by(|a, b| {
            let (a, b) = (a.0.as_str(), b.0.as_str());
            b.len().cmp(&a.len()).then_with(|| a.cmp(b))
        });
        let extra = routes.len().saturating_sub(ROUTES_MAX);
        routes.drain(..extra);
        let kept: std::collections::BTreeSet<GroupId> = routes.iter().map(|r| r.1).collect();
        self.times.retain(|shard, _| kept.contains(shard));
        self.leaders.retain(|shard, _| kept.contains(shard));
        self.routes = routes;
        for view in views.iter().filter(|view| kept.contains(&view.shard)) {
            let leader = self.leaders.entry(view.shard).or_default();
            leader.said = view.leader;
            if view.leader == Some(by) {
                leader.own = Some(by);
            } else if leader.own == Some(by) {
                leader.own = None;
            }
            self.heard(view.shard, view.time, now);
        }
    }

    /// A shard said its time.
    pub(crate) fn heard(&mut self, shard: GroupId, time: ShardTime, now: Duration) {
        let known = self.times.entry(shard).or_insert((time, now));
        if time >= known.0 {
            *known = (time, now);
        }
    }

    /// The shard with the longest prefix of `path`; the shard of `/` where nothing is known.
    pub(crate) fn shard_of(&self, path: &DfsPath) -> GroupId {
        self.routes
            .iter()
            .find(|(prefix, _)| path.is_at_or_below(prefix))
            .map_or(GroupId::FIRST, |(_, shard)| *shard)
    }

    /// All shards we know of; that of `/` at least.
    pub(crate) fn shards(&self) -> Vec<GroupId> {
        let known = self.routes.iter().map(|(_, shard)| *shard);
        let all: std::collections::BTreeSet<_> = known.chain([GroupId::FIRST]).collect();
        all.into_iter().collect()
    }

    /// Whom to ask first: a node's word about itself counts more than another's about it.
    pub(crate) fn leader_of(&self, shard: GroupId) -> Option<NodeId> {
        let leader = self.leaders.get(&shard)?;
        leader.own.or(leader.said)
    }

    /// The node that says of itself that it leads the shard.
    pub(crate) fn own_word(&self, shard: GroupId) -> Option<NodeId> {
        self.leaders.get(&shard)?.own
    }

    /// Who leads by the last word of any node.
    pub(crate) fn said_to_lead(&self, shard: GroupId) -> Option<NodeId> {
        self.leaders.get(&shard)?.said
    }

    /// A node has sent us away from it.
    pub(crate) fn not_leader(&mut self, shard: GroupId, node: NodeId) {
        if let Some(leader) = self.leaders.get_mut(&shard) {
            leader.own = leader.own.filter(|own| *own != node);
            leader.said = leader.said.filter(|said| *said != node);
        }
    }

    /// The shard's time, no later than it is now, if we heard it lately.
    pub(crate) fn time_of(&self, shard: GroupId, now: Duration) -> Option<ShardTime> {
        let (time, heard) = self.times.get(&shard)?;
        (now.saturating_sub(*heard) < TIME_FRESH).then_some(*time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(prefix: &str, shard: u64, time: u64) -> RouteView {
        RouteView {
            prefix: prefix.into(),
            shard: GroupId(shard),
            leader: Some(NodeId(shard)),
            time: ShardTime(time),
        }
    }

    #[test]
    fn what_a_node_says_of_itself_counts_more_than_rumours() {
        let (mut routes, shard) = (Routes::default(), GroupId(1));
        let mut says = |by: u64, leader: Option<u64>| {
            let view = RouteView {
                leader: leader.map(NodeId),
                ..route("/", 1, 0)
            };
            routes.learn(NodeId(by), &[view], Duration::ZERO);
            let of = [routes.leader_of(shard), routes.own_word(shard)];
            of.map(|node| node.map(|node| node.0))
        };
        assert_eq!(says(2, Some(1)), [Some(1), None]);
        assert_eq!(says(1, Some(1)), [Some(1), Some(1)]);
        assert_eq!(says(2, Some(3)), [Some(1), Some(1)], "a rumour");
        assert_eq!(says(3, Some(3)), [Some(3), Some(3)]);
        assert_eq!(says(1, Some(3)), [Some(3), Some(3)]);
        assert_eq!(says(2, None), [Some(3), Some(3)]);
        assert_eq!(says(3, None), [None, None], "it steps down");
        assert_eq!(says(2, Some(1)), [Some(1), None]);
        routes.not_leader(shard, NodeId(1));
        assert_eq!(routes.leader_of(shard), None);
    }

    #[test]
    fn the_longest_prefix_owns_the_path() {
        let mut routes = Routes::default();
        routes.learn(
            NodeId(1),
            &[route("/", 1, 0), route("/a/b", 3, 0), route("/a", 2, 0)],
            Duration::ZERO,
        );
        let shard = |text| routes.shard_of(&DfsPath::parse(text).unwrap()).0;
        assert_eq!(
            [shard("/"), shard("/a"), shard("/a/b/c"), shard("/ab")],
            [1, 2, 3, 1]
        );
        assert_eq!(routes.leader_of(GroupId(2)), Some(NodeId(2)));
    }

    #[test]
    fn a_time_heard_long_ago_is_not_used() {
        let mut routes = Routes::default();
        routes.learn(NodeId(1), &[route("/", 1, 50)], Duration::ZERO);
        assert_eq!(
            routes.time_of(GroupId(1), Duration::from_secs(1)),
            Some(ShardTime(50))
        );
        assert_eq!(routes.time_of(GroupId(1), TIME_FRESH), None);
        routes.heard(GroupId(1), ShardTime(40), TIME_FRESH);
        assert_eq!(routes.time_of(GroupId(1), TIME_FRESH), None, "older news");
        routes.heard(GroupId(1), ShardTime(60), TIME_FRESH);
        assert_eq!(routes.time_of(GroupId(1), TIME_FRESH), Some(ShardTime(60)));
    }

    #[test]
    fn without_routes_everything_is_the_first_shards() {
        assert_eq!(Routes::default().shard_of(&DfsPath::root()), GroupId::FIRST);
    }
}
