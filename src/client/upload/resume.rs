//! What an interrupted upload leaves behind, so that only missing chunks travel the next time.
//!
//! One file for each (cluster, user, remote path, local file in one state), locked while in use:
//! ```text
//! 0     length of the header u32 le, header (`codec` bytes)
//! 8192  hash of chunk 0, hash of chunk 1, …; 32 bytes each, zeros: not stored yet
//! ```
//! Nothing here is synced and nothing is believed: a chunk counts only if its hash is that of
//! the bytes read now, and the reservation only if the shard still has it. Manifest pages are
//! handed over again, which compares them. Blocking.

use crate::codec;
use crate::error::{Error, Result};
use crate::types::{
    ChunkHash, ClusterId, DfsPath, GroupId, Inode, Precondition, UploadId, WallTime,
};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

const HEADER_BYTES: u64 = 8_192;
const HASH_BYTES: u64 = 32;
/// A state file not touched for this long is of an upload that has expired.
const KEPT: Duration = Duration::from_secs(7 * 24 * 3_600);
/// State files looked at by one clean-up.
const SWEEP_MAX: usize = 1_000;

/// Which reservation, made how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) cluster: ClusterId,
    pub(super) path: DfsPath,
    pub(super) precondition: Precondition,
    pub(super) mode: u16,
    pub(super) shard: GroupId,
    pub(super) parent: Inode,
    pub(super) upload: UploadId,
    pub(super) chunk_bytes: u64,
}

/// An open, locked state file.
#[derive(Debug)]
pub(super) struct ResumeState {
    file: File,
    path: PathBuf,
}

impl ResumeState {
    /// Opens or makes the state file of `key`. `None`: another process is at the same upload.
    pub(super) fn open(dir: &Path, key: &ChunkHash, now: WallTime) -> Result<Option<ResumeState>> {
        let io = |verb: &'static str| move |e: std::io::Error| Error::io(verb, dir, &e);
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(io("make the directory for interrupted uploads"))?;
        sweep(dir, now);
        let path = dir.join(key.to_string());
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(io("open the state of an upload"))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(ResumeState { file, path })),
            Err(std::fs::TryLockError::WouldBlock) => Ok(None),
            Err(std::fs::TryLockError::Error(e)) => Err(io("lock the state of an upload")(e)),
        }
    }

    /// The reservation it is about; `None` for a new or damaged file.
    pub(super) fn header(&self) -> Option<Header> {
        let mut len = [0; 4];
        self.file.read_exact_at(&mut len, 0).ok()?;
        let len = u64::from(u32::from_le_bytes(len));
        if len == 0 || len > HEADER_BYTES - 4 {
            return None;
        }
        let mut bytes = vec![0; usize::try_from(len).ok()?];
        self.file.read_exact_at(&mut bytes, 4).ok()?;
        codec::decode(&bytes).ok()
    }

    /// Forgets everything and begins with a new reservation.
    pub(super) fn begin(&self, header: &Header) -> Result<()> {
        let bytes = codec::encode(header);
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        if u64::from(len) > HEADER_BYTES - 4 {
            return Err(Error::failed("the state of an upload is too large").at(&header.path));
        }
        let written = (|| {
            self.file.set_len(0)?;
            self.file.set_len(HEADER_BYTES)?;
            self.file.write_all_at(&bytes, 4)?;
            // The length last: a header cut short is not one.
            self.file.write_all_at(&len.to_le_bytes(), 0)
        })();
        written.map_err(|e| self.io("write", &e))
    }

    /// This chunk is stored.
    pub(super) fn mark(&self, index: u64, hash: &ChunkHash) -> Result<()> {
        let at = place(index).ok_or_else(|| Error::failed("too many chunks"))?;
        let written = self.file.write_all_at(&hash.0, at);
        written.map_err(|e| self.io("write", &e))
    }

    /// The chunk that was stored at this place of the file.
    pub(super) fn marked(&self, index: u64) -> Option<ChunkHash> {
        let mut hash = [0; 32];
        self.file.read_exact_at(&mut hash, place(index)?).ok()?;
        (hash != [0; 32]).then_some(ChunkHash(hash))
    }

    /// The upload has ended: there is nothing to continue.
    pub(super) fn remove(&self) -> Result<()> {
        std::fs::remove_file(&self.path).map_err(|e| self.io("remove", &e))
    }

    fn io(&self, verb: &str, source: &std::io::Error) -> Error {
        Error::io(
            &format!("{verb} the state of an upload"),
            &self.path,
            source,
        )
    }
}

