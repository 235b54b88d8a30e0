//! Files of the operating system, for `env::real`. Every call is one trip to a thread.
//!
//! A dropped future does not stop its operation: it runs to its end, its result is lost.

use super::file;
use super::pool::{Pool, abort_process};
use crate::env::{Disk, DiskFile, OpenMode, Space};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use tokio::sync::oneshot;

/// Files and directories are for the node's own user only.
const FILE_MODE: u32 = 0o600;
const DIR_MODE: u32 = 0o700;

/// The node's file system.
pub struct RealDisk {
    pub(super) pools: Arc<Pools>,
}

pub(super) struct Pools {
    /// All operations but `write_sync`.
    pub(super) disk: Pool,
    /// `write_sync`: log appends do not wait behind large writes.
    pub(super) log: Pool,
}

impl RealDisk {
    /// See [`super::Threads`].
    pub fn new(disk_threads: usize, log_threads: usize) -> Self {
        RealDisk {
            pools: Arc::new(Pools {
                disk: Pool::new("dfs-disk", disk_threads, abort_process),
                log: Pool::new("dfs-log", log_threads, abort_process),
            }),
        }
    }

    fn run<'a, T: Send + 'static>(
        &'a self,
        path: &'a Path,
        work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> BoxFuture<'a, io::Result<T>> {
        async move {
            let path = path.to_owned();
            run_on(&self.pools.disk, move || work(&path)).await
        }
        .boxed()
    }
}

/// Runs `work` on a thread of the pool and waits for it.
async fn run_on<T: Send + 'static>(
    pool: &Pool,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (send, receive) = oneshot::channel();
    pool.submit(Box::new(move || {
        // The waiter may be gone (a cancelled request); its result is not needed then.
        let _ = send.send(work());
    }));
    receive
        .await
        .expect("work on the disk's threads ends by answering or ends the process")
}

impl Disk for RealDisk {
    fn open<'a>(
        &'a self,
        path: &'a Path,
        mode: OpenMode,
    ) -> BoxFuture<'a, io::Result<Arc<dyn DiskFile>>> {
        let pools = self.pools.clone();
        self.run(path, move |path| {
            let file = open_file(path, mode)?;
            let file: Arc<dyn DiskFile> = Arc::new(RealFile {
                file: Arc::new(file),
                direct: Arc::default(),
                pools,
            });
            Ok(file)
        })
    }

    fn rename<'a>(&'a self, from: &'a Path, to: &'a Path) -> BoxFuture<'a, io::Result<()>> {
        let to = to.to_owned();
        self.run(from, move |from| fs::rename(from, to))
    }

    fn remove<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, io::Result<()>> {
        self.run(path, |path| fs::remove_file(path))
    }

    fn create_dir<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, io::Result<()>> {
        self.run(path, create_dir_durably)
    }

    fn list<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, io::Result<Vec<PathBuf>>> {
        self.run(path, |path| {
            let mut names = fs::read_dir(path)?
                .map(|entry| Ok(PathBuf::from(entry?.file_name())))
                .collect::<io::Result<Vec<_>>>()?;
            names.sort();
            Ok(names)
        })
    }

    fn sync_dir<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, io::Result<()>> {
        self.run(path, sync_dir)
    }

    fn space<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, io::Result<Space>> {
        self.run(path, |path| {
            let stat = rustix::fs::statvfs(path)?;
            Ok(Space {
                total: stat.f_blocks.saturating_mul(stat.f_frsize),
                available: stat.f_bavail.saturating_mul(stat.f_frsize),
            })
        })
    }

    fn exists<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, io::Result<bool>> {
        self.run(path, |path| path.try_exists())
    }
}

fn open_file(path: &Path, mode: OpenMode) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).mode(FILE_MODE);
    match mode {
        OpenMode::Read => &mut options,
        OpenMode::Write => options.write(true),
        OpenMode::CreateNew => options.write(true).create_new(true),
    };
    options.open(path)
}

pub(in crate::env) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Makes the directory and its parents; each new name is durable in its parent on return.
pub(in crate::env) fn create_dir_durably(path: &Path) -> io::Result<()> {
    let mut missing: Vec<&Path> = Vec::new();
    for dir in path.ancestors() {
        // The parent of a relative path's first name is "", the working directory.
        if dir.as_os_str().is_empty() || dir.try_exists()? {
            break;
        }
        missing.push(dir);
    }
    for dir in missing.into_iter().rev() {
        match fs::DirBuilder::new().mode(DIR_MODE).create(dir) {
            // Somebody made it at the same time; it may not be durable yet.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            other => other?,
        }
        match dir.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent)?,
            _ => sync_dir(Path::new("."))?,
        }
    }
    if path.is_dir() {
        return Ok(());
    }
    Err(io::Error::new(
        ErrorKind::NotADirectory,
        "the name is taken by something that is not a directory",
    ))
}

/// One open file.
struct RealFile {
    file: Arc<File>,
    /// The same past the page cache, from the first write that can go there on; `None`: the file
    /// system does not know that.
    direct: Arc<OnceLock<Option<File>>>,
    pools: Arc<Pools>,
}

impl RealFile {
    fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&File) -> io::Result<T> + Send + 'static,
    ) -> BoxFuture<'_, io::Result<T>> {
        let file = self.file.clone();
        run_on(&self.pools.disk, move || work(&file)).boxed()
    }
}

impl DiskFile for RealFile {
    fn read_at(&self, offset: u64, len: usize) -> BoxFuture<'_, io::Result<Bytes>> {
        self.run(move |file| file::read(file, offset, len))
    }

    fn write_at(&self, offset: u64, parts: Vec<Bytes>) -> BoxFuture<'_, io::Result<()>> {
        self.run(move |file| file::write(file, offset, &parts).map(drop))
    }

    fn write_behind(&self, offset: u64, parts: Vec<Bytes>) -> BoxFuture<'_, io::Result<()>> {
        let direct = self.direct.clone();
        self.run(move |file| {
            if file::is_aligned(offset, &parts)
                && let Some(direct) = direct.get_or_init(|| file::reopen_direct(file))
            {
                match file::write(direct, offset, &parts) {
                    // The device has larger blocks.
                    Err(error) if error.kind() == ErrorKind::InvalidInput => {}
                    written => return written.map(drop),
                }
            }
            let end = file::write(file, offset, &parts)?;
            file::begin_writeback(file, offset, end);
            Ok(())
        })
    }

    fn forget(&self, from: u64, to: u64) {
        file::forget(&self.file, from, to);
    }

    fn write_sync(&self, offset: u64, parts: Vec<Bytes>) -> BoxFuture<'_, io::Result<()>> {
        let file = self.file.clone();
        run_on(&self.pools.log, move || {
            file::write(&file, offset, &parts)?;
            file.sync_data()
        })
        .boxed()
    }

    fn sync(&self) -> BoxFuture<'_, io::Result<()>> {
        self.run(File::sync_data)
    }

    fn len(&self) -> BoxFuture<'_, io::Result<u64>> {
        self.run(|file| Ok(file.metadata()?.len()))
    }

    fn set_len(&self, len: u64) -> BoxFuture<'_, io::Result<()>> {
        self.run(move |file| file.set_len(len))
    }

    fn zero(&self, offset: u64, len: u64) -> BoxFuture<'_, io::Result<()>> {
        self.run(move |file| file::zero(file, offset, len))
    }
}
