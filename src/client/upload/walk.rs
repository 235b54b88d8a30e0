//! A local tree as a put sees it, item by item: memory is bounded by its depth, not its size.
//! Blocking; called from the blocking pool, a batch at a time.

use crate::client::download::is_part;
use crate::client::local::permission_bits;
use crate::error::{Error, Result};
use crate::types::{DfsPath, Name};
use std::fs::{Metadata, ReadDir};
use std::path::{Path, PathBuf};

/// Something found.
#[derive(Debug)]
pub(super) enum Item {
    Dir {
        remote: DfsPath,
        /// Permission bits.
        mode: u16,
    },
    File(FoundFile),
    /// Left out: a part of a file that a get has not come to the end with, at this local path.
    Part(PathBuf),
    /// Cannot be read or stored; says its local path.
    Failed(Error),
}

#[derive(Debug)]
pub(super) struct FoundFile {
    pub(super) local: PathBuf,
    pub(super) remote: DfsPath,
    /// Bytes when it was found.
    pub(super) size: u64,
}

/// Walks below a directory; a directory comes before what is in it, names in any order.
pub(super) struct Walk {
    stack: Vec<(ReadDir, PathBuf, DfsPath)>,
}

impl Walk {
    /// # Errors
    /// The directory itself cannot be read.
    pub(super) fn new(local: &Path, remote: &DfsPath) -> Result<Walk> {
        let entries = std::fs::read_dir(local);
        let entries = entries.map_err(|e| Error::io("read the directory", local, &e))?;
        Ok(Walk {
            stack: vec![(entries, local.to_owned(), remote.clone())],
        })
    }

    /// The next items, at most `most`; fewer only at the end.
    pub(super) fn take(&mut self, most: usize) -> Vec<Item> {
        let mut items = Vec::new();
        while items.len() < most {
            match self.next() {
                Some(item) => items.push(item),
                None => break,
            }
        }
        items
    }

    fn next(&mut self) -> Option<Item> {
        loop {
            let (entries, local, remote) = self.stack.last_mut()?;
            let found = match entries.next() {
                None => {
                    self.stack.pop();
                    continue;
                }
                Some(Err(e)) => {
                    // The directory cannot be read on; asked again it would say so for ever.
                    let error = Error::io("read the directory", &local, &e);
                    self.stack.pop();
                    return Some(Item::Failed(error));
                }
                Some(Ok(entry)) => entry,
            };
            let path = local.join(found.file_name());
            let item = name_of(&found)
                .and_then(|name| remote.join(&name))
                .and_then(|remote| {
                    let meta = found.metadata();
                    let meta = meta.map_err(|e| Error::io("look at it", &path, &e))?;
                    self.enter(&path, remote, &meta)
                });
            return Some(item.unwrap_or_else(|error| {
                Item::Failed(Error {
                    path: Some(path.display().to_string()),
                    ..error
                })
            }));
        }
    }

    fn enter(&mut self, path: &Path, remote: DfsPath, meta: &Metadata) -> Result<Item> {
        if meta.is_symlink() {
            return Err(
                Error::failed("it is a symbolic link (symbolic links are not stored)")
                    .hint("put the file that it points to"),
            );
        }
        if meta.is_file() && is_part(path) {
            return Ok(Item::Part(path.to_owned()));
        }
        if meta.is_file() {
            return Ok(Item::File(FoundFile {
                local: path.to_owned(),
                remote,
                size: meta.len(),
            }));
        }
        if !meta.is_dir() {
            return Err(Error::failed(
                "not a file or directory (pipe, socket or device)",
            ));
        }
        let entries = std::fs::read_dir(path);
        let entries = entries.map_err(|e| Error::io("read the directory", path, &e))?;
        let mode = permission_bits(meta);
        self.stack.push((entries, path.to_owned(), remote.clone()));
        Ok(Item::Dir { remote, mode })
    }
}

fn name_of(entry: &std::fs::DirEntry) -> Result<Name> {
    let name = entry.file_name();
    let text = name.to_str();
    let text = text.ok_or_else(|| Error::usage("the name is not UTF-8").hint("rename it"))?;
    Name::parse(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn tells_everything_once_and_directories_first() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        std::fs::create_dir_all(root.join("a/b/c")).unwrap();
        std::fs::create_dir(root.join("closed")).unwrap();
        for name in ["x", "a/y", "a/b/c/z"] {
            std::fs::write(root.join(name), name).unwrap();
        }
        symlink("x", root.join("link")).unwrap();
        let odd = std::ffi::OsStr::from_bytes(b"bad\xff");
        std::fs::write(root.join(odd), "").unwrap();
        std::fs::set_permissions(root.join("a"), PermissionsExt::from_mode(0o750)).unwrap();

        let remote = DfsPath::parse("/r").unwrap();
        let mut walk = Walk::new(root, &remote).unwrap();
        let (mut dirs, mut files, mut failed) = (vec!["/r".to_string()], Vec::new(), Vec::new());
        loop {
            let items = walk.take(2);
            if items.is_empty() {
                break;
            }
            for item in items {
                match item {
                    Item::Dir { remote, mode } => {
                        let parent = remote.parent().unwrap().to_string();
                        assert!(dirs.contains(&parent), "{remote} before {parent}");
                        assert_eq!(mode == 0o750, remote.as_str() == "/r/a");
                        dirs.push(remote.to_string());
                    }
                    Item::File(file) => {
                        let parent = file.remote.parent().unwrap().to_string();
                        assert!(dirs.contains(&parent));
                        assert_eq!(std::fs::read(&file.local).unwrap().len() as u64, file.size);
                        files.push(file.remote.to_string());
                    }
                    Item::Part(path) => panic!("{path:?} is no part"),
                    Item::Failed(error) => failed.push(error),
                }
            }
        }
        dirs.sort();
        files.sort();
        assert_eq!(dirs, ["/r", "/r/a", "/r/a/b", "/r/a/b/c", "/r/closed"]);
        assert_eq!(files, ["/r/a/b/c/z", "/r/a/y", "/r/x"]);
        assert_eq!(failed.len(), 2, "{failed:?}");
        assert!(
            failed.iter().any(|e| e.message.contains("symbolic links")
                && e.path.as_ref().unwrap().ends_with("link"))
        );
        assert!(failed.iter().any(|e| e.message.contains("UTF-8")));
    }

    #[test]
    fn a_missing_root_is_an_error() {
        let remote = DfsPath::root();
        assert!(Walk::new(Path::new("/no/such/place"), &remote).is_err());
    }
}
