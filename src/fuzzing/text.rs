//! What people and other programs write as text: identities, certificates, settings, names.

use crate::cluster::{
    Authority, Identity, JoinToken, KeyRequest, Seal, Validity, request_key_hash,
};
use crate::config::{self, Config, units};
use crate::env::sim::SeededRng;
use crate::types::{
    CertificateFacts, ChunkHash, ClusterId, Credentials, DfsPath, Name, Subject, WallTime,
    cluster_of,
};
use std::path::Path;

/// The text in bytes that may not be all text.
fn text_of(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

pub(super) fn identity(bytes: &[u8]) {
    let text = text_of(bytes);
    if let Ok(identity) = Identity::parse(Path::new("identity.dfs"), &text) {
        identity.cluster().expect("parsing read the certificate");
        identity.user().expect("parsing read the certificate");
    }
}

const CLUSTER: ClusterId = ClusterId([9; 16]);

fn validity() -> Validity {
    Validity::days(WallTime(1_790_000_000_000), 365)
}

fn authority() -> Authority {
    Authority::create(&SeededRng::new(1), CLUSTER, validity()).expect("a CA of these values")
}

fn subject() -> Subject {
    Subject::user("ann", "staff", true).expect("good names")
}

fn credentials() -> Credentials {
    authority()
        .issue(&SeededRng::new(2), &subject(), 7, validity(), &[])
        .expect("a certificate of these values")
}

pub(super) fn identities() -> Vec<Vec<u8>> {
    let identity = Identity {
        addresses: vec!["10.0.0.1:7440".into()],
        credentials: credentials(),
    };
    let text = identity.to_text().expect("a whole identity");
    vec![text.as_bytes().to_vec()]
}

pub(super) fn certificate(bytes: &[u8]) {
    let _ = cluster_of(bytes);
    if let Ok(facts) = CertificateFacts::read(bytes) {
        facts.subject.check().expect("reading checked it");
    }
}

pub(super) fn certificates() -> Vec<Vec<u8>> {
    let mut credentials = credentials();
    vec![credentials.chain.swap_remove(0), credentials.ca]
}

/// What is not refused becomes a certificate of what was asked for, whoever asked.
pub(super) fn certificate_request(bytes: &[u8]) {
    let hash = request_key_hash(bytes);
    let signed = authority().sign_request(bytes, &subject(), 7, validity(), &[]);
    assert_eq!(hash.is_ok(), signed.is_ok());
    if let Ok(der) = signed {
        let facts = CertificateFacts::read(&der).expect("made a moment ago");
        assert_eq!((facts.subject, facts.serial), (subject(), 7));
    }
}

pub(super) fn certificate_requests() -> Vec<Vec<u8>> {
    let request = KeyRequest::new(&SeededRng::new(3)).expect("a request");
    vec![request.request_der().to_vec()]
}

/// Nobody without the seal makes anything that opens.
pub(super) fn sealed_authority(bytes: &[u8]) {
    if let Ok(opened) = seal().open(CLUSTER, bytes) {
        assert_eq!(opened.certificate(), authority().certificate());
    }
}

pub(super) fn sealed_authorities() -> Vec<Vec<u8>> {
    vec![seal().seal(&SeededRng::new(4), &authority())]
}

fn seal() -> Seal {
    Seal::from_key(&[7; 32])
}

pub(super) fn config(bytes: &[u8]) {
    let text = text_of(bytes);
    match Config::parse("dfs.toml", &text) {
        Ok(config) => drop(config.server.settings(&|_| None)),
        Err(error) => assert_eq!(error.code, crate::error::Code::Usage, "{error}"),
    }
}

pub(super) fn configs() -> Vec<Vec<u8>> {
    let whole = "[client]\ncluster = [\"a:1\", \"[::1]:2\"]\ntimeout = \"30s\"\nwindow = \"64MiB\"\n\
                 identity = \"/i\"\n[server]\ndata = \"/d\"\nlisten = \"0.0.0.0:7440\"\n\
                 advertise = \"h:1\"\nzone = \"z\"\nrack = \"r\"\ncapacity = \"1.5TiB\"\n\
                 inline_size = 4096\nchunk_size = \"16MiB\"\ngrace = \"24h\"\nkeep_versions = 10\n\
                 keep_for = \"30d\"\nupload_ttl = \"1h30m\"\nfold_size = \"64MiB\"\n\
                 fold_after = \"2s\"\n";
    [
        "",
        whole,
        "[server]\nlisten = 7\n",
        "[x]\n",
        "[client]\ncluster = [[[\"a:1\"]]]",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}

/// Names, paths, subjects, tokens, sizes, durations, addresses. What is accepted comes back as itself.
pub(super) fn names(bytes: &[u8]) {
    let text = &*text_of(bytes);
    if let Ok(path) = DfsPath::parse(text) {
        assert_eq!(DfsPath::parse(path.as_str()).expect("normalised"), path);
        assert!(path.as_str().len() <= crate::limits::PATH_BYTES_MAX);
        if let (Some(parent), Some(name)) = (path.parent(), path.name()) {
            assert_eq!(parent.join(&name).expect("it was a path"), path);
            assert!(path.is_at_or_below(&parent));
        }
        assert_eq!(path.names().count(), path.depth());
    }
    if let Ok(name) = Name::parse(text) {
        assert!(!name.as_str().contains('/') && name.as_str() != "..");
    }
    if let Ok(subject) = Subject::parse(text) {
        assert_eq!(subject.to_string(), text);
    }
    if let Ok(token) = JoinToken::parse(text) {
        let again = JoinToken::parse(&token.to_string()).expect("a token");
        assert_eq!(again.secret_hash(), token.secret_hash());
    }
    if let Ok(size) = units::parse_size(text) {
        assert_eq!(
            units::parse_size(&units::exact_size(size)).expect("exact"),
            size
        );
        let _ = units::human_size(size);
    }
    if let Ok(duration) = units::parse_duration(text) {
        assert_eq!(
            units::parse_duration(&units::exact_duration(duration)).expect("exact"),
            duration
        );
    }
    if let Some(hash) = ChunkHash::parse(text) {
        assert_eq!(hash.to_string(), text.to_ascii_lowercase());
    }
    let _ = (units::parse_mode(text), units::parse_range(text));
    let _ = (
        config::addresses(text),
        config::listen(text),
        config::place(text),
    );
}

pub(super) fn name_samples() -> Vec<Vec<u8>> {
    let long = "/x".repeat(255);
    let hash = ChunkHash([0xab; 32]).to_string();
    let signs = "+a".repeat(32);
    let token = JoinToken::create(&SeededRng::new(1), 7, b"ca").to_string();
    [
        "/",
        "/a//b/../c",
        "/a/b\0",
        "//é/日本",
        &long,
        "node:17",
        "admin:ann:staff",
        "1.5GiB",
        "16384PiB",
        "1h30m",
        "0644",
        "0-99",
        "h:1,[::1]:2",
        "0.0.0.0:7440",
        "rack-1",
        &hash,
        &signs,
        &token,
        "..",
        "18446744073709551615h",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}
