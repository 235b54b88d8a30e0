//! What a node is made of on any kind of disk: log, metadata, chunks, and the groups on them.
//! `open` and `serve` put it together for a process, the tests for a simulated machine. Knows
//! nothing of identities, locks and sockets.

use super::Node;
use super::garbage::Garbage;
use super::group::{Group, GroupContext, RootGroup};
use super::metrics::Metrics;
use super::tail;
use super::tickets::Tickets;
use crate::env::{Env, MetaBase};
use crate::error::{Error, Result};
use crate::raft::{PeerTransport, Timers, seed_members};
use crate::root::{self, TicketKey};
use crate::shard;
use crate::shard::records::Settings;
use crate::store::chunks::{ChunkOptions, ChunkStore};
use crate::store::overlay::{FoldOptions, MetaStore, ReplicaMark, ReplicaRecord};
use crate::store::reserve::Reserve;
use crate::store::wal::{LogPosition, OnFatal, Wal, WalOptions};
use crate::store::{fail_stop, starts};
use crate::types::{ClusterId, GroupId, LogIndex, NodeId, ReplicaId, Slot};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

/// Where the groups' records are on the first node.
const ROOT_SLOT: Slot = Slot(1);
const SHARD_SLOT: Slot = Slot(2);
/// A seed counts as the first entry.
const SEED: LogPosition = LogPosition {
    term: 0,
    leader: 0,
    index: LogIndex(1),
};
/// The first administrator.
pub(super) const ADMIN: &str = "admin";
/// How long the groups of one node may take to elect themselves.
const LEADER_WITHIN: Duration = Duration::from_secs(30);

/// The ordered bases of a node.
pub(super) struct Bases {
    /// Of the groups' records.
    pub meta: Arc<dyn MetaBase>,
    /// Of the pack index.
    pub index: Arc<dyn MetaBase>,
}

/// How a core is opened.
pub(super) struct CoreOptions {
    pub wal: WalOptions,
    pub chunks: ChunkOptions,
    pub fold: FoldOptions,
    /// Called when a commit of the metadata failed; ends the process, except in tests.
    pub on_fatal: OnFatal,
    /// Go on without what a damaged last batch of the log held.
    pub accept_lost_tail: bool,
    /// Ends the process with this status, except in tests.
    pub exit: Exit,
}

/// See [`CoreOptions::exit`].
pub(super) type Exit = Arc<dyn Fn(i32) + Send + Sync>;

impl Default for CoreOptions {
    fn default() -> Self {
        CoreOptions {
            wal: WalOptions::default(),
            chunks: ChunkOptions::default(),
            fold: FoldOptions::default(),
            on_fatal: Arc::new(|what, error| fail_stop(what, error)),
            accept_lost_tail: false,
            exit: Arc::new(|status| std::process::exit(status)),
        }
    }
}

/// What a new cluster begins with.
pub(super) struct FirstStart {
    pub cluster: ClusterId,
    pub node: NodeId,
    /// Of the shard of `/`.
    pub settings: Settings,
}

/// The opened stores of a node.
pub(super) struct Core {
    /// Number of this start.
    pub start: u64,
    pub wal: Arc<Wal>,
    pub store: Arc<MetaStore>,
    pub chunks: Arc<ChunkStore>,
    pub reserve: Reserve,
    exit: Exit,
}

/// The groups of a node.
pub(super) struct Groups {
    /// What they and the log run on.
    pub raft_env: Env,
    pub root: Arc<RootGroup>,
    /// The shard of `/`.
    pub shard: Arc<Group>,
}

/// Who a node is.
pub(super) struct Who {
    pub id: NodeId,
    pub cluster: ClusterId,
    /// HOST:PORT others use.
    pub address: String,
    pub zone: String,
    pub rack: String,
    pub data: PathBuf,
}

impl Core {
    /// Opens what is in `dir`, or with `first` makes it: the seeds are folded and synced before
    /// this returns.
    ///
    /// # Errors
    /// What the disk says; `corrupt` when something is missing, damaged, or does not fit together.
    pub async fn open(
        env: &Env,
        raft_env: &Env,
        dir: &Path,
        bases: Bases,
        options: CoreOptions,
        first: Option<&FirstStart>,
    ) -> Result<Core> {
        let start = starts::next(&*env.disk, dir).await?;
        let log = dir.join("log");
        let wal = Wal::open_with(raft_env.clone(), &log, options.wal).await?;
        let store = MetaStore::open_with(bases.meta, options.fold, options.on_fatal)?;
        store.recover_slots(env).await?;
        let chunks = ChunkStore::open_with(env.clone(), dir, bases.index, options.chunks).await?;
        let reserve = Reserve::new(env.disk.clone(), dir);
        if let Some(first) = first {
            seed(env, &wal, &store, first).await?;
        }
        tail::settle(&wal, &log, options.accept_lost_tail).await?;
        must_be_whole(&wal, &store, dir)?;
        Ok(Core {
            start,
            wal,
            store,
            chunks,
            reserve,
            exit: options.exit,
        })
    }

