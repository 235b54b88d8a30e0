//! The UDP socket of an endpoint. The only place that makes one: a simulation hands its own to
//! `Endpoint::on_socket` instead.

use super::settings::SOCKET_BUFFER_BYTES;
use crate::error::{Error, Result};
use rustix::net::sockopt;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// Binds `listen` with large buffers. An IPv6 address takes IPv4 as well where the system can.
///
/// # Errors
/// `failed` or `denied`, naming the address.
pub(super) fn open(listen: SocketAddr) -> Result<UdpSocket> {
    let socket = bound(listen).map_err(|e| bind_failed(listen, &e))?;
    enlarge_buffers(&socket);
    Ok(socket)
}

/// Sees that `listen` can be bound, and lets it go again.
///
/// # Errors
/// As [`open`].
pub(super) fn try_out(listen: SocketAddr) -> Result<()> {
    bound(listen).map(drop).map_err(|e| bind_failed(listen, &e))
}

fn bound(listen: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(
        Domain::for_address(listen),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    if listen.is_ipv6() {
        // Some systems cannot: then the socket is for IPv6 alone.
        let _ = socket.set_only_v6(false);
    }
    socket.set_nonblocking(true)?;
    socket.bind(&listen.into())?;
    Ok(socket.into())
}

/// The address that the system would send from to `to`; `None` where it knows no way. To connect a
/// UDP socket chooses the way and sends nothing.
pub(super) fn own_ip_towards(to: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(to).ok()?;
    let own = socket.local_addr().ok()?.ip();
    (!own.is_unspecified()).then_some(own)
}

/// Past the system's limit where this process may; else as far as the limit goes. Smaller buffers
/// lose packets under load, which QUIC repairs.
fn enlarge_buffers(socket: &UdpSocket) {
    let size = SOCKET_BUFFER_BYTES;
    let send = sockopt::set_socket_send_buffer_size_force(socket, size)
        .or_else(|_| sockopt::set_socket_send_buffer_size(socket, size));
    let receive = sockopt::set_socket_recv_buffer_size_force(socket, size)
        .or_else(|_| sockopt::set_socket_recv_buffer_size(socket, size));
    // Linux counts its own bookkeeping too and reports twice what was asked for.
    let got = sockopt::socket_recv_buffer_size(socket).unwrap_or(0) / 2;
    if send.is_err() || receive.is_err() || got < size {
        tracing::info!(
            wanted = size,
            got,
            "small UDP socket buffers; raise net.core.rmem_max and net.core.wmem_max for speed"
        );
    }
}

fn bind_failed(listen: SocketAddr, error: &io::Error) -> Error {
    let failed = Error::io("listen on UDP", listen.to_string(), error);
    match error.kind() {
        io::ErrorKind::AddrInUse => Error {
            code: crate::error::Code::Failed,
            ..failed
        }
        .hint("another process has this port: stop it, or use another --listen"),
        io::ErrorKind::AddrNotAvailable => {
            failed.hint("use an address of this machine, or 0.0.0.0 for all of them")
        }
        io::ErrorKind::PermissionDenied => failed.hint("use a port above 1023"),
        _ => failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_the_way_to_itself_a_machine_is_at_loopback() {
        let own = own_ip_towards("127.0.0.1:9".parse().unwrap());
        assert_eq!(own, Some(Ipv4Addr::LOCALHOST.into()));
    }
}
