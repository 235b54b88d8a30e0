//! dfs: a strongly consistent, peer-to-peer distributed file system.
//!
//! Layers, top to bottom; imports run down only (`tests/tidy.rs` holds the table):
//!
//! | layer | modules | what they are |
//! |---|---|---|
//! | 8 | `fuzzing` | what takes foreign bytes, for `fuzz/` and the tests |
//! | 7 | [`cmd`] | one file a verb: arguments, one client call, print |
//! | 6 | [`mod@bench`], `sim` (tests) | measuring a cluster, simulated clusters |
//! | 5 | [`node`] | composition of one server process: groups, services, workers |
//! | 4 | [`client`] | routes, sessions, retries, upload, download |
//! | 3 | [`shard`], [`root`], [`raft`], [`ring`] | the metadata plane, its consensus, the data plane's placement |
//! | 2 | [`store`], [`net`], [`cluster`] | one node's disk, QUIC, identities and the cluster's CA |
//! | 1 | [`proto`] | what travels between processes, with its bounds |
//! | 0 | [`mod@env`], [`types`], [`codec`], [`error`], [`limits`], [`config`] | seams, vocabulary, bytes |
//!
//! Siblings of one layer do not see each other. Where a low layer must call up, it defines a
//! small trait and `node` implements it.

pub mod bench;
pub mod client;
pub mod cluster;
pub mod cmd;
pub mod codec;
pub mod config;
pub mod env;
pub mod error;
#[doc(hidden)]
pub mod fuzzing;
pub mod limits;
pub mod net;
pub mod node;
pub mod proto;
pub mod raft;
pub mod ring;
pub mod root;
pub mod shard;
#[cfg(test)]
mod sim;
pub mod store;
pub mod types;
