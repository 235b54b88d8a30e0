//! Chunk files: opening with a verified outboard, verified range reads, taking a finished
//! temporary file in, removal. Called by the store and by `incoming`.

use super::core::HASH_INLINE_BYTES_MAX;
use super::damage::{Damage, Quarantine};
use super::dirsync::DirSync;
use super::guard::Guard;
use super::index::{Index, Location, Update};
use super::layout::{Footer, HEADER_BYTES};
use super::outboard::{Outboard, OutboardBuilder, VALUE_BYTES, value_count};
use super::packs::ReadFailure;
use crate::env::{DiskFile, Env, OpenMode};
use crate::error::{Error, Result};
use crate::types::ChunkHash;
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Semaphore;

/// An open chunk file whose outboard was verified.
pub(super) struct LargeChunk {
    pub path: PathBuf,
    file: Arc<dyn DiskFile>,
    pub outboard: Outboard,
    /// The stored outboard was damaged; this one was computed from the data, which is whole.
    pub outboard_damaged: bool,
    /// Bytes read since it was opened. What is read for the first time is not kept in memory: a
    /// stream through all chunks would push out those that are read often.
    read_bytes: AtomicU64,
}

/// Chunk files kept open; the one opened first is closed first.
#[derive(Default)]
struct OpenChunks {
    by_hash: HashMap<ChunkHash, Arc<LargeChunk>>,
    order: VecDeque<ChunkHash>,
}

pub(super) struct LargeFiles {
    env: Env,
    guard: Arc<Guard>,
    dir: PathBuf,
    group_bytes: u64,
    slice_bytes: u64,
    open_max: usize,
    open: Mutex<OpenChunks>,
    dirs: DirSync,
    /// One a prefix directory, held while a name in it comes or goes; true once the directory is
    /// known to exist.
    prefixes: Vec<tokio::sync::Mutex<bool>>,
    temporary: AtomicU64,
    pub writers: Arc<Semaphore>,
}

impl LargeFiles {
    pub fn new(env: Env, guard: Arc<Guard>, dir: PathBuf, options: &super::ChunkOptions) -> Self {
        LargeFiles {
            guard,
            dir,
            group_bytes: u64::from(options.group_bytes),
            slice_bytes: options.slice_bytes,
            open_max: options.open_chunks_max,
            open: Mutex::new(OpenChunks::default()),
            dirs: DirSync::new(env.disk.clone()),
            prefixes: (0..256).map(|_| tokio::sync::Mutex::new(false)).collect(),
            temporary: AtomicU64::new(0),
            writers: Arc::new(Semaphore::new(options.large_writers_max)),
            env,
        }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn temporary_dir(&self) -> PathBuf {
        self.dir.join("tmp")
    }

    pub fn prefix_dir(&self, prefix: u8) -> PathBuf {
        self.dir.join(format!("{prefix:02x}"))
    }

    /// `chunks/ab/cdef…`
    pub fn path(&self, hash: ChunkHash) -> PathBuf {
        self.prefix_dir(hash.0[0]).join(&hash.to_string()[2..])
    }

    /// A name for a file that is being written; unique since the start, and what an earlier run
    /// left was removed.
    pub fn temporary_path(&self) -> PathBuf {
        let number = self.temporary.fetch_add(1, Ordering::Relaxed);
        self.temporary_dir().join(number.to_string())
    }

    /// The chunk's open file, from memory if it can be had there.
    pub async fn open(&self, hash: ChunkHash, len: u64) -> Result<Arc<LargeChunk>, ReadFailure> {
        if let Some(chunk) = self.open.lock().by_hash.get(&hash) {
            return Ok(chunk.clone());
        }
        let chunk = Arc::new(self.open_fresh(hash, len).await?);
        let mut open = self.open.lock();
        if open.by_hash.insert(hash, chunk.clone()).is_none() {
            open.order.push_back(hash);
        }
        if open.order.len() > self.open_max
            && let Some(oldest) = open.order.pop_front()
        {
            open.by_hash.remove(&oldest);
        }
        Ok(chunk)
    }

    /// Waits until nobody is taking in or removing a file of this prefix, so that the index
    /// tells what the directory holds.
    pub async fn settled(&self, hash: ChunkHash) {
        let _held = self.prefixes[usize::from(hash.0[0])].lock().await;
    }

    /// The next read opens the file again.
    pub fn forget(&self, hash: ChunkHash) {
        let mut open = self.open.lock();
        if open.by_hash.remove(&hash).is_some() {
            open.order.retain(|other| *other != hash);
        }
    }

    /// Opens a chunk file and verifies its outboard, which is computed again from the data if
    /// the stored one is damaged.
    pub async fn open_fresh(&self, hash: ChunkHash, len: u64) -> Result<LargeChunk, ReadFailure> {
        let path = self.path(hash);
        let file = match self.env.disk.open(&path, OpenMode::Read).await {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(ReadFailure::Gone),
            Err(e) => return Err(ReadFailure::Other(Error::io("open chunk", &path, &e))),
        };
        let stored = match self.footer(file.as_ref()).await {
            Some(footer) if footer.hash == hash && footer.len == len => {
                self.stored_outboard(file.as_ref(), &footer).await
            }
            _ => None,
        };
        let outboard_damaged = stored.is_none();
        let outboard = match stored {
            Some(outboard) => outboard,
            None => {
                self.computed_outboard(file.as_ref(), &path, hash, len)
                    .await?
            }
        };
        Ok(LargeChunk {
            path,
            file,
            outboard,
            outboard_damaged,
            read_bytes: AtomicU64::new(0),
        })
    }

    /// True if a chunk's file has the right length and its footer; `None`: there is no file. What
    /// is between is not read.
    pub async fn looks_whole(&self, hash: ChunkHash, len: u64) -> Result<Option<bool>> {
        let path = self.path(hash);
        let file = match self.env.disk.open(&path, OpenMode::Read).await {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io("open chunk", &path, &e)),
        };
        let footer = self.footer(file.as_ref()).await;
        Ok(Some(footer.is_some_and(|footer| {
            footer.hash == hash && footer.len == len
        })))
    }

