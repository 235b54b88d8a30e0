//! One chunk to where it belongs: not at all if it is there, else `sending.rs`.

use super::begun::Begun;
use crate::client::ask::To;
use crate::client::core::{is_passing, odd};
use crate::error::{Code, Error, Result};
use crate::limits::MIB;
use crate::proto::{Answer, Call, Ticket};
use crate::types::{ChunkHash, Precondition};
use bytes::Bytes;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A chunk of a new file that is smaller is sent without asking whether it is there: the
/// question costs as much.
const UNASKED_BYTES_MAX: u64 = MIB;

impl Begun<'_> {
    /// Makes sure that the chunk is at its owners and stays there for this upload. Tells `moved`
    /// how many more bytes are done, `bytes.len()` in all. True if it had to be sent.
    pub(super) async fn place(
        &self,
        hash: ChunkHash,
        bytes: Bytes,
        moved: &(dyn Fn(u64) + Sync),
    ) -> Result<bool> {
        // The owners are asked for before it is known that they are needed: that costs no time.
        let (ticket, proof, _) = tokio::try_join!(
            self.ticket(),
            self.proof(hash, bytes.len()),
            self.client.owners_of(hash, false)
        )?;
        if let Some(mac) = proof {
            let call = Call::Pin {
                ticket: ticket.clone(),
                hashes: vec![(hash, mac)],
                ack: self.target.ack,
            };
            match self.client.ask(To::Any, &call).await {
                Ok(Answer::Pinned(here)) if here == [true] => {
                    moved(bytes.len() as u64);
                    return Ok(false);
                }
                Ok(Answer::Pinned(_)) => {}
                Ok(_) => return Err(odd("which chunks are there")),
                Err(error) if is_passing(&error) => return Err(error),
                // It can still be sent.
                Err(error) => tracing::debug!(%error, %hash, "a chunk could not be pinned"),
            }
        }
        let told = AtomicU64::new(0);
        let first = |more| {
            told.fetch_add(more, Ordering::Relaxed);
            moved(more);
        };
        match self.send(&ticket, hash, bytes.clone(), &first).await {
            Err(error) if error.code == Code::Denied => {}
            sent => return sent.map(|()| true),
        }
        // Tickets last as long as their key: an upload may take longer.
        let fresh = self.ticket_after(&ticket).await?;
        let rest = |more: u64| {
            let before = told.load(Ordering::Relaxed).min(more);
            told.fetch_sub(before, Ordering::Relaxed);
            moved(more - before);
        };
        self.send(&fresh, hash, bytes, &rest).await?;
        Ok(true)
    }

    /// True if as many owners as the put wants have a chunk that went to them before.
    pub(super) async fn is_stored(&self, hash: ChunkHash) -> Result<bool> {
        let ticket = self.ticket().await?;
        let told = match self.ask_stored(&ticket, hash).await {
            Err(error) if error.code == Code::Denied => {
                let fresh = self.ticket_after(&ticket).await?;
                self.ask_stored(&fresh, hash).await
            }
            told => told,
        };
        match told {
            Err(error) if !is_passing(&error) => {
                // It can still be sent.
                tracing::debug!(%error, %hash, "not known whether a chunk is stored");
                Ok(false)
            }
            told => told,
        }
    }

    async fn ask_stored(&self, ticket: &Ticket, hash: ChunkHash) -> Result<bool> {
        let call = Call::Stored {
            ticket: ticket.clone(),
            hashes: vec![hash],
            ack: self.target.ack,
        };
        match self.client.ask(To::Any, &call).await? {
            Answer::Pinned(there) if there.len() == 1 => Ok(there[0]),
            _ => Err(odd("which chunks are there")),
        }
    }

    async fn send(
        &self,
        ticket: &Ticket,
        hash: ChunkHash,
        bytes: Bytes,
        moved: &(dyn Fn(u64) + Sync),
    ) -> Result<()> {
        let len = u32::try_from(bytes.len()).map_err(|_| Error::failed("a chunk over 4 GiB"))?;
        let call = Call::PutChunk {
            ticket: ticket.clone(),
            hash,
            len,
            ack: self.target.ack,
        };
        self.client.put_chunk(hash, &call, bytes, moved).await
    }

    /// The proof that this user references the chunk already, if that is so.
    async fn proof(&self, hash: ChunkHash, len: usize) -> Result<Option<crate::types::Mac>> {
        if self.target.precondition == Precondition::Absent && (len as u64) < UNASKED_BYTES_MAX {
            return Ok(None);
        }
        let call = Call::Known {
            parent: self.parent,
            upload: self.upload,
            hashes: vec![hash],
        };
        match self.client.ask(To::Shard(self.shard), &call).await? {
            Answer::Known(proofs) if proofs.len() == 1 => Ok(proofs[0]),
            _ => Err(odd("which chunks are known")),
        }
    }
}

/// A step of a bulk transfer that must not stand still.
pub(crate) async fn within<T>(
    timeout: Duration,
    step: impl Future<Output = Result<T>>,
) -> Result<T> {
    match tokio::time::timeout(timeout, step).await {
        Ok(done) => done,
        Err(_) => Err(Error::unavailable(format!(
            "the transfer timed out (nothing moved for {} s)",
            timeout.as_secs_f32()
        ))),
    }
}
