//! A small world for the transport's tests: an environment, CAs, servers with one service.

use crate::env::{Clock, Env, real};
use crate::error::{Error, Result};
use crate::net::{
    ClientTls, Connection, Endpoint, Gate, Incoming, Peer, ServerParts, ServerTls, Service,
};
use crate::types::{ClusterId, Credentials, NodeId, Subject, WallTime};
use bytes::Bytes;
use futures::future::BoxFuture;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, PKCS_ED25519,
};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;
use tokio::runtime::Handle;
use zeroize::Zeroizing;

pub const WAIT: Duration = Duration::from_secs(10);
/// The wall clock of all tests, in seconds.
pub const NOW: i64 = 1_790_000_000;
const DAY: i64 = 86_400;

struct FixedClock;

impl Clock for FixedClock {
    fn now(&self) -> Duration {
        Duration::ZERO
    }
    fn slept(&self) -> Duration {
        Duration::ZERO
    }
    fn wall(&self) -> WallTime {
        WallTime(NOW * 1_000)
    }
}

/// The real one with a wall clock that stands still. Within a runtime only.
pub fn env() -> Env {
    Env {
        clock: Arc::new(FixedClock),
        ..real::env(Handle::current())
    }
}

/// A CA that signs whatever a test wants.
pub struct Ca {
    cluster: ClusterId,
    params: CertificateParams,
    key: KeyPair,
    der: Vec<u8>,
}

/// Of all certificates, where a test does not say.
pub const SERIAL: u64 = 77;
/// Valid from and to, in days from now.
pub const VALID: (i64, i64) = (-1, 30);

impl Ca {
    pub fn new(cluster: u8) -> Ca {
        let cluster = ClusterId([cluster; 16]);
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let mut params = params("dfs cluster CA", cluster, VALID);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let der = params.self_signed(&key).unwrap().der().to_vec();
        Ca {
            cluster,
            params,
            key,
            der,
        }
    }

    pub fn der(&self) -> &[u8] {
        &self.der
    }

    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    pub fn issue(&self, subject: &str, valid: (i64, i64)) -> Credentials {
        self.sign(self.cluster, subject, valid, SERIAL)
    }

    /// With another cluster's name, which no real CA does.
    pub fn issue_for(&self, cluster: ClusterId, subject: &str) -> Credentials {
        self.sign(cluster, subject, VALID, SERIAL)
    }

    fn sign(
        &self,
        cluster: ClusterId,
        subject: &str,
        valid: (i64, i64),
        serial: u64,
    ) -> Credentials {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let mut params = params(subject, cluster, valid);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if subject.starts_with("node") {
            let server = ExtendedKeyUsagePurpose::ServerAuth;
            params.extended_key_usages.push(server);
            let name = "node.dfs".try_into().unwrap();
            params.subject_alt_names = vec![rcgen::SanType::DnsName(name)];
        }
        params.serial_number = Some(serial.into());
        let issuer = Issuer::from_params(&self.params, &self.key);
        let certificate = params.signed_by(&key, &issuer).unwrap();
        Credentials {
            chain: vec![certificate.der().to_vec()],
            key: Zeroizing::new(key.serialize_der()),
            ca: self.der.clone(),
        }
    }

    pub fn node(&self, id: u64) -> Credentials {
        self.issue(&Subject::Node(NodeId(id)).to_string(), VALID)
    }

    /// The certificate of a node that renewed its own.
    pub fn renewed(&self, id: u64, serial: u64) -> Credentials {
        let subject = Subject::Node(NodeId(id)).to_string();
        self.sign(self.cluster, &subject, VALID, serial)
    }

    pub fn user(&self) -> Credentials {
        self.issue("user:alice:staff", VALID)
    }
}

fn params(common: &str, cluster: ClusterId, (from, to): (i64, i64)) -> CertificateParams {
    let date = |days: i64| OffsetDateTime::from_unix_timestamp(NOW + days * DAY).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let name = &mut params.distinguished_name;
    name.push(DnType::OrganizationName, cluster.to_string());
    name.push(DnType::CommonName, common);
    params.not_before = date(from);
    params.not_after = date(to);
    params
}

