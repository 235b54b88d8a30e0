//! The seal: a key in the data directories of the root group's members, and what it closes, the
//! CA with its key as bytes that the cluster may keep in its records. Called by `node`. May not
//! decide who is given the seal.
//!
//! ```text
//! sealed CA:  version u8 (1) │ nonce 12 │ ChaCha20-Poly1305 of the CA's PEM │ tag 16
//! bound to:   "dfs 1 sealed CA" │ version u8 │ cluster id 16
//! ```
//! Nonces are drawn at random: a seal closes a CA a few times in its life, far from where two
//! could meet.

use super::authority::Authority;
use super::files::{FORMAT, from_text, malformed, read_text, to_text, write_private};
use crate::env::Rng;
use crate::error::{Code, Error, Result};
use crate::types::ClusterId;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};
use std::path::Path;
use zeroize::Zeroizing;

/// Bytes of the largest sealed CA that is opened. Ours have about 1 KiB.
pub const SEALED_BYTES_MAX: usize = 16 * 1_024;
/// The file in the data directory.
pub(super) const FILE: &str = "ca.seal";
const KEY_BYTES: usize = 32;
const VERSION: u8 = 1;
const PURPOSE: &[u8] = b"dfs 1 sealed CA";

/// The key. Whoever holds it and the sealed bytes can make any identity of the cluster.
#[derive(Clone)]
pub struct Seal {
    key: Zeroizing<[u8; KEY_BYTES]>,
}

/// The file: TOML.
#[derive(Serialize, Deserialize)]
struct SealText {
    /// 1.
    format: i64,
    /// 32 bytes in hexadecimal form.
    key: String,
}

impl Seal {
    /// A new one.
    pub fn create(rng: &dyn Rng) -> Seal {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        rng.fill(&mut *key);
        Seal { key }
    }

    /// One that another member sent.
    pub fn from_key(key: &[u8; KEY_BYTES]) -> Seal {
        let mut own = Zeroizing::new([0; KEY_BYTES]);
        own.copy_from_slice(key);
        Seal { key: own }
    }

    /// What a member that has none is sent.
    pub fn key(&self) -> &[u8; KEY_BYTES] {
        &self.key
    }

    /// Reads `DIR/ca.seal`; `None` if there is none.
    ///
    /// # Errors
    /// `corrupt` when it is malformed, `failed` when a newer dfs wrote it.
    pub fn load(dir: &Path) -> Result<Option<Seal>> {
        let path = dir.join(FILE);
        let Some(text) = read_text(&path)? else {
            return Ok(None);
        };
        let read: SealText = from_text(&path, "the data directory", &text)?;
        let key = key_of(&read.key).ok_or_else(|| malformed(&path, "`key` is not 32 bytes"))?;
        Ok(Some(Seal { key }))
    }

    /// Writes `DIR/ca.seal` (mode 0600), durably, replacing what is there.
    pub fn save(&self, dir: &Path) -> Result<()> {
        let text = SealText {
            format: FORMAT,
            key: self.key.iter().map(|byte| format!("{byte:02x}")).collect(),
        };
        write_private(&dir.join(FILE), &to_text(&text))
    }

    /// Closes a CA.
    pub fn seal(&self, rng: &dyn Rng, authority: &Authority) -> Vec<u8> {
        let mut nonce = [0; NONCE_LEN];
        rng.fill(&mut nonce);
        let mut text = Zeroizing::new(authority.to_pem().as_bytes().to_vec());
        let bound = bound_to(authority.cluster());
        let tag = self
            .cipher()
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), bound, &mut text)
            .expect("a CA is far shorter than the cipher's limit of 256 GiB");
        [&[VERSION][..], &nonce, &text, tag.as_ref()].concat()
    }

    /// Opens what [`Seal::seal`] made for this cluster. Takes any bytes.
    ///
    /// # Errors
    /// `denied` when it was closed with another seal, for another cluster, or was changed since;
    /// `failed` when a newer dfs wrote it; `corrupt` when it is no sealed CA.
    pub fn open(&self, cluster: ClusterId, sealed: &[u8]) -> Result<Authority> {
        let no_ca = |why: &str| Error::corrupt(format!("malformed sealed CA ({why})"));
        if sealed.len() > SEALED_BYTES_MAX {
            return Err(no_ca("longer than 16 KiB"));
        }
        let (version, rest) = sealed.split_first().ok_or_else(|| no_ca("it is empty"))?;
        if *version != VERSION {
            return Err(match *version {
                0 => no_ca("unknown version 0"),
                newer => Error::failed(format!(
                    "the CA was sealed by a newer dfs (version {newer}, this build reads {VERSION})"
                ))
                .hint("use the newer dfs"),
            });
        }
        let (nonce, closed) = rest
            .split_first_chunk::<NONCE_LEN>()
            .ok_or_else(|| no_ca("it is cut off"))?;
        let mut text = Zeroizing::new(closed.to_vec());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = self
            .cipher()
            .open_in_place(nonce, bound_to(cluster), &mut text)
            .map_err(|_| wrong_seal())?;
        let text = std::str::from_utf8(opened).map_err(|_| no_ca("not text"))?;
        let authority = Authority::from_pem(text)?;
        match authority.cluster() == cluster {
            true => Ok(authority),
            false => Err(no_ca("the CA of another cluster")),
        }
    }

    fn cipher(&self) -> LessSafeKey {
        let key = UnboundKey::new(&CHACHA20_POLY1305, &*self.key);
        LessSafeKey::new(key.expect("32 bytes are a key of this cipher"))
    }
}

impl std::fmt::Debug for Seal {
    /// The key never shows.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seal").finish_non_exhaustive()
    }
}

