//! What an operator sees: health with its reasons, nodes, groups, counters. Counted from what
//! should exist: every node tells of the chunks that belong on it and are not there.

use super::Node;
use super::group::RootGroup;
use super::liveness::{ONLINE_WITHIN, prefix_of};
use super::metrics::gauge;
use super::peers::odd;
use crate::error::Result;
use crate::limits::COPIES;
use crate::proto::{
    Beat, GroupPlace, GroupView, NodeInfo, NodeState, NodeView, Overview, PeerAnswer, PeerCall,
    RingHealth, StatusView,
};
use crate::types::{GroupId, NodeId, ReplicaId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Used share of the disk above which the node is in warning, and critical (percent).
const DISK_WARNING: u64 = 85;
const DISK_CRITICAL: u64 = 95;
/// How long the leader of the root group may take to tell what it has heard.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// What was heard of one node: who, how many milliseconds ago, what.
pub(super) type Heard = (NodeId, u64, Beat);

/// Health as it is put together: the worst colour counts.
#[derive(Default)]
struct Health {
    red: bool,
    yellow: bool,
    reasons: Vec<String>,
}

impl Health {
    fn red(&mut self, why: String) {
        self.red = true;
        self.reasons.push(why);
    }

    fn yellow(&mut self, why: String) {
        self.yellow = true;
        self.reasons.push(why);
    }

    fn word(&self) -> &'static str {
        match (self.red, self.yellow) {
            (true, _) => "red",
            (false, true) => "yellow",
            _ => "green",
        }
    }
}

impl Node {
    /// What the leader of the root group has heard of all nodes.
    pub(super) async fn beats_of_all(self: &Arc<Self>) -> Result<Vec<Heard>> {
        if let Ok(root) = self.must_lead_root() {
            root.raft.read_barrier().await?;
            let own = self.own_beat().await;
            let now = self.env.clock.now();
            self.liveness(&root).hear(self.id, own, now);
            return Ok(self.heard_here(&root));
        }
        match self.ask_root(&PeerCall::Beats, ASK_TIMEOUT).await? {
            PeerAnswer::Beats(beats) => Ok(beats),
            other => Err(odd(&other)),
        }
    }

    /// The same, on that leader.
    pub(super) fn heard_here(&self, root: &RootGroup) -> Vec<Heard> {
        let now = self.env.clock.now();
        let view = self.views.now();
        let liveness = self.liveness(root);
        let heard = view.members().filter_map(|info| {
            let (age, beat) = liveness.last(info.node, now)?;
            let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
            Some((info.node, age, beat.clone()))
        });
        heard.collect()
    }

