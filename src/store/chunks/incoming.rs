//! Taking one chunk's bytes in order. A small chunk is gathered in memory and handed to the
//! appender; a large one is written to a temporary file while it is hashed.

use super::ChunkStore;
use super::index::Location;
use super::large::updated;
use super::layout::Footer;
use super::ops::{Op, Put};
use super::outboard::OutboardBuilder;
use crate::env::{DiskFile, OpenMode};
use crate::error::{Error, Result};
use crate::types::ChunkHash;
use bytes::{Bytes, BytesMut};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;

/// Appends of one chunk whose older copy turns out not to be there.
const APPENDS_TRIED_MAX: u32 = 4;

/// Takes one chunk's bytes in order. Dropped unfinished, it leaves nothing behind.
///
/// It holds memory of the store while it lives: whoever drives it bounds the time it waits for
/// bytes.
pub struct ChunkWriter {
    store: Arc<ChunkStore>,
    hash: ChunkHash,
    /// Bytes announced, bytes taken so far.
    len: u64,
    taken: u64,
    /// Taken and not yet written: all of a small chunk, at most a slice of a large one.
    gathered: BytesMut,
    /// All of a small chunk that came in one piece.
    whole: Bytes,
    permit: Option<OwnedSemaphorePermit>,
    /// `None`: a small chunk.
    file: Option<Incoming>,
}

/// The temporary file of a large chunk.
struct Incoming {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    /// Taken out while a slice is hashed.
    builder: Option<OutboardBuilder>,
    written: u64,
}

impl ChunkWriter {
    pub(super) async fn begin(store: Arc<ChunkStore>, hash: ChunkHash, len: u64) -> Result<Self> {
        let core = &store.core;
        core.guard.check()?;
        let most = core.options.chunk_bytes_max;
        if len > most {
            return Err(Error::usage(format!(
                "a chunk of {len} bytes is too large (at most {most})"
            )));
        }
        let closed = "the semaphores of a chunk store are never closed";
        let (permit, file) = if len < core.options.pack_chunk_bytes_max {
            let bytes = u32::try_from(len).expect("checked by the options");
            let permit = core.queued_bytes.clone().acquire_many_owned(bytes).await;
            (permit.expect(closed), None)
        } else {
            let permit = core
                .large
                .writers
                .clone()
                .acquire_owned()
                .await
                .expect(closed);
            let path = core.large.temporary_path();
            let opened = core.env.disk.open(&path, OpenMode::CreateNew).await;
            let file = opened.map_err(|e| Error::io("create chunk file", &path, &e))?;
            let builder = Some(OutboardBuilder::new(u64::from(core.options.group_bytes)));
            let incoming = Incoming {
                path,
                file,
                builder,
                written: 0,
            };
            (permit, Some(incoming))
        };
        Ok(ChunkWriter {
            store,
            hash,
            len,
            taken: 0,
            gathered: BytesMut::new(),
            whole: Bytes::new(),
            permit: Some(permit),
            file,
        })
    }