fn place(index: u64) -> Option<u64> {
    index.checked_mul(HASH_BYTES)?.checked_add(HEADER_BYTES)
}

/// Removes state files that were not touched for long. Failures do not matter: the next transfer
/// tries again.
pub(crate) fn sweep(dir: &Path, now: WallTime) {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return;
    };
    let now = Duration::from_millis(u64::try_from(now.0).unwrap_or(0));
    for entry in entries.take(SWEEP_MAX).flatten() {
        let modified = entry.metadata().and_then(|meta| meta.modified()).ok();
        let age = modified
            .and_then(|at| at.duration_since(UNIX_EPOCH).ok())
            .and_then(|at| now.checked_sub(at));
        if age.is_some_and(|age| age > KEPT) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Before any file was written: nothing is swept.
    const NOW: WallTime = WallTime(0);

    fn header() -> Header {
        Header {
            cluster: ClusterId([1; 16]),
            path: DfsPath::parse(&format!("/{}", "x/".repeat(200))).unwrap(),
            precondition: Precondition::Absent,
            mode: 0o644,
            shard: GroupId(1),
            parent: Inode(7),
            upload: UploadId([9; 16]),
            chunk_bytes: 1 << 24,
        }
    }

    fn key(n: u8) -> ChunkHash {
        ChunkHash([n; 32])
    }

    #[test]
    fn remembers_what_was_stored_across_runs() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("uploads");
        let state = ResumeState::open(&dir, &key(1), NOW).unwrap().unwrap();
        assert_eq!(state.header(), None);
        state.begin(&header()).unwrap();
        state.mark(5, &key(5)).unwrap();
        drop(state);

        let state = ResumeState::open(&dir, &key(1), NOW).unwrap().unwrap();
        assert_eq!(state.header(), Some(header()));
        assert_eq!(state.marked(5), Some(key(5)));
        assert_eq!((state.marked(4), state.marked(6)), (None, None));
        state.begin(&header()).unwrap();
        assert_eq!(state.marked(5), None);
        state.remove().unwrap();
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
    }

    #[test]
    fn a_second_process_does_not_get_it() {
        let dir = tempfile::tempdir().unwrap();
        let first = ResumeState::open(dir.path(), &key(1), NOW).unwrap();
        assert!(
            ResumeState::open(dir.path(), &key(1), NOW)
                .unwrap()
                .is_none()
        );
        drop(first);
        assert!(
            ResumeState::open(dir.path(), &key(1), NOW)
                .unwrap()
                .is_some()
        );
    }

    #[test]
    fn damaged_headers_count_as_none() {
        let dir = tempfile::tempdir().unwrap();
        for bytes in [
            &b"\xff\xff\xff\xff"[..],
            b"\x05\0\0\0abc",
            b"\x03\0\0\0abcdef",
        ] {
            std::fs::write(dir.path().join(key(2).to_string()), bytes).unwrap();
            let state = ResumeState::open(dir.path(), &key(2), NOW)
                .unwrap()
                .unwrap();
            assert_eq!(state.header(), None);
            assert_eq!(state.marked(0), None);
        }
    }

    #[test]
    fn long_forgotten_state_is_swept() {
        let dir = tempfile::tempdir().unwrap();
        drop(ResumeState::open(dir.path(), &key(1), NOW).unwrap());
        // A year after this file was written, whenever the test runs.
        let later = WallTime(i64::MAX / 2);
        drop(ResumeState::open(dir.path(), &key(2), later).unwrap());
        assert!(!dir.path().join(key(1).to_string()).exists());
    }
}
