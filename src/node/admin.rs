//! What administrators ask for: tokens, nodes, the ring, repair.

use super::Node;
use super::group::RootGroup;
use super::join::role_of;
use super::peers::odd;
use super::service::Caller;
use super::view::View;
use crate::cluster::JoinToken;
use crate::error::{Code, Error, Result};
use crate::limits::COPIES;
use crate::proto::{
    AdminAnswer, AdminCall, FromAll, GroupPlace, LocatedChunk, Look, MemberView, NodeState,
    PeerAnswer, PeerCall, PlanView, RingView, ShareView, TokenRole, UserView,
};
use crate::ring::{self, Ring};
use crate::root::{self, RootCommand};
use crate::shard;
use crate::store::overlay::View as StoreView;
use crate::types::{DfsPath, GroupId, NodeId, ReadLevel, ReplicaId};
use futures::future::join_all;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// A question to each node.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// What one node says of another is what all say by then: views come with heartbeats.
const AGREED_WITHIN: Duration = Duration::from_millis(2_500);
const AGREED_LOOK: Duration = Duration::from_millis(200);
/// Shares are told in millionths.
const MILLION: f64 = 1_000_000.0;

/// How a node is to be spared.
#[derive(Clone, Copy)]
enum Spare {
    Drain,
    Remove {
        force: bool,
    },
    /// Of chunks alone.
    Weight,
}

/// What became of it.
enum Tried {
    /// In words.
    Done(String),
    /// By a view that may be old.
    Refused(Error),
}

impl Node {
    pub(super) async fn admin(
        self: &Arc<Self>,
        caller: &Caller,
        call: AdminCall,
    ) -> Result<AdminAnswer> {
        caller.must_be_admin("manage the cluster")?;
        match call {
            AdminCall::CreateToken { role, ttl_ms } => self.create_token(role, ttl_ms).await,
            AdminCall::Nodes => self.member_views().await.map(AdminAnswer::Nodes),
            AdminCall::Drain(node) => self.spare(Spare::Drain, node).await,
            AdminCall::Undrain(node) => self.undrain(node).await,
            AdminCall::Remove { node, force } => self.spare(Spare::Remove { force }, node).await,
            // Without weight it holds no chunks: as one that is drained of them.
            AdminCall::Weight { node, weight: 0 } => self.spare(Spare::Weight, node).await,
            AdminCall::Weight { node, weight } => {
                self.root_command(RootCommand::SetWeight { node, weight })
                    .await?;
                Ok(AdminAnswer::Done(weighs(node, weight)))
            }
            AdminCall::Ring => Ok(AdminAnswer::Ring(self.ring_view())),
            AdminCall::Locate(path) => self.locate(path).await.map(AdminAnswer::Located),
            AdminCall::Plan(weights) => self.plan(&weights).map(AdminAnswer::Plan),
            AdminCall::Scrub { now } => self.scrub_everywhere(now).await,
            AdminCall::Repair => self.repair_everywhere().await,
            AdminCall::Users => self.user_views().await.map(AdminAnswer::Users),
            AdminCall::RemoveUser(name) => {
                self.root_command(RootCommand::RemoveUser(name.clone()))
                    .await?;
                Ok(AdminAnswer::Done(format!(
                    "user {name} is out; connections of his end within seconds"
                )))
            }
        }
    }

    async fn create_token(self: &Arc<Self>, role: TokenRole, ttl_ms: u64) -> Result<AdminAnswer> {
        let role = role_of(role)?;
        let ca = self.views.now().cluster.ca.clone();
        let token = JoinToken::create(&*self.env.rng, self.env.rng.u64(), &ca);
        let command = RootCommand::AddToken {
            id: token.id(),
            secret: token.secret_hash(),
            role,
            ttl_ms,
        };
        self.root_command(command).await?;
        let told = self.told_nodes().into_iter();
        Ok(AdminAnswer::Token {
            token: token.to_string(),
            addresses: told.map(|node| node.address).take(3).collect(),
        })
    }

