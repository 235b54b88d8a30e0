//! What the client's tests need: a cluster in memory. Its one shard is the real state machine,
//! applied by whoever leads; each node has its own chunks in a map. Nodes can fall silent and come
//! back, lead or send away, lose replies, cut streams and lie about bytes.

mod answers;
mod wires;

use super::core::Core;
use super::link::{Link, ToldFile};
use super::{Client, ConnectOptions, GetOptions, NoProgress, OpIds, Pages, PutOptions, endpoints};
use crate::env::{Env, sim};
use crate::shard::records::Settings;
use crate::shard::testing::TestShard;
use crate::types::{Ack, ChunkHash, ClusterId, DfsPath, NodeId, ReadLevel};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// What goes wrong, how many times still.
#[derive(Default)]
pub(crate) struct Faults {
    /// Changes that are executed but not answered.
    pub(crate) lost_replies: u32,
    /// Changes that get an answer that they may be tried again.
    pub(crate) busy: u32,
    /// Chunk streams (either way) that end in the middle.
    pub(crate) cut_streams: u32,
    /// Changes that refer to chunks before which one of these is lost on all nodes.
    pub(crate) chunks_lost: u32,
    /// Chunks given with a flipped bit.
    pub(crate) flipped: u32,
    /// The node finds damage behind so many bytes of any chunk: it breaks the stream off, or says
    /// so if it has sent nothing yet.
    pub(crate) damage_at: Option<u32>,
    /// Chunks stored before no more are taken; `None`: no end.
    pub(crate) chunks_until_down: Option<u32>,
    /// Nodes take the bytes of chunks and say nothing to them.
    pub(crate) chunks_unanswered: bool,
    /// The disk takes no chunk.
    pub(crate) full: bool,
    /// Manifests have their first two chunks exchanged.
    pub(crate) swapped: bool,
    /// Chunks stored before tickets get a new key and the old ones are refused.
    pub(crate) chunks_until_new_key: Option<u32>,
    /// Manifests name nodes as owners that are none (and not those that are).
    pub(crate) stale_owners: bool,
    /// Chunks that a node still gives before it dies in the middle of one.
    pub(crate) gets_until_death: BTreeMap<NodeId, u32>,
}

/// What happened.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) requests: u32,
    pub(crate) chunks_put: u32,
    pub(crate) chunk_bytes_put: u64,
    pub(crate) chunks_got: u32,
    /// The same by node.
    pub(crate) gets: BTreeMap<NodeId, u32>,
    /// Calls of each kind, by the name of the variant.
    pub(crate) calls: BTreeMap<String, u32>,
    /// Nodes that were dialled.
    pub(crate) dials: BTreeMap<NodeId, u32>,
    /// Which acknowledgement chunks, pins and changes asked for.
    pub(crate) acks: Vec<Ack>,
}

/// One node.
#[derive(Default)]
pub(crate) struct NodeState {
    pub(crate) chunks: HashMap<ChunkHash, Bytes>,
    /// Of these it knows that they are damaged.
    pub(crate) damaged: HashSet<ChunkHash>,
    /// Its disk takes no chunk.
    pub(crate) full: bool,
    /// Whom it believes to lead.
    pub(crate) believes: Option<NodeId>,
    /// Its process is stopped or dead: whatever comes waits.
    silent: bool,
    /// Connections made before it was started so many times are closed.
    starts: u64,
}

pub(crate) struct State {
    pub(crate) shard: TestShard,
    pub(crate) nodes: BTreeMap<NodeId, NodeState>,
    /// Who can apply changes.
    pub(crate) leader: Option<NodeId>,
    /// Nodes that answer no read.
    pub(crate) without_replica: BTreeSet<NodeId>,
    pub(crate) faults: Faults,
    pub(crate) counts: Counts,
    /// Owners of each chunk.
    copies: usize,
    /// One way of any message.
    latency: Duration,
    /// From the arrival of a change (or of long work) to its end.
    work: Duration,
    key_epoch: u64,
}

#[derive(Clone)]
pub(crate) struct TestCluster {
    state: Arc<Mutex<State>>,
    /// Something about the nodes has changed.
    changed: watch::Sender<u64>,
}

pub(crate) const CHUNK: u64 = 4_096;
pub(crate) const INLINE: u64 = 100;
pub(crate) const CLUSTER: ClusterId = ClusterId([5; 16]);
const USER: &str = "ann";
/// Bytes that the node verifies at once.
const PIECE: u32 = 512 << 10;
/// Port of node 0, which there is none of.
const PORT: u16 = 7_400;

impl TestCluster {
    /// One node that answers at once.
    pub(crate) fn one() -> TestCluster {
        Self::of(1, CHUNK)
    }

    /// So many nodes, a millisecond apart; the first one leads, each chunk is at three.
    pub(crate) fn new(nodes: u64) -> TestCluster {
        let cluster = Self::of(nodes, CHUNK);
        cluster.state().latency = Duration::from_millis(1);
        cluster
    }

