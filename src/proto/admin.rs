//! What administrators ask of a cluster, and what it answers. Append variants, never reorder.

use crate::error::Error;
use crate::types::{ChunkHash, DfsPath, GroupId, NodeId};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AdminCall {
    /// A token that lets one node or one user in.
    CreateToken {
        role: TokenRole,
        /// For how long it may be used, milliseconds.
        ttl_ms: u64,
    },
    Nodes,
    /// Takes a node's share of chunks and its replicas away, so that it can be removed.
    Drain(NodeId),
    /// Takes a drain back.
    Undrain(NodeId),
    /// Takes a node out for ever: it is never let in again.
    Remove {
        node: NodeId,
        /// Even if it holds the only copy of something.
        force: bool,
    },
    /// A node's share of chunks, in units of capacity.
    Weight {
        node: NodeId,
        weight: u32,
    },
    /// The ring: who holds how much.
    Ring,
    /// The owners of a file's chunks.
    Locate(DfsPath),
    /// What joining nodes of these weights would move.
    Plan(Vec<u32>),
    /// Verifies every stored chunk; with `now` at once, else tells how far it is.
    Scrub {
        now: bool,
    },
    /// How far repair is.
    Repair,
    Users,
    /// Revokes everything a user was given.
    RemoveUser(String),
}

/// Whom a token lets in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TokenRole {
    Node,
    User {
        name: String,
        group: String,
        admin: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AdminAnswer {
    /// The token, and the addresses to use it at.
    Token {
        token: String,
        addresses: Vec<String>,
    },
    Nodes(Vec<MemberView>),
    /// Done, or under way; in words what comes next.
    Done(String),
    Ring(RingView),
    Located(Vec<LocatedChunk>),
    Plan(PlanView),
    Scrub(FromAll<ScrubView>),
    Repair(FromAll<RepairView>),
    Users(Vec<UserView>),
}

/// What the members of the cluster answered to one question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FromAll<T> {
    pub told: Vec<T>,
    /// Those that did not answer, offline ones too, and why.
    pub silent: Vec<(NodeId, Error)>,
}

/// A node as the cluster knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberView {
    pub node: NodeId,
    pub address: String,
    pub zone: String,
    pub rack: String,
    pub version: String,
    /// `online`, `offline`, `draining`, `drained`, `removed`.
    pub state: String,
    /// Units of capacity; 0: holds no chunks.
    pub weight: u32,
    /// Milliseconds since it was last heard; `None`: never since the root group's leader began.
    pub silent_ms: Option<u64>,
    /// Groups it has a replica of.
    pub groups: Vec<GroupId>,
    pub disk_total: u64,
    pub disk_available: u64,
    pub chunks: u64,
    pub chunk_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingView {
    /// Open epochs, the newest first.
    pub epochs: Vec<u64>,
    pub shares: Vec<ShareView>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareView {
    pub node: NodeId,
    pub weight: u32,
    /// Millionths of all copies.
    pub share: u32,
    /// Millionths that would be fair by weight, as zones allow.
    pub fair: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocatedChunk {
    pub hash: ChunkHash,
    pub len: u32,
    pub owners: Vec<NodeId>,
    /// Of the owners, those that have it.
    pub present: Vec<NodeId>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanView {
    pub shares: Vec<ShareView>,
    /// Millionths of all copies that would move.
    pub moved: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubView {
    pub node: NodeId,
    /// Chunks verified in the run that is under way, or in the last one.
    pub verified: u64,
    pub chunks: u64,
    pub damaged: u64,
    pub running: bool,
}

/// One node's view of what it should hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairView {
    pub node: NodeId,
    /// Chunks it should hold, by the last whole count.
    pub wanted: u64,
    /// Of these, missing.
    pub missing: u64,
    /// Missing that no node gave.
    pub lost: u64,
    /// Held without need.
    pub surplus: u64,
    pub copied: u64,
    pub copied_bytes: u64,
    /// Milliseconds since the last whole count; `None`: none yet.
    pub counted_ms_ago: Option<u64>,
    pub running: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserView {
    pub name: String,
    pub group: String,
    pub admin: bool,
    pub certificates: u64,
    pub revoked: bool,
}
