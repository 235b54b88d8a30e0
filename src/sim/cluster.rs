//! A simulated cluster: nodes and client machines in one world, with identities of one CA made in
//! memory. Called by `run` and the tests.

use super::machine::{Birth, Death, Machine, wall_at_start};
use super::network::{HostId, Network, address_of};
use super::socket::Sockets;
use super::trace::Trace;
use super::world::World;
use crate::client::{Client, ConnectOptions};
use crate::cluster::{ADMIN_DAYS, Authority, CA_DAYS, NODE_DAYS, Seal, Validity};
use crate::env::OpenMode;
use crate::env::sim::SeededRng;
use crate::error::{Code, Error, Result};
use crate::net::ClientTls;
use crate::node::testing::{self, Papers, SimNode, Sizes, Start};
use crate::proto::{AdminAnswer, AdminCall, TokenRole};
use crate::root::CaRecord;
use crate::shard::records::Settings;
use crate::store::chunks::ChunkOptions;
use crate::store::overlay::FoldOptions;
use crate::store::wal::WalOptions;
use crate::types::{ClusterId, GroupId, NodeId, Subject};
use parking_lot::Mutex;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A node's data directory.
const DIR: &str = "/node";
/// Made when a first start has reached its end.
const MARKER: &str = "/node/node";
const PORT: u16 = 7_400;
/// Content up to this many bytes is inline; chunks have the other size.
pub const INLINE_BYTES: u64 = 1_024;
pub const CHUNK_BYTES: u64 = 4_096;

/// How a cluster is made.
#[derive(Clone, Debug)]
pub struct Shape {
    pub seed: u64,
    pub nodes: usize,
    pub clients: usize,
    /// Length of a segment of the log.
    pub segment_bytes: u64,
    /// Metadata is folded after this time.
    pub fold_after: Duration,
    /// Of every link, one way.
    pub latency: Duration,
    /// How long a sync of a node's disk takes.
    pub sync_latency: Duration,
}

/// What a node's process has reached.
#[derive(Default)]
enum Stage {
    #[default]
    Starting,
    Serving(SimNode),
    Refused(Error),
}

/// A machine that is to run a node.
struct NodeMachine {
    machine: Machine,
    /// Its own files; `None` before it has joined.
    papers: Arc<Mutex<Option<Papers>>>,
    stage: Arc<Mutex<Stage>>,
    /// A first start has reached its end: from now on the data must be there.
    made: Arc<Mutex<bool>>,
    /// When it is started again.
    restart_at: Option<Duration>,
}

/// Everything.
pub struct Cluster {
    pub world: World,
    pub trace: Trace,
    shape: Shape,
    nodes: Vec<NodeMachine>,
    clients: Vec<Machine>,
    client_tls: ClientTls,
    cluster: ClusterId,
    ca: CaRecord,
    /// Starts that failed, since last asked.
    refusals: Vec<(usize, Error)>,
    /// Panics, since last asked.
    panics: Vec<String>,
}

