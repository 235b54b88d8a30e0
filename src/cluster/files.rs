//! What all files of this layer share: reading with a bound, replacing atomically with mode 0600,
//! the format number, PEM. Called by the files' own modules only.

use crate::error::{Code, Error, Result};
use crate::types::Credentials;
use rustix::fs::{Mode, OFlags};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Format of everything this layer writes.
pub(super) const FORMAT: i64 = 1;
/// No file of this layer comes near this; a bigger one is not ours.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// Reads a file whole; `None` if there is none. Warns of keys that other users could read.
pub(super) fn read_text(path: &Path) -> Result<Option<Zeroizing<String>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io("open", path, &e)),
    };
    let metadata = file
        .metadata()
        .map_err(|e| Error::io("inspect", path, &e))?;
    if metadata.mode() & 0o077 != 0 && metadata.is_file() {
        tracing::warn!(
            path = %path.display(),
            mode = %format!("{:o}", metadata.mode() & 0o777),
            "other users may read this private key; run `chmod 600` on it"
        );
    }
    let mut text = Zeroizing::new(String::new());
    file.take(FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(|e| match e.kind() {
            ErrorKind::InvalidData => malformed(path, "not text"),
            _ => Error::io("read", path, &e),
        })?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(malformed(path, "longer than 256 KiB"));
    }
    Ok(Some(text))
}

/// Replaces `path` by a file with this text, readable by the owner only: after a crash at any
/// instant the old file or the new one is there, whole.
pub(super) fn write_private(path: &Path, text: &str) -> Result<()> {
    NewFile::create(path, ".tmp")?.place(text)
}

/// A file readable by the owner only, still empty and beside the name that it will get.
pub(super) struct NewFile {
    path: PathBuf,
    temporary: PathBuf,
    file: File,
    placed: bool,
}

impl NewFile {
    /// Makes it, as `path` with `suffix`; what lies there is left of a crash.
    pub(super) fn create(path: &Path, suffix: &str) -> Result<NewFile> {
        let temporary = with_suffix(path, suffix);
        let fail = |verb: &str, e: std::io::Error| Error::io(verb, &temporary, &e);
        match std::fs::remove_file(&temporary) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(fail("remove", e)),
            _ => {}
        }
        // Created with its mode, and not through a link that someone put there.
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::open(&temporary, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|e| fail("create", e.into()))?;
        Ok(NewFile {
            path: path.to_owned(),
            file: File::from(file),
            temporary,
            placed: false,
        })
    }

    /// Writes the text and gives the file its name, in place of what has it.
    pub(super) fn place(mut self, text: &str) -> Result<()> {
        let temporary = &self.temporary;
        let fail = |verb: &'static str| move |e: std::io::Error| Error::io(verb, temporary, &e);
        self.file
            .write_all(text.as_bytes())
            .map_err(fail("write"))?;
        self.file.sync_all().map_err(fail("sync"))?;
        std::fs::rename(temporary, &self.path)
            .map_err(|e| Error::io("rename a new file to", &self.path, &e))?;
        self.placed = true;
        sync_dir(parent_of(&self.path))
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.placed {
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

/// Makes the names in a directory durable: a rename is only in memory before this.
pub(super) fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|e| Error::io("sync", dir, &e))
}

pub(super) fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Writes a value of this format as text.
pub(super) fn to_text<T: Serialize>(value: &T) -> Zeroizing<String> {
    let text = toml::to_string_pretty(value).expect("our own structs of strings and numbers");
    Zeroizing::new(text)
}

/// Reads a value; `what` is what the file is, for the error (`the data directory`).
pub(super) fn from_text<T: DeserializeOwned>(path: &Path, what: &str, text: &str) -> Result<T> {
    // The parser's own message would quote the line, which may hold a key.
    let table: toml::Table = toml::from_str(text).map_err(|_| malformed(path, "not TOML"))?;
    match table.get("format").and_then(toml::Value::as_integer) {
        None => return Err(malformed(path, "it has no format number")),
        Some(FORMAT) => {}
        Some(newer) if newer > FORMAT => {
            return Err(Error::failed(format!(
                "{what} was written by a newer dfs (format {newer}, this build reads {FORMAT})"
            ))
            .at(path.display())
            .hint("use the newer dfs"));
        }
        Some(other) => return Err(malformed(path, &format!("unknown format {other}"))),
    }
    toml::Value::Table(table)
        .try_into()
        .map_err(|e: toml::de::Error| malformed(path, e.message()))
}

