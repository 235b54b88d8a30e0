//! names of the simulated disk, live and durable. Called by the simulated disk.
//!
//! Invariants:
//! 1. A name is durable as of the last sync of its directory; before that a crash finds it in any
//!    state it had since. Names are drawn one by one: a renamed file may be found under both
//!    names or under neither.
//! 2. Directories themselves are durable when made.

use super::inode::Inode;
use parking_lot::Mutex;
use rand::Rng;
use rand::rngs::StdRng;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

pub type InodeRef = Arc<Mutex<Inode>>;
type DirId = u64;
const ROOT: DirId = 0;

#[derive(Clone, Debug)]
pub enum Entry {
    File(InodeRef),
    Dir(DirId),
}

#[derive(Clone, Debug, Default)]
struct Dir {
    live: BTreeMap<OsString, Entry>,
    synced: BTreeMap<OsString, Entry>,
    /// What each name stood for since the last sync, oldest first.
    since: BTreeMap<OsString, Vec<Option<Entry>>>,
}

/// All directories of a disk. `/` is there from the start.
#[derive(Clone, Debug)]
pub struct Tree {
    dirs: BTreeMap<DirId, Dir>,
    next: DirId,
}

impl Default for Tree {
    fn default() -> Self {
        Tree {
            dirs: BTreeMap::from([(ROOT, Dir::default())]),
            next: ROOT + 1,
        }
    }
}

impl Tree {
    /// What a path stands for; `None` if its last name is free.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory` for what is before the last name; `InvalidInput` for `..`.
    pub fn lookup(&self, path: &Path) -> io::Result<Option<Entry>> {
        let mut at = Entry::Dir(ROOT);
        let names = names(path)?;
        for (index, name) in names.iter().enumerate() {
            let Entry::Dir(dir) = at else {
                return Err(ErrorKind::NotADirectory.into());
            };
            match self.dirs[&dir].live.get(*name) {
                Some(entry) => at = entry.clone(),
                None if index + 1 == names.len() => return Ok(None),
                None => return Err(ErrorKind::NotFound.into()),
            }
        }
        Ok(Some(at))
    }

    pub fn file(&self, path: &Path) -> io::Result<InodeRef> {
        match self.lookup(path)?.ok_or(ErrorKind::NotFound)? {
            Entry::File(file) => Ok(file),
            Entry::Dir(_) => Err(ErrorKind::IsADirectory.into()),
        }
    }

    fn dir(&self, path: &Path) -> io::Result<DirId> {
        match self.lookup(path)?.ok_or(ErrorKind::NotFound)? {
            Entry::Dir(dir) => Ok(dir),
            Entry::File(_) => Err(ErrorKind::NotADirectory.into()),
        }
    }

    /// The directory and the last name of a path.
    fn place(&self, path: &Path) -> io::Result<(DirId, OsString)> {
        let name = path.file_name().ok_or(ErrorKind::InvalidInput)?;
        let parent = path.parent().unwrap_or(Path::new("/"));
        Ok((self.dir(parent)?, name.to_owned()))
    }

    fn set(&mut self, dir: DirId, name: OsString, entry: Option<Entry>) -> Option<Entry> {
        let dir = self
            .dirs
            .get_mut(&dir)
            .expect("ids of directories are found by walking");
        let history = dir.since.entry(name.clone()).or_default();
        history.push(entry.clone());
        match entry {
            Some(entry) => dir.live.insert(name, entry),
            None => dir.live.remove(&name),
        }
    }

