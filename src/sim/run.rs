//! One seed: a cluster, clients at work, trouble, healing, and the verdict. Called by the tests.

use super::cluster::{Cluster, Connector, Shape};
use super::invariants;
use super::invariants::votes::Elected;
use super::machine::Death;
use super::network::HostId;
use super::operator::Operator;
use super::recorder::Recorder;
use super::schedule::{self, Kind, Schedule, Size};
use super::workload::Worker;
use super::world::RATE_TRUE;
use crate::types::{GroupId, NodeId, ReplicaId};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// All nodes have joined and all groups have three replicas within this time.
const START_MAX: Duration = Duration::from_secs(40);
/// The healed cluster answers a new client within this time.
pub const HEALED_MAX: Duration = Duration::from_secs(10);
/// What clients have under way when they are told to stop ends within this time.
const WIND_DOWN: Duration = Duration::from_secs(40);
/// The shortest grace of a chunk is a minute; a census and what follows comes on top.
const QUIET: Duration = Duration::from_secs(90);
/// How long a slow sync takes.
const SLOW_SYNC: Duration = Duration::from_millis(40);
/// How long the operator tries one call.
const OPERATOR_TIMEOUT: Duration = Duration::from_secs(5);
/// Tasks of each client that work at once.
const WORKERS: usize = 2;

/// How a run went.
#[derive(Clone, Debug)]
pub struct Report {
    pub seed: u64,
    pub schedule: Schedule,
    /// At the beginning.
    pub nodes: usize,
    /// Everything that must not be.
    pub violations: Vec<String>,
    /// Number and hash of all events.
    pub trace: (u64, String),
    pub simulated: Duration,
    pub answered: u64,
    /// The longest that a client waited for an answer.
    pub slowest: Duration,
    pub unknown: usize,
    /// Starts of node processes.
    pub lives: u64,
    /// Directories whose histories were too many-sided to judge.
    pub undecided: usize,
    /// From healing to the first answer.
    pub healed_in: Duration,
}

/// A run under way.
pub struct Run {
    pub cluster: Cluster,
    pub recorder: Recorder,
    pub operator: Operator,
    pub hosts: Hosts,
    pub rng: StdRng,
    seed: u64,
    /// How long a client tries one request.
    client_timeout: Duration,
    pub violations: Vec<String>,
    /// Nodes whose disks fail on purpose: they may refuse to start.
    pub ill: BTreeSet<usize>,
    /// Nodes whose files were damaged on purpose.
    pub rotten: BTreeSet<usize>,
    /// Nodes that the operator was asked to drain and remove, and who they were.
    pub leaving: BTreeMap<usize, NodeId>,
    /// Whose each replica is.
    pub owners: BTreeMap<(GroupId, ReplicaId), NodeId>,
    /// The last election of each group.
    pub elected: BTreeMap<GroupId, Elected>,
}

/// Runs a seed.
pub fn run(seed: u64, size: Size) -> Report {
    let schedule = schedule::draw(seed, size);
    let mut rng = StdRng::seed_from_u64(seed);
    let hosts = Hosts { size };
    let mut shape = Shape {
        seed,
        nodes: size.nodes,
        spares: size.spares,
        clients: hosts.clients(),
        segment_bytes: [16 << 10, 64 << 10, 256 << 10][rng.random_range(0..3)],
        fold_after: Duration::from_millis([100, 500, 2_000][rng.random_range(0..3)]),
        latency: Duration::from_micros([500, 1_500, 6_000][rng.random_range(0..3)]),
        sync_latency: Duration::from_millis([0, 1, 4, 10][rng.random_range(0..4)]),
        grace_ms: [1_000, 3_600_000][rng.random_range(0..2)],
        upload_ttl_ms: [20_000, 3_600_000][rng.random_range(0..2)],
    };
    if schedule.has(Kind::PowerCutAll) && seed.is_multiple_of(2) {
        // Longer than an answer takes: what is told before the sync is told to clients.
        shape.sync_latency = SLOW_SYNC;
    }
    // Shorter than one attempt, or long enough for several.
    let client_timeout = Duration::from_secs([2, 5, 15, 35][rng.random_range(0..4)]);
    let cluster = Cluster::new(&shape);
    let recorder = Recorder::new(cluster.world.network.clone(), cluster.trace.clone());
    let mut run = Run {
        cluster,
        recorder,
        operator: Operator::default(),
        hosts,
        seed,
        rng,
        client_timeout,
        violations: Vec::new(),
        ill: BTreeSet::new(),
        rotten: BTreeSet::new(),
        leaving: BTreeMap::new(),
        owners: BTreeMap::new(),
        elected: BTreeMap::new(),
    };
    let healed_in = run.play(&schedule);
    run.report(&schedule, healed_in)
}

