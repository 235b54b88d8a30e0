//! One seed: a cluster, clients at work, trouble, healing, and the verdict. Called by the tests.

use super::cluster::{Cluster, Connector, Shape};
use super::history::{Ask, Event, NAMES, NameId, Outcome, Thing};
use super::machine::Death;
use super::oracle::{self, Verdict};
use super::recorder::Recorder;
use super::schedule::{self, Act, Schedule, Size};
use super::workload::{Worker, path_in};
use super::world::RATE_TRUE;
use crate::env::Env;
use crate::env::sim::{Fault, OpKind};
use crate::error::Code;
use crate::types::{DfsPath, ReadLevel};
use bytes::Bytes;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// The first start and the first answer take no longer.
const START_MAX: Duration = Duration::from_secs(20);
/// The healed cluster answers a new client within this time.
const HEALED_MAX: Duration = Duration::from_secs(10);
/// What clients have under way when they are told to stop ends within this time.
const WIND_DOWN: Duration = Duration::from_secs(40);
/// Reading everything again takes no longer.
const READING_MAX: Duration = Duration::from_secs(600);
/// Everything that is missing somewhere is made again within this time.
const CONVERGED_MAX: Duration = Duration::from_secs(120);
/// How long the client that reads everything tries one request.
const READER_TIMEOUT: Duration = Duration::from_secs(30);
/// Tasks of each client that work at once.
const WORKERS: usize = 2;

/// How a run went.
#[derive(Clone, Debug)]
pub struct Report {
    pub seed: u64,
    pub schedule: Schedule,
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

impl Report {
    /// The line that shows the same again.
    pub fn line(&self) -> String {
        format!("scripts/sim.sh --seeds {0}..{0}", self.seed)
    }
}

struct Run {
    cluster: Cluster,
    recorder: Recorder,
    size: Size,
    seed: u64,
    /// How long a client tries one request.
    client_timeout: Duration,
    violations: Vec<String>,
    /// Nodes whose disks fail on purpose: they may refuse to start.
    ill: BTreeSet<usize>,
}

/// Runs a seed.
pub fn run(seed: u64, size: Size) -> Report {
    let schedule = schedule::draw(seed, size);
    run_schedule(seed, size, &schedule)
}

/// Runs a seed with other trouble than its own.
pub fn run_schedule(seed: u64, size: Size, schedule: &Schedule) -> Report {
    let mut rng = StdRng::seed_from_u64(seed);
    let shape = Shape {
        seed,
        nodes: size.nodes,
        // One more, for the questions at the end.
        clients: size.clients + 1,
        segment_bytes: [16 << 10, 64 << 10, 256 << 10][rng.random_range(0..3)],
        fold_after: Duration::from_millis([100, 500, 2_000][rng.random_range(0..3)]),
        latency: Duration::from_micros([500, 1_500, 6_000][rng.random_range(0..3)]),
        sync_latency: Duration::from_millis([0, 1, 4, 10][rng.random_range(0..4)]),
    };
    // Shorter than one attempt, or long enough for several.
    let client_timeout = Duration::from_secs([2, 5, 15, 35][rng.random_range(0..4)]);
    let cluster = Cluster::new(&shape);
    let recorder = Recorder::new(cluster.world.network.clone(), cluster.trace.clone());
    let mut run = Run {
        cluster,
        recorder,
        size,
        seed,
        client_timeout,
        violations: Vec::new(),
        ill: BTreeSet::new(),
    };
    let healed_in = run.play(schedule);
    run.report(schedule, healed_in)
}

impl Run {
    fn play(&mut self, schedule: &Schedule) -> Duration {
        for node in 0..self.size.nodes {
            self.cluster.start_node(node);
        }
        let all = |cluster: &Cluster| (0..cluster.nodes()).all(|node| cluster.is_serving(node));
        if !self.cluster.run_until(START_MAX, all) {
            self.violations
                .push(format!("no start within {START_MAX:?}"));
            return Duration::ZERO;
        }
        for client in 0..self.size.clients {
            self.start_client(client);
        }
        self.work(schedule);
        let healed_in = self.heal();
        self.recorder.stop();
        let recorder = self.recorder.clone();
        // Who does not come to an end has what it asked unknown.
        self.cluster
            .run_until(WIND_DOWN, |_| recorder.running() == 0);
        for client in 0..self.size.clients {
            self.cluster.end_client(client);
        }
        if healed_in < HEALED_MAX {
            self.read_everything();
            self.compare_replicas();
        }
        healed_in
    }

