//! A leader without room for new data gives the lead to a node that has some: it would refuse what
//! the others can take.

use super::Node;
use super::registry::Running;
use crate::error::{Code, Error, Result};
use crate::proto::{PeerAnswer, PeerCall};
use crate::raft::RaftGroup;
use crate::types::NodeId;
use futures::future::join_all;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often it is looked whether the lead is to be given away.
const LOOK: Duration = Duration::from_millis(200);
/// Looks left out after one that found nobody, or did not succeed.
const LOOKS_LEFT_OUT: u32 = 10;
/// One question to another node.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// How long another replica may take to take the lead over.
const HAND_OVER_MAX: Duration = Duration::from_secs(2);

/// What is known of the room of others.
#[derive(Default)]
pub(super) struct Room {
    /// There was nobody to take the lead: users hear that there is no space.
    nobody: AtomicBool,
}

/// Gives leads away while there is no room here, until the process ends.
pub(super) async fn run(node: Arc<Node>) {
    let mut left_out = 0;
    loop {
        node.env.look_every(LOOK).await;
        if node.must_have_space().is_ok() {
            node.room.nobody.store(false, Ordering::Relaxed);
            left_out = 0;
            continue;
        }
        if left_out > 0 {
            left_out -= 1;
            continue;
        }
        let mut given = true;
        for (group, running) in node.groups.all() {
            if let Running::Shard(shard) = &running
                && shard.raft.is_leader()
                && let Err(error) = node.give_lead(&shard.raft).await
            {
                tracing::warn!(%group, %error, "the lead stays on a full disk for now");
                given = false;
            }
        }
        node.room.nobody.store(!given, Ordering::Relaxed);
        if !given {
            left_out = LOOKS_LEFT_OUT;
        }
    }
}

impl Node {
    /// # Errors
    /// `no_space` while nobody can take new data of a group that is led here; `busy` while another
    /// node is about to.
    pub(super) fn must_have_space_to_lead(&self, raft: &RaftGroup) -> Result<()> {
        let full = match self.must_have_space() {
            Err(full) => full,
            Ok(()) => return Ok(()),
        };
        if raft.status().voters.len() < 2 || self.room.nobody.load(Ordering::Relaxed) {
            return Err(full);
        }
        let why = format!("{}; another node is to lead", full.message);
        Err(Error::new(Code::Busy, why).hint("try again"))
    }

    /// Has a voter of a group that has room take the lead.
    async fn give_lead(&self, raft: &RaftGroup) -> Result<()> {
        let voters = raft.status().voters.into_iter();
        let others = voters.filter(|(_, node)| *node != self.id);
        let asked =
            others.map(async |(replica, node)| self.has_room(node).await.then_some(replica));
        let heirs: BTreeSet<_> = join_all(asked).await.into_iter().flatten().collect();
        raft.hand_over_to(|replica| heirs.contains(&replica), HAND_OVER_MAX)
            .await
    }

    async fn has_room(&self, node: NodeId) -> bool {
        let answer = self.peers.call(node, &PeerCall::HasRoom, ASK_TIMEOUT).await;
        matches!(answer, Ok(PeerAnswer::HasRoom(true)))
    }
}
