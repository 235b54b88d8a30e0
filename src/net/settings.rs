//! The transport's numbers, with their reasons. Called by `endpoint`, `server` and `stream`.
//!
//! Where nothing else is said they were measured on loopback; the largest gain by far is the
//! datagram size (1.0 GiB/s at 1,452 bytes, 3.4 GiB/s at 6,500).

use crate::limits::MIB;
use quinn::{IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};
use std::time::Duration;

/// Bytes of the largest datagram, found by probing, so that a 1,500-byte network keeps 1,452. Ten
/// of them travel as one segmented send, which must stay below 64 KiB. The initial and the
/// minimum size are never raised: a path that cannot carry them would not connect at all.
pub(super) const DATAGRAM_BYTES_MAX: u16 = 6_500;
/// Socket buffers, each way: with less there were losses and swings at that datagram size.
pub(super) const SOCKET_BUFFER_BYTES: usize = 8 * MIB as usize;
/// One stream's share; the connection's window bounds all of them together.
const STREAM_WINDOW_BYTES: u32 = 16 * MIB as u32;
/// Unread and unacknowledged bytes of one connection, each way.
pub(super) const WINDOW_BYTES: u32 = 64 * MIB as u32;
/// The same before the peer is authenticated, and for users beyond `WIDE_USERS_MAX`.
pub(super) const NARROW_WINDOW_BYTES: u32 = 2 * MIB as u32;
/// Users' connections with the wide window: 64 of them could hold 8 GiB if all stalled at once.
pub(super) const WIDE_USERS_MAX: usize = 64;

/// Streams that a connection may open before it has shown that it uses them. quinn keeps some 100
/// bytes for each that may come, and most of many connections are idle.
pub(super) const STREAMS_FIRST: u32 = 32;
/// So many streams show that.
pub(super) const STREAMS_SHOWN: u32 = STREAMS_FIRST / 2;
/// A server's connections; each costs some tens of KiB when idle.
pub(super) const CONNECTIONS_MAX: usize = USERS_MAX + if cfg!(test) { 16 } else { 2_000 };
/// Of these, users'. What is left is for nodes and for handshakes: however many connections users
/// hold, the cluster's own are made.
pub(super) const USERS_MAX: usize = if cfg!(test) { 48 } else { 10_000 };
/// Handshakes at once. Each costs a signature (0.05 ms) and a few KiB.
pub(super) const HANDSHAKES_MAX: usize = 512;
/// Beyond this a client must show that it receives at its address before it costs anything.
pub(super) const HANDSHAKES_UNPROVEN_MAX: usize = 128;
/// Datagrams' worth of connections that may wait to be looked at.
pub(super) const INCOMING_MAX: usize = 1_024;
/// Connections without a certificate, their streams and their life: joining takes one request.
pub(super) const JOINERS_MAX: usize = 64;
pub(super) const JOINER_STREAMS_MAX: usize = 2;
pub(super) const JOINER_LIFE_MAX: Duration = Duration::from_secs(60);
/// Requests on `dfs-join/1` in a second, of all connections together: each may cost an entry of a
/// log, and a guess at a token's secret must stay slow.
pub(super) const JOINS_PER_SECOND_MAX: usize = 10;

/// Memory of the frames of all requests that are arriving or being served, in KiB. A decoded
/// request takes a few times its frame, so this bounds what peers can make a node hold to some
/// GiB; a request that does not fit is refused as not executed.
pub(super) const FRAMES_KIB_MAX: usize = 512 * 1024;
/// One connection's share of it: more than a client's lanes fill with full batches.
pub(super) const CONNECTION_FRAMES_KIB_MAX: usize = 128 * 1024;
/// Longest frame of a peer without a certificate, and its share: a request to join has some
/// hundred bytes.
pub(super) const JOINER_FRAME_BYTES_MAX: usize = 4 * 1024;
pub(super) const JOINER_FRAMES_KIB_MAX: usize = 16;
/// Bytes a second that a frame or a chunk must at least arrive with, after `STALL_MAX` for free:
/// who sends a byte now and then holds memory and a place for nothing.
pub(super) const RATE_BYTES_MIN: u64 = 64 * 1024;

/// From the first datagram to the greeting.
pub(super) const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// From a stream's opening to its first bytes, and from bytes to bytes within a frame or a body:
/// a peer that is slower is gone, or wants to hold memory.
pub(super) const STALL_MAX: Duration = Duration::from_secs(if cfg!(test) { 3 } else { 30 });
/// Waiting for a free stream of a connection, if the caller names no deadline.
pub(super) const OPEN_MAX: Duration = Duration::from_secs(30);
/// For the last packets of a closed endpoint.
pub(super) const LINGER_MAX: Duration = Duration::from_millis(500);

/// Guess of the round trip before it is measured: a lost first datagram is sent again after three
/// of these. quinn's 333 ms is for the Internet.
const INITIAL_RTT: Duration = Duration::from_millis(100);

/// Whose timers a connection has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Server,
    Client,
    /// A node that connects to a node: notices a dead peer sooner, as many requests hang on it.
    Peer,
}

impl Role {
    fn idle(self) -> Duration {
        match self {
            Role::Server | Role::Client => Duration::from_secs(30),
            Role::Peer => Duration::from_secs(10),
        }
    }

    /// Only who connected keeps a connection alive.
    fn keep_alive(self) -> Option<Duration> {
        match self {
            Role::Server => None,
            Role::Client => Some(Duration::from_secs(5)),
            Role::Peer => Some(Duration::from_secs(2)),
        }
    }
}

pub(super) fn transport(role: Role) -> TransportConfig {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(DATAGRAM_BYTES_MAX);
    let (window, streams) = match role {
        Role::Server => (NARROW_WINDOW_BYTES, STREAMS_FIRST),
        // A server opens no streams to a client.
        Role::Client | Role::Peer => (WINDOW_BYTES, 0),
    };
    let idle = IdleTimeout::try_from(role.idle()).expect("well below 2^62 ms");
    let mut config = TransportConfig::default();
    // Congestion control stays Cubic and segmentation offload stays on: quinn's defaults.
    config
        .mtu_discovery_config(Some(mtu))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(window))
        .send_window(u64::from(window))
        .max_concurrent_bidi_streams(VarInt::from_u32(streams))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .initial_rtt(INITIAL_RTT)
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(role.keep_alive());
    config
}
