//! Copies of chunks: writing one to all its holders while it arrives, handing it on, fetching it. The only place where one node's chunk store meets another's.
//!
//! # Writing
//! A client sends a chunk to one of its holders. That one verifies and stores it, and at the same
//! time passes it on to the others, which verify it too. It answers when as many copies are
//! durable as were asked for; what is still under way goes on. A holder that is silent is left
//! out, and the next node of the ring takes its place for this write; what is missing where it
//! belongs is noted for `repairs`.

use super::Node;
use super::holders::REPLACEMENTS_MAX;
use super::peers::{Peers, odd};
use super::service::Caller;
use super::slices::{SLICE_BYTES, Slices};
use super::view::View;
use crate::codec;
use crate::error::{Code, Error, Result};
use crate::limits::CHUNK_BYTES_MAX;
use crate::net::{Stream, arrival_max};
use crate::proto::{PeerAnswer, PeerCall, Ticket, TicketRight};
use crate::store::chunks::ChunkWriter;
use crate::types::{Ack, ChunkHash, Epoch, NodeId};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Bytes taken from the network, or sent to it, in one piece.
const PIECE_BYTES: usize = 512 << 10;
/// Pieces that may wait for one holder: the slower ones are behind by no more than this.
const PIECES_WAITING: usize = 4;
/// A holder that takes nothing for so long is left out of this write.
const SILENT_AFTER: Duration = Duration::from_secs(1);
/// A holder may take so long to make durable what it has taken.
const DURABLE_WITHIN: Duration = Duration::from_secs(10);
/// A node may take so long to find a chunk.
const FIND_TIMEOUT: Duration = Duration::from_secs(2);

/// Bytes on their way to one other holder.
struct Forward {
    node: NodeId,
    pieces: Option<mpsc::Sender<Bytes>>,
    done: oneshot::Receiver<Result<()>>,
}

impl Node {
    /// Takes one chunk from a client: the bytes follow the call. Returns the number of copies that
    /// are durable, at least as many as `ack` wants.
    pub(super) async fn put_chunk(
        self: &Arc<Self>,
        caller: &Caller,
        ticket: &Ticket,
        (hash, len): (ChunkHash, u32),
        ack: Ack,
        stream: &mut Stream,
    ) -> Result<u32> {
        self.must_be_for_writing(caller, ticket)?;
        let view = self.views.now();
        let holders = self.holders(&view, &hash);
        if !holders.contains(&self.id) {
            let why = format!("chunk {hash} does not belong on node {}", self.id);
            return Err(Error::new(Code::Redirect, why));
        }
        let epoch = view.newest_epoch();
        let others = holders.iter().copied().filter(|node| *node != self.id);
        let mut forwards: Vec<Forward> = others
            .map(|node| self.forward(node, hash, len, epoch))
            .collect();
        let stored = self.store(hash, len, stream, &mut forwards).await;
        // The others hear of the end even where this node's own part failed.
        forwards
            .iter_mut()
            .for_each(|forward| forward.pieces = None);
        stored?;
        let needed = ack.needed(holders.len());
        let gathered = self.gather(hash, 1, forwards, needed, Some(&view));
        gathered.await
    }

    /// Stores a content of this node's own memory as a chunk at as many of its holders as `ack`
    /// wants; no other node takes a silent holder's place. Whether this node is one or not.
    ///
    /// # Errors
    /// `unavailable` when there are too few; `corrupt` when the bytes do not match the hash.
    pub(super) async fn place(
        self: &Arc<Self>,
        hash: ChunkHash,
        bytes: Bytes,
        ack: Ack,
    ) -> Result<()> {
        let len = u32::try_from(bytes.len()).map_err(|_| Error::usage("a chunk over 4 GiB"))?;
        let view = self.views.now();
        let (holders, epoch) = (self.holders(&view, &hash), view.newest_epoch());
        if holders.is_empty() {
            return Err(Error::unavailable("no node holds chunks now"));
        }
        let here = holders.contains(&self.id);
        // Else the store sees to it.
        if !here && ChunkHash::of(&bytes) != hash {
            return Err(Error::corrupt(format!("the content is not that of {hash}")));
        }
        let others = holders.iter().copied().filter(|node| *node != self.id);
        let mut forwards = Vec::with_capacity(holders.len());
        for node in others {
            let mut forward = self.forward(node, hash, len, epoch);
            offer(&mut forward, bytes.clone()).await;
            forward.pieces = None;
            forwards.push(forward);
        }
        if here {
            let _held = self.garbage.pins.hold(hash).await;
            self.must_have_space()?;
            let mut writer = self.chunks.begin(hash, u64::from(len)).await?;
            writer.write(bytes).await?;
            writer.finish().await?;
        }
        let needed = ack.needed(holders.len());
        let stored = self.gather(hash, usize::from(here), forwards, needed, None);
        stored.await.map(drop)
    }

