//! Heartbeats: each node tells the leader of the root group once a second that it is there and how
//! it is, and hears in return who else is, where groups are, and whether there is a newer view.
//!
//! The leader answers only after a majority has confirmed it, so that a node which was answered
//! knows what was revoked until a moment before it asked.

use super::Node;
use super::group::RootGroup;
use super::liveness::{Liveness, ONLINE_WITHIN};
use super::peers::odd;
use crate::error::{Code, Error, Result};
use crate::proto::{Beat, BeatAnswer, NodeState, PeerAnswer, PeerCall, ReplicaBeat};
use crate::shard;
use crate::types::{GroupId, LogIndex, NodeId, ReplicaId};
use parking_lot::{MappedMutexGuard, MutexGuard};
use std::sync::Arc;
use std::time::Duration;

/// How often a node tells that it is there.
pub const BEAT_EVERY: Duration = Duration::from_secs(1);
/// Sooner while something is changing: a node that just came, a root group without a leader.
const BEAT_SOON: Duration = Duration::from_millis(100);
/// Heartbeats in a row that are refused to a node that was removed; then it stops.
const DENIED_MAX: u32 = 3;
/// One attempt.
const BEAT_TIMEOUT: Duration = Duration::from_secs(2);
/// A node that has not been answered for so long accepts no new user.
pub const TRUSTED_FOR: Duration = Duration::from_secs(5);

/// Of failed heartbeats in a row every so-manieth asks some nodes for a newer view.
const ASK_AROUND_EVERY: usize = 10;
/// So many failed heartbeats in a row: the root group is silent. An attempt takes two seconds where
/// nobody is; where its leader has just died, one fails or none.
const LOST_AFTER: usize = 2;
/// How many are asked then, others each time: all of a large cluster may be asking.
const ASKED_AROUND: usize = 4;

/// Tells until the process ends.
pub(super) async fn run(node: Arc<Node>) {
    let mut denied = 0;
    let mut failures = 0;
    loop {
        let pause = match node.beat().await {
            Ok(()) => {
                (denied, failures) = (0, 0);
                node.peers.set_lost(false);
                BEAT_EVERY
            }
            Err(error) if error.code == Code::Denied => {
                denied += 1;
                if denied >= DENIED_MAX {
                    (node.on_end)(&error);
                }
                BEAT_EVERY
            }
            Err(error) => {
                tracing::debug!(%error, "no answer to a heartbeat");
                let found = node.find_root(failures).await;
                failures = failures.wrapping_add(1);
                if failures >= LOST_AFTER {
                    node.peers.set_lost(true);
                    node.look_at_named().await;
                }
                if let Err(error) = found {
                    tracing::warn!(%error, "a newer view of the cluster was not taken");
                }
                BEAT_SOON
            }
        };
        let hurried = node.beat_now.notified();
        // Whichever comes first.
        let _ = tokio::time::timeout(pause, hurried).await;
    }
}

/// Takes what the root group decides from this node's own replica of it, if it has one, until the
/// process ends. A heartbeat would tell a second later, and tells nothing while the root group has
/// no leader: where a node is that came back just before is needed to elect one.
pub(super) async fn follow_root(node: Arc<Node>) {
    loop {
        node.groups.root_changed().notified().await;
        if let Err(error) = node.take_own_view().await {
            tracing::warn!(%error, "a newer view of the cluster was not taken");
        }
    }
}

impl Node {
    /// Takes the view of the root group's replica here, if it is newer.
    async fn take_own_view(&self) -> Result<()> {
        let Some(root) = self.root_records() else {
            return Ok(());
        };
        let newest = root.read(|view| Ok(crate::root::cluster(view)?.view))?;
        match newest > self.views.now().cluster.version {
            true => self.take_view(root.cluster_view()?).await,
            false => Ok(()),
        }
    }

    /// One heartbeat to whoever leads the root group.
    pub(super) async fn beat(self: &Arc<Self>) -> Result<()> {
        let beat = self.own_beat().await;
        let answer = match self.leading_root() {
            Some(root) => self.take_beat(&root, self.id, beat).await?,
            None => match self
                .ask_root(&PeerCall::Beat(Box::new(beat)), BEAT_TIMEOUT)
                .await?
            {
                PeerAnswer::Beat(answer) => answer,
                other => return Err(odd(&other)),
            },
        };
        let now = self.env.clock.now();
        self.views
            .beat(now, answer.online, answer.offline, answer.groups);
        if answer.view > self.views.now().cluster.version {
            self.fetch_view(answer.view).await?;
        }
        Ok(())
    }