impl Cluster {
    /// Machines with identities; nothing runs yet.
    pub fn new(shape: &Shape) -> Cluster {
        let trace = Trace::default();
        let network = Network::new(shape.seed ^ 0x6e65_7477, shape.latency, trace.clone());
        let world = World::new(network, shape.nodes + shape.clients);
        let rng = SeededRng::new(shape.seed ^ 0x6361);
        let cluster = ClusterId([7; 16]);
        let wall = wall_at_start();
        let authority = Authority::create(&rng, cluster, Validity::days(wall, CA_DAYS)).unwrap();
        let mut serial = 0;
        let mut issue = |subject: Subject, days| {
            serial += 1;
            let validity = Validity::days(wall, days);
            authority
                .issue(&rng, &subject, serial, validity, &[])
                .unwrap()
        };
        let machine = |host: HostId| {
            let seed = shape.seed.wrapping_add(host as u64 * 7_919);
            Machine::new(host, seed, shape.sync_latency)
        };
        let seal = Seal::create(&rng);
        let first = Papers {
            credentials: issue(Subject::Node(NodeId(1)), NODE_DAYS),
            seal: Some(seal.clone()),
            nodes: Vec::new(),
        };
        let nodes = (0..shape.nodes)
            .map(|host| NodeMachine {
                machine: machine(host),
                papers: Arc::new(Mutex::new((host == 0).then(|| first.clone()))),
                stage: Arc::default(),
                made: Arc::default(),
                restart_at: None,
            })
            .collect();
        let admin = issue(Subject::user("admin", "admin", true).unwrap(), ADMIN_DAYS);
        Cluster {
            world,
            trace,
            nodes,
            clients: (0..shape.clients)
                .map(|client| machine(shape.nodes + client))
                .collect(),
            client_tls: ClientTls::new(&admin).unwrap(),
            cluster,
            ca: CaRecord {
                certificate: authority.certificate().to_vec().into(),
                sealed: seal.seal(&rng, &authority).into(),
            },
            shape: shape.clone(),
            refusals: Vec::new(),
            panics: Vec::new(),
        }
    }

    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// A node's machine; it may run or not.
    pub fn node(&mut self, node: usize) -> &mut Machine {
        &mut self.nodes[node].machine
    }

    pub fn client(&mut self, client: usize) -> &mut Machine {
        &mut self.clients[client]
    }

    /// Starts the process of a node. The first start of node 0 makes the cluster.
    pub fn start_node(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        node.restart_at = None;
        if node.machine.is_alive() {
            return;
        }
        let first = !*node.made.lock();
        if first {
            // What a first start left that was cut off was never served.
            node.machine.wipe();
        }
        node.stage = Arc::default();
        let sockets = Sockets {
            network: self.world.network.clone(),
            at: address_of(node.machine.host, PORT),
            power: node.machine.disk.clone(),
        };
        let (stage, made) = (node.stage.clone(), node.made.clone());
        if first && number > 0 {
            *node.papers.lock() = None;
        }
        let papers = node.papers.clone();
        let (shape, cluster, ca) = (self.shape.clone(), self.cluster, self.ca.clone());
        let door = Door {
            tls: self.client_tls.clone(),
            first: address_of(0, PORT).to_string(),
        };
        self.trace
            .note(self.world.now(), format_args!("node {number} starts"));
        node.machine.boot(&mut self.world, |birth| async move {
            let start = |papers| {
                let founded = (first && number == 0).then(|| (settings(), ca));
                let address = sockets.at.to_string();
                start_of(&birth, &shape, cluster, papers, address, founded)
            };
            let reached = match run_node(&birth, start, papers, door, &sockets, made).await {
                Ok(node) => Stage::Serving(node),
                Err(error) => Stage::Refused(error),
            };
            *stage.lock() = reached;
        });
    }

    /// Ends a node's process; it is started again after `down`, if that is given.
    pub fn end_node(&mut self, number: usize, death: Death, down: Option<Duration>) {
        let now = self.world.now();
        let node = &mut self.nodes[number];
        node.restart_at = down.map(|down| now + down);
        if node.machine.is_alive() {
            self.trace
                .note(now, format_args!("node {number} ends: {death:?}"));
            // Before its runtime: it holds what lives on that.
            *node.stage.lock() = Stage::Starting;
            node.machine.end(&mut self.world, death);
        }
    }

    /// Starts a client's process, whose main task `software` makes.
    pub fn start_client<F>(
        &mut self,
        number: usize,
        timeout: Duration,
        software: impl FnOnce(Connector) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let endpoints = (0..self.nodes.len())
            .map(|node| address_of(self.nodes[node].machine.host, PORT).to_string())
            .collect();
        let machine = &mut self.clients[number];
        let sockets = Sockets {
            network: self.world.network.clone(),
            at: address_of(machine.host, 30_000 + (machine.lives % 10_000) as u16),
            power: machine.disk.clone(),
        };
        let options = ConnectOptions {
            timeout,
            ..ConnectOptions::new(endpoints, self.client_tls.clone())
        };
        machine.boot(&mut self.world, |birth| {
            software(Connector {
                env: birth.env,
                options,
                sockets,
            })
        });
    }

