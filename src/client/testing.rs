//! What the client's tests need: a node in memory. Its shard is the real state machine, its
//! chunks are a map, and it can lose replies, cut streams and lie about bytes.

use super::core::Core;
use super::link::Link;
use super::wire::{Bulk, Dial, Wire};
use super::{Client, ConnectOptions, GetOptions, NoProgress, OpIds, Pages, PutOptions, endpoints};
use crate::codec;
use crate::env::{Env, sim};
use crate::error::{Code, Error, Result};
use crate::proto::{Answer, Call, ChunkLocation, Resolved, RouteView, Ticket, TicketRight, WhoAmI};
use crate::shard::command::Request;
use crate::shard::read::{self, ListQuery, Listing};
use crate::shard::records::Settings;
use crate::shard::testing::TestShard;
use crate::types::{
    ChunkHash, ClusterId, ContentId, DfsPath, GroupId, Inode, Mac, NodeId, ReadLevel, ShardTime,
    UploadId,
};
use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What goes wrong, how many times still.
#[derive(Default)]
pub(crate) struct Faults {
    /// Changes that are executed but not answered.
    pub(crate) lost_replies: u32,
    /// Changes that get an answer that they may be tried again.
    pub(crate) busy: u32,
    /// Chunk streams (either way) that end in the middle.
    pub(crate) cut_streams: u32,
    /// Chunks given with a flipped bit.
    pub(crate) flipped: u32,
    /// The node finds damage behind so many bytes of any chunk: it breaks the stream off, or says
    /// so if it has sent nothing yet.
    pub(crate) damage_at: Option<u32>,
    /// Chunks stored before no more are taken; `None`: no end.
    pub(crate) chunks_until_down: Option<u32>,
    /// The disk takes no chunk.
    pub(crate) full: bool,
    /// Manifests have their first two chunks exchanged.
    pub(crate) swapped: bool,
    /// Chunks stored before tickets get a new key and the old ones are refused.
    pub(crate) chunks_until_new_key: Option<u32>,
}

/// What happened.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) requests: u32,
    pub(crate) chunks_put: u32,
    pub(crate) chunk_bytes_put: u64,
    pub(crate) chunks_got: u32,
}

pub(crate) struct State {
    pub(crate) shard: TestShard,
    pub(crate) chunks: HashMap<ChunkHash, Bytes>,
    pub(crate) faults: Faults,
    pub(crate) counts: Counts,
    key_epoch: u64,
}

/// A cluster of one node.
#[derive(Clone)]
pub(crate) struct TestNode(pub(crate) Arc<Mutex<State>>);

pub(crate) const CHUNK: u64 = 4_096;
pub(crate) const INLINE: u64 = 100;
const USER: &str = "ann";
/// Bytes that the node verifies at once.
const PIECE: u32 = 512 << 10;

impl TestNode {
    pub(crate) fn new() -> TestNode {
        Self::with_chunks_of(CHUNK)
    }

    pub(crate) fn with_chunks_of(chunk_bytes: u64) -> TestNode {
        let settings = Settings {
            inline_bytes: INLINE,
            chunk_bytes,
            ..Settings::default()
        };
        let mut shard = TestShard::new(settings);
        // The root belongs to another user: this directory is for everybody.
        shard.mkdir("/d");
        TestNode(Arc::new(Mutex::new(State {
            shard,
            chunks: HashMap::new(),
            faults: Faults::default(),
            counts: Counts::default(),
            key_epoch: 0,
        })))
    }

    pub(crate) async fn client(&self, state_dir: Option<PathBuf>) -> Client {
        let (env, _) = sim::env(7);
        let targets = endpoints::parse_all(&["127.0.0.1:7400".to_owned()]).unwrap();
        let core = Core {
            link: Link::new(env.clone(), Box::new(self.clone()), targets),
            env,
            timeout: Duration::from_secs(10),
            state_dir,
            sessions: Default::default(),
        };
        core.connect().await.unwrap()
    }

    pub(crate) fn faults(&self, set: impl FnOnce(&mut Faults)) {
        set(&mut self.0.lock().faults);
    }

    pub(crate) fn counts(&self) -> Counts {
        std::mem::take(&mut self.0.lock().counts)
    }
}