    /// What a chunk file says of itself; `None` when it says nothing credible.
    pub async fn footer(&self, file: &dyn DiskFile) -> Option<Footer> {
        let file_len = file.len().await.ok()?;
        let at = file_len.checked_sub(HEADER_BYTES)?;
        let footer = Footer::decode(&file.read_at(at, HEADER_BYTES as usize).await.ok()?)?;
        let group = u64::from(footer.group_bytes);
        let values = value_count(footer.len, group).checked_mul(VALUE_BYTES as u64)?;
        let fits = footer.len.checked_add(values) == Some(at) && group <= self.slice_bytes;
        fits.then_some(footer)
    }

    async fn stored_outboard(&self, file: &dyn DiskFile, footer: &Footer) -> Option<Outboard> {
        let group = u64::from(footer.group_bytes);
        let bytes = value_count(footer.len, group).checked_mul(VALUE_BYTES as u64)?;
        let stored = file
            .read_at(footer.len, usize::try_from(bytes).ok()?)
            .await
            .ok()?;
        Outboard::verified(footer.hash, footer.len, group, &stored)
    }

    async fn computed_outboard(
        &self,
        file: &dyn DiskFile,
        path: &Path,
        hash: ChunkHash,
        len: u64,
    ) -> Result<Outboard, ReadFailure> {
        let damaged = |offset: u64, why: String| {
            let path = path.to_path_buf();
            ReadFailure::Damaged(Damage { path, offset, why })
        };
        let mut builder = OutboardBuilder::new(self.group_bytes);
        let mut at = 0;
        while at < len {
            let bytes = (len - at).min(self.slice_bytes) as usize;
            let read = file.read_at(at, bytes).await;
            let slice = read.map_err(|e| damaged(at, format!("read error: {e}")))?;
            if slice.len() < bytes {
                let why = "the file is cut short".to_string();
                return Err(damaged(at + slice.len() as u64, why));
            }
            builder = updated(&self.env, builder, vec![slice]).await;
            at += bytes as u64;
        }
        let (found, outboard) = builder.finish();
        if found != hash {
            let why = "neither its data nor its outboard match its hash".to_string();
            return Err(damaged(0, why));
        }
        Ok(outboard)
    }

