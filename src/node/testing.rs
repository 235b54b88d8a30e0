//! A node on a simulated machine: the composition of `serve` without identity files, locks and
//! the operating system's sockets. Called by `sim`.

use super::core::{Bases, Core, CoreOptions, FirstStart, Who};
use super::enter::enter_over;
use super::identity::Identity;
use super::peers::odd;
use super::registry::Running;
use super::serve::Late;
use super::{Node, workers};
use crate::cluster::{JoinToken, Seal};
use crate::codec;
use crate::env::Env;
use crate::env::base::MetaBase;
use crate::error::{Error, Result};
use crate::net::{Endpoint, ServerParts, ServerTls};
use crate::proto::{JoinWhat, NodeAddress, PeerAnswer, PeerCall};
use crate::raft::GroupStatus;
use crate::root::CaRecord;
use crate::shard::records::Settings;
use crate::store::SlotRead;
use crate::store::chunks::ChunkOptions;
use crate::store::overlay::{FoldOptions, View};
use crate::store::wal::WalOptions;
use crate::types::{ChunkHash, ClusterId, Credentials, Epoch, GroupId, NodeId, ReplicaId, Subject};
use bytes::Bytes;
use parking_lot::Mutex;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

/// Told why the process would have ended.
pub(crate) type OnEnd = Arc<dyn Fn(&str) + Send + Sync>;

/// Sizes of the stores; small ones, so that a short run switches segments, folds and fills packs.
#[derive(Clone)]
pub(crate) struct Sizes {
    pub wal: WalOptions,
    pub chunks: ChunkOptions,
    pub fold: FoldOptions,
}

/// What a node's own files hold.
#[derive(Clone)]
pub(crate) struct Papers {
    pub credentials: Credentials,
    /// Kept as soon as it is there, for later lives too.
    pub seal: Arc<Mutex<Option<Seal>>>,
    /// Where others are, as was told when it joined.
    pub nodes: Vec<NodeAddress>,
}

/// Of the ring of one node, which the first join closes.
const FIRST_EPOCH: Epoch = Epoch(1);

/// A silent node is given up sooner than in production: runs are short.
const OFFLINE_AFTER: Duration = Duration::from_secs(6);

/// What a simulated node is started with.
pub(crate) struct Start {
    pub env: Env,
    pub dir: PathBuf,
    pub meta: Arc<dyn MetaBase>,
    pub index: Arc<dyn MetaBase>,
    pub cluster: ClusterId,
    pub papers: Papers,
    /// HOST:PORT others use.
    pub address: String,
    /// The first start of the first node: the settings of the shard of `/`, and the CA.
    pub first: Option<(Settings, CaRecord)>,
    pub sizes: Sizes,
    pub on_end: OnEnd,
}

/// A node whose stores are open.
pub(crate) struct Opened {
    start: Start,
    core: Core,
}

/// A node that serves; lives as long as its runtime.
pub(crate) struct SimNode {
    node: Arc<Node>,
}

impl Start {
    fn options(&self) -> CoreOptions {
        let sizes = self.sizes.clone();
        let (log, chunks, meta) = (
            self.on_end.clone(),
            self.on_end.clone(),
            self.on_end.clone(),
        );
        CoreOptions {
            wal: WalOptions {
                on_fatal: Arc::new(move |what, error| log(&format!("{what}: {error}"))),
                ..sizes.wal
            },
            chunks: ChunkOptions {
                on_fatal: Arc::new(move |what, error| chunks(&format!("{what}: {error}"))),
                ..sizes.chunks
            },
            fold: sizes.fold,
            on_fatal: Arc::new(move |what, error| meta(&format!("{what}: {error}"))),
            accept_lost_tail: false,
        }
    }
}

/// Opens the stores; with `first` makes them.
///
/// # Errors
/// What production would refuse to start with.
pub(crate) async fn open(start: Start) -> Result<Opened> {
    let node = node_of(&start.papers)?;
    let first = start.first.clone().map(|(settings, ca)| FirstStart {
        cluster: start.cluster,
        node,
        settings,
        ca,
        zone: String::new(),
        rack: String::new(),
        weight: 1,
    });
    let bases = Bases {
        meta: start.meta.clone(),
        index: start.index.clone(),
    };
    let (env, options) = (&start.env, start.options());
    let core = Core::open(env, env, &start.dir, bases, options, first.as_ref()).await?;
    Ok(Opened { start, core })
}

fn node_of(papers: &Papers) -> Result<NodeId> {
    match papers.credentials.facts()?.subject {
        Subject::Node(node) => Ok(node),
        Subject::User { .. } => Err(Error::failed("a user's papers")),
    }
}

/// Joins as a new node, over an endpoint of the simulation.
pub(crate) async fn join(
    env: &Env,
    endpoint: &Endpoint,
    addresses: &[String],
    token: &str,
) -> Result<Papers> {
    let token = JoinToken::parse(token)?;
    let what = JoinWhat::Node {
        address: String::new(),
        zone: String::new(),
        rack: String::new(),
        weight: 1,
        version: "0".into(),
    };
    let (credentials, joined) = enter_over(env, endpoint, addresses, &token, (what, None)).await?;
    Ok(Papers {
        credentials,
        seal: Arc::default(),
        nodes: joined.nodes,
    })
}

