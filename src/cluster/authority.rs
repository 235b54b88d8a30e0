//! The cluster's certificate authority: makes keys and signs certificates for nodes and users.
//! Called by `node` at the first start. May not decide who gets a certificate.

use super::files::{pem_of, pem_to_der};
use super::keys::{key_pair, new_key};
use super::request::RequestedKey;
use crate::env::Rng;
use crate::error::{Error, Result};
use crate::types::{ClusterId, Credentials, Subject, WallTime, cluster_of};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use std::net::IpAddr;
use time::OffsetDateTime;
use zeroize::Zeroizing;

/// Days a CA is valid: longer than any cluster's hardware; a CA is replaced by rotation.
pub const CA_DAYS: u32 = 20 * 365;
/// Days a node's certificate is valid.
pub const NODE_DAYS: u32 = 365;
/// Days the first administrator's certificate is valid.
pub const ADMIN_DAYS: u32 = 365;

/// Name that every node's certificate carries and every client asks for. Nodes are told apart by
/// subject, not by address: addresses change, and a node may have several. (`net::tls` has the
/// same name; the two modules do not see each other.)
const NODE_SERVER_NAME: &str = "node.dfs";
const DAY_MS: i64 = 24 * 3_600 * 1_000;

/// From when to when a certificate holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    pub not_before: WallTime,
    pub not_after: WallTime,
}

impl Validity {
    /// From a day ago (clocks of machines differ) for `days` days.
    pub fn days(now: WallTime, days: u32) -> Validity {
        Validity {
            not_before: WallTime(now.0.saturating_sub(DAY_MS)),
            not_after: WallTime(now.0.saturating_add(i64::from(days).saturating_mul(DAY_MS))),
        }
    }
}

/// A CA with its key. Whoever holds this can make any identity of the cluster.
#[derive(Clone)]
pub struct Authority {
    cluster: ClusterId,
    /// DER.
    certificate: Vec<u8>,
    /// DER, PKCS #8.
    key: Zeroizing<Vec<u8>>,
}

impl Authority {
    /// Makes a new CA.
    ///
    /// # Errors
    /// `failed` when the validity lies outside of what a certificate can say.
    pub fn create(rng: &dyn Rng, cluster: ClusterId, validity: Validity) -> Result<Authority> {
        let key = new_key(rng);
        let mut params = ca_params(cluster);
        set_validity(&mut params, validity)?;
        params.serial_number = Some(SerialNumber::from(rng.u64() >> 1 | 1));
        let certificate = params
            .self_signed(&key_pair(&key)?)
            .map_err(|e| failed("make the CA's certificate", &e))?;
        Ok(Authority {
            cluster,
            certificate: certificate.der().to_vec(),
            key,
        })
    }

    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The CA's certificate: DER.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// Certificate and key as PEM, one behind the other.
    pub fn to_pem(&self) -> Zeroizing<String> {
        let certificate = pem_of("CERTIFICATE", &self.certificate);
        let key = pem_of("PRIVATE KEY", &self.key);
        Zeroizing::new(format!("{}{}", *certificate, *key))
    }

    /// Reads what [`Authority::to_pem`] wrote. Takes any text.
    ///
    /// # Errors
    /// `corrupt` when it is not a CA with its key.
    pub fn from_pem(text: &str) -> Result<Authority> {
        let mut certificates = pem_to_der("CERTIFICATE", text)?;
        let mut keys = pem_to_der("PRIVATE KEY", text)?;
        let (Some(certificate), Some(key)) = (certificates.pop(), keys.pop()) else {
            return Err(Error::corrupt("not a CA (certificate or key is missing)"));
        };
        let authority = Authority {
            cluster: cluster_of(&certificate)?,
            certificate: certificate.to_vec(),
            key,
        };
        authority.check_key()?;
        Ok(authority)
    }

    /// Makes a key and a certificate for it.
    ///
    /// `serial` names the certificate in revocations: not 0, never used twice. `addresses` are a
    /// node's `HOST:PORT`; hosts that a certificate can hold stand in it for people to read, none
    /// is checked by anyone.
    ///
    /// # Errors
    /// `usage` for a subject with names that are not ones or serial 0.
    pub fn issue(
        &self,
        rng: &dyn Rng,
        subject: &Subject,
        serial: u64,
        validity: Validity,
        addresses: &[String],
    ) -> Result<Credentials> {
        let key = new_key(rng);
        let pair = key_pair(&key)?;
        let certificate = self.certify(&pair, subject, serial, validity, addresses)?;
        Ok(Credentials {
            chain: vec![certificate],
            key,
            ca: self.certificate.clone(),
        })
    }

