//! Where the bytes of a fetched chunk go, and how they are hashed on the way.

use super::part::OneWriter;
use crate::client::tree_hash::PartHasher;
use crate::env::Env;
use crate::error::Result;
use crate::limits::MIB;
use crate::types::ChunkHash;
use blake3::hazmat::ChainingValue;
use bytes::{Bytes, BytesMut};
use std::sync::Arc;

/// Bytes gathered before they are hashed and written on the blocking pool.
const FLUSH_BYTES: usize = 2 * MIB as usize;
/// Bytes hashed and written in one piece.
const WRITE_BYTES: usize = 256 << 10;

/// By what it is known that a chunk's bytes are right.
#[derive(Clone, Copy, Debug)]
pub(super) enum Proof {
    /// Its own hash: compared as soon as it is whole.
    Own,
    /// Its value in the tree of the whole file, where it begins at this offset: whoever asked
    /// compares the hash of the file.
    Tree(u64),
    /// Both, of the chunk of `len` bytes at `offset` of a file with chunks of `part_bytes`.
    Both {
        offset: u64,
        len: u64,
        part_bytes: u64,
    },
}

impl Proof {
    fn hasher(self) -> PartHasher {
        match self {
            Proof::Own => PartHasher::own(),
            Proof::Tree(offset) => PartHasher::subtree(offset),
            Proof::Both {
                offset,
                len,
                part_bytes,
            } => PartHasher::for_part(offset, len, part_bytes),
        }
    }
}

/// Where a chunk's bytes go. What was taken is worth nothing until it is proved.
pub(super) enum Sink {
    Memory { bytes: BytesMut, proof: Proof },
    File(FileSink),
}

/// A place in a local file.
pub(super) struct FileSink {
    file: Arc<OneWriter>,
    /// Where the wanted bytes begin in the file.
    offset: u64,
    written: u64,
    proof: Proof,
    hasher: Box<PartHasher>,
    pending: Vec<Bytes>,
    pending_bytes: usize,
    /// Where what is pending is put together: packets bring a few KiB at a time, which neither
    /// the hash nor the file system takes well.
    gathered: Vec<u8>,
}

impl FileSink {
    fn restart(&mut self) {
        self.written = 0;
        *self.hasher = self.proof.hasher();
        self.pending.clear();
        self.pending_bytes = 0;
    }

    async fn flush(&mut self, env: &Env) -> Result<()> {
        let parts = std::mem::take(&mut self.pending);
        let bytes = std::mem::take(&mut self.pending_bytes) as u64;
        let (at, file) = (self.offset + self.written, Arc::clone(&self.file));
        let mut hasher = std::mem::replace(&mut self.hasher, Box::new(PartHasher::own()));
        let mut gathered = std::mem::take(&mut self.gathered);
        let flushed = env.run_blocking(move || {
            write_parts(&file, at, &parts, &mut hasher, &mut gathered)?;
            file.done(at, at + bytes);
            Ok::<_, std::io::Error>((hasher, gathered))
        });
        (self.hasher, self.gathered) = flushed.await.map_err(|e| self.file.failed(&e))?;
        self.written += bytes;
        Ok(())
    }
}

/// Hashes and writes parts one behind the other, as much at once as an inner cache holds.
fn write_parts(
    file: &OneWriter,
    mut at: u64,
    parts: &[Bytes],
    hasher: &mut PartHasher,
    gathered: &mut Vec<u8>,
) -> std::io::Result<()> {
    gathered.reserve_exact(WRITE_BYTES);
    let mut parts = parts.iter();
    let mut rest: &[u8] = &[];
    loop {
        gathered.clear();
        while gathered.len() < WRITE_BYTES {
            if rest.is_empty() {
                let Some(part) = parts.next() else { break };
                rest = part;
            }
            let (now, later) = rest.split_at(rest.len().min(WRITE_BYTES - gathered.len()));
            gathered.extend_from_slice(now);
            rest = later;
        }
        if gathered.is_empty() {
            return Ok(());
        }
        hasher.update(gathered);
        file.write_all_at(gathered, at)?;
        at += gathered.len() as u64;
    }
}

/// What came, hashed as its proof asks for.
pub(super) struct Hashed {
    pub(super) own: Option<ChunkHash>,
    pub(super) subtree: Option<ChainingValue>,
}

impl Hashed {
    fn by(hasher: &PartHasher) -> Hashed {
        Hashed {
            own: hasher.finish_own(),
            subtree: hasher.finish_subtree(),
        }
    }
}

impl Sink {
    /// Memory for `len` bytes.
    pub(super) fn memory(len: u32, proof: Proof) -> Sink {
        let bytes = BytesMut::with_capacity(len as usize);
        Sink::Memory { bytes, proof }
    }

    pub(super) fn file(file: Arc<OneWriter>, offset: u64, proof: Proof) -> Sink {
        Sink::File(FileSink {
            file,
            offset,
            written: 0,
            proof,
            hasher: Box::new(proof.hasher()),
            pending: Vec::new(),
            pending_bytes: 0,
            gathered: Vec::new(),
        })
    }

    /// Forgets an attempt that failed.
    pub(super) fn restart(&mut self) {
        match self {
            Sink::Memory { bytes, .. } => bytes.clear(),
            Sink::File(file) => file.restart(),
        }
    }

    /// Takes all of `packets`.
    pub(super) async fn take(&mut self, env: &Env, packets: &mut Vec<Bytes>) -> Result<()> {
        match self {
            Sink::Memory { bytes, .. } => {
                for packet in packets.drain(..) {
                    bytes.extend_from_slice(&packet);
                }
            }
            Sink::File(file) => {
                file.pending_bytes += packets.iter().map(Bytes::len).sum::<usize>();
                file.pending.append(packets);
                if file.pending_bytes >= FLUSH_BYTES {
                    file.flush(env).await?;
                }
            }
        }
        Ok(())
    }

    /// The hashes of everything taken.
    pub(super) async fn end(&mut self, env: &Env) -> Result<Hashed> {
        match self {
            Sink::Memory { bytes, proof } => {
                let whole = std::mem::take(bytes).freeze();
                let (shared, mut hasher) = (whole.clone(), proof.hasher());
                let hashed = env.run_blocking(move || {
                    hasher.update(&shared);
                    Hashed::by(&hasher)
                });
                let hashed = hashed.await;
                // Nobody else holds it any more, so that this copies nothing.
                *bytes = whole.into();
                Ok(hashed)
            }
            Sink::File(file) => {
                file.flush(env).await?;
                Ok(Hashed::by(&file.hasher))
            }
        }
    }

    /// The bytes of a memory sink.
    pub(super) fn into_bytes(self) -> Bytes {
        match self {
            Sink::Memory { bytes, .. } => bytes.freeze(),
            Sink::File(_) => Bytes::new(),
        }
    }
}
