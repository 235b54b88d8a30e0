//! Who is believed: rustls configurations from credentials, the two verifiers, and the peer of a
//! finished handshake. Called by `endpoint` and `server`. See `mod.rs` for the rules.

use super::pin::{PinVerifier, Shown};
use super::{ALPN_CLIENT, ALPN_JOIN, ALPN_NODE, Peer};
use crate::env::Clock;
use crate::error::{Code, Error, Result};
use crate::types::{CaPin, CertificateFacts, ClusterId, Credentials, Subject};
use quinn::crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The name that every node's certificate carries and every client asks for.
pub(super) const SERVER_NAME: &str = "node.dfs";

/// TLS of a node: its certificate and the cluster's CA.
#[derive(Clone)]
pub struct ServerTls {
    config: rustls::ServerConfig,
    /// What the endpoint's stable keys derive from.
    secret: [u8; 32],
}

/// TLS of a client or of a node that connects.
#[derive(Clone)]
pub struct ClientTls {
    config: rustls::ClientConfig,
    /// It believes whom a token names: for joining alone.
    pinned: bool,
}

impl ServerTls {
    /// # Errors
    /// `corrupt` when the parts do not fit together, `usage` for a certificate that is no node's.
    pub fn new(credentials: &Credentials) -> Result<ServerTls> {
        let facts = credentials.facts()?;
        if !matches!(facts.subject, Subject::Node(_)) {
            return Err(Error::usage(
                "cannot serve with this identity (it is not a node's)",
            ));
        }
        Self::unchecked(credentials, facts.cluster)
    }

    /// Whatever the certificate says.
    pub(super) fn unchecked(credentials: &Credentials, cluster: ClusterId) -> Result<ServerTls> {
        let provider = provider();
        let verifier = UserVerifier {
            inner: WebPkiClientVerifier::builder_with_provider(
                roots(&credentials.ca)?,
                provider.clone(),
            )
            .build()
            .map_err(|e| unusable(&e))?,
            cluster,
        };
        let own = CertifiedKey::from_der(chain(credentials), key(credentials), &provider)
            .map_err(|e| unusable(&e))?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| unusable(&e))?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::new(Shown::new(own, &credentials.ca)));
        config.alpn_protocols = [ALPN_NODE, ALPN_CLIENT, ALPN_JOIN]
            .map(<[u8]>::to_vec)
            .into();
        // Every connection is judged anew: a resumed one would skip the certificate's expiry.
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        let secret = blake3::derive_key("dfs 1 quic endpoint", &credentials.key);
        Ok(ServerTls { config, secret })
    }

    pub(super) fn secret(&self) -> &[u8; 32] {
        &self.secret
    }

    pub(super) fn quic(&self, clock: &Arc<dyn Clock>) -> Result<QuicServerConfig> {
        let mut config = self.config.clone();
        config.time_provider = Arc::new(WallClock(clock.clone()));
        QuicServerConfig::try_from(config).map_err(|e| unusable(&e))
    }
}

impl ClientTls {
    /// # Errors
    /// `corrupt` when the parts do not fit together.
    pub fn new(credentials: &Credentials) -> Result<ClientTls> {
        Self::unchecked(credentials, credentials.facts()?.cluster)
    }

    /// Whatever the certificate says.
    pub(super) fn unchecked(credentials: &Credentials, cluster: ClusterId) -> Result<ClientTls> {
        let config = Self::builder(&credentials.ca, cluster)?
            .with_client_auth_cert(chain(credentials), key(credentials))
            .map_err(|e| unusable(&e))?;
        Ok(Self::finished(config))
    }

    /// Of one who has no certificate yet but knows the cluster's CA: for `dfs-join/1` only.
    ///
    /// # Errors
    /// `corrupt` when it is not a CA's certificate (DER).
    #[cfg(test)]
    pub fn without_identity(ca: &[u8]) -> Result<ClientTls> {
        let config = Self::builder(ca, crate::types::cluster_of(ca)?)?.with_no_client_auth();
        Ok(Self::finished(config))
    }

    /// Of one who has nothing but a token, and so the pin of the cluster's CA: for `dfs-join/1`
    /// only, where a node shows the CA's certificate.
    ///
    /// # Errors
    /// None that is known of.
    pub fn pinned(pin: CaPin) -> Result<ClientTls> {
        let provider = provider();
        let verifier = PinVerifier {
            pin,
            provider: provider.clone(),
        };
        let config = Self::believing(provider, Arc::new(verifier))?.with_no_client_auth();
        Ok(ClientTls {
            pinned: true,
            ..Self::finished(config)
        })
    }

    fn builder(
        ca: &[u8],
        cluster: ClusterId,
    ) -> Result<rustls::ConfigBuilder<rustls::ClientConfig, rustls::client::WantsClientCert>> {
        let provider = provider();
        let verifier = node_verifier(ca, cluster, &provider)?;
        Self::believing(provider, Arc::new(verifier))
    }

    fn believing(
        provider: Arc<CryptoProvider>,
        verifier: Arc<dyn ServerCertVerifier>,
    ) -> Result<rustls::ConfigBuilder<rustls::ClientConfig, rustls::client::WantsClientCert>> {
        Ok(rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| unusable(&e))?
            .dangerous()
            .with_custom_certificate_verifier(verifier))
    }

    fn finished(mut config: rustls::ClientConfig) -> ClientTls {
        config.resumption = Resumption::disabled();
        config.enable_early_data = false;
        ClientTls {
            config,
            pinned: false,
        }
    }

    pub(super) fn is_pinned(&self) -> bool {
        self.pinned
    }

    pub(super) fn quic(&self, alpn: &[u8], clock: &Arc<dyn Clock>) -> Result<QuicClientConfig> {
        let mut config = self.config.clone();
        config.alpn_protocols = vec![alpn.to_vec()];
        config.time_provider = Arc::new(WallClock(clock.clone()));
        QuicClientConfig::try_from(config).map_err(|e| unusable(&e))
    }
}

