//! Mends replicas that were not opened because something in their logs, or a record that applying
//! needs, is damaged: asks the nodes that host the group for the damaged entries and records, and
//! for what the lost end may have held. Run once after a start, until no replica waits.
//!
//! All nodes of a group may wait for each other at once, none with the group open: what is asked
//! here is answered from the log alone ([`PeerCall::Entries`], [`PeerCall::LogEnd`]).
//!
//! # Which entry is the right one
//! One at the same position: a term has one leader, and that one proposes one entry at an index. Of
//! an entry whose position is not known either, the one of a log that has the entry behind it at
//! the same position as this one (Raft's log matching).
//!
//! # A lost end
//! What may be lost of the last batch was perhaps acknowledged, and counted for a majority. So the
//! replica takes part in nothing before all other voters have told where their logs end, and it has
//! all that the longest of them has: whatever was committed with its help is in one of them, and so
//! in the longest (Raft's leader completeness). If its vote may be lost, it stands for election in
//! a term above all that it heard of: it can then have promised nobody anything in that term, and
//! votes in none below.
//!
//! # When nobody has it
//! Entries that the state on disk holds already are let go. Else the replica is given up, to be
//! made anew from the others, if the group works without it; if it does not, it goes on waiting.

mod end;
mod entries;

use super::Node;
use crate::error::{Code, Result};
use crate::proto::{LogEnd, PeerAnswer, PeerCall};
use crate::raft::{members_in_log, members_of, term_of_vote};
use crate::store::overlay::ReplicaMark;
use crate::store::wal::DamagedEntry;
use crate::types::{GroupId, NodeId, ReplicaId};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Between two rounds of questions.
const PAUSE: Duration = Duration::from_millis(200);
/// For one question.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// A replica that others can make anew waits no longer than this for those that are silent.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Why a replica waits is logged so often.
const TOLD_EVERY: Duration = Duration::from_secs(5);
/// Damaged entries that are asked for at once: an entry has up to some MiB.
const WINDOW: usize = 16;

/// The replicas of a group that are not this one.
type Others = BTreeSet<(ReplicaId, NodeId)>;

/// One replica that waits.
struct Mending {
    node: Arc<Node>,
    group: GroupId,
    replica: ReplicaId,
}

/// What a round came to.
enum Round {
    Mended,
    GivenUp(String),
    /// Again later, and why.
    Waits(String),
}