    /// The next bytes. All of a small chunk, and slices of the size the store works with, are taken
    /// as they are; smaller parts are copied together: neither the hash nor the disk takes a few
    /// KiB at a time well.
    ///
    /// # Errors
    /// `usage` when more come than announced, `no_space`. After an error only dropping is left.
    pub async fn write(&mut self, bytes: Bytes) -> Result<()> {
        let total = self.taken.saturating_add(bytes.len() as u64);
        if total > self.len {
            return Err(Error::usage(format!(
                "chunk {} has more than the {} bytes announced",
                self.hash, self.len
            )));
        }
        self.taken = total;
        // A small chunk is smaller than its limit, so that it never fills a slice here.
        let slice = match self.file {
            Some(_) => usize::try_from(self.store.core.options.slice_bytes).unwrap_or(usize::MAX),
            None => usize::MAX,
        };
        let last = self.taken == self.len;
        if self.gathered.is_empty() {
            match self.file {
                None if last => {
                    self.whole = bytes;
                    return Ok(());
                }
                Some(_) if bytes.len() == slice || last && bytes.len() < slice => {
                    return self.write_slice(bytes).await;
                }
                _ => {}
            }
        }
        let mut bytes = &bytes[..];
        if self.gathered.capacity() == 0 {
            // Bounded by the options, which fit memory.
            let options = &self.store.core.options;
            let room = self
                .len
                .min(options.slice_bytes.max(options.pack_chunk_bytes_max));
            self.gathered
                .reserve(usize::try_from(room).unwrap_or(usize::MAX));
        }
        while !bytes.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min(slice - self.gathered.len()));
            self.gathered.extend_from_slice(now);
            bytes = rest;
            if self.gathered.len() == slice {
                self.write_gathered().await?;
            }
        }
        Ok(())
    }

    /// Verifies length and hash and makes the chunk durable.
    ///
    /// # Errors
    /// `corrupt` when length or hash do not fit, `no_space`. Nothing is kept then.
    pub async fn finish(mut self) -> Result<()> {
        if self.taken != self.len {
            return Err(Error::corrupt(format!(
                "chunk {} ended after {} of {} bytes",
                self.hash, self.taken, self.len
            )));
        }
        if self.file.is_some() {
            self.finish_large().await
        } else {
            self.finish_small().await
        }
    }

    async fn finish_small(&mut self) -> Result<()> {
        let data = match self.gathered.is_empty() {
            true => std::mem::take(&mut self.whole),
            false => std::mem::take(&mut self.gathered).freeze(),
        };
        let data = vec![data];
        let core = &self.store.core;
        self.matches(super::core::hash_of(&core.env, data.clone()).await)?;
        let (hash, len, mut permit) = (self.hash, self.len as u32, self.permit.take());
        for _ in 0..APPENDS_TRIED_MAX {
            let put = |reply| {
                Op::Put(Put {
                    hash,
                    data: data.clone(),
                    len,
                    moved_from: None,
                    _permit: permit.take(),
                    reply,
                })
            };
            let was_there = self.store.ask(put).await?;
            // Only a look at the disk makes an older copy count. A damaged one is out of use from
            // then on, and the next append replaces it.
            if !was_there || self.store.confirm(hash).await?.is_some() {
                return Ok(());
            }
        }
        let error = format!("chunk {hash} comes and goes while it is written");
        Err(Error::unavailable(error).hint("try again"))
    }

    fn matches(&self, found: ChunkHash) -> Result<()> {
        if found == self.hash {
            return Ok(());
        }
        Err(Error::corrupt(format!(
            "the bytes received have the hash {found}, not {} as announced",
            self.hash
        )))
    }

    /// Writes what is gathered.
    async fn write_gathered(&mut self) -> Result<()> {
        let slice = std::mem::take(&mut self.gathered).freeze();
        self.write_slice(slice.clone()).await?;
        // The same memory takes the next slice: a fresh page costs more than a copy. Whoever
        // shared it has let go; if not, a new one is as good.
        self.gathered = slice.try_into_mut().unwrap_or_default();
        self.gathered.clear();
        Ok(())
    }

    /// Hashes and writes a part of a large chunk, both at once.
    async fn write_slice(&mut self, slice: Bytes) -> Result<()> {
        let core = &self.store.core;
        let Some(incoming) = &mut self.file else {
            return Ok(());
        };
        let builder = incoming.builder.take();
        let builder = builder.ok_or_else(|| Error::failed("the chunk's writer has failed"))?;
        let parts = vec![slice.clone()];
        let write = incoming.file.write_behind(incoming.written, parts.clone());
        let (builder, written) = tokio::join!(updated(&core.env, builder, parts), write);
        written.map_err(|e| core.guard.failed_write("write chunk", &incoming.path, &e))?;
        incoming.builder = Some(builder);
        incoming.written += slice.len() as u64;
        Ok(())
    }

    async fn finish_large(&mut self) -> Result<()> {
        self.write_gathered().await?;
        let core = self.store.core.clone();
        let Some(incoming) = &mut self.file else {
            return Ok(());
        };
        let builder = incoming.builder.take();
        let builder = builder.ok_or_else(|| Error::failed("the chunk's writer has failed"))?;
        let (file, end, path) = (
            incoming.file.clone(),
            incoming.written,
            incoming.path.clone(),
        );
        let (found, outboard) = builder.finish();
        self.matches(found)?;
        let footer = Footer {
            len: self.len,
            group_bytes: core.options.group_bytes,
            hash: self.hash,
        };
        let trailer = vec![
            Bytes::from(outboard.bytes()),
            Bytes::copy_from_slice(&footer.encode()),
        ];
        let synced = file.write_sync(end, trailer).await;
        synced.map_err(|e| core.guard.failed_write("sync chunk", &path, &e))?;
        file.forget(0, end);
        if self.is_packed().await? {
            return Ok(());
        }
        // In a task of its own: a caller that gives up must not leave a chunk with a name that
        // the index does not know.
        let (hash, len, store) = (self.hash, self.len, self.store.clone());
        let task = async move {
            let core = &store.core;
            let taken = core
                .large
                .take_in(&core.index, &core.quarantine, &path, hash, len)
                .await;
            if taken.is_err() {
                let _ = core.env.disk.remove(&path).await;
            }
            taken
        };
        self.file = None;
        let permit = self.permit.take();
        let task = async move {
            let result = task.await;
            drop(permit);
            result
        };
        self.store.run_to_end("chunk-take-in", task).await
    }

    /// True where a good record of the chunk lies in a pack, which happens only if the limit
    /// between small and large was another once. A damaged one makes way.
    async fn is_packed(&self) -> Result<bool> {
        let core = &self.store.core;
        let Some(Location::Pack { .. }) = core.index.get(self.hash).await? else {
            return Ok(false);
        };
        if self.store.confirm(self.hash).await?.is_some() {
            return Ok(true);
        }
        let hash = self.hash;
        self.store.ask(|reply| Op::Remove { hash, reply }).await?;
        Ok(false)
    }
}

impl Drop for ChunkWriter {
    fn drop(&mut self) {
        // What a crash leaves is removed at the next open.
        if let Some(incoming) = self.file.take() {
            let disk = self.store.core.env.disk.clone();
            let permit = self.permit.take();
            let cleanup = async move {
                let _ = disk.remove(&incoming.path).await;
                drop(permit);
            };
            self.store
                .core
                .env
                .spawn
                .spawn("chunk-abandon", Box::pin(cleanup));
        }
    }
}
