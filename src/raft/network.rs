//! One replica's way to the others: openraft's messages and images over a [`PeerTransport`].
//! Called by openraft only; built by `RaftGroup::start`. Retries are openraft's, after its pauses.
//!
//! What openraft hands out as a snapshot is a position and its members. When it wants one sent,
//! the image is cut then, and is as of a newer entry. The receiver installs it under its own mark;
//! the leader goes on behind the position that openraft knows, and the receiver says yes to
//! entries that it has. An image is expensive: it is offered before it is cut.

use super::barrier::Asking;
use super::image::Parcel;
use super::kinds::{Host, LogId, Types, Vote, log_id_if_any};
use super::message::{Answer, Ask, Envelope, ImageHead};
use super::sends::{Sending, Sends};
use super::{CutImage, PeerTransport, Route, StateMachine, Urgency};
use crate::codec;
use crate::error::{Error, Result};
use crate::types::{GroupId, ReplicaId};
use bytes::Bytes;
use futures::future::{Either, select};
use openraft::OptionalSend;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::type_config::alias::SnapshotOf;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

/// How long entries may be on their way and into the receiver's log. openraft's own figure is
/// one heartbeat: a slow disk would make the leader send the same entries again and again.
/// Heartbeats have a way of their own and keep theirs.
const APPEND_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the answer to an offer may take.
const OFFER_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause after the first image that could not be sent; twice as long after each further one. An
/// image that cannot be taken (a full disk) must not be cut over and over.
const IMAGE_PAUSE: Duration = Duration::from_millis(500);
/// Longest such pause.
const IMAGE_PAUSE_MAX: Duration = Duration::from_secs(30);
/// A leader that was just elected waits this long for an entry of its own to be applied before it
/// cuts an image: such an image is newer than anything its receiver can have. Without a majority
/// none may ever be; the image is right then too.
const OWN_ENTRY_WITHIN: Duration = Duration::from_secs(1);
/// How often it looks.
const OWN_ENTRY_POLL: Duration = Duration::from_millis(10);

type RpcResult<T> = Result<T, RPCError<Types>>;
type ImageResult<T> = Result<T, StreamingError<Types>>;

/// Makes the ways to the other replicas.
#[derive(Clone)]
pub(super) struct Links {
    group: GroupId,
    from: ReplicaId,
    transport: Arc<dyn PeerTransport>,
    /// Images are cut from it.
    state: Arc<dyn StateMachine>,
    asking: Asking,
    sends: Arc<Sends>,
}

impl Links {
    pub(super) fn new(
        (group, from): (GroupId, ReplicaId),
        transport: Arc<dyn PeerTransport>,
        state: Arc<dyn StateMachine>,
        asking: Asking,
        sends: Arc<Sends>,
    ) -> Self {
        Links {
            group,
            from,
            transport,
            state,
            asking,
            sends,
        }
    }

    fn link(&self, to: u64, host: &Host, kind: Kind) -> Link {
        Link {
            links: self.clone(),
            route: Route {
                node: host.0,
                group: self.group,
                from: self.from,
                to: ReplicaId(to),
            },
            kind,
            acknowledged: None,
            reported: false,
        }
    }
}

impl RaftNetworkFactory<Types> for Links {
    type Network = Link;

    async fn new_client(&mut self, to: u64, host: &Host) -> Link {
        self.link(to, host, Kind::Entries)
    }

    async fn new_heartbeat_client(&mut self, to: u64, host: &Host) -> Link {
        self.link(to, host, Kind::Heartbeats)
    }

    async fn new_snapshot_client(&mut self, to: u64, host: &Host) -> Link {
        // Whatever is cut later holds at least this.
        let from = self.state.folded().position.index.0;
        let image = Kind::Image {
            failed: 0,
            sending: self.sends.begin(ReplicaId(to), from),
        };
        self.link(to, host, image)
    }
}

/// What a way is for.
enum Kind {
    /// Entries, votes, transfers.
    Entries,
    Heartbeats,
    /// One image, tried until it is there.
    Image {
        /// Tries that broke off since the image began to be cut.
        failed: u32,
        sending: Sending,
    },
}

