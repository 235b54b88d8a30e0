//! Which local directories were made for trees whose get has not come to its end: the same get, run
//! again, goes on in such a directory instead of making another one below it.
//!
//! A text file each, `STATE/gets/HASH`: device, inode and time of birth of the directory. `HASH`
//! names the cluster, the remote and the local directory. Blocking.

use crate::client::upload::sweep;
use crate::error::{Error, Result};
use crate::types::{ChunkHash, ClusterId, DfsPath, WallTime};
use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// What is remembered of one local directory, which exists.
pub(super) struct Marker {
    path: PathBuf,
    /// What tells the directory from another one made at its place later.
    directory: String,
}

impl Marker {
    /// `None`: there is no such directory.
    pub(super) fn of(
        state_dir: &Path,
        (cluster, remote): (ClusterId, &DfsPath),
        local: &Path,
    ) -> Option<Marker> {
        let local = std::fs::canonicalize(local).ok()?;
        let meta = std::fs::metadata(&local).ok()?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&cluster.0);
        for part in [remote.as_str().as_bytes(), local.as_os_str().as_bytes()] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        let key = ChunkHash(*hasher.finalize().as_bytes());
        Some(Marker {
            path: state_dir.join("gets").join(key.to_string()),
            directory: directory(&meta),
        })
    }

    /// True if a get has made this directory and not come to its end.
    pub(super) fn is_set(&self) -> bool {
        std::fs::read(&self.path).is_ok_and(|text| text == self.directory.as_bytes())
    }

    /// A get has made the directory. Removes what was forgotten long ago.
    pub(super) fn set(&self, now: WallTime) -> Result<()> {
        let dir = self.path.parent().unwrap_or(Path::new("."));
        let set = || {
            let mut made = std::fs::DirBuilder::new();
            made.recursive(true).mode(0o700).create(dir)?;
            sweep(dir, now);
            std::fs::write(&self.path, &self.directory)
        };
        set().map_err(|e| Error::io("remember a get", &self.path, &e))
    }

    /// It has come to its end.
    pub(super) fn remove(&self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn directory(meta: &Metadata) -> String {
    let born = meta.created().ok();
    let born = born.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let born = born.map_or(0, |since| since.as_nanos());
    format!("{} {} {born}\n", meta.dev(), meta.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_is_of_one_directory_and_one_source() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let (out, other) = (dir.path().join("out"), dir.path().join("other"));
        let path = |text| DfsPath::parse(text).unwrap();
        let marker = |remote, local: &Path| {
            let marker = Marker::of(&state, (ClusterId([1; 16]), &path(remote)), local);
            marker.unwrap()
        };
        assert!(Marker::of(&state, (ClusterId([1; 16]), &path("/a")), &out).is_none());
        for made in [&out, &other] {
            std::fs::create_dir(made).unwrap();
        }
        assert!(!marker("/a", &out).is_set());
        marker("/a", &out).set(WallTime(0)).unwrap();
        assert!(marker("/a", &out).is_set());
        assert!(marker("/a", &dir.path().join("other/../out")).is_set());
        assert!(!marker("/b", &out).is_set() && !marker("/a", &other).is_set());

        // Another directory in its place.
        std::fs::rename(&out, dir.path().join("away")).unwrap();
        std::fs::create_dir(&out).unwrap();
        assert!(!marker("/a", &out).is_set());
        marker("/a", &out).set(WallTime(0)).unwrap();
        marker("/a", &out).remove();
        assert!(!marker("/a", &out).is_set());
    }
}
