//! Connections and streams to the nodes of the tests.

use super::{NodeState, PIECE, PORT, State, TestCluster};
use crate::client::wire::{Bulk, Dial, Wire};
use crate::codec;
use crate::error::{Code, Error, Result};
use crate::proto::{Answer, Call};
use crate::types::{ChunkHash, NodeId};
use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

impl Dial for TestCluster {
    fn dial(&self, to: SocketAddr, timeout: Duration) -> BoxFuture<'_, Result<Arc<dyn Wire>>> {
        async move {
            let node = NodeId(u64::from(to.port().saturating_sub(PORT)));
            let (latency, starts) = {
                let mut state = self.state();
                *state.counts.dials.entry(node).or_insert(0) += 1;
                (
                    state.latency,
                    state.nodes.get(&node).map(|node| node.starts),
                )
            };
            tokio::time::sleep(latency).await;
            let answered = async {
                match starts {
                    Some(starts) => self.awake(node, starts).await,
                    None => std::future::pending().await,
                }
            };
            match tokio::time::timeout(timeout, answered).await {
                Ok(true) => Ok(Arc::new(TestWire {
                    cluster: self.clone(),
                    node,
                    starts: starts.unwrap_or_default(),
                    received: Arc::default(),
                }) as Arc<dyn Wire>),
                _ => Err(Error::unavailable(format!("cannot reach {to} (no answer)"))),
            }
        }
        .boxed()
    }
}

#[derive(Clone)]
struct TestWire {
    cluster: TestCluster,
    node: NodeId,
    starts: u64,
    received: Arc<AtomicU64>,
}

impl TestWire {
    /// What becomes of a request, whether or not anybody waits for it still.
    async fn served(self, call: Call) -> Result<Answer> {
        let lost = || Error::unavailable("the connection was lost").unknown_outcome();
        let (latency, work) = {
            let state = self.cluster.state();
            let work = match call {
                Call::Mutate { .. } | Call::Fsck { .. } | Call::Gc { .. } => state.work,
                _ => Duration::ZERO,
            };
            (state.latency, work)
        };
        tokio::task::yield_now().await;
        tokio::time::sleep(latency).await;
        if !self.cluster.awake(self.node, self.starts).await {
            return Err(lost());
        }
        tokio::time::sleep(work).await;
        if !self.cluster.awake(self.node, self.starts).await {
            return Err(lost());
        }
        let answer = match self.cluster.state().answer(self.node, call) {
            Err(error) if error.may_have_happened => return Err(error),
            Err(error) => Answer::Failed(error),
            Ok(answer) => answer,
        };
        tokio::time::sleep(latency).await;
        if !self.cluster.awake(self.node, self.starts).await {
            return Err(lost());
        }
        self.received.fetch_add(1, Ordering::Relaxed);
        Ok(answer)
    }
}

impl Wire for TestWire {
    fn call<'a>(&'a self, request: &'a [u8], timeout: Duration) -> BoxFuture<'a, Result<Bytes>> {
        async move {
            let served = self.clone().served(codec::decode(request)?);
            // What was sent is on its way, although who sent it gives it up.
            #[allow(clippy::disallowed_methods)]
            let served = tokio::spawn(served);
            let answer = tokio::time::timeout(timeout, served).await;
            let answer = answer
                .map_err(|_| Error::unavailable("no answer in time").unknown_outcome())?
                .expect("a test's node does not panic")?;
            Ok(codec::encode(&answer).into())
        }
        .boxed()
    }

    fn open(&self) -> BoxFuture<'_, Result<Box<dyn Bulk>>> {
        let stream = TestStream {
            wire: self.clone(),
            call: None,
            bytes: BytesMut::new(),
            cut: false,
            dies: false,
        };
        async { Ok(Box::new(stream) as Box<dyn Bulk>) }.boxed()
    }

    fn is_closed(&self) -> bool {
        self.cluster.state().node(self.node.0).starts != self.starts
    }

    fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

struct TestStream {
    wire: TestWire,
    call: Option<Call>,
    /// Received of a chunk that is put, or to be given of one that is got.
    bytes: BytesMut,
    cut: bool,
    /// The node dies in the middle of it.
    dies: bool,
}

