//! The local side of a fetch: `.NAME.dfs-part` beside the target, and with several chunks
//! `.NAME.dfs-part.state`, which says what of it is there.
//!
//! ```text
//! state: length of the header u32 le, header (`codec` bytes) up to 8192; then one byte a chunk,
//!        1: written
//! ```
//! Nothing is synced and nothing is believed: a chunk said to be there is hashed again.
//! Blocking.

use crate::client::tree_hash::PartHash;
use crate::codec;
use crate::env::real::{begin_writeback, forget};
use crate::error::{Code, Error, Result};
use crate::types::{ChunkHash, ClusterId, DfsPath, FileVersion, Inode};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::fs::{File, OpenOptions, Permissions};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const HEADER_BYTES: u64 = 8_192;
/// File systems take names of this many bytes.
const NAME_BYTES: usize = 255;
/// Times that a part file is opened anew because another get has just put it in its place.
const OPENED_MAX: u32 = 8;
/// Bytes of a local file that the system is asked to keep in memory: the newest, and smaller files
/// whole.
const KEPT_BYTES: u64 = 64 << 20;
/// Bytes read at once to hash a file.
const READ_BYTES: usize = 1 << 20;
const PART: &[u8] = b".dfs-part";
const STATE: &[u8] = b".state";

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

/// A file whose writers take turns: the system has one lock for them, and lets them spin for it.
/// As far as the disk keeps up, a long file goes through the system's memory and does not fill it.
pub(super) struct OneWriter {
    file: File,
    /// What it is to become.
    target: PathBuf,
    turn: Mutex<()>,
    behind: Mutex<Behind>,
}

/// What was written last, oldest first.
#[derive(Default)]
struct Behind {
    ranges: VecDeque<(u64, u64)>,
    bytes: u64,
}

impl OneWriter {
    fn new(file: File, target: &Path) -> OneWriter {
        OneWriter {
            file,
            target: target.to_owned(),
            turn: Mutex::default(),
            behind: Mutex::default(),
        }
    }

    /// The local file could not be written.
    pub(super) fn failed(&self, source: &std::io::Error) -> Error {
        local_failure("write the local file", &self.target, source)
    }

    pub(super) fn write_all_at(&self, bytes: &[u8], offset: u64) -> std::io::Result<()> {
        let _mine = self.turn.lock();
        self.file.write_all_at(bytes, offset)
    }

    /// A range is complete: the system may bring it to disk, and forget what is there already
    /// once enough came after it.
    pub(super) fn done(&self, from: u64, to: u64) {
        begin_writeback(&self.file, from, to);
        let mut behind = self.behind.lock();
        behind.ranges.push_back((from, to));
        behind.bytes += to - from;
        while behind.bytes > KEPT_BYTES
            && let Some((from, to)) = behind.ranges.pop_front()
        {
            behind.bytes -= to - from;
            forget(&self.file, from, to);
        }
    }
}

impl std::ops::Deref for OneWriter {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}

/// A local file being written.
pub(super) struct PartFile {
    pub(super) file: Arc<OneWriter>,
    target: PathBuf,
    part: PathBuf,
    state: Option<(File, PathBuf)>,
    finished: bool,
}