/// What the first frame asks for:
/// `who` peer and protocol; `sink` reads to the end, answers length and hash; `source N` sends N
/// bytes; `later` answers after 300 ms; `never` does not answer; `hang up` ends at once;
/// anything else comes back.
pub struct Echo;

impl Service for Echo {
    fn serve(&self, incoming: Incoming) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            // A peer that breaks off is what some tests are about.
            let _ = answer(incoming).await;
        })
    }
}

async fn answer(incoming: Incoming) -> Result<()> {
    let Incoming {
        peer,
        alpn,
        mut stream,
        ..
    } = incoming;
    let Some(request) = stream.recv_frame().await? else {
        return Ok(());
    };
    match &*request {
        b"who" => {
            let text = format!("{peer:?} {}", String::from_utf8_lossy(alpn));
            stream.send_frame(text.as_bytes()).await?;
        }
        b"sink" => {
            let (mut length, mut hash) = (0, blake3::Hasher::new());
            while let Some(part) = stream.recv_bytes(1 << 20).await? {
                length += part.len();
                hash.update(&part);
            }
            let text = format!("{length} {}", hash.finalize());
            stream.send_frame(text.as_bytes()).await?;
        }
        b"later" => {
            tokio::time::sleep(Duration::from_millis(300)).await;
            stream.send_frame(b"here").await?;
        }
        b"never" => std::future::pending().await,
        b"hang up" => return Ok(()),
        other if other.starts_with(b"source ") => {
            let text = std::str::from_utf8(&other[7..]).unwrap();
            stream.send_bytes(pattern(text.parse().unwrap())).await?;
        }
        other => stream.send_frame(other).await?,
    }
    stream.finish()
}

/// Bytes that show a swapped or lost block.
pub fn pattern(length: usize) -> Bytes {
    let mut out = vec![0; length];
    for (index, block) in out.chunks_mut(8).enumerate() {
        block.copy_from_slice(&(index as u64).to_le_bytes()[..block.len()]);
    }
    out.into()
}

pub fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

pub async fn server(credentials: &Credentials) -> Endpoint {
    server_at(credentials, loopback()).await.unwrap()
}

pub async fn server_at(credentials: &Credentials, listen: SocketAddr) -> Result<Endpoint> {
    let tls = ServerTls::new(credentials).unwrap();
    Endpoint::bind(&env(), listen, Some(ServerParts::new(tls, Arc::new(Echo)))).await
}

pub async fn server_with(tls: ServerTls) -> Endpoint {
    let env = env();
    let parts = ServerParts::new(tls, Arc::new(Echo));
    Endpoint::bind(&env, loopback(), Some(parts)).await.unwrap()
}

pub async fn gated(credentials: &Credentials, gate: Arc<dyn Gate>) -> Endpoint {
    let tls = ServerTls::new(credentials).unwrap();
    let parts = ServerParts::new(tls, Arc::new(Echo)).gate(gate);
    let env = env();
    Endpoint::bind(&env, loopback(), Some(parts)).await.unwrap()
}

/// What a connection to node `id` has at its other end.
pub fn node_peer(id: u64) -> Peer {
    Peer::Node {
        id: NodeId(id),
        serial: SERIAL,
    }
}

pub async fn client() -> Endpoint {
    Endpoint::bind(&env(), loopback(), None).await.unwrap()
}

pub async fn connect(
    to: &Endpoint,
    alpn: &'static [u8],
    tls: &ClientTls,
) -> Result<Connection, Error> {
    let client = client().await;
    client.connect(to.local_addr(), alpn, tls, WAIT).await
}

/// Server, connection of a user, and the CA of both.
pub async fn pair() -> (Endpoint, Connection, Ca) {
    let ca = Ca::new(1);
    let server = server(&ca.node(1)).await;
    let tls = ClientTls::new(&ca.user()).unwrap();
    let connection = connect(&server, crate::net::ALPN_CLIENT, &tls)
        .await
        .unwrap();
    assert_eq!(connection.peer(), node_peer(1));
    (server, connection, ca)
}
