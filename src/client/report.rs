//! What operations return beyond the plain views of `proto`.

use crate::proto::EntryView;
use crate::shard::command::Done;
use crate::shard::records::Outcome;
use crate::types::{ChunkHash, DfsPath, DirVersion, FileVersion, Inode, Name};
use std::path::PathBuf;

/// A change that was made, and the identity it was sent under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    pub done: Done,
    /// What `--op-id` was, or `SESSION-LANE-SEQ`.
    pub op_id: String,
}

/// One file that was put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutReport {
    pub path: DfsPath,
    pub inode: Inode,
    pub version: FileVersion,
    /// Bytes.
    pub size: u64,
    /// BLAKE3 of the whole content.
    pub hash: ChunkHash,
    /// Chunks of the file; 0 for content inside the metadata.
    pub chunks: u64,
    /// Bytes of content that travelled.
    pub sent_bytes: u64,
    /// Bytes that were there already.
    pub reused_bytes: u64,
    /// By which it can be asked for: what `--op-id` was, or `SESSION-LANE-SEQ`, also for the files
    /// of a tree.
    pub op_id: String,
}

/// One file that was fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GetReport {
    pub path: DfsPath,
    /// `None` for standard output.
    pub local: Option<PathBuf>,
    pub version: FileVersion,
    /// Bytes of the file (or of the range asked for).
    pub size: u64,
    /// BLAKE3 of the whole content of that version.
    pub hash: ChunkHash,
    pub chunks: u64,
    /// Bytes that travelled.
    pub fetched_bytes: u64,
    /// Bytes kept from an interrupted fetch.
    pub kept_bytes: u64,
}

/// A whole tree. `failed` > 0: each failure was told to [`Progress::failed`].
///
/// [`Progress::failed`]: super::Progress::failed
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TreeReport {
    pub dirs: u64,
    pub files: u64,
    /// Bytes of all files that succeeded.
    pub bytes: u64,
    /// Bytes that travelled.
    pub moved_bytes: u64,
    /// Bytes that were there already.
    pub reused_bytes: u64,
    pub failed: u64,
}

/// One page of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    pub dir: DirVersion,
    pub entries: Vec<(Name, EntryView)>,
    /// There are names behind the last one (or behind the limit).
    pub more: bool,
}

/// A whole listing in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The directory's version at the last page.
    pub dir: DirVersion,
    /// The version did not change from the first page to the last.
    pub one_point_in_time: bool,
    pub entries: Vec<(Name, EntryView)>,
    /// The name to go on behind, if a limit cut the listing.
    pub next: Option<Name>,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpState {
    /// It was executed: one outcome for each of its operations; none for a command of several
    /// requests, of which all were.
    Applied(Vec<Outcome>),
    /// A command of several requests was begun. That all of it was done is not known: it is under
    /// way, was interrupted, or some of it failed.
    Begun,
    /// Nothing is known of it: it did not arrive (yet), or it is longer ago than the horizon.
    Unknown,
}
