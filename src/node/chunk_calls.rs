//! Reading chunk bytes from this node: a range, verified as it is read, for a client or for another
//! node. What is damaged here is fetched again from the others.

use super::Node;
use super::service::{Caller, trouble_here};
use crate::codec;
use crate::error::{Code, Error, Result};
use crate::net::Stream;
use crate::proto::{Answer, Ticket, TicketRight};
use crate::store::chunks::{ChunkReader, ChunkStore};
use crate::types::{ChunkHash, Mac};
use bytes::Bytes;
use std::sync::Arc;

/// Bytes sent in one piece.
const PIECE_BYTES: usize = 512 << 10;

impl Node {
    /// Sends a range of a chunk to a client. Returns whether it failed; an error is the stream's
    /// own.
    pub(super) async fn get_chunk(
        self: &Arc<Self>,
        caller: &Caller,
        (ticket, mac): (&Ticket, Mac),
        hash: ChunkHash,
        range: (u64, u64),
        stream: &mut Stream,
    ) -> Result<bool> {
        let failed = |error| codec::encode(&Answer::Failed(trouble_here(error)));
        let allowed = || {
            let now = self.ticket_time();
            self.tickets
                .check_chunk(ticket, &caller.user, &hash, mac, now)?;
            if !matches!(ticket.right, TicketRight::Read { .. }) {
                return Err(Error::new(Code::Denied, "the ticket is not for reading"));
            }
            Ok(())
        };
        if let Err(error) = allowed() {
            stream.send_frame(&failed(error)).await?;
            stream.finish()?;
            return Ok(true);
        }
        let len = range.1 as u32;
        let head = codec::encode(&Answer::Chunk { len });
        self.send_range(hash, range, head, failed, stream).await
    }

    /// Sends `head` and a range of a chunk behind it, or what failed. Returns whether it did.
    pub(super) async fn send_range(
        self: &Arc<Self>,
        hash: ChunkHash,
        range: (u64, u64),
        head: Vec<u8>,
        failed: impl Fn(Error) -> Vec<u8>,
        stream: &mut Stream,
    ) -> Result<bool> {
        // The first piece before the answer, so that damage found in it is an answer and not a
        // stream that ends early.
        let first = async {
            let mut pieces = Pieces::open(&self.chunks, hash, range).await?;
            let first = pieces.next().await?;
            Ok((pieces, first))
        };
        let (mut pieces, mut piece) = match first.await {
            Ok(opened) => opened,
            Err(error) => {
                self.note_unreadable(hash, &error);
                stream.send_frame(&failed(error)).await?;
                stream.finish()?;
                return Ok(true);
            }
        };
        stream.send_frame(&head).await?;
        while let Some(bytes) = piece {
            stream.send_bytes(bytes).await?;
            piece = match pieces.next().await {
                Ok(piece) => piece,
                Err(error) => {
                    // The stream ends unfinished: nobody takes a byte of it for whole.
                    self.note_unreadable(hash, &error);
                    return Ok(true);
                }
            };
        }
        stream.finish()?;
        Ok(false)
    }

    /// A copy that should be here and cannot be read is fetched again.
    fn note_unreadable(&self, hash: ChunkHash, error: &Error) {
        match error.code {
            Code::Corrupt => {
                tracing::error!(chunk = %hash, %error, "a chunk is damaged");
                self.repairs.urgent(hash);
            }
            Code::NotFound if self.views.now().holders(&hash).contains(&self.id) => {
                self.repairs.urgent(hash);
            }
            _ => {}
        }
    }
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