pub(super) fn malformed(path: &Path, why: &str) -> Error {
    Error::new(Code::Corrupt, format!("malformed file ({why})")).at(path.display())
}

pub(super) fn pem_of(tag: &str, der: &[u8]) -> Zeroizing<String> {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    Zeroizing::new(pem::encode_config(&pem::Pem::new(tag, der), config))
}

/// All sections of one kind. Takes any text.
pub(super) fn pem_to_der(tag: &str, text: &str) -> Result<Vec<Zeroizing<Vec<u8>>>> {
    let sections = pem::parse_many(text).map_err(|_| Error::corrupt("malformed PEM"))?;
    Ok(sections
        .into_iter()
        .filter(|section| section.tag() == tag)
        .map(|section| Zeroizing::new(section.into_contents()))
        .collect())
}

/// Credentials as they stand in files: three PEM texts.
#[derive(Serialize, Deserialize)]
pub(super) struct CredentialsText {
    ca: String,
    certificate: String,
    key: String,
}

impl CredentialsText {
    pub(super) fn new(credentials: &Credentials) -> CredentialsText {
        let chain = credentials.chain.iter();
        CredentialsText {
            ca: pem_of("CERTIFICATE", &credentials.ca).to_string(),
            certificate: chain
                .map(|der| pem_of("CERTIFICATE", der).to_string())
                .collect(),
            key: pem_of("PRIVATE KEY", &credentials.key).to_string(),
        }
    }

    /// # Errors
    /// `corrupt`, naming the part that is missing or malformed.
    pub(super) fn read(&self, path: &Path) -> Result<Credentials> {
        let part = |name: &str, tag: &str, text: &str| -> Result<Vec<Zeroizing<Vec<u8>>>> {
            let why = || malformed(path, &format!("`{name}` is not PEM of a {tag}"));
            let found = pem_to_der(tag, text).map_err(|_| why())?;
            if found.is_empty() {
                Err(why())
            } else {
                Ok(found)
            }
        };
        let mut ca = part("ca", "CERTIFICATE", &self.ca)?;
        let mut key = part("key", "PRIVATE KEY", &self.key)?;
        let chain = part("certificate", "CERTIFICATE", &self.certificate)?;
        let credentials = Credentials {
            chain: chain.iter().map(|der| der.to_vec()).collect(),
            key: key.swap_remove(0),
            ca: ca.swap_remove(0).to_vec(),
        };
        let facts = credentials
            .facts()
            .map_err(|e| malformed(path, &e.message))?;
        let root = crate::types::cluster_of(&credentials.ca);
        if root.is_ok_and(|root| root == facts.cluster) {
            return Ok(credentials);
        }
        Err(malformed(path, "certificate and CA are not of one cluster"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::PermissionsExt;

    #[derive(Debug, Deserialize, Serialize)]
    struct Sample {
        format: i64,
        name: String,
    }

    #[test]
    fn a_private_file_has_mode_0600_and_replaces_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, "old").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        std::fs::write(with_suffix(&path, ".tmp"), "left by a crash").unwrap();
        write_private(&path, "new").unwrap();
        assert_eq!(read_text(&path).unwrap().unwrap().as_str(), "new");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_newer_format_says_so_and_others_are_malformed() {
        let read = |text| from_text::<Sample>(Path::new("/d/node"), "the data directory", text);
        let error = read("format = 2\nwhat = 1").unwrap_err().to_string();
        assert!(
            error.contains(
                "the data directory was written by a newer dfs (format 2, this build reads 1)"
            ),
            "{error}"
        );
        for bad in ["", "format = 0", "format = 'x'", "format = 1", "key = !!"] {
            assert_eq!(read(bad).unwrap_err().code, Code::Corrupt, "{bad}");
        }
        assert_eq!(read("format = 1\nname = 'n'").unwrap().name, "n");
    }

    #[test]
    fn an_endless_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("big");
        std::fs::write(&path, vec![b'x'; FILE_BYTES_MAX as usize + 1]).unwrap();
        assert!(read_text(&path).is_err());
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        assert_eq!(read_text(&path).unwrap_err().code, Code::Corrupt);
    }

    proptest! {
        #[test]
        fn takes_any_text(text in ".*") {
            let path = Path::new("x");
            let _ = from_text::<Sample>(path, "it", &text);
            let text = CredentialsText { ca: text.clone(), certificate: text.clone(), key: text };
            prop_assert!(text.read(path).is_err());
        }
    }
}