impl Run {
    fn play(&mut self, schedule: &Schedule) -> Duration {
        if !self.begin() {
            return Duration::ZERO;
        }
        self.work(schedule);
        let healed_in = self.heal();
        if schedule.has(Kind::Quiet) && healed_in < HEALED_MAX {
            self.stay_quiet();
        }
        self.recorder.stop();
        let recorder = self.recorder.clone();
        // Who does not come to an end has what it asked unknown.
        self.cluster
            .run_until(WIND_DOWN, |_| recorder.running() == 0);
        for client in 0..self.hosts.size.clients {
            self.cluster.end_client(client);
        }
        if healed_in < HEALED_MAX {
            invariants::members::check(self);
            invariants::contents::check(self);
            invariants::health::check(self);
            invariants::replicas::check(self);
            invariants::epochs::check(self);
        }
        healed_in
    }

    /// All nodes are there, all groups have three replicas, all clients begin.
    fn begin(&mut self) -> bool {
        for node in self.cluster.used() {
            self.cluster.start_node(node);
        }
        let all = |cluster: &Cluster| {
            let mut used = cluster.used().into_iter();
            used.all(|node| cluster.is_settled(node))
        };
        if !self.cluster.run_until(START_MAX, all) {
            self.look();
            let why = format!("no start within {START_MAX:?}");
            self.violations.push(why);
            return false;
        }
        for client in 0..self.hosts.size.clients {
            self.start_client(client);
        }
        let operator = self.operator.clone();
        let work = move |connector| operator.work(connector);
        let client = self.hosts.operator_client();
        self.cluster.start_client(client, OPERATOR_TIMEOUT, work);
        true
    }

    pub fn start_client(&mut self, client: usize) {
        let (recorder, seed) = (self.recorder.clone(), self.seed);
        let life = self.cluster.client(client).lives;
        let work = move |connector: Connector| async move {
            let shared = connector.connect().await;
            for worker in 0..WORKERS {
                let seed = seed ^ (client as u64) << 40 ^ (worker as u64) << 32 ^ life << 48;
                let worker = Worker::new(client, shared.clone(), recorder.clone(), seed);
                let spawn = &connector.env.spawn;
                spawn.spawn("worker", Box::pin(worker.work()));
            }
        };
        self.cluster.start_client(client, self.client_timeout, work);
    }

    /// Clients work while things go wrong.
    fn work(&mut self, schedule: &Schedule) {
        let begin = self.cluster.world.now();
        let mut acts = schedule.acts.iter().peekable();
        while self.cluster.world.now() < begin + self.hosts.size.work {
            let passed = self.cluster.world.now() - begin;
            while let Some((_, act)) = acts.next_if(|(at, _)| *at <= passed) {
                self.act(act);
            }
            self.cluster.step();
            self.look();
        }
    }

    /// Everything works, and clients take their time.
    fn stay_quiet(&mut self) {
        self.recorder.slow_down();
        let end = self.cluster.world.now() + QUIET;
        while self.cluster.world.now() < end {
            self.cluster.step();
            self.look();
        }
    }

    /// What must hold at every moment.
    pub fn look(&mut self) {
        invariants::starts::check(self);
        invariants::owners::check(self);
        invariants::votes::check(self);
    }

    /// Everything works again; how long until a new client is served.
    fn heal(&mut self) -> Duration {
        let world = &mut self.cluster.world;
        world
            .network
            .change(|weather| *weather = Default::default());
        for host in 0..self.hosts.count() {
            world.pause(host, false);
            world.set_rate(host, RATE_TRUE);
        }
        for node in self.cluster.used() {
            let machine = self.cluster.node(node);
            machine.mend_disk();
            machine.set_wall_skew(0);
            if self.recorder.had_damage() {
                // A chunk that could not be read is out of use until the next start.
                self.cluster.end_node(node, Death::Killed, None);
            }
            self.cluster.start_node(node);
        }
        self.ill.clear();
        invariants::served::check(self)
    }

    fn report(mut self, schedule: &Schedule, healed_in: Duration) -> Report {
        self.violations.extend(self.cluster.take_panics());
        self.violations.extend(self.recorder.violations());
        // A node that refuses does so at every start.
        self.violations.sort();
        self.violations.dedup();
        let (undecided, unknown) = invariants::histories::check(&mut self);
        let machines = 0..self.hosts.size.machines();
        Report {
            seed: self.seed,
            schedule: schedule.clone(),
            nodes: self.hosts.size.nodes,
            violations: self.violations,
            trace: self.cluster.trace.sum(),
            simulated: self.cluster.world.now(),
            answered: self.recorder.answered(),
            slowest: self.recorder.slowest(),
            unknown,
            lives: machines.map(|node| self.cluster.node(node).lives).sum(),
            undecided,
            healed_in,
        }
    }
}

/// Which machine is what. Machines of nodes come first, then those of clients: who work, who reads
/// in the end, the operator, a stranger.
pub struct Hosts {
    pub size: Size,
}

impl Hosts {
    pub fn clients(&self) -> usize {
        self.size.clients + 3
    }

    pub fn count(&self) -> usize {
        self.size.machines() + self.clients()
    }

    pub fn reader_client(&self) -> usize {
        self.size.clients
    }

    pub fn operator_client(&self) -> usize {
        self.size.clients + 1
    }

    pub fn stranger_client(&self) -> usize {
        self.size.clients + 2
    }

    pub fn stranger(&self) -> HostId {
        self.size.machines() + self.stranger_client()
    }
}
