//! The local side of a fetch: a part file beside the target, renamed to it when whole.
//!
//! A fetch that can be continued has `.NAME.TAG.dfs-part` with a TAG that the next run finds again,
//! and its state beside it (`state.rs`). Any other has a random TAG, and its part goes with it.
//! A file that is there already is touched only if its state says that it is a part. Blocking.

use super::state::{Identity, PART, STATE, State};
use super::state::{is_at, no_directory, options, remove_if_at};
use crate::client::tree_hash::PartHash;
use crate::env::real::{begin_writeback, forget};
use crate::error::{Code, Error, Result};
use crate::types::ChunkHash;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::fs::{File, Permissions};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// File systems take names of this many bytes.
const NAME_BYTES: usize = 255;
/// Digits of a tag, and the point before it.
const TAG_BYTES: usize = 17;
/// Bytes of a local file that the system is asked to keep in memory: the newest, and smaller files
/// whole.
const KEPT_BYTES: u64 = 64 << 20;
/// Bytes read at once to hash a file.
const READ_BYTES: usize = 1 << 20;

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
    /// Of one that can be continued.
    state: Option<State>,
    finished: bool,
}

impl PartFile {
    /// Opens a part file of `target` with `size` bytes. With an identity it is one that can be
    /// continued, unless a file of somebody else has its name; any other is called by `random`.
    ///
    /// # Errors
    /// `conflict` when another process is at it.
    pub(super) fn open(
        target: &Path,
        size: u64,
        resumable: Option<&Identity>,
        random: u64,
    ) -> Result<Self> {
        let (found, continues) = match resumable {
            Some(identity) => Self::open_lasting(target, identity)?,
            None => (None, false),
        };
        let part = match found {
            Some(part) => part,
            None => Self::make(target, names(target, random)?.0, None)?,
        };
        let cleared = match continues {
            true => Ok(()),
            false => part.file.set_len(0),
        };
        if let Err(e) = cleared.and_then(|()| part.file.set_len(size)) {
            part.remove();
            return Err(local_failure("prepare the file", &part.part, &e));
        }
        Ok(part)
    }

    /// The part that an earlier run has left, or a new one that a later run will find; and whether
    /// it is of this content. `None`: a file of somebody else has the name.
    fn open_lasting(target: &Path, identity: &Identity) -> Result<(Option<Self>, bool)> {
        let (part, state) = names(target, tag_of(target, identity))?;
        let Some((state, known)) = State::open(state, target)? else {
            return Ok((None, false));
        };
        let continues = known.as_ref() == Some(identity);
        if !continues && let Err(error) = state.begin(identity) {
            if known.is_some() {
                let _ = std::fs::remove_file(&part);
            }
            state.remove();
            return Err(error);
        }
        if known.is_none() {
            return match Self::make(target, part, Some(state)) {
                Err(error) if error.code == Code::Exists => Ok((None, false)),
                made => Ok((Some(made?), false)),
            };
        }
        let file = options().create(true).truncate(false).open(&part);
        let file = file.map_err(|e| local_failure("make the file", &part, &e))?;
        Ok((Some(Self::new(target, part, file, Some(state))), continues))
    }

