//! Sending changes exactly once (`shard/mod.rs`, "Exactly once"): the same bytes under the same
//! number until the shard answers or the deadline ends.

use super::ask::To;
use super::changes::path_of;
use super::core::{Client, is_passing, odd, shown};
use super::opid::OpId;
use super::options::OpIds;
use super::retry::Retry;
use super::sessions::LaneLease;
use super::under_way::OpenChange;
use crate::codec;
use crate::error::{Code, Error, Result};
use crate::limits::BATCH_ITEMS_MAX;
use crate::proto::{Answer, Call, Ticket};
use crate::shard::command::{Done, Op, Request};
use crate::shard::records::Outcome;
use crate::types::{Ack, GroupId, ShardTime};
use std::time::Duration;

/// One attempt at a change, which may carry megabytes.
const CHANGE_ATTEMPT: Duration = Duration::from_secs(10);
/// Sessions tried when the shard says that it has forgotten ours.
const SESSIONS_TRIED_MAX: u32 = 3;

/// A change that was answered.
pub(crate) struct Sent {
    pub(crate) id: OpId,
    /// One for each operation.
    pub(crate) outcomes: Vec<Outcome>,
    /// One for each reservation that was made.
    pub(crate) tickets: Vec<Ticket>,
}

impl Sent {
    /// The outcome of a request with one operation.
    pub(crate) fn one(self) -> Result<(OpId, Done)> {
        let outcome = self.outcomes.into_iter().next();
        let done = outcome.ok_or_else(|| odd("one outcome"))??;
        Ok((self.id, done))
    }
}

struct Answered {
    outcomes: Vec<Outcome>,
    tickets: Vec<Ticket>,
    /// The request was sent once only, so that the answer tells of this sending.
    first_sending: bool,
}

impl Client {
    /// Sends changes as one request.
    ///
    /// # Errors
    /// Refused or impossible as a whole; `unavailable` with `may_have_happened` when the
    /// deadline ended before it was known. What became of single operations is in the outcomes.
    pub(crate) async fn send(
        &self,
        shard: GroupId,
        ops: Vec<Op>,
        ids: &OpIds,
        step: &str,
    ) -> Result<Sent> {
        self.send_acked(shard, ops, ids, step, Ack::default()).await
    }

    /// The same for what refers to chunks: so many copies of each are demanded.
    pub(crate) async fn send_acked(
        &self,
        shard: GroupId,
        ops: Vec<Op>,
        ids: &OpIds,
        step: &str,
        ack: Ack,
    ) -> Result<Sent> {
        if ops.is_empty() || ops.len() > BATCH_ITEMS_MAX {
            return Err(Error::usage(format!(
                "a request has 1 to {BATCH_ITEMS_MAX} operations, not {}",
                ops.len()
            )));
        }
        match ids {
            OpIds::Automatic => self.send_on_a_lane(shard, ops, ack).await,
            OpIds::Given(text) => {
                let id = OpId::named(text, step)?;
                let met = match OpId::parse(text) {
                    // The session that it is of met the shard we do not know when: if the shard
                    // may have forgotten it, it must say so and not execute it again.
                    Some(_) => ShardTime(0),
                    None => self.shard_time(shard).await?,
                };
                let request = request(id, met, ops);
                let answered = self.send_request(shard, &request, ack).await?;
                let Answered {
                    outcomes, tickets, ..
                } = answered;
                Ok(Sent {
                    id,
                    outcomes,
                    tickets,
                })
            }
        }
    }

    async fn send_on_a_lane(&self, shard: GroupId, ops: Vec<Op>, ack: Ack) -> Result<Sent> {
        let mut ops = ops;
        let mut tried = 1;
        loop {
            let lease = self.lease(shard).await?;
            let id = lease.id();
            let request = request(id, lease.met(), ops);
            // An error drops the lease: whatever may still be under way keeps its number.
            let answered = self.send_request(shard, &request, ack).await?;
            let forgotten = answered.outcomes.iter().all(is_unknown);
            if forgotten && answered.first_sending && tried < SESSIONS_TRIED_MAX {
                // It was sent once and this is the answer to that: nothing was executed.
                tried += 1;
                self.core.sessions.forget(shard);
                self.core.link.refresh(shard, self.core.timeout).await?;
                ops = request.ops;
                continue;
            }
            self.core.sessions.done(lease);
            let Answered {
                outcomes, tickets, ..
            } = answered;
            return Ok(Sent {
                id,
                outcomes,
                tickets,
            });
        }
    }

    async fn send_request(&self, shard: GroupId, request: &Request, ack: Ack) -> Result<Answered> {
        let change = open_change(request).map(|change| self.core.under_way.began(change));
        let answered = self.send_until_answered(shard, request, ack).await;
        if let Some(change) = change {
            self.core.under_way.ended(change);
        }
        answered
    }

