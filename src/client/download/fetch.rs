//! One chunk, or a part of one, from a node: verified before it counts, tried again elsewhere.

use super::part::OneWriter;
use crate::client::core::{Client, is_passing, odd, shown};
use crate::client::link::Live;
use crate::client::manifest::Want;
use crate::client::retry::Retry;
use crate::client::tree_hash::PartHasher;
use crate::client::upload::within;
use crate::codec;
use crate::env::Env;
use crate::error::{Code, Error, Result};
use crate::limits::MIB;
use crate::proto::{Answer, Call, Ticket};
use crate::types::ChunkHash;
use blake3::hazmat::ChainingValue;
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use std::time::Duration;

/// Bytes taken from the stream at once.
const RECV_BYTES: usize = 256 << 10;
/// Bytes gathered before they are hashed and written on the blocking pool.
const FLUSH_BYTES: usize = 2 * MIB as usize;
/// Bytes hashed and written in one piece.
const WRITE_BYTES: usize = 256 << 10;
/// Attempts at one chunk that each got somewhere.
const ATTEMPTS_MAX: u32 = 32;
/// After so many failures a chunk is asked for in pieces of `CAREFUL_BYTES`.
const CAREFUL_AFTER: u32 = 2;
/// One piece that a node verifies before it answers.
const CAREFUL_BYTES: u32 = 512 << 10;
/// Nodes asked for a chunk whose bytes did not match.
const CORRUPT_MAX: u32 = 3;

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
        (self.hasher, self.gathered) = flushed.await.map_err(|e| local_failure(&e))?;
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
    fn restart(&mut self) {
        match self {
            Sink::Memory { bytes, .. } => bytes.clear(),
            Sink::File(file) => file.restart(),
        }
    }

    async fn take(&mut self, env: &Env, bytes: Bytes) -> Result<()> {
        match self {
            Sink::Memory { bytes: all, .. } => all.extend_from_slice(&bytes),
            Sink::File(file) => {
                file.pending_bytes += bytes.len();
                file.pending.push(bytes);
                if file.pending_bytes >= FLUSH_BYTES {
                    file.flush(env).await?;
                }
            }
        }
        Ok(())
    }

    /// The hashes of everything taken.
    async fn end(&mut self, env: &Env) -> Result<Hashed> {
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

fn local_failure(source: &std::io::Error) -> Error {
    let code = match source.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Code::NoSpace,
        _ => Code::Failed,
    };
    Error::new(code, format!("cannot write the local file ({source})"))
}

impl Client {
    /// Fetches what is wanted into `sink`; tells `moved` how many more bytes came. Returns the
    /// hashes of what came that its proof asks for.
    ///
    /// # Errors
    /// `corrupt` when no node gave bytes that match the hash, if they are proved by it.
    pub(super) async fn fetch(
        &self,
        ticket: &Ticket,
        want: &Want,
        sink: &mut Sink,
        moved: &(dyn Fn(u64) + Sync),
    ) -> Result<Hashed> {
        let timeout = self.core.timeout;
        let mut retry = Retry::within(timeout);
        let (mut reported, mut corrupt) = (0, 0);
        loop {
            let mut got = 0;
            let attempt = match self.core.link.live(retry.attempt(Duration::MAX)).await {
                Ok(live) => {
                    sink.restart();
                    let mut tell = |now: u64| {
                        got = now;
                        if now > reported {
                            moved(now - reported);
                            reported = now;
                        }
                    };
                    // A node that finds damage on its way can only break the stream off. Asked
                    // piece by piece it can say so.
                    let step = match retry.failures < CAREFUL_AFTER {
                        true => want.len,
                        false => CAREFUL_BYTES,
                    };
                    let attempt = self.fetch_all(&live, ticket, want, step, sink, &mut tell);
                    let attempt = attempt.await;
                    if let Err(error) = &attempt {
                        self.after_fetch(&live, error).await;
                    }
                    attempt
                }
                Err(error) => Err(error),
            };
            let cause = match attempt {
                Ok(hashed) => return Ok(hashed),
                Err(error) if is_passing(&error) => error,
                // A chunk that is not there is damage too: the file says it has it.
                Err(error) if matches!(error.code, Code::Corrupt | Code::NotFound) => {
                    corrupt += 1;
                    if corrupt > CORRUPT_MAX {
                        return Err(damaged(&error));
                    }
                    error
                }
                Err(error) => return Err(error),
            };
            if retry.failures >= ATTEMPTS_MAX {
                return Err(shown(cause));
            }
            if got > 0 {
                retry.progressed(timeout);
            }
            let ended = retry.pause(&*self.core.env.rng, cause).await;
            ended.map_err(shown)?;
        }
    }