/// Protocol and peer of a server's finished handshake, if the one may speak the other.
pub(super) fn admitted(connection: &quinn::Connection) -> Option<(&'static [u8], Peer)> {
    let data = connection.handshake_data()?;
    let protocol = data.downcast::<HandshakeData>().ok()?.protocol?;
    let alpn = [ALPN_NODE, ALPN_CLIENT, ALPN_JOIN]
        .into_iter()
        .find(|alpn| *alpn == protocol)?;
    let peer = peer_of(connection)?;
    let may = match (&peer, alpn) {
        (Peer::Node { .. }, _) => true,
        (Peer::User { .. }, alpn) => alpn != ALPN_NODE,
        (Peer::Nobody, alpn) => alpn == ALPN_JOIN,
    };
    may.then_some((alpn, peer))
}

/// The certificates that the other end of a finished handshake showed, its own first; `None` if
/// it showed none.
pub(super) fn chain_of(connection: &quinn::Connection) -> Option<Vec<CertificateDer<'static>>> {
    let identity = connection.peer_identity()?;
    let chain = identity.downcast::<Vec<CertificateDer<'static>>>();
    Some(*chain.expect("quinn's identities of rustls are chains"))
}

/// The other end of a finished handshake. `None` for a certificate that the verifiers would not
/// have let through.
pub(super) fn peer_of(connection: &quinn::Connection) -> Option<Peer> {
    let Some(chain) = chain_of(connection) else {
        return Some(Peer::Nobody);
    };
    let facts = CertificateFacts::read(chain.first()?).ok()?;
    Some(facts.into())
}

/// TLS 1.3 suites, AES-128 first (twice as fast as ChaCha where the processor has AES).
fn provider() -> Arc<CryptoProvider> {
    let cipher_suites = vec![
        ring::cipher_suite::TLS13_AES_128_GCM_SHA256,
        ring::cipher_suite::TLS13_AES_256_GCM_SHA384,
        ring::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    Arc::new(CryptoProvider {
        cipher_suites,
        ..ring::default_provider()
    })
}

fn roots(ca: &[u8]) -> Result<Arc<RootCertStore>> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from(ca.to_vec()))
        .map_err(|e| unusable(&e))?;
    Ok(Arc::new(roots))
}

fn chain(credentials: &Credentials) -> Vec<CertificateDer<'static>> {
    let chain = credentials.chain.iter();
    chain.map(|der| CertificateDer::from(der.clone())).collect()
}

fn key(credentials: &Credentials) -> PrivateKeyDer<'static> {
    PrivatePkcs8KeyDer::from(credentials.key.to_vec()).into()
}

fn unusable(error: &dyn fmt::Display) -> Error {
    Error::new(
        Code::Corrupt,
        format!("the identity cannot be used ({error})"),
    )
    .hint("take a new `admin.dfs` from the node's data directory")
}

/// Time for the expiry of certificates.
struct WallClock(Arc<dyn Clock>);

impl TimeProvider for WallClock {
    fn current_time(&self) -> Option<UnixTime> {
        let ms = u64::try_from(self.0.wall().0).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_millis(ms)))
    }
}

impl fmt::Debug for WallClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WallClock")
    }
}

/// A client's check of a server, with this CA as the only root.
pub(super) fn node_verifier(
    ca: &[u8],
    cluster: ClusterId,
    provider: &Arc<CryptoProvider>,
) -> Result<NodeVerifier> {
    let inner = WebPkiServerVerifier::builder_with_provider(roots(ca)?, provider.clone())
        .build()
        .map_err(|e| unusable(&e))?;
    Ok(NodeVerifier { inner, cluster })
}

/// What both verifiers ask beyond the chain: a certificate of this cluster with a subject of ours.
fn read(der: &CertificateDer<'_>, cluster: ClusterId) -> Result<Subject, rustls::Error> {
    match CertificateFacts::read(der) {
        Ok(facts) if facts.cluster == cluster => Ok(facts.subject),
        _ => Err(CertificateError::ApplicationVerificationFailure.into()),
    }
}

/// A client's check of a server: chain, dates and name by webpki, then: a node of the cluster.
#[derive(Debug)]
pub(super) struct NodeVerifier {
    inner: Arc<WebPkiServerVerifier>,
    cluster: ClusterId,
}

impl ServerCertVerifier for NodeVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.inner.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        )?;
        match read(end_entity, self.cluster)? {
            Subject::Node(_) => Ok(verified),
            Subject::User { .. } => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// A server's check of a client: chain and dates by webpki, then: anyone of the cluster. Who may
/// speak which protocol is judged after the handshake ([`admitted`]), as is having none at all.
#[derive(Debug)]
struct UserVerifier {
    inner: Arc<dyn ClientCertVerifier>,
    cluster: ClusterId,
}

impl ClientCertVerifier for UserVerifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self
            .inner
            .verify_client_cert(end_entity, intermediates, now)?;
        read(end_entity, self.cluster)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
