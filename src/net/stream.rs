//! A bidirectional stream: length-prefixed frames, and raw bytes between them. Used by everyone
//! above; made by `connection` and `server`.

use super::failure::{self, abort};
use super::settings::{RATE_BYTES_MIN, STALL_MAX};
use crate::error::{Code, Error, Result};
use crate::limits::FRAME_BYTES_MAX;
use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use quinn::{RecvStream, SendStream, VarInt};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Memory set aside for a frame before any of it has arrived.
const FRAME_RESERVE_BYTES: usize = 64 * 1024;

/// Packets taken from a stream in one turn.
const PACKETS_AT_ONCE: usize = 32;

/// Both directions of one stream. Errors of any call leave that direction unusable.
pub struct Stream {
    send: SendHalf,
    recv: RecvHalf,
}

/// What this side sends. Dropped without [`SendHalf::finish`], it resets the direction: the peer
/// sees an error instead of an early end.
pub struct SendHalf {
    stream: SendStream,
    remote: SocketAddr,
    finished: bool,
}

/// What the peer sends. Dropped before its end, it tells the peer to stop.
pub struct RecvHalf {
    stream: RecvStream,
    remote: SocketAddr,
    /// Taken from the stream but not asked for yet (see [`RecvHalf::wait_first`]).
    unread: Bytes,
    /// Bounds the memory of frames; `None` on the side that asks.
    budget: Option<Budget>,
    /// What the frames received so far count for, until the stream is gone.
    held: Vec<OwnedSemaphorePermit>,
}

/// How much memory the frames of one connection may take, alone and with all others together.
#[derive(Clone)]
pub(super) struct Budget {
    /// KiB left to all connections of an endpoint.
    pub(super) all: Arc<Semaphore>,
    /// KiB left to this connection.
    pub(super) own: Arc<Semaphore>,
    /// Longest frame, bytes.
    pub(super) frame_max: usize,
}

impl Budget {
    /// Takes a frame's share; `None`: there is not so much left.
    fn take(&self, bytes: usize) -> Option<[OwnedSemaphorePermit; 2]> {
        // Small frames cost a task and a stream as well.
        let kib = u32::try_from(bytes / 1_024 + 4).ok()?;
        let own = self.own.clone().try_acquire_many_owned(kib).ok()?;
        let all = self.all.clone().try_acquire_many_owned(kib).ok()?;
        Some([own, all])
    }
}

impl Stream {
    pub(super) fn new((send, recv): (SendStream, RecvStream), remote: SocketAddr) -> Stream {
        Stream {
            send: SendHalf {
                stream: send,
                remote,
                finished: false,
            },
            recv: RecvHalf {
                stream: recv,
                remote,
                unread: Bytes::new(),
                budget: None,
                held: Vec::new(),
            },
        }
    }

    /// A stream of a peer, whose frames are counted.
    pub(super) fn counted(
        halves: (SendStream, RecvStream),
        remote: SocketAddr,
        budget: Budget,
    ) -> Stream {
        let mut stream = Stream::new(halves, remote);
        stream.recv.budget = Some(budget);
        stream
    }

    /// See [`SendHalf::send_frame`].
    pub async fn send_frame(&mut self, frame: &[u8]) -> Result<()> {
        self.send.send_frame(frame).await
    }

    /// See [`RecvHalf::recv_frame`].
    pub async fn recv_frame(&mut self) -> Result<Option<Bytes>> {
        let frame = self.recv.recv_frame().await;
        if matches!(&frame, Err(error) if error.code == Code::Busy) {
            // The peer may be waiting for an answer already: it is told there too.
            self.send.reset(abort::NOT_SERVED);
        }
        frame
    }

    /// See [`SendHalf::send_bytes`].
    pub async fn send_bytes(&mut self, bytes: Bytes) -> Result<()> {
        self.send.send_bytes(bytes).await
    }

    /// See [`RecvHalf::recv_bytes`].
    pub async fn recv_bytes(&mut self, max: usize) -> Result<Option<Bytes>> {
        self.recv.recv_bytes(max).await
    }

    /// See [`RecvHalf::recv_into`].
    pub async fn recv_into(&mut self, into: &mut BytesMut, max: usize) -> Result<usize> {
        self.recv.recv_into(into, max).await
    }

    /// See [`RecvHalf::recv_packets`].
    pub async fn recv_packets(&mut self, into: &mut Vec<Bytes>, max: usize) -> Result<usize> {
        self.recv.recv_packets(into, max).await
    }

    /// See [`SendHalf::finish`].
    pub fn finish(&mut self) -> Result<()> {
        self.send.finish()
    }

    /// The two directions, for sending and receiving at the same time.
    pub fn split(self) -> (SendHalf, RecvHalf) {
        (self.send, self.recv)
    }