    /// Starts the groups and waits until this node leads them.
    ///
    /// # Errors
    /// `corrupt` when log and metadata do not fit together; `unavailable` without a leader.
    pub async fn start_groups(
        &self,
        env: &Env,
        raft_env: Env,
        raft_runtime: &Handle,
        transport: Arc<dyn PeerTransport>,
    ) -> Result<Groups> {
        let context = GroupContext {
            env: env.clone(),
            raft_env,
            raft_runtime: raft_runtime.clone(),
            store: self.store.clone(),
            wal: self.wal.clone(),
            transport,
            timers: Timers::default(),
        };
        let replica_of = |group| {
            let (record, _) = self
                .store
                .replica(group)
                .expect("opening checked that it is there");
            record.replica
        };
        let root = RootGroup::start(&context, replica_of(GroupId::ROOT)).await?;
        let shard = Group::start(&context, GroupId::FIRST, replica_of(GroupId::FIRST)).await?;
        root.raft.wait_leader(LEADER_WITHIN).await?;
        shard.raft.wait_leader(LEADER_WITHIN).await?;
        shard.learn_time().await?;
        Ok(Groups {
            raft_env: context.raft_env,
            root,
            shard,
        })
    }

    /// The node on these stores, known to the root group.
    ///
    /// # Errors
    /// The root group's refusal of this start, or why it could not be asked.
    pub async fn into_node(self, env: &Env, groups: Groups, who: Who) -> Result<Arc<Node>> {
        let Who {
            id,
            cluster,
            address,
            zone,
            rack,
            data,
        } = who;
        let node = Arc::new(Node {
            env: env.clone(),
            raft_env: groups.raft_env,
            id,
            cluster,
            address,
            zone,
            rack,
            data,
            started: env.clock.now(),
            store: self.store,
            wal: self.wal,
            chunks: self.chunks,
            reserve: self.reserve,
            exit: self.exit,
            low_space: Default::default(),
            stopping: Default::default(),
            root: groups.root,
            shard: groups.shard,
            tickets: Tickets::default(),
            garbage: Garbage::new(env.clock.clone()),
            metrics: Metrics::default(),
        });
        node.register(self.start).await?;
        node.take_ticket_keys()?;
        node.look_at_space().await;
        Ok(node)
    }
}

/// Makes the root group and the shard of `/` from their seeds, and folds them: both are synced
/// before either replica votes, appends or answers.
async fn seed(env: &Env, wal: &Wal, store: &Arc<MetaStore>, first: &FirstStart) -> Result<()> {
    let members = seed_members(&[(ReplicaId(1), first.node)]);
    let replica = |group, slot| ReplicaRecord {
        group,
        replica: ReplicaId(1),
        slot,
        mark: ReplicaMark {
            position: SEED,
            members: members.clone(),
        },
    };
    let wall = env.clock.wall();
    let mut key = [0; 32];
    env.rng.fill(&mut key);
    let root_seed = root::seed(first.cluster, wall, TicketKey { epoch: 1, key });
    let shard_seed = shard::seed(GroupId::FIRST, ADMIN, ADMIN, first.settings.clone(), wall);
    store.add_replica(replica(GroupId::ROOT, ROOT_SLOT), root_seed);
    store.add_replica(replica(GroupId::FIRST, SHARD_SLOT), shard_seed);
    for group in [GroupId::ROOT, GroupId::FIRST] {
        wal.purge(group, SEED).await?;
    }
    store.fold(env, wal).await?;
    Ok(())
}

/// The replicas and their logs are there, and fit each other.
fn must_be_whole(wal: &Wal, store: &MetaStore, dir: &Path) -> Result<()> {
    for group in [GroupId::ROOT, GroupId::FIRST] {
        let lost = |what: &str| {
            Err(
                Error::corrupt(format!("the {what} of group {group} is missing"))
                    .at(dir.display())
                    .hint("restore the data directory from a backup"),
            )
        };
        let Some((_, folded)) = store.replica(group) else {
            return lost("metadata");
        };
        match wal.state(group).purged {
            None => return lost("log"),
            Some(purged) if purged > folded.mark.position => {
                return Err(Error::corrupt(format!(
                    "the metadata of group {group} ends at {}, its log begins behind {}: \
                     the metadata is older than the log",
                    folded.mark.position.index, purged.index
                ))
                .at(dir.display())
                .hint("restore the data directory from a backup"));
            }
            Some(_) => {}
        }
    }
    Ok(())
}
