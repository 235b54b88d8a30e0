//! Pure: what a shard stores. Layouts are postcard behind `codec`'s version byte; the tables are
//! in `keys`. Golden bytes of each type stand in `testdata/golden/`.

use super::command::Done;
use crate::error::{Error, Result};
use crate::types::{
    ChunkHash, ContentId, DirTotals, DirVersion, FileAttrs, FileVersion, GroupId, Inode, Name,
    OpSeq, Precondition, Revision, ShardTime, UploadId, WallTime,
};
use serde::{Deserialize, Serialize};

/// The shard's own state. One record, changed by every command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    pub group: GroupId,
    /// What `apply` may do; raised by a command once all members know it.
    pub state_machine: u32,
    /// The directory this shard begins at.
    pub root: Inode,
    pub time: ShardTime,
    /// The newest change.
    pub revision: Revision,
    /// Inode numbers this shard may still give: `next_inode..end_inode`.
    pub next_inode: Inode,
    pub end_inode: Inode,
    /// The next content id. Above every id in the shard.
    pub next_content: ContentId,
    /// Requests of sessions that met this shard before this time are of unknown outcome when
    /// their lane row is missing.
    pub lanes_horizon: ShardTime,
    /// Rows in `lanes`.
    pub lanes: u64,
    /// Change rows at or below this revision are gone. 0: none.
    pub changes_trimmed: Revision,
    /// Bytes of values in `changes`.
    pub changes_bytes: u64,
    /// Rows in `deleted`: deletions whose records are still there.
    pub deletions: u64,
    /// Wrapping sum of the hashes of all records that hang on files (inline data, versions,
    /// manifests, references); see `sum`.
    pub contents: u64,
    /// `Chore::Cleanup` goes on behind this row of `deleted`; (0, 0): at the first.
    pub cleanup_behind: (Inode, Revision),
    /// `Chore::ExpireUploads` goes on behind this row of `uploads`.
    pub uploads_behind: (Inode, UploadId),
    pub settings: Settings,
}

/// What an administrator may set for a shard; directories override it by policy later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Largest content kept inline, bytes. 0: none.
    pub inline_bytes: u64,
    /// Chunk size told to clients, bytes.
    pub chunk_bytes: u64,
    /// Superseded versions kept at most. 0: none.
    pub keep_versions: u32,
    /// A superseded version goes after this, milliseconds of shard time.
    pub keep_for_ms: u64,
    /// Deleted things stay for this, milliseconds of shard time. 0: cleaned up at once.
    pub grace_ms: u64,
    /// Reservations without a commit go after this, milliseconds of shard time.
    pub upload_ttl_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        use crate::limits as l;
        Settings {
            inline_bytes: l::INLINE_BYTES_DEFAULT,
            chunk_bytes: l::CHUNK_BYTES_DEFAULT,
            keep_versions: l::KEEP_VERSIONS_DEFAULT,
            keep_for_ms: l::KEEP_FOR_MS_DEFAULT,
            grace_ms: l::GRACE_MS_DEFAULT,
            upload_ttl_ms: l::UPLOAD_TTL_MS_DEFAULT,
        }
    }
}

/// What a name stands for. Under 512 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// Everything else about it is in its [`DirRecord`].
    Dir { inode: Inode, born: Revision },
    File {
        inode: Inode,
        born: Revision,
        attrs: FileAttrs,
    },
    /// A directory that is the root of another shard.
    Mount {
        inode: Inode,
        born: Revision,
        shard: GroupId,
    },
}

impl Entry {
    pub fn inode(&self) -> Inode {
        match self {
            Entry::Dir { inode, .. } | Entry::File { inode, .. } | Entry::Mount { inode, .. } => {
                *inode
            }
        }
    }
}