    pub(super) async fn overview(self: &Arc<Self>) -> Result<Overview> {
        let mut health = Health::default();
        // Status answers without a quorum too: it shows what this node knows.
        let beats = match self.beats_of_all().await {
            Ok(beats) => beats,
            Err(error) => {
                health.red(format!(
                    "the root group cannot be asked ({})",
                    error.message
                ));
                vec![(self.id, 0, self.own_beat().await)]
            }
        };
        let view = self.views.now();
        let members: Vec<&NodeInfo> = view.members().collect();
        if members.len() < COPIES {
            let nodes = match members.len() {
                1 => "one node: nothing is stored twice".to_owned(),
                2 => "two nodes: both are needed for changes".to_owned(),
                other => format!("{other} nodes"),
            };
            health.yellow(format!("the cluster has {nodes}"));
        }
        shared_addresses(&members, &mut health);
        let mut nodes = Vec::with_capacity(members.len());
        for info in &members {
            let heard = beats.iter().find(|(node, ..)| *node == info.node);
            nodes.push(node_view(
                info,
                heard,
                view.offline.contains(&info.node),
                &mut health,
            ));
        }
        let wanted = members.len().min(super::members::VOTERS);
        // The leader of the root group has heard of this more lately than it told.
        let places = match self.leading_root() {
            Some(root) => self.liveness(&root).places(self.env.clock.now()),
            None => view.groups.clone(),
        };
        let groups: Vec<GroupView> = places
            .iter()
            .map(|place| group_view(place, &members, wanted, &mut health))
            .collect();
        for group in GroupId::ALWAYS {
            if groups.iter().all(|heard| heard.group != group) {
                let prefix = prefix_of(group);
                health.red(format!(
                    "group {group} ({prefix}): nobody says that he leads it"
                ));
            }
        }
        for node in &mut nodes {
            let leads = groups
                .iter()
                .filter(|group| group.leader == Some(node.node));
            node.leaders = leads.count() as u64;
        }
        let newest = view.rings.newest().nodes();
        let places: Vec<NodeId> = newest
            .iter()
            .copied()
            .filter(|node| !view.is_down(*node))
            .collect();
        let ring = ring_health(&beats, &places);
        outside(&members, &view.online, newest, &mut health);
        copies(ring, view.rings.iter().count(), &mut health);
        if members.len() >= COPIES && ring.without_node > 0 {
            let (copies, nodes) = (ring.without_node, places.len());
            health.yellow(format!(
                "{copies} copies of chunks have no node to be on ({nodes} of {COPIES} are there)"
            ));
        }
        uncounted(&beats, &places, &mut health);
        let status = StatusView {
            cluster: self.cluster,
            health: health.word().into(),
            reasons: health.reasons,
            nodes,
            groups,
        };
        Ok(Overview { status, ring })
    }

    /// What is damaged on this node, in words.
    pub(super) fn own_damage(&self) -> Vec<String> {
        let mut damage = self.damage_found_at_start();
        for (group, _, why) in self.groups.broken() {
            damage.push(format!(
                "its replica of group {group} must be replaced ({why})"
            ));
        }
        for (group, running) in self.groups.all() {
            let (members, lossy) = (running.raft().members(), running.raft().lossy());
            for (replica, node) in members.voters.iter().chain(&members.learners) {
                if lossy.contains(replica) {
                    damage.push(format!(
                        "replica {replica} of group {group} on node {node} has lost entries that it \
                         acknowledged and must be replaced; was an old copy of its data put back?"
                    ));
                }
            }
        }
        for (group, _, why) in self.groups.waiting() {
            damage.push(format!("its replica of group {group} is not open ({why})"));
        }
        let damaged = self.chunks.damaged_now();
        if damaged > 0 {
            damage.push(format!("{damaged} stored chunks are damaged"));
        }
        let unreadable = self.chunks.unreadable_rows();
        if unreadable > 0 {
            damage.push(format!(
                "{unreadable} rows of its pack index are damaged, and their chunks count as missing; \
                 restart it, which makes the index anew"
            ));
        }
        damage
    }

    /// What else is wrong on this node, in words.
    pub(super) fn own_reasons(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        let in_root = self.groups.root().is_some_and(|root| {
            let members = root.raft.members();
            let mut all = members.voters.iter().chain(&members.learners);
            all.any(|(_, node)| *node == self.id)
        });
        if in_root && !self.identity.opens_ca() {
            reasons.push(
                "the key that opens the cluster's CA is not in its directory (`ca.seal`); it is \
                 fetched from the other members of the root group"
                    .into(),
            );
        }
        if let Err(error) = self.must_have_space() {
            reasons.push(format!("it takes no new data ({})", error.message));
        }
        reasons
    }

    pub(super) async fn metrics_text(self: &Arc<Self>) -> Result<String> {
        let mut out = self.metrics.text();
        let (chunks, bytes) = self.chunks.totals();
        let repair = self.repairs.view(self.id, self.env.clock.now());
        let waiting = self.store.active_bytes() as u64;
        let gauges = [
            ("dfs_chunks", "Chunks stored on this node.", chunks),
            (
                "dfs_chunk_bytes",
                "Bytes of chunks stored on this node.",
                bytes,
            ),
            (
                "dfs_overlay_bytes",
                "Metadata that waits for the next fold.",
                waiting,
            ),
            (
                "dfs_metadata_bytes",
                "Metadata on disk.",
                self.store.used_bytes()?,
            ),
            (
                "dfs_chunks_missing",
                "Chunks that belong here and are not.",
                repair.missing,
            ),
            (
                "dfs_chunks_copied",
                "Chunks copied here from others.",
                repair.copied,
            ),
        ];
        for (name, help, value) in gauges {
            gauge(&mut out, name, help, value);
        }
        for (group, running) in self.groups.all() {
            let name = format!("dfs_group_{group}_applied");
            let help = "Index of the newest applied entry.";
            gauge(&mut out, &name, help, running.raft().status().applied);
        }
        Ok(out)
    }
}

