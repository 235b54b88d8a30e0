//! One replica of one group. Called by `node`; the protocol stands in `raft/mod.rs`.

use super::barrier::{self, Asking, Barrier};
use super::compaction::Laggards;
use super::kinds::{Command, Host, Membership, Runtime, Types};
use super::log::{self, GroupLog, Installing, LogStore};
use super::machine::Machine;
use super::message::{Answer, Ask, Candidacy, Envelope};
use super::network::Links;
use super::runtime::Ticks;
use super::sends::Sends;
use super::{GroupStatus, PeerTransport, Reply, StateMachine, Timers, members, refusal, stored};
use crate::codec;
use crate::env::{Clock, Env, Spawn};
use crate::error::{Code, Error, Result};
use crate::limits;
use crate::store::wal::{LogPosition, Wal};
use crate::types::{GroupId, LogIndex, NodeId, ReplicaId};
use bytes::Bytes;
use futures::FutureExt;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::raft::ClientWriteResponse;
use openraft::{Config, Raft, ServerState, SnapshotPolicy};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

/// Entries in one append message; their bytes are bounded by `log::READ_BYTES_MAX`.
const APPEND_ENTRIES_MAX: u64 = 1_024;
/// Messages to a replica's core that wait: proposals, and beside them what peers ask.
const CORE_QUEUE: u64 = 2 * limits::PROPOSALS_QUEUED_MAX as u64;
/// Pauses between attempts to reach a replica: short at first, because a node that restarts is
/// back within a second.
const BACKOFF: &str = "50ms 100ms ...500ms";
/// A group in which nothing was proposed, read or appended for so many milliseconds is idle: four
/// heartbeats, by which followers have heard what is committed.
const IDLE_MS: u64 = 300;
/// Position that a new group's seed counts as: purged and applied, an entry of nobody.
pub(super) const SEED: LogPosition = LogPosition {
    term: 0,
    leader: 0,
    index: LogIndex(1),
};

/// What openraft says of an entry that it was to write.
pub(super) type Written =
    std::result::Result<ClientWriteResponse<Types>, RaftError<Types, ClientWriteError<Types>>>;

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
    pub(super) group: GroupId,
    pub(super) replica: ReplicaId,
    pub(super) raft: Raft<Types, Machine>,
    pub(super) state: Arc<dyn StateMachine>,
    pub(super) spawn: Arc<dyn Spawn>,
    pub(super) clock: Arc<dyn Clock>,
    /// Held while this replica, as the leader, changes the members: one change at a time.
    pub(super) changes: tokio::sync::Mutex<()>,
    /// Held while an image is taken: one at a time.
    pub(super) images: tokio::sync::Mutex<()>,
    /// Tells the log of it.
    pub(super) installing: Installing,
    /// Images that this replica sends.
    pub(super) sends: Arc<Sends>,
    /// Members that lag while this replica leads.
    pub(super) laggards: Mutex<Laggards>,
    /// Bytes that the log holds behind an index.
    pub(super) bytes_behind: Box<dyn Fn(u64) -> u64 + Send + Sync>,
    /// One permit a proposal that is not applied yet.
    proposals: Semaphore,
    barrier: Barrier,
    /// When a leader was heard of last, monotonic.
    heard: Mutex<Duration>,
    /// When something was proposed, read or appended last: milliseconds, monotonic.
    used: AtomicU64,
    /// How long the others' word for a leader holds: the longest election timeout.
    lease: Duration,
    /// Votes for nobody before, unless the leader wants it: what it told a leader in its life
    /// before must hold. By the clock that openraft's own leases go by.
    votes_from: Instant,
}

impl RaftGroup {
    /// Members that this replica, as a leader, found to have lost entries which they had
    /// acknowledged: they must be replaced under new ids and not be counted on.
    pub fn lossy(&self) -> BTreeSet<ReplicaId> {
        self.sends.lossy()
    }

