//! One running group: its Raft replica, its state, and the two queues in front of them:
//! proposals (gathered into few log entries) and reads (gathered behind few read barriers).

use super::clock::GroupClock;
use super::core::OnEnd;
use super::doubts::Doubts;
use super::machine::Machine;
use super::proposer::Proposer;
use super::reader::Reader;
use crate::codec;
use crate::env::Env;
use crate::error::{Code, Error, Result};
use crate::raft::{PeerTransport, RaftGroup, Timers};
use crate::root::{RootCommand, RootDone, RootEntry, RootReply};
use crate::store::overlay::{MetaStore, View};
use crate::store::wal::Wal;
use crate::types::{GroupId, ReadLevel, ReplicaId, ShardTime};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::Notify;

/// How often it is looked whether this replica still leads.
const LEADER_LOOK: Duration = Duration::from_millis(100);
/// Waiting for the lead is begun anew after this.
const LEADER_WAIT: Duration = Duration::from_secs(3_600);

/// A group's parts, shared by every service of the node.
pub struct Group {
    pub id: GroupId,
    pub raft: Arc<RaftGroup>,
    pub machine: Arc<Machine>,
    pub proposer: Proposer,
    reader: Reader,
}

/// What a group needs of its node.
#[derive(Clone)]
pub struct GroupContext {
    /// Its tasks run with the services'.
    pub env: Env,
    /// Raft cores and timers run here and never wait for anything else.
    pub raft_env: Env,
    /// The runtime of `raft_env`.
    pub raft_runtime: Handle,
    pub store: Arc<MetaStore>,
    pub wal: Arc<Wal>,
    pub transport: Arc<dyn PeerTransport>,
    pub timers: Timers,
    /// Where images are spooled.
    pub spool: PathBuf,
    /// Groups whose records turned out to be damaged.
    pub doubts: Arc<Doubts>,
    /// Told when the records of the root group's replica here have changed.
    pub root_changed: Arc<Notify>,
    /// Called when a replica that nobody can replace has stopped.
    pub on_end: OnEnd,
}

impl GroupContext {
    /// Starts a replica's consensus on the runtime that is Raft's own.
    async fn start_raft(
        &self,
        id: GroupId,
        replica: ReplicaId,
        machine: Arc<Machine>,
    ) -> Result<Arc<RaftGroup>> {
        let started = RaftGroup::start(
            self.raft_env.clone(),
            id,
            replica,
            self.wal.clone(),
            machine.clone(),
            self.transport.clone(),
            self.timers,
        );
        let joined = self.raft_runtime.spawn(started).await;
        let raft =
            joined.map_err(|e| Error::failed(format!("starting group {id} broke off ({e})")))??;
        machine.opened();
        Ok(raft)
    }

    fn machine(&self, id: GroupId) -> Result<Arc<Machine>> {
        let (env, store) = (self.raft_env.clone(), self.store.clone());
        let told = (self.doubts.clone(), self.root_changed.clone());
        Machine::new(env, store, id, &self.spool, told)
    }
}

impl Group {
    /// Starts a replica that the store and the log already have.
    pub async fn start(
        context: &GroupContext,
        id: GroupId,
        replica: ReplicaId,
    ) -> Result<Arc<Group>> {
        let machine = context.machine(id)?;
        let raft = context.start_raft(id, replica, machine.clone()).await?;
        let proposer = Proposer::start(&context.env, raft.clone(), context.store.clone());
        let reader = Reader::start(&context.env, raft.clone(), machine.clone());
        let group = Arc::new(Group {
            id,
            raft,
            machine,
            proposer,
            reader,
        });
        let led = group.clone();
        let learn = move || {
            let led = led.clone();
            async move { led.learn_time().await }
        };
        let follow = follow_lead(group.raft.clone(), learn);
        context.env.spawn.spawn("shard time", Box::pin(follow));
        Ok(group)
    }

    /// Takes over the shard's time.
    pub async fn learn_time(&self) -> Result<()> {
        self.raft.read_barrier().await?;
        let header = self
            .machine
            .view()
            .and_then(|view| crate::shard::read::header(&view));
        let header = header.map_err(|error| self.damage_met(error))?;
        self.proposer.set_time(header.time);
        Ok(())
    }

    /// The shard's time as this node knows it: that of the state, where it leads counted on.
    pub fn known_time(&self) -> ShardTime {
        let applied = self.applied_time();
        match self.raft.is_leader() {
            // It may lead and not have learned the time yet.
            true => applied.max(self.proposer.time()),
            false => applied,
        }
    }