/// Nodes that were given one address: only one of them is reached there.
fn shared_addresses(members: &[&NodeInfo], health: &mut Health) {
    let mut at: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for info in members.iter().filter(|info| !info.address.is_empty()) {
        let nodes = at.entry(&info.address).or_default();
        nodes.push(info.node.to_string());
    }
    for (address, nodes) in at.into_iter().filter(|(_, nodes)| nodes.len() > 1) {
        health.yellow(format!(
            "nodes {} have one address ({address}): only one of them is reached; start the others with \
             another --advertise, or remove those that are lost",
            nodes.join(" and ")
        ));
    }
}

fn node_view(
    info: &NodeInfo,
    heard: Option<&Heard>,
    offline: bool,
    health: &mut Health,
) -> NodeView {
    let beat = heard.map(|(_, _, beat)| beat);
    let (total, available) = beat.map_or((0, 0), |beat| (beat.disk_total, beat.disk_available));
    let free = (available.saturating_mul(100))
        .checked_div(total)
        .unwrap_or(100);
    let used = 100 - free.min(100);
    let mut state = "healthy";
    let online = heard.is_some_and(|(_, age, _)| u128::from(*age) <= ONLINE_WITHIN.as_millis());
    if offline || !online {
        state = if offline { "offline" } else { "silent" };
        health.yellow(format!("node {} is {state}", info.node));
    } else if used > DISK_CRITICAL {
        state = "critical";
        health.red(format!("node {}: {used} % of the disk is used", info.node));
    } else if used > DISK_WARNING {
        state = "warning";
        health.yellow(format!("node {}: {used} % of the disk is used", info.node));
    }
    if info.state == NodeState::Draining {
        state = "draining";
        health.yellow(format!("node {} is draining", info.node));
    }
    for reason in beat
        .into_iter()
        .flat_map(|beat| beat.damage.iter().chain(&beat.reasons))
    {
        health.yellow(format!("node {}: {reason}", info.node));
    }
    NodeView {
        node: info.node,
        address: info.address.clone(),
        state: state.into(),
        zone: info.zone.clone(),
        rack: info.rack.clone(),
        version: info.version.clone(),
        disk_total: total,
        disk_available: available,
        chunks: beat.map_or(0, |beat| beat.chunks),
        chunk_bytes: beat.map_or(0, |beat| beat.chunk_bytes),
        leaders: 0,
        uptime_ms: beat.map_or(0, |beat| beat.uptime_ms),
    }
}

fn group_view(
    place: &GroupPlace,
    members: &[&NodeInfo],
    wanted: usize,
    health: &mut Health,
) -> GroupView {
    let name = format!("group {} ({})", place.group, place.prefix);
    if place.leader.is_none() {
        health.red(format!("{name} has no leader"));
    }
    // One on a node that was removed answers no more.
    let is_member =
        |(_, node): &&(ReplicaId, NodeId)| members.iter().any(|info| info.node == *node);
    let voters = place.settled_voters().filter(is_member).count();
    if voters < wanted {
        health.yellow(format!("{name} has {voters} of {wanted} replicas"));
    }
    if !place.broken.is_empty() {
        health.yellow(format!("{name} has a replica that is being replaced"));
    }
    GroupView {
        group: place.group,
        prefix: place.prefix.clone(),
        leader: place.leader,
        replicas: place.settled_voters().map(|(_, node)| *node).collect(),
        term: place.term,
        applied: place.applied.0,
        entries: place.entries,
        bytes: place.bytes,
        deletions: place.deletions,
    }
}

