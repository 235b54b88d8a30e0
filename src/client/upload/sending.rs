//! A chunk over a stream of its own to its first owner that works, which hands it on to the
//! others and answers when as many as were asked for have it.

use super::chunk::within;
use crate::client::core::{Client, is_passing, odd, shown};
use crate::client::link::Live;
use crate::client::retry::{Pace, Retry};
use crate::client::wire::Bulk;
use crate::codec;
use crate::error::{Code, Error, Result};
use crate::limits::MIB;
use crate::proto::{Answer, Call};
use crate::types::{ChunkHash, NodeId};
use bytes::Bytes;
use std::time::Duration;

/// Bytes handed to the stream at once: what progress and stalls are measured by.
const SEND_BYTES: usize = MIB as usize;
/// Rounds through the owners of one chunk that each got somewhere.
const ROUNDS_MAX: u32 = 32;
/// An owner that says nothing at all for this long is given up for the next one.
const SILENCE_MAX: Duration = Duration::from_secs(2);
/// One that lives but stands still has this long: it may be waiting for another owner, or for
/// its disk.
const STILL_MAX: Duration = Duration::from_secs(10);
/// How long to wait for the reason after a node stopped reading.
const REASON_TIMEOUT: Duration = Duration::from_secs(2);

impl Client {
    /// Sends a chunk until it is acknowledged. Sending twice does no harm: its name is its
    /// content.
    ///
    /// # Errors
    /// `no_space` when no owner has room.
    pub(super) async fn put_chunk(
        &self,
        hash: ChunkHash,
        call: &Call,
        bytes: Bytes,
        moved: &(dyn Fn(u64) + Sync),
    ) -> Result<()> {
        let timeout = self.core.timeout;
        let mut retry = Retry::within(timeout);
        let mut sending = Sending {
            client: self,
            frame: codec::encode(call),
            bytes,
            moved,
            reported: 0,
            farthest: 0,
            advanced: false,
        };
        let mut owners = self.owners_of(hash, false).await?;
        loop {
            let cause = match sending.round(&owners).await {
                Err(error) if is_passing(&error) => error,
                ended => return ended,
            };
            if retry.failures >= ROUNDS_MAX {
                return Err(shown(cause));
            }
            if std::mem::take(&mut sending.advanced) {
                retry.progressed(timeout);
            }
            let ended = retry.pause(&*self.core.env.rng, cause, Pace::Usual).await;
            ended.map_err(shown)?;
            owners = self.owners_of(hash, true).await?;
        }
    }
}

/// One chunk on its way to one owner after the other.
struct Sending<'a> {
    client: &'a Client,
    frame: Vec<u8>,
    bytes: Bytes,
    moved: &'a (dyn Fn(u64) + Sync),
    /// Bytes that `moved` was told of.
    reported: u64,
    /// Most bytes that a node that lives took at once. They are as good as none if it does not
    /// answer: the same bytes, handed over once more, are no progress.
    farthest: u64,
    /// A node that lives took more than any before.
    advanced: bool,
}

impl Sending<'_> {
    /// Tries all owners once.
    async fn round(&mut self, owners: &[NodeId]) -> Result<()> {
        let order = self.client.core.link.living_first(owners);
        let mut cause = Error::unavailable("no owner of the chunk can be reached");
        let mut full = 0;
        for node in &order {
            match self.send_to(*node, order.len() == 1).await {
                Err(error) if error.code == Code::NoSpace => {
                    full += 1;
                    if full == order.len() {
                        return Err(error);
                    }
                }
                Err(error) if is_passing(&error) => cause = error,
                ended => return ended,
            }
            tracing::debug!(%cause, %node, "an owner did not take a chunk");
        }
        Err(cause)
    }

    async fn send_to(&mut self, node: NodeId, alone: bool) -> Result<()> {
        let core = &self.client.core;
        let (reach, still) = match alone {
            true => (core.timeout, core.timeout),
            false => (SILENCE_MAX.min(core.timeout), STILL_MAX.min(core.timeout)),
        };
        let live = core.link.node(node, reach).await?;
        let mut sent = 0;
        let done = {
            let mut carried = live.carry(self.bytes.len() as u64);
            let (moved, reported) = (self.moved, &mut self.reported);
            let mut tell = |now: u64| {
                carried.moved(now - sent);
                sent = now;
                if now > *reported {
                    moved(now - *reported);
                    *reported = now;
                }
            };
            let sending = send_once(&live, &self.frame, self.bytes.clone(), still, &mut tell);
            tokio::select! {
                biased;
                done = sending => done,
                () = core.link.fell_silent(&live, SILENCE_MAX) => Err(live.silence()),
            }
        };
        if sent > self.farthest && !live.is_silent() {
            self.farthest = sent;
            self.advanced = true;
        }
        done
    }
}

async fn send_once(
    live: &Live,
    frame: &[u8],
    bytes: Bytes,
    timeout: Duration,
    tell: &mut (dyn FnMut(u64) + Send),
) -> Result<()> {
    let mut stream = within(timeout, live.open()).await?;
    if let Err(error) = send_all(&mut *stream, frame, bytes, timeout, tell).await {
        // A node that refuses stops reading and says why.
        let reason = within(REASON_TIMEOUT, stream.recv_frame()).await;
        return match reason.map(|reason| reason.map(|frame| codec::decode(&frame))) {
            Ok(Some(Ok(Answer::Failed(reason)))) => Err(reason),
            _ => Err(error),
        };
    }
    let reply = within(timeout, stream.recv_frame()).await?;
    let reply = reply.ok_or_else(|| Error::unavailable("the node closed the stream"))?;
    live.heard();
    match codec::decode(&reply)? {
        Answer::PutChunk { .. } => Ok(()),
        Answer::Failed(error) => Err(error),
        _ => Err(odd("a stored chunk")),
    }
}

async fn send_all(
    stream: &mut dyn Bulk,
    frame: &[u8],
    mut bytes: Bytes,
    timeout: Duration,
    tell: &mut (dyn FnMut(u64) + Send),
) -> Result<()> {
    within(timeout, stream.send_frame(frame)).await?;
    let mut sent = 0;
    while !bytes.is_empty() {
        let part = bytes.split_to(bytes.len().min(SEND_BYTES));
        let len = part.len() as u64;
        within(timeout, stream.send_bytes(part)).await?;
        sent += len;
        tell(sent);
    }
    stream.finish()
}
