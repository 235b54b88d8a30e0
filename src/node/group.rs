//! One running group: its Raft replica, its state, and the two queues in front of them:
//! proposals (gathered into few log entries) and reads (gathered behind few read barriers).

use super::machine::Machine;
use super::proposer::Proposer;
use super::reader::Reader;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::raft::{PeerTransport, RaftGroup, Timers};
use crate::root::RootCommand;
use crate::store::overlay::{MetaStore, View};
use crate::store::wal::Wal;
use crate::types::{GroupId, ReadLevel, ReplicaId};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::runtime::Handle;

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
    /// Where images are spooled.
    pub spool: PathBuf,
    pub transport: Arc<dyn PeerTransport>,
    pub timers: Timers,
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
            machine,
            self.transport.clone(),
            self.timers,
        );
        let joined = self.raft_runtime.spawn(started).await;
        joined.map_err(|e| Error::failed(format!("starting group {id} broke off ({e})")))?
    }
}

impl Group {
    /// Starts a replica that the store and the log already have.
    pub async fn start(
        context: &GroupContext,
        id: GroupId,
        replica: ReplicaId,
    ) -> Result<Arc<Group>> {
        let (env, store) = (context.raft_env.clone(), context.store.clone());
        let machine = Machine::new(env, store, id, &context.spool)?;
        let raft = context.start_raft(id, replica, machine.clone()).await?;
        let proposer = Proposer::start(&context.env, raft.clone(), context.store.clone());
        let reader = Reader::start(&context.env, raft.clone(), machine.clone());
        Ok(Arc::new(Group {
            id,
            raft,
            machine,
            proposer,
            reader,
        }))
    }

    /// Takes over the shard's time; called once this replica leads.
    pub async fn learn_time(&self) -> Result<()> {
        self.raft.read_barrier().await?;
        let header = crate::shard::read::header(&self.machine.view()?)?;
        self.proposer.set_time(header.time);
        Ok(())
    }

    /// Runs `read` on a view that is as fresh as `level` asks.
    pub async fn read<T: Send + 'static>(
        &self,
        level: ReadLevel,
        read: impl FnOnce(&View) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.reader.read(level, read).await
    }
}

/// The root group: few, small commands; no gathering.
pub struct RootGroup {
    pub raft: Arc<RaftGroup>,
    pub machine: Arc<Machine>,
}

impl RootGroup {
    pub async fn start(context: &GroupContext, replica: ReplicaId) -> Result<Arc<RootGroup>> {
        let id = GroupId::ROOT;
        let (env, store) = (context.raft_env.clone(), context.store.clone());
        let machine = Machine::new(env, store, id, &context.spool)?;
        let raft = context.start_raft(id, replica, machine.clone()).await?;
        Ok(Arc::new(RootGroup { raft, machine }))
    }

    /// Proposes a command and waits until it is applied.
    ///
    /// # Errors
    /// The command's refusal, or why it could not be proposed.
    pub async fn propose(&self, command: &RootCommand) -> Result<()> {
        let reply = self
            .raft
            .propose(crate::codec::encode(command).into())
            .await?;
        *reply
            .downcast::<Result<()>>()
            .expect("the root group's machine answers with a result")
    }
}
