//! The ordered key-value base under the overlay and under the pack index: LMDB in production, an
//! ordered map in simulation; both pass one conformance suite.
//!
//! Keys are 1 to 511 bytes (LMDB's limit), ordered as bytes.

#[cfg(test)]
mod conformance;
mod lmdb;
mod model;

pub use lmdb::{LmdbBase, META_MAP_BYTES};
pub use model::{BaseState, ModelBase};

use crate::error::{Error, Result};
use bytes::Bytes;

/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 511;

/// One change of a commit. Later ones win.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BaseOp {
    Put(Bytes, Bytes),
    Delete(Bytes),
}

/// Calls back once an entry in key order; `false` stops the scan.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> bool + 'a;

/// A read transaction: one unchanging state. May move between threads.
pub trait MetaRead: Send {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>>;
    /// Visits keys in `from <= key < to` in order (`to` `None`: to the end).
    fn scan(&self, from: &[u8], to: Option<&[u8]>, visit: &mut Visit<'_>) -> Result<()>;
}

/// The base itself. Calls block: use them on the blocking pool.
pub trait MetaBase: Send + Sync + 'static {
    fn begin_read(&self) -> Result<Box<dyn MetaRead>>;
    /// Applies all operations atomically; returns after they are durable. One commit at a time.
    ///
    /// # Errors
    /// `no_space` when the map or the disk is full (nothing was changed); any other error means
    /// that durability is unknown and the process must stop.
    fn commit(&self, ops: Vec<BaseOp>) -> Result<()>;
    /// Bytes in use on disk.
    fn used_bytes(&self) -> Result<u64>;
}

/// Refuses a commit with a key that LMDB cannot hold, before anything is changed.
fn check_ops(ops: &[BaseOp]) -> Result<()> {
    for op in ops {
        let (BaseOp::Put(key, _) | BaseOp::Delete(key)) = op;
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return Err(Error::failed(format!(
                "a key has {} bytes (1 to {KEY_BYTES_MAX} are allowed)",
                key.len()
            )));
        }
    }
    Ok(())
}

/// The bounds of a scan; `None` if nothing can lie between them.
fn check_range<'a>(from: &'a [u8], to: Option<&'a [u8]>) -> Option<(&'a [u8], Option<&'a [u8]>)> {
    to.is_none_or(|to| from < to).then_some((from, to))
}
