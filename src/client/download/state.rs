//! What is known of a part file that can be continued: `.NAME.TAG.dfs-part.state` beside it.
//!
//! ```text
//! length of the header u32 le, header (`codec` bytes) up to 8192; then one byte a chunk,
//! 1: written
//! ```
//! Whoever has it locked owns it and its part. It is there before the part and names its content:
//! a part without it, or with one that does not decode, is a file of somebody else. Nothing is
//! synced and nothing is believed: a chunk said to be there is hashed again. Blocking.

use super::part::local_failure;
use crate::codec;
use crate::error::{Code, Error, Result};
use crate::types::{ChunkHash, ClusterId, DfsPath, FileVersion, Inode};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const HEADER_BYTES: u64 = 8_192;
/// Times that a state is opened anew because another get has just removed it.
const OPENED_MAX: u32 = 8;
pub(super) const PART: &[u8] = b".dfs-part";
pub(super) const STATE: &[u8] = b".state";

/// Which content a part file holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    pub(super) cluster: ClusterId,
    pub(super) path: DfsPath,
    pub(super) inode: Inode,
    pub(super) version: FileVersion,
    pub(super) size: u64,
    pub(super) hash: ChunkHash,
    pub(super) chunk_bytes: u64,
}

/// An open, locked state file.
pub(super) struct State {
    file: File,
    path: PathBuf,
}

impl State {
    /// Opens or makes the state file at `path` for a get of `target`, with what it says already.
    /// `None`: the file there is somebody else's.
    ///
    /// # Errors
    /// `conflict` when another process is at it; `not_found` without the directory.
    pub(super) fn open(path: PathBuf, target: &Path) -> Result<Option<(State, Option<Identity>)>> {
        let io = |verb: &'static str| {
            let path = path.clone();
            move |e: std::io::Error| local_failure(verb, &path, &e)
        };
        for _ in 0..OPENED_MAX {
            let file = options().create(true).truncate(false).open(&path);
            let file = file.map_err(|e| match e.kind() {
                std::io::ErrorKind::NotFound => no_directory(target),
                _ => io("make the file")(e),
            })?;
            match file.try_lock() {
                Ok(()) => {}
                Err(std::fs::TryLockError::WouldBlock) => return Err(in_use(target)),
                Err(std::fs::TryLockError::Error(e)) => return Err(io("lock the file")(e)),
            }
            // Who held the lock before may have come to the end and removed it.
            if !is_at(&file, &path).map_err(io("look at the file"))? {
                continue;
            }
            let is_new = file.metadata().map_err(io("look at the file"))?.len() == 0;
            let known = header(&file);
            return match known.is_some() || is_new {
                true => Ok(Some((State { file, path }, known))),
                false => Ok(None),
            };
        }
        Err(in_use(target))
    }

    /// Says of which content the part is, and that nothing of it is there. Whenever this is cut
    /// short, the file is empty or decodes.
    pub(super) fn begin(&self, identity: &Identity) -> Result<()> {
        let bytes = codec::encode(identity);
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        if u64::from(len) > HEADER_BYTES - 4 {
            return Err(Error::failed("the state is too large").at(self.path.display()));
        }
        let written = (|| {
            let without_marks = self.file.metadata()?.len().min(HEADER_BYTES);
            self.file.set_len(without_marks)?;
            let header = [&len.to_le_bytes()[..], &bytes].concat();
            self.file.write_all_at(&header, 0)
        })();
        written.map_err(|e: std::io::Error| local_failure("write", &self.path, &e))
    }

    /// This chunk is written.
    pub(super) fn mark(&self, index: u64) -> Result<()> {
        let Some(at) = HEADER_BYTES.checked_add(index) else {
            return Ok(());
        };
        let written = self.file.write_all_at(&[1], at);
        written.map_err(|e| local_failure("write", &self.path, &e))
    }

    /// True if this chunk was written once.
    pub(super) fn is_marked(&self, index: u64) -> bool {
        let mut mark = [0];
        let read = HEADER_BYTES
            .checked_add(index)
            .map(|at| self.file.read_exact_at(&mut mark, at));
        matches!(read, Some(Ok(()))) && mark == [1]
    }

    /// Removes it: without its part it says nothing.
    pub(super) fn remove(&self) {
        remove_if_at(&self.file, &self.path);
    }
}

