//! One authenticated connection to a node: calls and streams. Used by `client` and `node`; made
//! by `endpoint`.

use super::Peer;
use super::failure::{self, close};
use super::settings::OPEN_MAX;
use super::stream::Stream;
use crate::error::{Error, Result};
use bytes::Bytes;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::timeout;

/// A connection. Cheap to clone; it ends when all clones and streams are gone, when either side
/// closes it, or when the other side falls silent.
#[derive(Clone, Debug)]
pub struct Connection {
    inner: quinn::Connection,
    peer: Peer,
    remote: SocketAddr,
}

impl Connection {
    pub(super) fn new(inner: quinn::Connection, peer: Peer, remote: SocketAddr) -> Connection {
        Connection {
            inner,
            peer,
            remote,
        }
    }

    /// One request frame, one reply frame, on a stream of its own.
    ///
    /// # Errors
    /// `usage` for a request longer than a frame, `busy` when it was certainly not executed,
    /// else `unavailable`; `may_have_happened` is set whenever QUIC had taken the whole request.
    pub async fn call(&self, request: &[u8], deadline: Duration) -> Result<Bytes> {
        let mut sent = false;
        let result = match timeout(deadline, self.exchange(request, &mut sent)).await {
            Ok(result) => result,
            Err(_) => Err(Error::unavailable(format!(
                "no answer from {} within {deadline:?}",
                self.remote
            ))),
        };
        result.map_err(|e| match sent && !e.code.is_retryable() {
            true => e.unknown_outcome(),
            false => e,
        })
    }

    async fn exchange(&self, request: &[u8], sent: &mut bool) -> Result<Bytes> {
        let mut stream = self.open_now().await?;
        stream.send_frame(request).await?;
        *sent = true;
        stream.finish()?;
        let reply = stream.recv_frame().await?;
        reply.ok_or_else(|| failure::malformed(self.remote, "an end instead of an answer"))
    }

    /// A stream for bulk. Waits at most 30 s where the peer's limit of streams is reached.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn open(&self) -> Result<Stream> {
        match timeout(OPEN_MAX, self.open_now()).await {
            Ok(stream) => stream,
            Err(_) => Err(Error::unavailable(format!(
                "cannot send to {} (too many requests at once)",
                self.remote
            ))),
        }
    }

    async fn open_now(&self) -> Result<Stream> {
        match self.inner.open_bi().await {
            Ok(halves) => Ok(Stream::new(halves, self.remote)),
            Err(e) => Err(failure::of_connection(&e, self.remote)),
        }
    }

    /// Who is at the other end: always a node.
    pub fn peer(&self) -> Peer {
        self.peer.clone()
    }

    /// The certificate (DER) of this pin among those that the node showed: on `dfs-join/1` its
    /// CA's. With [`super::ClientTls::pinned`] of the same pin it is always there, and believed.
    #[cfg(test)]
    pub fn pinned_ca(&self, pin: crate::types::CaPin) -> Option<Vec<u8>> {
        let chain = super::tls::chain_of(&self.inner)?;
        let found = chain
            .iter()
            .skip(1)
            .find(|der| crate::types::CaPin::of(der) == pin)?;
        Some(found.to_vec())
    }

    /// The address that was connected to.
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// Round trip, smoothed.
    pub fn rtt(&self) -> Duration {
        self.inner.rtt()
    }

    /// Datagrams that came so far: a peer that lives acknowledges at least.
    pub fn received(&self) -> u64 {
        self.inner.stats().udp_rx.datagrams
    }

    pub fn is_closed(&self) -> bool {
        self.inner.close_reason().is_some()
    }

    /// Waits until the connection has ended, and says why.
    pub async fn closed(&self) -> Error {
        failure::of_connection(&self.inner.closed().await, self.remote)
    }

    /// Ends it at once; requests in flight fail on both sides.
    pub fn close(&self) {
        self.inner.close(close::DONE, b"");
    }
}