fn bound_to(cluster: ClusterId) -> Aad<Vec<u8>> {
    Aad::from([PURPOSE, &[VERSION], &cluster.0].concat())
}

fn wrong_seal() -> Error {
    let message = "the CA cannot be opened (it was sealed with another key than this node's)";
    Error::new(Code::Denied, message)
        .hint("put the right `ca.seal` back into the data directory, or ask another node")
}

fn key_of(text: &str) -> Option<Zeroizing<[u8; KEY_BYTES]>> {
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    if text.len() != 2 * KEY_BYTES {
        return None;
    }
    for (byte, pair) in key.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        for digit in pair {
            let value = char::from(*digit).to_digit(16)?;
            *byte = (*byte << 4) | u8::try_from(value).ok()?;
        }
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Validity, test_rng};
    use crate::types::WallTime;
    use proptest::prelude::*;
    use std::os::unix::fs::PermissionsExt;

    const HERE: ClusterId = ClusterId([1; 16]);

    fn authority() -> Authority {
        let validity = Validity::days(WallTime(1_790_000_000_000), 365);
        Authority::create(&test_rng(1), HERE, validity).unwrap()
    }

    #[test]
    fn what_was_closed_comes_back_and_looks_different_each_time() {
        let (seal, authority) = (Seal::create(&test_rng(2)), authority());
        let rng = test_rng(3);
        let sealed = seal.seal(&rng, &authority);
        assert_ne!(sealed, seal.seal(&rng, &authority));
        assert!(sealed.len() < 2_048);
        let again = seal.open(HERE, &sealed).unwrap();
        assert_eq!(again.to_pem(), authority.to_pem());
        let copy = Seal::from_key(seal.key());
        copy.open(HERE, &sealed).unwrap();
    }

    #[test]
    fn another_seal_another_cluster_and_changed_bytes_are_denied() {
        let (seal, other) = (Seal::create(&test_rng(2)), Seal::create(&test_rng(4)));
        let sealed = seal.seal(&test_rng(3), &authority());
        let denied = |seal: &Seal, cluster, sealed: &[u8]| {
            let error = seal.open(cluster, sealed).unwrap_err();
            assert_eq!(error.code, Code::Denied, "{error}");
            assert!(error.message.contains("another key"), "{error}");
        };
        denied(&other, HERE, &sealed);
        denied(&seal, ClusterId([2; 16]), &sealed);
        for at in 1..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            denied(&seal, HERE, &changed);
        }
    }

    #[test]
    fn a_newer_version_says_so_and_what_is_no_sealed_ca_is_corrupt() {
        let seal = Seal::create(&test_rng(2));
        let mut sealed = seal.seal(&test_rng(3), &authority());
        let code = |bytes: &[u8]| seal.open(HERE, bytes).unwrap_err().code;
        assert_eq!(code(&[]), Code::Corrupt);
        assert_eq!(code(&sealed[..12]), Code::Corrupt);
        assert_eq!(code(&vec![VERSION; SEALED_BYTES_MAX + 1]), Code::Corrupt);
        sealed[0] = 0;
        assert_eq!(code(&sealed), Code::Corrupt);
        sealed[0] = 2;
        let error = seal.open(HERE, &sealed).unwrap_err().to_string();
        assert!(
            error.contains("sealed by a newer dfs (version 2"),
            "{error}"
        );
    }

    #[test]
    fn the_file_comes_back_and_only_its_owner_may_read_it() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Seal::load(dir.path()).unwrap().is_none());
        let seal = Seal::create(&test_rng(2));
        seal.save(dir.path()).unwrap();
        let path = dir.path().join(FILE);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = Seal::load(dir.path()).unwrap().unwrap();
        assert_eq!(again.key(), seal.key());
        let text = std::fs::read_to_string(&path).unwrap();
        for bad in [
            "",
            "format = 1\nkey = \"00\"\n",
            &text.replace("key = \"", "key = \"+"),
            &text.replace("key = \"", "key = \"é"),
            &text[..text.len() / 2],
        ] {
            std::fs::write(&path, bad).unwrap();
            let error = Seal::load(dir.path()).unwrap_err();
            assert_eq!(error.code, Code::Corrupt, "{bad}");
            assert_eq!(error.path.as_deref(), path.to_str());
        }
    }

    /// `DFS_BLESS=1` writes `testdata/golden/sealed-ca.hex`.
    #[test]
    fn a_ca_that_was_sealed_before_is_still_opened() {
        let seal = Seal::from_key(&[7; 32]);
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/golden/sealed-ca.hex");
        if std::env::var_os("DFS_BLESS").is_some() {
            let sealed = seal.seal(&test_rng(3), &authority());
            let line = |line: &[u8]| line.iter().map(|b| format!("{b:02x}")).collect::<String>();
            let lines: Vec<String> = sealed.chunks(32).map(line).collect();
            std::fs::write(&file, lines.join("\n") + "\n").unwrap();
        }
        let text = std::fs::read_to_string(&file).unwrap();
        let digits: String = text.split_whitespace().collect();
        let pairs = digits.as_bytes().chunks(2);
        let sealed: Vec<u8> = pairs
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect();
        let opened = seal.open(HERE, &sealed).unwrap();
        assert_eq!(opened.cluster(), HERE);
    }

    #[test]
    fn debug_hides_the_key() {
        assert_eq!(format!("{:?}", Seal::from_key(&[42; 32])), "Seal { .. }");
    }

    proptest! {
        #[test]
        fn takes_any_bytes(bytes: Vec<u8>) {
            let seal = Seal::from_key(&[7; 32]);
            prop_assert!(seal.open(HERE, &bytes).is_err());
            let bytes = [&[VERSION][..], &bytes].concat();
            prop_assert!(seal.open(HERE, &bytes).is_err());
        }
    }
}
