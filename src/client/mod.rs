//! The client: what the command line and the gateways call. It turns paths and local files into
//! calls of `proto` over `net`, and hides lost connections, leader changes and lost replies.
//!
//! ```text
//! Client ── changes, reads, list      one call each, retried inside its deadline
//!        ── put*                      upload/: inline, batches, chunks + manifest, resume
//!        ── get*, cat                 download/: resolve, chunks in parallel, verified, resume
//!              │
//!        ask (whom), owners (where chunks belong), sessions (which lane), retry (when again)
//!              │
//!        link/ (ways to the nodes, who leads), routes (which shard)
//! ```
//!
//! # Exactly once
//! Each changing request travels under (session, lane, sequence); a lane has one request in
//! flight. A reply that got lost is asked for again with the same bytes under the same number
//! and the shard answers what it answered first. If the deadline ends before an answer came,
//! the error is `unavailable` with `may_have_happened`, and its hint names the operation so that
//! `dfs op status` can tell later; that lane is never used again.
//!
//! # Which node
//! Changes and fresh reads go to their shard's leader, older news come from any node, chunks from
//! and to their owners. A node that is silent is given up for one that is known to do better,
//! never for a guess (`link/mod.rs`); what was sent to it counts as perhaps executed.
//!
//! # Memory
//! Bounded by the window of each transfer (`limits::WINDOW_BYTES_DEFAULT`) and one manifest page a
//! file, whatever the size of files. A tree takes one listing page for each level of it that is
//! open, whatever the size of its directories.
//!
//! The client may use local files directly (`std::fs` on the blocking pool); everything else
//! goes through `env`.

mod ask;
mod batch;
mod buffers;
mod changes;
mod core;
mod download;
mod endpoints;
#[cfg(test)]
mod exact_tests;
#[cfg(test)]
mod leader_tests;
mod link;
mod list;
mod local;
mod manifest;
mod opid;
mod options;
#[cfg(test)]
mod owner_tests;
mod owners;
mod progress;
mod reads;
mod report;
mod retry;
mod routes;
mod send;
mod sessions;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod tree_hash;
mod under_way;
mod upload;
mod window;
mod wire;

pub use self::core::Client;
pub use list::Pages;
pub use options::{ConnectOptions, GetOptions, ListOptions, OpIds, Overwrite, PutOptions};
pub use progress::{NoProgress, Progress};
pub use report::{Changed, GetReport, Listing, OpState, Page, PutReport, TreeReport};
pub use send::ask_later;
pub use under_way::{OpenChange, UnderWay};
#[cfg(test)]
pub(crate) use wire::Bind;
