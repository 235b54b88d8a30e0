//! Pure: what a shard's log carries, and what its requests answer.
//!
//! Clients send [`Request`]s; the leader gathers them into a [`Proposal`], stamps it with shard
//! time and wall clock, and that is one log entry.

use super::records::{ChunkRef, Outcome, Settings};
use crate::codec;
use crate::error::{Code, Error};
use crate::limits::BATCH_ITEMS_MAX;
use crate::types::{
    ChunkHash, DfsPath, FileVersion, Inode, Lane, OpSeq, Precondition, Replacement, Revision,
    SessionId, ShardTime, UploadId, WallTime,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// One log entry of a shard. Unknown variants stop the replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    Propose(Proposal),
    /// From here on `apply` may do what this version may.
    StateMachine(u32),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// The leader's count of shard time; the state takes the maximum with its own.
    pub time: ShardTime,
    pub wall: WallTime,
    pub requests: Vec<Request>,
    pub chores: Vec<Chore>,
}

/// Operations of one lane of one session, applied in order under one sequence number. Each has
/// its own outcome: a refused one does not stop the next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    pub session: SessionId,
    pub lane: Lane,
    pub seq: OpSeq,
    /// Shard time at which the session first met this shard.
    pub met: ShardTime,
    pub user: String,
    pub group: String,
    /// Shard time just before the holders of all chunks it refers to were asked for them; `None`
    /// where it refers to none. Set by the leader; see [`HOLD_MS`].
    pub held: Option<ShardTime>,
    /// At most `BATCH_ITEMS_MAX`, which must not be lowered: logs are read with it too.
    #[serde(deserialize_with = "codec::at_most::<_, _, BATCH_ITEMS_MAX>")]
    pub ops: Vec<Op>,
}

/// A request whose chunks were asked for longer ago than this is not executed: their holders may
/// let them go. Longer than asking takes, much shorter than the shortest grace of a chunk.
pub const HOLD_MS: u64 = 20_000;

/// The answer to a request that was not executed because of [`HOLD_MS`]; it may be sent again as
/// it is.
pub fn too_late() -> Error {
    Error::new(
        Code::Busy,
        "the request waited too long after its chunks were looked for",
    )
}

/// True for [`too_late`]: nothing was executed and nothing kept of it.
pub fn is_too_late(outcome: &Outcome) -> bool {
    matches!(outcome, Err(error) if error.code == Code::Busy)
}

/// A change asked for by a user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    Mkdir {
        path: DfsPath,
        mode: u16,
        /// Make missing parents; an existing directory is fine.
        parents: bool,
    },
    /// A whole small file in one step: at most `DIRECT_BYTES_MAX` where a client asks for it, at
    /// most `INLINE_BYTES_MAX` in the log.
    Put {
        path: DfsPath,
        precondition: Precondition,
        mode: u16,
        hash: ChunkHash,
        data: Bytes,
    },
    /// Begins an upload: invisible, expires.
    Reserve {
        path: DfsPath,
        upload: UploadId,
        precondition: Precondition,
        mode: u16,
    },
    /// Hands over one full manifest page of an upload before its commit.
    Stage {
        parent: Inode,
        upload: UploadId,
        page: u32,
        chunks: Vec<ChunkRef>,
    },
    /// Makes the uploaded content the next version. The precondition was given at reservation
    /// and is judged again now.
    Commit {
        parent: Inode,
        upload: UploadId,
        size: u64,
        hash: ChunkHash,
        /// Chunks of the last page, which was not staged; empty for none.
        tail: Vec<ChunkRef>,
    },
    Abort {
        parent: Inode,
        upload: UploadId,
    },
    Remove {
        path: DfsPath,
        what: Removal,
        /// For files: anything but `Absent`. Directories take `Any` only.
        precondition: Precondition,
    },
    Rename {
        from: DfsPath,
        to: DfsPath,
        replace: Replacement,
    },
    /// A new version with another file's (or an older) content; no data moves.
    Copy {
        from: DfsPath,
        /// `None`: the current one.
        version: Option<FileVersion>,
        to: DfsPath,
        precondition: Precondition,
    },
    /// Makes an old version's content the next version.
    Restore {
        path: DfsPath,
        version: FileVersion,
    },
    SetAttrs {
        path: DfsPath,
        mode: Option<u16>,
        owner: Option<String>,
        group: Option<String>,
    },
    /// Brings back the newest deleted thing of that name, inside its grace time.
    Undelete {
        path: DfsPath,
    },
    /// Administrators only.
    Settings(Settings),
    /// A whole file of one chunk, which is at its holders. Made by the leader from a `Put` that is
    /// too large for a record; nobody else may ask for it, as it proves nothing about the content.
    PutChunk {
        path: DfsPath,
        precondition: Precondition,
        mode: u16,
        chunk: ChunkRef,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Removal {
    /// A file; a directory is refused.
    File,
    /// A file or an empty directory.
    FileOrEmptyDir,
    /// An empty directory; a file is refused.
    EmptyDir,
    /// Whatever it is, with everything below.
    Tree,
}

/// Work the leader proposes for the shard itself. Idempotent; each does a bounded amount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Chore {
    /// Cleans up to `records` records of deletions that are due (all of them if `now`).
    Cleanup { records: u32, now: bool },
    /// Drops uploads that have expired, at most so many.
    ExpireUploads { uploads: u32 },
    /// Drops lane rows older than the horizon, and the oldest beyond the bound, at most so many.
    ExpireLanes { lanes: u32 },
    /// Drops change rows up to this revision, at most so many.
    TrimChanges { upto: Revision, rows: u32 },
    /// Drops old versions past retention of files, beginning behind this inode, looking at most
    /// at so many version rows.
    ExpireVersions { behind: Inode, rows: u32 },
}

/// A change that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// The change's place in the shard's order. 0: nothing had to be changed.
    pub revision: Revision,
    /// The file or directory made, changed or removed.
    pub inode: Inode,
    /// A file's version; 0 for directories.
    pub version: FileVersion,
    /// The directory that holds it; what `Stage` and `Commit` are sent with.
    pub parent: Inode,
    /// For reservations: the chunk size to use.
    pub chunk_bytes: u64,
}

/// What applying one command gave.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// One for each request of the proposal, in order: one outcome for each operation.
    pub requests: Vec<Vec<Outcome>>,
    /// One for each chore: how much there was to do (0: nothing left).
    pub chores: Vec<ChoreDone>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChoreDone {
    /// Records, rows, uploads dropped.
    pub done: u64,
    /// There is more of it that could be done now.
    pub more: bool,
    /// For `ExpireVersions`: go on behind this inode; 0: begin again.
    pub next: Inode,
}
