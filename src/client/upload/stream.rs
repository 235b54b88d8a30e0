//! The chunks of one upload, in parallel within the window, in order into the manifest.

use super::begun::{Begun, Lacking};
use super::ledger::Ledger;
use super::resume::ResumeState;
use crate::client::buffers::Buffers;
use crate::client::local::LocalFile;
use crate::client::manifest::{Manifest, ManifestBuilder, Piece, pieces, size_max};
use crate::client::progress::Progress;
use crate::client::tree_hash::{PIECE_BYTES, PartHash, PartHasher};
use crate::client::window::Window;
use crate::error::{Error, Result};
use crate::types::ChunkHash;
use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt, TryStreamExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::SemaphorePermit;

/// A pipe's buffer grows by this much as bytes come, so that a short one costs little.
const PIPE_STEP: usize = 256 << 10;

/// Pieces in memory up to this many bytes are hashed at once: a hop to the blocking pool and back
/// costs as much.
const HASH_INLINE_BYTES_MAX: u64 = 256 << 10;

/// Where an upload's bytes come from.
pub(super) enum Source<'a> {
    File(Arc<LocalFile>),
    Memory(Bytes),
    /// What was read of a pipe already, and the rest of it.
    Pipe(Bytes, Box<dyn AsyncRead + Send + Unpin + 'a>),
}

impl Source<'_> {
    /// Bytes in all; `None` for a pipe, which ends when it does.
    pub(super) fn len(&self) -> Option<u64> {
        match self {
            Source::File(file) => Some(file.print.size),
            Source::Memory(bytes) => Some(bytes.len() as u64),
            Source::Pipe(..) => None,
        }
    }

    /// The same bytes from their beginning; `None` for a pipe, which gives them once.
    pub(super) fn again<'b>(&self) -> Option<Source<'b>> {
        match self {
            Source::File(file) => Some(Source::File(Arc::clone(file))),
            Source::Memory(bytes) => Some(Source::Memory(bytes.clone())),
            Source::Pipe(..) => None,
        }
    }
}

/// What moved for an upload.
#[derive(Debug, Default)]
pub(super) struct Moved {
    pub(super) sent_bytes: u64,
    pub(super) reused_bytes: u64,
}

/// One chunk on its way: still in the file, or read.
enum Load<'w> {
    File(Piece),
    Read {
        piece: Piece,
        bytes: Bytes,
        permit: SemaphorePermit<'w>,
    },
}

/// One chunk at its owners.
struct Placed {
    part: PartHash,
    len: u32,
    /// Kept only where the whole hash needs them in order.
    bytes: Bytes,
}

/// What the parts of one transfer share.
pub(super) struct Transfer<'a> {
    pub(super) begun: &'a Begun<'a>,
    pub(super) window: &'a Window,
    pub(super) progress: &'a dyn Progress,
    pub(super) resume: Option<&'a Arc<ResumeState>>,
    pub(super) ledger: &'a Ledger,
    pub(super) lacking: Lacking,
}