    /// All nodes that ever joined, removed ones too, by what they told last.
    pub(super) async fn member_views(self: &Arc<Self>) -> Result<Vec<MemberView>> {
        let view = self.views.now();
        let beats = self.beats_of_all().await?;
        let drained = |id: NodeId| {
            let places = &view.groups;
            let has_replica = places.iter().any(|place| {
                let mut all = place.voters.iter().chain(&place.learners);
                all.any(|(_, node)| *node == id)
            });
            // A change that is not committed may be undone, and a member before be one again.
            let settled = |place: &GroupPlace| place.settled_voters().count() == place.voters.len();
            let known = tells_of_all_groups(places) && places.iter().all(settled);
            let in_ring = view.rings.iter().any(|ring| ring.nodes().contains(&id));
            known && !has_replica && !in_ring
        };
        let members = view.cluster.nodes.iter().map(|info| {
            let heard = beats.iter().find(|(node, ..)| *node == info.node);
            let beat = heard.map(|(_, _, beat)| beat);
            let state = match info.state {
                NodeState::Removed => "removed",
                NodeState::Draining if drained(info.node) => "drained",
                NodeState::Draining => "draining",
                NodeState::Member if view.offline.contains(&info.node) => "offline",
                NodeState::Member if view.online.contains(&info.node) => "online",
                NodeState::Member => "silent",
            };
            MemberView {
                node: info.node,
                address: info.address.clone(),
                zone: info.zone.clone(),
                rack: info.rack.clone(),
                version: info.version.clone(),
                state: state.into(),
                weight: info.weight,
                silent_ms: heard.map(|(_, silent, _)| *silent),
                groups: beat
                    .map(|beat| beat.replicas.iter().map(|replica| replica.group).collect())
                    .unwrap_or_default(),
                disk_total: beat.map_or(0, |beat| beat.disk_total),
                disk_available: beat.map_or(0, |beat| beat.disk_available),
                chunks: beat.map_or(0, |beat| beat.chunks),
                chunk_bytes: beat.map_or(0, |beat| beat.chunk_bytes),
            }
        });
        Ok(members.collect())
    }

    /// Looks whether a node can be spared and takes it out, again while the answer may be another
    /// one in a moment.
    ///
    /// # Errors
    /// `conflict` when it cannot, why, and what to do.
    async fn spare(self: &Arc<Self>, how: Spare, node: NodeId) -> Result<AdminAnswer> {
        // From the first answer: a voter that does not answer takes longer than that.
        let mut agreed_at = None;
        loop {
            let tried = match how {
                Spare::Drain => self.drain(node).await?,
                Spare::Remove { force } => self.remove_node(node, force).await?,
                Spare::Weight => self.take_weight(node).await?,
            };
            let now = self.env.clock.now();
            let agreed_at = *agreed_at.get_or_insert(now + AGREED_WITHIN);
            match tried {
                Tried::Done(text) => return Ok(AdminAnswer::Done(text)),
                Tried::Refused(why) if now >= agreed_at => return Err(why),
                Tried::Refused(_) => {}
            }
            tokio::time::sleep(AGREED_LOOK).await;
            // It brings the newest view. One that fails is no news: the root group is asked next.
            let _ = self.beat().await;
        }
    }

    async fn drain(self: &Arc<Self>, node: NodeId) -> Result<Tried> {
        let view = self.views.now();
        let info = view
            .node(node)
            .filter(|info| info.state != NodeState::Removed)
            .ok_or_else(|| no_node(node))?;
        if info.state == NodeState::Draining {
            return Ok(Tried::Done(format!("node {node} is draining already")));
        }
        let mut members = view
            .members()
            .filter(|info| info.state == NodeState::Member);
        let others = members.any(|info| info.node != node);
        keeps_copies(&view, node)?;
        if !others {
            let why = format!("node {node} is the only one");
            return Err(Error::new(Code::Conflict, why).hint("join another node first"));
        }
        let done = format!("node {node} is draining; `dfs node ls` says when it is drained");
        let seen = view.cluster.version;
        self.set_state(node, NodeState::Draining, seen, done).await
    }

    async fn take_weight(self: &Arc<Self>, node: NodeId) -> Result<Tried> {
        let view = self.views.now();
        let info = view.node(node).ok_or_else(|| no_node(node))?;
        let done = weighs(node, 0);
        if info.weight == 0 && info.state != NodeState::Removed {
            return Ok(Tried::Done(done));
        }
        keeps_copies(&view, node)?;
        let seen = view.cluster.version;
        let weight = 0;
        let command = RootCommand::SetWeightAsSeen { node, weight, seen };
        self.decided_by_view(command, done).await
    }

    async fn undrain(self: &Arc<Self>, node: NodeId) -> Result<AdminAnswer> {
        let command = RootCommand::SetState {
            node,
            state: NodeState::Member,
        };
        self.root_command(command).await?;
        Ok(AdminAnswer::Done(format!("node {node} takes part again")))
    }

