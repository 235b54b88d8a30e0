//! A simulated cluster: nodes and client machines in one world, with identities of one CA made in
//! memory. Called by `run` and the tests.

use super::birth::{Door, run_node, settings, start_of};
use super::machine::{Death, Machine, wall_at_start};
use super::network::{HostId, Network, address_of};
use super::socket::Sockets;
use super::trace::Trace;
use super::world::World;
use crate::client::{Client, ConnectOptions};
use crate::cluster::{ADMIN_DAYS, Authority, CA_DAYS, NODE_DAYS, Seal, Validity};
use crate::env::Env;
use crate::env::sim::SeededRng;
use crate::error::{Code, Error, Result};
use crate::net::{ALPN_CLIENT, ClientTls, Connection, Endpoint};
use crate::node::testing::{Offers, Papers, Replicas, SimNode, Standing};
use crate::root::CaRecord;
use crate::types::{ClusterId, GroupId, NodeId, Subject};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// A node's data directory.
pub const DIR: &str = "/node";
pub const PORT: u16 = 7_400;
/// Content up to this many bytes is inline; chunks have the other size.
pub const INLINE_BYTES: u64 = 1_024;
pub const CHUNK_BYTES: u64 = 4_096;

/// How a cluster is made.
#[derive(Clone, Debug)]
pub struct Shape {
    pub seed: u64,
    /// Nodes at the beginning.
    pub nodes: usize,
    /// Machines that may become nodes later.
    pub spares: usize,
    pub clients: usize,
    /// Length of a segment of the log.
    pub segment_bytes: u64,
    /// Metadata is folded after this time.
    pub fold_after: Duration,
    /// Of every link, one way.
    pub latency: Duration,
    /// How long a sync of a node's disk takes.
    pub sync_latency: Duration,
    /// How long what was removed can be brought back, milliseconds.
    pub grace_ms: u64,
    /// An upload that nobody goes on with ends after this time, milliseconds.
    pub upload_ttl_ms: u64,
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
    /// It is, or is to become, a node.
    used: bool,
    /// Its first start makes the cluster; all others join.
    founds: bool,
}

/// A start that failed.
#[derive(Debug)]
pub struct Refusal {
    pub node: usize,
    pub error: Error,
    /// It was a node before.
    pub made: bool,
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
    refusals: Vec<Refusal>,
    /// Panics, since last asked.
    panics: Vec<String>,
}