    /// Makes a certificate (DER) for the key of a PKCS #10 request (DER, any bytes). Nothing else
    /// that the request asks for is looked at; the rest is as in [`Authority::issue`].
    ///
    /// # Errors
    /// `usage` when it is not a request that its key has signed, or the key is not Ed25519; else
    /// as [`Authority::issue`].
    pub fn sign_request(
        &self,
        request: &[u8],
        subject: &Subject,
        serial: u64,
        validity: Validity,
        addresses: &[String],
    ) -> Result<Vec<u8>> {
        let key = RequestedKey::read(request)?;
        self.certify(&key, subject, serial, validity, addresses)
    }

    fn certify(
        &self,
        key: &impl PublicKeyData,
        subject: &Subject,
        serial: u64,
        validity: Validity,
        addresses: &[String],
    ) -> Result<Vec<u8>> {
        subject.check()?;
        if serial == 0 {
            return Err(Error::usage("bad serial number of a certificate (0)"));
        }
        let mut params = leaf_params(subject, self.cluster, addresses)?;
        set_validity(&mut params, validity)?;
        params.serial_number = Some(SerialNumber::from(serial));
        let ca = ca_params(self.cluster);
        let issuer = Issuer::from_params(&ca, key_pair(&self.key)?);
        let certificate = params
            .signed_by(key, &issuer)
            .map_err(|e| failed("sign a certificate", &e))?;
        Ok(certificate.der().to_vec())
    }

    /// New credentials for the same subject when less than a third of `days` is left of the old
    /// ones; `None` while they last. They hold from when the old ones did, so that a clock that
    /// was once far ahead does not leave a certificate that nobody believes yet.
    ///
    /// # Errors
    /// `corrupt` when the old certificate cannot be read; else as [`Authority::issue`].
    pub fn renewed(
        &self,
        rng: &dyn Rng,
        old: &Credentials,
        serial: u64,
        (now, days): (WallTime, u32),
        addresses: &[String],
    ) -> Result<Option<Credentials>> {
        let facts = old.facts()?;
        let third = i64::from(days).saturating_mul(DAY_MS) / 3;
        if facts.not_after.0.saturating_sub(now.0) >= third {
            return Ok(None);
        }
        let fresh = Validity::days(now, days);
        let validity = Validity {
            not_before: facts.not_before.min(fresh.not_before),
            not_after: fresh.not_after,
        };
        self.issue(rng, &facts.subject, serial, validity, addresses)
            .map(Some)
    }

    /// The key is the certificate's: otherwise everything issued would be refused by everyone.
    fn check_key(&self) -> Result<()> {
        let pair = key_pair(&self.key)?;
        // The public key stands in the certificate as it is.
        let public = pair.public_key_raw();
        let held = self
            .certificate
            .windows(public.len())
            .any(|window| window == public);
        if held {
            return Ok(());
        }
        Err(Error::corrupt(
            "not a CA (its key belongs to another certificate)",
        ))
    }
}

impl std::fmt::Debug for Authority {
    /// The key never shows.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}

fn ca_params(cluster: ClusterId) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = name("dfs cluster CA", cluster);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn leaf_params(
    subject: &Subject,
    cluster: ClusterId,
    addresses: &[String],
) -> Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.distinguished_name = name(&subject.to_string(), cluster);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    if let Subject::Node(_) = subject {
        // Only nodes may be servers: a user's certificate fails every client's check.
        params
            .extended_key_usages
            .push(ExtendedKeyUsagePurpose::ServerAuth);
        params.subject_alt_names = alternative_names(addresses)?;
    }
    Ok(params)
}

fn alternative_names(addresses: &[String]) -> Result<Vec<SanType>> {
    let dns = |host: &str| {
        host.try_into()
            .map(SanType::DnsName)
            .map_err(|e| failed("name a host in a certificate", &e))
    };
    let mut names = vec![dns(NODE_SERVER_NAME)?];
    for address in addresses {
        let host = address
            .rsplit_once(':')
            .map_or(&**address, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(ip) = host.parse::<IpAddr>() {
            names.push(SanType::IpAddress(ip));
        } else if rustls_pki_types::DnsName::try_from(host).is_ok() {
            names.push(dns(host)?);
        }
    }
    names.dedup();
    Ok(names)
}

fn name(common: &str, cluster: ClusterId) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, cluster.to_string());
    name.push(DnType::CommonName, common);
    name
}

fn set_validity(params: &mut CertificateParams, validity: Validity) -> Result<()> {
    let date = |time: WallTime| {
        OffsetDateTime::from_unix_timestamp(time.0.div_euclid(1_000))
            .ok()
            // Before 1950 and after 9999 a certificate has no way to write a year.
            .filter(|date| (1950..=9999).contains(&date.year()))
            .ok_or_else(|| {
                Error::failed("the clock is far off (no certificate can say such a date)")
                    .hint("set this machine's date and time")
            })
    };
    params.not_before = date(validity.not_before)?;
    params.not_after = date(validity.not_after)?;
    Ok(())
}

