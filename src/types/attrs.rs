//! Attributes of files and directories, and the conditions a change may carry.

use super::{ChunkHash, ContentId, FileVersion, Inode, WallTime};
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    File,
    Dir,
}

/// How many copies of a chunk must be durable before its writer is told so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ack {
    One,
    /// More than half of those that can be made now.
    #[default]
    Quorum,
    /// All that can be made now.
    All,
}

impl Ack {
    /// Of `copies` that can be made now, how many must be durable; at least 1.
    pub fn needed(self, copies: usize) -> usize {
        match self {
            Ack::One => 1,
            Ack::Quorum => copies / 2 + 1,
            Ack::All => copies.max(1),
        }
    }
}

/// Where a file version's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// No bytes.
    Empty,
    /// In the inline record of (inode, `id`).
    Inline { id: ContentId },
    /// In chunks, listed in so many manifest pages of (inode, `id`); all chunks but the last
    /// have `chunk_bytes`.
    Chunks {
        id: ContentId,
        pages: u32,
        chunk_bytes: u64,
    },
}

/// What one version of a file is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileAttrs {
    /// Bytes.
    pub size: u64,
    pub version: FileVersion,
    /// When the name was first created; kept over versions.
    pub created: WallTime,
    /// When this version was committed; never before the version it replaced.
    pub modified: WallTime,
    pub owner: String,
    pub group: String,
    /// POSIX permission bits, 12 bits.
    pub mode: u16,
    /// BLAKE3 of the whole content. Told by the client for files of more than one chunk; a file
    /// of one chunk or less is checked against it by the server.
    pub hash: ChunkHash,
    pub content: Content,
}

impl FileAttrs {
    /// Chunks that the content consists of.
    pub fn chunks(&self) -> u64 {
        match self.content {
            Content::Chunks { chunk_bytes, .. } => self.size.div_ceil(chunk_bytes.max(1)),
            Content::Empty | Content::Inline { .. } => 0,
        }
    }
}

/// What lies below a directory, the directory itself not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirTotals {
    /// Files and directories, recursively.
    pub entries: u64,
    /// Bytes of the current versions, recursively.
    pub bytes: u64,
    /// Mount points of nested shards, recursively.
    pub mounts: u64,
}

/// What must hold for a new version of a file to be committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Precondition {
    /// The name is free. The default of `put`.
    Absent,
    /// The name is a file at this version.
    Version(FileVersion),
    /// Whatever is there. Used by removals only; no commit of content carries it, so no write is
    /// dropped that its writer has not seen.
    Any,
    /// The name is this file at this version: what a writer sends that read the file first.
    /// Versions begin at 1 with each new file, so that a version alone would also fit a file
    /// that was put after the one that was read had been removed.
    Exactly { inode: Inode, version: FileVersion },
}

/// What `mv` may do to an existing target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Replacement {
    /// The target must be free. The default.
    Never,
    /// A file replaces a file, a directory an empty directory, as rename(2) does.
    Posix,
}

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReadLevel {
    #[default]
    Linearizable,
    /// Linearizable, served by a follower.
    Follower,
    /// At most this many milliseconds old.
    Bounded(u64),
    Stale,
}