    pub fn end_client(&mut self, number: usize) {
        self.trace
            .note(self.world.now(), format_args!("client {number} ends"));
        self.clients[number].end(&mut self.world, Death::Killed);
    }

    /// Moves the world on, buries who died and starts again who is due.
    pub fn step(&mut self) {
        let panics = self.world.step();
        let now = self.world.now();
        for (host, text) in panics {
            // What a process does after its end is nobody's.
            let ended =
                |node: &NodeMachine| node.machine.host == host && node.machine.died().is_some();
            if !self.nodes.iter().any(ended) {
                self.panics.push(format!("host {host}: {text}"));
            }
        }
        for number in 0..self.nodes.len() {
            let node = &mut self.nodes[number];
            if let Some((death, why)) = node.machine.died() {
                self.trace
                    .note(now, format_args!("node {number} died: {why}"));
                let down = match node.restart_at {
                    Some(at) => at.saturating_sub(now),
                    None => Duration::from_millis(300),
                };
                self.end_node(number, death, Some(down));
                continue;
            }
            let refused = match &*node.stage.lock() {
                Stage::Refused(error) => Some(error.clone()),
                _ => None,
            };
            if let Some(error) = refused {
                self.trace
                    .note(now, format_args!("node {number} refuses: {error}"));
                self.refusals.push((number, error));
                self.end_node(number, Death::Killed, Some(Duration::from_millis(300)));
            } else if !node.machine.is_alive() && node.restart_at.is_some_and(|at| at <= now) {
                self.start_node(number);
            }
        }
    }

    /// Steps until `done`, for at most so long; false if the time is over.
    pub fn run_until(&mut self, most: Duration, mut done: impl FnMut(&Cluster) -> bool) -> bool {
        let end = self.world.now() + most;
        while !done(self) {
            if self.world.now() >= end {
                return false;
            }
            self.step();
        }
        true
    }

    pub fn is_serving(&self, number: usize) -> bool {
        matches!(&*self.nodes[number].stage.lock(), Stage::Serving(_))
    }

    /// Starts that failed since this was asked last.
    pub fn take_refusals(&mut self) -> Vec<(usize, Error)> {
        std::mem::take(&mut self.refusals)
    }

    /// Panics since this was asked last.
    pub fn take_panics(&mut self) -> Vec<String> {
        std::mem::take(&mut self.panics)
    }

    /// [`SimNode::replicas`] of a node that serves.
    pub fn replicas(&self, number: usize) -> Option<testing::Replicas> {
        match &*self.nodes[number].stage.lock() {
            Stage::Serving(node) => Some(node.replicas()),
            _ => None,
        }
    }

    /// [`SimNode::states`] of a node that serves.
    pub fn states(&self, number: usize) -> Option<Result<Vec<(GroupId, u64, u64)>>> {
        match &*self.nodes[number].stage.lock() {
            Stage::Serving(node) => Some(node.states()),
            _ => None,
        }
    }
}

/// How a client's process gets to the cluster.
#[derive(Clone)]
pub struct Connector {
    pub env: crate::env::Env,
    options: ConnectOptions,
    sockets: Sockets,
}