    /// Reads a range of at most one slice's groups and verifies it.
    async fn read_slice(
        &self,
        chunk: &Arc<LargeChunk>,
        range: Range<u64>,
    ) -> Result<Bytes, Damage> {
        let around = chunk.outboard.around(range.clone());
        let bytes = (around.end - around.start) as usize;
        let damage = |offset: u64, why: String| Damage {
            path: chunk.path.clone(),
            offset,
            why,
        };
        let read = chunk.file.read_at(around.start, bytes).await;
        let read = read.map_err(|e| damage(around.start, format!("read error: {e}")))?;
        let before = chunk.read_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        if before < chunk.outboard.len() {
            chunk.file.forget(around.start, around.end);
        }
        if read.len() != bytes {
            let end = around.start + read.len() as u64;
            return Err(damage(end, "the file is cut short".to_string()));
        }
        let checked = if bytes < HASH_INLINE_BYTES_MAX {
            chunk.outboard.check(around.start, &read)
        } else {
            let (chunk, slice) = (chunk.clone(), read.clone());
            let work = move || chunk.outboard.check(around.start, &slice);
            self.env.run_blocking(work).await
        };
        checked.map_err(|at| damage(at, "the data does not match its hash".to_string()))?;
        let from = (range.start - around.start) as usize;
        Ok(read.slice(from..from + (range.end - range.start) as usize))
    }

    /// Reads and verifies a range that lies within the chunk.
    pub async fn read(&self, chunk: &Arc<LargeChunk>, range: Range<u64>) -> Result<Bytes, Damage> {
        let first = (range.start / self.slice_bytes + 1).saturating_mul(self.slice_bytes);
        if range.end <= first {
            return self.read_slice(chunk, range).await;
        }
        let mut out = BytesMut::with_capacity((range.end - range.start) as usize);
        let mut at = range.start;
        while at < range.end {
            let next = (at / self.slice_bytes + 1).saturating_mul(self.slice_bytes);
            let slice = self.read_slice(chunk, at..next.min(range.end)).await?;
            at += slice.len() as u64;
            out.extend_from_slice(&slice);
        }
        Ok(out.freeze())
    }

    /// Gives a written and synced temporary file its name, durably, and makes it known.
    pub async fn take_in(
        &self,
        index: &Index,
        quarantine: &Quarantine,
        temporary: &Path,
        hash: ChunkHash,
        len: u64,
    ) -> Result<()> {
        let mut made = self.prefixes[usize::from(hash.0[0])].lock().await;
        let dir = self.prefix_dir(hash.0[0]);
        if !*made {
            let create = self.env.disk.create_dir(&dir).await;
            create.map_err(|e| self.guard.failed_write("create directory", &dir, &e))?;
            *made = true;
        }
        let path = self.path(hash);
        let before = index.get(hash).await?;
        let renamed = self.env.disk.rename(temporary, &path).await;
        renamed.map_err(|e| self.guard.failed_write("rename chunk", &path, &e))?;
        self.forget(hash);
        self.sync_dir(dir).await?;
        index.apply(Update {
            chunks: vec![(hash, before, Some(Location::File { len }))],
            packs: Vec::new(),
        });
        quarantine.end(&hash);
        Ok(())
    }

    /// Removes a chunk's file if there is one, known or not. Durable when it returns.
    pub async fn remove(
        &self,
        index: &Index,
        quarantine: &Quarantine,
        hash: ChunkHash,
    ) -> Result<()> {
        let _held = self.prefixes[usize::from(hash.0[0])].lock().await;
        let path = self.path(hash);
        let before = index.get(hash).await?;
        if let Some(Location::Pack { .. }) = before {
            return Ok(());
        }
        match self.env.disk.remove(&path).await {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(self.guard.failed_write("remove chunk", &path, &e));
            }
            Err(_) if before.is_none() => return Ok(()),
            _ => {}
        }
        self.forget(hash);
        self.sync_dir(self.prefix_dir(hash.0[0])).await?;
        if before.is_some() {
            index.apply(Update {
                chunks: vec![(hash, before, None)],
                packs: Vec::new(),
            });
        }
        quarantine.end(&hash);
        Ok(())
    }

    async fn sync_dir(&self, dir: PathBuf) -> Result<()> {
        let synced = self.dirs.sync(dir.clone()).await;
        synced.map_err(|e| self.guard.failed_write("sync directory", &dir, &e))
    }
}

/// Feeds a builder, on the blocking pool when it takes long.
pub(super) async fn updated(
    env: &Env,
    mut builder: OutboardBuilder,
    parts: Vec<Bytes>,
) -> OutboardBuilder {
    let bytes: usize = parts.iter().map(Bytes::len).sum();
    let work = move || {
        parts.iter().for_each(|part| builder.update(part));
        builder
    };
    if bytes < HASH_INLINE_BYTES_MAX {
        work()
    } else {
        env.run_blocking(work).await
    }
}
