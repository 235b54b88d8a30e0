//! A bidirectional stream: length-prefixed frames, and raw bytes between them. Used by everyone
//! above; made by `connection` and `server`.

use super::failure::{self, abort};
use super::settings::STALL_MAX;
use crate::error::{Error, Result};
use crate::limits::FRAME_BYTES_MAX;
use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use quinn::{RecvStream, SendStream, VarInt};
use std::net::SocketAddr;
use tokio::time::timeout;

/// Memory set aside for a frame before any of it has arrived.
const FRAME_RESERVE_BYTES: usize = 64 * 1024;

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
            },
        }
    }

    /// See [`SendHalf::send_frame`].
    pub async fn send_frame(&mut self, frame: &[u8]) -> Result<()> {
        self.send.send_frame(frame).await
    }

    /// See [`RecvHalf::recv_frame`].
    pub async fn recv_frame(&mut self) -> Result<Option<Bytes>> {
        self.recv.recv_frame().await
    }

    /// See [`SendHalf::send_bytes`].
    pub async fn send_bytes(&mut self, bytes: Bytes) -> Result<()> {
        self.send.send_bytes(bytes).await
    }

    /// See [`RecvHalf::recv_bytes`].
    pub async fn recv_bytes(&mut self, max: usize) -> Result<Option<Bytes>> {
        self.recv.recv_bytes(max).await
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
    /// `FRAME_BYTES_MAX` or a half one; `busy` when it did not take the request.
    pub async fn recv_frame(&mut self) -> Result<Option<Bytes>> {
        let Some(length) = self.recv_length().await? else {
            return Ok(None);
        };
        if length > FRAME_BYTES_MAX {
            return Err(self.malformed(&format!("a frame of {length} bytes")));
        }
        // Copied out of the packets: a small frame that is kept must not keep their buffers.
        let mut frame = BytesMut::with_capacity(length.min(FRAME_RESERVE_BYTES));
        while frame.len() < length {
            match self.recv_bytes(length - frame.len()).await? {
                Some(part) => frame.extend_from_slice(&part),
                None => return Err(self.malformed("a frame that breaks off")),
            }
        }
        Ok(Some(frame.freeze()))
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
