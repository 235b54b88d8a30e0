//! Local files as transfers read them: opened once, read by place, noticed when they change.
//! Blocking; called from the blocking pool.

use crate::error::{Code, Error, Result};
use crate::types::ChunkHash;
use bytes::Bytes;
use std::fs::{File, Metadata};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Bytes read at once to hash a file.
const READ_BYTES: usize = 1 << 20;

/// What tells one state of a local file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    pub(crate) size: u64,
    /// Seconds and nanoseconds.
    pub(crate) modified: (i64, i64),
    /// Device and inode.
    pub(crate) identity: (u64, u64),
}

impl Fingerprint {
    pub(crate) fn of(meta: &Metadata) -> Self {
        Fingerprint {
            size: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            identity: (meta.dev(), meta.ino()),
        }
    }

    /// A name for this state of this file in a state directory, together with what it becomes.
    pub(crate) fn key(&self, local: &Path, remote: &[&str]) -> ChunkHash {
        use std::os::unix::ffi::OsStrExt;
        let mut hasher = blake3::Hasher::new();
        let texts = remote.iter().map(|text| text.as_bytes());
        for part in texts.chain([local.as_os_str().as_bytes()]) {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        let (seconds, nanos) = self.modified;
        for number in [self.size, self.identity.0, self.identity.1] {
            hasher.update(&number.to_le_bytes());
        }
        for number in [seconds, nanos] {
            hasher.update(&number.to_le_bytes());
        }
        ChunkHash(*hasher.finalize().as_bytes())
    }
}

/// An open regular file.
#[derive(Debug)]
pub(crate) struct LocalFile {
    pub(crate) path: PathBuf,
    pub(crate) print: Fingerprint,
    /// Permission bits.
    pub(crate) mode: u16,
    file: File,
}

/// What stands at a local path.
pub(crate) enum Opened {
    Regular(LocalFile),
    /// A pipe or device: can only be read in order.
    Stream(File),
    /// A file whose system says how long it is only by reading it (`/proc`, some of FUSE): the same.
    /// With its permission bits.
    Unsized(File, u16),
}

impl LocalFile {
    /// # Errors
    /// `usage` for a directory; not found, denied as the system says.
    pub(crate) fn open(path: &Path) -> Result<Opened> {
        let file = File::open(path).map_err(|e| Error::io("open it", path, &e))?;
        let look = || {
            let meta = file.metadata();
            meta.map_err(|e| Error::io("look at it", path, &e))
        };
        let mut meta = look()?;
        if meta.is_dir() {
            return Err(Error::usage("is a local directory")
                .at(path.display())
                .hint("use -r to put a whole tree"));
        }
        if !meta.is_file() {
            return Ok(Opened::Stream(file));
        }
        if meta.len() == 0 {
            let has_content = match file.read_at(&mut [0], 0) {
                Err(e) if e.kind() == std::io::ErrorKind::NotSeekable => true,
                read => read.map_err(|e| Error::io("read it", path, &e))? > 0,
            };
            // Somebody may have written to it just now.
            meta = look()?;
            if has_content && meta.len() == 0 {
                return Ok(Opened::Unsized(file, permission_bits(&meta)));
            }
        }
        Ok(Opened::Regular(LocalFile {
            path: path.to_owned(),
            print: Fingerprint::of(&meta),
            mode: permission_bits(&meta),
            file,
        }))
    }

    /// Fills `out` with the bytes at `offset`.
    ///
    /// # Errors
    /// `conflict` when the file became shorter; `failed` when it always was (`/sys` says 4096 of
    /// all its files).
    pub(crate) fn read_exact_at(&self, out: &mut [u8], offset: u64) -> Result<()> {
        match self.file.read_exact_at(out, offset) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
                self.check_unchanged()?;
                Err(shorter(&self.path, self.print.size))
            }
            Err(e) => Err(Error::io("read it", &self.path, &e)),
        }
    }

    /// The whole content of a small file: as many bytes as it had when it was opened.
    pub(crate) fn read_whole(&self) -> Result<Bytes> {
        let len = usize::try_from(self.print.size).map_err(|_| changed(&self.path))?;
        let mut bytes = vec![0; len];
        self.read_exact_at(&mut bytes, 0)?;
        self.check_unchanged()?;
        Ok(bytes.into())
    }

    /// The hash of the whole content, as long as it was when it was opened.
    pub(crate) fn hash(&self) -> Result<ChunkHash> {
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; READ_BYTES];
        let mut at = 0;
        while at < self.print.size {
            let left = usize::try_from(self.print.size - at).unwrap_or(READ_BYTES);
            let part = &mut buffer[..left.min(READ_BYTES)];
            self.read_exact_at(part, at)?;
            hasher.update(part);
            at += part.len() as u64;
        }
        self.check_unchanged()?;
        Ok(ChunkHash(*hasher.finalize().as_bytes()))
    }

    /// # Errors
    /// `conflict` when the name stands for another file now, or this one was written to.
    pub(crate) fn check_unchanged(&self) -> Result<()> {
        let now = std::fs::metadata(&self.path);
        match now {
            Ok(meta) if Fingerprint::of(&meta) == self.print => Ok(()),
            _ => Err(changed(&self.path)),
        }
    }
}