impl State {
    fn answer(&mut self, call: Call) -> Result<Answer> {
        let slot = &self.shard.slot;
        Ok(match call {
            Call::Hello { .. } => Answer::Hello(self.hello()),
            Call::Mutate { request, .. } => self.mutate(&request)?,
            Call::Stat { path, .. } => Answer::Stat(read::stat(slot, &path)?),
            Call::StatMany { paths, .. } => {
                Answer::StatMany(paths.iter().map(|path| read::stat(slot, path)).collect())
            }
            Call::List {
                path,
                after,
                limit,
                attrs,
                known,
                ..
            } => {
                let query = ListQuery {
                    after: after.as_ref(),
                    limit: limit as usize,
                    attrs,
                    known,
                };
                match read::list(slot, &path, &query)? {
                    Listing::NotModified => Answer::NotModified,
                    Listing::Page { dir, entries, more } => Answer::List { dir, entries, more },
                }
            }
            Call::Resolve {
                path,
                version,
                page,
                pinned,
                ..
            } => {
                let mut found = read::resolve(slot, &path, version, page, pinned)?;
                if self.faults.swapped {
                    found.chunks.swap(0, 1);
                }
                let location = |chunk: &crate::shard::records::ChunkRef| ChunkLocation {
                    hash: chunk.hash,
                    len: chunk.len,
                    mac: Mac([1; 16]),
                    owners: vec![NodeId(1)],
                };
                Answer::Resolved(Resolved {
                    chunks: found.chunks.iter().map(location).collect(),
                    ticket: Some(self.ticket(TicketRight::Read {
                        inode: found.file.inode,
                        content: ContentId(0),
                    })),
                    file: found.file,
                    inline: found.inline,
                    nodes: Vec::new(),
                })
            }
            Call::Versions { path, .. } => Answer::Versions(read::versions(slot, &path)?),
            Call::UploadTicket { parent, upload } => self.upload_ticket(parent, upload)?,
            Call::Known { hashes, .. } => {
                let known = read::knows(slot, USER, &hashes)?;
                let proof = |known: bool| known.then_some(Mac([2; 16]));
                Answer::Known(known.into_iter().map(proof).collect())
            }
            Call::Pin { hashes, .. } => {
                let here = |(hash, _): &(ChunkHash, Mac)| self.chunks.contains_key(hash);
                Answer::Pinned(hashes.iter().map(here).collect())
            }
            Call::OpStatus { session, lane, seq } => {
                let row = read::lane(slot, session, crate::types::Lane(lane))?;
                let row = row.filter(|row| row.seq.0 == seq);
                Answer::OpStatus(row.map(|row| codec::encode(&row.outcomes).into()))
            }
            _ => return Err(Error::failed("not known here")),
        })
    }

    fn ticket(&self, right: TicketRight) -> Ticket {
        Ticket {
            right,
            user: USER.into(),
            expires: ShardTime(u64::MAX),
            key_epoch: self.key_epoch,
            mac: Mac([0; 16]),
        }
    }

    fn upload_ticket(&self, parent: Inode, upload: UploadId) -> Result<Answer> {
        match read::upload(&self.shard.slot, parent, upload)? {
            Some(_) => Ok(Answer::Ticket(self.ticket(TicketRight::Write { upload }))),
            None => Err(Error::not_found("no such upload")),
        }
    }

    fn mutate(&mut self, request: &[u8]) -> Result<Answer> {
        self.counts.requests += 1;
        if self.faults.busy > 0 {
            self.faults.busy -= 1;
            return Err(Error::new(Code::Busy, "too much to do"));
        }
        let mut request: Request = codec::decode(request)?;
        request.user = USER.into();
        request.group = "staff".into();
        self.shard.time += 1;
        let outcomes = self.shard.send(request);
        if self.faults.lost_replies > 0 {
            self.faults.lost_replies -= 1;
            return Err(Error::unavailable("the connection was lost").unknown_outcome());
        }
        Ok(Answer::Mutated {
            outcomes: codec::encode(&outcomes).into(),
            time: ShardTime(self.shard.time),
            tickets: Vec::new(),
        })
    }

    fn hello(&self) -> WhoAmI {
        WhoAmI {
            cluster: ClusterId([5; 16]),
            node: NodeId(1),
            user: USER.into(),
            version: "0".into(),
            routes: vec![RouteView {
                prefix: "/".into(),
                shard: GroupId::FIRST,
                leader: Some(NodeId(1)),
                time: ShardTime(self.shard.time),
            }],
            nodes: Vec::new(),
            inline_bytes: INLINE,
            chunk_bytes: CHUNK,
            grace_ms: 0,
        }
    }
}

impl Dial for TestNode {
    fn dial(&self, _to: SocketAddr, _timeout: Duration) -> BoxFuture<'_, Result<Arc<dyn Wire>>> {
        async { Ok(Arc::new(self.clone()) as Arc<dyn Wire>) }.boxed()
    }
}

