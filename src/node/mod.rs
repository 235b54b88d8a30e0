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

mod check;
mod chunk_calls;
mod core;
mod garbage;
mod group;
mod machine;
mod meta_calls;
mod metrics;
mod open;
mod pins;
mod proposer;
mod reader;
mod serve;
mod service;
mod status;
mod tail;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod tickets;
mod workers;

pub use serve::{Ready, Server, serve};

use crate::env::Env;
use crate::shard;
use crate::store::chunks::ChunkStore;
use crate::store::overlay::MetaStore;
use crate::store::reserve::Reserve;
use crate::store::wal::Wal;
use crate::types::{ClusterId, NodeId};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

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
    pub data: PathBuf,
    /// Monotonic time of the start.
    pub started: Duration,
    pub store: Arc<MetaStore>,
    pub wal: Arc<Wal>,
    pub chunks: Arc<ChunkStore>,
    pub reserve: Reserve,
    /// Ends the process with this status.
    pub exit: core::Exit,
    /// Too little space for new data; deletes go on.
    pub low_space: AtomicBool,
    /// Told to stop: what ends from now on ends in order.
    pub stopping: AtomicBool,
    pub root: Arc<group::RootGroup>,
    /// The shard of `/`.
    pub shard: Arc<group::Group>,
    pub tickets: tickets::Tickets,
    pub garbage: garbage::Garbage,
    pub metrics: metrics::Metrics,
}

impl Node {
    /// The settings of the shard of `/` as of now.
    pub fn settings(&self) -> crate::error::Result<shard::records::Settings> {
        Ok(shard::read::header(&self.shard.machine.view()?)?.settings)
    }
}