    /// Makes the part file, under a name that nobody has.
    fn make(target: &Path, part: PathBuf, state: Option<State>) -> Result<Self> {
        let made = options().create_new(true).open(&part);
        let made = made.map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => no_directory(target),
            _ => local_failure("make the file", &part, &e),
        });
        if made.is_err()
            && let Some(state) = &state
        {
            state.remove();
        }
        Ok(Self::new(target, part, made?, state))
    }

    fn new(target: &Path, part: PathBuf, file: File, state: Option<State>) -> Self {
        PartFile {
            file: Arc::new(OneWriter::new(file, target)),
            target: target.to_owned(),
            part,
            state,
            finished: false,
        }
    }

    /// This chunk is written.
    pub(super) fn mark(&self, index: u64) -> Result<()> {
        match &self.state {
            Some(state) => state.mark(index),
            None => Ok(()),
        }
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
        let state = self.state.as_ref()?;
        match state.is_marked(index) {
            true => self.proved(offset, len, chunk_bytes, hash),
            false => None,
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

    /// The fetch has failed: what can be continued stays, unless its content is `gone`.
    pub(super) fn leave(&self, gone: bool) {
        if gone || self.state.is_none() {
            self.remove();
        }
    }

    fn remove(&self) {
        remove_if_at(&self.file, &self.part);
        if let Some(state) = &self.state {
            state.remove();
        }
    }

    /// Puts the whole file in its place.
    ///
    /// # Errors
    /// `exists` when the target came to be meanwhile and `force` is not given; `conflict` when
    /// somebody has put another file in the place of the part.
    pub(super) fn finish(mut self, mode: u16, force: bool) -> Result<()> {
        let permissions = Permissions::from_mode(u32::from(mode & 0o777));
        let set = self.file.set_permissions(permissions);
        set.map_err(|e| Error::io("set the permissions", &self.part, &e))?;
        let mine = is_at(&self.file, &self.part);
        if !mine.map_err(|e| Error::io("look at it", &self.part, &e))? {
            // The state must not speak for that one.
            self.leave(true);
            return Err(replaced(&self.part));
        }
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
        if let Some(state) = &self.state {
            state.remove();
        }
        Ok(())
    }
}

impl Drop for PartFile {
    /// What cannot be continued is not left lying about.
    fn drop(&mut self) {
        if !self.finished {
            self.leave(false);
        }
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

/// Writes a small file in one go.
pub(super) fn write_small(
    target: &Path,
    bytes: &[u8],
    (mode, force): (u16, bool),
    random: u64,
) -> Result<()> {
    let part = PartFile::open(target, 0, None, random)?;
    let written = part.file.write_all_at(bytes, 0);
    written.map_err(|e| local_failure("write the local file", target, &e))?;
    part.finish(mode, force)
}

/// # Errors
/// `exists` if a file (or a link to one) is there and `force` is not given; `usage` if it is
/// anything else: nobody wants `/dev/null` replaced.
pub(super) fn check_target(target: &Path, force: bool) -> Result<()> {
    let is_file = || std::fs::metadata(target).is_ok_and(|meta| meta.is_file());
    match std::fs::symlink_metadata(target) {
        Ok(meta) if meta.is_dir() => Err(Error::usage("is a local directory").at(target.display())),
        Ok(_) if !is_file() => Err(Error::usage("not a regular file")
            .at(target.display())
            .hint("use - for standard output, or another name")),
        Ok(_) if !force => Err(exists(target)),
        Ok(_) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Error::io("look at it", target, &e)),
    }
}

fn replaced(part: &Path) -> Error {
    Error::new(
        Code::Conflict,
        "another file was put in its place meanwhile",
    )
    .at(part.display())
    .hint("get it again, with nothing else writing there")
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
fn names(target: &Path, tag: u64) -> Result<(PathBuf, PathBuf)> {
    let name = target
        .file_name()
        .ok_or_else(|| Error::usage("not the name of a file").at(target.display()))?;
    let part = part_name(name.as_bytes(), tag);
    let state = [&part[..], STATE].concat();
    let place = |name: Vec<u8>| target.with_file_name(std::ffi::OsString::from_vec(name));
    Ok((place(part), place(state)))
}

/// The same for each fetch of a remote path to a target, whatever stands at that path.
fn tag_of(target: &Path, identity: &Identity) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&identity.cluster.0);
    let name = target.file_name().unwrap_or_default().as_bytes();
    for part in [identity.path.as_str().as_bytes(), name] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let mut tag = [0; 8];
    hasher.finalize_xof().fill(&mut tag);
    u64::from_le_bytes(tag)
}

/// `.NAME.TAG.dfs-part`; a name too long for that is cut.
fn part_name(name: &[u8], tag: u64) -> Vec<u8> {
    let room = NAME_BYTES - 1 - TAG_BYTES - PART.len() - STATE.len();
    let mut end = name.len().min(room);
    // Cut between characters where it is text, so that the name stays readable.
    while end > 0 && end < name.len() && (name[end] & 0xc0) == 0x80 {
        end -= 1;
    }
    let tag = format!(".{tag:016x}");
    [b".", &name[..end], tag.as_bytes(), PART].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ClusterId, DfsPath, FileVersion, Inode};

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
        assert_eq!(part_name(b"x", 10), b".x.000000000000000a.dfs-part");
        let (a, b) = ("ä".repeat(127), format!("{}b", "ä".repeat(127)));
        let parts = [&a, &b].map(|name| {
            let tag = tag_of(Path::new(name), &identity(1));
            let part = part_name(name.as_bytes(), tag);
            assert!(part.len() + STATE.len() <= NAME_BYTES);
            String::from_utf8(part).unwrap()
        });
        assert_ne!(parts[0], parts[1]);
    }

    fn lasting(target: &Path, version: u64) -> PartFile {
        PartFile::open(target, 30, Some(&identity(version)), 7).unwrap()
    }

    #[test]
    fn continues_only_the_same_content_and_only_true_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("f");
        let part = lasting(&target, 1);
        part.file.write_all_at(b"0123456789", 10).unwrap();
        part.mark(1).unwrap();
        part.mark(2).unwrap();
        drop(part);

        let hash = ChunkHash::of(b"0123456789");
        let part = lasting(&target, 1);
        assert!(part.held(1, 10, 10, 10, &hash).is_some());
        let other = part.held(2, 20, 10, 10, &hash);
        assert!(other.is_none(), "marked but not these bytes");
        assert!(part.held(0, 0, 10, 10, &hash).is_none(), "not marked");
        drop(part);

        let part = lasting(&target, 2);
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
        let first = lasting(&target, 1);
        let second = PartFile::open(&target, 30, Some(&identity(1)), 8);
        assert_eq!(second.err().unwrap().code, Code::Conflict);
        first.leave(true);
        drop(first);

        let first = PartFile::open(&target, 3, None, 1).unwrap();
        let second = PartFile::open(&target, 3, None, 2).unwrap();
        first.file.write_all_at(b"one", 0).unwrap();
        second.file.write_all_at(b"two", 0).unwrap();
        first.finish(0o644, false).unwrap();
        let error = second.finish(0o644, false).unwrap_err();
        assert_eq!(error.code, Code::Exists);
        assert_eq!(std::fs::read(&target).unwrap(), b"one");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_of_the_users_own_is_never_taken_for_a_part() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("f");
        let (part, state) = names(&target, tag_of(&target, &identity(1))).unwrap();
        for own in [
            [&part, &target.with_file_name(".f.dfs-part")],
            [&state, &part],
        ] {
            for path in own {
                std::fs::write(path, b"my own").unwrap();
            }
            lasting(&target, 1).finish(0o644, true).unwrap();
            for path in own {
                assert_eq!(std::fs::read(path).unwrap(), b"my own", "{path:?}");
                std::fs::remove_file(path).unwrap();
            }
            let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
            assert_eq!(left.len(), 1, "{left:?}");
        }
    }

    #[test]
    fn a_file_put_in_the_place_of_the_part_is_not_taken_for_the_content() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("f");
        let (part, _) = names(&target, tag_of(&target, &identity(1))).unwrap();
        let fetch = lasting(&target, 1);
        write_small(&part, b"another", (0o644, true), 9).unwrap();
        assert_eq!(fetch.finish(0o644, true).unwrap_err().code, Code::Conflict);
        assert!(!target.exists());
        lasting(&target, 1).finish(0o644, true).unwrap();
        assert_eq!(std::fs::read(&part).unwrap(), b"another");
    }

    #[test]
    fn what_is_left_is_what_can_be_continued() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("f");
        let left = || std::fs::read_dir(dir.path()).unwrap().count();
        drop(PartFile::open(&target, 30, None, 1).unwrap());
        assert_eq!(left(), 0);
        drop(lasting(&target, 1));
        assert_eq!(left(), 2);
        lasting(&target, 1).leave(false);
        assert_eq!(left(), 2);
        lasting(&target, 1).leave(true);
        assert_eq!(left(), 0);
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
                    let random = u64::from(byte);
                    let _ = write_small(&target, &[byte; 64], (0o644, true), random);
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
    fn nothing_but_files_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let place = |name| dir.path().join(name);
        let _socket = std::os::unix::net::UnixListener::bind(place("socket")).unwrap();
        std::fs::write(place("file"), b"one").unwrap();
        for (link, to) in [("good", "file"), ("bad", "none"), ("device", "/dev/null")] {
            std::os::unix::fs::symlink(to, place(link)).unwrap();
        }
        let others = [
            place("socket"),
            place("bad"),
            place("device"),
            "/dev/null".into(),
        ];
        for (target, force) in others.iter().flat_map(|at| [(at, true), (at, false)]) {
            let error = check_target(target, force).unwrap_err();
            assert_eq!(error.code, Code::Usage, "{target:?}");
            assert!(error.hint.unwrap().contains("use - for standard output"));
        }
        for target in [place("file"), place("good"), place("free")] {
            check_target(&target, true).unwrap();
        }
    }

    #[test]
    fn an_existing_file_is_replaced_by_force_only() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("f");
        write_small(&target, b"one", (0o644, false), 1).unwrap();
        assert_eq!(check_target(&target, false).unwrap_err().code, Code::Exists);
        let error = write_small(&target, b"two", (0o644, false), 1).unwrap_err();
        assert_eq!(error.code, Code::Exists);
        assert_eq!(std::fs::read(&target).unwrap(), b"one");
        write_small(&target, b"two", (0o644, true), 1).unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        let error = check_target(dir.path(), true).unwrap_err();
        assert_eq!(error.code, Code::Usage);
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
}
