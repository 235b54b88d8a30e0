//! One replica of one group. Called by `node`; the protocol stands in `raft/mod.rs`.

use super::barrier::Barrier;
use super::kinds::{Command, Host, Membership, Runtime, StoredMembership, Types};
use super::log::{GroupLog, LogStore};
use super::machine::Machine;
use super::message::{Answer, Ask, Envelope};
use super::network::Links;
use super::{GroupStatus, PeerTransport, Reply, StateMachine, Timers, refusal, stored};
use crate::codec;
use crate::env::Env;
use crate::error::{Code, Error, Result};
use crate::limits;
use crate::store::wal::{LogPosition, Wal};
use crate::types::{GroupId, LogIndex, NodeId, ReplicaId};
use bytes::Bytes;
use openraft::async_runtime::WatchReceiver;
use openraft::{Config, Raft, RaftMetrics, ServerState, SnapshotPolicy};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Entries in one append message; their bytes are bounded by `log::READ_BYTES_MAX`.
const APPEND_ENTRIES_MAX: u64 = 1_024;
/// Messages to a replica's core that wait: proposals, and beside them what peers ask.
const CORE_QUEUE: u64 = 2 * limits::PROPOSALS_QUEUED_MAX as u64;
/// Pauses between attempts to reach a replica: short at first, because a node that restarts is
/// back within a second.
const BACKOFF: &str = "50ms 100ms ...500ms";
/// How long openraft may take to note a snapshot of a few bytes.
const COMPACT_TIMEOUT: Duration = Duration::from_secs(10);
/// Position that a new group's seed counts as: purged and applied, an entry of nobody.
pub(super) const SEED: LogPosition = LogPosition {
    term: 0,
    leader: 0,
    index: LogIndex(1),
};

/// The encoded membership of a group's seed: these voters.
///
/// # Panics
/// Without voters: a group of nobody can never do anything.
pub fn seed_members(voters: &[(ReplicaId, NodeId)]) -> Bytes {
    let nodes: BTreeMap<u64, Host> = (voters.iter())
        .map(|(replica, node)| (replica.0, Host(*node)))
        .collect();
    let config = nodes.keys().copied().collect();
    let membership = Membership::new(vec![config], nodes).expect("a group has a voter");
    stored::encode_members(Some(SEED), &membership)
}

/// One replica of one group.
pub struct RaftGroup {
    group: GroupId,
    replica: ReplicaId,
    raft: Raft<Types, Machine>,
    state: Arc<dyn StateMachine>,
    /// One permit a proposal that is not applied yet.
    proposals: Semaphore,
    barrier: Barrier,
    /// How long the others' word for a leader holds: the longest election timeout.
    lease: Duration,
}

impl RaftGroup {
    /// Starts the replica on its log and state. A new group's seed must be in both already: log
    /// purged at (term 0, index 1), state applied there with [`seed_members`].
    ///
    /// Entries that the log knows to be committed and the state does not have yet are applied
    /// before this returns. The replica's tasks run on the tokio runtime in whose context this
    /// is polled.
    ///
    /// # Errors
    /// `corrupt` or `failed` if log and state do not fit together, or the timers each other.
    pub async fn start(
        env: Env,
        group: GroupId,
        replica: ReplicaId,
        wal: Arc<Wal>,
        state: Arc<dyn StateMachine>,
        transport: Arc<dyn PeerTransport>,
        timers: Timers,
    ) -> Result<Arc<RaftGroup>> {
        Self::start_on(env, group, replica, wal, state, transport, timers).await
    }

    /// [`start`](Self::start) on any log.
    pub(super) async fn start_on<L: LogStore>(
        env: Env,
        group: GroupId,
        replica: ReplicaId,
        log: Arc<L>,
        state: Arc<dyn StateMachine>,
        transport: Arc<dyn PeerTransport>,
        timers: Timers,
    ) -> Result<Arc<RaftGroup>> {
        let config = config(group, timers)?;
        let started = Raft::new(
            replica.0,
            Arc::new(config),
            Links::new(group, replica, transport),
            GroupLog::new(log, group),
            Machine::new(state.clone()),
        );
        // Tasks of openraft draw from this seed; outside of it they could not even ask.
        let raft = Runtime::scope(env.rng.u64(), started)
            .await
            .map_err(|e| Error::failed(format!("cannot start group {group} ({e})")))?;
        let (barrier, serve) = Barrier::new(raft.clone());
        env.spawn.spawn("raft-read-barrier", Box::pin(serve));
        Ok(Arc::new(RaftGroup {
            group,
            replica,
            raft,
            state,
            proposals: Semaphore::new(limits::PROPOSALS_QUEUED_MAX),
            barrier,
            lease: timers.election_max,
        }))
    }

