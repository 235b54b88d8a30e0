//! What nodes say to each other, on `dfs-node/1` only: one call a stream. Append variants, never
//! reorder.
//!
//! ```text
//! control:    N → N  frame(PeerCall)                      N → N  frame(PeerAnswer)
//! put chunk:  N → N  frame(PeerCall::PutChunk) raw bytes  N → N  frame(PeerAnswer)
//! get chunk:  N → N  frame(PeerCall::GetChunk)            N → N  frame(PeerAnswer::Chunk) raw bytes
//! image:      N → N  frame(PeerCall::Image) raw bytes     N → N  frame(PeerAnswer)
//! ```

use super::admin::{RepairView, ScrubView, UserView};
use super::join::{JoinAnswer, JoinRequest};
use super::view::FsckReport;
use crate::codec;
use crate::error::Error;
use crate::limits::{HAVE_HASHES_MAX, RAFT_MESSAGES_MAX};
use crate::types::{ChunkHash, ClusterId, Epoch, GroupId, LogIndex, NodeId, ReplicaId, ShardTime};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerCall {
    /// First on each connection: which life of the node speaks, and the HOST:PORT where it is
    /// reached.
    Meet {
        life: Life,
        address: String,
    },
    /// Messages of replicas here to replicas there; answered in order.
    Raft(#[serde(deserialize_with = "codec::at_most::<_, _, RAFT_MESSAGES_MAX>")] Vec<RaftMessage>),
    /// The state of a group for a replica there; so many raw bytes follow.
    Image {
        group: GroupId,
        from: ReplicaId,
        to: ReplicaId,
        /// For `raft`.
        head: Bytes,
        len: u64,
    },
    /// I am here, and how I am: to the leader of the root group.
    Beat(Box<Beat>),
    /// The last heartbeats of all nodes: to the leader of the root group.
    Beats,
    /// The newest view of the cluster that the node has, if it is newer than this.
    View {
        known: u64,
    },
    /// An encoded command of the root group, to its leader; one entry of its log.
    Root(Bytes),
    /// Make an empty replica, to be filled by an image. In the place of `replaces`, if the node
    /// has that one.
    CreateReplica {
        group: GroupId,
        replica: ReplicaId,
        replaces: Option<ReplicaId>,
        /// Of the asker's leadership of the group.
        term: u64,
    },
    /// This replica is no member any more: forget it.
    RemoveReplica {
        group: GroupId,
        replica: ReplicaId,
    },
    /// Is this replica (still) a member? Asked of the group's leader.
    IsMember {
        group: GroupId,
        replica: ReplicaId,
    },
    /// A chunk to an owner, at first hand or for repair.
    PutChunk {
        hash: ChunkHash,
        len: u32,
        /// The newest ring epoch that the sender knows.
        epoch: Epoch,
    },
    GetChunk {
        hash: ChunkHash,
        offset: u32,
        len: u32,
    },
    /// Which of these chunks are there, with their lengths; counts as their arrival, so that they
    /// stay for the grace time.
    Hold {
        #[serde(deserialize_with = "codec::at_most::<_, _, HAVE_HASHES_MAX>")]
        hashes: Vec<ChunkHash>,
        look: Look,
    },
    /// Which of these chunks are referenced, as of a moment after this question; to the leader of
    /// the group.
    Referenced {
        group: GroupId,
        #[serde(deserialize_with = "codec::at_most::<_, _, HAVE_HASHES_MAX>")]
        hashes: Vec<ChunkHash>,
    },
    /// Referenced chunks in order of their hashes that this node should hold, from one on; to the
    /// leader of the group.
    Wanted {
        group: GroupId,
        from: ChunkHash,
        /// References looked at, at most.
        limit: u32,
        epoch: Epoch,
    },
    /// The key that opens the CA: to members of the root group, for members of the root group.
    Seal,
    /// A join that was asked for elsewhere: to the leader of the root group.
    Join(JoinRequest),
    /// A new certificate for this node: certificate signing request, DER.
    Renew {
        request: Bytes,
    },
    /// What this node knows of its share of chunks.
    Repairs,
    /// A copy that belongs there may be missing: look.
    RepairNow,
    Scrub {
        now: bool,
    },
    /// Remove chunks that nothing refers to, as soon as they may go.
    Gc,
    /// Check all records of the group's replica there.
    CheckRecords(GroupId),
    /// The same, to the leader of the group.
    LeadersRecords(GroupId),
    /// A record of the group's replica there, by its key: one that is damaged here.
    Record {
        group: GroupId,
        key: Bytes,
    },
    /// Verify stored chunks from one on, as many as fit a question.
    CheckChunks {
        from: ChunkHash,
    },
    /// Entries of a group's log that are damaged there.
    Entries {
        group: GroupId,
        from: LogIndex,
        to: LogIndex,
    },
    /// Where a group's log ends there; of one whose own end may be lost.
    LogEnd(GroupId),
    /// As `Raft`, of messages that are no use when they are old: what is not answered at once is
    /// left out, so that one replica that waits for its disk does not keep back the answers of all.
    Heartbeats(
        #[serde(deserialize_with = "codec::at_most::<_, _, RAFT_MESSAGES_MAX>")] Vec<RaftMessage>,
    ),
    /// Is there room for new data on your disk?
    HasRoom,
    /// The users that were let in: to the leader of the root group.
    Users,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerAnswer {
    Failed(Error),
    /// The life of the answering node, and the newest life of the asking one that it has heard
    /// of.
    Met {
        life: Life,
        yours: Life,
    },
    /// `None`: that replica is not there, or could not answer.
    Raft(Vec<Option<Bytes>>),
    Image(Bytes),
    Beat(BeatAnswer),
    /// Each with its age, milliseconds.
    Beats(Vec<(NodeId, u64, Beat)>),
    /// `None`: nothing newer.
    View(Option<Box<ClusterView>>),
    /// What the root group answered, encoded.
    Root(Bytes),
    Done,
    IsMember(bool),
    /// Followed by exactly so many raw bytes.
    Chunk {
        len: u32,
    },
    Held(Vec<Option<u64>>),
    Referenced {
        referenced: Vec<bool>,
        /// There are unfinished uploads in the shard.
        uploads: bool,
    },
    Wanted {
        chunks: Vec<(ChunkHash, u32)>,
        /// Where to go on; `None`: that was all.
        next: Option<ChunkHash>,
    },
    Seal([u8; 32]),
    Join(JoinAnswer),
    Renewed(Vec<u8>),
    Repairs(RepairView),
    Scrub(ScrubView),
    CheckedRecords(Box<CheckedRecords>),
    CheckedChunks(CheckedChunks),
    /// `None`: there is none.
    Record(Option<Bytes>),
    /// Term, leader, index and payload of each that is there.
    Entries(Vec<(u64, u64, LogIndex, Bytes)>),
    /// `None`: no replica of that group is there.
    LogEnd(Option<LogEnd>),
    HasRoom(bool),
    Users(Vec<UserView>),
}

/// What a replica's log knows of its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEnd {
    pub replica: ReplicaId,
    /// False: something may be lost of its own end, too.
    pub certain: bool,
    /// Term of its vote, 0 without one.
    pub vote_term: u64,
    /// Term, leader and index of the last entry, zeros without one.
    pub last: (u64, u64, LogIndex),
}

/// What a check of all records of one replica found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckedRecords {
    /// The last entry that the records show.
    pub applied: LogIndex,
    /// Hash of the state: replicas that have applied the same have the same. 0: too damaged to
    /// tell.
    pub state: u64,
    pub report: FsckReport,
}

