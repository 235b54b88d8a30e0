//! Commands of the root group from any node, and what its leader does by itself: the ring follows
//! the nodes, epochs close when everything has moved, ticket keys are renewed.

use super::Node;
use super::group::RootGroup;
use super::peers::odd;
use crate::codec;
use crate::error::{Code, Error, Result};
use crate::limits::REQUEST_TIMEOUT;
use crate::proto::{NodeInfo, NodeState, PeerAnswer, PeerCall, RingEpoch, RingMember};
use crate::root::{self, RootCommand, RootDone, RootReply, TicketKey};
use crate::types::{Epoch, NodeId};
use std::sync::Arc;
use std::time::Duration;

/// How often the leader looks.
const LOOK: Duration = Duration::from_millis(200);
/// Tickets get a new key when the newest is so old, milliseconds of the root group's time. As three
/// keys are kept, a ticket's lasts twice as long.
const TICKET_KEY_EVERY_MS: u64 = 24 * 3_600_000;
/// A node that is silent for so long gives its share of chunks up.
const GIVES_UP_AFTER: Duration = Duration::from_secs(30 * 60);

impl Node {
    /// Has the root group do something, wherever its leader is.
    ///
    /// # Errors
    /// The command's refusal, or why it could not be proposed.
    pub(super) async fn root_command(&self, command: RootCommand) -> Result<RootDone> {
        if let Some(root) = self.groups.root() {
            match root.propose(command.clone()).await {
                Err(error) if error.code == Code::Redirect => {}
                answered => return answered,
            }
        }
        let call = PeerCall::Root(codec::encode(&command).into());
        match self.ask_root(&call, REQUEST_TIMEOUT).await? {
            PeerAnswer::Root(reply) => codec::decode::<RootReply>(&reply)?,
            other => Err(odd(&other)),
        }
    }

    /// A command that another node sent: it may only speak for itself, except where any node may.
    pub(super) async fn root_command_of(&self, from: NodeId, command: &[u8]) -> Result<RootReply> {
        let command: RootCommand = codec::decode(command)?;
        let root = self.must_lead_root()?;
        if let RootCommand::NodeStarted(info) = &command
            && info.node != from
        {
            let error = format!("node {from} cannot speak for node {}", info.node);
            return Err(Error::new(Code::Denied, error));
        }
        match root.propose(command).await {
            Err(error) if error.code.is_retryable() || error.may_have_happened => Err(error),
            answered => Ok(answered),
        }
    }

    /// # Errors
    /// `redirect` on every node but the one that leads the root group.
    pub(super) fn must_lead_root(&self) -> Result<Arc<RootGroup>> {
        self.leading_root()
            .ok_or_else(|| Error::new(Code::Redirect, "this node does not lead the root group"))
    }
}

/// The leader's own work, until the process ends.
pub(super) async fn run(node: Arc<Node>) {
    loop {
        node.env.look_every(LOOK).await;
        let Some(root) = node.leading_root() else {
            continue;
        };
        match node.tend(&root).await {
            Ok(()) => {}
            Err(error) if error.code.is_retryable() || error.code == Code::Unavailable => {}
            Err(error) => tracing::warn!(%error, "the root group's own work failed; again soon"),
        }
    }
}

impl Node {
    async fn tend(&self, root: &RootGroup) -> Result<()> {
        let (nodes, epochs, keys, time) = root.read(|view| {
            let time = root::cluster(view)?.time;
            let keys = root::ticket_keys(view)?;
            Ok((root::nodes(view)?, root::ring_epochs(view)?, keys, time))
        })?;
        let newest = epochs.last().map_or(Epoch(0), |epoch| epoch.epoch);
        let wanted = self.ring_members(root, &nodes, epochs.last().map(|epoch| &epoch.members[..]));
        let placed = epochs.last().map(|epoch| &epoch.members);
        if placed != Some(&wanted) && epochs.len() < root::EPOCHS_OPEN_MAX && !wanted.is_empty() {
            tracing::info!(after = %newest, members = wanted.len(), "a new epoch of the ring");
            let base = match epochs.last() {
                Some(last) => {
                    let members = wanted.iter().map(super::view::member).collect();
                    super::view::ring_epoch(last).next(members)?.base
                }
                None => 1,
            };
            let command = RootCommand::OpenEpoch {
                after: newest,
                base,
                members: wanted,
            };
            root.propose(command).await?;
            return Ok(());
        }
        if epochs.len() > 1
            && let Some(last) = epochs.last()
            && self.all_settled(root, last)
        {
            tracing::info!(epoch = %newest, "everything has moved");
            root.propose(RootCommand::CloseBefore(newest)).await?;
        }
        let age = keys
            .last()
            .map_or(u64::MAX, |key| root.time().max(time).since(key.made));
        if age >= TICKET_KEY_EVERY_MS {
            let mut key = [0; 32];
            self.env.rng.fill(&mut key);
            let new = TicketKey {
                epoch: keys.last().map_or(0, |key| key.epoch) + 1,
                key,
                made: root.time(),
            };
            root.propose(RootCommand::AddTicketKey(new)).await?;
        }
        Ok(())
    }

    /// Who should hold chunks: members that have started once and were not silent for too long.
    /// A node that is silent but was in before stays, until it has been silent for long.
    fn ring_members(
        &self,
        root: &RootGroup,
        nodes: &[NodeInfo],
        before: Option<&[RingMember]>,
    ) -> Vec<RingMember> {
        let now = self.env.clock.now();
        let liveness = self.liveness(root);
        let online = liveness.online(now);
        let in_ring = |id: NodeId| {
            let mut members = before.unwrap_or_default().iter();
            members.any(|member| member.node == id)
        };
        nodes
            .iter()
            .filter(|node| node.state == NodeState::Member && node.weight > 0)
            .filter(|node| match in_ring(node.node) {
                true => liveness.silence(node.node, now) < GIVES_UP_AFTER,
                false => online.contains(&node.node),
            })
            .map(|node| RingMember {
                node: node.node,
                weight: node.weight,
                zone: node.zone.clone(),
                rack: node.rack.clone(),
            })
            .collect()
    }

    /// Every node of an epoch has all that it should hold under it. One that is silent has not
    /// said so: the epoch stays open until it is back, or has left the ring.
    fn all_settled(&self, root: &RootGroup, epoch: &RingEpoch) -> bool {
        let now = self.env.clock.now();
        let liveness = self.liveness(root);
        epoch.members.iter().all(|member| {
            let last = liveness.last(member.node, now);
            last.is_some_and(|(_, beat)| beat.settled >= epoch.epoch)
        })
    }
}
