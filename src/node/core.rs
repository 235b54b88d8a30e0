//! What a node is made of on any kind of disk: log, metadata, chunks, and the groups on them.
//! `open` and `serve` put it together for a process, the tests for a simulated machine. Knows
//! nothing of identities, locks and sockets.

use super::Node;
use super::garbage::Garbage;
use super::group::GroupContext;
use super::identity::Identity;
use super::metrics::Metrics;
use super::peers::{OnOvertaken, Peers};
use super::registry::{Groups, Held};
use super::tickets::Tickets;
use super::transport::Transport;
use super::view::{self, Views};
use super::{spool, tail};
use crate::env::{Env, MetaBase};
use crate::error::{Code, Error, Result};
use crate::net::ClientTls;
use crate::proto::{ClusterView, Life, NodeAddress, NodeInfo, NodeState, RingEpoch};
use crate::raft::{Members, Timers, members_in_log, members_of, seed_members};
use crate::root::{self, CaRecord, Seed};
use crate::shard;
use crate::shard::records::Settings;
use crate::store::chunks::{ChunkOptions, ChunkStore};
use crate::store::overlay::{FoldOptions, MetaStore, ReplicaMark, ReplicaRecord};
use crate::store::reserve::Reserve;
use crate::store::wal::{LogPosition, OnFatal, Wal, WalOptions};
use crate::store::{fail_stop, starts};
use crate::types::{ClusterId, Epoch, GroupId, LogIndex, NodeId, ReplicaId, ShardTime, Slot};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

/// Images on their way, within the data directory.
pub(super) const SPOOL: &str = "images";
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
}

impl Default for CoreOptions {
    fn default() -> Self {
        CoreOptions {
            wal: WalOptions::default(),
            chunks: ChunkOptions::default(),
            fold: FoldOptions::default(),
            on_fatal: Arc::new(|what, error| fail_stop(what, error)),
            accept_lost_tail: false,
        }
    }
}

/// What a new cluster begins with.
pub(super) struct FirstStart {
    pub cluster: ClusterId,
    pub node: NodeId,
    /// Of the shard of `/`.
    pub settings: Settings,
    pub ca: CaRecord,
    pub zone: String,
    pub rack: String,
    pub weight: u32,
}

/// The opened stores of a node.
pub(super) struct Core {
    /// This start.
    pub life: Life,
    pub wal: Arc<Wal>,
    pub store: Arc<MetaStore>,
    pub chunks: Arc<ChunkStore>,
    pub reserve: Reserve,
    /// Replicas whose state does not fit their log and that others can replace, and why.
    broken: Vec<Held>,
    /// Replicas whose log must be mended before they open, and why.
    mend: Vec<Held>,
}

/// Who a node is.
pub(super) struct Who {
    pub id: NodeId,
    pub cluster: ClusterId,
    /// HOST:PORT others use.
    pub address: String,
    pub zone: String,
    pub rack: String,
    pub weight: u32,
    pub data: PathBuf,
    pub identity: Identity,
    /// Others that may be there; needed by a node that knows no view yet.
    pub nodes: Vec<NodeAddress>,
    /// Where others are, as the operator says; may be empty.
    pub named: Vec<String>,
    /// A node that is silent for so long is offline.
    pub offline_after: Duration,
    /// Whether leaders here answer reads under a lease.
    pub lease_reads: bool,
    /// What a node does that must not go on.
    pub on_end: OnEnd,
}

/// What can be done where a node's metadata cannot be read at all.
const ELSEWHERE: &str = "if the cluster has other nodes, remove this one (`dfs node remove N \
    --force`) and join again with an empty directory";

/// What ends a process: why.
pub(super) type OnEnd = Arc<dyn Fn(&Error) + Send + Sync>;

