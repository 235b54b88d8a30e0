//! What administrators ask for: tokens, nodes, users, the ring, repair.

use super::Node;
use super::group::RootGroup;
use super::join::role_of;
use super::peers::odd;
use super::service::Caller;
use super::spare::{Spare, tells_of_all_groups, weighs};
use super::view::View;
use crate::cluster::JoinToken;
use crate::error::{Error, Result};
use crate::limits::COPIES;
use crate::proto::{
    AdminAnswer, AdminCall, FromAll, GroupPlace, LocatedChunk, Look, MemberView, NodeState,
    PeerAnswer, PeerCall, PlanView, RingView, ShareView, TokenRole, UserView,
};
use crate::ring::{self, Ring};
use crate::root::{self, RootCommand};
use crate::shard;
use crate::store::overlay::View as StoreView;
use crate::types::{DfsPath, GroupId, NodeId, ReadLevel};
use futures::future::join_all;
use std::sync::Arc;
use std::time::Duration;

/// A question to each node.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// Shares are told in millionths.
const MILLION: f64 = 1_000_000.0;

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

fn newest_members(view: &View) -> Vec<ring::Member> {
    let newest = view.cluster.epochs.last();
    newest.map_or_else(Vec::new, |epoch| super::view::ring_epoch(epoch).members)
}
