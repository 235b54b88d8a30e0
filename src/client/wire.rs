//! The seam below the client: how bytes get to a node. In production it is `net`; the client's
//! own tests put a model of a node there. Nothing above this file knows about QUIC.

use crate::env::Env;
use crate::error::Result;
use crate::net::{ALPN_CLIENT, ClientTls, Connection, Endpoint, Stream};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OnceCell;

/// Makes connections.
pub(crate) trait Dial: Send + Sync {
    /// `unavailable`: nobody answered in time; `denied`: the identity was refused.
    fn dial(&self, to: SocketAddr, timeout: Duration) -> BoxFuture<'_, Result<Arc<dyn Wire>>>;
}

/// One connection to one node.
pub(crate) trait Wire: Send + Sync {
    /// One request frame, one reply frame.
    fn call<'a>(&'a self, request: &'a [u8], timeout: Duration) -> BoxFuture<'a, Result<Bytes>>;
    /// A stream for bulk.
    fn open(&self) -> BoxFuture<'_, Result<Box<dyn Bulk>>>;
    /// It will not come back.
    fn is_closed(&self) -> bool;
    /// Changes whenever anything comes from the node, if only an acknowledgement.
    fn received(&self) -> u64;
}

/// A stream of frames and raw bytes.
pub(crate) trait Bulk: Send {
    fn send_frame<'a>(&'a mut self, frame: &'a [u8]) -> BoxFuture<'a, Result<()>>;
    fn recv_frame(&mut self) -> BoxFuture<'_, Result<Option<Bytes>>>;
    fn send_bytes(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<()>>;
    /// Puts what is there into `into`, at most `max` bytes; how many, 0 at the end.
    fn recv_packets<'a>(
        &'a mut self,
        into: &'a mut Vec<Bytes>,
        max: usize,
    ) -> BoxFuture<'a, Result<usize>>;
    fn finish(&mut self) -> Result<()>;
}

/// Makes the client's own end of its connections.
pub(crate) trait Bind: Send + Sync {
    /// An endpoint that serves nothing, at `listen` or wherever there is room.
    fn bind<'a>(&'a self, env: &'a Env, listen: SocketAddr) -> BoxFuture<'a, Result<Endpoint>>;
}

/// Sockets of the operating system.
pub(crate) struct OsSockets;

impl Bind for OsSockets {
    fn bind<'a>(&'a self, env: &'a Env, listen: SocketAddr) -> BoxFuture<'a, Result<Endpoint>> {
        Endpoint::bind(env, listen, None).boxed()
    }
}

/// Dials over QUIC; one local socket for each address family, bound when first needed.
pub(crate) struct NetDial {
    env: Env,
    tls: ClientTls,
    sockets: Box<dyn Bind>,
    v4: OnceCell<Endpoint>,
    v6: OnceCell<Endpoint>,
}

impl NetDial {
    pub(crate) fn new(env: Env, tls: ClientTls, sockets: Box<dyn Bind>) -> Self {
        NetDial {
            env,
            tls,
            sockets,
            v4: OnceCell::new(),
            v6: OnceCell::new(),
        }
    }
}

impl Dial for NetDial {
    fn dial(&self, to: SocketAddr, timeout: Duration) -> BoxFuture<'_, Result<Arc<dyn Wire>>> {
        async move {
            let (cell, listen): (_, SocketAddr) = match to {
                SocketAddr::V4(_) => (&self.v4, (Ipv4Addr::UNSPECIFIED, 0).into()),
                SocketAddr::V6(_) => (&self.v6, (Ipv6Addr::UNSPECIFIED, 0).into()),
            };
            let endpoint = cell
                .get_or_try_init(|| self.sockets.bind(&self.env, listen))
                .await?;
            let connection = endpoint
                .connect(to, ALPN_CLIENT, &self.tls, timeout)
                .await?;
            Ok(Arc::new(connection) as Arc<dyn Wire>)
        }
        .boxed()
    }
}

impl Wire for Connection {
    fn call<'a>(&'a self, request: &'a [u8], timeout: Duration) -> BoxFuture<'a, Result<Bytes>> {
        Connection::call(self, request, timeout).boxed()
    }

    fn open(&self) -> BoxFuture<'_, Result<Box<dyn Bulk>>> {
        async move {
            let stream = Connection::open(self).await?;
            Ok(Box::new(stream) as Box<dyn Bulk>)
        }
        .boxed()
    }

    fn is_closed(&self) -> bool {
        Connection::is_closed(self)
    }

    fn received(&self) -> u64 {
        Connection::received(self)
    }
}

impl Bulk for Stream {
    fn send_frame<'a>(&'a mut self, frame: &'a [u8]) -> BoxFuture<'a, Result<()>> {
        Stream::send_frame(self, frame).boxed()
    }
    fn recv_frame(&mut self) -> BoxFuture<'_, Result<Option<Bytes>>> {
        Stream::recv_frame(self).boxed()
    }
    fn send_bytes(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<()>> {
        Stream::send_bytes(self, bytes).boxed()
    }
    fn recv_packets<'a>(
        &'a mut self,
        into: &'a mut Vec<Bytes>,
        max: usize,
    ) -> BoxFuture<'a, Result<usize>> {
        Stream::recv_packets(self, into, max).boxed()
    }
    fn finish(&mut self) -> Result<()> {
        Stream::finish(self)
    }
}