    /// What was heard of the nodes in the present leadership of the root group by this node.
    pub(super) fn liveness(&self, root: &RootGroup) -> MappedMutexGuard<'_, Liveness> {
        let (term, now) = (root.raft.status().term, self.env.clock.now());
        MutexGuard::map(self.liveness.lock(), |heard| heard.in_term(term, now))
    }

    /// The root group, if this node leads it.
    pub(super) fn leading_root(&self) -> Option<Arc<RootGroup>> {
        self.groups.root().filter(|root| root.raft.is_leader())
    }

    /// The root group, if its records are here.
    fn root_records(&self) -> Option<Arc<RootGroup>> {
        (self.groups.root()).filter(|root| root.machine.has_state())
    }

    /// `told`: the newest view, as the root group's leader says.
    async fn fetch_view(self: &Arc<Self>, told: u64) -> Result<()> {
        let known = self.views.now().cluster.version;
        let own = self.root_records().map(|root| root.cluster_view());
        let new = match own.transpose()? {
            Some(own) if own.version >= told => Some(Box::new(own)),
            // A replica here may be behind, for long if it was removed and has not heard of it.
            _ => match self
                .ask_root(&PeerCall::View { known }, BEAT_TIMEOUT)
                .await?
            {
                PeerAnswer::View(new) => new,
                other => return Err(odd(&other)),
            },
        };
        if let Some(new) = new {
            self.take_view(*new).await?;
        }
        Ok(())
    }

    /// The leader of the root group may be a node that joined while this one was cut off: its
    /// address is in a newer view. This node's replica of the root group may have it, and
    /// otherwise other nodes. `failures`: heartbeats that failed in a row before this one.
    async fn find_root(&self, failures: usize) -> Result<()> {
        self.take_own_view().await?;
        if !failures.is_multiple_of(ASK_AROUND_EVERY) {
            return Ok(());
        }
        let known = self.views.now().cluster.version;
        let call = PeerCall::View { known };
        let nodes = self.peers.addresses();
        let first = failures / ASK_AROUND_EVERY * ASKED_AROUND;
        let some =
            (0..nodes.len().min(ASKED_AROUND)).map(|nth| nodes[(first + nth) % nodes.len()].node);
        let asked = some.map(|node| self.peers.call(node, &call, BEAT_TIMEOUT));
        for answer in futures::future::join_all(asked).await {
            // Who does not answer has nothing to tell.
            if let Ok(PeerAnswer::View(Some(view))) = answer {
                self.take_view(*view).await?;
            }
        }
        Ok(())
    }

    /// Sees who is where the operator says that other nodes are: they may all have moved.
    async fn look_at_named(&self) {
        let looks = self.named.iter().map(async |address| {
            if let Err(error) = self.peers.look_at(address).await {
                tracing::debug!(%address, %error, "no node was found where the operator says");
            }
        });
        futures::future::join_all(looks).await;
    }

    /// A call to the leader of the root group, wherever it is.
    ///
    /// # Errors
    /// `unavailable` when none is found; what the leader says.
    pub(super) async fn ask_root(&self, call: &PeerCall, timeout: Duration) -> Result<PeerAnswer> {
        let mut last = Error::unavailable("the root group has no leader that this node knows of");
        for node in self.root_candidates() {
            match self.peers.call(node, call, timeout).await {
                Err(error) if error.code.is_retryable() || error.code == Code::Unavailable => {
                    last = error;
                }
                answered => {
                    *self.root_hint.lock() = Some(node);
                    return answered;
                }
            }
        }
        Err(last)
    }

    /// Who may lead the root group, the likeliest first.
    fn root_candidates(&self) -> Vec<NodeId> {
        let view = self.views.now();
        let known = self.groups.root().and_then(|root| {
            let status = root.raft.status();
            let leads =
                |(replica, node): &(_, NodeId)| (status.leader == Some(*replica)).then_some(*node);
            status.voters.iter().find_map(leads)
        });
        let mut candidates: Vec<NodeId> = known.into_iter().collect();
        candidates.extend(*self.root_hint.lock());
        if let Some(place) = view.place(GroupId::ROOT) {
            candidates.extend(place.leader);
            candidates.extend(place.voters.iter().map(|(_, node)| *node));
        }
        // One that has just joined knows addresses and no view.
        candidates.extend(self.peers.addresses().into_iter().map(|node| node.node));
        let mut seen = std::collections::BTreeSet::new();
        candidates.retain(|node| *node != self.id && seen.insert(*node));
        candidates
    }

    /// Serves a heartbeat: this node leads the root group, and a majority says so too.
    pub(super) async fn take_beat(
        &self,
        root: &RootGroup,
        from: NodeId,
        beat: Beat,
    ) -> Result<BeatAnswer> {
        root.raft.quiet_barrier().await?;
        let view = root.cluster_view()?;
        let known = view.nodes.iter().find(|node| node.node == from);
        if known.is_none_or(|node| node.state == NodeState::Removed) {
            let error = Error::new(Code::Denied, format!("node {from} is not in the cluster"));
            return Err(error.hint("it was removed; join again with an empty directory"));
        }
        let now = self.env.clock.now();
        let mut liveness = self.liveness(root);
        liveness.hear(from, beat, now);
        let members = view
            .nodes
            .iter()
            .filter(|node| node.state != NodeState::Removed)
            .map(|node| node.node);
        let offline = liveness.offline(members, now, self.offline_after);
        Ok(BeatAnswer {
            view: view.version,
            online: liveness.online(now).into_iter().collect(),
            offline: offline.into_iter().collect(),
            groups: liveness.places(now),
        })
    }

    /// How this node is.
    pub(super) async fn own_beat(self: &Arc<Self>) -> Beat {
        let space = self.env.disk.space(&self.data).await;
        let (disk_total, disk_available) = space.map_or((0, 0), |s| (s.total, s.available));
        let (chunks, chunk_bytes) = self.chunks.totals();
        let mut replicas = Vec::new();
        for (group, running) in self.groups.all() {
            let raft = running.raft();
            let status = raft.status();
            let leads = raft.is_leader();
            let mut replica = ReplicaBeat {
                group,
                replica: status.replica,
                term: status.term,
                applied: LogIndex(status.applied),
                leads,
                voters: Vec::new(),
                settled: Vec::new(),
                learners: Vec::new(),
                broken: false,
                entries: 0,
                bytes: 0,
                deletions: 0,
            };
            if leads {
                (replica.voters, replica.learners) = (status.voters, status.learners);
                replica.settled = status.settled;
                self.count_entries(group, &mut replica).await;
            }
            replicas.push(replica);
        }
        let broken = self.groups.broken().into_iter();
        let broken = broken.map(|(group, replica, _)| (group, replica));
        for (group, replica) in broken.chain(self.forgotten_replicas()) {
            replicas.push(ReplicaBeat {
                group,
                replica,
                term: 0,
                applied: LogIndex(0),
                leads: false,
                voters: Vec::new(),
                settled: Vec::new(),
                learners: Vec::new(),
                broken: true,
                entries: 0,
                bytes: 0,
                deletions: 0,
            });
        }
        let uptime = self.env.clock.now().saturating_sub(self.started);
        Beat {
            life: self.peers.life(),
            disk_total,
            disk_available,
            chunks,
            chunk_bytes,
            uptime_ms: u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX),
            replicas,
            repair: Some(self.repairs.view(self.id, self.env.clock.now())),
            settled: self.repairs.settled(),
            opens_ca: self.identity.opens_ca(),
            damage: self.own_damage(),
            reasons: self.own_reasons(),
        }
    }

    /// Replicas that their groups count on and that this node has no more: it made place for a
    /// successor that then did not become a member.
    fn forgotten_replicas(&self) -> Vec<(GroupId, ReplicaId)> {
        let view = self.views.now();
        let mut forgotten = Vec::new();
        for place in &view.groups {
            let members = place.voters.iter().chain(&place.learners);
            let here = members.filter(|(_, node)| *node == self.id);
            let gone = here.filter(|(id, _)| self.groups.has_forgotten(place.group, *id));
            forgotten.extend(gone.map(|(id, _)| (place.group, *id)));
        }
        forgotten
    }

    async fn count_entries(&self, group: GroupId, replica: &mut ReplicaBeat) {
        let Ok(shard) = self.groups.shard(group) else {
            return;
        };
        let machine = shard.machine.clone();
        // Not in the queue of users' reads: a node that is late with this counts as gone.
        let read = move || -> Result<_> {
            let view = machine.view()?;
            let root = shard::read::stat(&view, &crate::types::DfsPath::root())?;
            Ok((shard::read::header(&view)?.deletions, root))
        };
        let counted = self.env.run_blocking(read).await;
        if let Ok((deletions, root)) = counted.map_err(|e| shard.damage_met(e)) {
            replica.deletions = deletions;
            if let crate::proto::EntryView::Dir(dir) = root {
                (replica.entries, replica.bytes) = (dir.totals.entries, dir.totals.bytes);
            }
        }
    }

    /// True while this node hears of what was revoked.
    pub(super) fn is_trusted(&self) -> bool {
        let heard = self.views.heard();
        heard.is_some_and(|at| self.env.clock.now().saturating_sub(at) <= TRUSTED_FOR)
    }

    /// Nodes that new work may go to: this one and those that were heard of.
    pub(super) fn online(&self) -> std::collections::BTreeSet<NodeId> {
        let view = self.views.now();
        let heard = view.online.iter().copied();
        heard.chain([self.id]).collect()
    }
}

const _: () = assert!(ONLINE_WITHIN.as_secs() >= 2 * BEAT_EVERY.as_secs());