    /// One that is out already is done: there is nothing left of it to remove.
    async fn remove_node(self: &Arc<Self>, node: NodeId, force: bool) -> Result<Tried> {
        let seen = self.views.now().cluster.version;
        let views = self.member_views().await?;
        let found = views.into_iter().find(|member| member.node == node);
        let state = found.ok_or_else(|| no_node(node))?.state;
        match state.as_str() {
            // Asked again perhaps, by whom the answer did not reach.
            "removed" => return Ok(Tried::Done(format!("node {node} is out already"))),
            "drained" => {}
            _ if force => {
                let view = self.views.now();
                if !tells_of_all_groups(&view.groups) {
                    let why = format!("which groups need node {node} is not known here just now");
                    let error = Error::new(Code::Conflict, why);
                    return Ok(Tried::Refused(error.hint(
                        "ask again; `dfs status` says which group has no leader, and why",
                    )));
                }
                let alive = self.voters_that_answer(&view, node).await;
                keeps_quorum(&view.groups, node, &alive)?;
            }
            state => {
                let why = format!("node {node} is {state}: it has replicas or chunks");
                let error = Error::new(Code::Conflict, why).hint(format!(
                    "`dfs node drain {node}` first; if it is lost for ever, use --force"
                ));
                // Another node may have said that it is drained, by a newer view.
                return match state {
                    "draining" => Ok(Tried::Refused(error)),
                    _ => Err(error),
                };
            }
        }
        let done = format!("node {node} is out; what it held is copied from the others");
        self.set_state(node, NodeState::Removed, seen, done).await
    }

    /// Changes a node's state if nothing has changed since what was seen.
    async fn set_state(
        &self,
        node: NodeId,
        state: NodeState,
        seen: u64,
        done: String,
    ) -> Result<Tried> {
        let command = RootCommand::SetStateAsSeen { node, state, seen };
        self.decided_by_view(command, done).await
    }

    async fn decided_by_view(&self, command: RootCommand, done: String) -> Result<Tried> {
        match self.root_command(command).await {
            Err(error) if error.code == Code::Conflict => Ok(Tried::Refused(error)),
            answered => answered.map(|_| Tried::Done(done)),
        }
    }

    /// Other nodes with voters of a node's groups that answer now: one that has just died is not
    /// known to be silent yet.
    async fn voters_that_answer(&self, view: &View, node: NodeId) -> BTreeSet<NodeId> {
        let places = view.groups.iter();
        let places = places.filter(|place| place.voters.iter().any(|(_, voter)| *voter == node));
        let voters = places.flat_map(|place| &place.voters);
        let voters: BTreeSet<NodeId> = voters.map(|(_, voter)| *voter).collect();
        // One that was removed may not have noticed yet.
        let members: BTreeSet<NodeId> = view.members().map(|info| info.node).collect();
        let asked = voters
            .intersection(&members)
            .filter(|voter| **voter != node);
        let asked = asked.map(async |voter| self.answers(*voter).await.then_some(*voter));
        join_all(asked).await.into_iter().flatten().collect()
    }

    /// Whether a node answers a question.
    async fn answers(&self, node: NodeId) -> bool {
        node == self.id || (self.peers.call(node, &PeerCall::Repairs, ASK_TIMEOUT).await).is_ok()
    }

    fn ring_view(&self) -> RingView {
        let view = self.views.now();
        RingView {
            epochs: view.rings.iter().map(|ring| ring.epoch().0).collect(),
            shares: self.shares_of(view.rings.newest(), &newest_members(&view)),
        }
    }

    fn shares_of(&self, ring: &Ring, members: &[ring::Member]) -> Vec<ShareView> {
        let weight = |node| {
            let member = members.iter().find(|member| member.node == node);
            member.map_or(0, |member| member.weight)
        };
        let shares = ring.shares(COPIES).into_iter();
        shares
            .map(|share| ShareView {
                node: share.node,
                weight: weight(share.node),
                share: (share.share * MILLION) as u32,
                fair: (share.fair * MILLION) as u32,
            })
            .collect()
    }

    /// What joining nodes of these weights would do.
    fn plan(&self, weights: &[u32]) -> Result<PlanView> {
        let view = self.views.now();
        let newest = view.cluster.epochs.last();
        let newest = newest.map(super::view::ring_epoch);
        let newest = newest.ok_or_else(|| Error::unavailable("the ring is not known here yet"))?;
        let mut members = newest.members.clone();
        let mut node = view
            .cluster
            .nodes
            .last()
            .map_or(NodeId(0), |info| info.node);
        for weight in weights {
            node = node.next();
            members.push(ring::Member {
                node,
                weight: *weight,
                zone: String::new(),
                rack: String::new(),
            });
        }
        let now = view.rings.newest();
        let epoch = newest.next(members)?;
        let then = Ring::build(&epoch)?;
        Ok(PlanView {
            shares: self.shares_of(&then, &epoch.members),
            moved: (ring::moved(now, &then, COPIES).copied * MILLION) as u32,
        })
    }