impl Wire for TestNode {
    fn call<'a>(&'a self, request: &'a [u8], _: Duration) -> BoxFuture<'a, Result<Bytes>> {
        async move {
            tokio::task::yield_now().await;
            let call = codec::decode(request)?;
            let answer = match self.0.lock().answer(call) {
                Err(error) if error.may_have_happened => return Err(error),
                Err(error) => Answer::Failed(error),
                Ok(answer) => answer,
            };
            Ok(codec::encode(&answer).into())
        }
        .boxed()
    }

    fn open(&self) -> BoxFuture<'_, Result<Box<dyn Bulk>>> {
        let stream = TestStream {
            node: self.clone(),
            call: None,
            bytes: BytesMut::new(),
            cut: false,
        };
        async { Ok(Box::new(stream) as Box<dyn Bulk>) }.boxed()
    }

    fn is_closed(&self) -> bool {
        false
    }
}

struct TestStream {
    node: TestNode,
    call: Option<Call>,
    /// Received of a chunk that is put, or to be given of one that is got.
    bytes: BytesMut,
    cut: bool,
}

impl TestStream {
    fn reply(&mut self) -> Result<Answer> {
        let mut state = self.node.0.lock();
        match self.call.clone() {
            Some(Call::PutChunk {
                hash, len, ticket, ..
            }) => {
                if ticket.key_epoch != state.key_epoch {
                    return Err(Error::new(Code::Denied, "the ticket has expired"));
                }
                if state.faults.full {
                    return Err(Error::new(Code::NoSpace, "the disk is full"));
                }
                let whole = self.bytes.len() == len as usize;
                if !whole || ChunkHash::of(&self.bytes) != hash {
                    return Err(Error::corrupt("other bytes than announced"));
                }
                if state.faults.chunks_until_down == Some(0) {
                    return Err(Error::unavailable("going down"));
                }
                if let Some(left) = &mut state.faults.chunks_until_down {
                    *left -= 1;
                }
                match &mut state.faults.chunks_until_new_key {
                    Some(0) => {
                        state.faults.chunks_until_new_key = None;
                        state.key_epoch += 1;
                    }
                    Some(left) => *left -= 1,
                    None => {}
                }
                state.counts.chunks_put += 1;
                state.counts.chunk_bytes_put += u64::from(len);
                state.chunks.insert(hash, self.bytes.split().freeze());
                Ok(Answer::PutChunk { copies: 1 })
            }
            Some(Call::GetChunk {
                hash, offset, len, ..
            }) => {
                state.counts.chunks_got += 1;
                let chunk = state.chunks.get(&hash).cloned();
                let chunk = chunk.ok_or_else(|| Error::not_found("no such chunk"))?;
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

impl Bulk for TestStream {
    fn send_frame<'a>(&'a mut self, frame: &'a [u8]) -> BoxFuture<'a, Result<()>> {
        async move {
            self.call = Some(codec::decode(frame)?);
            let mut state = self.node.0.lock();
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
            let answer = self.reply().unwrap_or_else(Answer::Failed);
            Ok(Some(codec::encode(&answer).into()))
        }
        .boxed()
    }

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

    fn recv_bytes(&mut self, max: usize) -> BoxFuture<'_, Result<Option<Bytes>>> {
        async move {
            tokio::task::yield_now().await;
            if self.cut && self.bytes.len() < 2_000 {
                return Err(Error::unavailable("the stream was reset"));
            }
            let len = self.bytes.len().min(max).min(1_000);
            Ok((len > 0).then(|| self.bytes.split_to(len).freeze()))
        }
        .boxed()
    }

    fn finish(&mut self) -> Result<()> {
        Ok(())
    }
}

/// A gateway runs these in tasks of its own.
#[allow(dead_code)]
fn futures_of_the_client_may_move_between_threads(
    client: &Client,
    env: Env,
    connect: ConnectOptions,
    path: &DfsPath,
    reader: &mut (dyn tokio::io::AsyncRead + Send + Unpin),
    writer: &mut (dyn tokio::io::AsyncWrite + Send + Unpin),
    mut pages: Pages,
) {
    fn movable<T: Send>(_: T) {}
    let (put, get) = (PutOptions::default(), GetOptions::default());
    let local = std::path::Path::new("x");
    movable(Client::connect(env, connect));
    movable(client.stat(path, ReadLevel::Stale));
    movable(client.mkdir(path, 0, false, &OpIds::Automatic));
    movable(pages.next_page());
    movable(client.put_bytes(Bytes::new(), path, &put));
    movable(client.put_file(local, path, &put, &NoProgress));
    movable(client.put_reader(reader, path, &put, &NoProgress));
    movable(client.put_tree(local, path, &put, &NoProgress));
    movable(client.get_file(path, local, &get, &NoProgress));
    movable(client.get_tree(path, local, &get, &NoProgress));
    movable(client.cat(path, writer, &get, &NoProgress));
}
