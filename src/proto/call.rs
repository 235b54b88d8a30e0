//! Requests and answers. Append variants, never reorder: the position is the wire format.

use super::admin::{AdminAnswer, AdminCall};
use super::view::{
    DeletedView, EntryView, FsckReport, NodeAddress, Overview, Resolved, StatusView, VersionView,
    WhoAmI,
};
use crate::codec;
use crate::error::Error;
use crate::limits::{HAVE_HASHES_MAX, STAT_PATHS_MAX};
use crate::types::{
    Ack, ChunkHash, ContentId, DfsPath, DirVersion, FileVersion, Inode, Mac, Name, NodeId,
    ReadLevel, ShardTime, UploadId,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Call {
    /// First on each connection: who is there, routes, sizes.
    Hello {
        version: String,
    },
    /// A change: an encoded `shard::command::Request` (the codec's bytes; its user is set by the
    /// node from the certificate), for the shard that owns its paths.
    Mutate {
        shard: u64,
        request: Bytes,
        /// Copies of each chunk it refers to that must be durable before it is proposed.
        ack: Ack,
    },
    Stat {
        path: DfsPath,
        level: ReadLevel,
    },
    /// Many at once, answered at one point in time of the shard.
    StatMany {
        /// At most `STAT_PATHS_MAX`.
        #[serde(deserialize_with = "codec::at_most::<_, _, STAT_PATHS_MAX>")]
        paths: Vec<DfsPath>,
        level: ReadLevel,
    },
    List {
        path: DfsPath,
        /// Begin behind this name.
        after: Option<Name>,
        limit: u32,
        /// With attributes of each entry (`ls -l`).
        attrs: bool,
        /// Answer `NotModified` if the directory still has this version.
        known: Option<DirVersion>,
        level: ReadLevel,
    },
    /// The bytes or chunks of a file version; one manifest page a call.
    Resolve {
        path: DfsPath,
        version: Option<FileVersion>,
        page: u32,
        /// Pins the content across pages: the file's inode and content must still be these.
        pinned: Option<(Inode, FileVersion)>,
        level: ReadLevel,
    },
    Versions {
        path: DfsPath,
        level: ReadLevel,
    },
    Deleted {
        path: DfsPath,
        level: ReadLevel,
    },
    /// A ticket for writing chunks of an upload that this user has reserved.
    UploadTicket {
        parent: Inode,
        upload: UploadId,
    },
    /// Which of these chunks does the user already reference; with proofs to show to owners.
    Known {
        parent: Inode,
        upload: UploadId,
        #[serde(deserialize_with = "codec::at_most::<_, _, HAVE_HASHES_MAX>")]
        hashes: Vec<ChunkHash>,
    },
    /// Asks whether as many owners as `ack` wants have chunks, which pins them there. One proof a
    /// hash. Any node may be asked; it asks the others.
    Pin {
        ticket: Ticket,
        #[serde(deserialize_with = "codec::at_most::<_, _, HAVE_HASHES_MAX>")]
        hashes: Vec<(ChunkHash, Mac)>,
        ack: Ack,
    },
    /// One chunk to its owners: whoever takes it hands it on to the others while it arrives. Best
    /// sent to the first owner.
    PutChunk {
        ticket: Ticket,
        hash: ChunkHash,
        len: u32,
        /// Copies that must be durable before the answer.
        ack: Ack,
    },
    GetChunk {
        ticket: Ticket,
        hash: ChunkHash,
        mac: Mac,
        offset: u32,
        len: u32,
    },
    Status,
    Fsck {
        path: DfsPath,
        chunks: bool,
    },
    /// Cleans up what is deleted at once instead of after its grace time.
    Gc {
        now: bool,
    },
    /// What became of a request: (session, lane, sequence).
    OpStatus {
        session: crate::types::SessionId,
        lane: u16,
        seq: u64,
    },
    /// Server's counters, as Prometheus text.
    Metrics,
    /// Where chunks belong now: their owners in the order of preference.
    Owners {
        #[serde(deserialize_with = "codec::at_most::<_, _, HAVE_HASHES_MAX>")]
        hashes: Vec<ChunkHash>,
    },
    /// What only administrators may ask for.
    Admin(AdminCall),
    /// Asks whether as many owners as `ack` wants have chunks that were sent for this upload, and
    /// keeps them there for a while. Answered with [`Answer::Pinned`].
    Stored {
        ticket: Ticket,
        #[serde(deserialize_with = "codec::at_most::<_, _, HAVE_HASHES_MAX>")]
        hashes: Vec<ChunkHash>,
        ack: Ack,
    },
    /// [`Call::Status`] with the state of the ring.
    Overview,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    Failed(Error),
    Hello(WhoAmI),
    /// Encoded outcomes (`Vec<shard::records::Outcome>`), and the shard's time.
    Mutated {
        outcomes: Bytes,
        time: ShardTime,
        /// For each reservation that was made, in order: the right to write its chunks.
        tickets: Vec<Ticket>,
    },
    Stat(EntryView),
    StatMany(Vec<Result<EntryView, Error>>),
    List {
        dir: DirVersion,
        entries: Vec<(Name, EntryView)>,
        /// There are names behind the last one.
        more: bool,
    },
    NotModified,
    Resolved(Resolved),
    Versions(Vec<VersionView>),
    Deleted(Vec<DeletedView>),
    Ticket(Ticket),
    /// In the order asked: a proof for those the user references.
    Known(Vec<Option<Mac>>),
    /// In the order asked: here and pinned, or not.
    Pinned(Vec<bool>),
    /// Durable at so many owners by now; others may follow.
    PutChunk {
        copies: u32,
    },
    /// Followed by exactly so many raw bytes.
    Chunk {
        len: u32,
    },
    Status(StatusView),
    Fsck(FsckReport),
    /// Deletions still to be cleaned up.
    Gc {
        left: u64,
    },
    /// `None`: nothing known of it.
    OpStatus(Option<Bytes>),
    Metrics(String),
    /// In the order asked, and where these nodes are.
    Owners {
        owners: Vec<Vec<NodeId>>,
        nodes: Vec<NodeAddress>,
    },
    Admin(AdminAnswer),
    Overview(Overview),
}

/// What lets its holder read or write chunks: made by a shard's leader, checked by any owner of
/// a chunk with the key that all nodes share. A hash alone opens nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    pub right: TicketRight,
    /// The user it was made for; must be the connection's.
    pub user: String,
    /// Wall-independent expiry: shard time of the shard that made it, for the record, and the
    /// node's own monotonic check is by `key_epoch`, whose key is forgotten after two days.
    pub expires: ShardTime,
    /// Which daily key it was made with.
    pub key_epoch: u64,
    pub mac: Mac,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TicketRight {
    /// Read the chunks of this content for which a proof is shown.
    Read { inode: Inode, content: ContentId },
    /// Write any chunk for this upload, and pin those for which a proof is shown.
    Write { upload: UploadId },
}
