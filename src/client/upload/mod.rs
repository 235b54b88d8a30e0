//! Putting: small contents as one operation, larger ones as reservation, chunks and commit.
//!
//! ```text
//! put_bytes ─┐                      ≤ 256 KiB, one chunk: Op::Put
//! put_file  ─┼─ Target ── content ─┤
//! put_reader┘                      larger: Reserve ─ chunks (stream.rs) ─ Stage* ─ Commit
//! put_tree ── walk.rs ── batches of small files, single larger ones (tree.rs)
//! ```
//! A chunk is read once: hashed, offered (`Known`, `Pin`) and only then sent, all from the same
//! buffer within the window, so that what was hashed is what was sent.

mod begun;
mod chunk;
mod chunked;
mod ledger;
mod put;
mod resume;
mod same;
mod sending;
mod stream;
mod tree;
mod units;
mod walk;

pub(crate) use chunk::within;
pub(crate) use resume::sweep;
