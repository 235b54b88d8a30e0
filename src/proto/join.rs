//! Joining: what somebody without a certificate says, on `dfs-join/1` only, and the answer. The
//! same request travels from the node that was asked to the one that can sign.

use super::view::NodeAddress;
use crate::codec;
use crate::types::{ClusterId, NodeId};
use serde::{Deserialize, Serialize};

/// Longest certificate signing request taken, bytes: one for an Ed25519 key has 200.
pub const REQUEST_BYTES_MAX: usize = 2_048;

/// One token, to be spent on one key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    pub token: u64,
    pub secret: [u8; 16],
    /// Certificate signing request: DER.
    #[serde(deserialize_with = "codec::at_most::<_, _, REQUEST_BYTES_MAX>")]
    pub request: Vec<u8>,
    pub what: JoinWhat,
}

impl std::fmt::Debug for JoinRequest {
    /// The secret never shows.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinRequest")
            .field("token", &self.token)
            .field("what", &self.what)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JoinWhat {
    Node {
        /// HOST:PORT where others will reach it.
        address: String,
        zone: String,
        rack: String,
        weight: u32,
        version: String,
    },
    User,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JoinAnswer {
    Failed(crate::error::Error),
    Joined(Joined),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    pub cluster: ClusterId,
    /// The id of the node that joined; `None` for a user.
    pub node: Option<NodeId>,
    /// DER.
    pub certificate: Vec<u8>,
    /// The CA's: DER.
    pub ca: Vec<u8>,
    pub nodes: Vec<NodeAddress>,
}