    /// Starts the replica on its log and state. A new group's seed must be in both already: log
    /// purged at (term 0, index 1), state applied there with [`seed_members`]. A replica that is
    /// to be filled by an image has nothing in either, and the mark is the default one.
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
        let started_at = env.clock.now();
        log::follow_state(&*log, group, state.applied().position).await?;
        let (asking, sends) = (Asking::default(), Arc::<Sends>::default());
        let installing = Installing::default();
        let started = Raft::new(
            replica.0,
            Arc::new(config),
            Links::new(
                (group, replica),
                transport,
                state.clone(),
                asking.clone(),
                sends.clone(),
            ),
            GroupLog::new(log.clone(), group, installing.clone()),
            Machine::new(state.clone()),
        );
        // Tasks of openraft draw from this seed; outside of it they could not even ask.
        let ticks = Ticks::new(timers, env.clock.now());
        let raft = Runtime::scope(env.rng.u64(), ticks.clone().scope(started))
            .await
            .map_err(|e| Error::failed(format!("cannot start group {group} ({e})")))?;
        let lease = barrier::lease(timers);
        let (barrier, serve) = Barrier::new(raft.clone(), asking, env.clock.clone(), lease);
        env.spawn.spawn("raft-read-barrier", Box::pin(serve));
        let started = Arc::new(RaftGroup {
            group,
            replica,
            raft,
            state,
            spawn: env.spawn,
            clock: env.clock,
            changes: tokio::sync::Mutex::default(),
            images: tokio::sync::Mutex::default(),
            installing,
            sends,
            heard: Mutex::new(started_at),
            laggards: Mutex::default(),
            bytes_behind: Box::new(move |index| log.bytes_behind(group, LogIndex(index))),
            proposals: Semaphore::new(limits::PROPOSALS_QUEUED_MAX),
            barrier,
            lease: timers.election_max,
            used: AtomicU64::new(millis(started_at)),
            votes_from: Instant::now() + timers.election_max,
        });
        let signs = signs_of_life(Arc::downgrade(&started), ticks);
        started.spawn.spawn("raft-heartbeats", Box::pin(signs));
        Ok(started)
    }

    /// Proposes a command and waits until it is applied here. Calls may overlap: they travel
    /// together, in any order.
    ///
    /// # Errors
    /// `redirect` when not the leader and `busy` when too many wait (nothing was proposed);
    /// `unavailable` without a majority, with `may_have_happened` when the outcome is open.
    pub async fn propose(&self, command: Bytes) -> Result<Reply> {
        self.is_used();
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
                "no quorum (the entry was not applied within {:?})",
                limits::REQUEST_TIMEOUT
            ))
            .unknown_outcome()),
        }
    }

    async fn write(&self, command: Bytes) -> Result<Reply> {
        let written = self.confirmed(|| self.raft.client_write(Command(command.clone())));
        match written.await {
            Ok(written) => Ok(written.data.0),
            Err(e) => Err(refusal::write(&e)),
        }
    }

    /// Writes; once more if no majority had confirmed this leader of late and one does within a
    /// lease. One that was just elected would otherwise refuse its first proposals.
    pub(super) async fn confirmed<F: Future<Output = Written>>(
        &self,
        write: impl Fn() -> F,
    ) -> Written {
        let mut metrics = self.raft.metrics();
        let confirmed = metrics.borrow_and_update().last_quorum_acked;
        let written = write().await;
        if !written.as_ref().is_err_and(refusal::is_lease_expired) {
            return written;
        }
        let confirmation = async {
            while metrics.borrow_and_update().last_quorum_acked == confirmed {
                if metrics.changed().await.is_err() {
                    return;
                }
            }
        };
        match timeout(self.lease, confirmation).await {
            Ok(()) => write().await,
            Err(_) => written,
        }
    }

    /// Returns once every entry that was acknowledged before the call is applied here. Asks the
    /// others (ReadIndex) unless a majority heard this leader so short a time ago that nobody
    /// else can lead yet (a lease; `raft/mod.rs`). Calls that overlap share one question.
    ///
    /// # Errors
    /// `redirect` when not the leader, `unavailable` without a majority (known after at most the
    /// longest election timeout), `busy` when too many wait.
    pub async fn read_barrier(&self) -> Result<()> {
        self.is_used();
        self.barrier.pass().await
    }

    /// [`read_barrier`](Self::read_barrier) for what nodes ask all the time: by it alone the group
    /// does not count as used.
    ///
    /// # Errors
    /// Those of `read_barrier`.
    pub async fn quiet_barrier(&self) -> Result<()> {
        self.barrier.pass().await
    }

    fn is_used(&self) {
        self.used.store(millis(self.clock.now()), Ordering::Relaxed);
    }

    fn is_idle(&self) -> bool {
        let used = self.used.load(Ordering::Relaxed);
        millis(self.clock.now()).saturating_sub(used) > IDLE_MS
    }

    /// Answers a message of another replica.
    ///
    /// # Errors
    /// `corrupt` for bytes that are no message, `not_found` for one that is addressed to another
    /// replica, `unavailable` when this one has stopped.
    pub async fn receive(&self, message: Bytes) -> Result<Bytes> {
        let envelope: Envelope = codec::decode(&message)?;
        self.must_be_addressed(&envelope)?;
        let answer = match envelope.ask {
            Ask::Append(append) => {
                *self.heard.lock() = self.clock.now();
                if !append.is_empty() {
                    self.is_used();
                }
                let answer = self.raft.append_entries(append.try_into()?).await;
                Answer::Append(
                    answer
                        .map_err(|e| refusal::fatal(&e.unwrap_fatal()))?
                        .into(),
                )
            }
            Ask::Vote(candidacy) | Ask::PreVote(candidacy) if self.is_bound(&candidacy) => {
                return Err(Error::unavailable(format!(
                    "replica {} started a moment ago and votes for nobody yet",
                    self.replica
                )));
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
            Ask::Offer(_) => Answer::Offer(self.answer_offer()),
            Ask::Image(_) => return Err(Error::corrupt("an image came without its file")),
        };
        Ok(codec::encode(&answer).into())
    }

    /// Whether this replica, before it was started, may have told a leader something that a vote
    /// for this candidate would break.
    fn is_bound(&self, candidacy: &Candidacy) -> bool {
        !candidacy.transfer && Instant::now() < self.votes_from
    }

    /// A replica that was removed has no successor in its place: others have other ids.
    pub(super) fn must_be_addressed(&self, envelope: &Envelope) -> Result<()> {
        if (envelope.group, envelope.to) == (self.group, self.replica) {
            return Ok(());
        }
        Err(Error::not_found(format!(
            "no replica {} of group {} here (a message of replica {})",
            envelope.to, envelope.group, envelope.from
        )))
    }

    /// What this replica knows of its group now.
    pub fn status(&self) -> GroupStatus {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let known = members::members(&metrics.membership_config);
        GroupStatus {
            group: self.group,
            replica: self.replica,
            leader: metrics.current_leader.map(ReplicaId),
            term: metrics.current_term,
            applied: metrics.last_applied.as_ref().map_or(0, |id| id.index),
            last: metrics.last_log_index.unwrap_or(0),
            voters: known.voters,
            settled: members::settled(
                &metrics.membership_config,
                &metrics.committed_membership_config,
            ),
            learners: known.learners,
        }
    }

    /// For how long no leader was heard of: since the start, if never.
    pub fn unheard(&self) -> Duration {
        match self.is_leader() {
            true => Duration::ZERO,
            false => self.clock.now().saturating_sub(*self.heard.lock()),
        }
    }

    /// True once this replica does nothing any more.
    pub fn has_ended(&self) -> bool {
        // A core that panicked said nothing at its end.
        self.ended().now_or_never().is_some()
    }

    /// Waits until this replica does nothing any more: its log or its state failed, or it was
    /// shut down.
    pub async fn ended(&self) -> Error {
        // These change seldom, and go with the core; the others at each of its turns, and whoever
        // waits for a change of them wakes as often.
        let mut server = self.raft.server_metrics();
        while server.changed().await.is_ok() {}
        match &self.raft.metrics().borrow_watched().running_state {
            Err(fatal) => refusal::fatal(fatal),
            Ok(()) => refusal::stopped(),
        }
    }

    /// Stops the replica's tasks and waits for their end. What they had asked of the log may
    /// still reach it.
    pub async fn shutdown(&self) -> Result<()> {
        (self.raft.shutdown().await)
            .map_err(|e| Error::failed(format!("group {} did not stop cleanly ({e})", self.group)))
    }
}