    pub(super) fn must_be_for_writing(&self, caller: &Caller, ticket: &Ticket) -> Result<()> {
        self.tickets
            .check(ticket, &caller.user, self.ticket_time())?;
        match ticket.right {
            TicketRight::Write { .. } => Ok(()),
            TicketRight::Read { .. } => {
                Err(Error::new(Code::Denied, "the ticket is not for writing"))
            }
        }
    }

    /// Takes a chunk that another node passes on, or copies.
    pub(super) async fn take_copy(
        self: &Arc<Self>,
        hash: ChunkHash,
        len: u32,
        epoch: Epoch,
        stream: &mut Stream,
    ) -> Result<()> {
        let view = self.views.now();
        if epoch < view.newest_epoch() && !view.rings.is_open(epoch) {
            let why = format!("epoch {epoch} of the ring is closed");
            return Err(Error::new(Code::Conflict, why));
        }
        self.store(hash, len, stream, &mut []).await
    }

    /// Stores a chunk whose bytes come on a stream, and passes them on as they come. Returns when
    /// they are verified and durable here.
    async fn store(
        &self,
        hash: ChunkHash,
        len: u32,
        stream: &mut Stream,
        forwards: &mut [Forward],
    ) -> Result<()> {
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
        let arriving = take_bytes(&mut writer, len, stream, forwards);
        match tokio::time::timeout(arrival_max(u64::from(len)), arriving).await {
            Ok(taken) => taken?,
            Err(_) => {
                let error = format!("the {len} bytes of chunk {hash} came too slowly");
                return Err(Error::unavailable(error).hint("try again"));
            }
        }
        writer.finish().await
    }

    /// Begins to pass a chunk on.
    fn forward(&self, node: NodeId, hash: ChunkHash, len: u32, epoch: Epoch) -> Forward {
        let (pieces, receive) = mpsc::channel(PIECES_WAITING);
        let (tell, done) = oneshot::channel();
        let peers = self.peers.clone();
        let task = async move {
            let call = PeerCall::PutChunk { hash, len, epoch };
            // Whoever gave up waiting needs no answer.
            let _ = tell.send(pass_on(&peers, node, &call, len, receive).await);
        };
        self.env.spawn.spawn("pass a chunk on", Box::pin(task));
        Forward {
            node,
            pieces: Some(pieces),
            done,
        }
    }

