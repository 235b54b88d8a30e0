//! Ed25519 keys as bytes, and the check of what one has signed. Called by the other files of
//! `cluster` only.

use crate::env::Rng;
use crate::error::{Error, Result};
use rcgen::{KeyPair, PKCS_ED25519};
use ring::signature::{ED25519, UnparsedPublicKey};
use rustls_pki_types::PrivatePkcs8KeyDer;
use x509_parser::oid_registry::OID_SIG_ED25519;
use x509_parser::x509::{AlgorithmIdentifier, SubjectPublicKeyInfo};
use zeroize::Zeroizing;

/// Bytes of a public key.
pub(super) const PUBLIC_BYTES: usize = 32;
/// DER of an Ed25519 private key (RFC 8410, PKCS #8 version 1) up to its 32 bytes.
const ED25519_PKCS8_HEAD: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// A new private key: DER, PKCS #8.
pub(super) fn new_key(rng: &dyn Rng) -> Zeroizing<Vec<u8>> {
    let bytes = ED25519_PKCS8_HEAD.len() + 32;
    // Its whole size at once: a buffer that grew would leave a copy behind.
    let mut der = Zeroizing::new(Vec::with_capacity(bytes));
    der.extend_from_slice(&ED25519_PKCS8_HEAD);
    der.resize(bytes, 0);
    rng.fill(&mut der[ED25519_PKCS8_HEAD.len()..]);
    der
}

/// # Errors
/// `corrupt` when it is not an Ed25519 key.
pub(super) fn key_pair(der: &[u8]) -> Result<KeyPair> {
    KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(der), &PKCS_ED25519)
        .map_err(|_| Error::corrupt("malformed private key (not Ed25519 in PKCS #8)"))
}

/// The raw public key in a certificate or request; `None` when it is not an Ed25519 key.
pub(super) fn public_key(info: &SubjectPublicKeyInfo<'_>) -> Option<[u8; PUBLIC_BYTES]> {
    if !is_ed25519(&info.algorithm) || info.subject_public_key.unused_bits != 0 {
        return None;
    }
    info.subject_public_key.data.as_ref().try_into().ok()
}

/// Whether `key` has signed `message`; false as well for a signature that is not Ed25519.
pub(super) fn has_signed(
    key: &[u8; PUBLIC_BYTES],
    message: &[u8],
    algorithm: &AlgorithmIdentifier<'_>,
    signature: &[u8],
) -> bool {
    is_ed25519(algorithm)
        && UnparsedPublicKey::new(&ED25519, key)
            .verify(message, signature)
            .is_ok()
}

/// RFC 8410: the identifier has no parameters.
fn is_ed25519(algorithm: &AlgorithmIdentifier<'_>) -> bool {
    algorithm.algorithm == OID_SIG_ED25519 && algorithm.parameters.is_none()
}