impl PartFile {
    /// Opens the part file of `target` with `size` bytes; with an identity it is (or becomes)
    /// one that can be continued.
    ///
    /// # Errors
    /// `conflict` when another process is at it.
    pub(super) fn open(target: &Path, size: u64, resumable: Option<&Identity>) -> Result<Self> {
        let (part, state) = names(target)?;
        let io = |verb: &'static str| {
            let part = part.clone();
            move |e: std::io::Error| local_failure(verb, &part, &e)
        };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = open_locked(target, &part, options.mode(0o600))?;
        let state = match resumable {
            None => {
                // A state left here by another version must not speak for this part.
                let _ = std::fs::remove_file(&state);
                None
            }
            Some(_) => {
                let file = options.open(&state);
                Some((
                    file.map_err(|e| local_failure("make the file", &state, &e))?,
                    state,
                ))
            }
        };
        let part = PartFile {
            file: Arc::new(OneWriter::new(file, target)),
            target: target.to_owned(),
            part: part.clone(),
            state,
            finished: false,
        };
        let continues = resumable.is_some() && part.identity().as_ref() == resumable;
        let begun = match (continues, resumable) {
            (true, _) => part.file.set_len(size),
            (false, None) => part.file.set_len(0).and_then(|()| part.file.set_len(size)),
            (false, Some(identity)) => {
                let cleared = part.file.set_len(0).and_then(|()| part.file.set_len(size));
                cleared.and_then(|()| part.begin(identity))
            }
        };
        begun.map_err(io("prepare the file"))?;
        Ok(part)
    }

    fn identity(&self) -> Option<Identity> {
        let (state, _) = self.state.as_ref()?;
        let mut len = [0; 4];
        state.read_exact_at(&mut len, 0).ok()?;
        let len = u64::from(u32::from_le_bytes(len));
        if len == 0 || len > HEADER_BYTES - 4 {
            return None;
        }
        let mut bytes = vec![0; usize::try_from(len).ok()?];
        state.read_exact_at(&mut bytes, 4).ok()?;
        codec::decode(&bytes).ok()
    }

    fn begin(&self, identity: &Identity) -> std::io::Result<()> {
        let Some((state, _)) = &self.state else {
            return Ok(());
        };
        let bytes = codec::encode(identity);
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        if u64::from(len) > HEADER_BYTES - 4 {
            return Err(std::io::Error::other("the state is too large"));
        }
        state.set_len(0)?;
        state.write_all_at(&bytes, 4)?;
        state.write_all_at(&len.to_le_bytes(), 0)
    }

    /// This chunk is written.
    pub(super) fn mark(&self, index: u64) -> Result<()> {
        let (Some((state, path)), Some(at)) = (&self.state, HEADER_BYTES.checked_add(index)) else {
            return Ok(());
        };
        let written = state.write_all_at(&[1], at);
        written.map_err(|e| local_failure("write", path, &e))
    }

    /// The hashes of these bytes if they are there from an earlier run: they are read and hashed.
    /// Whole files only, so that `offset` is that in the file too.
    pub(super) fn held(
        &self,
        index: u64,
        offset: u64,
        len: u32,
        chunk_bytes: u64,
        hash: &ChunkHash,
    ) -> Option<PartHash> {
        let (state, _) = self.state.as_ref()?;
        let mut mark = [0];
        let at = HEADER_BYTES.checked_add(index)?;
        state.read_exact_at(&mut mark, at).ok()?;
        match mark {
            [1] => self.proved(offset, len, chunk_bytes, hash),
            _ => None,
        }
    }

    /// The hashes of these bytes, read again, if they have this one.
    pub(super) fn proved(
        &self,
        offset: u64,
        len: u32,
        chunk_bytes: u64,
        hash: &ChunkHash,
    ) -> Option<PartHash> {
        let mut bytes = vec![0; usize::try_from(len).ok()?];
        self.file.read_exact_at(&mut bytes, offset).ok()?;
        let part = PartHash::of(&bytes, offset, chunk_bytes);
        (part.hash == *hash).then_some(part)
    }

    /// The hash of all bytes, read again.
    pub(super) fn hash(&self) -> Result<ChunkHash> {
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; READ_BYTES];
        let mut at = 0;
        loop {
            let read = self.file.read_at(&mut buffer, at);
            match read.map_err(|e| Error::io("read it", &self.part, &e))? {
                0 => return Ok(ChunkHash(*hasher.finalize().as_bytes())),
                read => {
                    hasher.update(&buffer[..read]);
                    at += read as u64;
                }
            }
        }
    }

    /// Removes what was written: nothing of it is to be continued.
    pub(super) fn discard(mut self) {
        if let Some((_, path)) = self.state.take() {
            let _ = std::fs::remove_file(path);
        }
    }

    /// Puts the whole file in its place.
    ///
    /// # Errors
    /// `exists` when the target came to be meanwhile and `force` is not given.
    pub(super) fn finish(mut self, mode: u16, force: bool) -> Result<()> {
        let permissions = Permissions::from_mode(u32::from(mode & 0o777));
        let set = self.file.set_permissions(permissions);
        set.map_err(|e| Error::io("set the permissions", &self.part, &e))?;
        let placed = match force {
            true => std::fs::rename(&self.part, &self.target),
            false => rename_to_free_name(&self.part, &self.target),
        };
        match placed {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                return Err(exists(&self.target));
            }
            Err(e) => return Err(Error::io("rename to it", &self.target, &e)),
        }
        self.finished = true;
        if let Some((_, path)) = &self.state {
            // Without its part the state says nothing; the next get of that name replaces it.
            let _ = std::fs::remove_file(path);
        }
        Ok(())
    }
}

