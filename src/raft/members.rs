//! Who belongs to the group: asking and changing. Called by `node`, on the leader.
//!
//! A member begins as a learner, which gets all entries and has no vote, and is promoted when it
//! has caught up. Voters change by joint consensus: majorities of the old and of the new set must
//! agree while the change is under way. A leader that fails in between leaves the group joint; it
//! works on, and the same change asked of the next leader finishes it.

use super::group::Written;
use super::kinds::{Host, StoredMembership, position};
use super::log::READ_BYTES_MAX;
use super::{Members, Progress, RaftGroup, refusal, stored};
use crate::error::{Code, Error, Result};
use crate::limits;
use crate::store::wal::{LogPosition, Wal};
use crate::types::{GroupId, LogIndex, NodeId, ReplicaId};
use openraft::async_runtime::WatchReceiver;
use openraft::{ChangeMembers, EntryPayload};
use std::collections::{BTreeMap, BTreeSet};
use tokio::time::timeout;

/// A learner this many entries behind is not promoted: with its vote the majority might have to
/// wait for it. A few append messages; under load a healthy one is always a little behind.
const PROMOTE_LAG_MAX: u64 = 4_096;

impl RaftGroup {
    /// The members, as this replica knows them.
    pub fn members(&self) -> Members {
        members(&self.raft.metrics().borrow_watched().membership_config)
    }

    /// How far each member is, the leader included; `None` when this replica does not lead.
    pub fn progress(&self) -> Option<BTreeMap<ReplicaId, Progress>> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let matched = metrics.replication.as_ref()?;
        let progress = |(id, matched): (&u64, &Option<_>)| {
            let progress = Progress {
                matched: matched.as_ref().map(|m| position(m).index),
            };
            (ReplicaId(*id), progress)
        };
        Some(matched.iter().map(progress).collect())
    }

    /// Adds a replica that gets all entries and does not vote; returns once that is applied here.
    /// How far it is [`progress`](Self::progress) tells. Fine if it is one already.
    ///
    /// # Errors
    /// `conflict` if the replica is a member on another node; `busy` while another change is
    /// under way; else those of [`propose`](Self::propose).
    pub async fn add_learner(&self, replica: ReplicaId, node: NodeId) -> Result<()> {
        let now = self.members();
        let known = (now.voters.iter().chain(&now.learners)).find(|(id, _)| *id == replica);
        match known {
            Some((_, there)) if *there == node => return Ok(()),
            Some((_, there)) => {
                return Err(Error::new(
                    Code::Conflict,
                    format!("replica {replica} is a member already, on node {there}"),
                ));
            }
            None => {}
        }
        let add = || self.raft.add_learner(replica.0, Host(node), false);
        self.change(add).await
    }

    /// Takes a learner away. It is not told.
    ///
    /// # Errors
    /// `not_found` if there is no such learner, `conflict` if it votes; `busy` while another
    /// change is under way; else those of [`propose`](Self::propose).
    pub async fn remove_learner(&self, replica: ReplicaId) -> Result<()> {
        let now = self.members();
        if now.voters.iter().any(|(id, _)| *id == replica) {
            return Err(Error::new(
                Code::Conflict,
                format!("replica {replica} votes in group {}", self.group),
            ));
        }
        if !now.learners.iter().any(|(id, _)| *id == replica) {
            return Err(Error::not_found(format!(
                "group {} has no learner {replica}",
                self.group
            )));
        }
        let gone = BTreeSet::from([replica.0]);
        let remove = || {
            let change = ChangeMembers::RemoveNodes(gone.clone());
            self.raft.change_membership(change, false)
        };
        self.change(remove).await
    }

    /// Makes exactly these replicas voters; returns once that is applied here. New ones must be
    /// learners that have caught up; voters that are none any more are removed, and not told. A
    /// leader that removes itself leads until the change is committed and gives the lead away
    /// then. To be asked again, of whoever leads then, until it succeeds: also after an error a
    /// part of the change may have happened.
    ///
    /// # Errors
    /// `usage` for no voters at all, `not_found` for one that is no member, `conflict` for one
    /// that is too far behind; `busy` while another change is under way; else those of
    /// [`propose`](Self::propose).
    pub async fn change_voters(&self, voters: &BTreeSet<ReplicaId>) -> Result<()> {
        if voters.is_empty() {
            return Err(Error::usage("a group needs a voter"));
        }
        let now = self.members();
        let old: BTreeSet<ReplicaId> = now.voters.iter().map(|(id, _)| *id).collect();
        for new in voters.difference(&old) {
            self.may_vote(&now, *new)?;
        }
        if old == *voters && !now.joint && self.is_committed(&now) {
            return Ok(());
        }
        let goal: BTreeSet<u64> = voters.iter().map(|id| id.0).collect();
        let replace = || self.raft.change_membership(goal.clone(), false);
        self.change(replace).await
    }

    fn is_committed(&self, now: &Members) -> bool {
        let metrics = self.raft.metrics();
        let committed = metrics.borrow_watched().committed_membership_config.clone();
        members(&committed).at == now.at
    }

    /// Whether this replica, as the leader, is sending that one an image, and not in vain.
    pub fn is_sending_image(&self, to: ReplicaId) -> bool {
        self.sends.is_filling(to)
    }

    /// Whether a replica belongs to the group by the newest members in the log, committed or not,
    /// or by the newest that are committed.
    pub fn is_member(&self, replica: ReplicaId) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let known = |members: &StoredMembership| members.get_node(&replica.0).is_some();
        known(&metrics.membership_config) || known(&metrics.committed_membership_config)
    }

    /// A removed leader leads a little longer, to tell the others; openraft would take changes
    /// from it in that time and lose its footing.
    fn is_removed(&self) -> bool {
        let known = self.raft.metrics();
        let knows_any = known.borrow_watched().membership_config.log_id().is_some();
        knows_any && !self.is_member(self.replica)
    }

    fn may_vote(&self, now: &Members, new: ReplicaId) -> Result<()> {
        if !now.learners.iter().any(|(id, _)| *id == new) {
            return Err(Error::not_found(format!(
                "group {} has no learner {new}",
                self.group
            )));
        }
        // A replica that does not lead is told so by the change itself.
        let Some(progress) = self.progress() else {
            return Ok(());
        };
        let matched = progress.get(&new).and_then(|p| p.matched);
        let behind = self
            .status()
            .last
            .saturating_sub(matched.map_or(0, |m| m.0));
        if matched.is_none() || behind > PROMOTE_LAG_MAX {
            return Err(Error::new(
                Code::Conflict,
                format!("learner {new} is {behind} entries behind"),
            )
            .hint("wait until it has caught up"));
        }
        Ok(())
    }

    async fn change<F: Future<Output = Written>>(&self, change: impl Fn() -> F) -> Result<()> {
        let _only = self
            .changes
            .try_lock()
            .map_err(|_| refusal::in_progress())?;
        if self.is_removed() {
            return Err(Error::new(
                Code::Redirect,
                format!(
                    "replica {} gives the lead away: it was removed",
                    self.replica
                ),
            ));
        }
        let outcome = timeout(limits::REQUEST_TIMEOUT, self.confirmed(change)).await;
        match outcome {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(e)) => Err(refusal::write(&e)),
            Err(_) => Err(Error::unavailable(format!(
                "the members of group {} did not change within {:?} (no majority answers)",
                self.group,
                limits::REQUEST_TIMEOUT
            ))
            .unknown_outcome()),
        }
    }
}