fn failed(what: &str, error: &rcgen::Error) -> Error {
    Error::failed(format!("cannot {what} ({error})"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::test_rng;
    use crate::types::NodeId;
    use proptest::prelude::*;

    const NOW: WallTime = WallTime(1_790_000_000_000);

    #[test]
    fn issues_what_was_asked_for() {
        let rng = test_rng(1);
        let cluster = ClusterId([7; 16]);
        let authority = Authority::create(&rng, cluster, Validity::days(NOW, CA_DAYS)).unwrap();
        assert_eq!(cluster_of(authority.certificate()).unwrap(), cluster);
        let subjects = [
            Subject::Node(NodeId(3)),
            Subject::user("alice", "staff", false).unwrap(),
            Subject::user("x".repeat(32).as_str(), "y".repeat(32).as_str(), true).unwrap(),
        ];
        let addresses = [
            "10.0.0.1:7000",
            "[::1]:7000",
            "host.example:1",
            "bad_host!:9",
        ];
        let addresses = addresses.map(str::to_owned);
        for (serial, subject) in [
            (1, &subjects[0]),
            (255, &subjects[1]),
            (u64::MAX, &subjects[2]),
        ] {
            let validity = Validity::days(NOW, NODE_DAYS);
            let credentials = authority
                .issue(&rng, subject, serial, validity, &addresses)
                .unwrap();
            let facts = credentials.facts().unwrap();
            assert_eq!(&facts.subject, subject);
            assert_eq!((facts.cluster, facts.serial), (cluster, serial));
            assert_eq!(facts.not_before.0, NOW.0 - DAY_MS);
            assert_eq!(facts.not_after, validity.not_after);
            assert_eq!(credentials.ca, authority.certificate());
        }
    }

    #[test]
    fn renews_in_the_last_third_and_keeps_the_subject() {
        let rng = test_rng(5);
        let authority =
            Authority::create(&rng, ClusterId([7; 16]), Validity::days(NOW, CA_DAYS)).unwrap();
        let subject = Subject::user("alice", "staff", true).unwrap();
        let old = authority
            .issue(&rng, &subject, 1, Validity::days(NOW, 300), &[])
            .unwrap();
        let after = |days: i64| WallTime(NOW.0 + days * DAY_MS);
        let renewed = |now| authority.renewed(&rng, &old, 2, (now, 300), &[]).unwrap();
        assert!(renewed(NOW).is_none());
        assert!(renewed(after(199)).is_none());
        for now in [after(201), after(299), after(1_000)] {
            let facts = renewed(now).unwrap().facts().unwrap();
            assert_eq!((facts.subject, facts.serial), (subject.clone(), 2));
            assert_eq!(facts.not_before.0, NOW.0 - DAY_MS);
            assert_eq!(facts.not_after.0, now.0 + 300 * DAY_MS);
        }
    }

    #[test]
    fn comes_back_from_pem_and_still_issues() {
        let rng = test_rng(2);
        let validity = Validity::days(NOW, CA_DAYS);
        let authority = Authority::create(&rng, ClusterId([1; 16]), validity).unwrap();
        let again = Authority::from_pem(&authority.to_pem()).unwrap();
        assert_eq!(again.certificate(), authority.certificate());
        assert_eq!(again.key, authority.key);
        let node = Subject::Node(NodeId(1));
        again.issue(&rng, &node, 1, validity, &[]).unwrap();
    }

    #[test]
    fn refuses_a_key_of_another_ca_and_a_missing_part() {
        let rng = test_rng(3);
        let validity = Validity::days(NOW, CA_DAYS);
        let one = Authority::create(&rng, ClusterId([1; 16]), validity).unwrap();
        let two = Authority::create(&rng, ClusterId([1; 16]), validity).unwrap();
        let mixed = Authority {
            key: two.key.clone(),
            ..one.clone()
        };
        assert!(Authority::from_pem(&mixed.to_pem()).is_err());
        assert!(Authority::from_pem(&pem_of("CERTIFICATE", one.certificate())).is_err());
        assert!(Authority::from_pem("").is_err());
    }

    #[test]
    fn refuses_serial_zero_a_forged_name_and_an_impossible_date() {
        let rng = test_rng(4);
        let validity = Validity::days(NOW, CA_DAYS);
        let authority = Authority::create(&rng, ClusterId([1; 16]), validity).unwrap();
        let node = Subject::Node(NodeId(1));
        assert!(authority.issue(&rng, &node, 0, validity, &[]).is_err());
        let sly = Subject::User {
            name: "a:b".into(),
            group: "g".into(),
            admin: false,
        };
        assert!(authority.issue(&rng, &sly, 1, validity, &[]).is_err());
        let never = Validity::days(WallTime(i64::MAX), 1);
        assert!(authority.issue(&rng, &node, 1, never, &[]).is_err());
    }

    proptest! {
        #[test]
        fn takes_any_pem_text(text in ".*") {
            let _ = Authority::from_pem(&text);
        }
    }
}
