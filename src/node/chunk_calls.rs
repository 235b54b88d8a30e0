//! Calls with chunk bytes: this node as an owner of chunks.

use super::Node;
use super::service::{Caller, reply};
use crate::error::{Code, Error, Result};
use crate::limits::{CHUNK_BYTES_MAX, HAVE_HASHES_MAX};
use crate::net::{Stream, arrival_max};
use crate::proto::{Answer, Ticket, TicketRight};
use crate::store::chunks::{ChunkReader, ChunkStore, ChunkWriter};
use crate::types::{ChunkHash, Mac};
use bytes::Bytes;
use std::sync::Arc;

/// Bytes taken from the network, or sent to it, in one piece.
const PIECE_BYTES: usize = 512 << 10;

impl Node {
    /// Takes one chunk: the bytes follow the call. Returns when they are verified and durable.
    pub(super) async fn put_chunk(
        &self,
        caller: &Caller,
        ticket: &Ticket,
        hash: ChunkHash,
        len: u32,
        stream: &mut Stream,
    ) -> Result<()> {
        self.tickets
            .check(ticket, &caller.user, self.shard.proposer.time())?;
        if !matches!(ticket.right, TicketRight::Write { .. }) {
            return Err(Error::new(Code::Denied, "the ticket is not for writing"));
        }
        if len == 0 || u64::from(len) > CHUNK_BYTES_MAX {
            return Err(Error::usage(format!(
                "a chunk has 1 to {CHUNK_BYTES_MAX} bytes"
            )));
        }
        // To the end: what is taken for stored must not go while it is.
        let _held = self.garbage.pins.hold(hash).await;
        self.must_have_space()?;
        let mut writer = self.chunks.begin(hash, u64::from(len)).await?;
        // The writer holds memory and a place of the store: its bytes must not trickle.
        let arriving = take_bytes(&mut writer, len, stream);
        match tokio::time::timeout(arrival_max(u64::from(len)), arriving).await {
            Ok(taken) => taken?,
            Err(_) => {
                let error = format!("the {len} bytes of chunk {hash} came too slowly");
                return Err(Error::unavailable(error).hint("try again"));
            }
        }
        writer.finish().await
    }

    /// Sends a range of a chunk, verified as it is read. Returns whether it failed; an error is
    /// the stream's own.
    pub(super) async fn get_chunk(
        &self,
        caller: &Caller,
        ticket: &Ticket,
        hash: ChunkHash,
        mac: Mac,
        range: (u64, u64),
        stream: &mut Stream,
    ) -> Result<bool> {
        // The first piece before the answer, so that damage found in it is an answer and not a
        // stream that ends early.
        let now = self.shard.proposer.time();
        let first = async {
            self.tickets
                .check_chunk(ticket, &caller.user, &hash, mac, now)?;
            if !matches!(ticket.right, TicketRight::Read { .. }) {
                return Err(Error::new(Code::Denied, "the ticket is not for reading"));
            }
            let mut pieces = Pieces::open(&self.chunks, hash, range).await?;
            let first = pieces.next().await?;
            Ok((pieces, first))
        };
        let (mut pieces, mut piece) = match first.await {
            Ok(opened) => opened,
            Err(error) => {
                reply(stream, &Answer::Failed(error)).await?;
                return Ok(true);
            }
        };
        let len = range.1 as u32;
        stream
            .send_frame(&crate::codec::encode(&Answer::Chunk { len }))
            .await?;
        while let Some(bytes) = piece {
            stream.send_bytes(bytes).await?;
            piece = match pieces.next().await {
                Ok(piece) => piece,
                Err(error) => {
                    // The stream ends unfinished: the client takes no byte of it for whole.
                    tracing::error!(chunk = %hash, %error, "a chunk is damaged");
                    return Ok(true);
                }
            };
        }
        stream.finish()?;
        Ok(false)
    }

    /// Which of these chunks are here, for a user who proved that he references them. To say so
    /// counts as their arrival: see `garbage`.
    pub(super) async fn pin(
        &self,
        caller: &Caller,
        ticket: &Ticket,
        hashes: Vec<(ChunkHash, Mac)>,
    ) -> Result<Answer> {
        if hashes.len() > HAVE_HASHES_MAX {
            return Err(Error::usage(format!(
                "more than {HAVE_HASHES_MAX} hashes in one request"
            )));
        }
        let now = self.shard.proposer.time();
        let mut here = Vec::with_capacity(hashes.len());
        for (hash, mac) in hashes {
            self.tickets
                .check_chunk(ticket, &caller.user, &hash, mac, now)?;
            let _held = self.garbage.pins.hold(hash).await;
            here.push(self.chunks.confirm(hash).await?.is_some());
        }
        Ok(Answer::Pinned(here))
    }
}

/// Hands a writer exactly the bytes that were announced.
async fn take_bytes(writer: &mut ChunkWriter, len: u32, stream: &mut Stream) -> Result<()> {
    let mut left = len as usize;
    while left > 0 {
        let Some(bytes) = stream.recv_bytes(left).await? else {
            let got = len as usize - left;
            return Err(Error::usage(format!(
                "the chunk's bytes ended early ({got} of {len})"
            )));
        };
        left -= bytes.len();
        writer.write(&bytes).await?;
    }
    Ok(())
}

/// A range of a chunk, piece by piece, each verified.
enum Pieces {
    /// All of it: read once from front to end.
    Whole(ChunkReader),
    Part {
        store: Arc<ChunkStore>,
        hash: ChunkHash,
        at: u64,
        end: u64,
    },
}

impl Pieces {
    /// # Errors
    /// `not_found`, `corrupt`; `usage` when the range leaves the chunk.
    async fn open(store: &Arc<ChunkStore>, hash: ChunkHash, range: (u64, u64)) -> Result<Pieces> {
        let (at, len) = range;
        if at == 0 {
            let reader = store.open_read(hash).await?;
            if reader.chunk_len() == len {
                return Ok(Pieces::Whole(reader));
            }
        }
        let end = at
            .checked_add(len)
            .ok_or_else(|| Error::usage("the range is too long"))?;
        Ok(Pieces::Part {
            store: store.clone(),
            hash,
            at,
            end,
        })
    }

    async fn next(&mut self) -> Result<Option<Bytes>> {
        match self {
            Pieces::Whole(reader) => reader.next(PIECE_BYTES).await,
            Pieces::Part { at, end, .. } if *at >= *end => Ok(None),
            Pieces::Part {
                store,
                hash,
                at,
                end,
            } => {
                let len = (*end - *at).min(PIECE_BYTES as u64);
                let bytes = store.read(*hash, *at, len).await?;
                *at += len;
                Ok(Some(bytes))
            }
        }
    }
}