fn header(file: &File) -> Option<Identity> {
    let mut len = [0; 4];
    file.read_exact_at(&mut len, 0).ok()?;
    let len = u64::from(u32::from_le_bytes(len));
    if len == 0 || len > HEADER_BYTES - 4 {
        return None;
    }
    let mut bytes = vec![0; usize::try_from(len).ok()?];
    file.read_exact_at(&mut bytes, 4).ok()?;
    codec::decode(&bytes).ok()
}

/// True for a part file that can be continued, and for its state: a copy of it is of no use.
pub(crate) fn is_part(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_bytes();
    let part = name.strip_suffix(STATE).unwrap_or(name);
    if !(part.starts_with(b".") && part.ends_with(PART)) {
        return false;
    }
    let state = [part, STATE].concat();
    let state = path.with_file_name(std::ffi::OsStr::from_bytes(&state));
    let mut options = OpenOptions::new();
    // A pipe of that name is not waited for.
    let opened = options
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(state);
    opened.is_ok_and(|file| header(&file).is_some())
}

/// How part files and their states are opened: for us alone, and not through links.
pub(super) fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options.custom_flags(libc::O_NOFOLLOW);
    options
}

/// True if the path still leads to the open file.
pub(super) fn is_at(file: &File, path: &Path) -> std::io::Result<bool> {
    let open = file.metadata()?;
    match std::fs::symlink_metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (open.dev(), open.ino())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

/// Removes the name of an open file, unless it is another's by now.
pub(super) fn remove_if_at(file: &File, path: &Path) {
    if is_at(file, path).unwrap_or(false) {
        let _ = std::fs::remove_file(path);
    }
}

pub(super) fn no_directory(target: &Path) -> Error {
    Error::not_found("the local directory to put it in does not exist")
        .at(target.display())
        .hint("make it first")
}

fn in_use(target: &Path) -> Error {
    Error::new(Code::Conflict, "another get is writing this file")
        .at(target.display())
        .hint("wait until it has ended")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            cluster: ClusterId([1; 16]),
            path: DfsPath::parse("/a").unwrap(),
            inode: Inode(5),
            version: FileVersion(1),
            size: 30,
            hash: ChunkHash([3; 32]),
            chunk_bytes: 10,
        }
    }

    fn open(path: &Path) -> Result<Option<(State, Option<Identity>)>> {
        State::open(path.to_owned(), Path::new("f"))
    }

    #[test]
    fn what_was_begun_is_known_and_its_marks_are_gone_when_it_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".f.1.dfs-part.state");
        let (state, known) = open(&path).unwrap().unwrap();
        assert_eq!(known, None);
        state.begin(&identity()).unwrap();
        state.mark(2).unwrap();
        drop(state);
        let (state, known) = open(&path).unwrap().unwrap();
        assert_eq!(known, Some(identity()));
        assert!(state.is_marked(2) && !state.is_marked(1) && !state.is_marked(3));
        assert!(is_part(&path) && is_part(&dir.path().join(".f.1.dfs-part")));
        state.begin(&identity()).unwrap();
        assert!(!state.is_marked(2));
        state.remove();
        assert!(!path.exists() && !is_part(&path));
    }

    #[test]
    fn a_file_that_does_not_decode_is_somebody_elses() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".f.1.dfs-part.state");
        for bytes in [&b"mine"[..], b"\xff\xff\xff\xff", b"\x03\0\0\0abcdef"] {
            std::fs::write(&path, bytes).unwrap();
            assert!(open(&path).unwrap().is_none());
            assert_eq!(std::fs::read(&path).unwrap(), bytes);
            assert!(!is_part(&path));
        }
    }

    #[test]
    fn one_that_was_removed_by_its_owner_meanwhile_is_not_taken_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".f.1.dfs-part.state");
        let (first, _) = open(&path).unwrap().unwrap();
        assert_eq!(open(&path).err().unwrap().code, Code::Conflict);
        // Opened by a second get while the first one holds it.
        let opened = File::open(&path).unwrap();
        first.remove();
        drop(first);
        assert!(!is_at(&opened, &path).unwrap(), "gone from there");
        let (_fresh, known) = open(&path).unwrap().unwrap();
        assert_eq!(known, None);
        assert!(!is_at(&opened, &path).unwrap(), "another one is there");
    }
}