/// What all nodes that were heard of told of their copies, of which there are to be
/// [`COPIES`] on as many of the nodes that are `places` for them.
fn ring_health(beats: &[Heard], places: &[NodeId]) -> RingHealth {
    let mut ring = RingHealth::default();
    let mut chunks = 0;
    for repair in beats.iter().filter_map(|(_, _, beat)| beat.repair.as_ref()) {
        ring.under_replicated += repair.missing.saturating_sub(repair.lost);
        ring.moving += repair.surplus;
        ring.lost += repair.lost;
        chunks = chunks.max(repair.wanted);
    }
    // With fewer nodes than copies every chunk belongs on all of them.
    let short = COPIES.saturating_sub(places.len()) as u64;
    ring.without_node = chunks.saturating_mul(short);
    ring.under_replicated = ring.under_replicated.saturating_add(ring.without_node);
    let ages = places.iter().map(|node| counted_ms_ago(beats, *node));
    let oldest = ages.collect::<Option<Vec<u64>>>();
    ring.counted_ms_ago = oldest.and_then(|ages| ages.into_iter().max());
    ring
}

/// How long ago a node counted its copies.
fn counted_ms_ago(beats: &[Heard], node: NodeId) -> Option<u64> {
    let (_, age, beat) = beats.iter().find(|(heard, ..)| *heard == node)?;
    let counted = beat.repair.as_ref()?.counted_ms_ago?;
    Some(counted.saturating_add(*age))
}

/// Nodes that may miss copies and do not know it yet. One that is not heard of is told of elsewhere.
fn uncounted(beats: &[Heard], places: &[NodeId], health: &mut Health) {
    for (node, _, beat) in beats.iter().filter(|(node, ..)| places.contains(node)) {
        let repair = beat.repair.as_ref();
        if repair.is_some_and(|repair| repair.counted_ms_ago.is_none()) {
            health.yellow(format!("node {node} has not counted its copies yet"));
        }
    }
}

/// Nodes that chunks will move to or from: the ring does not say so yet.
fn outside(members: &[&NodeInfo], online: &BTreeSet<NodeId>, ring: &[NodeId], health: &mut Health) {
    for info in members {
        let holds = info.state == NodeState::Member && info.weight > 0;
        if holds && online.contains(&info.node) && !ring.contains(&info.node) {
            health.yellow(format!("node {} is not in the ring yet", info.node));
        }
    }
    for node in ring {
        if members.iter().all(|info| info.node != *node) {
            health.yellow(format!("node {node} was removed and is in the ring still"));
        }
    }
}

