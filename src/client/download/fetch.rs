//! One chunk, or a part of one, from a node: verified before it counts, tried again elsewhere.

use crate::client::core::{Client, is_passing, odd, shown};
use crate::client::link::Live;
use crate::client::manifest::Want;
use crate::client::retry::Retry;
use crate::client::tree_hash::{PartHash, PartHasher};
use crate::client::upload::within;
use crate::codec;
use crate::env::Env;
use crate::error::{Code, Error, Result};
use crate::limits::MIB;
use crate::proto::{Answer, Call, Ticket};
use bytes::{Bytes, BytesMut};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

/// Bytes taken from the stream at once.
const RECV_BYTES: usize = 256 << 10;
/// Bytes gathered before they are hashed and written on the blocking pool.
const FLUSH_BYTES: usize = 2 * MIB as usize;
/// Attempts at one chunk that each got somewhere.
const ATTEMPTS_MAX: u32 = 32;
/// After so many failures a chunk is asked for in pieces of `CAREFUL_BYTES`.
const CAREFUL_AFTER: u32 = 2;
/// One piece that a node verifies before it answers.
const CAREFUL_BYTES: u32 = 512 << 10;
/// Nodes asked for a chunk whose bytes did not match.
const CORRUPT_MAX: u32 = 3;

/// Where a chunk's bytes go. What was taken is worth nothing until `end` said so.
pub(super) enum Sink {
    Memory {
        bytes: BytesMut,
        tree: Option<(u64, u64)>,
    },
    File {
        file: Arc<File>,
        /// Where the wanted bytes begin in the file.
        offset: u64,
        written: u64,
        hasher: Box<PartHasher>,
        tree: Option<(u64, u64)>,
        pending: Vec<Bytes>,
        pending_bytes: usize,
        /// What is pending, in one piece: packets bring a few KiB at a time, which neither the
        /// hash nor the file system takes well.
        whole: Vec<u8>,
    },
}

impl Sink {
    /// `tree` as for [`PartHasher::new`].
    pub(super) fn memory(tree: Option<(u64, u64)>) -> Sink {
        let bytes = BytesMut::new();
        Sink::Memory { bytes, tree }
    }

    /// `tree` as for [`PartHasher::new`].
    pub(super) fn file(file: Arc<File>, offset: u64, tree: Option<(u64, u64)>) -> Sink {
        Sink::File {
            file,
            offset,
            written: 0,
            hasher: Box::new(PartHasher::new(tree)),
            tree,
            pending: Vec::new(),
            pending_bytes: 0,
            whole: Vec::new(),
        }
    }

    /// Forgets an attempt that failed.
    fn restart(&mut self) {
        match self {
            Sink::Memory { bytes, .. } => bytes.clear(),
            Sink::File {
                written,
                hasher,
                tree,
                pending,
                pending_bytes,
                ..
            } => {
                *written = 0;
                **hasher = PartHasher::new(*tree);
                pending.clear();
                *pending_bytes = 0;
            }
        }
    }

    async fn take(&mut self, env: &Env, bytes: Bytes) -> Result<()> {
        match self {
            Sink::Memory { bytes: all, .. } => {
                all.extend_from_slice(&bytes);
                Ok(())
            }
            Sink::File {
                pending,
                pending_bytes,
                ..
            } => {
                *pending_bytes += bytes.len();
                pending.push(bytes);
                match *pending_bytes >= FLUSH_BYTES {
                    true => self.flush(env).await,
                    false => Ok(()),
                }
            }
        }
    }

    async fn flush(&mut self, env: &Env) -> Result<()> {
        let Sink::File {
            file,
            offset,
            written,
            hasher,
            tree,
            pending,
            pending_bytes,
            whole,
        } = self
        else {
            return Ok(());
        };
        let parts = std::mem::take(pending);
        let bytes = std::mem::take(pending_bytes) as u64;
        let (at, file) = (*offset + *written, Arc::clone(file));
        let idle = Box::new(PartHasher::new(*tree));
        let mut hash = std::mem::replace(hasher, idle);
        let mut buffer = std::mem::take(whole);
        let flushed = env.run_blocking(move || {
            buffer.clear();
            parts.iter().for_each(|part| buffer.extend_from_slice(part));
            hash.update(&buffer);
            file.write_all_at(&buffer, at)?;
            Ok::<_, std::io::Error>((hash, buffer))
        });
        (*hasher, *whole) = flushed.await.map_err(|e| local_failure(&e))?;
        *written += bytes;
        Ok(())
    }

    /// The hashes of everything taken.
    async fn end(&mut self, env: &Env) -> Result<PartHash> {
        self.flush(env).await?;
        match self {
            Sink::Memory { bytes, tree } => {
                let whole = std::mem::take(bytes).freeze();
                let (shared, mut hasher) = (whole.clone(), PartHasher::new(*tree));
                let part = env.run_blocking(move || {
                    hasher.update(&shared);
                    hasher.finish()
                });
                let part = part.await;
                // Nobody else holds it any more, so that this copies nothing.
                *bytes = whole.into();
                Ok(part)
            }
            Sink::File { hasher, .. } => Ok(hasher.finish()),
        }
    }

    /// The bytes of a memory sink.
    pub(super) fn into_bytes(self) -> Bytes {
        match self {
            Sink::Memory { bytes, .. } => bytes.freeze(),
            Sink::File { .. } => Bytes::new(),
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
    /// hashes of what came.
    ///
    /// # Errors
    /// `corrupt` when no node gave bytes that match the hash.
    pub(super) async fn fetch(
        &self,
        ticket: &Ticket,
        want: &Want,
        sink: &mut Sink,
        moved: &(dyn Fn(u64) + Sync),
    ) -> Result<PartHash> {
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
                Ok(part) => return Ok(part),
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
    ) -> Result<PartHash> {
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
        let part = sink.end(&self.core.env).await?;
        if want.is_whole() && part.hash != want.location.hash {
            return Err(Error::corrupt(format!(
                "chunk {} came with other bytes from {}",
                want.location.hash, live.address
            )));
        }
        Ok(part)
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
