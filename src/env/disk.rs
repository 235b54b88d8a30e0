//! Files as a node uses them: asynchronous, addressed by offset, with durability said aloud.
//!
//! What a caller may rely on, in production and in simulation:
//! 1. Bytes written are read back at once; they survive a power cut only after `sync` (or
//!    `write_sync`) returned.
//! 2. A created, renamed or removed name survives a power cut only after `sync_dir` of its
//!    directory returned; before that, either state may be found.
//! 3. After an error of a sync nothing about unsynced bytes is known, now or later: the caller
//!    must stop using the store (see `store::fail_stop`).

use bytes::Bytes;
use futures::future::BoxFuture;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Writes of which offset, addresses and lengths are multiples of this many bytes may go to the
/// disk without a copy in memory, where they are not meant to be read again soon
/// ([`DiskFile::write_behind`]): the block size of disks and the page size of most systems.
pub const WRITE_ALIGN: usize = 4_096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Must exist; for reading.
    Read,
    /// Must exist; for reading and writing.
    Write,
    /// Must not exist; for reading and writing.
    CreateNew,
}

/// Bytes of the file system that holds a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    pub total: u64,
    /// What this process may still write.
    pub available: u64,
}

/// One open file. Cheap to share; offsets are explicit, so calls may overlap.
#[allow(clippy::len_without_is_empty)] // Nobody asks whether a file is empty.
pub trait DiskFile: Send + Sync {
    /// Reads up to `len` bytes at `offset`; fewer only at the end of the file.
    fn read_at(&self, offset: u64, len: usize) -> BoxFuture<'_, io::Result<Bytes>>;
    /// Writes all parts one behind the other at `offset`.
    fn write_at(&self, offset: u64, parts: Vec<Bytes>) -> BoxFuture<'_, io::Result<()>>;
    /// `write_at`, and a hint that the bytes may go to disk from now on: a later `sync` has less
    /// to wait for. Promises nothing more than `write_at` does.
    fn write_behind(&self, offset: u64, parts: Vec<Bytes>) -> BoxFuture<'_, io::Result<()>> {
        self.write_at(offset, parts)
    }
    /// `write_at`, then `sync`, as one trip to the disk.
    fn write_sync(&self, offset: u64, parts: Vec<Bytes>) -> BoxFuture<'_, io::Result<()>>;
    /// Says that a range will not be read again soon: the system need not keep what of it is on
    /// disk already. Only a hint; quick, does not wait.
    fn forget(&self, from: u64, to: u64) {
        let _ = (from, to);
    }
    /// Makes all bytes written so far durable (fdatasync).
    fn sync(&self) -> BoxFuture<'_, io::Result<()>>;
    fn len(&self) -> BoxFuture<'_, io::Result<u64>>;
    /// Cuts or extends with zeros.
    fn set_len(&self, len: u64) -> BoxFuture<'_, io::Result<()>>;
    /// Writes zeros over a range so that later writes there allocate nothing.
    fn zero(&self, offset: u64, len: u64) -> BoxFuture<'_, io::Result<()>>;
}

/// A node's file system.
pub trait Disk: Send + Sync + 'static {
    fn open<'a>(
        &'a self,
        path: &'a Path,
        mode: OpenMode,
    ) -> BoxFuture<'a, io::Result<Arc<dyn DiskFile>>>;
    /// Replaces `to` if it exists.
    fn rename<'a>(&'a self, from: &'a Path, to: &'a Path) -> BoxFuture<'a, io::Result<()>>;
    /// Removes a file.
    fn remove<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, io::Result<()>>;
    /// Makes the directory and its parents; fine if it exists. The new names are durable on
    /// return.
    fn create_dir<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, io::Result<()>>;
    /// Names in a directory (without its own path), sorted.
    fn list<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, io::Result<Vec<PathBuf>>>;
    fn sync_dir<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, io::Result<()>>;
    fn space<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, io::Result<Space>>;
    fn exists<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, io::Result<bool>>;
}