impl Drop for PartFile {
    /// What cannot be continued is not left lying about.
    fn drop(&mut self) {
        if !self.finished && self.state.is_none() {
            let _ = std::fs::remove_file(&self.part);
        }
    }
}

/// Opens or makes the part file and locks it. Who held the lock before may have renamed the file
/// to its target meanwhile: that one is whole and must not be touched, so the name is opened anew.
fn open_locked(target: &Path, part: &Path, options: &OpenOptions) -> Result<File> {
    let io = |verb: &'static str| move |e: std::io::Error| local_failure(verb, part, &e);
    for _ in 0..OPENED_MAX {
        let file = options.open(part).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => no_directory(target),
            _ => io("make the file")(e),
        })?;
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Err(in_use(target)),
            Err(std::fs::TryLockError::Error(e)) => return Err(io("lock the file")(e)),
        }
        if is_at(&file, part).map_err(io("look at the file"))? {
            return Ok(file);
        }
    }
    Err(in_use(target))
}

/// True if the path still leads to the open file.
fn is_at(file: &File, path: &Path) -> std::io::Result<bool> {
    let open = file.metadata()?;
    match std::fs::metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (open.dev(), open.ino())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

fn in_use(target: &Path) -> Error {
    Error::new(Code::Conflict, "another get is writing this file")
        .at(target.display())
        .hint("wait until it has ended")
}

/// Writes a small file in one go.
pub(super) fn write_small(target: &Path, bytes: &[u8], mode: u16, force: bool) -> Result<()> {
    let part = PartFile::open(target, 0, None)?;
    let written = part.file.write_all_at(bytes, 0);
    written.map_err(|e| local_failure("write the local file", target, &e))?;
    part.finish(mode, force)
}

/// # Errors
/// `exists` if something is there and `force` is not given; `usage` if it is a directory.
pub(super) fn check_target(target: &Path, force: bool) -> Result<()> {
    match std::fs::symlink_metadata(target) {
        Ok(meta) if meta.is_dir() => Err(Error::usage("is a local directory").at(target.display())),
        Ok(_) if !force => Err(exists(target)),
        Ok(_) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Error::io("look at it", target, &e)),
    }
}

/// A full disk here reads like a full cluster where nobody says which it is.
pub(super) fn local_failure(verb: &str, path: &Path, source: &std::io::Error) -> Error {
    let error = Error::io(verb, path, source);
    match error.code {
        Code::NoSpace => error.hint("free space on the local disk, then run it again"),
        _ => error,
    }
}

fn no_directory(target: &Path) -> Error {
    Error::not_found("the local directory to put it in does not exist")
        .at(target.display())
        .hint("make it first")
}

fn exists(target: &Path) -> Error {
    Error::new(Code::Exists, "the local file exists")
        .at(target.display())
        .hint("use -f to replace it")
}

/// rename(2) that replaces nothing.
fn rename_to_free_name(from: &Path, to: &Path) -> std::io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            // The file system cannot: a link fails on an existing name just as well.
            std::fs::hard_link(from, to)?;
            std::fs::remove_file(from)
        }
        done => Ok(done?),
    }
}

/// The part file and its state file of a target.
fn names(target: &Path) -> Result<(PathBuf, PathBuf)> {
    let name = target
        .file_name()
        .ok_or_else(|| Error::usage("not the name of a file").at(target.display()))?;
    let part = part_name(name.as_bytes());
    let state = [&part[..], STATE].concat();
    let place = |name: Vec<u8>| target.with_file_name(std::ffi::OsString::from_vec(name));
    Ok((place(part), place(state)))
}