    /// Makes an empty file; its name is pending.
    pub fn create(&mut self, path: &Path) -> io::Result<InodeRef> {
        if self.lookup(path)?.is_some() {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let (dir, name) = self.place(path)?;
        let file = InodeRef::default();
        file.lock().links = 1;
        self.set(dir, name, Some(Entry::File(file.clone())));
        Ok(file)
    }

    /// The file that had the name.
    pub fn remove(&mut self, path: &Path) -> io::Result<InodeRef> {
        let file = self.file(path)?;
        let (dir, name) = self.place(path)?;
        self.set(dir, name, None);
        Ok(file)
    }

    /// The file that had the new name.
    pub fn rename(&mut self, from: &Path, to: &Path) -> io::Result<Option<InodeRef>> {
        let entry = self.lookup(from)?.ok_or(ErrorKind::NotFound)?;
        if from != to && to.starts_with(from) {
            return Err(ErrorKind::InvalidInput.into());
        }
        let replaced = match (&entry, self.lookup(to)?) {
            (_, None) => None,
            (Entry::File(from), Some(Entry::File(to))) if Arc::ptr_eq(from, &to) => {
                return Ok(None);
            }
            (Entry::File(_), Some(Entry::File(to))) => Some(to),
            (_, Some(Entry::Dir(_))) => return Err(ErrorKind::IsADirectory.into()),
            (Entry::Dir(_), Some(Entry::File(_))) => return Err(ErrorKind::NotADirectory.into()),
        };
        let (from_dir, from_name) = self.place(from)?;
        let (to_dir, to_name) = self.place(to)?;
        self.set(to_dir, to_name, Some(entry));
        self.set(from_dir, from_name, None);
        Ok(replaced)
    }

    /// Makes a directory and its parents, durable at once (invariant 2).
    pub fn create_dir(&mut self, path: &Path) -> io::Result<()> {
        let mut at = ROOT;
        for name in names(path)? {
            at = match self.dirs[&at].live.get(name) {
                Some(Entry::Dir(dir)) => *dir,
                Some(Entry::File(_)) => return Err(ErrorKind::NotADirectory.into()),
                None => {
                    let made = self.next;
                    self.next += 1;
                    self.dirs.insert(made, Dir::default());
                    self.set(at, name.to_owned(), Some(Entry::Dir(made)));
                    self.sync_name(at, name);
                    made
                }
            };
        }
        Ok(())
    }

    fn sync_name(&mut self, dir: DirId, name: &OsStr) {
        let dir = self
            .dirs
            .get_mut(&dir)
            .expect("ids of directories are found by walking");
        dir.since.remove(name);
        match dir.live.get(name) {
            Some(entry) => dir.synced.insert(name.to_owned(), entry.clone()),
            None => dir.synced.remove(name),
        };
    }

    pub fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let dir = self.dir(path)?;
        Ok(self.dirs[&dir].live.keys().map(PathBuf::from).collect())
    }

    pub fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        let dir = self.dir(path)?;
        let names: Vec<_> = self.dirs[&dir].since.keys().cloned().collect();
        for name in names {
            self.sync_name(dir, &name);
        }
        Ok(())
    }

    /// All files with their paths, in path order of each directory.
    pub fn files(&self) -> Vec<(PathBuf, InodeRef)> {
        let mut out = Vec::new();
        let mut todo = vec![(PathBuf::from("/"), ROOT)];
        while let Some((path, dir)) = todo.pop() {
            for (name, entry) in &self.dirs[&dir].live {
                match entry {
                    Entry::File(file) => out.push((path.join(name), file.clone())),
                    Entry::Dir(dir) => todo.push((path.join(name), *dir)),
                }
            }
        }
        out.sort_by(|a, b| a.0.cmp(&b.0));
        out
    }

    /// What a machine finds after a power cut (invariant 1, and that of each file).
    pub fn after_crash(&self, rng: &mut StdRng) -> Tree {
        let mut found = Tree {
            dirs: BTreeMap::new(),
            next: self.next,
        };
        let mut copies: BTreeMap<usize, InodeRef> = BTreeMap::new();
        let mut todo = vec![ROOT];
        while let Some(id) = todo.pop() {
            let names = self.dirs[&id].names_after_crash(rng);
            let mut dir = Dir::default();
            for (name, entry) in names {
                let entry = match entry {
                    // A directory that was being moved may be found in two places; it stays in
                    // the first.
                    Entry::Dir(child)
                        if found.dirs.contains_key(&child) || todo.contains(&child) =>
                    {
                        continue;
                    }
                    Entry::Dir(child) => {
                        todo.push(child);
                        Entry::Dir(child)
                    }
                    Entry::File(file) => {
                        let copy = copies
                            .entry(Arc::as_ptr(&file).addr())
                            .or_insert_with(|| Arc::new(Mutex::new(file.lock().after_crash(rng))));
                        copy.lock().links += 1;
                        Entry::File(copy.clone())
                    }
                };
                dir.synced.insert(name, entry);
            }
            dir.live = dir.synced.clone();
            found.dirs.insert(id, dir);
        }
        found
    }
}

impl Dir {
    fn names_after_crash(&self, rng: &mut StdRng) -> BTreeMap<OsString, Entry> {
        let mut names = self.synced.clone();
        for (name, states) in &self.since {
            let drawn = rng.random_range(0..=states.len());
            // 0: as it was at the last sync.
            let Some(state) = drawn.checked_sub(1).map(|index| &states[index]) else {
                continue;
            };
            match state {
                Some(entry) => names.insert(name.clone(), entry.clone()),
                None => names.remove(name),
            };
        }
        names
    }
}

fn names(path: &Path) -> io::Result<Vec<&OsStr>> {
    path.components()
        .filter_map(|component| match component {
            Component::RootDir | Component::CurDir => None,
            Component::Normal(name) => Some(Ok(name)),
            Component::ParentDir | Component::Prefix(_) => {
                Some(Err(io::Error::from(ErrorKind::InvalidInput)))
            }
        })
        .collect()
}