    async fn after_fetch(&self, live: &Arc<Live>, error: &Error) {
        match error.code {
            Code::Corrupt | Code::NotFound => self.core.link.elsewhere(live),
            _ => self.after_chunk(live, error).await,
        }
    }

    /// All that is wanted from one node, at most `step` bytes a request.
    async fn fetch_all(
        &self,
        live: &Live,
        ticket: &Ticket,
        want: &Want,
        step: u32,
        sink: &mut Sink,
        tell: &mut (dyn FnMut(u64) + Send),
    ) -> Result<Hashed> {
        let mut done = 0;
        while done < want.len {
            let len = step.min(want.len - done);
            let frame = codec::encode(&Call::GetChunk {
                ticket: ticket.clone(),
                hash: want.location.hash,
                mac: want.location.mac,
                offset: want.from + done,
                len,
            });
            let before = u64::from(done);
            let mut tell_part = |got| tell(before + got);
            self.fetch_part(live, &frame, len, sink, &mut tell_part)
                .await?;
            done += len;
        }
        let hashed = sink.end(&self.core.env).await?;
        if want.is_whole() && hashed.own.is_some_and(|own| own != want.location.hash) {
            return Err(Error::corrupt(format!(
                "chunk {} came with other bytes from {}",
                want.location.hash, live.address
            )));
        }
        Ok(hashed)
    }

    async fn fetch_part(
        &self,
        live: &Live,
        frame: &[u8],
        len: u32,
        sink: &mut Sink,
        tell: &mut (dyn FnMut(u64) + Send),
    ) -> Result<()> {
        let timeout = self.core.timeout;
        let mut stream = within(timeout, live.wire.open()).await?;
        within(timeout, stream.send_frame(frame)).await?;
        stream.finish()?;
        let reply = within(timeout, stream.recv_frame()).await?;
        let reply = reply.ok_or_else(|| Error::unavailable("the node closed the stream"))?;
        match codec::decode(&reply)? {
            Answer::Chunk { len: told } if told == len => {}
            Answer::Failed(error) => return Err(error),
            _ => return Err(odd("a chunk")),
        }
        let wanted = u64::from(len);
        let mut got = 0;
        while got < wanted {
            let most = usize::try_from(wanted - got).unwrap_or(RECV_BYTES);
            let bytes = within(timeout, stream.recv_bytes(most.min(RECV_BYTES))).await?;
            let bytes = bytes.ok_or_else(|| Error::unavailable("the node cut the chunk short"))?;
            got += bytes.len() as u64;
            if got > wanted {
                return Err(odd("so many bytes"));
            }
            sink.take(&self.core.env, bytes).await?;
            tell(got);
        }
        Ok(())
    }
}

/// What a node said of its copy, as news about the file.
fn damaged(error: &Error) -> Error {
    let place = match &error.path {
        Some(path) => format!("{path}: "),
        None => String::new(),
    };
    Error::corrupt(format!(
        "no node has its content whole ({place}{})",
        error.message
    ))
    .hint("put it again or restore it from a backup; `dfs fsck` shows all damage")
}
