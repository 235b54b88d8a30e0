//! Pure: what the root group's log carries, and what it answers.

use super::records::{CaRecord, Role, TicketKey};
use crate::error::Error;
use crate::proto::{Life, NodeInfo, NodeState, RingMember};
use crate::types::{ClusterId, Epoch, NodeId, ReplicaId, ShardTime, WallTime};
use serde::{Deserialize, Serialize};

/// One log entry of the root group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootEntry {
    /// The leader's count of the root group's time; the state takes the maximum with its own.
    pub time: ShardTime,
    pub command: RootCommand,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RootCommand {
    /// A node has started: where it is, and which life it is.
    NodeStarted(NodeInfo),
    /// From here on tickets are made with this key; the oldest goes.
    AddTicketKey(TicketKey),
    AddToken {
        /// Drawn at random: names it.
        id: u64,
        secret: [u8; 32],
        role: Role,
        ttl_ms: u64,
    },
    /// Somebody shows a token for this key.
    SpendToken {
        token: u64,
        secret: [u8; 32],
        key: [u8; 32],
        /// What a node says of itself; its id is given here. `None`: a user.
        node: Option<NodeInfo>,
    },
    SetState {
        node: NodeId,
        state: NodeState,
    },
    SetWeight {
        node: NodeId,
        weight: u32,
    },
    RemoveUser(String),
    /// Gives out an id for a replica.
    NextReplica,
    /// A new epoch of the ring, behind this one.
    OpenEpoch {
        after: Epoch,
        base: u32,
        members: Vec<RingMember>,
    },
    /// Everything that the epochs before this one have placed elsewhere has moved.
    CloseBefore(Epoch),
    /// As `SetState`, void once the view has changed by whose version it was decided: of two nodes
    /// that could each be spared, both may not be.
    SetStateAsSeen {
        node: NodeId,
        state: NodeState,
        seen: u64,
    },
    /// As `SetWeight`, void once the view has changed by whose version it was decided: without
    /// weight a node holds no chunks.
    SetWeightAsSeen {
        node: NodeId,
        weight: u32,
        seen: u64,
    },
}

/// What a command gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RootDone {
    Nothing,
    /// The node that joined, or was joined before by the same key.
    Joined(NodeId),
    /// A user may have a certificate.
    User(Role),
    Replica(ReplicaId),
    Epoch(Epoch),
    /// The newest life of the node.
    Life(Life),
}

/// The root group's answer to a command: a refusal is an answer too.
pub type RootReply = Result<RootDone, Error>;

/// What a new cluster begins with.
#[derive(Clone, Debug)]
pub struct Seed {
    pub cluster: ClusterId,
    pub created: WallTime,
    pub ticket_key: [u8; 32],
    pub ca: CaRecord,
    /// The first node, without an address yet.
    pub node: NodeInfo,
    /// The first administrator: name and group.
    pub admin: (String, String),
    /// Replica ids that the first groups have.
    pub replicas: u64,
}
