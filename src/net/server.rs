//! The serving half of an endpoint: accepts connections, judges who they are and whether the gate
//! has them, accepts their streams and hands them to the service. Called by `endpoint`.

use super::endpoint::{GREETING_BYTES_MAX, answer_greeting};
use super::failure::{abort, close, reason_bytes};
use super::rate::Rate;
use super::registry::Registry;
use super::settings::{
    CONNECTION_FRAMES_KIB_MAX, CONNECTIONS_MAX, FRAMES_KIB_MAX, HANDSHAKE_MAX, HANDSHAKES_MAX,
    HANDSHAKES_UNPROVEN_MAX, JOINER_FRAME_BYTES_MAX, JOINER_FRAMES_KIB_MAX, JOINER_LIFE_MAX,
    JOINER_STREAMS_MAX, JOINERS_MAX, JOINS_PER_SECOND_MAX, STREAMS_SHOWN, USERS_MAX,
    WIDE_USERS_MAX, WINDOW_BYTES,
};
use super::stream::{Budget, Stream};
use super::{ALPN_JOIN, Gate, Incoming, Peer, Refusal, Service, tls};
use crate::env::Env;
use crate::limits::{FRAME_BYTES_MAX, STREAMS_MAX};
use parking_lot::Mutex;
use quinn::VarInt;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;

/// Room for one greeting.
const GREETING_KIB: usize = 16;

/// What all connections of an endpoint share.
///
/// 1. Every connection holds a place of `connections`; before its greeting also one of
///    `handshakes`; without a certificate also one of `joiners`, a user's also one of `users`.
/// 2. Every stream that the service serves is counted in `serving`; none is begun after `stop`.
/// 3. Every connection is in `open` before the gate is asked: whoever is removed meanwhile is
///    refused by the gate or found by the next look at those that are open.
pub(super) struct Server {
    env: Env,
    service: Arc<dyn Service>,
    gate: Arc<dyn Gate>,
    /// At most as many as `connections` has places.
    open: Arc<Registry>,
    /// Requests to join, of all connections.
    joins: Mutex<Rate>,
    connections: Arc<Semaphore>,
    handshakes: Arc<Semaphore>,
    joiners: Arc<Semaphore>,
    users: Arc<Semaphore>,
    /// KiB left to the frames of requests.
    frames: Arc<Semaphore>,
    /// Users' connections that may have the wide window.
    wide: Arc<Semaphore>,
    stopping: watch::Sender<bool>,
    /// Streams being served.
    serving: Arc<watch::Sender<usize>>,
}

/// A peer that was let in.
#[derive(Clone)]
pub(super) struct Guest {
    peer: Peer,
    remote: SocketAddr,
    alpn: &'static [u8],
}

/// Counts one stream while it lives.
struct Serving(Arc<watch::Sender<usize>>);