/// True if a regular file with this content is there.
pub(crate) fn has_content(path: &Path, size: u64, hash: &ChunkHash) -> bool {
    let may_have = std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() == size);
    match may_have.then(|| LocalFile::open(path)) {
        Some(Ok(Opened::Regular(file))) => file.hash().is_ok_and(|found| found == *hash),
        _ => false,
    }
}

pub(crate) fn permission_bits(meta: &Metadata) -> u16 {
    u16::try_from(meta.mode() & 0o7777).expect("twelve bits fit sixteen")
}

fn changed(path: &Path) -> Error {
    Error::new(Code::Conflict, "the local file changed while it was read")
        .at(path.display())
        .hint("nothing was stored; put it again when nobody writes to it")
}

fn shorter(path: &Path, size: u64) -> Error {
    let what = format!("the local file ends before its size ({size} bytes, says its file system)");
    Error::failed(what)
        .at(path.display())
        .hint("nothing was stored; put what can be read of it from standard input, as `-`")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path) -> LocalFile {
        match LocalFile::open(path).unwrap() {
            Opened::Regular(file) => file,
            Opened::Stream(_) | Opened::Unsized(..) => panic!("regular"),
        }
    }

    #[test]
    fn only_a_file_without_content_is_empty() {
        let opened = LocalFile::open(Path::new("/proc/version")).unwrap();
        assert!(matches!(opened, Opened::Unsized(_, 0o444)));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, b"").unwrap();
        assert_eq!(open(&path).read_whole().unwrap(), "");
    }

    #[test]
    fn a_file_that_ends_before_its_size_is_not_said_to_have_changed() {
        let dir = tempfile::tempdir().unwrap();
        let (short, path) = (dir.path().join("short"), dir.path().join("f"));
        std::fs::write(&short, b"0123").unwrap();
        std::fs::write(&path, b"0123456789").unwrap();
        let file = LocalFile {
            file: File::open(&short).unwrap(),
            ..open(&path)
        };
        let error = file.read_whole().unwrap_err();
        assert_eq!(error.code, Code::Failed);
        assert!(error.message.contains("10 bytes"), "{error}");
    }

    #[test]
    fn a_file_that_grows_shrinks_or_is_replaced_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, b"0123456789").unwrap();
        let file = open(&path);
        assert_eq!(file.read_whole().unwrap(), "0123456789");
        let hash = ChunkHash::of(b"0123456789");
        assert_eq!(file.hash().unwrap(), hash);
        assert!(has_content(&path, 10, &hash) && !has_content(&path, 9, &hash));
        assert!(!has_content(&path, 10, &ChunkHash::of(b"")));
        assert!(!has_content(dir.path(), 10, &hash));

        std::fs::write(&path, b"01234").unwrap();
        assert_eq!(
            file.read_exact_at(&mut [0; 10], 0).unwrap_err().code,
            Code::Conflict
        );
        assert_eq!(file.check_unchanged().unwrap_err().code, Code::Conflict);

        let file = open(&path);
        std::fs::write(dir.path().join("g"), b"01234").unwrap();
        std::fs::rename(dir.path().join("g"), &path).unwrap();
        assert_eq!(file.check_unchanged().unwrap_err().code, Code::Conflict);
    }

    #[test]
    fn directories_and_missing_files_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = LocalFile::open(dir.path()).err().unwrap();
        assert_eq!(error.code, Code::Usage);
        let error = LocalFile::open(&dir.path().join("none")).err().unwrap();
        assert_eq!(error.code, Code::NotFound);
        assert!(error.path.unwrap().ends_with("none"));
    }

    #[test]
    fn keys_differ_by_file_state_and_target() {
        let print = Fingerprint {
            size: 1,
            modified: (2, 3),
            identity: (4, 5),
        };
        let newer = Fingerprint {
            modified: (2, 4),
            ..print
        };
        let path = Path::new("/x");
        assert_eq!(print.key(path, &["a", "b"]), print.key(path, &["a", "b"]));
        assert_ne!(print.key(path, &["a", "b"]), newer.key(path, &["a", "b"]));
        assert_ne!(print.key(path, &["ab", ""]), print.key(path, &["a", "b"]));
    }
}