    pub(crate) fn of(nodes: u64, chunk_bytes: u64) -> TestCluster {
        let settings = Settings {
            inline_bytes: INLINE,
            chunk_bytes,
            ..Settings::default()
        };
        let mut shard = TestShard::new(settings);
        // The root belongs to another user: this directory is for everybody.
        shard.mkdir("/d");
        let node = |id| {
            let node = NodeState {
                believes: Some(NodeId(1)),
                ..NodeState::default()
            };
            (NodeId(id), node)
        };
        let state = State {
            shard,
            nodes: (1..=nodes).map(node).collect(),
            leader: Some(NodeId(1)),
            without_replica: BTreeSet::new(),
            faults: Faults::default(),
            counts: Counts::default(),
            copies: 3,
            latency: Duration::ZERO,
            work: Duration::ZERO,
            key_epoch: 0,
        };
        TestCluster {
            state: Arc::new(Mutex::new(state)),
            changed: watch::Sender::new(0),
        }
    }

    pub(crate) fn state(&self) -> parking_lot::MutexGuard<'_, State> {
        self.state.lock()
    }

    /// A client that was given the address of the first node.
    pub(crate) async fn client(&self, state_dir: Option<PathBuf>) -> Client {
        self.client_at(&[1], state_dir).await
    }

    /// A client that was given the addresses of these nodes.
    pub(crate) async fn client_at(&self, nodes: &[u64], state_dir: Option<PathBuf>) -> Client {
        self.client_within(Duration::from_secs(10), nodes, state_dir)
            .await
    }

    /// The same with this timeout.
    pub(crate) async fn client_within(
        &self,
        timeout: Duration,
        nodes: &[u64],
        state_dir: Option<PathBuf>,
    ) -> Client {
        let (env, _) = sim::env(7);
        let given: Vec<_> = nodes.iter().map(|node| address(NodeId(*node))).collect();
        let targets = endpoints::parse_all(&given).unwrap();
        let told = state_dir.as_deref().map(|dir| ToldFile::new(dir, CLUSTER));
        let core = Core {
            link: Link::new(env.clone(), Box::new(self.clone()), targets, told),
            env,
            timeout,
            state_dir,
            sessions: Default::default(),
            under_way: Default::default(),
            owners: Default::default(),
        };
        core.connect().await.unwrap()
    }

    pub(crate) fn faults(&self, set: impl FnOnce(&mut Faults)) {
        set(&mut self.state().faults);
    }

    pub(crate) fn counts(&self) -> Counts {
        std::mem::take(&mut self.state().counts)
    }

    /// Changes take so long.
    pub(crate) fn works_for(&self, work: Duration) {
        self.state().work = work;
    }

    /// The node's process stops: connections stay open, nothing is answered.
    pub(crate) fn stop(&self, node: u64) {
        self.state().node(node).silent = true;
        self.tell();
    }

    /// It goes on with what came meanwhile.
    pub(crate) fn wake(&self, node: u64) {
        self.state().node(node).silent = false;
        self.tell();
    }

    /// It is started again: nothing of before is answered.
    pub(crate) fn restart(&self, node: u64) {
        {
            let mut state = self.state();
            let node = state.node(node);
            node.silent = false;
            node.starts += 1;
        }
        self.tell();
    }

    /// A new leader, known to all that are not stopped.
    pub(crate) fn elect(&self, leader: Option<u64>) {
        let mut state = self.state();
        state.leader = leader.map(NodeId);
        for node in state.nodes.values_mut().filter(|node| !node.silent) {
            node.believes = leader.map(NodeId);
        }
    }

    fn tell(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// Waits until the node is not silent. `false`: it was started again since `starts`.
    async fn awake(&self, node: NodeId, starts: u64) -> bool {
        let mut changed = self.changed.subscribe();
        loop {
            {
                let mut state = self.state();
                let node = state.node(node.0);
                if node.starts != starts {
                    return false;
                }
                if !node.silent {
                    return true;
                }
            }
            let _ = changed.changed().await;
        }
    }

    /// The owners of a chunk, best first.
    pub(crate) fn owners(&self, hash: &ChunkHash) -> Vec<u64> {
        let owners = self.state().owners(hash);
        owners.into_iter().map(|node| node.0).collect()
    }
}

impl State {
    pub(crate) fn node(&mut self, node: u64) -> &mut NodeState {
        self.nodes.get_mut(&NodeId(node)).unwrap()
    }

    /// The chunks of the first node.
    pub(crate) fn chunks(&mut self) -> &mut HashMap<ChunkHash, Bytes> {
        &mut self.node(1).chunks
    }

    fn owners(&self, hash: &ChunkHash) -> Vec<NodeId> {
        let mut nodes: Vec<_> = self.nodes.keys().copied().collect();
        nodes.sort_by_key(|node| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&hash.0);
            hasher.update(&node.0.to_le_bytes());
            *hasher.finalize().as_bytes()
        });
        nodes.truncate(self.copies);
        nodes
    }
}

fn address(node: NodeId) -> String {
    format!("127.0.0.1:{}", u64::from(PORT) + node.0)
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
