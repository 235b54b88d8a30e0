//! Takes nodes out, or their chunks off them, where what is left is enough: drain, remove, weight.

use super::Node;
use super::view::View;
use crate::error::{Code, Error, Result};
use crate::limits::COPIES;
use crate::proto::{AdminAnswer, GroupPlace, NodeState, PeerCall};
use crate::root::RootCommand;
use crate::types::{GroupId, NodeId, ReplicaId};
use futures::future::join_all;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// A question to each node.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// What one node says of another is what all say by then: views come with heartbeats.
const AGREED_WITHIN: Duration = Duration::from_millis(2_500);
const AGREED_LOOK: Duration = Duration::from_millis(200);

/// How a node is to be spared.
#[derive(Clone, Copy)]
pub(super) enum Spare {
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
    /// Looks whether a node can be spared and takes it out, again while the answer may be another
    /// one in a moment.
    ///
    /// # Errors
    /// `conflict` when it cannot, why, and what to do.
    pub(super) async fn spare(self: &Arc<Self>, how: Spare, node: NodeId) -> Result<AdminAnswer> {
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

    pub(super) async fn undrain(self: &Arc<Self>, node: NodeId) -> Result<AdminAnswer> {
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
}

pub(super) fn weighs(node: NodeId, weight: u32) -> String {
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
pub(super) fn tells_of_all_groups(places: &[GroupPlace]) -> bool {
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
