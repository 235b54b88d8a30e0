//! The simulated disk as a [`Disk`]: names and directories.

use super::fault::Verdict;
use super::file::SimFile;
use super::state::State;
use super::{OpKind, SimDisk};
use crate::env::{Disk, DiskFile, OpenMode, Space};
use futures::FutureExt;
use futures::future::BoxFuture;
use rand::Rng;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

impl SimDisk {
    /// Runs one operation when its future is first polled.
    fn run<'a, T: Send + 'a>(
        &'a self,
        work: impl FnOnce(&mut State) -> io::Result<T> + Send + 'a,
    ) -> BoxFuture<'a, io::Result<T>> {
        async move { work(&mut self.state.lock()) }.boxed()
    }
}

impl Disk for SimDisk {
    fn open<'a>(
        &'a self,
        path: &'a Path,
        mode: OpenMode,
    ) -> BoxFuture<'a, io::Result<Arc<dyn DiskFile>>> {
        self.run(move |state| {
            let inode = state.open(path, mode)?;
            let disk = self.clone();
            let writable = mode != OpenMode::Read;
            let file: Arc<dyn DiskFile> = Arc::new(SimFile::new(disk, path, inode, writable));
            Ok(file)
        })
    }

    fn rename<'a>(&'a self, from: &'a Path, to: &'a Path) -> BoxFuture<'a, io::Result<()>> {
        self.run(move |state| {
            state.change_names(OpKind::Rename, from, |state| {
                if let Some(replaced) = state.tree.rename(from, to)? {
                    state.unlink(&replaced);
                }
                Ok(())
            })
        })
    }

    fn remove<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, io::Result<()>> {
        self.run(move |state| {
            state.change_names(OpKind::Remove, path, |state| {
                let file = state.tree.remove(path)?;
                state.unlink(&file);
                Ok(())
            })
        })
    }

    fn create_dir<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, io::Result<()>> {
        self.run(move |state| {
            let verdict = state.plan.admit(OpKind::CreateDir, path)?;
            if verdict == Verdict::Go || (verdict == Verdict::PowerCut && state.rng.random()) {
                state.tree.create_dir(path)?;
            }
            verdict.into_result()
        })
    }

    fn list<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, io::Result<Vec<PathBuf>>> {
        self.run(move |state| {
            state.plan.admit(OpKind::List, path)?.into_result()?;
            state.tree.list(path)
        })
    }

    fn sync_dir<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, io::Result<()>> {
        self.run(move |state| {
            state.plan.admit(OpKind::SyncDir, path)?.into_result()?;
            state.tree.sync_dir(path)
        })
    }

    fn space<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, io::Result<Space>> {
        self.run(move |state| {
            state.plan.admit(OpKind::Space, path)?.into_result()?;
            state.tree.lookup(path)?.ok_or(ErrorKind::NotFound)?;
            Ok(state.space())
        })
    }

    fn exists<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, io::Result<bool>> {
        self.run(move |state| {
            state.plan.admit(OpKind::Exists, path)?.into_result()?;
            match state.tree.lookup(path) {
                Ok(entry) => Ok(entry.is_some()),
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
                Err(error) => Err(error),
            }
        })
    }
}