impl Serving {
    fn begin(count: &Arc<watch::Sender<usize>>) -> Serving {
        count.send_modify(|count| *count += 1);
        Serving(count.clone())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

impl Server {
    pub(super) fn new(env: Env, service: Arc<dyn Service>, gate: Arc<dyn Gate>) -> Server {
        let places = |count| Arc::new(Semaphore::new(count));
        Server {
            env,
            service,
            gate,
            open: Arc::default(),
            joins: Mutex::new(Rate::new(JOINS_PER_SECOND_MAX)),
            connections: places(CONNECTIONS_MAX),
            handshakes: places(HANDSHAKES_MAX),
            joiners: places(JOINERS_MAX),
            users: places(USERS_MAX),
            frames: places(FRAMES_KIB_MAX),
            wide: places(WIDE_USERS_MAX),
            stopping: watch::Sender::new(false),
            serving: Arc::new(watch::Sender::new(0)),
        }
    }

    /// From now on new connections and streams are refused.
    pub(super) fn stop(&self) {
        self.stopping.send_replace(true);
    }

    /// Waits until no stream is being served.
    pub(super) async fn idle(&self) {
        let mut serving = self.serving.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        let _ = serving.wait_for(|count| *count == 0).await;
    }

    /// Asks the gate again for every open connection; closes those that it denies and returns how
    /// many they were.
    pub(super) fn recheck(&self) -> usize {
        let mut closed = 0;
        for (connection, guest) in self.open.all() {
            let verdict = self.gate.admits(&guest.peer);
            if let Err(refusal @ Refusal::Denied(_)) = verdict {
                refuse(&connection, &guest, &refusal);
                closed += 1;
            }
        }
        closed
    }

    /// Accepts until the endpoint is closed.
    pub(super) async fn accept(self: Arc<Self>, endpoint: quinn::Endpoint) {
        while let Some(incoming) = endpoint.accept().await {
            let unproven = HANDSHAKES_MAX - self.handshakes.available_permits();
            if unproven >= HANDSHAKES_UNPROVEN_MAX && incoming.may_retry() {
                // Refused only if the address is proven already, which was asked for above.
                let _ = incoming.retry();
                continue;
            }
            let place = self.connections.clone().try_acquire_owned();
            let handshake = self.handshakes.clone().try_acquire_owned();
            let (Ok(place), Ok(handshake), false) = (place, handshake, *self.stopping.borrow())
            else {
                incoming.refuse();
                continue;
            };
            let serving = self.clone().serve(incoming, place, handshake);
            self.env
                .spawn
                .spawn("serve a connection", Box::pin(serving));
        }
    }

    /// One connection's life.
    async fn serve(
        self: Arc<Self>,
        incoming: quinn::Incoming,
        _place: OwnedSemaphorePermit,
        handshake: OwnedSemaphorePermit,
    ) {
        let remote = canonical(incoming.remote_address());
        let connection = match timeout(HANDSHAKE_MAX, incoming).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return tracing::debug!(%remote, %error, "handshake failed"),
            Err(_) => return tracing::debug!(%remote, "handshake timed out"),
        };
        let Some((alpn, peer)) = tls::admitted(&connection) else {
            tracing::debug!(%remote, "denied: this certificate may not speak this protocol");
            return connection.close(close::DENIED, b"");
        };
        let guest = Guest { peer, remote, alpn };
        let _entry = self.open.enter(&connection, &guest);
        if let Err(refusal) = self.gate.admits(&guest.peer) {
            return refuse(&connection, &guest, &refusal);
        }
        let kind = match &guest.peer {
            Peer::Nobody => Some(&self.joiners),
            Peer::User { .. } => Some(&self.users),
            Peer::Node { .. } => None,
        };
        let place = kind.map(|places| places.clone().try_acquire_owned());
        let Ok(_place_of_kind) = place.transpose() else {
            return connection.close(close::BUSY, b"");
        };
        if !greet(&connection, remote).await {
            return connection.close(close::MALFORMED, b"");
        }
        drop(handshake);
        let _wide = self.widen(&connection, &guest.peer);
        tracing::debug!(%remote, peer = ?guest.peer, "connected");
        if guest.peer == Peer::Nobody {
            let _ = timeout(JOINER_LIFE_MAX, self.accept_streams(&connection, &guest)).await;
            connection.close(close::DONE, b"");
        } else {
            self.accept_streams(&connection, &guest).await;
        }
    }

    /// Gives an authenticated peer the full windows, as long as that many fit into memory.
    fn widen(&self, connection: &quinn::Connection, peer: &Peer) -> Option<OwnedSemaphorePermit> {
        let place = match peer {
            Peer::Nobody => return None,
            Peer::User { .. } => Some(self.wide.clone().try_acquire_owned().ok()?),
            Peer::Node { .. } => None,
        };
        connection.set_receive_window(VarInt::from_u32(WINDOW_BYTES));
        connection.set_send_window(u64::from(WINDOW_BYTES));
        place
    }

    /// What one connection's frames may take.
    fn budget(&self, peer: &Peer) -> Budget {
        let (own, frame_max) = match peer {
            Peer::Nobody => (JOINER_FRAMES_KIB_MAX, JOINER_FRAME_BYTES_MAX),
            Peer::User { .. } | Peer::Node { .. } => (CONNECTION_FRAMES_KIB_MAX, FRAME_BYTES_MAX),
        };
        Budget {
            all: self.frames.clone(),
            own: Arc::new(Semaphore::new(own)),
            frame_max,
        }
    }

    /// Whether one more request may be served; only those to join are counted.
    fn takes_another(&self, guest: &Guest) -> bool {
        guest.alpn != ALPN_JOIN || self.joins.lock().take(self.env.clock.now())
    }

    /// Serves streams until the connection ends.
    async fn accept_streams(&self, connection: &quinn::Connection, guest: &Guest) {
        let max = match guest.peer {
            Peer::Nobody => JOINER_STREAMS_MAX,
            _ => STREAMS_MAX as usize,
        };
        let places = Arc::new(Semaphore::new(max));
        let budget = self.budget(&guest.peer);
        let mut accepted = 0u32;
        loop {
            let Ok(place) = places.clone().acquire_owned().await else {
                return;
            };
            let halves = match connection.accept_bi().await {
                Ok(halves) => halves,
                Err(error) => {
                    return tracing::debug!(remote = %guest.remote, %error, "disconnected");
                }
            };
            accepted = accepted.saturating_add(1);
            if accepted == STREAMS_SHOWN && guest.peer != Peer::Nobody {
                connection.set_max_concurrent_bi_streams(VarInt::from_u32(STREAMS_MAX));
            }
            let stream = Stream::counted(halves, guest.remote, budget.clone());
            // Counted before the look at `stopping`: `idle` misses no stream that is begun.
            let counted = Serving::begin(&self.serving);
            if *self.stopping.borrow() || !self.takes_another(guest) {
                stream.abort(abort::NOT_SERVED);
                continue;
            }
            let serving = serve_stream(self.service.clone(), guest.clone(), stream);
            let whole = async move {
                serving.await;
                drop((counted, place));
            };
            self.env.spawn.spawn("serve a stream", Box::pin(whole));
        }
    }
}

fn refuse(connection: &quinn::Connection, guest: &Guest, refusal: &Refusal) {
    let Guest { peer, remote, .. } = guest;
    let (code, why) = match refusal {
        Refusal::Denied(why) => (close::DENIED, why),
        Refusal::NotNow(why) => (close::NOT_NOW, why),
    };
    tracing::debug!(%remote, ?peer, why, "refused");
    connection.close(code, reason_bytes(why));
}

async fn greet(connection: &quinn::Connection, remote: SocketAddr) -> bool {
    let greeting = async {
        let halves = connection.accept_bi().await.ok()?;
        // Whoever it is has not been let in yet: no more than a greeting is taken.
        let budget = Budget {
            all: Arc::new(Semaphore::new(GREETING_KIB)),
            own: Arc::new(Semaphore::new(GREETING_KIB)),
            frame_max: GREETING_BYTES_MAX,
        };
        answer_greeting(Stream::counted(halves, remote, budget))
            .await
            .ok()
    };
    matches!(timeout(HANDSHAKE_MAX, greeting).await, Ok(Some(())))
}

async fn serve_stream(service: Arc<dyn Service>, guest: Guest, mut stream: Stream) {
    match stream.wait_first().await {
        Ok(true) => {}
        // Opened and ended, or never begun: nothing to serve.
        Ok(false) => return,
        Err(_) => return stream.abort(abort::STALLED),
    }
    let incoming = Incoming {
        peer: guest.peer,
        remote: guest.remote,
        alpn: guest.alpn,
        stream,
    };
    service.serve(incoming).await;
}

/// IPv4 as IPv4 on a socket that takes both.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
