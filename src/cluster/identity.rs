//! A client's identity file: all it needs to find a cluster and be believed there. Read by `cmd`
//! before it connects, written by `node` (the first administrator's) and by `login` (`place.rs`).

use super::files::{
    CredentialsText, FORMAT, from_text, malformed, parent_of, read_text, to_text, write_private,
};
use crate::error::{Code, Error, Result};
use crate::types::{ClusterId, Credentials, Subject, WallTime};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Addresses kept in an identity file: a client needs one that answers.
const ADDRESSES_MAX: usize = 64;

/// Who a client is, in which cluster, and where that cluster is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// `HOST:PORT` of nodes, the ones to try first in front. At most 64 are written.
    pub addresses: Vec<String>,
    pub credentials: Credentials,
}

/// The file: TOML.
#[derive(Serialize, Deserialize)]
struct IdentityText {
    /// 1.
    format: i64,
    /// For people; the certificate decides.
    cluster: String,
    /// For people; the certificate decides.
    user: String,
    addresses: Vec<String>,
    #[serde(flatten)]
    credentials: CredentialsText,
}

/// What [`install_for_user`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Installed {
    /// There was none; now there is.
    New(PathBuf),
    /// The same user's of the same cluster was replaced.
    Refreshed(PathBuf),
    /// Another user's or another cluster's is there and stays.
    KeptOther(PathBuf),
}

impl Identity {
    /// Reads an identity file. A key that other users may read is warned of in the log.
    ///
    /// # Errors
    /// `denied` when there is none (without an identity nobody is let in), `corrupt` when it is
    /// malformed.
    pub fn load(path: &Path) -> Result<Identity> {
        let text = read_text(path)?.ok_or_else(|| {
            Error::new(Code::Denied, "no identity (the file does not exist)")
                .at(path.display())
                .hint("name another file with --identity; a node keeps one in DIR/admin.dfs")
        })?;
        Self::parse(path, &text)
    }

    /// Takes the text of an identity file; `path` is for errors.
    ///
    /// # Errors
    /// `corrupt` when it is malformed, `failed` when a newer dfs wrote it.
    pub fn parse(path: &Path, text: &str) -> Result<Identity> {
        let read: IdentityText = from_text(path, "the identity", text)?;
        let identity = Identity {
            credentials: read.credentials.read(path)?,
            addresses: read.addresses,
        };
        if identity.addresses.len() > ADDRESSES_MAX {
            return Err(malformed(path, "more than 64 addresses"));
        }
        if identity.cluster()?.to_string() != read.cluster {
            return Err(malformed(path, "`cluster` is not the certificate's"));
        }
        Ok(identity)
    }

    /// Writes it, readable by the owner only, replacing what is there; makes the directory.
    pub fn save(&self, path: &Path) -> Result<()> {
        let text = self.to_text()?;
        let dir = parent_of(path);
        std::fs::create_dir_all(dir).map_err(|e| Error::io("create", dir, &e))?;
        write_private(path, &text)
    }

    /// The text of an identity file; it holds the key.
    pub fn to_text(&self) -> Result<Zeroizing<String>> {
        let facts = self.credentials.facts()?;
        Ok(to_text(&IdentityText {
            format: FORMAT,
            cluster: facts.cluster.to_string(),
            user: user_name(&facts.subject),
            addresses: self.addresses.iter().take(ADDRESSES_MAX).cloned().collect(),
            credentials: CredentialsText::new(&self.credentials),
        }))
    }

    /// The same identity with other addresses.
    pub fn with_addresses(mut self, addresses: Vec<String>) -> Identity {
        self.addresses = addresses;
        self
    }

    pub fn cluster(&self) -> Result<ClusterId> {
        Ok(self.credentials.facts()?.cluster)
    }

    /// User name, or `node N`.
    pub fn user(&self) -> Result<String> {
        Ok(user_name(&self.credentials.facts()?.subject))
    }

    /// True if `old` is of the same user of the same cluster.
    pub(super) fn renews(&self, old: &Identity) -> Result<bool> {
        let (there, new) = (old.credentials.facts()?, self.credentials.facts()?);
        // A cluster's id is drawn at random, but only the CA proves it is the same one.
        let same_ca = old.credentials.ca == self.credentials.ca;
        Ok(there.cluster == new.cluster && there.subject == new.subject && same_ca)
    }

    /// Wall time after which nobody believes it.
    pub fn expires(&self) -> Result<WallTime> {
        Ok(self.credentials.facts()?.not_after)
    }
}

