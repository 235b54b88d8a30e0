//! Who leads: waiting for it, giving it away. Called by `node`.

use super::kinds::Types;
use super::{RaftGroup, refusal};
use crate::error::{Code, Error, Result};
use crate::types::ReplicaId;
use openraft::async_runtime::WatchReceiver;
use openraft::metrics::RaftServerMetrics;
use openraft::{RaftMetrics, ServerState};
use std::time::Duration;
use tokio::time::timeout;

impl RaftGroup {
    /// True while this replica leads, as far as it knows, and a majority has confirmed it.
    pub fn is_leader(&self) -> bool {
        leads(&self.raft.metrics().borrow_watched())
    }

    /// Waits until this replica is the leader and takes proposals, or the deadline has passed.
    ///
    /// # Errors
    /// `redirect` if another one leads at the deadline, else `unavailable`.
    pub async fn wait_leader(&self, deadline: Duration) -> Result<()> {
        // These change seldom, the others at each turn of the core: who waits long wakes seldom.
        let mut server = self.raft.server_metrics();
        let mut metrics = self.raft.metrics();
        let wait = async {
            loop {
                if leads(&metrics.borrow_and_update()) {
                    return Ok(());
                }
                let elected = server.borrow_and_update().state == ServerState::Leader;
                let changed = match elected {
                    true => metrics.changed().await,
                    false => server.changed().await,
                };
                changed.map_err(|_| refusal::stopped())?;
            }
        };
        if let Ok(outcome) = timeout(deadline, wait).await {
            return outcome;
        }
        Err(match self.status().leader {
            Some(leader) if leader != self.replica => Error::new(
                Code::Redirect,
                format!("not the leader (replica {leader} is)"),
            ),
            _ => Error::unavailable(format!(
                "group {} has no leader after {deadline:?}",
                self.group
            )),
        })
    }

    /// Waits while this replica leads in a term.
    pub async fn wait_lead_ends(&self, term: u64) {
        let mut server = self.raft.server_metrics();
        let leads = |server: &RaftServerMetrics<Types>| {
            server.state == ServerState::Leader && server.vote.leader_id.term == term
        };
        while leads(&server.borrow_and_update()) && server.changed().await.is_ok() {}
    }

    /// Asks a voter to take the lead over; returns before it has. Ignored when not the leader.
    ///
    /// # Errors
    /// `not_found` if there is no such voter, `unavailable` when the replica has stopped.
    pub async fn transfer_leader(&self, to: ReplicaId) -> Result<()> {
        if !(self.status().voters.iter()).any(|(replica, _)| *replica == to) {
            return Err(Error::not_found(format!(
                "replica {to} has no vote in group {}",
                self.group
            )));
        }
        let asked = self.raft.trigger().transfer_leader(to.0).await;
        asked.map_err(|e| refusal::fatal(&e))
    }

    /// Gives the lead, if this replica has it, to the voter that has most of the log, and waits
    /// until another one leads. Nothing is proposed here from then on; without success the group
    /// elects somebody after an election timeout, perhaps this replica again.
    ///
    /// # Errors
    /// `unavailable` if there is nobody else to lead, or nobody does at the deadline.
    pub async fn hand_over(&self, deadline: Duration) -> Result<()> {
        self.hand_over_to(|_| true, deadline).await
    }

    /// [`hand_over`](Self::hand_over) to one of the voters that `may` lead.
    ///
    /// # Errors
    /// Those of `hand_over`; nothing was changed if none of them may.
    pub async fn hand_over_to(
        &self,
        may: impl Fn(ReplicaId) -> bool,
        deadline: Duration,
    ) -> Result<()> {
        let mut metrics = self.raft.metrics();
        let heir = {
            let now = metrics.borrow_watched();
            if now.state != ServerState::Leader {
                return Ok(());
            }
            heir(&now, may)
        };
        let Some(heir) = heir else {
            return Err(Error::unavailable(format!(
                "group {} has no other voter that could lead",
                self.group
            )));
        };
        self.transfer_leader(heir).await?;
        let other =
            |m: &RaftMetrics<Types>| m.current_leader.is_some_and(|id| id != self.replica.0);
        let wait = async {
            while !other(&metrics.borrow_and_update()) {
                metrics.changed().await.map_err(|_| refusal::stopped())?;
            }
            Ok(())
        };
        timeout(deadline, wait).await.unwrap_or_else(|_| {
            Err(Error::unavailable(format!(
                "replica {heir} of group {} did not take the lead within {deadline:?}",
                self.group
            )))
        })
    }
}

fn leads(metrics: &RaftMetrics<Types>) -> bool {
    metrics.state == ServerState::Leader && metrics.last_quorum_acked.is_some()
}

/// The other voter that may lead and has most of the log; of several, one that was heard of last.
fn heir(metrics: &RaftMetrics<Types>, may: impl Fn(ReplicaId) -> bool) -> Option<ReplicaId> {
    let matched = |id: &u64| {
        let of = metrics.replication.as_ref().and_then(|all| all.get(id));
        of.copied().flatten()
    };
    let heard = |id: &u64| {
        let of = metrics.heartbeat.as_ref().and_then(|all| all.get(id));
        of.copied().flatten().map(|at| *at)
    };
    (metrics.membership_config.voter_ids())
        .filter(|id| *id != metrics.id && may(ReplicaId(*id)))
        .max_by_key(|id| (matched(id), heard(id)))
        .map(ReplicaId)
}
