//! What one believes who knows a cluster only by the pin of its CA, out of a token; and what a
//! node shows to him. Called by `tls`.
//!
//! The CA's certificate itself travels in the handshake: on `dfs-join/1` a node shows it behind
//! its own. The joiner looks for it by the pin and then believes nothing else, so the first
//! handshake is as good as any later one.

use super::{ALPN_JOIN, tls};
use crate::types::{CaPin, cluster_of};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::Arc;

/// A joiner's check of a server: one of the certificates behind its own is the CA's by the pin;
/// then everything that any client asks, with that CA as the root.
#[derive(Debug)]
pub(super) struct PinVerifier {
    pub(super) pin: CaPin,
    pub(super) provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let mut behind = intermediates.iter();
        let ca = behind
            .find(|der| CaPin::of(der) == self.pin)
            .ok_or(CertificateError::UnknownIssuer)?;
        let unusable = |_| rustls::Error::from(CertificateError::BadEncoding);
        let cluster = cluster_of(ca).map_err(unusable)?;
        let verifier = tls::node_verifier(ca, cluster, &self.provider).map_err(unusable)?;
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

/// A node's certificate: alone, or with the CA's behind it for who asks for nothing but joining.
#[derive(Debug)]
pub(super) struct Shown {
    plain: Arc<CertifiedKey>,
    joining: Arc<CertifiedKey>,
}

impl Shown {
    pub(super) fn new(plain: CertifiedKey, ca: &[u8]) -> Shown {
        let mut chain = plain.cert.clone();
        chain.push(CertificateDer::from(ca.to_vec()));
        let joining = CertifiedKey::new(chain, plain.key.clone());
        Shown {
            plain: Arc::new(plain),
            joining: Arc::new(joining),
        }
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let mut protocols = hello.alpn().into_iter().flatten();
        let joining = protocols.next() == Some(ALPN_JOIN) && protocols.next().is_none();
        Some(match joining {
            true => self.joining.clone(),
            false => self.plain.clone(),
        })
    }
}