impl Core {
    /// Opens what is in `dir`, or with `first` makes it: the seeds are folded and synced before
    /// this returns.
    ///
    /// # Errors
    /// What the disk says; `corrupt` when something is missing, damaged, or does not fit together
    /// and no other node can give it.
    pub async fn open(
        env: &Env,
        raft_env: &Env,
        dir: &Path,
        bases: Bases,
        options: CoreOptions,
        first: Option<&FirstStart>,
    ) -> Result<Core> {
        let start = starts::begin(&*env.disk, dir, env.rng.u64()).await?;
        let life = Life {
            start: start.number,
            nonce: start.nonce,
        };
        let log = dir.join("log");
        let wal = Wal::open_with(raft_env.clone(), &log, options.wal).await?;
        let store = MetaStore::open_with(bases.meta, options.fold, options.on_fatal)
            .map_err(|error| error.hint(ELSEWHERE))?;
        store.recover_slots(env).await?;
        let chunks = ChunkStore::open_with(env.clone(), dir, bases.index, options.chunks).await?;
        let reserve = Reserve::new(env.disk.clone(), dir);
        spool::clear(&*env.disk, &dir.join(SPOOL)).await?;
        if let Some(first) = first {
            seed(env, &wal, &store, first).await?;
        }
        forget_leftovers(&wal, &store).await?;
        let shared = shared_groups(&wal, &store).await?;
        let accept = options.accept_lost_tail;
        let broken = must_be_whole(&wal, &store, dir, &shared)?;
        let replicas = store.replicas();
        let folded = replicas
            .iter()
            .map(|r| (r.group, r.mark.position))
            .collect();
        let mut mend = tail::settle(&wal, &log, accept, &shared, &folded).await?;
        mend.retain(|group, _| broken.iter().all(|(other, ..)| other != group));
        let mend = replicas
            .iter()
            .filter_map(|r| Some((r.group, r.replica, mend.remove(&r.group)?)))
            .collect();
        Ok(Core {
            life,
            wal,
            store,
            chunks,
            reserve,
            broken,
            mend,
        })
    }

    /// The node on these stores, with its replicas running; not yet known to the root group.
    ///
    /// # Errors
    /// `corrupt` when log and metadata do not fit together.
    pub async fn into_node(
        self,
        env: &Env,
        raft_env: Env,
        raft_runtime: &Handle,
        who: Who,
    ) -> Result<Arc<Node>> {
        let tls = ClientTls::new(&who.identity.credentials())?;
        let end = who.on_end.clone();
        let overtaken: OnOvertaken = Arc::new(move |error| end(error));
        let address = who.address.clone();
        let peers = Peers::new(env.clone(), who.id, self.life, address, tls, overtaken);
        let transport = Transport::new(env.clone(), raft_env.clone(), peers.clone());
        let groups = Groups::new(GroupContext {
            env: env.clone(),
            raft_env: raft_env.clone(),
            raft_runtime: raft_runtime.clone(),
            store: self.store.clone(),
            wal: self.wal.clone(),
            transport,
            timers: Timers {
                lease_reads: who.lease_reads,
                ..Timers::default()
            },
            spool: who.data.join(SPOOL),
            doubts: Arc::default(),
            root_changed: Arc::default(),
            on_end: who.on_end.clone(),
        });
        groups.set_aside(self.broken, self.mend);
        let shared = shared_groups(&self.wal, &self.store).await?;
        groups.start_all(&shared).await?;
        let view = newest_view(env, &who, &groups).await?;
        let node = Arc::new(Node {
            env: env.clone(),
            raft_env,
            id: who.id,
            cluster: who.cluster,
            address: who.address,
            zone: who.zone,
            rack: who.rack,
            weight: who.weight,
            started: env.clock.now(),
            store: self.store,
            wal: self.wal,
            chunks: self.chunks,
            reserve: self.reserve,
            low_space: Default::default(),
            room: Default::default(),
            stopping: Default::default(),
            groups,
            peers,
            views: Views::new(view, &who.data)?,
            identity: who.identity,
            endpoint: Default::default(),
            liveness: Default::default(),
            root_hint: Default::default(),
            beat_now: Default::default(),
            named: who.named,
            learners: Default::default(),
            offline_after: who.offline_after,
            on_end: who.on_end,
            commits: Default::default(),
            fenced: Default::default(),
            repairs: Default::default(),
            scrub: Default::default(),
            settings: Default::default(),
            tickets: Tickets::default(),
            garbage: Garbage::new(env.clock.clone()),
            metrics: Metrics::default(),
            data: who.data,
        });
        node.use_view(&who.nodes);
        node.look_at_space().await;
        Ok(node)
    }
}

