//! What reads answer: entries, listings, status. Plain data; the JSON of the command line is
//! made from these in `cmd`.

use super::call::Ticket;
use crate::types::{
    ChunkHash, ClusterId, DirTotals, DirVersion, FileAttrs, GroupId, Inode, Kind, Mac, Name,
    NodeId, ShardTime, WallTime,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileView {
    pub inode: Inode,
    pub attrs: FileAttrs,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirView {
    pub inode: Inode,
    pub version: DirVersion,
    pub owner: String,
    pub group: String,
    pub mode: u16,
    pub created: WallTime,
    pub modified: WallTime,
    pub totals: DirTotals,
}

/// One name with what it stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntryView {
    File(FileView),
    Dir(DirView),
    /// A listing without attributes: only what the entry itself says.
    Bare {
        inode: Inode,
        kind: Kind,
    },
}

impl EntryView {
    pub fn kind(&self) -> Kind {
        match self {
            EntryView::File(_) => Kind::File,
            EntryView::Dir(_) => Kind::Dir,
            EntryView::Bare { kind, .. } => *kind,
        }
    }
}

/// Where the bytes of a file version are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    pub file: FileView,
    /// The content itself, if it is inline.
    pub inline: Option<Bytes>,
    /// One page of the manifest (empty for inline content).
    pub chunks: Vec<ChunkLocation>,
    /// What to show to the chunks' owners; its right covers these chunks.
    pub ticket: Option<Ticket>,
    /// Where the owners are.
    pub nodes: Vec<NodeAddress>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkLocation {
    pub hash: ChunkHash,
    pub len: u32,
    /// Proves that the ticket covers this chunk.
    pub mac: Mac,
    /// Nodes that may have it, the best to ask first.
    pub owners: Vec<NodeId>,
}

/// Where a node is reached.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeAddress {
    pub node: NodeId,
    /// HOST:PORT.
    pub address: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionView {
    pub attrs: FileAttrs,
    pub current: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletedView {
    pub name: Name,
    pub kind: Kind,
    pub at: ShardTime,
    /// Milliseconds of shard time until it is gone for good.
    pub left_ms: u64,
}

/// The answer to the first call on a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhoAmI {
    pub cluster: ClusterId,
    pub node: NodeId,
    /// The caller's user name as the node sees it.
    pub user: String,
    /// Version of the node's program.
    pub version: String,
    pub routes: Vec<RouteView>,
    /// Where nodes are reached: those of the routes, and some others up to
    /// `limits::NODES_TOLD_MAX`.
    pub nodes: Vec<NodeAddress>,
    /// Content up to this many bytes goes inline.
    pub inline_bytes: u64,
    pub chunk_bytes: u64,
    /// Deleted things can be brought back for so many milliseconds of shard time.
    pub grace_ms: u64,
}

/// Which shard owns a prefix, and its time for sessions that meet it now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteView {
    pub prefix: String,
    pub shard: GroupId,
    pub leader: Option<NodeId>,
    pub time: ShardTime,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusView {
    pub cluster: ClusterId,
    /// `green`, `yellow` or `red`.
    pub health: String,
    /// Why it is not green, in words.
    pub reasons: Vec<String>,
    pub nodes: Vec<NodeView>,
    pub groups: Vec<GroupView>,
}

/// A status with the state of the ring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overview {
    pub status: StatusView,
    pub ring: RingHealth,
}

/// Copies of chunks that are not as they should be, as the nodes that are heard of counted them
/// last. A chunk that belongs on three nodes and is on none counts three times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingHealth {
    /// Missing where they belong, and being made of others, or without a node to be on.
    pub under_replicated: u64,
    /// Of these, the ones without a node to be on: there are fewer nodes than copies.
    pub without_node: u64,
    /// Still where they do not belong any more.
    pub moving: u64,
    /// Missing where they belong, and no node that answers has one.
    pub lost: u64,
    /// How old the oldest of the nodes' counts is, milliseconds; `None`: some node has not counted
    /// yet.
    pub counted_ms_ago: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeView {
    pub node: NodeId,
    pub address: String,
    pub state: String,
    pub zone: String,
    pub rack: String,
    pub version: String,
    /// Bytes of the file system that holds the data directory.
    pub disk_total: u64,
    pub disk_available: u64,
    pub chunks: u64,
    pub chunk_bytes: u64,
    /// Groups this node leads.
    pub leaders: u64,
    pub uptime_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupView {
    pub group: GroupId,
    pub prefix: String,
    pub leader: Option<NodeId>,
    pub replicas: Vec<NodeId>,
    pub term: u64,
    pub applied: u64,
    pub entries: u64,
    pub bytes: u64,
    /// Deletions whose records are still being cleaned up.
    pub deletions: u64,
}

/// What `fsck` found; empty `problems` is clean.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FsckReport {
    pub dirs: u64,
    pub files: u64,
    pub versions: u64,
    pub references: u64,
    /// Copies of chunks on all nodes that were read; if they were not to be, those that are there.
    pub chunks: u64,
    pub chunk_bytes: u64,
    pub problems: Vec<String>,
}
