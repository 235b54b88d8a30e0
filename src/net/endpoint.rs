//! The endpoint: one UDP socket, on which a process connects and, if it is a node, serves.
//! Called by `client` and `node`.

use super::connection::Connection;
use super::failure::{self, close, malformed};
use super::runtime::PatientRuntime;
use super::server::Server;
use super::settings::{DATAGRAM_BYTES_MAX, INCOMING_MAX, LINGER_MAX, Role, transport};
use super::stream::Stream;
use super::tls::{self, ClientTls, SERVER_NAME, ServerTls};
use super::{ALPN_JOIN, ALPN_NODE, Peer, ServerParts, socket};
use crate::env::{Env, Rng};
use crate::error::{Error, Result};
use quinn::crypto::{CryptoError, HmacKey};
use quinn::{
    AsyncUdpSocket, ConnectError, ConnectionId, ConnectionIdGenerator, EndpointConfig, Runtime,
};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Version of the framing and the greeting. A peer of a later version still understands this one
/// or says in its answer that it does not (0).
const FRAMING: u32 = 1;
/// The greeting may grow behind its first four bytes.
pub(super) const GREETING_BYTES_MAX: usize = 1_024;

/// A bound socket. Cheap to clone. Lives until [`Endpoint::close`]: dropping it ends nothing
/// that is being served.
#[derive(Clone)]
pub struct Endpoint {
    quic: quinn::Endpoint,
    env: Env,
    local: SocketAddr,
    serving: Option<Serving>,
}

/// The serving half, and what it was bound with.
#[derive(Clone)]
struct Serving {
    server: Arc<Server>,
    config: Arc<quinn::ServerConfig>,
}

impl Endpoint {
    /// Binds a UDP socket and serves; `server` `None` for a pure client. Must be called within a
    /// tokio runtime.
    ///
    /// # Errors
    /// `failed` or `denied` when the address cannot be bound, `corrupt` for unusable credentials.
    pub async fn bind(
        env: &Env,
        listen: SocketAddr,
        server: Option<ServerParts>,
    ) -> Result<Endpoint> {
        let runtime = Arc::new(PatientRuntime);
        let socket = runtime
            .wrap_udp_socket(socket::open(listen)?)
            .map_err(|e| Error::io("listen on UDP", listen.to_string(), &e))?;
        Self::on_socket(env, socket, runtime, server)
    }

    /// Sees that an address can be bound, before anything is made that a start would leave behind
    /// which cannot.
    ///
    /// # Errors
    /// As [`Endpoint::bind`].
    pub fn try_out(listen: SocketAddr) -> Result<()> {
        socket::try_out(listen)
    }

    /// This machine's address on the way to `to`; `None` where no way leads there. Sends nothing.
    pub fn own_ip_towards(to: SocketAddr) -> Option<IpAddr> {
        socket::own_ip_towards(to)
    }

    /// [`Endpoint::bind`] on a socket and timers that the caller made: for simulations.
    pub fn on_socket(
        env: &Env,
        socket: Arc<dyn AsyncUdpSocket>,
        runtime: Arc<dyn Runtime>,
        server: Option<ServerParts>,
    ) -> Result<Endpoint> {
        let failed = |e: std::io::Error| Error::failed(format!("cannot use the UDP socket ({e})"));
        let local = socket.local_addr().map_err(failed)?;
        // Made once: renewed credentials do not change it (see `mod.rs`).
        let secret = match &server {
            Some(parts) => *parts.tls.secret(),
            None => random32(&*env.rng),
        };
        let serving = server.map(|parts| Serving::new(env, parts)).transpose()?;
        let config = serving.as_ref().map(|serving| (*serving.config).clone());
        let endpoint_config = endpoint_config(&secret, env);
        let quic =
            quinn::Endpoint::new_with_abstract_socket(endpoint_config, config, socket, runtime)
                .map_err(failed)?;
        if let Some(Serving { server, .. }) = &serving {
            let accepting = server.clone().accept(quic.clone());
            env.spawn.spawn("accept connections", Box::pin(accepting));
        }
        Ok(Endpoint {
            quic,
            env: env.clone(),
            local,
            serving,
        })
    }

