//! Pure: certificates and keys as bytes, and what stands in a certificate. Made by `cluster`,
//! used by `net`. Reading a certificate here proves nothing: whoever believes it must have
//! verified its chain first.

use super::ids::{ClusterId, WallTime};
use super::subject::Subject;
use crate::error::{Code, Error, Result};
use std::fmt;
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

/// One identity: what a node or a client needs to prove itself and to check the other end.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// DER certificates: the holder's first, then intermediate ones, without the CA. Not empty.
    pub chain: Vec<Vec<u8>>,
    /// Private key of `chain[0]`: DER, PKCS #8. Wiped when dropped.
    pub key: Zeroizing<Vec<u8>>,
    /// The cluster's CA certificate: DER. The only root that is believed.
    pub ca: Vec<u8>,
}

impl Credentials {
    /// What the holder's certificate says.
    ///
    /// # Errors
    /// `corrupt` when it is missing or not a certificate of a node or user.
    pub fn facts(&self) -> Result<CertificateFacts> {
        let leaf = self
            .chain
            .first()
            .ok_or_else(|| malformed("no certificate"))?;
        CertificateFacts::read(leaf)
    }
}

impl fmt::Debug for Credentials {
    /// The key never shows.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field(
                "subject",
                &self.facts().map(|facts| facts.subject.to_string()).ok(),
            )
            .field("key", &"[hidden]")
            .finish_non_exhaustive()
    }
}

/// What a certificate of a node or user says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    pub subject: Subject,
    /// From the subject's organisation.
    pub cluster: ClusterId,
    pub serial: u64,
    /// Valid from, to the second.
    pub not_before: WallTime,
    /// Valid to, to the second.
    pub not_after: WallTime,
}

impl CertificateFacts {
    /// Reads a DER certificate. Takes any bytes.
    ///
    /// # Errors
    /// `corrupt` when it is not a certificate of a node or user of a cluster.
    pub fn read(der: &[u8]) -> Result<CertificateFacts> {
        let certificate = parse(der)?;
        let name = certificate.subject();
        let common = single(name.iter_common_name())?;
        let subject = Subject::parse(common).map_err(|e| malformed(&e.message))?;
        let validity = certificate.validity();
        Ok(CertificateFacts {
            subject,
            cluster: organisation(&certificate)?,
            serial: serial(certificate.raw_serial())?,
            not_before: wall(validity.not_before.timestamp())?,
            not_after: wall(validity.not_after.timestamp())?,
        })
    }
}

/// The cluster named by any DER certificate of one, the CA's included. Takes any bytes.
///
/// # Errors
/// `corrupt` when it names none.
pub fn cluster_of(der: &[u8]) -> Result<ClusterId> {
    organisation(&parse(der)?)
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>> {
    let (rest, certificate) =
        X509Certificate::from_der(der).map_err(|_| malformed("not X.509 in DER"))?;
    if !rest.is_empty() {
        return Err(malformed("bytes behind its end"));
    }
    Ok(certificate)
}

fn organisation(certificate: &X509Certificate<'_>) -> Result<ClusterId> {
    let text = single(certificate.subject().iter_organization())?;
    ClusterId::parse(text).ok_or_else(|| malformed("it names no cluster"))
}

/// The only value of an attribute: of two, another reader might believe the other one.
fn single<'a>(
    mut values: impl Iterator<Item = &'a x509_parser::x509::AttributeTypeAndValue<'a>>,
) -> Result<&'a str> {
    match (values.next(), values.next()) {
        (Some(value), None) => value
            .as_str()
            .map_err(|_| malformed("a part of its subject is not text")),
        _ => Err(malformed("its subject is not of a dfs cluster")),
    }
}

fn serial(raw: &[u8]) -> Result<u64> {
    let digits = match raw {
        [0, rest @ ..] if !rest.is_empty() => rest,
        _ => raw,
    };
    if digits.is_empty() || digits.len() > 8 {
        return Err(malformed("its serial number has more than 64 bits"));
    }
    Ok(digits
        .iter()
        .fold(0, |number, &byte| (number << 8) | u64::from(byte)))
}

fn wall(seconds: i64) -> Result<WallTime> {
    seconds
        .checked_mul(1_000)
        .map(WallTime)
        .ok_or_else(|| malformed("its validity is out of range"))
}

fn malformed(why: &str) -> Error {
    Error::new(Code::Corrupt, format!("malformed certificate ({why})"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn debug_hides_the_key() {
        let credentials = Credentials {
            chain: vec![vec![1]],
            key: Zeroizing::new(vec![42; 32]),
            ca: vec![],
        };
        let shown = format!("{credentials:?}");
        assert!(shown.contains("hidden") && !shown.contains("42"), "{shown}");
    }

    #[test]
    fn serial_numbers_of_64_bits_at_most() {
        assert_eq!(
            serial(&[0, 0xff, 0, 0, 0, 0, 0, 0, 1]).unwrap(),
            0xff00_0000_0000_0001
        );
        assert_eq!(serial(&[0]).unwrap(), 0);
        assert!(serial(&[1; 9]).is_err());
        assert!(serial(&[]).is_err());
    }

    proptest! {
        #[test]
        fn takes_any_bytes(bytes: Vec<u8>) {
            let _ = CertificateFacts::read(&bytes);
            let _ = cluster_of(&bytes);
        }
    }
}
