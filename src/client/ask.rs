//! Asking: to whom a call goes, and whom to ask next when that did not work.

use super::core::{Client, is_passing, shown};
use super::link::Live;
use super::retry::{Pace, Retry};
use crate::codec;
use crate::error::{Code, Error, Result};
use crate::proto::{Answer, Call};
use crate::types::{DfsPath, GroupId, NodeId, ReadLevel};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// One attempt at a read; then another node is asked.
const READ_ATTEMPT: Duration = Duration::from_secs(5);
/// A node that any other can stand in for is asked whether it lives after this long.
const ANY_PATIENCE: Duration = Duration::from_millis(750);

/// Who can answer a call.
#[derive(Clone, Copy, Debug)]
pub(crate) enum To<'a> {
    /// The leader of this shard alone.
    Shard(GroupId),
    /// The leader of the shard that has this path, wherever that is by then.
    Path(&'a DfsPath),
    /// Any node with a replica of that shard, as the caller does not mind older news. Nodes
    /// without one send us away, to the leader then.
    Replica(&'a DfsPath),
    /// Any node.
    Any,
}

impl<'a> To<'a> {
    /// Who may answer a read of this freshness.
    pub(crate) fn read(path: &'a DfsPath, level: ReadLevel) -> To<'a> {
        match level {
            ReadLevel::Linearizable => To::Path(path),
            _ => To::Replica(path),
        }
    }
}

/// Whom one attempt at a call went to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    /// `None`: nobody was found.
    node: Option<NodeId>,
    /// The shard whose leader this should have been.
    shard: Option<GroupId>,
}

impl Client {
    /// Asks something that changes nothing until the deadline.
    pub(crate) async fn ask(&self, to: To<'_>, call: &Call) -> Result<Answer> {
        let most = READ_ATTEMPT.min(self.core.timeout);
        self.ask_for(to, call, most).await
    }

    /// The same; one attempt takes `most` at most. See [`Client::ask_openly`].
    pub(crate) async fn ask_for(&self, to: To<'_>, call: &Call, most: Duration) -> Result<Answer> {
        // Nothing can have happened: a read changes nothing.
        let asked = self.ask_openly(to, call, most).await;
        asked.map_err(|error| Error {
            may_have_happened: false,
            ..error
        })
    }

    /// The same for what may change something, but may be done twice: an error says whether it
    /// may have happened. An attempt may take longer than the client's timeout if `most` does: as
    /// long as the node lives that works on it. Failures that may pass are put up with until the
    /// timeout only.
    pub(crate) async fn ask_openly(
        &self,
        to: To<'_>,
        call: &Call,
        most: Duration,
    ) -> Result<Answer> {
        let frame = codec::encode(call);
        let timeout = self.core.timeout;
        let mut retry = Retry::within(timeout).telling();
        let (mut to, mut open) = (to, false);
        loop {
            let limit = match most > timeout {
                true => most,
                false => retry.attempt(most),
            };
            let (asked, result) = self.attempt(to, &frame, limit).await;
            let cause = match result {
                Ok(Answer::Failed(error)) | Err(error) => error,
                Ok(answer) => return Ok(answer),
            };
            open |= cause.may_have_happened;
            if !is_passing(&cause) {
                return Err(cause);
            }
            if cause.code == Code::Redirect {
                to = match to {
                    To::Replica(path) => To::Path(path),
                    To::Any => To::Shard(GroupId::FIRST),
                    leader => leader,
                };
            }
            let pace = self.step_aside(asked, &cause).await;
            let ended = retry.pause(&*self.core.env.rng, cause, pace).await;
            ended.map_err(|error| Error {
                may_have_happened: open,
                ..shown(error)
            })?;
        }
    }

    /// Sends one frame to who can answer it, and waits for the answer as long as it makes sense.
    /// An error has `may_have_happened` when the call may have reached a node.
    pub(crate) async fn attempt(
        &self,
        to: To<'_>,
        frame: &[u8],
        most: Duration,
    ) -> (Asked, Result<Answer>) {
        let shard = match to {
            To::Shard(shard) => Some(shard),
            To::Path(path) => Some(self.shard_of(path)),
            To::Replica(_) | To::Any => None,
        };
        let leader = match shard {
            Some(shard) => self.find_leader(shard).await,
            None => None,
        };
        let mut node = leader;
        let result = match leader.zip(shard) {
            Some((leader, shard)) => self.ask_leader(leader, shard, frame, most).await,
            None => match self.core.link.any(None, most).await {
                Ok(live) => {
                    node = Some(live.node);
                    self.ask_any(&live, frame, most).await
                }
                Err(error) => Err(error),
            },
        };
        (Asked { node, shard }, result)
    }

    /// Who leads a shard, if that is known and there is a way to him. Else the other nodes were
    /// just asked and did not know either.
    async fn find_leader(&self, shard: GroupId) -> Option<NodeId> {
        let link = &self.core.link;
        if let Some(leader) = link.leader_in_reach(shard) {
            return Some(leader);
        }
        let lost = link.routes(|routes| routes.leader_of(shard));
        link.look(lost).await;
        link.confirm(shard, lost).await;
        link.leader_in_reach(shard)
    }

    async fn ask_leader(
        &self,
        leader: NodeId,
        shard: GroupId,
        frame: &[u8],
        most: Duration,
    ) -> Result<Answer> {
        let link = &self.core.link;
        let sent = AtomicBool::new(false);
        let asked = async {
            let live = link.node(leader, most).await?;
            sent.store(true, Ordering::Relaxed);
            decoded(live.call(frame, most).await)
        };
        tokio::select! {
            biased;
            answer = asked => answer,
            () = link.moved_from(shard, leader) => {
                let error = Error::unavailable(format!(
                    "node {leader} did not answer, and another leads shard {shard} now"
                ));
                Err(Error { may_have_happened: sent.into_inner(), ..error })
            }
        }
    }

    async fn ask_any(&self, live: &Arc<Live>, frame: &[u8], most: Duration) -> Result<Answer> {
        tokio::select! {
            biased;
            reply = live.call(frame, most) => decoded(reply),
            () = self.core.link.fell_silent(live, ANY_PATIENCE) => {
                Err(live.silence().unknown_outcome())
            }
        }
    }

    /// After a failure that may pass: hears who leads now, or turns to another node. Says how
    /// soon the next attempt is worth it.
    pub(crate) async fn step_aside(&self, asked: Asked, cause: &Error) -> Pace {
        let link = &self.core.link;
        let Some(node) = asked.node else {
            return Pace::Usual;
        };
        let Some(shard) = asked.shard else {
            if cause.code == Code::Redirect {
                link.sent_away(node, None).await;
            }
            return match link.turn_from(node) {
                true => Pace::AtOnce,
                false => Pace::Usual,
            };
        };
        match cause.code {
            Code::Redirect => link.sent_away(node, Some(shard)).await,
            _ => {
                link.look(Some(node)).await;
                link.confirm(shard, Some(node)).await;
            }
        }
        let leader = link.leader_in_reach(shard);
        if leader.is_some_and(|leader| leader != node) {
            return Pace::AtOnce;
        }
        match cause.code == Code::Busy || link.only_node().is_some() {
            true => Pace::Usual,
            false => Pace::Quick,
        }
    }
}

fn decoded(reply: Result<bytes::Bytes>) -> Result<Answer> {
    codec::decode(&reply?).map_err(Error::unknown_outcome)
}
