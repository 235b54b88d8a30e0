//! Requests for certificates (PKCS #10): made by whoever wants to join or to renew, read by the
//! CA. The private key never leaves the side that made it. Called by `node` and by `cmd`; the
//! reading half by `authority`.

use super::keys::{self, PUBLIC_BYTES, key_pair, new_key};
use crate::env::Rng;
use crate::error::{Error, Result};
use crate::types::{CertificateFacts, Credentials, SubjectKind, cluster_of};
use rcgen::{CertificateParams, DistinguishedName, PKCS_ED25519, PublicKeyData};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

/// Bytes of the largest request that is read. Ours have about 150; a longer one is not ours.
pub const REQUEST_BYTES_MAX: usize = 2 * 1_024;

/// A fresh key and the request for its certificate. The same value may be sent again and again.
pub struct KeyRequest {
    /// DER, PKCS #8.
    key: Zeroizing<Vec<u8>>,
    /// DER, PKCS #10.
    request: Vec<u8>,
}

impl KeyRequest {
    /// # Errors
    /// None that is known of.
    pub fn new(rng: &dyn Rng) -> Result<KeyRequest> {
        let key = new_key(rng);
        let mut params = CertificateParams::default();
        // Who the certificate is for is not the holder's to say.
        params.distinguished_name = DistinguishedName::new();
        let request = params
            .serialize_request(&key_pair(&key)?)
            .map_err(|e| Error::failed(format!("cannot request a certificate ({e})")))?;
        Ok(KeyRequest {
            key,
            request: request.der().to_vec(),
        })
    }

    /// What is sent: DER, PKCS #10.
    pub fn request_der(&self) -> &[u8] {
        &self.request
    }

    /// Key and certificate together, once the certificate (DER, any bytes) has come. `ca` (DER)
    /// must be believed already; dates are judged where the certificate is used.
    ///
    /// # Errors
    /// `corrupt` when it is not a certificate of this kind for this key by this CA.
    pub fn into_credentials(
        self,
        certificate: &[u8],
        ca: &[u8],
        kind: SubjectKind,
    ) -> Result<Credentials> {
        let refuse = |why: &str| {
            Err(Error::corrupt(format!(
                "the certificate that came is not the one asked for ({why})"
            )))
        };
        let facts = CertificateFacts::read(certificate)?;
        let (Some(leaf), Some(root)) = (parse(certificate), parse(ca)) else {
            return refuse("not X.509 in DER");
        };
        let own = key_pair(&self.key)?;
        if keys::public_key(leaf.public_key())
            .as_ref()
            .map(|key| &key[..])
            != Some(own.public_key_raw())
        {
            return refuse("it is for another key");
        }
        let by_ca = keys::public_key(root.public_key()).is_some_and(|key| {
            keys::has_signed(
                &key,
                leaf.tbs_certificate.as_ref(),
                &leaf.signature_algorithm,
                &leaf.signature_value.data,
            )
        });
        if !by_ca || leaf.issuer().as_raw() != root.subject().as_raw() {
            return refuse("it is signed by another CA");
        }
        if facts.subject.kind() != kind || cluster_of(ca)? != facts.cluster {
            return refuse("it is for another kind of holder, or another cluster");
        }
        Ok(Credentials {
            chain: vec![certificate.to_vec()],
            key: self.key,
            ca: ca.to_vec(),
        })
    }
}

impl std::fmt::Debug for KeyRequest {
    /// The key never shows.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyRequest").finish_non_exhaustive()
    }
}

fn parse(der: &[u8]) -> Option<X509Certificate<'_>> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Some(certificate),
        _ => None,
    }
}

/// What a token is spent on: the hash of the public key in a request (DER, any bytes).
///
/// # Errors
/// `usage` when it is not an Ed25519 key's request, signed by that key.
pub fn request_key_hash(request: &[u8]) -> Result<[u8; 32]> {
    let key = RequestedKey::read(request)?;
    Ok(blake3::derive_key("dfs 1 requested key", &key.0))
}

/// The public key of a request that it has signed itself: whoever sent it has the private one.
pub(super) struct RequestedKey([u8; PUBLIC_BYTES]);