    async fn send_until_answered(
        &self,
        shard: GroupId,
        request: &Request,
        ack: Ack,
    ) -> Result<Answered> {
        let frame = codec::encode(&Call::Mutate {
            shard: shard.0,
            request: codec::encode(request).into(),
            ack,
        });
        let mut retry = Retry::within(self.core.timeout).telling();
        let mut sendings = 0u32;
        let mut open = false;
        loop {
            let limit = retry.attempt(CHANGE_ATTEMPT);
            let (asked, result) = self.attempt(To::Shard(shard), &frame, limit).await;
            let cause = match result {
                Ok(Answer::Mutated {
                    outcomes,
                    time,
                    tickets,
                }) => {
                    self.heard(shard, time);
                    let outcomes: Vec<Outcome> =
                        codec::decode(&outcomes).map_err(|e| unknown(request, e))?;
                    if outcomes.len() != request.ops.len() {
                        return Err(unknown(request, odd("one outcome an operation")));
                    }
                    return Ok(Answered {
                        outcomes,
                        tickets,
                        first_sending: sendings == 0,
                    });
                }
                Ok(Answer::Failed(error)) | Err(error) => error,
                Ok(_) => return Err(unknown(request, odd("outcomes"))),
            };
            open |= cause.may_have_happened;
            // A node that is busy, or is not the one to ask, has not looked at it.
            let looked_at = cause.may_have_happened || !cause.code.is_retryable();
            sendings = sendings.saturating_add(u32::from(looked_at));
            let last = match is_passing(&cause) {
                true => {
                    let pace = self.step_aside(asked, &cause).await;
                    retry.pause(&*self.core.env.rng, cause, pace).await
                }
                false => Err(cause),
            };
            if let Err(error) = last {
                return Err(match open {
                    true => unknown(request, error),
                    false => shown(error),
                });
            }
        }
    }

    async fn lease(&self, shard: GroupId) -> Result<LaneLease> {
        let core = &self.core;
        for _ in 0..2 {
            let now = core.env.clock.now();
            let time = core.link.routes(|routes| routes.time_of(shard, now));
            if let Some(lease) = core.sessions.lease(shard, time, now, &*core.env.rng) {
                return Ok(lease);
            }
            core.link.refresh(shard, core.timeout).await?;
        }
        Err(no_time(shard))
    }

    async fn shard_time(&self, shard: GroupId) -> Result<ShardTime> {
        let link = &self.core.link;
        for _ in 0..2 {
            let now = self.core.env.clock.now();
            if let Some(time) = link.routes(|routes| routes.time_of(shard, now)) {
                return Ok(time);
            }
            link.refresh(shard, self.core.timeout).await?;
        }
        Err(no_time(shard))
    }

    fn heard(&self, shard: GroupId, time: ShardTime) {
        let now = self.core.env.clock.now();
        self.core
            .link
            .routes(|routes| routes.heard(shard, time, now));
    }
}

fn request(id: OpId, met: ShardTime, ops: Vec<Op>) -> Request {
    Request {
        session: id.session,
        lane: id.lane,
        seq: id.seq,
        met,
        // The node writes who we are, from the certificate.
        user: String::new(),
        group: String::new(),
        held: None,
        ops,
    }
}

/// The shard does not know whether the request was executed before.
fn is_unknown(outcome: &Outcome) -> bool {
    matches!(outcome, Err(error) if error.code == Code::Unavailable && error.may_have_happened)
}

fn unknown(request: &Request, cause: Error) -> Error {
    let message = format!("not known whether it was done ({})", cause.message);
    let error = Error::unavailable(message).unknown_outcome();
    error.hint(ask_later(&id_of(request).to_string()))
}

/// How to find out what became of a change.
pub fn ask_later(op_id: &str) -> String {
    format!("ask later with `dfs op status {op_id}`")
}

fn id_of(request: &Request) -> OpId {
    OpId {
        session: request.session,
        lane: request.lane,
        seq: request.seq,
    }
}

/// What to say of a request that is under way. `None` for steps of uploads that nobody sees, and for
/// marks, which change nothing.
fn open_change(request: &Request) -> Option<OpenChange> {
    let hidden = |op: &Op| match op {
        Op::Mkdir { path, .. } => path.is_root(),
        other => matches!(
            other,
            Op::Reserve { .. } | Op::Stage { .. } | Op::Abort { .. }
        ),
    };
    let change = request.ops.iter().find(|op| !hidden(op))?;
    Some(OpenChange {
        path: path_of(change).cloned(),
        op_id: Some(id_of(request).to_string()),
    })
}

fn no_time(shard: GroupId) -> Error {
    Error::unavailable(format!("no node knows the time of shard {shard}"))
        .hint("its leader may just be changing; try again")
}