impl CheckedRecords {
    /// They show the same entry and not the same state. Two that are too damaged to tell do not
    /// differ.
    pub fn differs(&self, other: &CheckedRecords) -> bool {
        let told = self.state != 0 && other.state != 0;
        told && self.applied == other.applied && self.state != other.state
    }
}

/// What a check of some chunks of one node found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckedChunks {
    /// So many were read.
    pub chunks: u64,
    pub bytes: u64,
    pub problems: Vec<String>,
    /// Where to go on; `None`: that was the last one.
    pub next: Option<ChunkHash>,
}

/// How closely a chunk is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Look {
    /// It is known, and no damage of it.
    Known,
    /// A large one has its file, of the right length.
    Present,
    /// And a small one is read and verified.
    Read,
}

/// One message between replicas.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaftMessage {
    pub group: GroupId,
    pub to: ReplicaId,
    pub bytes: Bytes,
}

/// One life of a node: from a start of its process to its end. Starts that the root group never
/// confirmed are one life with the next that it does.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Life {
    /// Counts the starts on its data directory. 0: none is known.
    pub start: u64,
    /// Drawn at the start: tells a copy of the directory that was started as often.
    pub nonce: u64,
}

/// What a node tells the root group's leader, once a second.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    pub life: Life,
    pub disk_total: u64,
    pub disk_available: u64,
    pub chunks: u64,
    pub chunk_bytes: u64,
    pub uptime_ms: u64,
    pub replicas: Vec<ReplicaBeat>,
    pub repair: Option<RepairView>,
    /// All chunks that the node should hold under this epoch of the ring are there.
    pub settled: Epoch,
    /// The key that opens the CA is in the node's directory.
    pub opens_ca: bool,
    /// What is damaged on the node, in words.
    pub damage: Vec<String>,
    /// What else is wrong on it, in words.
    pub reasons: Vec<String>,
}