/// Has a leader speak up at the times that the leaders of all groups of its node share, until the
/// replica ends: their messages to another node travel as one. That of an idle group does so at
/// every other of them, which halves what an idle node does. A follower that misses one may then
/// ask for pre-votes, which the others refuse; all of them must miss two before somebody is elected
/// in vain, and who reads in the group again may have to wait for an answer of the others, once.
async fn signs_of_life(replica: Weak<RaftGroup>, ticks: Ticks) {
    let mut spoke = 0;
    loop {
        let (at, number) = ticks.heartbeat();
        tokio::time::sleep_until(at).await;
        let Some(replica) = replica.upgrade() else {
            return;
        };
        let idle = replica.is_idle();
        ticks.set_idle(idle);
        let leads = replica.raft.metrics().borrow_watched().state == ServerState::Leader;
        // One that wakes late may miss every other turn again and again.
        let speaks = leads && (!idle || number % 2 == 0 || number >= spoke + 2);
        if speaks {
            spoke = number;
        }
        if speaks && replica.raft.trigger().heartbeat().await.is_err() || replica.has_ended() {
            return;
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// openraft's settings; `raft/mod.rs` says why.
fn config(group: GroupId, timers: Timers) -> Result<Config> {
    let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    let config = Config {
        cluster_name: format!("group {group}"),
        heartbeat_interval: ms(timers.heartbeat),
        election_timeout_min: ms(timers.election_min),
        election_timeout_max: ms(timers.election_max),
        // `signs_of_life` has them sent.
        enable_heartbeat: false,
        snapshot_policy: SnapshotPolicy::Never,
        // Noting a fold lets nothing go by itself: `compact` says how much.
        max_in_snapshot_log_to_keep: u64::MAX,
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
