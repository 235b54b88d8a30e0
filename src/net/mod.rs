//! QUIC: one endpoint a process, control frames and bulk bytes. Called by `client` and `node`;
//! knows identities as TLS configurations and peers as what their certificate says. May not know
//! what the frames mean.
//!
//! **Who is let in.** Both ends show a certificate of the cluster's own CA, TLS 1.3 only. A
//! server's certificate must be a node's; the name asked for is always `node.dfs`, which every
//! node's certificate carries: nodes are told apart by subject, never by address. What a client
//! may be depends on the application protocol it asks for:
//!
//! | ALPN | client may be | for |
//! |---|---|---|
//! | `dfs-node/1` | a node | peers |
//! | `dfs-client/1` | a node or a user | everything a client does |
//! | `dfs-join/1` | nobody (no certificate) or any of the above | getting a certificate |
//!
//! On `dfs-join/1` a node shows the CA's certificate behind its own, so that a joiner who has only
//! a pin of it, out of a token, finds it there (`pin.rs`). Requests on it are limited for the
//! whole endpoint, whoever sends them.
//!
//! Then the [`Gate`] is asked, which knows who was removed since; and asked again for what is open
//! whenever [`Endpoint::recheck`] is called. Its words reach the refused peer.
//!
//! A client's TLS is done before the server has judged its certificate. So a connection begins
//! with a **greeting**: the client's first stream carries one frame with the version of this
//! framing, the server answers with its own. [`Endpoint::connect`] returns after the answer: its
//! errors say `denied` or `unavailable`, and no request is ever lost to a refused identity.
//!
//! **Streams.** A request is one bidirectional stream, opened for it (measured to cost nothing
//! extra). There are no unidirectional streams and no datagrams. On a stream:
//!
//! ```text
//! frame:  length u32 little-endian (at most FRAME_BYTES_MAX) │ bytes
//! raw:    bytes, as many as the frames before them announced
//! ```
//! A side ends what it sends with `finish`. A stream that is dropped without it is reset, so that
//! a cut-off answer never looks like a whole one. Reset codes and close codes stand in
//! `failure.rs`; one of them says that a request was certainly not executed.
//!
//! **Bounds.** Streams a connection, connections, half-open handshakes and connections without a
//! certificate are counted (`settings.rs`); windows are small until a peer is authenticated; a
//! frame's buffer grows with what arrived, and the frames of all requests being served share a bound
//! (beyond it a request is refused as not executed); a peer that stalls in the middle of something
//! is given up after `STALL_MAX`, one that sends a little now and then after [`arrival_max`].
//!
//! **Restarts.** The key of stateless resets derives from the private key that the node binds its
//! endpoint with: a node that comes back answers packets of its former life with a reset, and
//! clients reconnect at once instead of waiting for the idle timeout.
//!
//! **Renewal.** [`Endpoint::renew`] changes what new connections are shown; those that are open
//! live on. The reset key stays what it was at the bind: the tokens that open connections hold
//! were made with it. (Bound anew with another private key, a node cannot reset the connections
//! of its former life: they wait for the idle timeout, once.)

mod connection;
mod endpoint;
mod failure;
mod gate;
mod pin;
mod rate;
mod registry;
mod runtime;
mod server;
mod settings;
mod socket;
mod stream;
mod tls;
mod udp;

#[cfg(test)]
mod tests;

pub use connection::Connection;
pub use endpoint::Endpoint;
pub use gate::{Gate, Refusal};
#[cfg(test)]
pub(crate) use runtime::PatientRuntime;
pub use stream::{RecvHalf, SendHalf, Stream, arrival_max};
pub use tls::{ClientTls, ServerTls};

use crate::types::{CertificateFacts, NodeId, Subject};
use futures::future::BoxFuture;
use std::net::SocketAddr;
use std::sync::Arc;

/// Application protocols; each with its own rules of who may speak it.
pub const ALPN_CLIENT: &[u8] = b"dfs-client/1";
pub const ALPN_NODE: &[u8] = b"dfs-node/1";
pub const ALPN_JOIN: &[u8] = b"dfs-join/1";

/// Who is at the other end, by its certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    Node {
        id: NodeId,
        /// Of the certificate; what revocations name.
        serial: u64,
    },
    User {
        name: String,
        group: String,
        admin: bool,
        /// Of the certificate; what revocations name.
        serial: u64,
    },
    /// A joiner without a certificate (`dfs-join/1` only).
    Nobody,
}

impl From<CertificateFacts> for Peer {
    fn from(facts: CertificateFacts) -> Peer {
        match facts.subject {
            Subject::Node(id) => Peer::Node {
                id,
                serial: facts.serial,
            },
            Subject::User { name, group, admin } => Peer::User {
                name,
                group,
                admin,
                serial: facts.serial,
            },
        }
    }
}

/// One stream of a peer: a request frame, then what the protocol says.
pub struct Incoming {
    pub peer: Peer,
    pub remote: SocketAddr,
    /// One of the `ALPN_*`; `peer` may speak it.
    pub alpn: &'static [u8],
    pub stream: Stream,
}

/// Serves streams; each call is one stream's life.
pub trait Service: Send + Sync + 'static {
    fn serve(&self, incoming: Incoming) -> BoxFuture<'static, ()>;
}

/// What an endpoint that serves needs.
pub struct ServerParts {
    pub tls: ServerTls,
    pub service: Arc<dyn Service>,
    pub gate: Arc<dyn Gate>,
}

impl ServerParts {
    /// With a gate that lets in everyone whose certificate may speak the protocol.
    pub fn new(tls: ServerTls, service: Arc<dyn Service>) -> ServerParts {
        ServerParts {
            tls,
            service,
            gate: Arc::new(gate::Everyone),
        }
    }

    /// With another gate.
    pub fn gate(self, gate: Arc<dyn Gate>) -> ServerParts {
        ServerParts { gate, ..self }
    }
}
