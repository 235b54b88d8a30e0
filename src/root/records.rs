//! Pure: the root group's records and their keys.

use crate::codec;
use crate::types::{ClusterId, NodeId, ReplicaId, ShardTime, WallTime};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub(super) const CLUSTER: u8 = 1;
pub(super) const NODES: u8 = 2;
pub(super) const TICKET_KEYS: u8 = 3;
pub(super) const CA: u8 = 4;
pub(super) const TOKENS: u8 = 5;
pub(super) const USERS: u8 = 6;
pub(super) const EPOCHS: u8 = 7;

/// The cluster as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    pub id: ClusterId,
    pub created: WallTime,
    /// What the root group's `apply` may do.
    pub state_machine: u32,
    /// The root group's time.
    pub time: ShardTime,
    /// Version of the view.
    pub view: u64,
    /// The next node to join gets this.
    pub next_node: NodeId,
    /// The next replica of any group gets this.
    pub next_replica: ReplicaId,
}

/// The CA: its certificate for everybody, its key for those who can open it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaRecord {
    /// DER.
    pub certificate: Bytes,
    /// The whole CA, sealed; opened with the key in the directories of the root group's members.
    pub sealed: Bytes,
}

/// A key that chunk tickets are made with, shared by all nodes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketKey {
    pub epoch: u64,
    pub key: [u8; 32],
    /// Time of the root group at which it was made.
    pub made: ShardTime,
}

impl std::fmt::Debug for TicketKey {
    /// Keys do not go into logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TicketKey({})", self.epoch)
    }
}

/// Whom a token lets in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    Node,
    User {
        name: String,
        group: String,
        admin: bool,
    },
}

/// A token that was given out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    pub id: u64,
    /// Hash of its secret.
    pub secret: [u8; 32],
    pub role: Role,
    pub expires: ShardTime,
    pub spent: Option<Spent>,
}

/// What a token was spent on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    /// Hash of the key.
    pub key: [u8; 32],
    /// The node that joined; `None`: a user.
    pub node: Option<NodeId>,
}

/// A user who was let in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserRecord {
    pub name: String,
    pub group: String,
    pub admin: bool,
    /// Certificates given.
    pub certificates: u64,
    /// None of them is good any more.
    pub revoked: bool,
}

pub(super) fn key(table: u8, number: u64) -> Bytes {
    [&[table][..], &number.to_be_bytes()].concat().into()
}

pub(super) fn user_key(name: &str) -> Bytes {
    [&[USERS][..], name.as_bytes()].concat().into()
}

pub(super) fn single(table: u8) -> Bytes {
    Bytes::copy_from_slice(&[table])
}

pub(super) fn encoded<T: Serialize>(value: &T) -> Option<Bytes> {
    Some(codec::encode(value).into())
}