/// What the node knows of the cluster at its start: by its replica of the root group, or by what
/// an earlier life kept; a node that has just joined knows where others are and nothing else.
async fn newest_view(env: &Env, who: &Who, groups: &Groups) -> Result<ClusterView> {
    let kept = view::load(env, &who.data).await?;
    let own = match groups.root() {
        Some(root) if root.machine.has_state() => match root.cluster_view() {
            // Damaged here; the others have it.
            Err(error) if error.code == Code::Busy => None,
            own => Some(own?),
        },
        _ => None,
    };
    let known = kept.into_iter().chain(own);
    let known = known.filter(|view| view.cluster == who.cluster);
    let newest = known.max_by_key(|view| view.version);
    Ok(newest.unwrap_or_else(|| ClusterView {
        version: 0,
        cluster: who.cluster,
        nodes: Vec::new(),
        epochs: vec![RingEpoch {
            epoch: Epoch(0),
            base: 1,
            members: Vec::new(),
        }],
        ticket_keys: Vec::new(),
        revoked_users: Vec::new(),
        ca: who.identity.credentials().ca.into(),
        time: ShardTime(0),
    }))
}

/// Groups that have, or may have, voters on other nodes: what is lost of them here can be had again.
/// The log may know members that no fold holds yet.
async fn shared_groups(wal: &Wal, store: &MetaStore) -> Result<BTreeSet<GroupId>> {
    let mut shared = BTreeSet::new();
    for record in store.replicas() {
        let folded = members_of(&record.mark.members)?;
        let behind = record.mark.position.index.next();
        let logged = members_in_log(wal, record.group, behind).await;
        let alone = |members: &Members| {
            let mut voters = members.voters.iter();
            members.voters.len() == 1 && voters.all(|(replica, _)| *replica == record.replica)
        };
        if !alone(&folded) || !logged.iter().all(alone) {
            shared.insert(record.group);
        }
    }
    Ok(shared)
}

/// The log of a replica that was removed goes behind it: a crash between the two leaves it.
async fn forget_leftovers(wal: &Wal, store: &MetaStore) -> Result<()> {
    for group in wal.groups() {
        if store.replica(group).is_none() && store.tombstone(group)?.is_some() {
            wal.remove_group(group).await?;
        }
    }
    Ok(())
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
    let mut ticket_key = [0; 32];
    env.rng.fill(&mut ticket_key);
    let root_seed = root::seed(Seed {
        cluster: first.cluster,
        created: wall,
        ticket_key,
        ca: first.ca.clone(),
        node: NodeInfo {
            node: first.node,
            address: String::new(),
            zone: first.zone.clone(),
            rack: first.rack.clone(),
            life: Life::default(),
            version: env!("CARGO_PKG_VERSION").into(),
            weight: first.weight,
            state: NodeState::Member,
        },
        admin: (ADMIN.into(), ADMIN.into()),
        replicas: 1,
    });
    let shard_seed = shard::seed(GroupId::FIRST, ADMIN, ADMIN, first.settings.clone(), wall);
    store.add_replica(replica(GroupId::ROOT, ROOT_SLOT), root_seed);
    store.add_replica(replica(GroupId::FIRST, SHARD_SLOT), shard_seed);
    for group in [GroupId::ROOT, GroupId::FIRST] {
        wal.purge(group, SEED).await?;
    }
    store.fold(env, wal).await?;
    Ok(())
}

/// The replicas and their logs are there, and fit each other; those that do not and that others
/// can replace.
fn must_be_whole(
    wal: &Wal,
    store: &MetaStore,
    dir: &Path,
    shared: &BTreeSet<GroupId>,
) -> Result<Vec<(GroupId, ReplicaId, String)>> {
    let restore = "restore the data directory from a backup";
    for group in wal.groups() {
        if store.replica(group).is_none() {
            let why = format!("the metadata of group {group} is missing");
            return Err(Error::corrupt(why).at(dir.display()).hint(restore));
        }
    }
    let mut broken = Vec::new();
    for record in store.replicas() {
        let group = record.group;
        let log = wal.state(group);
        let why = match log.purged {
            // An empty replica that waits for its first image has no log yet.
            None if record.mark == ReplicaMark::default() => continue,
            // An image was installed, and the log has not followed yet; `raft` sees to it. It was
            // taken from a leader, whom the log knows.
            None if shared.contains(&group) && log.vote.is_some() => continue,
            None => format!("the log of group {group} is missing"),
            Some(purged) if purged > record.mark.position => format!(
                "the metadata of group {group} ends at {}, its log begins behind {}: the metadata \
                 is older than the log",
                record.mark.position.index, purged.index
            ),
            Some(_) => continue,
        };
        if !shared.contains(&group) {
            return Err(Error::corrupt(why).at(dir.display()).hint(restore));
        }
        broken.push((group, record.replica, why));
    }
    Ok(broken)
}