    /// Where the chunks of a file's first manifest page are.
    async fn locate(self: &Arc<Self>, path: DfsPath) -> Result<Vec<LocatedChunk>> {
        let shard = self.groups.shard(GroupId::FIRST)?;
        let read = move |view: &StoreView| shard::read::resolve(view, &path, None, 0, None);
        let found = shard.read(ReadLevel::Linearizable, read).await?;
        let view = self.views.now();
        let mut located = Vec::with_capacity(found.chunks.len());
        for chunk in found.chunks {
            let owners = view.holders(&chunk.hash);
            let mut present = Vec::new();
            for node in &owners {
                let held = self.hold_at(*node, vec![chunk.hash], Look::Present).await;
                if held.is_ok_and(|held| held.first().copied().flatten().is_some()) {
                    present.push(*node);
                }
            }
            located.push(LocatedChunk {
                hash: chunk.hash,
                len: chunk.len,
                owners,
                present,
            });
        }
        Ok(located)
    }

    async fn scrub_everywhere(self: &Arc<Self>, now: bool) -> Result<AdminAnswer> {
        let (own, call) = (self.scrub(now), PeerCall::Scrub { now });
        let all = self.ask_members(own, &call, |answer| match answer {
            PeerAnswer::Scrub(view) => Ok(view),
            other => Err(odd(&other)),
        });
        Ok(AdminAnswer::Scrub(all.await))
    }

    async fn repair_everywhere(self: &Arc<Self>) -> Result<AdminAnswer> {
        let own = self.repairs.view(self.id, self.env.clock.now());
        let all = self.ask_members(own, &PeerCall::Repairs, |answer| match answer {
            PeerAnswer::Repairs(view) => Ok(view),
            other => Err(odd(&other)),
        });
        Ok(AdminAnswer::Repair(all.await))
    }

    /// Asks all members at once. Those that are known to be offline are not waited for.
    async fn ask_members<T>(
        &self,
        own: T,
        call: &PeerCall,
        read: fn(PeerAnswer) -> Result<T>,
    ) -> FromAll<T> {
        let view = self.views.now();
        let members = view.members().map(|info| info.node);
        let asked = members.filter(|node| *node != self.id).map(async |node| {
            if view.offline.contains(&node) {
                let error = Error::unavailable("it is offline");
                return (
                    node,
                    Err(error.hint("start it, or take it out of the cluster")),
                );
            }
            let answer = self.peers.call(node, call, ASK_TIMEOUT).await;
            (node, answer.and_then(read))
        });
        let (mut told, mut silent) = (vec![own], Vec::new());
        for (node, answer) in join_all(asked).await {
            match answer {
                Ok(view) => told.push(view),
                Err(error) => silent.push((node, error)),
            }
        }
        FromAll { told, silent }
    }

    /// All that were let in, as the leader of the root group knows them.
    async fn user_views(self: &Arc<Self>) -> Result<Vec<UserView>> {
        if let Ok(root) = self.must_lead_root() {
            return self.users_here(&root).await;
        }
        match self.ask_root(&PeerCall::Users, ASK_TIMEOUT).await? {
            PeerAnswer::Users(users) => Ok(users),
            other => Err(odd(&other)),
        }
    }

    /// The same, on that leader.
    pub(super) async fn users_here(&self, root: &RootGroup) -> Result<Vec<UserView>> {
        root.raft.read_barrier().await?;
        let users = root.read(|view| root::users(view))?.into_iter();
        let views = users.map(|user| UserView {
            name: user.name,
            group: user.group,
            admin: user.admin,
            certificates: user.certificates,
            revoked: user.revoked,
        });
        Ok(views.collect())
    }
}

fn weighs(node: NodeId, weight: u32) -> String {
    format!("node {node} now has weight {weight}; chunks move by themselves")
}