impl RequestedKey {
    /// Takes any bytes.
    ///
    /// # Errors
    /// `usage`.
    pub(super) fn read(der: &[u8]) -> Result<RequestedKey> {
        if der.len() > REQUEST_BYTES_MAX {
            return Err(refused("longer than 2 KiB"));
        }
        let Ok(([], request)) = X509CertificationRequest::from_der(der) else {
            return Err(refused("not PKCS #10 in DER"));
        };
        let info = &request.certification_request_info;
        let key = keys::public_key(&info.subject_pki)
            .ok_or_else(|| refused("its key is not an Ed25519 key"))?;
        let signature = &request.signature_value;
        let possessed = signature.unused_bits == 0
            && keys::has_signed(
                &key,
                info.raw,
                &request.signature_algorithm,
                &signature.data,
            );
        match possessed {
            true => Ok(RequestedKey(key)),
            false => Err(refused("it is not signed by its own key")),
        }
    }
}

impl PublicKeyData for RequestedKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &PKCS_ED25519
    }
}

fn refused(why: &str) -> Error {
    Error::usage(format!("bad request for a certificate ({why})"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Authority, Validity, test_rng};
    use crate::error::Code;
    use crate::types::{ClusterId, NodeId, Subject, WallTime};
    use proptest::prelude::*;
    use rcgen::KeyPair;

    const NODE: Subject = Subject::Node(NodeId(4));

    fn validity() -> Validity {
        Validity::days(WallTime(1_790_000_000_000), 365)
    }

    fn authority(seed: u64, cluster: u8) -> Authority {
        Authority::create(&test_rng(seed), ClusterId([cluster; 16]), validity()).unwrap()
    }

    fn signed(authority: &Authority, request: &[u8], subject: &Subject) -> Result<Vec<u8>> {
        authority.sign_request(request, subject, 9, validity(), &["10.0.0.1:1".into()])
    }

    #[test]
    fn a_request_becomes_credentials_of_its_own_key() {
        let authority = authority(1, 1);
        let request = KeyRequest::new(&test_rng(2)).unwrap();
        assert!(request.request_der().len() < 256);
        let certificate = signed(&authority, request.request_der(), &NODE).unwrap();
        let key = request.key.clone();
        let credentials = request
            .into_credentials(&certificate, authority.certificate(), SubjectKind::Node)
            .unwrap();
        assert_eq!(credentials.key, key);
        assert_eq!(credentials.ca, authority.certificate());
        let facts = credentials.facts().unwrap();
        assert_eq!(
            (facts.subject, facts.serial, facts.cluster),
            (NODE, 9, authority.cluster())
        );
    }

    #[test]
    fn the_same_key_has_the_same_hash_and_another_one_another() {
        let hash = |seed| {
            let request = KeyRequest::new(&test_rng(seed)).unwrap();
            request_key_hash(request.request_der()).unwrap()
        };
        assert_eq!(hash(1), hash(1));
        assert_ne!(hash(1), hash(2));
        // Of two requests of one key too: what the request says beside it does not count.
        let key = key_pair(&new_key(&test_rng(1))).unwrap();
        let other = CertificateParams::new(vec!["evil.example".into()]).unwrap();
        let other = other.serialize_request(&key).unwrap();
        assert_eq!(request_key_hash(other.der()).unwrap(), hash(1));
    }

    #[test]
    fn what_a_request_asks_for_beside_its_key_is_not_granted() {
        let key = key_pair(&new_key(&test_rng(3))).unwrap();
        let mut greedy = CertificateParams::new(vec!["node.dfs".into()]).unwrap();
        greedy.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let cn = rcgen::DnType::CommonName;
        greedy.distinguished_name.push(cn, "admin:eve:root");
        let request = greedy.serialize_request(&key).unwrap();
        let user = Subject::user("eve", "staff", false).unwrap();
        let certificate = signed(&authority(1, 1), request.der(), &user).unwrap();
        assert_eq!(CertificateFacts::read(&certificate).unwrap().subject, user);
        let certificate = parse(&certificate).unwrap();
        assert!(!certificate.is_ca());
        assert!(certificate.subject_alternative_name().unwrap().is_none());
    }

    #[test]
    fn a_request_that_its_key_did_not_sign_is_refused() {
        // Another's public key in a request that is signed by the thief's.
        let (own, other) = (KeyRequest::new(&test_rng(1)), KeyRequest::new(&test_rng(2)));
        let (mut forged, other) = (own.unwrap().request, other.unwrap().request);
        let keys = [&forged, &other].map(|der| RequestedKey::read(der).unwrap().0);
        let at = forged.windows(32).position(|part| part == keys[0]).unwrap();
        forged[at..at + 32].copy_from_slice(&keys[1]);
        for result in [
            request_key_hash(&forged).map(drop),
            signed(&authority(1, 1), &forged, &NODE).map(drop),
        ] {
            let error = result.unwrap_err();
            assert_eq!(error.code, Code::Usage);
            assert!(
                error.message.contains("not signed by its own key"),
                "{error}"
            );
        }
        // Any bit of what is signed counts, and any of the signature (its end).
        let (_, parsed) = X509CertificationRequest::from_der(&other).unwrap();
        let info = parsed.certification_request_info.raw;
        let from = other
            .windows(info.len())
            .position(|part| part == info)
            .unwrap();
        for at in (from..from + info.len()).chain(other.len() - 64..other.len()) {
            for bit in 0..8 {
                let mut damaged = other.clone();
                damaged[at] ^= 1 << bit;
                assert!(
                    RequestedKey::read(&damaged).is_err(),
                    "byte {at}, bit {bit}"
                );
            }
        }
    }

    #[test]
    fn keys_that_are_not_ed25519_are_refused() {
        let ecdsa = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let request = CertificateParams::default()
            .serialize_request(&ecdsa)
            .unwrap();
        let mut requests = vec![request.der().to_vec()];
        // rcgen with ring makes no RSA keys; this one is of `openssl req`.
        requests.push(rsa_request());
        for request in requests {
            let error = request_key_hash(&request).unwrap_err();
            assert_eq!(error.code, Code::Usage);
            assert!(error.message.contains("not an Ed25519 key"), "{error}");
        }
    }

    /// `openssl req -new -newkey rsa:2048 -nodes -subj / -outform DER`.
    fn rsa_request() -> Vec<u8> {
        let text = include_str!("../../testdata/requests/rsa-2048.hex");
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        let pairs = digits
            .chunks(2)
            .map(|pair| std::str::from_utf8(pair).unwrap());
        pairs
            .map(|pair| u8::from_str_radix(pair, 16).unwrap())
            .collect()
    }

    #[test]
    fn too_long_cut_off_and_continued_requests_are_refused() {
        let request = KeyRequest::new(&test_rng(1)).unwrap().request;
        for cut in 0..request.len() {
            assert!(RequestedKey::read(&request[..cut]).is_err());
        }
        let mut longer = request.clone();
        longer.push(0);
        assert!(RequestedKey::read(&longer).is_err());
        longer.resize(REQUEST_BYTES_MAX + 1, 0);
        let error = RequestedKey::read(&longer).err().unwrap();
        assert!(error.message.contains("longer than 2 KiB"), "{error}");
    }

    #[test]
    fn a_certificate_that_was_not_asked_for_is_refused() {
        let (here, there) = (authority(1, 1), authority(2, 1));
        let request = || KeyRequest::new(&test_rng(5)).unwrap();
        let other = KeyRequest::new(&test_rng(6)).unwrap();
        let user = Subject::user("alice", "staff", false).unwrap();
        let good = signed(&here, request().request_der(), &NODE).unwrap();
        let mut damaged = good.clone();
        *damaged.last_mut().unwrap() ^= 1;
        for (certificate, why) in [
            (signed(&here, other.request_der(), &NODE), "another key"),
            (signed(&there, request().request_der(), &NODE), "another CA"),
            (signed(&here, request().request_der(), &user), "kind"),
            (Ok(damaged), "another CA"),
            (Ok(here.certificate().to_vec()), ""),
            (Ok(Vec::new()), ""),
        ] {
            let error = request()
                .into_credentials(&certificate.unwrap(), here.certificate(), SubjectKind::Node)
                .unwrap_err();
            assert_eq!(error.code, Code::Corrupt);
            assert!(error.message.contains(why), "{error}");
        }
        let done = request().into_credentials(&good, here.certificate(), SubjectKind::Node);
        done.unwrap();
    }

    #[test]
    fn debug_hides_the_key() {
        let shown = format!("{:?}", KeyRequest::new(&test_rng(1)).unwrap());
        assert_eq!(shown, "KeyRequest { .. }");
    }

    proptest! {
        #[test]
        fn takes_any_bytes(bytes: Vec<u8>, at: usize, byte: u8) {
            let authority = authority(1, 1);
            let _ = signed(&authority, &bytes, &NODE);
            let _ = request_key_hash(&bytes);
            let request = KeyRequest::new(&test_rng(1)).unwrap();
            let mut changed = request.request.clone();
            let at = at % changed.len();
            changed[at] = byte;
            let _ = request_key_hash(&changed);
            let _ = request.into_credentials(&bytes, authority.certificate(), SubjectKind::Node);
        }
    }
}