    pub(super) async fn wait_first(&mut self) -> Result<bool> {
        self.recv.wait_first().await
    }

    /// Ends both directions with a code.
    pub(super) fn abort(mut self, code: VarInt) {
        self.send.reset(code);
        self.recv.stop(code);
    }
}

impl SendHalf {
    /// Sends one frame. Returns when QUIC has taken all of it, which is not when it has arrived.
    ///
    /// # Errors
    /// `usage` for a frame longer than `FRAME_BYTES_MAX` (nothing was sent); `unavailable` when
    /// the peer is gone or takes nothing for 30 s; `busy` when it did not take the request.
    pub async fn send_frame(&mut self, frame: &[u8]) -> Result<()> {
        if frame.len() > FRAME_BYTES_MAX {
            let bytes = frame.len();
            return Err(Error::usage(format!(
                "the request is too large ({bytes} bytes, at most {FRAME_BYTES_MAX})"
            ))
            .hint("send it in smaller parts"));
        }
        let length = u32::try_from(frame.len()).expect("FRAME_BYTES_MAX fits 32 bits");
        // One buffer: length and bytes leave in one packet where they fit.
        let mut framed = BytesMut::with_capacity(4 + frame.len());
        framed.extend_from_slice(&length.to_le_bytes());
        framed.extend_from_slice(frame);
        self.send_bytes(framed.freeze()).await
    }

    /// Sends raw bytes without copying them.
    ///
    /// # Errors
    /// As [`SendHalf::send_frame`].
    pub async fn send_bytes(&mut self, bytes: Bytes) -> Result<()> {
        let mut left = [bytes];
        while !left[0].is_empty() {
            match timeout(STALL_MAX, self.stream.write_chunks(&mut left)).await {
                Ok(Ok(_)) => {}
                Ok(Err(e)) => return Err(failure::of_write(&e, self.remote)),
                Err(_) => {
                    self.reset(abort::STALLED);
                    return Err(failure::stalled(self.remote));
                }
            }
        }
        Ok(())
    }

    /// Says that nothing more will be sent; what was sent will still arrive. Fine to call again.
    ///
    /// # Errors
    /// `failed` when the direction was given up before.
    pub fn finish(&mut self) -> Result<()> {
        if !self.finished {
            let closed = |_| Error::failed(format!("the stream to {} was given up", self.remote));
            self.stream.finish().map_err(closed)?;
            self.finished = true;
        }
        Ok(())
    }

    fn reset(&mut self, code: VarInt) {
        // Fails only for a direction that has ended already.
        let _ = self.stream.reset(code);
        self.finished = true;
    }
}

/// How long so many bytes may take to arrive, all together: an honest slow link is faster.
pub fn arrival_max(bytes: u64) -> Duration {
    STALL_MAX.saturating_add(Duration::from_secs(bytes / RATE_BYTES_MIN))
}

impl Drop for SendHalf {
    fn drop(&mut self) {
        if !self.finished {
            self.reset(abort::ABANDONED);
        }
    }
}

impl RecvHalf {
    /// The next frame; `None` at the end of the stream. Waits for its beginning as long as it
    /// takes, and 30 s at most between its parts.
    ///
    /// # Errors
    /// `unavailable` when the peer is gone, stalls or sends a frame longer than
    /// `FRAME_BYTES_MAX` or a half one; `busy` when it did not take the request, or when the
    /// frames of all requests take too much memory already.
    pub async fn recv_frame(&mut self) -> Result<Option<Bytes>> {
        let Some(length) = self.recv_length().await? else {
            return Ok(None);
        };
        let max = self
            .budget
            .as_ref()
            .map_or(FRAME_BYTES_MAX, |budget| budget.frame_max);
        if length > max {
            return Err(self.malformed(&format!("a frame of {length} bytes")));
        }
        if let Some(budget) = &self.budget {
            let Some(share) = budget.take(length) else {
                self.stop(abort::NOT_SERVED);
                return Err(Error::new(
                    Code::Busy,
                    format!(
                        "too many large requests at once (one of {} was not taken)",
                        self.remote
                    ),
                ));
            };
            self.held.extend(share);
        }
        match timeout(arrival_max(length as u64), self.recv_body(length)).await {
            Ok(frame) => frame.map(Some),
            Err(_) => {
                self.stop(abort::STALLED);
                Err(failure::stalled(self.remote))
            }
        }
    }

    async fn recv_body(&mut self, length: usize) -> Result<Bytes> {
        // Copied out of the packets: a small frame that is kept must not keep their buffers.
        let mut frame = BytesMut::with_capacity(length.min(FRAME_RESERVE_BYTES));
        while frame.len() < length {
            match self.recv_bytes(length - frame.len()).await? {
                Some(part) => frame.extend_from_slice(&part),
                None => return Err(self.malformed("a frame that breaks off")),
            }
        }
        Ok(frame.freeze())
    }