/// Mends until no replica waits.
pub(super) async fn run(node: Arc<Node>) {
    let begun = node.env.clock.now();
    let mut told: Option<Duration> = None;
    loop {
        let waiting = node.groups.waiting();
        if waiting.is_empty() {
            return;
        }
        let now = node.env.clock.now();
        let late = now.saturating_sub(begun) >= WAIT_MAX;
        let tell = told.is_none_or(|told| now.saturating_sub(told) >= TOLD_EVERY);
        for (group, replica, _) in waiting {
            let Some(_kept) = node.groups.keep(group, replica).await else {
                continue;
            };
            let mending = Mending {
                node: node.clone(),
                group,
                replica,
            };
            let round = mending.round(late).await;
            match round.unwrap_or_else(|error| Round::Waits(error.to_string())) {
                Round::Mended => match node.groups.open_mended(group, replica).await {
                    Ok(()) => {}
                    // Applying met a damaged record: the next round sees to it.
                    Err(error) if node.groups.doubts().is_open(group) => {
                        node.groups.waits_for(group, error.to_string());
                    }
                    Err(error) => {
                        (node.on_end)(&error);
                        return;
                    }
                },
                Round::GivenUp(why) => node.groups.must_be_replaced(group, replica, why),
                Round::Waits(why) => {
                    if tell {
                        told = Some(now);
                        tracing::warn!(%group, %why, "a replica cannot be opened yet");
                    }
                    node.groups.waits_for(group, why);
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

impl Mending {
    async fn round(&self, late: bool) -> Result<Round> {
        let group = self.group;
        let Some((_, folded)) = self.node.store.replica(group) else {
            return Ok(Round::Waits("it is being removed".into()));
        };
        let mark = folded.mark.position;
        let others = self.others(&folded.mark).await?;
        let silent = self.fetch_damaged(&others).await;
        if let Some(worst) = self.damaged().last() {
            let count = self.damaged().len();
            let mut why = format!(
                "{count} entries of its log up to {} are damaged; no other node has given them",
                worst.index
            );
            if !silent.is_empty() && !late {
                why.push_str(&format!("; silent: {}", names(&silent)));
                return Ok(Round::Waits(why));
            }
            if worst.index > mark.index {
                return Ok(self.give_up_if_possible(&others, why).await);
            }
            tracing::warn!(%group, count, "damaged entries of the log are let go: the state holds them");
            // No more than needed: somebody else may miss what is behind them.
            let known = self.node.wal.position(group, worst.index);
            let upto = known.unwrap_or(mark);
            self.node.wal.purge(group, upto).await?;
        }
        if self.node.groups.doubts().is_open(group) {
            let nodes: Vec<NodeId> = others.iter().map(|(_, node)| *node).collect();
            let left = self.node.mend(group, self.replica, &nodes).await?.left;
            if left > 0 {
                let why =
                    format!("{left} of its records are damaged; no other node has given them");
                return match late {
                    true => Ok(self.give_up_if_possible(&others, why).await),
                    false => Ok(Round::Waits(why)),
                };
            }
            self.node.groups.doubts().end(group);
        }
        if self.node.wal.state(group).doubt.is_none() {
            return Ok(Round::Mended);
        }
        match self.settle_end(&folded.mark).await {
            Ok(()) => Ok(Round::Mended),
            Err(error) => {
                let why = format!("the last batch of its log is damaged; {}", error.message);
                if error.code == Code::Unavailable && !late {
                    return Ok(Round::Waits(why));
                }
                Ok(self.give_up_if_possible(&others, why).await)
            }
        }
    }

    /// All other voters that the state and the log name; while a change is under way, the old and
    /// the new ones.
    async fn others(&self, mark: &ReplicaMark) -> Result<Others> {
        let folded = members_of(&mark.members)?;
        let logged = members_in_log(&self.node.wal, self.group, mark.position.index.next()).await;
        let voters = [folded].into_iter().chain(logged).flat_map(|m| m.voters);
        Ok(voters
            .filter(|(replica, _)| *replica != self.replica)
            .collect())
    }

    fn damaged(&self) -> Vec<DamagedEntry> {
        let mut damaged = self.node.wal.damaged();
        damaged.retain(|entry| entry.group == self.group);
        damaged
    }

    /// Gives a replica up if its group works without it: its leader has just confirmed with a
    /// majority what its members are.
    async fn give_up_if_possible(&self, others: &Others, why: String) -> Round {
        let (group, replica) = (self.group, self.replica);
        let call = PeerCall::IsMember { group, replica };
        for (_, host) in others {
            if let Ok(PeerAnswer::IsMember(_)) =
                self.node.peers.call(*host, &call, ASK_TIMEOUT).await
            {
                return Round::GivenUp(why);
            }
        }
        if let Ok(PeerAnswer::IsMember(_)) = self.node.ask_leader(group, &call, ASK_TIMEOUT).await {
            return Round::GivenUp(why);
        }
        Round::Waits(format!("{why}; the group does not work without this one"))
    }
}

impl Node {
    /// Where a log of this node ends, whether the group is open or not.
    pub(super) fn log_end(&self, group: GroupId) -> Result<Option<LogEnd>> {
        let Some((now, _)) = self.store.replica(group) else {
            return Ok(None);
        };
        let log = self.wal.state(group);
        let last = log.last.unwrap_or_default();
        Ok(Some(LogEnd {
            replica: now.replica,
            certain: !log.doubtful_tail,
            vote_term: term_of_vote(log.vote.as_ref())?,
            last: (last.term, last.leader, last.index),
        }))
    }
}

fn names(nodes: &BTreeSet<NodeId>) -> String {
    let names: Vec<String> = nodes.iter().map(|node| format!("node {node}")).collect();
    names.join(", ")
}