/// Copies that are missing, moving, lost.
fn copies(ring: RingHealth, epochs: usize, health: &mut Health) {
    let lost = ring.lost;
    let missing = ring.under_replicated.saturating_sub(ring.without_node);
    if lost > 0 {
        health.red(format!(
            "chunks that files need are missing on every node that answers ({lost} copies); `dfs \
             fsck` names the files, put them again"
        ));
    }
    if missing > 0 {
        health.yellow(format!(
            "{missing} copies of chunks are missing and being made"
        ));
    }
    if epochs > 1 {
        health.yellow("chunks are moving after a change of the nodes".into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{Life, RepairView};
    use crate::types::LogIndex;

    fn heard(node: u64, (missing, lost, surplus): (u64, u64, u64)) -> Heard {
        let node = NodeId(node);
        let repair = RepairView {
            node,
            wanted: 100,
            missing,
            lost,
            surplus,
            copied: 0,
            copied_bytes: 0,
            counted_ms_ago: Some(5),
            running: false,
        };
        let beat = Beat {
            repair: Some(repair),
            ..Beat::default()
        };
        (node, 0, beat)
    }

    #[test]
    fn the_ring_is_the_sum_of_what_its_nodes_counted() {
        let silent = (NodeId(4), 0, Beat::default());
        let beats = [heard(1, (5, 2, 0)), heard(2, (1, 0, 7)), silent];
        let ids = |of: &[u64]| of.iter().map(|id| NodeId(*id)).collect::<Vec<_>>();
        let ring = ring_health(&beats, &ids(&[1, 2, 3, 4]));
        assert_eq!((ring.under_replicated, ring.moving, ring.lost), (4, 7, 2));
        assert_eq!((ring.without_node, ring.counted_ms_ago), (0, None));
        // Each of 100 chunks belongs on three nodes.
        let ring = ring_health(&beats, &ids(&[1, 2]));
        assert_eq!((ring.under_replicated, ring.without_node), (104, 100));
        assert_eq!(ring.counted_ms_ago, Some(5));
        let mut health = Health::default();
        copies(ring, 1, &mut health);
        assert_eq!((health.word(), health.reasons.len()), ("red", 2));
    }

    fn member(node: u64, weight: u32) -> NodeInfo {
        NodeInfo {
            node: NodeId(node),
            address: format!("10.0.0.{node}:7440"),
            zone: String::new(),
            rack: String::new(),
            life: Life::default(),
            version: String::new(),
            weight,
            state: NodeState::Member,
        }
    }

    #[test]
    fn a_voter_on_a_removed_node_is_missing() {
        let all = [member(1, 1), member(2, 1), member(3, 1)];
        let voters = (1..=3).map(|id| (ReplicaId(id), NodeId(id)));
        let place = GroupPlace {
            group: GroupId::FIRST,
            prefix: "/".into(),
            leader: Some(NodeId(1)),
            term: 1,
            voters: voters.collect(),
            settled: (1..=3).map(ReplicaId).collect(),
            learners: Vec::new(),
            broken: Vec::new(),
            applied: LogIndex(1),
            entries: 0,
            bytes: 0,
            deletions: 0,
        };
        let health_of = |members: &[&NodeInfo]| {
            let mut health = Health::default();
            group_view(&place, members, 3, &mut health);
            health.word()
        };
        assert_eq!(health_of(&[&all[0], &all[1], &all[2]]), "green");
        assert_eq!(health_of(&[&all[0], &all[1]]), "yellow");
    }

    #[test]
    fn nodes_and_ring_that_differ_are_told() {
        let all = [member(1, 1), member(2, 0), member(3, 1)];
        let members: Vec<&NodeInfo> = all.iter().collect();
        let ids = |of: &[u64]| of.iter().map(|id| NodeId(*id)).collect::<Vec<_>>();
        let reasons = |online: &[u64], ring: &[u64]| {
            let mut health = Health::default();
            let online = ids(online).into_iter().collect();
            outside(&members, &online, &ids(ring), &mut health);
            health.reasons
        };
        let none: [&str; 0] = [];
        assert_eq!(reasons(&[1, 2, 3], &[1, 3]), none);
        assert_eq!(reasons(&[1, 2, 3], &[1]), ["node 3 is not in the ring yet"]);
        assert_eq!(reasons(&[1, 2], &[1]), none, "a silent one comes later");
        let removed = reasons(&[1, 2, 3], &[1, 3, 4]);
        assert_eq!(removed, ["node 4 was removed and is in the ring still"]);
    }

    #[test]
    fn a_node_that_is_not_heard_of_any_more_is_not_healthy() {
        let info = member(3, 1);
        let state_after = |silent_ms: Option<u64>, offline: bool| {
            let heard = silent_ms.map(|age| (NodeId(3), age, Beat::default()));
            let mut health = Health::default();
            let view = node_view(&info, heard.as_ref(), offline, &mut health);
            (view.state, health.word())
        };
        let silent = ("silent".to_owned(), "yellow");
        assert_eq!(state_after(Some(5_000), false).0, "healthy");
        assert_eq!(state_after(Some(5_001), false), silent);
        assert_eq!(state_after(None, false), silent);
        assert_eq!(state_after(Some(60_000), true).0, "offline");
    }
}
