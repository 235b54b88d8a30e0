//! One server process: opens a data directory, starts its groups, serves calls, and runs the
//! background work. The only module that sees both the metadata plane and the data plane.
//!
//! ```text
//! serve ─ open (data directory, first start) ─ groups (root, shards) ─ service (calls)
//!                                           └─ workers (fold, chores, compaction, keys)
//! ```
//!
//! Raft cores, log and timers have a runtime of their own and never wait for the base: applying
//! and reading run on the blocking pool.

mod admin;
mod admin_file;
mod advertise;
mod beat;
mod check;
mod chunk_calls;
mod clock;
mod copies;
mod core;
mod direct;
mod doubts;
mod enter;
mod garbage;
mod group;
mod holders;
mod identity;
mod images;
mod join;
mod liveness;
mod machine;
mod members;
mod membership;
mod mend;
mod meta_calls;
mod metrics;
mod open;
mod passes;
mod peer_calls;
mod peers;
mod pins;
mod proposer;
mod reader;
mod registry;
mod repairs;
mod room;
mod root_work;
mod scrub;
mod serve;
mod service;
mod slices;
mod spare;
mod spool;
mod status;
mod surplus;
mod tail;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod tickets;
mod transport;
mod verify;
mod view;
mod workers;

pub use enter::enter;
pub use serve::{Ready, Server, serve};

use crate::env::Env;
use crate::error::Result;
use crate::net::Endpoint;
use crate::proto::ClusterView;
use crate::shard;
use crate::shard::records::Settings;
use crate::store::chunks::ChunkStore;
use crate::store::overlay::MetaStore;
use crate::store::reserve::Reserve;
use crate::store::wal::Wal;
use crate::types::{ClusterId, Epoch, GroupId, NodeId, ReplicaId, ShardTime};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::Notify;

/// Everything a node's services and workers share.
pub(crate) struct Node {
    pub env: Env,
    /// Raft's and the log's: applying and folding use its threads.
    pub raft_env: Env,
    pub id: NodeId,
    pub cluster: ClusterId,
    /// HOST:PORT others use.
    pub address: String,
    pub zone: String,
    pub rack: String,
    /// Units of capacity that this node says it has.
    pub weight: u32,
    pub data: PathBuf,
    /// Monotonic time of the start.
    pub started: Duration,
    pub store: Arc<MetaStore>,
    pub wal: Arc<Wal>,
    pub chunks: Arc<ChunkStore>,
    pub reserve: Reserve,
    /// Too little space for new data; deletes go on.
    pub low_space: AtomicBool,
    room: room::Room,
    /// Told to stop: what ends from now on ends in order.
    pub stopping: AtomicBool,
    /// Replicas here.
    pub groups: Arc<registry::Groups>,
    pub peers: Arc<peers::Peers>,
    pub views: view::Views,
    pub identity: identity::Identity,
    /// Where this node listens; set once it does.
    pub endpoint: OnceLock<Endpoint>,
    /// Who was heard of, while this node leads the root group.
    pub liveness: Mutex<liveness::Liveness>,
    /// Who answered last for the root group.
    pub root_hint: Mutex<Option<NodeId>>,
    /// Where other nodes are, as the operator says: looked at while nothing is heard of the root group.
    pub named: Vec<String>,
    /// Tell the root group now rather than in a second.
    pub beat_now: Notify,
    /// Learners of the groups this node leads: how far each was, and since when.
    pub learners: Mutex<BTreeMap<(GroupId, ReplicaId), (u64, Duration)>>,
    /// A node that is silent for so long is offline.
    pub offline_after: Duration,
    /// What must not go on ends here.
    pub on_end: core::OnEnd,
    /// Held by requests that refer to chunks, from the question for their holders until they are
    /// applied; taken whole when the ring has changed.
    pub commits: tokio::sync::RwLock<()>,
    /// The epoch and term for which it was taken last.
    pub fenced: Mutex<(Epoch, u64)>,
    pub repairs: repairs::Repairs,
    pub scrub: scrub::Scrub,
    /// Of the shard of `/`, as this node knew them last.
    pub settings: Mutex<Settings>,
    pub tickets: tickets::Tickets,
    pub garbage: garbage::Garbage,
    pub metrics: metrics::Metrics,
}

impl Node {
    /// The settings of the shard of `/`: those of the replica here; without one the defaults.
    pub fn settings(&self) -> Settings {
        let header = self.groups.shard(GroupId::FIRST).and_then(|shard| {
            let view = shard.machine.view()?;
            shard::read::header(&view)
        });
        let mut known = self.settings.lock();
        if let Ok(header) = header {
            *known = header.settings;
        }
        known.clone()
    }

    /// The time of the shard of `/`, by which tickets expire; on a node without a replica of it
    /// they end with their key. Not what the leader counts: a follower that answers a stale read
    /// makes tickets too.
    pub fn ticket_time(&self) -> ShardTime {
        let shard = self.groups.shard(GroupId::FIRST);
        shard.map_or(ShardTime(0), |shard| shard.applied_time())
    }

    /// Takes a newer view of the cluster.
    pub async fn take_view(&self, view: ClusterView) -> Result<()> {
        if self.views.take(&self.env, view, &self.tickets).await? {
            self.use_view(&[]);
        }
        Ok(())
    }

    /// Lets everybody know what is in the view of now; `more` are addresses that are not in it yet.
    fn use_view(&self, more: &[crate::proto::NodeAddress]) {
        let view = self.views.now();
        self.tickets.set_keys(view::ticket_keys(&view.cluster));
        let mut addresses = more.to_vec();
        for info in view.members() {
            addresses.retain(|known| known.node != info.node);
            addresses.extend(view.address(info.node));
            self.peers.registered(info.node, info.life);
        }
        addresses.retain(|known| known.node != self.id && !known.address.is_empty());
        self.peers.set_addresses(&addresses);
        if let Some(endpoint) = self.endpoint.get() {
            endpoint.recheck();
        }
    }
}