impl Connector {
    /// Connects, however long it takes.
    pub async fn connect(&self) -> Client {
        loop {
            let connecting = Client::connect_over(
                self.env.clone(),
                self.options.clone(),
                Box::new(self.sockets.clone()),
            );
            match connecting.await {
                Ok(client) => return client,
                // Wrong clocks make certificates invalid: that passes too.
                Err(error) => assert!(
                    matches!(error.code, Code::Unavailable | Code::Denied),
                    "{error}"
                ),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Where a new node asks to be let in, and as whom it asks for its token.
struct Door {
    tls: ClientTls,
    first: String,
}

impl Door {
    /// What an operator does: a token from one who may make it, spent by the new node.
    async fn enter(&self, birth: &Birth, sockets: &Sockets) -> Result<Papers> {
        let at = |port| Sockets {
            at: std::net::SocketAddr::new(sockets.at.ip(), port),
            ..sockets.clone()
        };
        let options = ConnectOptions::new(vec![self.first.clone()], self.tls.clone());
        let client = Client::connect_over(birth.env.clone(), options, Box::new(at(20_001))).await?;
        let call = AdminCall::CreateToken {
            role: TokenRole::Node,
            ttl_ms: 60_000,
        };
        let AdminAnswer::Token { token, .. } = client.admin(call).await? else {
            return Err(Error::failed("no token"));
        };
        let endpoint = at(20_002).endpoint(&birth.env, None)?;
        testing::join(&birth.env, &endpoint, &self.first, &token).await
    }
}

/// What a node's process does: as `node::serve`, on this machine.
async fn run_node(
    birth: &Birth,
    start: impl FnOnce(Papers) -> Start,
    papers: Arc<Mutex<Option<Papers>>>,
    door: Door,
    sockets: &Sockets,
    made: Arc<Mutex<bool>>,
) -> Result<SimNode> {
    let first = !*made.lock();
    let disk = &birth.env.disk;
    let (dir, marker) = (Path::new(DIR), Path::new(MARKER));
    let failed = |e: std::io::Error| Error::io("make", marker, &e);
    if first {
        disk.create_dir(dir).await.map_err(failed)?;
    } else if !disk.exists(marker).await.map_err(failed)? {
        return Err(Error::corrupt("the directory of a node that served is gone").at(DIR));
    }
    let known = papers.lock().clone();
    let own = match known {
        Some(own) => own,
        None => door.enter(birth, sockets).await?,
    };
    let opened = testing::open(start(own.clone())).await?;
    if first {
        disk.open(marker, OpenMode::CreateNew)
            .await
            .map_err(failed)?;
        disk.sync_dir(dir).await.map_err(failed)?;
        *papers.lock() = Some(own);
        *made.lock() = true;
    }
    let bind = |env: &crate::env::Env, parts| sockets.endpoint(env, Some(parts));
    opened.serve(bind).await
}

fn start_of(
    birth: &Birth,
    shape: &Shape,
    cluster: ClusterId,
    papers: Papers,
    address: String,
    first: Option<(Settings, CaRecord)>,
) -> Start {
    let dir = Path::new(DIR);
    Start {
        env: birth.env.clone(),
        dir: dir.to_owned(),
        meta: birth.handles.base(&dir.join("meta")),
        index: birth.handles.base(&dir.join("index")),
        cluster,
        papers,
        address,
        first,
        sizes: sizes(shape),
        on_end: birth.on_end(),
    }
}

fn settings() -> Settings {
    Settings {
        inline_bytes: INLINE_BYTES,
        chunk_bytes: CHUNK_BYTES,
        keep_versions: 1_000,
        keep_for_ms: 24 * 3_600_000,
        grace_ms: 3_600_000,
        upload_ttl_ms: 3_600_000,
    }
}

fn sizes(shape: &Shape) -> Sizes {
    Sizes {
        wal: WalOptions {
            segment_bytes: shape.segment_bytes,
            cache_bytes: 16 << 10,
            segments_kept: 3,
            seal_after: Duration::from_millis(20),
            ..WalOptions::default()
        },
        chunks: ChunkOptions {
            pack_chunk_bytes_max: 3_000,
            chunk_bytes_max: 64 << 10,
            pack_bytes_max: 64 << 10,
            pack_records_max: 64,
            group_bytes: 1_024,
            slice_bytes: 4_096,
            queued_bytes_max: 64 << 10,
            index_changes_max: 64,
            ..ChunkOptions::default()
        },
        fold: FoldOptions {
            bytes: 1 << 20,
            after: shape.fold_after,
        },
    }
}
