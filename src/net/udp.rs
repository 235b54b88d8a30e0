//! The UDP socket of QUIC on tokio. Made by `runtime`.
//!
//! quinn's own one also hears each time that a packet has left: a wake for every send, on idle
//! nodes a fifth of all. Sends of UDP hardly ever find the buffer full; who does registers then.

use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncUdpSocket, UdpPoller};
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Sleep;

/// Between two tries of a sender that cannot be told when there is room.
const PAUSE: Duration = Duration::from_millis(2);

#[derive(Debug)]
pub(super) struct Socket {
    io: AsyncFd<UdpSocket>,
    state: UdpSocketState,
    /// The last send found no room.
    full: AtomicBool,
}

impl Socket {
    /// # Errors
    /// What the system says against its use.
    pub fn new(socket: UdpSocket) -> io::Result<Socket> {
        Ok(Socket {
            state: UdpSocketState::new((&socket).into())?,
            io: registered(socket, Interest::READABLE)?,
            full: AtomicBool::new(false),
        })
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Room {
            socket: self,
            waiting: None,
            pause: None,
        })
    }

    fn try_send(&self, transmit: &Transmit) -> io::Result<()> {
        let sent = self.state.send(self.io.get_ref().into(), transmit);
        if (sent.as_ref()).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            self.full.store(true, Ordering::Relaxed);
        }
        sent
    }

    fn poll_recv(
        &self,
        context: &mut Context,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.io.poll_read_ready(context))?;
            let received = ready.try_io(|io| self.state.recv(io.get_ref().into(), buffers, meta));
            // An error ends the endpoint, and all that this socket can say concerns one packet.
            if let Ok(Ok(received)) = received {
                return Poll::Ready(Ok(received));
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.get_ref().local_addr()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.state.gro_segments()
    }
}

/// What tokio calls deprecated is that a type could change its descriptor while it is registered;
/// these two do not, and its other way to register is not safe Rust.
#[allow(deprecated)]
fn registered<T: AsRawFd>(socket: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(socket, interest)
}

/// Tells one sender when there is room.
#[derive(Debug)]
struct Room {
    socket: Arc<Socket>,
    /// Registered for room alone: a descriptor of its own of the same socket.
    waiting: Option<AsyncFd<OwnedFd>>,
    /// Instead, where there is no descriptor left.
    pause: Option<Pin<Box<Sleep>>>,
}

impl Room {
    fn register(&self) -> io::Result<AsyncFd<OwnedFd>> {
        let own = self.socket.io.get_ref().try_clone()?;
        registered(OwnedFd::from(own), Interest::WRITABLE)
    }

    /// Ready when a send is worth another try.
    fn poll_room(&mut self, context: &mut Context) -> Poll<()> {
        if let Some(pause) = &mut self.pause {
            return pause.as_mut().poll(context);
        }
        let waiting = match self.waiting.take() {
            Some(waiting) => Ok(waiting),
            None => self.register(),
        };
        // An error would leave a connection behind that does nothing and does not end.
        let room = waiting.map(|waiting| {
            let writable = waiting.poll_write_ready(context).is_ready();
            if !writable {
                self.waiting = Some(waiting);
            }
            writable
        });
        match room {
            Ok(true) => Poll::Ready(()),
            Ok(false) => Poll::Pending,
            Err(_) => {
                let pause = self.pause.insert(Box::pin(tokio::time::sleep(PAUSE)));
                pause.as_mut().poll(context)
            }
        }
    }
}

impl UdpPoller for Room {
    fn poll_writable(mut self: Pin<&mut Self>, context: &mut Context) -> Poll<io::Result<()>> {
        if self.socket.full.load(Ordering::Relaxed) {
            ready!(self.poll_room(context));
            self.socket.full.store(false, Ordering::Relaxed);
        }
        (self.waiting, self.pause) = (None, None);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::runtime::PatientRuntime;
    use quinn::Runtime;
    use std::future::poll_fn;
    use tokio::time::timeout;

    fn transmit(to: SocketAddr, contents: &[u8]) -> Transmit<'_> {
        Transmit {
            destination: to,
            ecn: None,
            contents,
            segment_size: None,
            src_ip: None,
        }
    }

    fn socket() -> (Arc<dyn AsyncUdpSocket>, SocketAddr) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let socket = PatientRuntime.wrap_udp_socket(socket).unwrap();
        let address = socket.local_addr().unwrap();
        (socket, address)
    }

    #[tokio::test]
    async fn packets_arrive_whoever_comes_first() {
        let ((one, _), (other, to)) = (socket(), socket());
        let receive = async {
            let mut bytes = [0; 64];
            let mut meta = [RecvMeta::default()];
            let count = poll_fn(|context| {
                let mut buffers = [IoSliceMut::new(&mut bytes)];
                other.poll_recv(context, &mut buffers, &mut meta)
            });
            let count = timeout(Duration::from_secs(10), count).await.unwrap();
            assert_eq!(count.unwrap(), 1);
            bytes[..meta[0].len].to_vec()
        };
        let send = async {
            // The receiver waits by now.
            tokio::task::yield_now().await;
            one.try_send(&transmit(to, b"late")).unwrap();
        };
        assert_eq!(futures::join!(receive, send).0, b"late");
    }

    #[tokio::test]
    async fn who_found_no_room_is_told_when_there_is_some() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let socket = Arc::new(Socket::new(socket).unwrap());
        let mut pollers: Vec<_> = (0..2).map(|_| socket.clone().create_io_poller()).collect();
        for round in 0..3 {
            socket.full.store(true, Ordering::Relaxed);
            for poller in &mut pollers {
                let room = poll_fn(|context| poller.as_mut().poll_writable(context));
                let told = timeout(Duration::from_secs(10), room).await;
                told.unwrap_or_else(|_| panic!("nobody is told in round {round}"))
                    .unwrap();
                assert!(!socket.full.load(Ordering::Relaxed));
            }
        }
    }
}
