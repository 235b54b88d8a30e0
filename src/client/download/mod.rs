//! Getting: resolve a file version, fetch its chunks in parallel, verify, put in place.
//!
//! ```text
//! get_file ── content.rs: what to fetch ── fetch.rs: one chunk ── part.rs: a file beside it
//! cat      ──        〃                 ──      〃             ── in order to a writer
//! get_tree ── tree.rs: listing page by page, files side by side; marker.rs: which one goes on
//! ```
//! # From which owner
//! The one that would be done soonest (`link/load.rs`). One that gives no byte for a second, says
//! that it has nothing, or gives wrong bytes, is left for the next; the chunk begins anew there,
//! as nothing is verified before it is whole. Only when every owner was found out twice to have
//! nothing good the chunk counts as lost, after its owners were asked for once more.
//!
//! # What is verified
//! A chunk fetched whole counts only if its BLAKE3 is the one in the manifest; so does inline
//! content. A whole file counts only if its chunks together have its own BLAKE3: each may be
//! genuine and still be at a wrong place. Of a range that does not cover a chunk wholly, the node has verified the chunk before
//! it sent the part, and TLS brought it here; the client cannot check more.
//!
//! # What is durable
//! A fetched file is renamed into its place when whole; it is not synced, as with `cp`.

mod cat;
mod content;
mod fetch;
mod get;
mod marker;
mod part;
mod sink;
mod state;
mod tree;
mod whole;

pub(crate) use state::is_part;