/// A directory: everything but its names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirRecord {
    /// The shard revision that wrote this form of the attributes (not of the totals).
    pub born: Revision,
    /// Newest snapshot of this directory or of an ancestor. 0: none.
    pub snapshot: Revision,
    /// Where it hangs: for the walk to the root. The shard's root and `/` have themselves.
    pub parent: Inode,
    /// Its name there; `None` for `/`.
    pub name: Option<Name>,
    pub owner: String,
    pub group: String,
    /// POSIX permission bits.
    pub mode: u16,
    pub created: WallTime,
    /// Last change of its list of names.
    pub modified: WallTime,
    /// Counts changes of its list of names and of their attributes as `ls -l` shows them.
    pub version: DirVersion,
    pub totals: DirTotals,
    /// Wrapping sum of the hashes of its records and of everything below; see `sum`.
    pub sum: u64,
}

/// A version that is no longer the current one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OldVersion {
    pub attrs: FileAttrs,
    /// When it was superseded.
    pub superseded: ShardTime,
    /// A newer version has the same content (a restored one does); the newest that has it owns
    /// it, so dropping this row leaves the content. Rows are dropped oldest first.
    pub shared: bool,
    /// Past retention and no longer shown; its content is being dropped piece by piece.
    pub dropping: bool,
}

/// One chunk of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkRef {
    pub hash: ChunkHash,
    /// Bytes.
    pub len: u32,
}

/// Up to `MANIFEST_PAGE_REFS` chunks of a file version; only the last page has fewer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestPage {
    pub chunks: Vec<ChunkRef>,
}

/// Who references a chunk through which version: the key says; the user is needed to answer
/// "have you this chunk" honestly only to those who reference it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    pub user: String,
    /// Of the chunk: what a node that should have it asks others for.
    pub len: u32,
}

/// A reservation: invisible until its commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upload {
    pub name: Name,
    /// The file's inode: its own if it exists, else a new one.
    pub inode: Inode,
    /// The content being uploaded; its manifest pages are staged under it. Two uploads to one
    /// file never share it; the version number is given at commit.
    pub content: ContentId,
    pub precondition: Precondition,
    pub mode: u16,
    pub user: String,
    pub chunk_bytes: u64,
    /// Manifest pages staged so far (0.. contiguous).
    pub pages: u32,
    /// Expires at this shard time; each request of the upload puts it off.
    pub expires: ShardTime,
}

/// Something removed whose records still have to be cleaned up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deleted {
    pub name: Name,
    pub entry: Entry,
    pub at: ShardTime,
    /// Cleaned up from this shard time on; can be brought back before.
    pub due: ShardTime,
    pub user: String,
}

/// The last request of a lane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneRow {
    pub seq: OpSeq,
    /// XXH3-64 of the request, so that another request under the same number is noticed.
    pub digest: u64,
    /// When it was applied; its minute is the key in `lanes by age`.
    pub used: ShardTime,
    /// One for each operation of the request, in order.
    pub outcomes: Vec<Outcome>,
    /// Whose session it is. Nobody else may use its lanes or read their outcomes.
    pub user: String,
}

/// What became of one operation. Refusals are outcomes too.
pub type Outcome = std::result::Result<Done, Error>;

/// One change, for watchers: enough to say what happened where, as of its own time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeRow {
    pub time: ShardTime,
    pub wall: WallTime,
    pub user: String,
    pub change: Change,
    /// Inodes from the changed name's directory up to the shard's root.
    pub ancestors: Vec<Inode>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    MadeDir {
        name: Name,
        inode: Inode,
    },
    Wrote {
        name: Name,
        inode: Inode,
        version: FileVersion,
        size: u64,
    },
    Removed {
        name: Name,
        inode: Inode,
    },
    /// Seen from the target's directory; `from_ancestors` like `ancestors` for the source.
    Renamed {
        from: Name,
        from_ancestors: Vec<Inode>,
        to: Name,
        inode: Inode,
        /// What the target name stood for before.
        replaced: Option<Inode>,
    },
    Attributes {
        name: Option<Name>,
        inode: Inode,
    },
    /// A split or merge: where to go on. Kept for the many-shard format.
    Moved {
        inode: Inode,
        shard: GroupId,
    },
}

/// Encodes a record.
pub fn encode<T: Serialize>(record: &T) -> bytes::Bytes {
    crate::codec::encode(record).into()
}

/// Decodes a record that the store has checked already.
pub fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    crate::codec::decode(bytes)
}