    /// Serves new connections with other credentials of the same node: renewed ones. Open
    /// connections stay as they are.
    ///
    /// # Errors
    /// `corrupt` for unusable credentials, `failed` for an endpoint that does not serve.
    pub fn renew(&self, tls: &ServerTls) -> Result<()> {
        let Some(serving) = &self.serving else {
            return Err(Error::failed("this endpoint does not serve"));
        };
        // Everything else stays, the key of the addresses' proofs too: those on their way hold.
        let mut config = (*serving.config).clone();
        config.crypto = Arc::new(tls.quic(&self.env.clock)?);
        self.quic.set_server_config(Some(config));
        Ok(())
    }

    /// Asks the gate again for every open connection that others made to this endpoint, closes
    /// those whose peers it denies, and returns how many they were. To be called when somebody
    /// was removed.
    pub fn recheck(&self) -> usize {
        self.serving
            .as_ref()
            .map_or(0, |serving| serving.server.recheck())
    }

    /// Where it is bound; the port that was taken if 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Connects with one of the ALPNs. Returns when the node has accepted the identity.
    ///
    /// # Errors
    /// `unavailable` when nobody answers in time or the node takes no more, `denied` when either
    /// side does not believe the other, `usage` for an address that cannot be connected to.
    pub async fn connect(
        &self,
        to: SocketAddr,
        alpn: &'static [u8],
        tls: &ClientTls,
        deadline: Duration,
    ) -> Result<Connection> {
        let config = self.client_config(alpn, tls)?;
        let connecting = self
            .quic
            .connect_with(config, to, SERVER_NAME)
            .map_err(|e| connect_failed(&e, to))?;
        match timeout(deadline, greeted(connecting, to, tls.is_pinned())).await {
            Ok(result) => result,
            Err(_) => Err(Error::unavailable(format!(
                "cannot reach {to} (no answer within {deadline:?})"
            ))
            .hint("check that the node runs and the address is right")),
        }
    }

    fn client_config(&self, alpn: &[u8], tls: &ClientTls) -> Result<quinn::ClientConfig> {
        if tls.is_pinned() && alpn != ALPN_JOIN {
            // Nobody would show the CA there.
            return Err(Error::usage("a token is for joining and nothing else"));
        }
        let role = if alpn == ALPN_NODE {
            Role::Peer
        } else {
            Role::Client
        };
        let mut config = quinn::ClientConfig::new(Arc::new(tls.quic(alpn, &self.env.clock)?));
        config.transport_config(Arc::new(transport(role)));
        let rng = self.env.rng.clone();
        config.initial_dst_cid_provider(Arc::new(move || ConnectionId::new(&rng.bytes16())));
        Ok(config)
    }

    /// Stops accepting: new connections and new streams are refused with "not executed". Streams
    /// in progress may finish for at most `grace`, then everything is closed. Returns when the
    /// peers have been told.
    pub async fn close(&self, grace: Duration) {
        if let Some(Serving { server, .. }) = &self.serving {
            server.stop();
            // Whatever is left after the grace time is cut off below.
            let _ = timeout(grace, server.idle()).await;
        }
        self.quic.close(close::STOPPING, b"");
        let _ = timeout(LINGER_MAX, self.quic.wait_idle()).await;
    }
}

impl Serving {
    fn new(env: &Env, parts: ServerParts) -> Result<Serving> {
        let mut config = quinn::ServerConfig::with_crypto(Arc::new(parts.tls.quic(&env.clock)?));
        config.transport_config(Arc::new(transport(Role::Server)));
        config.max_incoming(INCOMING_MAX);
        let server = Server::new(env.clone(), parts.service, parts.gate);
        Ok(Serving {
            server: Arc::new(server),
            config: Arc::new(config),
        })
    }
}