/// Without a node there must be as many for the copies as now, or enough. Nodes that chunks are on
/// their way from do not count.
fn keeps_copies(view: &View, node: NodeId) -> Result<()> {
    let ring = view.rings.newest().nodes();
    let holds = |id: &NodeId| {
        let info = view.node(*id);
        info.is_some_and(|info| info.state == NodeState::Member && info.weight > 0)
    };
    let copies = COPIES.min(ring.len());
    let left = ring.iter().filter(|id| **id != node && holds(id)).count();
    if left >= copies || !ring.contains(&node) {
        return Ok(());
    }
    let why =
        format!("without node {node} there are {left} nodes for {copies} copies of everything");
    Err(Error::new(Code::Conflict, why)
        .hint("join another node first, or take it out with `dfs node remove --force`"))
}

/// A new leader of the root group has not heard of all groups yet.
fn tells_of_all_groups(places: &[GroupPlace]) -> bool {
    let is_known = |group| places.iter().any(|place| place.group == group);
    GroupId::ALWAYS.into_iter().all(is_known)
}

/// Whoever is taken out by force must not be needed for a majority of a group: without both of two
/// nodes it would be closed for ever. Those that are counted are `alive`.
fn keeps_quorum(places: &[GroupPlace], node: NodeId, alive: &BTreeSet<NodeId>) -> Result<()> {
    for place in places {
        if place.voters.iter().all(|(_, voter)| *voter != node) {
            continue;
        }
        let counts = |(replica, voter): &&(ReplicaId, NodeId)| {
            *voter != node && alive.contains(voter) && !place.broken.contains(replica)
        };
        let left = place.settled_voters().filter(counts).count();
        let voters = place.voters.len();
        if left < voters / 2 + 1 {
            let (group, prefix) = (place.group, &place.prefix);
            let why = format!("group {group} ({prefix}) would have {left} of {voters} voters");
            return Err(Error::new(Code::Conflict, why)
                .hint("bring another of its nodes back first, or drain this one"));
        }
    }
    Ok(())
}

fn newest_members(view: &View) -> Vec<ring::Member> {
    let newest = view.cluster.epochs.last();
    newest.map_or_else(Vec::new, |epoch| super::view::ring_epoch(epoch).members)
}

fn no_node(node: NodeId) -> Error {
    Error::not_found(format!("there is no node {node}")).hint("`dfs node ls` lists them")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::LogIndex;

    fn place(group: GroupId, voters: &[u64], settled: &[u64], broken: &[u64]) -> GroupPlace {
        let ids = |of: &[u64]| of.iter().map(|id| ReplicaId(*id)).collect::<Vec<_>>();
        GroupPlace {
            group,
            prefix: "/".into(),
            leader: None,
            term: 1,
            voters: voters
                .iter()
                .map(|id| (ReplicaId(*id), NodeId(*id)))
                .collect(),
            settled: ids(settled),
            learners: Vec::new(),
            broken: ids(broken),
            applied: LogIndex(1),
            entries: 0,
            bytes: 0,
            deletions: 0,
        }
    }

    #[test]
    fn who_is_needed_for_a_majority_stays() {
        let keeps = |place: GroupPlace, node, alive: &[u64]| {
            let alive = alive.iter().map(|id| NodeId(*id)).collect();
            keeps_quorum(&[place], NodeId(node), &alive).is_ok()
        };
        let three = |broken: &[u64]| place(GroupId::FIRST, &[1, 2, 3], &[1, 2, 3], broken);
        assert!(keeps(three(&[]), 3, &[1, 2]));
        assert!(keeps(three(&[3]), 3, &[1, 2]), "its own is broken");
        assert!(!keeps(three(&[]), 3, &[1]), "another one is dead");
        assert!(!keeps(three(&[]), 3, &[1, 3]), "it does not count itself");
        assert!(!keeps(three(&[2]), 3, &[1, 2]), "another one is broken");
        assert!(keeps(three(&[]), 4, &[]), "it has no vote");
        let changing = place(GroupId::FIRST, &[1, 2, 3], &[1, 3], &[]);
        assert!(
            !keeps(changing, 3, &[1, 2]),
            "who may lose its vote counts not"
        );
        let two = place(GroupId::FIRST, &[1, 2], &[1, 2], &[]);
        assert!(!keeps(two, 2, &[1]));
    }

    #[test]
    fn what_was_not_heard_of_is_not_all() {
        let root = place(GroupId::ROOT, &[1], &[1], &[]);
        let first = place(GroupId::FIRST, &[1], &[1], &[]);
        assert!(!tells_of_all_groups(&[]));
        assert!(!tells_of_all_groups(std::slice::from_ref(&root)));
        assert!(tells_of_all_groups(&[first, root]));
    }
}