impl Transfer<'_> {
    /// Moves everything and hands over all full manifest pages.
    pub(super) async fn run<'s>(&'s self, source: Source<'s>) -> Result<Manifest> {
        let chunk_bytes = self.begun.chunk_bytes;
        let mut builder = ManifestBuilder::new(chunk_bytes);
        let keep = builder.needs_bytes();
        let file = match &source {
            Source::File(file) => Some(Arc::clone(file)),
            _ => None,
        };
        let loads = self.loads(source, chunk_bytes);
        let at_once = self.window.pieces(chunk_bytes);
        let mut placed = loads
            .map(|load| self.place(load, file.clone(), keep))
            .buffered(at_once)
            .boxed();
        while let Some(chunk) = placed.try_next().await? {
            if let Some((page, refs)) = builder.add(&chunk.part, chunk.len, &chunk.bytes)? {
                // Also where an earlier run did so: the shard compares, a state file may be of
                // another content.
                self.begun.stage(page, refs, self.lacking).await?;
            }
        }
        Ok(builder.finish())
    }

    fn loads<'s>(
        &'s self,
        source: Source<'s>,
        chunk_bytes: u64,
    ) -> BoxStream<'s, Result<Load<'s>>> {
        match source {
            Source::File(file) => {
                let pieces = pieces(file.print.size, chunk_bytes);
                stream::iter(pieces.map(|piece| Ok(Load::File(piece)))).boxed()
            }
            Source::Memory(bytes) => {
                let pieces = pieces(bytes.len() as u64, chunk_bytes);
                let parts = pieces.zip(std::iter::repeat(bytes));
                stream::iter(parts)
                    .then(move |(piece, bytes)| self.slice(piece, bytes))
                    .boxed()
            }
            Source::Pipe(prefix, reader) => {
                let pipe = Pipe {
                    prefix,
                    reader,
                    index: 0,
                    chunk_bytes,
                };
                stream::try_unfold(pipe, move |pipe| self.next_of_pipe(pipe)).boxed()
            }
        }
    }

    fn slice(&self, piece: Piece, whole: Bytes) -> BoxFuture<'_, Result<Load<'_>>> {
        async move {
            let permit = self.window.take(piece.len).await;
            // A slice of something in memory: its offsets fit `usize`.
            let (from, to) = (piece.offset as usize, piece.offset + piece.len);
            let bytes = whole.slice(from..to as usize);
            Ok(Load::Read {
                piece,
                bytes,
                permit,
            })
        }
        .boxed()
    }

    async fn next_of_pipe<'s>(
        &'s self,
        mut pipe: Pipe<'s>,
    ) -> Result<Option<(Load<'s>, Pipe<'s>)>> {
        let permit = self.window.take(pipe.chunk_bytes).await;
        let Some((piece, bytes)) = pipe.next().await? else {
            return Ok(None);
        };
        let load = Load::Read {
            piece,
            bytes,
            permit,
        };
        Ok(Some((load, pipe)))
    }

    /// Boxed: the compiler cannot see through the stream otherwise that it may move between
    /// threads.
    fn place<'s>(
        &'s self,
        load: Result<Load<'s>>,
        file: Option<Arc<LocalFile>>,
        keep: bool,
    ) -> BoxFuture<'s, Result<Placed>> {
        async move { self.place_load(load?, file, keep).await }.boxed()
    }

    async fn place_load(
        &self,
        load: Load<'_>,
        file: Option<Arc<LocalFile>>,
        keep: bool,
    ) -> Result<Placed> {
        let chunk_bytes = self.begun.chunk_bytes;
        let env = &self.begun.client.core.env;
        let (piece, bytes, part, _permit) = match load {
            Load::File(piece) => {
                let permit = self.window.take(piece.len).await;
                let file = file.expect("pieces of a file come with the file");
                let buffers = Arc::clone(&self.window.buffers);
                let read = env.run_blocking(move || read(&file, piece, chunk_bytes, &buffers));
                let (bytes, part) = read.await?;
                (piece, bytes, part, permit)
            }
            Load::Read {
                piece,
                bytes,
                permit,
            } => {
                let shared = bytes.clone();
                let hash = move || PartHash::of(&shared, piece.offset, chunk_bytes);
                let part = match piece.len <= HASH_INLINE_BYTES_MAX {
                    true => hash(),
                    false => env.run_blocking(hash).await,
                };
                (piece, bytes, part, permit)
            }
        };
        self.place_bytes(piece, part.hash, bytes.clone()).await?;
        Ok(Placed {
            part,
            len: u32::try_from(piece.len).map_err(|_| Error::failed("a chunk over 4 GiB"))?,
            bytes: if keep { bytes } else { Bytes::new() },
        })
    }

    async fn place_bytes(&self, piece: Piece, hash: ChunkHash, bytes: Bytes) -> Result<()> {
        let env = &self.begun.client.core.env;
        let mut went_before = self.ledger.was_sent(piece.index);
        if let Some(state) = self.resume {
            let state = Arc::clone(state);
            let marked = env.run_blocking(move || state.marked(piece.index)).await;
            went_before |= marked == Some(hash);
        }
        let done = AtomicU64::new(0);
        let advance = |more| {
            let now = done.fetch_add(more, Ordering::Relaxed) + more;
            self.ledger.done(piece.index, now, self.progress);
        };
        // Where it went it may be lost since, or its time there may be over.
        if went_before && self.begun.is_stored(hash).await? {
            advance(piece.len);
            return Ok(());
        }
        if self.begun.place(hash, bytes, &advance).await? {
            self.ledger.sent(piece.index, piece.len);
        }
        if let Some(state) = self.resume {
            let state = Arc::clone(state);
            let marked = env.run_blocking(move || state.mark(piece.index, &hash));
            marked.await?;
        }
        Ok(())
    }
}