/// `.NAME.dfs-part`; a name too long for that is cut and told apart by its hash.
fn part_name(name: &[u8]) -> Vec<u8> {
    let room = NAME_BYTES - 1 - PART.len() - STATE.len();
    if name.len() <= room {
        return [b".", name, PART].concat();
    }
    let hash = ChunkHash::of(name).to_string();
    let hash = &hash.as_bytes()[..16];
    // Cut between characters where it is text, so that the name stays readable.
    let mut end = room - hash.len();
    while end > 0 && (name[end] & 0xc0) == 0x80 {
        end -= 1;
    }
    [b".", &name[..end], hash, PART].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(version: u64) -> Identity {
        Identity {
            cluster: ClusterId([1; 16]),
            path: DfsPath::parse("/a").unwrap(),
            inode: Inode(5),
            version: FileVersion(version),
            size: 30,
            hash: ChunkHash([3; 32]),
            chunk_bytes: 10,
        }
    }

    #[test]
    fn long_names_are_cut_and_stay_apart() {
        assert_eq!(part_name(b"x"), b".x.dfs-part");
        let (a, b) = ("ä".repeat(127), format!("{}b", "ä".repeat(127)));
        for name in [&a, &b] {
            let part = part_name(name.as_bytes());
            assert!(part.len() + STATE.len() <= NAME_BYTES);
            assert!(String::from_utf8(part).is_ok());
        }
        assert_ne!(part_name(a.as_bytes()), part_name(b.as_bytes()));
    }

    #[test]
    fn continues_only_the_same_content_and_only_true_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("f");
        let part = PartFile::open(&target, 30, Some(&identity(1))).unwrap();
        part.file.write_all_at(b"0123456789", 10).unwrap();
        part.mark(1).unwrap();
        part.mark(2).unwrap();
        drop(part);

        let hash = ChunkHash::of(b"0123456789");
        let part = PartFile::open(&target, 30, Some(&identity(1))).unwrap();
        assert!(part.held(1, 10, 10, 10, &hash).is_some());
        let other = part.held(2, 20, 10, 10, &hash);
        assert!(other.is_none(), "marked but not these bytes");
        assert!(part.held(0, 0, 10, 10, &hash).is_none(), "not marked");
        drop(part);

        let part = PartFile::open(&target, 30, Some(&identity(2))).unwrap();
        assert!(part.held(1, 10, 10, 10, &hash).is_none(), "another version");
        part.finish(0o640, false).unwrap();
        let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
        assert_eq!(names.len(), 1, "{names:?}");
        let meta = std::fs::metadata(&target).unwrap();
        assert_eq!((meta.len(), meta.permissions().mode() & 0o777), (30, 0o640));
    }

    #[test]
    fn two_at_once_do_not_mix() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("f");
        let first = PartFile::open(&target, 30, None).unwrap();
        let second = PartFile::open(&target, 30, None);
        assert_eq!(second.err().unwrap().code, Code::Conflict);
        drop(first);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_that_was_put_in_its_place_meanwhile_is_not_taken_for_the_part() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("f");
        let (part, _) = names(&target).unwrap();
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        // Opened by a second get while the first one holds it, then renamed to its place.
        let opened = options.open(&part).unwrap();
        assert!(is_at(&opened, &part).unwrap());
        std::fs::rename(&part, &target).unwrap();
        assert!(!is_at(&opened, &part).unwrap(), "gone from there");
        let fresh = open_locked(&target, &part, &options).unwrap();
        assert!(!is_at(&opened, &part).unwrap(), "another one is there");
        assert!(is_at(&fresh, &part).unwrap());
    }

    #[test]
    fn two_gets_of_one_target_never_touch_a_finished_one() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("f");
        let writer = |byte: u8| {
            let target = target.clone();
            move || {
                for _ in 0..300 {
                    // The other may hold it; its file must be whole whenever it is there.
                    let _ = write_small(&target, &[byte; 64], 0o644, true);
                    let seen = std::fs::read(&target).unwrap_or(vec![byte; 64]);
                    assert!(
                        seen.len() == 64 && seen.iter().all(|b| *b == seen[0]),
                        "{seen:?}"
                    );
                }
            }
        };
        let threads = [std::thread::spawn(writer(1)), std::thread::spawn(writer(2))];
        for thread in threads {
            thread.join().unwrap();
        }
    }

    #[test]
    fn a_full_local_disk_is_told_from_a_full_cluster() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let full = OneWriter::new(full, Path::new("/home/f"));
        let refused = full.write_all_at(b"x", 0).unwrap_err();
        let error = full.failed(&refused).at("/remote");
        assert_eq!(error.code, Code::NoSpace);
        assert_eq!(
            error.to_string(),
            "/home/f: cannot write the local file (No space left on device (os error 28)); free \
             space on the local disk, then run it again"
        );
    }

    #[test]
    fn an_existing_file_is_replaced_by_force_only() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("f");
        write_small(&target, b"one", 0o644, false).unwrap();
        assert_eq!(check_target(&target, false).unwrap_err().code, Code::Exists);
        let error = write_small(&target, b"two", 0o644, false).unwrap_err();
        assert_eq!(error.code, Code::Exists);
        assert_eq!(std::fs::read(&target).unwrap(), b"one");
        write_small(&target, b"two", 0o644, true).unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        let error = check_target(dir.path(), true).unwrap_err();
        assert_eq!(error.code, Code::Usage);
    }
}