    /// The shard's time in the state here: about the same on all nodes, and behind what the leader
    /// counts while nothing happens.
    pub fn applied_time(&self) -> ShardTime {
        let header = self
            .machine
            .view()
            .and_then(|view| crate::shard::read::header(&view));
        header.map_or(ShardTime(0), |header| header.time)
    }

    /// Runs `read` on a view that is as fresh as `level` asks.
    pub async fn read<T: Send + 'static>(
        &self,
        level: ReadLevel,
        read: impl FnOnce(&View) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let answer = self.reader.read(level, read).await;
        answer.map_err(|error| self.damage_met(error))
    }

    /// What to tell somebody whose read of the records failed.
    pub fn damage_met(&self, error: Error) -> Error {
        damage_met(&self.raft, &self.machine, error)
    }
}

/// Damage that a read met has the replica seen to, where there are others to take its place.
fn damage_met(raft: &RaftGroup, machine: &Machine, error: Error) -> Error {
    match error.code == Code::Corrupt && raft.status().voters.len() > 1 {
        true => machine.damage_met(error),
        false => error,
    }
}

/// Calls `learn` each time this replica takes the lead, until the replica has stopped.
async fn follow_lead<F: Future<Output = Result<()>>>(raft: Arc<RaftGroup>, learn: impl Fn() -> F) {
    loop {
        if raft.wait_leader(LEADER_WAIT).await.is_err() {
            if raft.has_ended() {
                return;
            }
            continue;
        }
        let term = raft.status().term;
        while raft.is_leader() {
            match learn().await {
                Ok(()) => break,
                // Time stands still meanwhile; the lead may be lost already.
                Err(error) => {
                    tracing::debug!(%error, "the group's time is not known yet");
                    tokio::time::sleep(LEADER_LOOK).await;
                }
            }
        }
        // A later lead of this replica is another one: somebody else may have led in between.
        raft.wait_lead_ends(term).await;
    }
}

/// The root group: few, small commands; no gathering.
pub struct RootGroup {
    pub raft: Arc<RaftGroup>,
    pub machine: Arc<Machine>,
    clock: GroupClock,
}

impl RootGroup {
    pub async fn start(context: &GroupContext, replica: ReplicaId) -> Result<Arc<RootGroup>> {
        let id = GroupId::ROOT;
        let machine = context.machine(id)?;
        let raft = context.start_raft(id, replica, machine.clone()).await?;
        let group = Arc::new(RootGroup {
            raft,
            machine,
            clock: GroupClock::new(&context.env),
        });
        let led = group.clone();
        let learn = move || {
            let led = led.clone();
            async move { led.learn_time().await }
        };
        let follow = follow_lead(group.raft.clone(), learn);
        context.env.spawn.spawn("root time", Box::pin(follow));
        Ok(group)
    }

    async fn learn_time(&self) -> Result<()> {
        self.raft.read_barrier().await?;
        let cluster = self.read(|view| crate::root::cluster(view))?;
        self.clock.set(cluster.time);
        Ok(())
    }

    /// Reads the records as they are here. They are few and always in memory.
    ///
    /// # Errors
    /// What `read` says; `busy` for damage that another replica can make good; `unavailable` while
    /// the replica waits for its first image.
    pub fn read<T>(&self, read: impl FnOnce(&View) -> Result<T>) -> Result<T> {
        if !self.machine.has_state() {
            return Err(Error::unavailable(
                "the root group's records are not on this node yet",
            ));
        }
        let found = self.machine.view().and_then(|view| read(&view));
        found.map_err(|error| damage_met(&self.raft, &self.machine, error))
    }

    /// The cluster as this replica knows it.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn cluster_view(&self) -> Result<crate::proto::ClusterView> {
        self.read(|view| crate::root::view(view))
    }

    /// The root group's time, as its leader counts it.
    pub fn time(&self) -> ShardTime {
        self.clock.now()
    }

    /// Proposes a command and waits until it is applied.
    ///
    /// # Errors
    /// The command's refusal, or why it could not be proposed.
    pub async fn propose(&self, command: RootCommand) -> Result<RootDone> {
        let time = self.time();
        let entry = codec::encode(&RootEntry { time, command });
        let reply = self.raft.propose(entry.into()).await?;
        *reply
            .downcast::<RootReply>()
            .expect("the root group's machine answers with its reply")
    }
}
