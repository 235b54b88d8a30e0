//! Letting somebody in: a token is spent, a certificate signed. The request may come to any node,
//! which hands it to the leader of the root group.

use super::Node;
use super::service::reply_frame;
use crate::cluster::{ADMIN_DAYS, NODE_DAYS, join_secret_hash, request_key_hash};
use crate::codec;
use crate::error::{Code, Error, Result};
use crate::limits::{NODES_TOLD_MAX, REQUEST_TIMEOUT};
use crate::net::Stream;
use crate::proto::{
    JoinAnswer, JoinRequest, JoinWhat, Joined, Life, NodeAddress, NodeInfo, NodeState, PeerAnswer,
    PeerCall,
};
use crate::root::{Role, RootCommand, RootDone};
use crate::types::{NodeId, Subject};
use std::sync::Arc;

/// One stream of somebody without a certificate.
pub(super) async fn serve(node: Arc<Node>, stream: &mut Stream) -> Result<()> {
    let Some(frame) = stream.recv_frame().await? else {
        return Ok(());
    };
    let answer = match codec::decode::<JoinRequest>(&frame) {
        Ok(request) => node.join(request).await,
        Err(error) => {
            let why = format!("the request cannot be read ({})", error.message);
            JoinAnswer::Failed(Error::usage(why))
        }
    };
    let too_long = |error| codec::encode(&JoinAnswer::Failed(error));
    reply_frame(stream, codec::encode(&answer), too_long).await
}

impl Node {
    async fn join(self: &Arc<Self>, request: JoinRequest) -> JoinAnswer {
        if self.leading_root().is_some() {
            return self.join_here(request).await;
        }
        match self
            .ask_root(&PeerCall::Join(request), REQUEST_TIMEOUT)
            .await
        {
            Ok(PeerAnswer::Join(answer)) => answer,
            Ok(other) => JoinAnswer::Failed(super::peers::odd(&other)),
            Err(error) => JoinAnswer::Failed(self.peers.told(error)),
        }
    }

    /// On the leader of the root group.
    pub(super) async fn join_here(self: &Arc<Self>, request: JoinRequest) -> JoinAnswer {
        match self.let_in(request).await {
            Ok(joined) => JoinAnswer::Joined(joined),
            Err(error) => JoinAnswer::Failed(error),
        }
    }

    async fn let_in(self: &Arc<Self>, request: JoinRequest) -> Result<Joined> {
        let root = self.must_lead_root()?;
        // First: a token is spent and a node is known by what comes next.
        self.authority()?;
        let key = request_key_hash(&request.request)?;
        let node = match request.what {
            JoinWhat::User => None,
            JoinWhat::Node {
                address,
                zone,
                rack,
                weight,
                version,
            } => Some(NodeInfo {
                node: NodeId(0),
                address,
                zone,
                rack,
                life: Life::default(),
                version,
                weight,
                state: NodeState::Member,
            }),
        };
        let spend = RootCommand::SpendToken {
            token: request.token,
            secret: join_secret_hash(request.token, &request.secret),
            key,
            node,
        };
        let (node, subject, days) = match root.propose(spend).await? {
            RootDone::Joined(node) => (Some(node), Subject::Node(node), NODE_DAYS),
            RootDone::User(Role::User { name, group, admin }) => {
                (None, Subject::user(&name, &group, admin)?, ADMIN_DAYS)
            }
            other => return Err(Error::failed(format!("a token gave {other:?}"))),
        };
        let certificate = self.sign(&request.request, &subject, days, &[])?;
        let view = root.cluster_view()?;
        let ca = view.ca.to_vec();
        let cluster = view.cluster;
        self.take_view(view).await?;
        self.beat_now.notify_one();
        Ok(Joined {
            cluster,
            node,
            certificate,
            ca,
            nodes: self.told_nodes(),
        })
    }

    /// Addresses to tell others: this node's first, then others that are there.
    pub(super) fn told_nodes(&self) -> Vec<NodeAddress> {
        let view = self.views.now();
        let own = NodeAddress {
            node: self.id,
            address: self.address.clone(),
        };
        let others = view
            .members()
            .filter(|node| node.node != self.id && !node.address.is_empty())
            .map(|node| NodeAddress {
                node: node.node,
                address: node.address.clone(),
            });
        std::iter::once(own)
            .chain(others)
            .take(NODES_TOLD_MAX)
            .collect()
    }
}

/// # Errors
/// `usage` when a name cannot stand in a certificate.
pub(super) fn role_of(role: crate::proto::TokenRole) -> Result<Role> {
    match role {
        crate::proto::TokenRole::Node => Ok(Role::Node),
        crate::proto::TokenRole::User { name, group, admin } => {
            let subject = Subject::user(&name, &group, admin)
                .map_err(|error| Error::new(Code::Usage, error.message))?;
            match subject {
                Subject::User { name, group, admin } => Ok(Role::User { name, group, admin }),
                Subject::Node(_) => Err(Error::usage("not a user")),
            }
        }
    }
}
