//! Raft's messages over the connections between nodes. One message carries what waited for the
//! same node; heartbeats of all groups wait a little for each other and travel together.

use super::images;
use super::peers::{Peers, odd};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::limits::{MIB, RAFT_MESSAGES_MAX};
use crate::proto::{PeerAnswer, PeerCall, RaftMessage};
use crate::raft::{CutImage, PeerTransport, Route, Urgency};
use crate::types::NodeId;
use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Turns of Raft's own thread for which heartbeats wait for others to the same node: all groups
/// that lead have theirs sent in the same turn, and each takes a few steps to come here. No time:
/// a reader whose question comes while one is on its way waits for its answer.
const HEARTBEATS_TURNS: usize = 2;
/// Bytes of one message between nodes: below a frame's limit with one more entry.
const GATHERED_BYTES_MAX: usize = 4 * MIB as usize;
/// Messages to one node that wait; beyond it the sender is told that the node is not reachable.
const QUEUED_MAX: usize = 4_096;
/// Messages on their way to one node at once: appends of different groups wait for different
/// disks.
const IN_FLIGHT_MAX: usize = 64;

type Answer = oneshot::Sender<Result<Bytes>>;

struct Waiting {
    message: RaftMessage,
    timeout: Duration,
    answer: Answer,
}

/// The queues to one node.
#[derive(Clone)]
struct Queues {
    now: mpsc::Sender<Waiting>,
    heartbeats: mpsc::Sender<Waiting>,
}

/// [`PeerTransport`] over [`Peers`].
pub struct Transport {
    env: Env,
    raft_env: Env,
    peers: Arc<Peers>,
    queues: Mutex<BTreeMap<NodeId, Queues>>,
}

impl Transport {
    /// `env` runs its tasks; those that gather heartbeats run beside Raft's own, by `raft_env`.
    /// Those that send must not: they do the work of whole connections.
    pub fn new(env: Env, raft_env: Env, peers: Arc<Peers>) -> Arc<Transport> {
        Arc::new(Transport {
            env,
            raft_env,
            peers,
            queues: Mutex::default(),
        })
    }

    fn queues(&self, node: NodeId) -> Queues {
        let mut all = self.queues.lock();
        let made = all.entry(node).or_insert_with(|| Queues {
            now: self.queue(node, Urgency::Now),
            heartbeats: self.queue(node, Urgency::Heartbeat),
        });
        made.clone()
    }

    fn queue(&self, node: NodeId, kind: Urgency) -> mpsc::Sender<Waiting> {
        let (send, receive) = mpsc::channel(QUEUED_MAX);
        let home = match kind {
            Urgency::Now => &self.env,
            Urgency::Heartbeat => &self.raft_env,
        };
        let envs = [self.env.clone(), home.clone()];
        let carry = carry(envs, self.peers.clone(), node, kind, receive);
        home.spawn.spawn("raft messages", Box::pin(carry));
        send
    }
}

impl PeerTransport for Transport {
    fn call(
        &self,
        route: Route,
        urgency: Urgency,
        message: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<Bytes>> {
        Box::pin(async move {
            let Route {
                node, group, to, ..
            } = route;
            let queues = self.queues(node);
            let queue = match urgency {
                Urgency::Now => queues.now,
                Urgency::Heartbeat => queues.heartbeats,
            };
            let (answer, receive) = oneshot::channel();
            let message = RaftMessage {
                group,
                to,
                bytes: message,
            };
            let waiting = Waiting {
                message,
                timeout,
                answer,
            };
            let full = |_| Error::unavailable(format!("too many messages wait for node {node}"));
            queue.try_send(waiting).map_err(full)?;
            let dropped = |_| Error::unavailable("the node is stopping");
            receive.await.map_err(dropped)?
        })
    }

    fn send_image<'a>(
        &'a self,
        route: Route,
        head: Bytes,
        image: &'a CutImage,
    ) -> BoxFuture<'a, Result<Bytes>> {
        let file = &image.file;
        Box::pin(images::send(&self.env, &self.peers, route, head, file))
    }
}

/// Takes what waits for one node and has it sent by `env`, until the transport is gone. Who waits
/// for answers lives at `home`, like this.
async fn carry(
    [env, home]: [Env; 2],
    peers: Arc<Peers>,
    node: NodeId,
    kind: Urgency,
    mut queue: mpsc::Receiver<Waiting>,
) {
    let in_flight = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
    let turns = match kind {
        Urgency::Now => 0,
        Urgency::Heartbeat => HEARTBEATS_TURNS,
    };
    while let Some(first) = queue.recv().await {
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
        let permit = in_flight.clone().acquire_owned().await;
        let permit = permit.expect("never closed");
        let mut bytes = first.message.bytes.len();
        let mut batch = vec![first];
        while batch.len() < RAFT_MESSAGES_MAX
            && bytes < GATHERED_BYTES_MAX
            && let Ok(more) = queue.try_recv()
        {
            bytes += more.message.bytes.len();
            batch.push(more);
        }
        let sending = send(env.clone(), peers.clone(), node, kind, batch);
        let sending = async move {
            sending.await;
            drop(permit);
        };
        home.spawn.spawn("raft messages", Box::pin(sending));
    }
}

/// Sends a batch and hands out the answers. Heartbeats are asked for by a task of `env`, so that
/// their answers, however many there are, wake Raft's thread once.
async fn send(env: Env, peers: Arc<Peers>, node: NodeId, kind: Urgency, batch: Vec<Waiting>) {
    let timeout = batch.iter().map(|waiting| waiting.timeout).max();
    let timeout = timeout.unwrap_or_default();
    let mut messages = Vec::with_capacity(batch.len());
    let mut answers = Vec::with_capacity(batch.len());
    for waiting in batch {
        messages.push(waiting.message);
        answers.push(waiting.answer);
    }
    let call = match kind {
        Urgency::Now => PeerCall::Raft(messages),
        Urgency::Heartbeat => PeerCall::Heartbeats(messages),
    };
    let answered = match kind {
        Urgency::Now => peers.call(node, &call, timeout).await,
        Urgency::Heartbeat => {
            let (answered, answer) = oneshot::channel();
            let asking = async move {
                // Whoever waits gives up only with its runtime.
                let _ = answered.send(peers.call(node, &call, timeout).await);
            };
            env.spawn.spawn("heartbeats", Box::pin(asking));
            let stopping = |_| Err(Error::unavailable("the node is stopping"));
            answer.await.unwrap_or_else(stopping)
        }
    };
    let failed = match answered {
        Ok(PeerAnswer::Raft(replies)) if replies.len() == answers.len() => {
            for (answer, reply) in answers.into_iter().zip(replies) {
                let missing = || Error::unavailable(format!("no such replica on node {node}"));
                // Whoever gave up waiting needs no answer.
                let _ = answer.send(reply.ok_or_else(missing));
            }
            return;
        }
        Ok(other) => odd(&other),
        Err(error) => error,
    };
    for answer in answers {
        let _ = answer.send(Err(failed.clone()));
    }
}