/// One replica of the node that tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaBeat {
    pub group: GroupId,
    pub replica: ReplicaId,
    pub term: u64,
    pub applied: LogIndex,
    pub leads: bool,
    /// Of the group, if it leads: who votes, and on which node each lives.
    pub voters: Vec<(ReplicaId, NodeId)>,
    /// Those of them that vote whatever becomes of a change that is under way.
    pub settled: Vec<ReplicaId>,
    pub learners: Vec<(ReplicaId, NodeId)>,
    /// It cannot be used any more and must be replaced.
    pub broken: bool,
    /// Below the group's prefix, if it leads.
    pub entries: u64,
    pub bytes: u64,
    pub deletions: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BeatAnswer {
    /// Version of the newest view.
    pub view: u64,
    /// Nodes that were heard of within the last seconds.
    pub online: Vec<NodeId>,
    /// Nodes that have been silent for too long.
    pub offline: Vec<NodeId>,
    pub groups: Vec<GroupPlace>,
}

/// Where a group is, as far as the root group's leader has heard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupPlace {
    pub group: GroupId,
    pub prefix: String,
    pub leader: Option<NodeId>,
    pub term: u64,
    pub voters: Vec<(ReplicaId, NodeId)>,
    /// Those of them that vote whatever becomes of a change that is under way.
    pub settled: Vec<ReplicaId>,
    pub learners: Vec<(ReplicaId, NodeId)>,
    /// Replicas that must be replaced, as their nodes say.
    pub broken: Vec<ReplicaId>,
    pub applied: LogIndex,
    pub entries: u64,
    pub bytes: u64,
    pub deletions: u64,
}

impl GroupPlace {
    /// The voters that count when it is told how many may be lost.
    pub fn settled_voters(&self) -> impl Iterator<Item = &(ReplicaId, NodeId)> {
        let settled = |(replica, _): &&(ReplicaId, NodeId)| self.settled.contains(replica);
        self.voters.iter().filter(settled)
    }
}

/// What every node knows of the cluster: the root group's records without its secrets but one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterView {
    /// Grows with each change.
    pub version: u64,
    pub cluster: ClusterId,
    /// All that ever joined, by id.
    pub nodes: Vec<NodeInfo>,
    /// Open ones, the oldest first.
    pub epochs: Vec<RingEpoch>,
    /// Keys of chunk tickets, the oldest first.
    pub ticket_keys: Vec<(u64, [u8; 32])>,
    /// Users whose certificates are no good any more: name, and serials up to which; all of them
    /// for `u64::MAX`.
    pub revoked_users: Vec<String>,
    pub ca: Bytes,
    pub time: ShardTime,
}

/// Said of a node that was removed, and of a user, by whoever refuses it.
pub const REMOVED: &str = "was removed from the cluster";

/// What a node is to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum NodeState {
    Member,
    /// Its replicas and chunks are being moved away.
    Draining,
    /// Never let in again.
    Removed,
}

/// One node by its last start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    pub node: NodeId,
    /// HOST:PORT where others reach it.
    pub address: String,
    /// Failure domains; empty: not named.
    pub zone: String,
    pub rack: String,
    pub life: Life,
    /// Version of its program.
    pub version: String,
    /// Units of capacity; 0: holds no chunks.
    pub weight: u32,
    pub state: NodeState,
}

/// One epoch of the ring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingEpoch {
    pub epoch: Epoch,
    /// The weight that gets a whole node's tokens (see `ring`).
    pub base: u32,
    pub members: Vec<RingMember>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingMember {
    pub node: NodeId,
    pub weight: u32,
    pub zone: String,
    pub rack: String,
}