/// Where a client looks without any flag: `$XDG_CONFIG_HOME/dfs/identity.dfs`, else
/// `~/.config/dfs/identity.dfs`.
///
/// # Errors
/// `denied` when the environment names no home.
pub fn default_identity_path() -> Result<PathBuf> {
    let absolute = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let config = absolute("XDG_CONFIG_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".config")))
        .ok_or_else(|| {
            Error::new(
                Code::Denied,
                "no identity (neither HOME nor XDG_CONFIG_HOME is set)",
            )
            .hint("name the identity file with --identity")
        })?;
    Ok(config.join("dfs").join("identity.dfs"))
}

/// Puts an identity where the user's client looks, unless that would replace another cluster's
/// or another user's.
pub fn install_for_user(identity: &Identity) -> Result<Installed> {
    install_at(&default_identity_path()?, identity)
}

/// [`install_for_user`] for a path.
///
/// # Errors
/// When the identity there cannot be read (it stays as it is) or the new one not be written.
fn install_at(path: &Path, identity: &Identity) -> Result<Installed> {
    let there = match Identity::load(path) {
        Ok(there) => Some(there),
        Err(e) if e.code == Code::Denied && !path.exists() => None,
        Err(e) => return Err(e),
    };
    let path = path.to_owned();
    if let Some(there) = &there
        && !identity.renews(there)?
    {
        return Ok(Installed::KeptOther(path));
    }
    identity.save(&path)?;
    Ok(match there {
        Some(_) => Installed::Refreshed(path),
        None => Installed::New(path),
    })
}

fn user_name(subject: &Subject) -> String {
    match subject {
        Subject::Node(id) => format!("node {id}"),
        Subject::User { name, .. } => name.clone(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::cluster::{Authority, Validity, test_rng};
    use std::os::unix::fs::PermissionsExt;

    const NOW: WallTime = WallTime(1_790_000_000_000);

    pub(crate) fn identity(cluster: u8, user: &str, seed: u64) -> Identity {
        let rng = test_rng(u64::from(cluster));
        let validity = Validity::days(NOW, 365);
        let authority = Authority::create(&rng, ClusterId([cluster; 16]), validity).unwrap();
        let subject = Subject::user(user, "staff", true).unwrap();
        let rng = test_rng(seed);
        let credentials = authority.issue(&rng, &subject, 5, validity, &[]).unwrap();
        Identity {
            addresses: vec!["127.0.0.1:7000".into(), "[::1]:7000".into()],
            credentials,
        }
    }

    #[test]
    fn comes_back_from_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/admin.dfs");
        let identity = identity(1, "alice", 7);
        identity.save(&path).unwrap();
        let again = Identity::load(&path).unwrap();
        assert_eq!(again, identity);
        assert_eq!(again.user().unwrap(), "alice");
        assert_eq!(again.cluster().unwrap(), ClusterId([1; 16]));
        assert_eq!(again.expires().unwrap(), Validity::days(NOW, 365).not_after);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("format = 1\n"), "{text}");
    }

    #[test]
    fn a_missing_file_says_how_to_get_one() {
        let error = Identity::load(Path::new("/nonexistent/identity.dfs")).unwrap_err();
        assert_eq!(error.code, Code::Denied);
        assert!(error.to_string().contains("admin.dfs"), "{error}");
        assert!(error.to_string().contains("--identity"), "{error}");
    }

    #[test]
    fn a_file_that_is_none_is_corrupt_whatever_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("i");
        identity(1, "alice", 7).save(&path).unwrap();
        let good = std::fs::read_to_string(&path).unwrap();
        let other = ClusterId([2; 16]).to_string();
        for bad in [
            good.replace("CERTIFICATE", "CERT"),
            good.replace("PRIVATE KEY", "KEY"),
            good.replace(&ClusterId([1; 16]).to_string(), &other),
            good.replace("certificate = ", "cert = "),
            good.chars().take(good.len() / 2).collect(),
            String::new(),
        ] {
            std::fs::write(&path, &bad).unwrap();
            let error = Identity::load(&path).unwrap_err();
            assert_eq!(error.code, Code::Corrupt, "{error}\n{bad}");
            assert_eq!(error.path.as_deref(), path.to_str());
        }
    }

    #[test]
    fn installs_once_refreshes_its_own_and_keeps_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dfs/identity.dfs");
        let install = |identity: &Identity| install_at(&path, identity).unwrap();
        let first = identity(1, "alice", 7);
        assert_eq!(install(&first), Installed::New(path.clone()));
        let renewed = identity(1, "alice", 8);
        assert_eq!(install(&renewed), Installed::Refreshed(path.clone()));
        for other in [identity(2, "alice", 9), identity(1, "bob", 9)] {
            assert_eq!(install(&other), Installed::KeptOther(path.clone()));
        }
        assert_eq!(Identity::load(&path).unwrap(), renewed);
        std::fs::write(&path, "damaged").unwrap();
        assert!(install_at(&path, &first).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "damaged");
    }
}