    /// Replicas of a group that have applied the same have the same records.
    fn compare_replicas(&mut self) {
        let mut known = BTreeMap::new();
        for node in 0..self.size.nodes {
            let states = match self.cluster.states(node) {
                Some(Ok(states)) => states,
                Some(Err(error)) => {
                    let text = format!("node {node} cannot read its records: {error}");
                    self.violations.push(text);
                    continue;
                }
                None => continue,
            };
            let now = self.cluster.world.now();
            let trace = &self.cluster.trace;
            trace.note(now, format_args!("node {node} holds {states:?}"));
            for (group, index, hash) in states {
                let first = *known.entry((group, index)).or_insert((node, hash));
                if first.1 != hash {
                    let (a, b) = (first.0, node);
                    let text = format!("group {group} at {index} differs on nodes {a} and {b}");
                    self.violations.push(text);
                }
            }
        }
    }

    fn start_client(&mut self, client: usize) {
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
        while self.cluster.world.now() < begin + self.size.work {
            let passed = self.cluster.world.now() - begin;
            while let Some((_, act)) = acts.next_if(|(at, _)| *at <= passed) {
                self.act(act);
            }
            self.cluster.step();
            self.look_at_refusals();
        }
    }

    fn act(&mut self, act: &Act) {
        let now = self.cluster.world.now();
        self.cluster.trace.note(now, format_args!("act {act:?}"));
        let network = self.cluster.world.network.clone();
        match act {
            Act::End { node, power, down } => {
                let death = match power {
                    true => Death::PowerCut,
                    false => Death::Killed,
                };
                self.cluster.end_node(*node, death, Some(*down));
            }
            Act::CutAtWrite { node, writes } => self.cluster.node(*node).cut_at(*writes),
            Act::Pause { host, on } => self.cluster.world.pause(*host, *on),
            Act::Cut { from, to } => network.change(|weather| {
                let pairs = from.iter().flat_map(|a| to.iter().map(|b| (*a, *b)));
                weather.cuts.extend(pairs);
            }),
            Act::Join => network.change(|weather| weather.cuts.clear()),
            Act::Loss(often) => network.change(|weather| weather.loss = *often),
            Act::Duplication(often) => network.change(|weather| weather.duplication = *often),
            Act::Corruption(often) => network.change(|weather| weather.corruption = *often),
            Act::Jitter(jitter) => network.change(|weather| weather.jitter = *jitter),
            Act::Largest(largest) => network.change(|weather| weather.largest = *largest),
            Act::WallSkew { node, ms } => self.cluster.node(*node).set_wall_skew(*ms),
            Act::Rate { host, rate } => self.cluster.world.set_rate(*host, *rate),
            Act::ClientDeath { client } => {
                self.cluster.end_client(*client);
                self.recorder.died(*client);
                self.start_client(*client);
            }
            Act::ReadErrors { .. }
            | Act::SyncError { .. }
            | Act::SyncLatency { .. }
            | Act::FillDisk { .. }
            | Act::MendDisk { .. } => self.disk(act),
        }
    }

    fn disk(&mut self, act: &Act) {
        match act {
            Act::ReadErrors { node, path, times } => {
                self.ill.insert(*node);
                self.recorder.read_errors();
                let op = match *path {
                    "/node/meta" => OpKind::BaseRead,
                    _ => OpKind::Read,
                };
                self.cluster.node(*node).add_fault(Fault {
                    times: *times,
                    ..Fault::once(op, *path)
                });
            }
            Act::SyncError { node } => {
                self.ill.insert(*node);
                let fault = Fault::once(OpKind::Sync, "/node");
                self.cluster.node(*node).add_fault(fault);
            }
            Act::SyncLatency { node, latency } => {
                self.cluster.node(*node).set_sync_latency(*latency);
            }
            Act::FillDisk { node, left } => {
                self.ill.insert(*node);
                self.cluster.node(*node).fill_up(*left);
            }
            Act::MendDisk { node } => {
                self.cluster.node(*node).mend_disk();
                self.ill.remove(node);
            }
            _ => {}
        }
    }

    /// A node that finds its data damaged although nothing was, has lost something.
    fn look_at_refusals(&mut self) {
        for (node, error) in self.cluster.take_refusals() {
            let unread = self.recorder.had_read_errors() && self.ill.contains(&node);
            let excused = match error.code {
                Code::Corrupt => unread,
                _ => self.ill.contains(&node),
            };
            if !excused {
                let text = format!("node {node} refuses to start: {:?} {error}", error.code);
                self.violations.push(text);
            }
        }
    }