impl Cluster {
    /// Machines with identities; nothing runs yet.
    pub fn new(shape: &Shape) -> Cluster {
        let trace = Trace::default();
        let network = Network::new(shape.seed ^ 0x6e65_7477, shape.latency, trace.clone());
        let machines = shape.nodes + shape.spares;
        let world = World::new(network, machines + shape.clients);
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
            seal: Arc::new(Mutex::new(Some(seal.clone()))),
            nodes: Vec::new(),
        };
        let nodes = (0..machines)
            .map(|host| NodeMachine {
                machine: machine(host),
                papers: Arc::new(Mutex::new((host == 0).then(|| first.clone()))),
                stage: Arc::default(),
                made: Arc::default(),
                restart_at: None,
                used: host < shape.nodes,
                founds: host == 0,
            })
            .collect();
        let admin = issue(Subject::user("admin", "admin", true).unwrap(), ADMIN_DAYS);
        Cluster {
            world,
            trace,
            nodes,
            clients: (0..shape.clients)
                .map(|client| machine(machines + client))
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

    /// The machines that are nodes.
    pub fn used(&self) -> Vec<usize> {
        let all = 0..self.nodes.len();
        all.filter(|node| self.nodes[*node].used).collect()
    }

    /// Takes a machine into use, or out of it.
    pub fn set_used(&mut self, number: usize, used: bool) {
        self.nodes[number].used = used;
        if !used {
            self.end_node(number, Death::Killed, None);
        }
    }

    /// As which node a machine takes part; `None`: it has not joined yet.
    pub fn id_of(&self, number: usize) -> Option<NodeId> {
        let papers = self.nodes[number].papers.lock();
        let facts = papers.as_ref()?.credentials.facts().ok()?;
        match facts.subject {
            Subject::Node(node) => Some(node),
            Subject::User { .. } => None,
        }
    }

    /// A machine has an empty disk, and joins as a new node after `down`.
    pub fn wipe(&mut self, number: usize, down: Duration) {
        self.end_node(number, Death::Killed, Some(down));
        let node = &mut self.nodes[number];
        node.founds = false;
        *node.made.lock() = false;
        *node.papers.lock() = None;
        node.machine.wipe();
    }

    /// HOST:PORT of all nodes, another first each time.
    fn addresses(&self, from: u64) -> Vec<String> {
        let used = self.used();
        let mut all: Vec<String> = used
            .iter()
            .map(|node| address_of(self.nodes[*node].machine.host, PORT).to_string())
            .collect();
        all.rotate_left((from % used.len().max(1) as u64) as usize);
        all
    }

    /// A node's machine; it may run or not.
    pub fn node(&mut self, node: usize) -> &mut Machine {
        &mut self.nodes[node].machine
    }

    pub fn host_of(&self, node: usize) -> HostId {
        self.nodes[node].machine.host
    }

    /// Its first start has reached its end.
    pub fn is_made(&self, node: usize) -> bool {
        *self.nodes[node].made.lock()
    }

    pub fn client(&mut self, client: usize) -> &mut Machine {
        &mut self.clients[client]
    }

    /// Starts the process of a node. The first start of node 0 makes the cluster.
    pub fn start_node(&mut self, number: usize) {
        let own = address_of(self.nodes[number].machine.host, PORT).to_string();
        let mut addresses = self.addresses(self.nodes[number].machine.lives);
        addresses.retain(|address| *address != own);
        let node = &mut self.nodes[number];
        node.restart_at = None;
        if node.machine.is_alive() || !node.used {
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
        let founds = first && node.founds;
        if first && !founds {
            *node.papers.lock() = None;
        }
        let papers = node.papers.clone();
        let (shape, cluster, ca) = (self.shape.clone(), self.cluster, self.ca.clone());
        let door = Door {
            tls: self.client_tls.clone(),
            addresses,
        };
        self.trace
            .note(self.world.now(), format_args!("node {number} starts"));
        node.machine.boot(&mut self.world, |birth| async move {
            let start = |papers| {
                let founded = founds.then(|| (settings(&shape), ca));
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
        node.restart_at = down.filter(|_| node.used).map(|down| now + down);
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
        let endpoints = self.addresses(0);
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
                self.refusals.push(Refusal {
                    node: number,
                    error,
                    made: *node.made.lock(),
                });
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
    pub fn take_refusals(&mut self) -> Vec<Refusal> {
        std::mem::take(&mut self.refusals)
    }

    /// Panics since this was asked last.
    pub fn take_panics(&mut self) -> Vec<String> {
        std::mem::take(&mut self.panics)
    }

    /// [`SimNode::replicas`] of a node that serves.
    pub fn replicas(&self, number: usize) -> Option<Replicas> {
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

    /// [`SimNode::standings`] of a node that serves; none of others.
    pub fn standings(&self, number: usize) -> Vec<Standing> {
        match &*self.nodes[number].stage.lock() {
            Stage::Serving(node) => node.standings(),
            _ => Vec::new(),
        }
    }

    /// [`SimNode::offer_late`] of a node that serves.
    pub fn offer_late(&self, number: usize, told: &Offers) {
        let machine = &self.nodes[number];
        if let Stage::Serving(node) = &*machine.stage.lock() {
            let host = machine.machine.host;
            self.world.within(host, || node.offer_late(told));
        }
    }

    /// A node leads the shard of `/`, as far as it knows.
    pub fn leads(&self, number: usize) -> bool {
        match &*self.nodes[number].stage.lock() {
            Stage::Serving(node) => node.leads(),
            _ => false,
        }
    }

    /// All groups have three replicas that vote, as this node knows.
    pub fn is_settled(&self, number: usize) -> bool {
        match &*self.nodes[number].stage.lock() {
            Stage::Serving(node) => node.voters().iter().all(|voters| *voters == 3),
            _ => false,
        }
    }
}

/// How a client's process gets to the cluster.
#[derive(Clone)]
pub struct Connector {
    pub env: Env,
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

/// Ways to speak to nodes below the client.
impl Connector {
    pub fn endpoint(&self) -> Result<Endpoint> {
        self.sockets.endpoint(&self.env, None)
    }

    /// A connection on which anything may be said.
    pub async fn connection(&self, endpoint: &Endpoint, to: usize) -> Result<Connection> {
        let most = Duration::from_secs(2);
        let (to, tls) = (address_of(to, PORT), &self.options.tls);
        endpoint.connect(to, ALPN_CLIENT, tls, most).await
    }
}