    /// Waits for enough copies beside those here; where some fail it copies from here to those
    /// that `view` has in their place.
    async fn gather(
        self: &Arc<Self>,
        hash: ChunkHash,
        here: usize,
        forwards: Vec<Forward>,
        needed: usize,
        view: Option<&View>,
    ) -> Result<u32> {
        let mut waiting: FuturesUnordered<_> = forwards
            .into_iter()
            .map(|forward| async move {
                let stopped = || Err(Error::unavailable("the node is stopping"));
                (
                    forward.node,
                    forward.done.await.unwrap_or_else(|_| stopped()),
                )
            })
            .collect();
        let (mut copies, mut silent) = (here, Vec::new());
        let mut last = None;
        while copies < needed {
            match waiting.next().await {
                Some((_, Ok(()))) => copies += 1,
                Some((node, Err(error))) => {
                    tracing::debug!(%node, %hash, %error, "a holder did not take a chunk");
                    silent.push(node);
                    last = Some(error);
                }
                None => break,
            }
        }
        for node in view.map_or_else(Vec::new, |view| view.replacements(&hash, &silent)) {
            if copies >= needed {
                break;
            }
            match self.copy_to(node, hash).await {
                Ok(()) => copies += 1,
                Err(error) => last = Some(error),
            }
        }
        if !silent.is_empty() {
            self.repairs.missed(silent);
        }
        if copies >= needed {
            let node = self.clone();
            let rest = async move {
                while let Some((other, done)) = waiting.next().await {
                    if let Err(error) = done {
                        tracing::debug!(node = %other, %hash, %error, "a copy is missing");
                        node.repairs.missed([other]);
                    }
                }
            };
            self.env.spawn.spawn("late copies", Box::pin(rest));
            return Ok(u32::try_from(copies).unwrap_or(u32::MAX));
        }
        let why = last.map_or_else(String::new, |error| format!(" ({})", error.message));
        Err(Error::unavailable(format!(
            "chunk {hash} is durable on {copies} of the {needed} nodes that were asked for{why}"
        ))
        .hint("try again, or ask for fewer with --ack"))
    }

    /// Copies a chunk that is stored here to another node.
    pub(super) async fn copy_to(&self, node: NodeId, hash: ChunkHash) -> Result<()> {
        let mut reader = self.chunks.open_read(hash).await?;
        let len =
            u32::try_from(reader.chunk_len()).map_err(|_| Error::failed("a chunk over 4 GiB"))?;
        let epoch = self.views.now().newest_epoch();
        let mut forward = self.forward(node, hash, len, epoch);
        while let Some(bytes) = reader.next(PIECE_BYTES).await? {
            offer(&mut forward, bytes).await;
        }
        forward.pieces = None;
        let stopped = |_| Error::unavailable("the node is stopping");
        forward.done.await.map_err(stopped)?
    }

    /// Sends a range of a chunk to another node, verified as it is read.
    pub(super) async fn give_copy(
        self: &Arc<Self>,
        hash: ChunkHash,
        range: (u64, u64),
        stream: &mut Stream,
    ) -> Result<()> {
        let len = range.1 as u32;
        let head = codec::encode(&PeerAnswer::Chunk { len });
        let failed = |error| codec::encode(&PeerAnswer::Failed(error));
        self.send_range(hash, range, head, failed, stream)
            .await
            .map(drop)
    }