    /// Everything works again; how long until a new client is served.
    fn heal(&mut self) -> Duration {
        let hosts = self.size.nodes + self.size.clients + 1;
        let world = &mut self.cluster.world;
        world
            .network
            .change(|weather| *weather = Default::default());
        for host in 0..hosts {
            world.pause(host, false);
            world.set_rate(host, RATE_TRUE);
        }
        for node in 0..self.size.nodes {
            let machine = self.cluster.node(node);
            machine.mend_disk();
            machine.set_wall_skew(0);
            if self.recorder.had_read_errors() {
                // A chunk that could not be read is out of use until the next start.
                self.cluster.end_node(node, Death::Killed, None);
            }
            self.cluster.start_node(node);
        }
        self.ill.clear();
        let begin = self.cluster.world.now();
        let served = Arc::new(Mutex::new(false));
        let told = served.clone();
        let probe = self.size.clients;
        self.cluster
            .start_client(probe, READER_TIMEOUT, |connector| async move {
                let client = connector.connect().await;
                let path = DfsPath::parse("/probe").unwrap();
                while client
                    .mkdir(&path, 0o755, true, &Default::default())
                    .await
                    .is_err()
                {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                *told.lock() = true;
            });
        if !self.cluster.run_until(HEALED_MAX, |_| *served.lock()) {
            self.look_at_refusals();
            self.violations
                .push(format!("not served {HEALED_MAX:?} after healing"));
        }
        self.look_at_refusals();
        self.cluster.world.now() - begin
    }

    /// Every name of every directory is read; what is read joins the histories. All is checked.
    fn read_everything(&mut self) {
        let recorder = self.recorder.clone();
        let directories = recorder.directories().len() as u32;
        let done = Arc::new(Mutex::new(false));
        let told = done.clone();
        let reader = self.size.clients;
        let read = move |connector: Connector| async move {
            let client = connector.connect().await;
            let mut worker = Worker::new(reader, client, recorder, 0);
            for directory in 0..directories {
                read_directory(&mut worker, directory).await;
            }
            for problem in converged(&worker, &connector.env).await {
                worker.recorder.violation(format!("fsck: {problem}"));
            }
            *told.lock() = true;
        };
        self.cluster.start_client(reader, READER_TIMEOUT, read);
        if !self.cluster.run_until(READING_MAX, |_| *done.lock()) {
            self.violations
                .push(format!("not all was read within {READING_MAX:?}"));
        }
        self.look_at_refusals();
    }

    fn report(mut self, schedule: &Schedule, healed_in: Duration) -> Report {
        self.violations.extend(self.cluster.take_panics());
        self.violations.extend(self.recorder.violations());
        // A node that refuses does so at every start.
        self.violations.sort();
        self.violations.dedup();
        let (mut undecided, mut unknown) = (0, 0);
        for (directory, events) in (0..).zip(self.recorder.directories()) {
            let open = |event: &&Event| event.outcome == Outcome::Unknown;
            unknown += events.iter().filter(open).count();
            match oracle::search(&events) {
                Verdict::Linearizable => {}
                Verdict::Undecided => undecided += 1,
                Verdict::Impossible { longest } => {
                    let text = oracle::report(directory, &events, &longest);
                    self.violations.push(text);
                }
            }
        }
        Report {
            seed: self.seed,
            schedule: schedule.clone(),
            violations: self.violations,
            trace: self.cluster.trace.sum(),
            simulated: self.cluster.world.now(),
            answered: self.recorder.answered(),
            slowest: self.recorder.slowest(),
            unknown,
            lives: (0..self.size.nodes)
                .map(|node| self.cluster.node(node).lives)
                .sum(),
            undecided,
            healed_in,
        }
    }
}

/// What a check still finds when there was time to repair everything.
async fn converged(worker: &Worker, env: &Env) -> Vec<String> {
    let end = env.clock.now() + CONVERGED_MAX;
    loop {
        let problems = match worker.client.fsck(&DfsPath::root(), true).await {
            Ok(report) => report.problems,
            Err(error) => vec![format!("none: {error}")],
        };
        if problems.is_empty() || env.clock.now() >= end {
            return problems;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Lists a directory, reads every name, and every version of every file.
async fn read_directory(worker: &mut Worker, directory: u32) {
    worker.ask(directory, Ask::List, Bytes::new()).await;
    for name in 0..NAMES.len() as NameId {
        worker.ask(directory, Ask::Get { name }, Bytes::new()).await;
        let path = path_in(directory, name);
        let Ok(versions) = worker.client.versions(&path, ReadLevel::Linearizable).await else {
            continue;
        };
        for view in versions {
            let version = view.attrs.version.0;
            match worker.get(&path, Some(version)).await {
                Ok(Thing::File(seen)) if seen.version == version => {}
                other => {
                    let text = format!("{path}: version {version} is read as {other:?}");
                    worker.recorder.violation(text);
                }
            }
        }
    }
}