/// The members that stand beside an applied position.
///
/// # Errors
/// `corrupt` for bytes that are none.
pub fn members_of(encoded: &[u8]) -> Result<Members> {
    Ok(members(&stored::decode_members(encoded)?))
}

/// The members that entries of a log name, from an index on; entries that cannot be read are left
/// out. For a start, which must know who else there may be before the group runs.
pub async fn members_in_log(wal: &Wal, group: GroupId, from: LogIndex) -> Vec<Members> {
    let mut found = Vec::new();
    let end = wal
        .state(group)
        .last
        .map_or(LogIndex(0), |last| last.index.next());
    let mut at = from;
    while at < end {
        let Ok(page) = wal.read(group, at, end, READ_BYTES_MAX).await else {
            at = at.next();
            continue;
        };
        at = page.last().map_or(end, |entry| entry.position.index.next());
        for entry in page {
            if let Ok(entry) = stored::entry_from_log(entry)
                && let EntryPayload::Membership(named) = entry.payload
            {
                found.push(members(&StoredMembership::new(Some(entry.log_id), named)));
            }
        }
    }
    found
}

pub(super) fn members(stored: &StoredMembership) -> Members {
    let membership = stored.membership();
    let host = |id: u64| membership.get_node(&id).map(|h| (ReplicaId(id), h.0));
    Members {
        voters: membership.voter_ids().filter_map(host).collect(),
        learners: membership.learner_ids().filter_map(host).collect(),
        joint: membership.get_joint_config().len() > 1,
        at: stored.log_id().as_ref().map_or(NOTHING, position),
    }
}

/// Who votes in every set whose majority may be asked for: those of the newest members in the log
/// and those of the newest that are committed.
pub(super) fn settled(newest: &StoredMembership, committed: &StoredMembership) -> Vec<ReplicaId> {
    let sets = [newest, committed].map(|known| known.membership().get_joint_config());
    let mut sets = sets.into_iter().flatten();
    let Some(mut everywhere) = sets.next().cloned() else {
        return Vec::new();
    };
    for set in sets {
        everywhere.retain(|voter| set.contains(voter));
    }
    everywhere.into_iter().map(ReplicaId).collect()
}

const NOTHING: LogPosition = LogPosition {
    term: 0,
    leader: 0,
    index: LogIndex(0),
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::kinds::Membership;

    fn stored(sets: &[&[u64]]) -> StoredMembership {
        let all = sets.iter().copied().flatten();
        let nodes: BTreeMap<u64, Host> = all.map(|id| (*id, Host(NodeId(*id)))).collect();
        let sets = sets.iter().map(|set| set.iter().copied().collect());
        StoredMembership::new(None, Membership::new(sets.collect(), nodes).unwrap())
    }

    fn settled_of(newest: &[&[u64]], committed: &[&[u64]]) -> Vec<u64> {
        let settled = settled(&stored(newest), &stored(committed));
        settled.into_iter().map(|id| id.0).collect()
    }

    #[test]
    fn who_votes_in_every_set_is_settled() {
        let two: &[u64] = &[1, 2];
        let three: &[u64] = &[1, 2, 3];
        assert_eq!(settled_of(&[three], &[three]), [1, 2, 3]);
        assert_eq!(settled_of(&[two, three], &[two]), [1, 2]);
        assert_eq!(settled_of(&[three], &[two, three]), [1, 2], "may be lost");
        assert_eq!(settled_of(&[three, &[1, 2, 4]], &[three]), [1, 2]);
        assert_eq!(settled_of(&[&[2]], &[&[2]]), [2]);
    }
}