    /// Fetches a whole chunk from whoever has it and stores it here.
    ///
    /// # Errors
    /// `not_found` or `corrupt` when every node of the cluster said so ([`is_lost`]); else why one
    /// of them could not give it.
    pub(super) async fn fetch(self: &Arc<Self>, hash: ChunkHash, len: u32) -> Result<()> {
        self.must_have_space()?;
        if self.mend_own(hash).await? {
            return Ok(());
        }
        let view = self.views.now();
        let mut readers = view.readers(&hash);
        // Others after those that should have it: a copy may have been put elsewhere.
        let likely = readers.len() + REPLACEMENTS_MAX;
        readers.extend(view.members().map(|node| node.node));
        let mut asked = BTreeSet::from([self.id]);
        readers.retain(|node| asked.insert(*node));
        let mut last = Error::not_found(format!("no other node has chunk {hash}"));
        for (at, node) in readers.into_iter().enumerate() {
            if at >= likely && !is_lost(&last) {
                // All are asked only before a chunk is called lost.
                break;
            }
            match self.fetch_from(node, hash, len).await {
                Ok(()) => return Ok(()),
                Err(error) if error.code == Code::NoSpace => return Err(error),
                // Whoever could not say may have it, whatever the next ones say.
                Err(error) if is_lost(&error) && !is_lost(&last) => {}
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// A copy that counts as damaged may have all its data: then nobody has to give it.
    pub(super) async fn mend_own(&self, hash: ChunkHash) -> Result<bool> {
        let _held = self.garbage.pins.hold(hash).await;
        self.chunks.mend(hash).await
    }

    async fn fetch_from(&self, node: NodeId, hash: ChunkHash, len: u32) -> Result<()> {
        let call = PeerCall::GetChunk {
            hash,
            offset: 0,
            len,
        };
        let mut stream = within(SILENT_AFTER, self.peers.open(node)).await?;
        within(SILENT_AFTER, stream.send_frame(&codec::encode(&call))).await?;
        stream.finish()?;
        let frame = within(FIND_TIMEOUT, stream.recv_frame()).await?;
        let frame = frame.ok_or_else(|| Error::unavailable("the node closed the stream"))?;
        match codec::decode(&frame)? {
            PeerAnswer::Chunk { len: given } if given == len => {}
            PeerAnswer::Failed(error) => return Err(error),
            other => return Err(odd(&other)),
        }
        self.store(hash, len, &mut stream, &mut []).await
    }
}

/// A chunk could not be fetched, and cannot be: nobody has it, or only damaged.
pub(super) fn is_lost(error: &Error) -> bool {
    matches!(error.code, Code::NotFound | Code::Corrupt)
}

/// Hands a writer exactly the bytes that were announced, and the other holders too, slice by slice.
async fn take_bytes(
    writer: &mut ChunkWriter,
    len: u32,
    stream: &mut Stream,
    forwards: &mut [Forward],
) -> Result<()> {
    let mut left = len as usize;
    let mut slices = Slices::of(left);
    while left > 0 {
        let wanted = left.min(SLICE_BYTES);
        while slices.now().len() < wanted {
            let room = wanted - slices.now().len();
            if stream.recv_into(slices.now(), room).await? == 0 {
                let got = len as usize - left + slices.now().len();
                return Err(Error::usage(format!(
                    "the chunk's bytes ended early ({got} of {len})"
                )));
            }
        }
        left -= wanted;
        let slice = slices.take();
        for forward in forwards.iter_mut() {
            offer(forward, slice.clone()).await;
        }
        writer.write(slice).await?;
    }
    Ok(())
}

/// Hands one piece to a forward, unless it has failed or is silent.
async fn offer(forward: &mut Forward, bytes: Bytes) {
    if let Some(pieces) = &forward.pieces {
        let sent = tokio::time::timeout(SILENT_AFTER, pieces.send(bytes)).await;
        if !matches!(sent, Ok(Ok(()))) {
            forward.pieces = None;
        }
    }
}

/// One chunk to another node, as its pieces come; returns when it is durable there.
async fn pass_on(
    peers: &Peers,
    node: NodeId,
    call: &PeerCall,
    len: u32,
    mut pieces: mpsc::Receiver<Bytes>,
) -> Result<()> {
    let mut left = len as usize;
    let mut stream = within(SILENT_AFTER, peers.open(node)).await?;
    within(SILENT_AFTER, stream.send_frame(&codec::encode(call))).await?;
    while let Some(bytes) = pieces.recv().await {
        left = left.saturating_sub(bytes.len());
        if let Err(error) = within(SILENT_AFTER, stream.send_bytes(bytes)).await {
            // A node that refuses stops reading and says why.
            return match within(SILENT_AFTER, stream.recv_frame()).await {
                Ok(Some(frame)) => match codec::decode(&frame)? {
                    PeerAnswer::Failed(reason) => Err(reason),
                    _ => Err(error),
                },
                _ => Err(error),
            };
        }
    }
    if left > 0 {
        // The stream is reset: what came is no chunk.
        return Err(Error::unavailable("the chunk's bytes ended early"));
    }
    let frame = within(DURABLE_WITHIN, stream.recv_frame()).await?;
    let frame = frame.ok_or_else(|| Error::unavailable("the node closed the stream"))?;
    match codec::decode(&frame)? {
        PeerAnswer::Done => Ok(()),
        PeerAnswer::Failed(error) => Err(error),
        other => Err(odd(&other)),
    }
}

async fn within<T>(limit: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(limit, work).await {
        Ok(done) => done,
        Err(_) => Err(Error::unavailable(format!("no progress within {limit:?}"))),
    }
}