/// The way to one replica, for one leadership.
pub(super) struct Link {
    links: Links,
    route: Route,
    kind: Kind,
    /// The last entry that the replica said is durable there.
    acknowledged: Option<LogId>,
    /// That it took this back was logged: once is enough.
    reported: bool,
}

impl Link {
    fn envelope(&self, ask: Ask) -> Bytes {
        let Route {
            group, from, to, ..
        } = self.route;
        let envelope = Envelope {
            group,
            from,
            to,
            ask,
        };
        codec::encode(&envelope).into()
    }

    async fn ask(&self, ask: Ask, timeout: Duration) -> RpcResult<Answer> {
        let urgency = match self.kind {
            Kind::Heartbeats if !self.links.asking.now() => Urgency::Heartbeat,
            _ => Urgency::Now,
        };
        let message = self.envelope(ask);
        let call = (self.links.transport).call(self.route, urgency, message, timeout);
        // The transport has the deadline as well; this one holds if it forgets.
        let reply = match tokio::time::timeout(timeout, call).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(error)) => return Err(Unreachable::from_string(error).into()),
            Err(_) => {
                let to = self.route.to;
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
                let Route {
                    node, group, to, ..
                } = self.route;
                let text = format!(
                    "replica {to} of group {group} on node {node} has lost log entries that it \
                     acknowledged"
                );
                self.links.sends.note_lossy(to);
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

/// Images.
impl Link {
    /// Offers, cuts and sends an image that holds at least what is up to `least`; what the
    /// receiver's vote is then.
    async fn send_image(&mut self, vote: Vote, least: Option<LogId>) -> ImageResult<Vote> {
        let offered = self.ask(Ask::Offer((&vote).into()), OFFER_TIMEOUT).await?;
        let offered = match offered {
            Answer::Offer(offered) => offered,
            other => return Ok(unexpected(&other)?),
        };
        let theirs = Vote::from(offered.vote);
        if theirs > vote {
            return Ok(theirs);
        }
        if log_id_if_any(offered.folded).map(|id| id.index) >= least.map(|id| id.index) {
            // It is there: the answer to an earlier try was lost.
            return Ok(vote);
        }
        if offered.busy {
            return Err(not_now("the replica is taking another image"));
        }
        self.own_entry(vote).await;
        let image = match self.links.state.cut_image().await {
            Ok(image) => image,
            Err(error) => {
                self.note(false);
                return Err(not_now(error));
            }
        };
        let at = log_id_if_any(image.mark.position);
        if at < least {
            return Err(not_now("the image is older than the last fold"));
        }
        if at.is_some_and(|at| at.leader_id > vote.leader_id) {
            // Somebody else leads, and some of its entries are applied here already.
            return Err(ReplicationClosed::new("not the leader any more").into());
        }
        let sent = self.send(vote, &image).await;
        self.note(sent.is_ok());
        sent
    }

    /// Notes how a try at an image ended.
    fn note(&mut self, sent: bool) {
        if let Kind::Image { failed, sending } = &mut self.kind {
            *failed = if sent { 0 } else { *failed + 1 };
            if !sent {
                sending.note_failure();
            }
        }
    }

    async fn send(&self, vote: Vote, image: &CutImage) -> ImageResult<Vote> {
        let head = self.envelope(Ask::Image(ImageHead {
            vote: (&vote).into(),
            position: image.mark.position,
            members: image.mark.members.clone(),
        }));
        let sent = (self.links.transport).send_image(self.route, head, image);
        let reply = sent.await.map_err(not_now)?;
        match codec::decode(&reply).map_err(not_now)? {
            Answer::Image(theirs) => Ok(theirs.into()),
            other => Ok(unexpected(&other)?),
        }
    }

    async fn own_entry(&self, vote: Vote) {
        let mut waited = Duration::ZERO;
        while waited < OWN_ENTRY_WITHIN
            && self.links.state.applied().position.term < vote.leader_id.term
        {
            tokio::time::sleep(OWN_ENTRY_POLL).await;
            waited += OWN_ENTRY_POLL;
        }
    }

    /// How long to wait before an image is cut again.
    fn pause(&self) -> Duration {
        match self.kind {
            Kind::Image { failed, .. } if failed > 0 => {
                let doubled = 1u32.checked_shl(failed - 1).unwrap_or(u32::MAX);
                IMAGE_PAUSE.saturating_mul(doubled).min(IMAGE_PAUSE_MAX)
            }
            _ => Duration::ZERO,
        }
    }
}

/// Not this time; openraft tries again after a pause.
fn not_now(why: impl Into<Why>) -> StreamingError<Types> {
    Unreachable::from_string(why.into().0).into()
}

/// A reason in words.
struct Why(String);

impl From<&str> for Why {
    fn from(text: &str) -> Self {
        Why(text.to_owned())
    }
}

impl From<Error> for Why {
    fn from(error: Error) -> Self {
        Why(error.to_string())
    }
}

fn unexpected<T>(answer: &Answer) -> RpcResult<T> {
    let text = format!("an answer to another question ({answer:?})");
    Err(NetworkError::from_string(text).into())
}

impl RaftNetworkV2<Types> for Link {
    type SnapshotData = Parcel;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> RpcResult<AppendEntriesResponse<Types>> {
        let timeout = match self.kind {
            Kind::Heartbeats => option.soft_ttl(),
            _ => option.soft_ttl().max(APPEND_TIMEOUT),
        };
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

    /// Sends an image of what is applied here now, unless openraft cancels it: this replica leads
    /// no more, or the receiver is no member any more.
    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf<Types, Parcel>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> ImageResult<SnapshotResponse<Types>> {
        let (to, pause) = (self.route.to, self.pause());
        let sent = async {
            tokio::time::sleep(pause).await;
            self.send_image(vote, snapshot.meta.last_log_id).await
        };
        let outcome = match select(pin!(sent), pin!(cancel)).await {
            Either::Left((sent, _)) => sent,
            Either::Right((closed, _)) => return Err(closed.into()),
        };
        if let Err(error) = &outcome {
            tracing::debug!(group = %self.links.group, %to, %error, "an image was not sent");
        }
        Ok(SnapshotResponse::new(outcome?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::group::SEED;
    use crate::raft::kinds::log_id;
    use crate::raft::model_tests::{GROUP, Journal, Switchboard, node};
    use crate::store::wal::LogPosition;
    use crate::types::LogIndex;
    use AppendEntriesResponse as R;

    fn at(index: u64) -> Option<LogId> {
        Some(log_id(LogPosition {
            index: LogIndex(index),
            ..SEED
        }))
    }

    fn links() -> Links {
        Links::new(
            (GROUP, ReplicaId(1)),
            Arc::new(Switchboard::default()),
            Journal::seeded(&[(ReplicaId(1), node(1))]),
            Asking::default(),
            Arc::default(),
        )
    }

    #[test]
    fn an_image_that_cannot_be_sent_is_cut_again_after_longer_and_longer_pauses() {
        let links = links();
        let pauses: Vec<u64> = [0, 1, 2, 6, 7, 60]
            .into_iter()
            .map(|failed| {
                let sending = links.sends.begin(ReplicaId(2), 1);
                let link = links.link(2, &Host(node(2)), Kind::Image { failed, sending });
                link.pause().as_millis() as u64
            })
            .collect();
        assert_eq!(pauses, [0, 500, 1_000, 16_000, 30_000, 30_000]);
    }

    #[test]
    fn a_replica_that_takes_back_what_it_acknowledged_is_refused() {
        let mut link = links().link(2, &Host(node(2)), Kind::Entries);
        link.check(at(9), at(9), &R::Conflict).unwrap();
        link.check(at(4), at(7), &R::Success).unwrap();
        link.check(at(7), at(9), &R::PartialSuccess(at(8))).unwrap();
        link.check(at(9), at(9), &R::Conflict).unwrap();
        assert!(link.check(at(8), at(9), &R::Conflict).is_err());
        assert!(link.check(at(3), at(3), &R::Conflict).is_err());
        link.check(at(8), at(9), &R::Success).unwrap();
    }
}