/// The client's half of the greeting; the server's is in `server`.
async fn greeted(
    connecting: quinn::Connecting,
    to: SocketAddr,
    pinned: bool,
) -> Result<Connection> {
    let failed = |e| match pinned {
        true => failure::of_joining(&e, to),
        false => failure::of_connection(&e, to),
    };
    let connection = connecting.await.map_err(failed)?;
    let peer = match tls::peer_of(&connection) {
        Some(peer @ Peer::Node { .. }) => peer,
        _ => return Err(malformed(to, "a certificate that is not a node's")),
    };
    let halves = connection.open_bi().await.map_err(failed)?;
    let mut stream = Stream::new(halves, to);
    stream.send_frame(&FRAMING.to_le_bytes()).await?;
    stream.finish()?;
    let answer = stream.recv_frame().await?;
    match answer.as_deref().and_then(read_greeting) {
        Some(version) if version >= FRAMING => Ok(Connection::new(connection, peer, to)),
        _ => Err(malformed(to, "no greeting").hint("use the same version of dfs on both")),
    }
}

/// The server's half.
pub(super) async fn answer_greeting(mut stream: Stream) -> Result<()> {
    let frame = stream.recv_frame().await?;
    if frame.as_deref().and_then(read_greeting).is_none() {
        return Err(Error::failed("no greeting"));
    }
    stream.send_frame(&FRAMING.to_le_bytes()).await?;
    stream.finish()
}

fn read_greeting(frame: &[u8]) -> Option<u32> {
    if frame.len() > GREETING_BYTES_MAX {
        return None;
    }
    let head = frame.first_chunk::<4>()?;
    Some(u32::from_le_bytes(*head)).filter(|version| *version > 0)
}

fn connect_failed(error: &ConnectError, to: SocketAddr) -> Error {
    match error {
        ConnectError::InvalidRemoteAddress(_) => Error::usage(format!(
            "cannot connect to {to} (not an address to connect to)"
        ))
        .hint("use HOST:PORT of a node, of the same IP version as this side's address"),
        ConnectError::EndpointStopping => {
            Error::unavailable(format!("cannot connect to {to} (this process is stopping)"))
        }
        other => Error::unavailable(format!("cannot connect to {to} ({other})")),
    }
}

fn endpoint_config(secret: &[u8; 32], env: &Env) -> EndpointConfig {
    let reset_key = blake3::derive_key("dfs 1 quic stateless reset", secret);
    let mut config = EndpointConfig::new(Arc::new(ResetKey(reset_key)));
    let rng = env.rng.clone();
    config
        .max_udp_payload_size(DATAGRAM_BYTES_MAX)
        .expect("between 1,200 and 65,527")
        .cid_generator(move || Box::new(ConnectionIds(rng.clone())))
        .rng_seed(Some(random32(&*env.rng)));
    config
}

fn random32(rng: &dyn Rng) -> [u8; 32] {
    let mut bytes = [0; 32];
    rng.fill(&mut bytes);
    bytes
}

/// Makes the tokens of stateless resets: the same after a restart.
struct ResetKey([u8; 32]);

impl ResetKey {
    fn tag(&self, data: &[u8]) -> blake3::Hash {
        blake3::keyed_hash(&self.0, data)
    }
}

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        signature_out.copy_from_slice(self.tag(data).as_bytes());
    }

    fn signature_len(&self) -> usize {
        blake3::OUT_LEN
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let tag = <[u8; blake3::OUT_LEN]>::try_from(signature).map_err(|_| CryptoError)?;
        // blake3 compares in constant time.
        match self.tag(data) == tag {
            true => Ok(()),
            false => Err(CryptoError),
        }
    }
}

/// Connection ids from the environment's randomness. None is recognised as foreign: packets of a
/// former life of this node must be answered with a reset.
struct ConnectionIds(Arc<dyn Rng>);

impl ConnectionIdGenerator for ConnectionIds {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&self.0.u64().to_le_bytes())
    }

    fn cid_len(&self) -> usize {
        8
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}
