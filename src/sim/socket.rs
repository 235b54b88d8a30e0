//! A process's UDP socket on the simulated network, as quinn wants it. Made by `cluster` for
//! nodes and clients.

use super::network::Network;
use crate::client::Bind;
use crate::env::Env;
use crate::env::sim::SimDisk;
use crate::error::Result;
use crate::net::{Endpoint, PatientRuntime, ServerParts};
use futures::FutureExt;
use futures::future::BoxFuture;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Makes the sockets of one process.
#[derive(Clone)]
pub struct Sockets {
    pub network: Network,
    /// Where the process binds.
    pub at: SocketAddr,
    /// Without power nothing is sent.
    pub power: SimDisk,
}

impl Sockets {
    /// An endpoint that serves, if `server` is given.
    pub fn endpoint(&self, env: &Env, server: Option<ServerParts>) -> Result<Endpoint> {
        self.network.bind(self.at);
        let socket = Arc::new(Socket(self.clone()));
        Endpoint::on_socket(env, socket, Arc::new(PatientRuntime), server)
    }
}

impl Bind for Sockets {
    fn bind<'a>(&'a self, env: &'a Env, _listen: SocketAddr) -> BoxFuture<'a, Result<Endpoint>> {
        async move { self.endpoint(env, None) }.boxed()
    }
}

struct Socket(Sockets);

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Socket({})", self.0.at)
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if !self.0.power.is_crashed() {
            let network = &self.0.network;
            network.send(self.0.at, transmit.destination, transmit.contents);
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut count = 0;
        for (buffer, meta) in buffers.iter_mut().zip(meta) {
            let Some((from, bytes)) = self.0.network.receive(self.0.at, context.waker()) else {
                break;
            };
            let len = bytes.len().min(buffer.len());
            buffer[..len].copy_from_slice(&bytes[..len]);
            *meta = RecvMeta {
                addr: from,
                len,
                stride: len,
                ecn: None,
                dst_ip: Some(self.0.at.ip()),
            };
            count += 1;
        }
        match count {
            0 => Poll::Pending,
            count => Poll::Ready(Ok(count)),
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.0.at)
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
