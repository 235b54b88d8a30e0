//! One process a data directory. Taken by `node` before it reads anything there.

use crate::error::{Code, Error, Result};
use rustix::fs::FlockOperation;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::Path;

/// Held while it lives; the kernel lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub struct DirLock {
    _file: File,
}

impl DirLock {
    /// Takes `DIR/lock` and writes the process id into it (for the other one's error).
    ///
    /// # Errors
    /// `locked` when another process has it.
    pub fn acquire(dir: &Path) -> Result<DirLock> {
        let path = dir.join("lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|e| Error::io("open", &path, &e))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(held_by_another(dir, file)),
            Err(e) => return Err(Error::io("lock", &path, &e.into())),
        }
        let pid = format!("{}\n", std::process::id());
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(pid.as_bytes()))
            .map_err(|e| Error::io("write", &path, &e))?;
        Ok(DirLock { _file: file })
    }
}

fn held_by_another(dir: &Path, file: File) -> Error {
    let mut text = String::new();
    // The holder may be writing just now, or on another machine: its pid is a courtesy.
    let _ = file.take(32).read_to_string(&mut text);
    let holder = match text.trim().parse::<u32>() {
        Ok(pid) => format!("in use by another dfs process (pid {pid})"),
        Err(_) => "in use by another dfs process".to_owned(),
    };
    Error::new(Code::Locked, holder)
        .at(dir.display())
        .hint("stop it first, or use another directory with --data")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_process_is_told_the_first_ones_pid() {
        let dir = tempfile::tempdir().unwrap();
        let held = DirLock::acquire(dir.path()).unwrap();
        // flock belongs to the open file, so a second open in this process is refused as well.
        let error = DirLock::acquire(dir.path()).unwrap_err();
        assert_eq!(error.code, Code::Locked);
        let pid = format!("in use by another dfs process (pid {})", std::process::id());
        assert!(error.message.contains(&pid), "{error}");
        drop(held);
        DirLock::acquire(dir.path()).unwrap();
    }
}
