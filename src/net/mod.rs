//! QUIC: one endpoint a process, control frames and bulk bytes. (interface; implementation to
//! come) Called by `client` and `node`; knows identities as TLS configurations and peers as
//! what their certificate says.

use crate::error::Result;
use crate::types::NodeId;
use bytes::Bytes;
use futures::future::BoxFuture;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Application protocols; each with its own rules of who may speak it.
pub const ALPN_CLIENT: &[u8] = b"dfs-client/1";
pub const ALPN_NODE: &[u8] = b"dfs-node/1";
pub const ALPN_JOIN: &[u8] = b"dfs-join/1";

/// Who is at the other end, by its certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    Node(NodeId),
    User {
        name: String,
        group: String,
        admin: bool,
        serial: u64,
    },
    /// A joiner without a certificate (`dfs-join/1` only).
    Nobody,
}

/// One stream of a peer: a request frame, then what the protocol says.
pub struct Incoming {
    pub peer: Peer,
    pub remote: SocketAddr,
    pub stream: Stream,
}

/// Serves streams; each call is one stream's life.
pub trait Service: Send + Sync + 'static {
    fn serve(&self, incoming: Incoming) -> BoxFuture<'static, ()>;
}

/// A bidirectional stream: length-prefixed frames, and raw bytes between them.
pub struct Stream {}

impl Stream {
    pub async fn send_frame(&mut self, _frame: &[u8]) -> Result<()> {
        unimplemented!()
    }
    /// The next frame; `None` at the end of the stream. Longer than `FRAME_BYTES_MAX`: error.
    pub async fn recv_frame(&mut self) -> Result<Option<Bytes>> {
        unimplemented!()
    }
    pub async fn send_bytes(&mut self, _bytes: Bytes) -> Result<()> {
        unimplemented!()
    }
    /// Up to `max` raw bytes as they come; `None` at the end.
    pub async fn recv_bytes(&mut self, _max: usize) -> Result<Option<Bytes>> {
        unimplemented!()
    }
    /// Says that nothing more will be sent.
    pub fn finish(&mut self) -> Result<()> {
        unimplemented!()
    }
}

pub struct Endpoint {}

impl Endpoint {
    /// Binds a UDP socket and serves; `server` `None` for a pure client.
    pub async fn bind(
        _listen: SocketAddr,
        _server: Option<(ServerTls, Arc<dyn Service>)>,
    ) -> Result<Endpoint> {
        unimplemented!()
    }
    pub fn local_addr(&self) -> SocketAddr {
        unimplemented!()
    }
    /// Connects with one of the ALPNs. Errors say whether nobody answered (`unavailable`) or
    /// the identity was refused (`denied`).
    pub async fn connect(
        &self,
        _to: SocketAddr,
        _alpn: &'static [u8],
        _tls: &ClientTls,
        _timeout: Duration,
    ) -> Result<Connection> {
        unimplemented!()
    }
    /// Stops accepting, lets streams finish for at most `grace`.
    pub async fn close(&self, _grace: Duration) {
        unimplemented!()
    }
}

#[derive(Clone)]
pub struct Connection {}

impl Connection {
    /// One request frame, one reply frame, on a stream of its own.
    pub async fn call(&self, _request: &[u8], _timeout: Duration) -> Result<Bytes> {
        unimplemented!()
    }
    /// A stream for bulk.
    pub async fn open(&self) -> Result<Stream> {
        unimplemented!()
    }
    pub fn peer(&self) -> Peer {
        unimplemented!()
    }
    pub fn is_closed(&self) -> bool {
        unimplemented!()
    }
}

/// TLS of a node: its certificate and the cluster's CA.
#[derive(Clone)]
pub struct ServerTls {}

/// TLS of a client or of a node that connects.
#[derive(Clone)]
pub struct ClientTls {}
