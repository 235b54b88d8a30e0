//! One replica's way to the others: openraft's messages over a [`PeerTransport`]. Called by
//! openraft only; built by `RaftGroup::start`. Retries are openraft's, after its pauses.

use super::PeerTransport;
use super::kinds::{Host, LogId, Types, Vote};
use super::message::{Answer, Ask, Envelope};
use crate::codec;
use crate::types::{GroupId, NodeId, ReplicaId};
use openraft::OptionalSend;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::type_config::alias::SnapshotOf;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// How long entries may be on their way and into the receiver's log. openraft's own figure is
/// one heartbeat: a slow disk would make the leader send the same entries again and again.
/// Heartbeats have a way of their own and keep theirs.
const APPEND_TIMEOUT: Duration = Duration::from_secs(2);

type RpcResult<T> = Result<T, RPCError<Types>>;

/// Makes the ways to the other replicas.
#[derive(Clone)]
pub(super) struct Links {
    group: GroupId,
    from: ReplicaId,
    transport: Arc<dyn PeerTransport>,
}

impl Links {
    pub(super) fn new(group: GroupId, from: ReplicaId, transport: Arc<dyn PeerTransport>) -> Self {
        Links {
            group,
            from,
            transport,
        }
    }

    fn link(&self, to: u64, host: &Host, append_timeout: Duration) -> Link {
        Link {
            links: self.clone(),
            to: ReplicaId(to),
            node: host.0,
            append_timeout,
            acknowledged: None,
            reported: false,
        }
    }
}

impl RaftNetworkFactory<Types> for Links {
    type Network = Link;

    async fn new_client(&mut self, to: u64, host: &Host) -> Link {
        self.link(to, host, APPEND_TIMEOUT)
    }

    async fn new_heartbeat_client(&mut self, to: u64, host: &Host) -> Link {
        self.link(to, host, Duration::ZERO)
    }
}

/// The way to one replica, for one leadership.
pub(super) struct Link {
    links: Links,
    to: ReplicaId,
    node: NodeId,
    /// The least time that an append may take.
    append_timeout: Duration,
    /// The last entry that the replica said is durable there.
    acknowledged: Option<LogId>,
    /// That it took this back was logged: once is enough.
    reported: bool,
}

impl Link {
    async fn ask(&self, ask: Ask, timeout: Duration) -> RpcResult<Answer> {
        let Links {
            group,
            from,
            ref transport,
        } = self.links;
        let to = self.to;
        let message = codec::encode(&Envelope {
            group,
            from,
            to,
            ask,
        });
        let call = transport.call(self.node, group, from, to, message.into(), timeout);
        // The transport has the deadline as well; this one holds if it forgets.
        let reply = match tokio::time::timeout(timeout, call).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(error)) => return Err(Unreachable::from_string(error).into()),
            Err(_) => {
                let text = format!("replica {to} did not answer within {timeout:?}");
                return Err(Unreachable::from_string(text).into());
            }
        };
        codec::decode(&reply).map_err(|e| NetworkError::from_string(e).into())
    }

    /// Refuses an answer that takes back what was acknowledged: that replica has lost entries of
    /// its log, and must be replaced under a new id rather than counted as a copy.
    fn check(
        &mut self,
        previous: Option<LogId>,
        last: Option<LogId>,
        response: &AppendEntriesResponse<Types>,
    ) -> RpcResult<()> {
        match response {
            AppendEntriesResponse::Success => {
                self.acknowledged = self.acknowledged.max(last);
            }
            AppendEntriesResponse::PartialSuccess(upto) => {
                self.acknowledged = self.acknowledged.max(*upto);
            }
            AppendEntriesResponse::Conflict if previous <= self.acknowledged => {
                let text = format!(
                    "replica {} of group {} on node {} has lost log entries that it acknowledged",
                    self.to, self.links.group, self.node
                );
                if !std::mem::replace(&mut self.reported, true) {
                    tracing::error!(acknowledged = ?self.acknowledged, ?previous, "{text}");
                }
                return Err(Unreachable::from_string(text).into());
            }
            AppendEntriesResponse::Conflict | AppendEntriesResponse::HigherVote(_) => {}
        }
        Ok(())
    }
}

fn unexpected<T>(answer: &Answer) -> RpcResult<T> {
    let text = format!("an answer to another question ({answer:?})");
    Err(NetworkError::from_string(text).into())
}

impl RaftNetworkV2<Types> for Link {
    type SnapshotData = ();

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> RpcResult<AppendEntriesResponse<Types>> {
        let timeout = option.soft_ttl().max(self.append_timeout);
        let previous = request.prev_log_id;
        let last = request.entries.last().map(|e| e.log_id).or(previous);
        match self.ask(Ask::Append(request.into()), timeout).await? {
            Answer::Append(answer) => {
                let response = answer.into();
                self.check(previous, last, &response)?;
                Ok(response)
            }
            other => unexpected(&other),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> RpcResult<VoteResponse<Types>> {
        match (self.ask(Ask::Vote(request.into()), option.soft_ttl())).await? {
            Answer::Vote(answer) => Ok(answer.into()),
            other => unexpected(&other),
        }
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> RpcResult<VoteResponse<Types>> {
        match (self.ask(Ask::PreVote(request.into()), option.soft_ttl())).await? {
            Answer::Vote(answer) => Ok(answer.into()),
            other => unexpected(&other),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> RpcResult<TransferLeaderResponse<Types>> {
        match (self.ask(Ask::Transfer(request.into()), option.soft_ttl())).await? {
            Answer::Transfer(answer) => Ok(answer.into()),
            other => unexpected(&other),
        }
    }

    async fn full_snapshot(
        &mut self,
        _vote: Vote,
        _image: SnapshotOf<Types, ()>,
        _cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let text = format!(
            "replica {} of group {} needs entries that are no longer in the log, and images of a \
             group cannot be sent",
            self.to, self.links.group
        );
        Err(Unreachable::from_string(text).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::group::SEED;
    use crate::raft::kinds::log_id;
    use crate::raft::model_tests::{GROUP, Switchboard, node};
    use crate::store::wal::LogPosition;
    use crate::types::LogIndex;
    use AppendEntriesResponse as R;

    fn at(index: u64) -> Option<LogId> {
        Some(log_id(LogPosition {
            index: LogIndex(index),
            ..SEED
        }))
    }

    #[test]
    fn a_replica_that_takes_back_what_it_acknowledged_is_refused() {
        let board = Arc::new(Switchboard::default());
        let links = Links::new(GROUP, ReplicaId(1), board);
        let mut link = links.link(2, &Host(node(2)), APPEND_TIMEOUT);
        link.check(at(9), at(9), &R::Conflict).unwrap();
        link.check(at(4), at(7), &R::Success).unwrap();
        link.check(at(7), at(9), &R::PartialSuccess(at(8))).unwrap();
        link.check(at(9), at(9), &R::Conflict).unwrap();
        assert!(link.check(at(8), at(9), &R::Conflict).is_err());
        assert!(link.check(at(3), at(3), &R::Conflict).is_err());
        link.check(at(8), at(9), &R::Success).unwrap();
    }
}