impl Opened {
    /// Serves on the endpoint that `bind` makes, in the order of `serve`.
    pub(crate) async fn serve(
        self,
        bind: impl FnOnce(&Env, ServerParts) -> Result<Endpoint>,
    ) -> Result<SimNode> {
        let Opened { start, core } = self;
        let env = start.env;
        let tls = ServerTls::new(&start.papers.credentials)?;
        let late = Arc::new(Late::default());
        let endpoint = bind(&env, ServerParts::new(tls, late.clone()).gate(late.clone()))?;
        let end = start.on_end.clone();
        let who = Who {
            id: node_of(&start.papers)?,
            cluster: start.cluster,
            address: start.address,
            zone: String::new(),
            rack: String::new(),
            weight: 1,
            data: start.dir,
            identity: Identity::in_memory(start.papers.credentials, start.papers.seal),
            nodes: start.papers.nodes,
            named: Vec::new(),
            offline_after: OFFLINE_AFTER,
            lease_reads: true,
            on_end: Arc::new(move |error| end(&error.to_string())),
        };
        let node = core
            .into_node(&env, env.clone(), &Handle::current(), who)
            .await?;
        node.peers.set_endpoint(endpoint.clone());
        // Set once, here.
        let _ = node.endpoint.set(endpoint);
        late.set(node.clone());
        workers::start(&node);
        node.register().await?;
        Ok(SimNode { node })
    }
}

/// How one replica stands in its group.
pub(crate) struct Standing {
    pub status: GroupStatus,
    /// It leads, as far as it knows.
    pub leads: bool,
    /// Members change just now.
    pub joint: bool,
}

/// What nodes answered to something that they must refuse.
pub(crate) type Offers = Arc<Mutex<Vec<(NodeId, Result<()>)>>>;

/// Replicas that run, and why others do not.
pub(crate) type Replicas = (Vec<(GroupId, ReplicaId)>, Vec<String>);

impl SimNode {
    /// Replicas that run, and why others do not.
    pub(crate) fn replicas(&self) -> Replicas {
        let all = self.node.groups.all().into_iter();
        let running = all.map(|(group, one)| (group, one.raft().status().replica));
        let groups = &self.node.groups;
        let held = groups.broken().into_iter().chain(groups.waiting());
        (running.collect(), held.map(|(_, _, why)| why).collect())
    }

    /// How each replica here stands in its group.
    pub(crate) fn standings(&self) -> Vec<Standing> {
        let standing = |(_, running): (GroupId, Running)| {
            let raft = running.raft();
            Standing {
                status: raft.status(),
                leads: raft.is_leader(),
                joint: raft.members().joint,
            }
        };
        self.node.groups.all().into_iter().map(standing).collect()
    }

    /// Offers every other node a chunk under the first epoch of the ring, unless that is still
    /// open; `told` gets what they answer. To be called in the context of the node's runtime.
    pub(crate) fn offer_late(&self, told: &Offers) {
        let view = self.node.views.now();
        if view.rings.is_open(FIRST_EPOCH) {
            return;
        }
        let others = view.members().filter(|one| one.node != self.node.id);
        for to in others.map(|one| one.node) {
            let (node, told) = (self.node.clone(), told.clone());
            let offer = async move {
                let answer = offer_late(&node, to).await;
                told.lock().push((to, answer));
            };
            self.node.env.spawn.spawn("late offer", Box::pin(offer));
        }
    }

    /// Its replica of the shard of `/` leads, as far as it knows.
    pub(crate) fn leads(&self) -> bool {
        let raft = self.node.groups.raft(GroupId::FIRST);
        raft.is_some_and(|raft| raft.is_leader())
    }

    /// Of each group that has a replica here: how many replicas vote; none while members change.
    pub(crate) fn voters(&self) -> Vec<usize> {
        let count = |running: Running| {
            let members = running.raft().members();
            match members.joint || !members.learners.is_empty() {
                true => 0,
                false => members.voters.len(),
            }
        };
        let groups = self.node.groups.all().into_iter();
        groups.map(|(_, running)| count(running)).collect()
    }

    /// Of each group: the applied index, and a hash of all records. Two replicas that applied the
    /// same have the same.
    pub(crate) fn states(&self) -> Result<Vec<(GroupId, u64, u64)>> {
        let mut states = Vec::new();
        for (group, running) in self.node.groups.all() {
            let view = match running {
                Running::Root(root) => root.machine.view()?,
                Running::Shard(shard) => shard.machine.view()?,
            };
            states.push((group, view));
        }
        let state = |(group, view): (GroupId, View)| {
            let mut hasher = blake3::Hasher::new();
            view.scan(&[], None, &mut |key, value| {
                for part in [key, value] {
                    hasher.update(&(part.len() as u64).to_le_bytes());
                    hasher.update(part);
                }
                Ok(true)
            })?;
            let head: [u8; 8] = std::array::from_fn(|at| hasher.finalize().as_bytes()[at]);
            let (now, _) = (self.node.store.replica(group))
                .ok_or_else(|| Error::failed(format!("no replica of group {group}")))?;
            let index = now.mark.position.index.0;
            Ok((group, index, u64::from_le_bytes(head)))
        };
        states.into_iter().map(state).collect()
    }
}

/// Hands a node a chunk as one that knows no newer epoch than the first would.
async fn offer_late(node: &Node, to: NodeId) -> Result<()> {
    let bytes = Bytes::from_static(b"a chunk for a ring of long ago");
    let (hash, len) = (ChunkHash::of(&bytes), bytes.len() as u32);
    let epoch = FIRST_EPOCH;
    let mut stream = node.peers.open(to).await?;
    let call = PeerCall::PutChunk { hash, len, epoch };
    stream.send_frame(&codec::encode(&call)).await?;
    // Who refuses need not read it.
    let _ = stream.send_bytes(bytes).await;
    let frame = stream.recv_frame().await?;
    let frame = frame.ok_or_else(|| Error::unavailable("the node closed the stream"))?;
    match codec::decode(&frame)? {
        PeerAnswer::Done => Ok(()),
        PeerAnswer::Failed(error) => Err(error),
        other => Err(odd(&other)),
    }
}
