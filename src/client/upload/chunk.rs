//! One chunk to where it belongs: not at all if it is there, else over a stream of its own.

use super::begun::Begun;
use crate::client::core::{Client, is_passing, odd, shown};
use crate::client::link::Live;
use crate::client::retry::Retry;
use crate::client::wire::Bulk;
use crate::codec;
use crate::error::{Code, Error, Result};
use crate::limits::MIB;
use crate::proto::{Answer, Call, Ticket};
use crate::types::{Ack, ChunkHash, GroupId, Precondition};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Bytes handed to the stream at once: what progress and stalls are measured by.
const SEND_BYTES: usize = MIB as usize;
/// Attempts at one chunk that each got somewhere.
const ATTEMPTS_MAX: u32 = 32;
/// A chunk of a new file that is smaller is sent without asking whether it is there: the
/// question costs as much.
const UNASKED_BYTES_MAX: u64 = MIB;
/// How long to wait for the reason after a node stopped reading.
const REASON_TIMEOUT: Duration = Duration::from_secs(2);

impl Begun<'_> {
    /// Makes sure that the chunk is at its owners and stays there for this upload. Tells `moved`
    /// how many more bytes are done, `bytes.len()` in all. True if it had to be sent.
    pub(super) async fn place(
        &self,
        hash: ChunkHash,
        bytes: Bytes,
        moved: &(dyn Fn(u64) + Sync),
    ) -> Result<bool> {
        let (ticket, proof) = tokio::try_join!(self.ticket(), self.proof(hash, bytes.len()))?;
        if let Some(mac) = proof {
            let call = Call::Pin {
                ticket: ticket.clone(),
                hashes: vec![(hash, mac)],
                ack: Ack::Quorum,
            };
            match self.client.ask(&call).await {
                Ok(Answer::Pinned(here)) if here == [true] => {
                    moved(bytes.len() as u64);
                    return Ok(false);
                }
                Ok(Answer::Pinned(_)) => {}
                Ok(_) => return Err(odd("which chunks are there")),
                Err(error) if is_passing(&error) => return Err(error),
                // It can still be sent.
                Err(error) => tracing::debug!(%error, %hash, "a chunk could not be pinned"),
            }
        }
        let told = AtomicU64::new(0);
        let first = |more| {
            told.fetch_add(more, Ordering::Relaxed);
            moved(more);
        };
        match self.send(&ticket, hash, bytes.clone(), &first).await {
            Err(error) if error.code == Code::Denied => {}
            sent => return sent.map(|()| true),
        }
        // Tickets last as long as their key: an upload may take longer.
        let fresh = self.ticket_after(&ticket).await?;
        let rest = |more: u64| {
            let before = told.load(Ordering::Relaxed).min(more);
            told.fetch_sub(before, Ordering::Relaxed);
            moved(more - before);
        };
        self.send(&fresh, hash, bytes, &rest).await?;
        Ok(true)
    }

    async fn send(
        &self,
        ticket: &Ticket,
        hash: ChunkHash,
        bytes: Bytes,
        moved: &(dyn Fn(u64) + Sync),
    ) -> Result<()> {
        let len = u32::try_from(bytes.len()).map_err(|_| Error::failed("a chunk over 4 GiB"))?;
        let call = Call::PutChunk {
            ticket: ticket.clone(),
            hash,
            len,
            ack: Ack::Quorum,
        };
        self.client.put_chunk(&call, bytes, moved).await
    }

    /// The proof that this user references the chunk already, if that is so.
    async fn proof(&self, hash: ChunkHash, len: usize) -> Result<Option<crate::types::Mac>> {
        if self.target.precondition == Precondition::Absent && (len as u64) < UNASKED_BYTES_MAX {
            return Ok(None);
        }
        let call = Call::Known {
            parent: self.parent,
            upload: self.upload,
            hashes: vec![hash],
        };
        match self.client.ask(&call).await? {
            Answer::Known(proofs) if proofs.len() == 1 => Ok(proofs[0]),
            _ => Err(odd("which chunks are known")),
        }
    }
}

impl Client {
    /// Sends a chunk until it is acknowledged. Sending twice does no harm: its name is its
    /// content.
    async fn put_chunk(
        &self,
        call: &Call,
        bytes: Bytes,
        moved: &(dyn Fn(u64) + Sync),
    ) -> Result<()> {
        let frame = codec::encode(call);
        let timeout = self.core.timeout;
        let mut retry = Retry::within(timeout);
        let mut reported = 0;
        loop {
            let live = self.core.link.live(retry.attempt(Duration::MAX)).await;
            let mut sent = 0;
            let attempt = match live {
                Ok(live) => {
                    let mut tell = |now: u64| {
                        sent = now;
                        if now > reported {
                            moved(now - reported);
                            reported = now;
                        }
                    };
                    let attempt = send_once(&live, &frame, bytes.clone(), timeout, &mut tell).await;
                    if let Err(error) = &attempt {
                        self.after_chunk(&live, error).await;
                    }
                    attempt
                }
                Err(error) => Err(error),
            };
            let cause = match attempt {
                Ok(()) => return Ok(()),
                Err(error) if is_passing(&error) => error,
                Err(error) => return Err(error),
            };
            if retry.failures >= ATTEMPTS_MAX {
                return Err(shown(cause));
            }
            if sent > 0 {
                retry.progressed(timeout);
            }
            let ended = retry.pause(&*self.core.env.rng, cause).await;
            ended.map_err(shown)?;
        }
    }

    /// Decides after a failed bulk transfer whether the connection is to blame.
    pub(crate) async fn after_chunk(&self, live: &Arc<Live>, error: &Error) {
        match error.code {
            Code::Unavailable if live.wire.is_closed() => self.core.link.suspect(live),
            _ => self.step_aside(live, error, GroupId::FIRST).await,
        }
    }
}

async fn send_once(
    live: &Live,
    frame: &[u8],
    bytes: Bytes,
    timeout: Duration,
    tell: &mut (dyn FnMut(u64) + Send),
) -> Result<()> {
    let mut stream = within(timeout, live.wire.open()).await?;
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

/// A step of a bulk transfer that must not stand still.
pub(crate) async fn within<T>(
    timeout: Duration,
    step: impl Future<Output = Result<T>>,
) -> Result<T> {
    match tokio::time::timeout(timeout, step).await {
        Ok(done) => done,
        Err(_) => Err(Error::unavailable(format!(
            "the transfer timed out (nothing moved for {} s)",
            timeout.as_secs_f32()
        ))),
    }
}