/// Reads one chunk of a file and hashes it, each piece while it is in the cache.
fn read(
    file: &LocalFile,
    piece: Piece,
    chunk_bytes: u64,
    buffers: &Arc<Buffers>,
) -> Result<(Bytes, PartHash)> {
    let len = usize::try_from(piece.len).map_err(|_| Error::failed("a chunk over the memory"))?;
    let mut hasher = PartHasher::for_part(piece.offset, piece.len, chunk_bytes);
    let bytes = buffers.filled(len, |out| {
        let mut at = piece.offset;
        for part in out.chunks_mut(PIECE_BYTES) {
            file.read_exact_at(part, at)?;
            hasher.update(part);
            at += part.len() as u64;
        }
        Ok::<_, Error>(())
    })?;
    let part = hasher.finish();
    Ok((bytes, part.expect("a part's own hash is always asked for")))
}

/// A pipe being cut into chunks.
struct Pipe<'a> {
    prefix: Bytes,
    reader: Box<dyn AsyncRead + Send + Unpin + 'a>,
    index: u64,
    chunk_bytes: u64,
}

impl Pipe<'_> {
    /// The next chunk: whole unless the pipe ends.
    async fn next(&mut self) -> Result<Option<(Piece, Bytes)>> {
        let whole = usize::try_from(self.chunk_bytes).unwrap_or(usize::MAX);
        let taken = self.prefix.split_to(self.prefix.len().min(whole));
        let bytes = match taken.len() == whole {
            true => taken,
            false => fill(&mut *self.reader, BytesMut::from(&taken[..]), whole).await?,
        };
        if bytes.is_empty() {
            return Ok(None);
        }
        let piece = Piece {
            index: self.index,
            offset: self.index * self.chunk_bytes,
            len: bytes.len() as u64,
        };
        if piece.offset >= size_max(self.chunk_bytes) {
            return Err(Error::usage("more bytes than a file can hold"));
        }
        self.index += 1;
        Ok(Some((piece, bytes)))
    }
}

/// Reads until `whole` bytes are there or the pipe ends.
pub(super) async fn fill(
    reader: &mut (dyn AsyncRead + Send + Unpin),
    mut buffer: BytesMut,
    whole: usize,
) -> Result<Bytes> {
    while buffer.len() < whole {
        let missing = whole - buffer.len();
        buffer.reserve(missing.min(PIPE_STEP.max(buffer.len())));
        let mut limited = (&mut *reader).take(missing as u64);
        let read = limited.read_buf(&mut buffer).await;
        if read.map_err(|e| Error::failed(format!("cannot read the input ({e})")))? == 0 {
            break;
        }
    }
    Ok(buffer.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_pipe_is_cut_into_whole_chunks_and_a_rest() {
        let data: Vec<u8> = (0..10_000u32).map(|i| i as u8).collect();
        for prefix in [0, 10, 3_000, 3_001, 7_000] {
            let mut rest = &data[prefix..];
            let mut pipe = Pipe {
                prefix: Bytes::copy_from_slice(&data[..prefix]),
                reader: Box::new(&mut rest),
                index: 0,
                chunk_bytes: 3_000,
            };
            let mut all = Vec::new();
            let mut lens = Vec::new();
            while let Some((piece, bytes)) = pipe.next().await.unwrap() {
                assert_eq!(piece.offset as usize, all.len());
                lens.push(bytes.len());
                all.extend_from_slice(&bytes);
            }
            assert_eq!(all, data, "{prefix}");
            assert_eq!(lens, [3_000, 3_000, 3_000, 1_000]);
        }
    }
}
