//! Takes care of the members of every group that this node leads: growth, replacement, spreading.
//! What to do is decided by `members` (pure); this does one step at a time. Also: asks of its own
//! replicas that hear nothing whether they are still members.

use super::Node;
use super::members::{Known, Replica, Step};
use super::peers::odd;
use super::registry::Running;
use crate::error::{Code, Error, Result};
use crate::proto::{PeerAnswer, PeerCall};
use crate::raft::RaftGroup;
use crate::root::{RootCommand, RootDone};
use crate::types::{GroupId, NodeId, ReplicaId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// How often the members of a group are looked at.
const LOOK: Duration = Duration::from_millis(200);
/// A step that is asked of another node may take so long.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);
/// A learner with no more than this many entries to go has caught up.
const CAUGHT_UP_ENTRIES: u64 = 1_000;
/// A learner that has not moved for so long, on a node that is online, is made anew.
const LEARNER_STUCK: Duration = Duration::from_secs(600);
/// The same reason why a group's members stay as they are is logged again after so long.
const TOLD_AGAIN: Duration = Duration::from_secs(60);
/// A replica that hears of no leader for so long asks whether it is still a member.
const UNHEARD: Duration = Duration::from_secs(20);

/// Looks after the groups until the process ends.
pub(super) async fn run(node: Arc<Node>) {
    let mut asked_at: BTreeMap<GroupId, Duration> = BTreeMap::new();
    let mut told: BTreeMap<GroupId, (Duration, String)> = BTreeMap::new();
    loop {
        node.env.look_every(LOOK).await;
        for (group, running) in node.groups.all() {
            if running.raft().is_leader() {
                match node.look_after(group, running.raft()).await {
                    Ok(()) => drop(told.remove(&group)),
                    Err(error) if error.code.is_retryable() => {}
                    Err(error) => {
                        let (now, text) = (node.env.clock.now(), error.to_string());
                        let is_known = told.get(&group).is_some_and(|(at, said)| {
                            *said == text && now.saturating_sub(*at) < TOLD_AGAIN
                        });
                        if !is_known {
                            tracing::warn!(%group, %error, "the group's members stay as they are");
                            told.insert(group, (now, text));
                        }
                    }
                }
                continue;
            }
            // What a leadership saw of learners says nothing in a later one.
            (node.learners.lock()).retain(|(other, _), _| *other != group);
            if let Err(error) = node.doubt(group, &running, &mut asked_at).await {
                tracing::debug!(%group, %error, "not known whether this replica is a member");
            }
        }
        // Those that do not run hear nothing at all.
        let held = node.groups.broken().into_iter();
        for (group, replica, _) in held.chain(node.groups.waiting()) {
            if node.groups.running(group).is_some() {
                continue;
            }
            if let Err(error) = node.still_member(group, replica, &mut asked_at).await {
                tracing::debug!(%group, %error, "not known whether this replica is a member");
            }
        }
    }
}

impl Node {
    /// One step for one group.
    async fn look_after(self: &Arc<Self>, group: GroupId, raft: &Arc<RaftGroup>) -> Result<()> {
        let members = raft.members();
        let Some(progress) = raft.progress() else {
            return Ok(());
        };
        let status = raft.status();
        let view = self.views.now();
        let (broken, lossy) = (self.broken_replicas(group), raft.lossy());
        let now = self.env.clock.now();
        let cannot_vote = self.without_seal(group);
        let voters = members.voters.iter().map(|member| (member, true));
        let learners = members.learners.iter().map(|member| (member, false));
        let replicas: Vec<Replica> = voters
            .chain(learners)
            .map(|((id, node), votes)| {
                let progress = progress.get(id);
                let matched = progress.and_then(|progress| progress.matched);
                let matched = matched.map_or(0, |index| index.0);
                // An image moves the learner only when it is there as a whole.
                let stuck =
                    !votes && self.is_stuck(group, *id, (matched, raft.is_sending_image(*id)), now);
                Replica {
                    id: *id,
                    node: *node,
                    votes,
                    can_vote: *id == status.replica
                        || matched > 0
                            && status.last.saturating_sub(matched) <= CAUGHT_UP_ENTRIES
                            && !cannot_vote.contains(node),
                    broken: broken.contains(id)
                        || lossy.contains(id)
                        || stuck && view.online.contains(node),
                }
            })
            .collect();
        let mut loads = BTreeMap::new();
        for place in &view.groups {
            for (_, node) in place.voters.iter().chain(&place.learners) {
                *loads.entry(*node).or_default() += 1;
            }
        }
        let known = Known {
            replicas: &replicas,
            leader: status.replica,
            nodes: &view.cluster.nodes,
            online: &self.online(),
            offline: &view.offline,
            loads: &loads,
        };
        match known.next() {
            Some(step) => self.step(group, raft, &replicas, step).await,
            // A change that a leader before this one left half done.
            None if members.joint => {
                let voters = members.voters.iter().map(|(replica, _)| *replica).collect();
                let step = Step::ChangeVoters(voters);
                self.step(group, raft, &replicas, step).await
            }
            None => Ok(()),
        }
    }

    async fn step(
        self: &Arc<Self>,
        group: GroupId,
        raft: &Arc<RaftGroup>,
        replicas: &[Replica],
        step: Step,
    ) -> Result<()> {
        tracing::info!(%group, ?step, "members");
        match step {
            Step::AddLearner(node) => {
                // A majority confirms it: what is on that node may be in another's care by now.
                raft.read_barrier().await?;
                let term = raft.status().term;
                let here = replicas.iter().find(|replica| replica.node == node);
                let replaces = here.map(|replica| replica.id);
                let replica = match self.root_command(RootCommand::NextReplica).await? {
                    RootDone::Replica(replica) => replica,
                    other => return Err(Error::failed(format!("no replica id ({other:?})"))),
                };
                let call = PeerCall::CreateReplica {
                    group,
                    replica,
                    replaces,
                    term,
                };
                match self.peers.call(node, &call, STEP_TIMEOUT).await? {
                    PeerAnswer::Done => raft.add_learner(replica, node).await,
                    other => Err(odd(&other)),
                }
            }
            Step::RemoveLearner(replica) => {
                raft.remove_learner(replica).await?;
                self.tell_removed(group, replicas, &BTreeSet::from([replica]));
                Ok(())
            }
            Step::ChangeVoters(voters) => {
                raft.change_voters(&voters).await?;
                let gone: BTreeSet<ReplicaId> = replicas
                    .iter()
                    .map(|replica| replica.id)
                    .filter(|id| !voters.contains(id))
                    .collect();
                self.tell_removed(group, replicas, &gone);
                self.beat_now.notify_one();
                Ok(())
            }
        }
    }

    /// Tells nodes that replicas of theirs are no members any more. Who does not hear it asks.
    fn tell_removed(
        self: &Arc<Self>,
        group: GroupId,
        replicas: &[Replica],
        gone: &BTreeSet<ReplicaId>,
    ) {
        for replica in replicas.iter().filter(|replica| gone.contains(&replica.id)) {
            let (node, to, id) = (self.clone(), replica.node, replica.id);
            let tell = async move {
                let told = match to == node.id {
                    true => node.groups.remove(group, id).await,
                    false => {
                        let call = PeerCall::RemoveReplica { group, replica: id };
                        node.peers.call(to, &call, STEP_TIMEOUT).await.map(drop)
                    }
                };
                if let Err(error) = told {
                    tracing::debug!(%group, replica = %id, %error, "a removed replica was not told");
                }
            };
            self.env
                .spawn
                .spawn("tell a removed replica", Box::pin(tell));
        }
    }

    /// Replicas of a group whose nodes say that they cannot be used.
    fn broken_replicas(&self, group: GroupId) -> BTreeSet<ReplicaId> {
        let view = self.views.now();
        let place = view.place(group);
        place
            .map(|place| place.broken.iter().copied().collect())
            .unwrap_or_default()
    }

    /// Nodes that may not vote in a group: in the root group those that have not told this leader
    /// of it that they can open the CA. Of those that have been silent for long nothing is hoped.
    fn without_seal(&self, group: GroupId) -> BTreeSet<NodeId> {
        let root = self.groups.root().filter(|_| group == GroupId::ROOT);
        let Some(root) = root else {
            return BTreeSet::new();
        };
        let now = self.env.clock.now();
        let heard = self.liveness(&root);
        let opens = |node: NodeId| match heard.last(node, now) {
            _ if heard.silence(node, now) >= self.offline_after => Some(false),
            last => last.map(|(_, beat)| beat.opens_ca),
        };
        let members = root.raft.members();
        let nodes = |replicas: &[(ReplicaId, NodeId)]| -> Vec<NodeId> {
            replicas.iter().map(|(_, node)| *node).collect()
        };
        cannot_open(&nodes(&members.voters), &nodes(&members.learners), opens)
    }

    fn is_stuck(
        &self,
        group: GroupId,
        replica: ReplicaId,
        (matched, is_filled): (u64, bool),
        now: Duration,
    ) -> bool {
        let mut seen = self.learners.lock();
        let last = seen.entry((group, replica)).or_insert((matched, now));
        if last.0 != matched || is_filled {
            *last = (matched, now);
        }
        now.saturating_sub(last.1) > LEARNER_STUCK
    }

    /// A replica that hears of no leader may have been removed without being told.
    async fn doubt(
        self: &Arc<Self>,
        group: GroupId,
        running: &Running,
        asked_at: &mut BTreeMap<GroupId, Duration>,
    ) -> Result<()> {
        if running.raft().unheard() < UNHEARD {
            return Ok(());
        }
        let replica = running.raft().status().replica;
        self.still_member(group, replica, asked_at).await
    }

    /// Forgets a replica here that its group does not count any more; asks now and then.
    async fn still_member(
        self: &Arc<Self>,
        group: GroupId,
        replica: ReplicaId,
        asked_at: &mut BTreeMap<GroupId, Duration>,
    ) -> Result<()> {
        let now = self.env.clock.now();
        let asked = asked_at.get(&group).copied().unwrap_or_default();
        if now.saturating_sub(asked) < UNHEARD {
            return Ok(());
        }
        asked_at.insert(group, now);
        let call = PeerCall::IsMember { group, replica };
        match self.ask_leader(group, &call, STEP_TIMEOUT).await? {
            PeerAnswer::IsMember(true) => Ok(()),
            PeerAnswer::IsMember(false) => {
                tracing::warn!(%group, %replica, "this replica was removed");
                self.groups.remove(group, replica).await
            }
            other => Err(odd(&other)),
        }
    }

    /// A call to the leader of a group, as far as it is known where that is.
    pub(super) async fn ask_leader(
        &self,
        group: GroupId,
        call: &PeerCall,
        timeout: Duration,
    ) -> Result<PeerAnswer> {
        let own = self.groups.raft(group).and_then(|raft| {
            let status = raft.status();
            let leads = |(replica, node): &(ReplicaId, NodeId)| {
                (status.leader == Some(*replica)).then_some(*node)
            };
            status.voters.iter().find_map(leads)
        });
        let view = self.views.now();
        let place = view.place(group);
        let mut candidates: Vec<NodeId> = own.into_iter().collect();
        candidates.extend(place.and_then(|place| place.leader));
        candidates.extend(
            place
                .into_iter()
                .flat_map(|place| place.voters.iter().map(|(_, node)| *node)),
        );
        let mut seen = BTreeSet::from([self.id]);
        candidates.retain(|node| seen.insert(*node));
        let mut last = Error::unavailable(format!("nobody is known to lead group {group}"));
        for node in candidates {
            match self.peers.call(node, call, timeout).await {
                Err(error) if error.code.is_retryable() || error.code == Code::Unavailable => {
                    last = error;
                }
                answered => return answered,
            }
        }
        Err(last)
    }

    /// Answers whether a replica is a member: as of a moment that a majority confirms. One whose
    /// removal is not committed is: the change may be lost with its leader.
    pub(super) async fn is_member(&self, group: GroupId, replica: ReplicaId) -> Result<bool> {
        let raft = self.groups.raft(group).ok_or_else(|| {
            Error::new(Code::Redirect, format!("no replica of group {group} here"))
        })?;
        raft.read_barrier().await?;
        Ok(raft.is_member(replica))
    }
}

/// Of the members of the root group those that cannot open the CA. `opens`: what a node says of it,
/// `None` if it was not heard of yet. Nobody, where no voter can: there is nothing to wait for, and
/// the group must not be lost as well.
fn cannot_open(
    voters: &[NodeId],
    learners: &[NodeId],
    opens: impl Fn(NodeId) -> Option<bool>,
) -> BTreeSet<NodeId> {
    if voters.iter().all(|voter| opens(*voter) == Some(false)) {
        return BTreeSet::new();
    }
    let members = voters.iter().chain(learners).copied();
    members.filter(|node| opens(*node) != Some(true)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_cannot_open_the_ca_waits_as_long_as_somebody_may() {
        let [founder, second, learner] = [1, 2, 3].map(NodeId);
        let who = |said: [Option<bool>; 3]| -> Vec<u64> {
            let opens = |node: NodeId| said[node.0 as usize - 1];
            let found = cannot_open(&[founder, second], &[learner], opens);
            found.into_iter().map(|node| node.0).collect()
        };
        let (yes, no) = (Some(true), Some(false));
        assert_eq!(who([yes, yes, no]), [3]);
        assert_eq!(who([yes, yes, yes]), [0; 0]);
        assert_eq!(who([no, yes, None]), [1, 3]);
        assert_eq!(who([None, no, no]), [1, 2, 3], "it may have it");
        assert_eq!(who([no, no, no]), [0; 0], "lost");
    }
}