    /// Up to `max` raw bytes as they come, at least one, not copied; `None` at the end of the
    /// stream. `max` must not be 0.
    ///
    /// # Errors
    /// `unavailable` when the peer is gone or sends nothing for 30 s.
    pub async fn recv_bytes(&mut self, max: usize) -> Result<Option<Bytes>> {
        match timeout(STALL_MAX, self.recv_some(max)).await {
            Ok(result) => result,
            Err(_) => {
                self.stop(abort::STALLED);
                Err(failure::stalled(self.remote))
            }
        }
    }

    /// Appends to `into` what is there of the raw bytes, at least one and at most `max`; 0 is the
    /// end of the stream. `max` must not be 0. For long streams: one turn takes many packets.
    ///
    /// # Errors
    /// As [`RecvHalf::recv_bytes`].
    pub async fn recv_into(&mut self, into: &mut BytesMut, max: usize) -> Result<usize> {
        let put = |part: Bytes| into.extend_from_slice(&part);
        self.recv_many(max, put).await
    }

    /// As [`RecvHalf::recv_into`], not copied: the packets as they came.
    pub async fn recv_packets(&mut self, into: &mut Vec<Bytes>, max: usize) -> Result<usize> {
        self.recv_many(max, |part| into.push(part)).await
    }

    async fn recv_many(&mut self, max: usize, mut put: impl FnMut(Bytes)) -> Result<usize> {
        if !self.unread.is_empty() {
            let part = self.unread.split_to(max.min(self.unread.len()));
            let taken = part.len();
            put(part);
            return Ok(taken);
        }
        let mut packets: [Bytes; PACKETS_AT_ONCE] = Default::default();
        let count = match timeout(STALL_MAX, self.stream.read_chunks(&mut packets)).await {
            Ok(Ok(count)) => count.unwrap_or(0),
            Ok(Err(e)) => return Err(failure::of_read(&e, self.remote)),
            Err(_) => {
                self.stop(abort::STALLED);
                return Err(failure::stalled(self.remote));
            }
        };
        let mut taken = 0;
        for packet in &mut packets[..count] {
            let part = packet.split_to(packet.len().min(max - taken));
            taken += part.len();
            if !part.is_empty() {
                put(part);
            }
        }
        // More than was asked for: what belongs to the next call.
        let left = packets[..count].iter().filter(|packet| !packet.is_empty());
        self.unread = left.fold(Bytes::new(), |all, packet| match all.is_empty() {
            true => packet.clone(),
            false => [&all[..], packet].concat().into(),
        });
        Ok(taken)
    }

    /// Waits at most 30 s for the first bytes of a stream that a peer has opened; false if it
    /// ends without any.
    async fn wait_first(&mut self) -> Result<bool> {
        if self.unread.is_empty() {
            // No more than what belongs to any request: its length.
            self.unread = self.recv_bytes(4).await?.unwrap_or_default();
        }
        Ok(!self.unread.is_empty())
    }

    async fn recv_length(&mut self) -> Result<Option<usize>> {
        let mut head = [0; 4];
        let mut have = 0;
        while have < head.len() {
            let part = if have == 0 {
                self.recv_some(head.len()).await?
            } else {
                self.recv_bytes(head.len() - have).await?
            };
            match part {
                Some(part) => {
                    head[have..have + part.len()].copy_from_slice(&part);
                    have += part.len();
                }
                None if have == 0 => return Ok(None),
                None => return Err(self.malformed("a frame that breaks off")),
            }
        }
        Ok(Some(u32::from_le_bytes(head) as usize))
    }

    async fn recv_some(&mut self, max: usize) -> Result<Option<Bytes>> {
        if !self.unread.is_empty() {
            return Ok(Some(self.unread.split_to(max.min(self.unread.len()))));
        }
        match self.stream.read_chunk(max, true).await {
            Ok(chunk) => Ok(chunk.map(|chunk| chunk.bytes)),
            Err(e) => Err(failure::of_read(&e, self.remote)),
        }
    }

    /// Takes the end of the stream if it is here already.
    fn take_end(&mut self) {
        let _ = self.stream.read_chunk(1, true).now_or_never();
    }

    fn malformed(&mut self, why: &str) -> Error {
        self.stop(abort::MALFORMED);
        failure::malformed(self.remote, why)
    }

    fn stop(&mut self, code: VarInt) {
        // Fails only for a direction that has ended already.
        let _ = self.stream.stop(code);
    }
}

impl Drop for RecvHalf {
    /// A reply's end mostly travels with its last bytes, but nobody who has his frame asks for
    /// more: without this each call would cost a packet that tells the peer to stop.
    fn drop(&mut self) {
        self.take_end();
    }
}