impl TestStream {
    /// Something comes from the node.
    async fn comes(&self) -> Result<()> {
        let wire = &self.wire;
        if !wire.cluster.awake(wire.node, wire.starts).await {
            return Err(Error::unavailable("the connection was lost"));
        }
        wire.received.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn reply(&mut self) -> Result<Answer> {
        let cluster = self.wire.cluster.clone();
        let mut state = cluster.state();
        match self.call.clone() {
            Some(Call::PutChunk {
                hash,
                len,
                ticket,
                ack,
            }) => {
                if ticket.key_epoch != state.key_epoch {
                    return Err(Error::new(Code::Denied, "the ticket has expired"));
                }
                if state.faults.full || state.node(self.wire.node.0).full {
                    return Err(Error::new(Code::NoSpace, "the disk is full"));
                }
                let whole = self.bytes.len() == len as usize;
                if !whole || ChunkHash::of(&self.bytes) != hash {
                    return Err(Error::corrupt("other bytes than announced"));
                }
                state.counts.acks.push(ack);
                state.take_chunk(self.wire.node, hash, self.bytes.split().freeze())
            }
            Some(Call::GetChunk {
                hash, offset, len, ..
            }) => {
                let chunk = state.give_chunk(self.wire.node, hash)?;
                if let Some(left) = state.faults.gets_until_death.get_mut(&self.wire.node) {
                    self.dies = *left == 0;
                    *left = left.saturating_sub(1);
                }
                if let Some(at) = state.faults.damage_at
                    && offset + len > at
                {
                    if offset + PIECE > at {
                        return Err(Error::corrupt("damaged on disk"));
                    }
                    self.cut = true;
                }
                let (from, to) = (offset as usize, (offset + len) as usize);
                self.bytes = BytesMut::from(&chunk[from..to]);
                if state.faults.flipped > 0 {
                    state.faults.flipped -= 1;
                    self.bytes[0] ^= 1;
                }
                Ok(Answer::Chunk { len })
            }
            _ => Err(Error::failed("not a call for a stream")),
        }
    }
}

impl State {
    /// Stores a chunk, here and at its owners that live.
    fn take_chunk(&mut self, node: NodeId, hash: ChunkHash, bytes: Bytes) -> Result<Answer> {
        if self.faults.chunks_until_down == Some(0) {
            return Err(Error::unavailable("going down"));
        }
        if let Some(left) = &mut self.faults.chunks_until_down {
            *left -= 1;
        }
        match &mut self.faults.chunks_until_new_key {
            Some(0) => {
                self.faults.chunks_until_new_key = None;
                self.key_epoch += 1;
            }
            Some(left) => *left -= 1,
            None => {}
        }
        self.counts.chunks_put += 1;
        self.counts.chunk_bytes_put += bytes.len() as u64;
        let takes = |node: &NodeState| !node.silent && !node.full;
        let mut copies = 0;
        for owner in self.owners(&hash).into_iter().chain([node]) {
            let owner = self.node(owner.0);
            if takes(owner) && owner.chunks.insert(hash, bytes.clone()).is_none() {
                copies += 1;
            }
        }
        Ok(Answer::PutChunk { copies })
    }

    fn give_chunk(&mut self, node: NodeId, hash: ChunkHash) -> Result<Bytes> {
        self.counts.chunks_got += 1;
        *self.counts.gets.entry(node).or_insert(0) += 1;
        let node = self.node(node.0);
        if node.damaged.contains(&hash) {
            return Err(Error::corrupt("damaged on disk"));
        }
        let chunk = node.chunks.get(&hash).cloned();
        chunk.ok_or_else(|| Error::not_found("no such chunk"))
    }
}

impl Bulk for TestStream {
    fn send_frame<'a>(&'a mut self, frame: &'a [u8]) -> BoxFuture<'a, Result<()>> {
        async move {
            self.call = Some(codec::decode(frame)?);
            let mut state = self.wire.cluster.state();
            self.cut = state.faults.cut_streams > 0;
            state.faults.cut_streams = state.faults.cut_streams.saturating_sub(1);
            Ok(())
        }
        .boxed()
    }

    fn recv_frame(&mut self) -> BoxFuture<'_, Result<Option<Bytes>>> {
        async move {
            if self.call.is_none() {
                return Err(Error::unavailable("the stream was reset"));
            }
            if self.wire.cluster.state().faults.chunks_unanswered {
                std::future::pending::<()>().await;
            }
            self.comes().await?;
            let answer = self.reply().unwrap_or_else(Answer::Failed);
            Ok(Some(codec::encode(&answer).into()))
        }
        .boxed()
    }

    /// As with QUIC: what is sent is taken, whether or not the node lives.
    fn send_bytes(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<()>> {
        async move {
            tokio::task::yield_now().await;
            if self.cut {
                self.call = None;
                return Err(Error::unavailable("the stream was reset"));
            }
            self.bytes.extend_from_slice(&bytes);
            Ok(())
        }
        .boxed()
    }

    fn recv_packets<'a>(
        &'a mut self,
        into: &'a mut Vec<Bytes>,
        max: usize,
    ) -> BoxFuture<'a, Result<usize>> {
        async move {
            tokio::task::yield_now().await;
            if self.cut && self.bytes.len() < 2_000 {
                return Err(Error::unavailable("the stream was reset"));
            }
            if self.dies && self.bytes.len() < 2_000 {
                self.wire.cluster.stop(self.wire.node.0);
            }
            self.comes().await?;
            let len = self.bytes.len().min(max).min(1_000);
            if len > 0 {
                into.push(self.bytes.split_to(len).freeze());
            }
            Ok(len)
        }
        .boxed()
    }

    fn finish(&mut self) -> Result<()> {
        Ok(())
    }
}