    /// Proposes a command and waits until it is applied here. Calls may overlap: they travel
    /// together, in any order.
    ///
    /// # Errors
    /// `redirect` when not the leader and `busy` when too many wait (nothing was proposed);
    /// `unavailable` without a majority, with `may_have_happened` when the outcome is open.
    pub async fn propose(&self, command: Bytes) -> Result<Reply> {
        if command.len() > limits::ENTRY_BYTES_MAX {
            return Err(Error::failed(format!(
                "a command of {} bytes does not fit into a log entry of {}",
                command.len(),
                limits::ENTRY_BYTES_MAX
            )));
        }
        let _waiting = self.proposals.try_acquire().map_err(|_| {
            Error::new(
                Code::Busy,
                format!("group {} has too many proposals in its queue", self.group),
            )
        })?;
        match timeout(limits::REQUEST_TIMEOUT, self.write(command)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Error::unavailable(format!(
                "the entry was not applied within {:?} (no majority of the group answers)",
                limits::REQUEST_TIMEOUT
            ))
            .unknown_outcome()),
        }
    }

    /// Writes; once more if no majority had confirmed this leader of late and one does within a
    /// lease. One that was just elected would otherwise refuse its first proposals.
    async fn write(&self, command: Bytes) -> Result<Reply> {
        let mut metrics = self.raft.metrics();
        let confirmed = metrics.borrow_and_update().last_quorum_acked;
        let mut written = self.raft.client_write(Command(command.clone())).await;
        if written.as_ref().is_err_and(refusal::is_lease_expired) {
            let confirmation = async {
                while metrics.borrow_and_update().last_quorum_acked == confirmed {
                    if metrics.changed().await.is_err() {
                        return;
                    }
                }
            };
            if timeout(self.lease, confirmation).await.is_ok() {
                written = self.raft.client_write(Command(command)).await;
            }
        }
        match written {
            Ok(written) => Ok(written.data.0),
            Err(e) => Err(refusal::write(&e)),
        }
    }

    /// Returns once every entry that was acknowledged before the call is applied here
    /// (ReadIndex). Calls that overlap share one question to the others.
    ///
    /// # Errors
    /// `redirect` when not the leader, `unavailable` without a majority (known after at most the
    /// longest election timeout), `busy` when too many wait.
    pub async fn read_barrier(&self) -> Result<()> {
        self.barrier.pass().await
    }

    /// Answers a message of another replica.
    ///
    /// # Errors
    /// `corrupt` for bytes that are no message, `not_found` for one that is addressed to another
    /// replica, `unavailable` when this one has stopped.
    pub async fn receive(&self, message: Bytes) -> Result<Bytes> {
        let envelope: Envelope = codec::decode(&message)?;
        if (envelope.group, envelope.to) != (self.group, self.replica) {
            return Err(Error::not_found(format!(
                "no replica {} of group {} here (a message of replica {})",
                envelope.to, envelope.group, envelope.from
            )));
        }
        let answer = match envelope.ask {
            Ask::Append(append) => {
                let answer = self.raft.append_entries(append.try_into()?).await;
                Answer::Append(
                    answer
                        .map_err(|e| refusal::fatal(&e.unwrap_fatal()))?
                        .into(),
                )
            }
            Ask::Vote(candidacy) => {
                let answer = self.raft.vote(candidacy.into()).await;
                Answer::Vote(
                    answer
                        .map_err(|e| refusal::fatal(&e.unwrap_fatal()))?
                        .into(),
                )
            }
            Ask::PreVote(candidacy) => {
                let answer = self.raft.pre_vote(candidacy.into()).await;
                Answer::Vote(
                    answer
                        .map_err(|e| refusal::fatal(&e.unwrap_fatal()))?
                        .into(),
                )
            }
            Ask::Transfer(transfer) => {
                let answer = self.raft.handle_transfer_leader(transfer.into()).await;
                Answer::Transfer(answer.map_err(|e| refusal::fatal(&e))?.into())
            }
        };
        Ok(codec::encode(&answer).into())
    }

    /// Lets the log go up to what the last synced fold holds; nothing if that is gone already.
    /// A leader that is just sending those entries lets them go a moment later.
    ///
    /// # Errors
    /// `unavailable` when the replica has stopped.
    pub async fn compact(&self) -> Result<()> {
        let folded = self.state.folded().position.index.0;
        let mut metrics = self.raft.metrics();
        if folded <= purged(&metrics.borrow_watched()) {
            return Ok(());
        }
        let noted = |m: &RaftMetrics<Types>| m.snapshot.as_ref().map_or(0, |id| id.index) >= folded;
        if !noted(&metrics.borrow_watched()) {
            let asked = self.raft.trigger().snapshot().await;
            asked.map_err(|e| refusal::fatal(&e))?;
            let wait = async {
                while !noted(&metrics.borrow_and_update()) {
                    metrics.changed().await.map_err(|_| refusal::stopped())?;
                }
                Ok(())
            };
            (timeout(COMPACT_TIMEOUT, wait).await).map_err(|_| {
                Error::unavailable(format!(
                    "group {} did not note its fold at entry {folded} within {COMPACT_TIMEOUT:?}",
                    self.group
                ))
            })??;
        }
        let purge = self.raft.trigger().purge_log(folded).await;
        purge.map_err(|e| refusal::fatal(&e))
    }

    /// Entries that the log still holds of this group.
    pub fn log_entries(&self) -> u64 {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let last = metrics.last_log_index.unwrap_or(0);
        last.saturating_sub(purged(&metrics))
    }

    /// What this replica knows of its group now.
    pub fn status(&self) -> GroupStatus {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        GroupStatus {
            group: self.group,
            replica: self.replica,
            leader: metrics.current_leader.map(ReplicaId),
            term: metrics.current_term,
            applied: metrics.last_applied.as_ref().map_or(0, |id| id.index),
            last: metrics.last_log_index.unwrap_or(0),
            voters: voters(&metrics.membership_config),
        }
    }

    /// True while this replica leads, as far as it knows, and a majority has confirmed it.
    pub fn is_leader(&self) -> bool {
        leads(&self.raft.metrics().borrow_watched())
    }

    /// Waits until this replica is the leader and takes proposals, or the deadline has passed.
    ///
    /// # Errors
    /// `redirect` if another one leads at the deadline, else `unavailable`.
    pub async fn wait_leader(&self, deadline: Duration) -> Result<()> {
        let mut metrics = self.raft.metrics();
        let wait = async {
            while !leads(&metrics.borrow_and_update()) {
                metrics.changed().await.map_err(|_| refusal::stopped())?;
            }
            Ok(())
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

    /// Waits until this replica does nothing any more: its log or its state failed, or it was
    /// shut down.
    pub async fn ended(&self) -> Error {
        let mut metrics = self.raft.metrics();
        loop {
            if let Err(fatal) = &metrics.borrow_and_update().running_state {
                return refusal::fatal(fatal);
            }
            if metrics.changed().await.is_err() {
                return refusal::stopped();
            }
        }
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

    /// Stops the replica's tasks and waits for their end. What they had asked of the log may
    /// still reach it.
    pub async fn shutdown(&self) -> Result<()> {
        (self.raft.shutdown().await)
            .map_err(|e| Error::failed(format!("group {} did not stop cleanly ({e})", self.group)))
    }
}

fn leads(metrics: &RaftMetrics<Types>) -> bool {
    metrics.state == ServerState::Leader && metrics.last_quorum_acked.is_some()
}

fn purged(metrics: &RaftMetrics<Types>) -> u64 {
    metrics.purged.as_ref().map_or(0, |id| id.index)
}

fn voters(members: &StoredMembership) -> Vec<(ReplicaId, NodeId)> {
    let membership = members.membership();
    let host = |id: u64| membership.get_node(&id).map(|h| (ReplicaId(id), h.0));
    membership.voter_ids().filter_map(host).collect()
}

/// openraft's settings; `raft/mod.rs` says why.
fn config(group: GroupId, timers: Timers) -> Result<Config> {
    let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    let config = Config {
        cluster_name: format!("group {group}"),
        heartbeat_interval: ms(timers.heartbeat),
        election_timeout_min: ms(timers.election_min),
        election_timeout_max: ms(timers.election_max),
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: 0,
        max_payload_entries: APPEND_ENTRIES_MAX,
        api_channel_size: Some(CORE_QUEUE),
        backoff: BACKOFF.to_string(),
        enable_pre_vote: Some(true),
        enable_leader_restore: Some(false),
        allow_log_reversion: Some(false),
        ..Config::default()
    };
    (config.validate()).map_err(|e| Error::usage(format!("unusable timers {timers:?} ({e})")))
}
