//! what goes wrong when, drawn from a seed. Played by `run`.
//!
//! Each seed takes a few kinds of trouble and repeats them: many kinds at once mostly hide each
//! other. The last trouble ends well before the end of the work.

use super::act::Act;
use super::network::HostId;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use std::time::Duration;

/// Kinds of trouble. The names stand in reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Kill,
    /// A node is not heard any more, and ends a little later: what it did meanwhile nobody knows.
    MuteKill,
    PowerCut,
    PowerCutAll,
    CutAtWrite,
    Outage,
    Pause,
    Isolate,
    /// In two halves, or the leader with some of the clients is one.
    Split,
    /// One way only, or two nodes do not hear each other and all others hear both.
    OneWay,
    Loss,
    Duplication,
    Jitter,
    Corruption,
    LargeVanish,
    WallJump,
    Drift,
    ReadErrors,
    SyncError,
    SlowDisk,
    FullDisk,
    ClientDeath,
    /// Another node joins.
    Growth,
    /// A node joins, another is drained and removed.
    Retirement,
    /// A node loses its disk, joins as a new one, and is removed as what it was.
    Wipe,
    /// Bits of files turn over, on one node only.
    Rot,
    /// Datagrams and frames that no program of ours would send.
    Garbage,
    /// After all trouble clients go on for longer than the shortest grace of chunks.
    Quiet,
}

pub const KINDS: [Kind; 28] = [
    Kind::Kill,
    Kind::MuteKill,
    Kind::PowerCut,
    Kind::PowerCutAll,
    Kind::CutAtWrite,
    Kind::Outage,
    Kind::Pause,
    Kind::Isolate,
    Kind::Split,
    Kind::OneWay,
    Kind::Loss,
    Kind::Duplication,
    Kind::Jitter,
    Kind::Corruption,
    Kind::LargeVanish,
    Kind::WallJump,
    Kind::Drift,
    Kind::ReadErrors,
    Kind::SyncError,
    Kind::SlowDisk,
    Kind::FullDisk,
    Kind::ClientDeath,
    Kind::Growth,
    Kind::Retirement,
    Kind::Wipe,
    Kind::Rot,
    Kind::Garbage,
    Kind::Quiet,
];

/// What happens in one run.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    pub kinds: Vec<Kind>,
    /// In order of time.
    pub acts: Vec<(Duration, Act)>,
}

impl Schedule {
    pub fn has(&self, kind: Kind) -> bool {
        self.kinds.contains(&kind)
    }
}

/// How large a simulation is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// At the beginning.
    pub nodes: usize,
    /// Machines that may become nodes later.
    pub spares: usize,
    pub clients: usize,
    /// Clients work for so long.
    pub work: Duration,
}

impl Size {
    /// What a seed runs with: three nodes mostly, as groups have three replicas.
    pub fn of(seed: u64) -> Size {
        let mut rng = StdRng::seed_from_u64(seed ^ 0x7369_7a65);
        Size {
            nodes: [3, 3, 3, 4, 5][rng.random_range(0..5)],
            spares: 2,
            clients: 3,
            work: Duration::from_secs(12),
        }
    }

    /// Machines that are or may become nodes; clients' machines have the numbers behind.
    pub fn machines(&self) -> usize {
        self.nodes + self.spares
    }
}

/// Draws what goes wrong in a run of this size.
pub fn draw(seed: u64, size: Size) -> Schedule {
    let mut rng = StdRng::seed_from_u64(seed ^ 0x7363_6865);
    let mut kinds = KINDS.to_vec();
    kinds.shuffle(&mut rng);
    kinds.truncate(rng.random_range(2..=5));
    if kinds
        .iter()
        .any(|kind| matches!(kind, Kind::Wipe | Kind::Rot))
    {
        // What one node has lost the others must be able to give.
        kinds.retain(|kind| *kind != Kind::ReadErrors);
    }
    let victim = rng.random_range(0..size.nodes);
    let mut drawing = Drawing {
        rng,
        size,
        acts: Vec::new(),
        joined: 0,
        retired: false,
        victim: Some(victim),
        wiped: false,
    };
    let troubles = drawing.rng.random_range(4..=12);
    let last = size.work.as_millis() as u64 * 3 / 4;
    for _ in 0..troubles {
        let kind = kinds[drawing.rng.random_range(0..kinds.len())];
        let at = Duration::from_millis(drawing.rng.random_range(200..last.max(201)));
        drawing.trouble(kind, at);
    }
    let mut acts = drawing.acts;
    acts.sort_by_key(|(at, _)| *at);
    kinds.sort_unstable();
    Schedule { kinds, acts }
}

struct Drawing {
    rng: StdRng,
    size: Size,
    acts: Vec<(Duration, Act)>,
    /// Spare machines that are in use.
    joined: usize,
    retired: bool,
    /// The only node that may lose what was synced; `None`: that one is to be removed.
    victim: Option<usize>,
    wiped: bool,
}

impl Drawing {
    fn node(&mut self) -> usize {
        self.rng.random_range(0..self.size.nodes + self.joined)
    }

    fn host(&mut self) -> HostId {
        let nodes = self.size.nodes + self.joined;
        let host = self.rng.random_range(0..nodes + self.size.clients);
        match host < nodes {
            true => host,
            false => host - nodes + self.size.machines(),
        }
    }

    fn hosts(&self) -> usize {
        self.size.machines() + self.size.clients
    }

    fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.rng.random_range(from..=to))
    }

    /// How long a trouble lasts: mostly short, now and then longer than any timer here.
    fn lasting(&mut self) -> Duration {
        match self.rng.random_range(0..10) {
            0..5 => self.millis(20, 500),
            5..9 => self.millis(500, 4_000),
            _ => self.millis(4_000, 12_000),
        }
    }

    fn act(&mut self, at: Duration, act: Act) {
        self.acts.push((at, act));
    }

    /// An act and what undoes it.
    fn both(&mut self, at: Duration, act: Act, undo: Act) {
        let lasting = self.lasting();
        self.act(at, act);
        self.act(at + lasting, undo);
    }

    fn trouble(&mut self, kind: Kind, at: Duration) {
        match kind {
            Kind::Kill | Kind::PowerCut | Kind::Outage | Kind::PowerCutAll => self.end(kind, at),
            Kind::MuteKill => {
                let (node, hosts) = (self.node(), self.hosts());
                let others = (0..hosts).filter(|host| *host != node).collect();
                let mute = self.millis(1, 80);
                // Now and then for longer than clients wait.
                let down = match self.rng.random_range(0..3) {
                    0 => self.millis(2_000, 8_000),
                    _ => self.millis(1, 1_500),
                };
                let power = self.rng.random();
                let cut = Act::Cut {
                    from: vec![node],
                    to: others,
                };
                self.act(at, cut);
                self.act(at + mute, Act::End { node, power, down });
                self.act(at + mute, Act::Mend);
            }
            Kind::Isolate | Kind::Split | Kind::OneWay => self.cut(kind, at),
            Kind::ReadErrors | Kind::SyncError | Kind::SlowDisk | Kind::FullDisk => {
                self.disk(kind, at);
            }
            Kind::CutAtWrite => {
                let act = Act::CutAtWrite {
                    node: self.node(),
                    writes: self.rng.random_range(1..60),
                };
                self.act(at, act);
            }
            Kind::Pause => {
                let host = self.host();
                let pause = |on| Act::Pause { host, on };
                self.both(at, pause(true), pause(false));
            }
            Kind::Loss => {
                let loss = self.rng.random_range(50..=300);
                self.both(at, Act::Loss(loss), Act::Loss(0));
            }
            Kind::Duplication => {
                let often = self.rng.random_range(20..=300);
                self.both(at, Act::Duplication(often), Act::Duplication(0));
            }
            Kind::Corruption => {
                let often = self.rng.random_range(5..=100);
                self.both(at, Act::Corruption(often), Act::Corruption(0));
            }
            Kind::Jitter => {
                let jitter = self.millis(2, 80);
                self.both(at, Act::Jitter(jitter), Act::Jitter(Duration::ZERO));
            }
            Kind::LargeVanish => {
                let largest = self.rng.random_range(1_200..2_000);
                self.both(at, Act::Largest(Some(largest)), Act::Largest(None));
            }
            Kind::WallJump => {
                let node = self.node();
                let hour = 3_600_000;
                let ms = match self.rng.random_range(0..4) {
                    0 => hour,
                    1 => -hour,
                    2 => 10 * 365 * 24 * hour,
                    _ => self.rng.random_range(-5_000..5_000),
                };
                let jump = |ms| Act::WallSkew { node, ms };
                self.both(at, jump(ms), jump(0));
            }
            Kind::Drift => {
                let host = self.host();
                let rate = self.rng.random_range(800..=1_200);
                self.both(
                    at,
                    Act::Rate { host, rate },
                    Act::Rate { host, rate: 1_000 },
                );
            }
            Kind::ClientDeath => {
                let client = self.rng.random_range(0..self.size.clients);
                self.act(at, Act::ClientDeath { client });
            }
            Kind::Growth | Kind::Retirement | Kind::Wipe | Kind::Rot => self.members(kind, at),
            Kind::Garbage => {
                let act = Act::Garbage {
                    node: self.node(),
                    count: self.rng.random_range(1..200),
                };
                self.act(at, act);
            }
            // Its time is after the others'.
            Kind::Quiet => {}
        }
    }

    /// Nodes that come and go, or lose what they had.
    fn members(&mut self, kind: Kind, at: Duration) {
        match kind {
            Kind::Growth | Kind::Retirement if self.joined < self.size.spares => {
                let node = self.size.nodes + self.joined;
                self.joined += 1;
                self.act(at, Act::Join { node });
                if kind == Kind::Retirement && !self.retired {
                    self.retired = true;
                    let node = self.rng.random_range(0..self.size.nodes);
                    self.victim = self.victim.filter(|victim| *victim != node || self.wiped);
                    let later = self.millis(0, 4_000);
                    self.act(at + later, Act::Retire { node });
                }
            }
            Kind::Wipe if !self.wiped => {
                let Some(node) = self.victim else {
                    return;
                };
                self.wiped = true;
                let down = self.millis(1, 4_000);
                self.act(at, Act::Wipe { node, down });
            }
            Kind::Rot => {
                let Some(node) = self.victim else {
                    return;
                };
                let path = ["/node/log", "/node/packs", "/node/chunks"];
                let path = path[self.rng.random_range(0..3)];
                let bits = self.rng.random_range(1..6);
                let dies = path == "/node/log" || self.rng.random();
                let down = self.millis(1, 1_500);
                let down = dies.then_some(down);
                let rot = Act::Rot {
                    node,
                    path,
                    bits,
                    down,
                };
                self.act(at, rot);
            }
            _ => {}
        }
    }

    fn end(&mut self, kind: Kind, at: Duration) {
        let down = match kind {
            Kind::Outage => self.millis(5_000, 40_000),
            _ => self.millis(1, 1_500),
        };
        let all = kind == Kind::PowerCutAll;
        let chosen = self.node();
        for node in (0..self.size.nodes).filter(|node| all || *node == chosen) {
            let power = kind != Kind::Kill;
            self.act(at, Act::End { node, power, down });
        }
    }

    fn cut(&mut self, kind: Kind, at: Duration) {
        if kind == Kind::Split && self.rng.random() {
            return self.cut_leader(at);
        }
        if kind == Kind::OneWay && self.rng.random_ratio(1, 3) {
            return self.cut_pair(at);
        }
        let hosts = self.hosts();
        let one = self.host();
        let mut sides: (Vec<_>, Vec<_>) = (0..hosts).partition(|host| match kind {
            Kind::Isolate => *host == one,
            _ => *host == one || self.rng.random(),
        });
        if kind == Kind::OneWay && self.rng.random() {
            sides = (sides.1, sides.0);
        }
        let (from, to) = sides;
        if kind != Kind::OneWay {
            let back = Act::Cut {
                from: to.clone(),
                to: from.clone(),
            };
            self.act(at, back);
        }
        self.both(at, Act::Cut { from, to }, Act::Mend);
    }

    /// Longer than an election takes: both sides have somebody who leads, or led.
    fn cut_leader(&mut self, at: Duration) {
        let all = self.size.machines()..self.hosts();
        let clients = all.filter(|_| self.rng.random()).collect();
        let lasting = self.millis(300, 5_000);
        self.act(at, Act::CutLeader { clients });
        self.act(at + lasting, Act::Mend);
    }

    fn cut_pair(&mut self, at: Duration) {
        let (one, other) = (self.node(), self.node());
        let cut = |from, to| Act::Cut {
            from: vec![from],
            to: vec![to],
        };
        self.act(at, cut(one, other));
        self.both(at, cut(other, one), Act::Mend);
    }

    fn disk(&mut self, kind: Kind, at: Duration) {
        let node = self.node();
        let act = match kind {
            Kind::ReadErrors => Act::ReadErrors {
                node,
                path: ["/node/log", "/node/packs", "/node/chunks", "/node/meta"]
                    [self.rng.random_range(0..4)],
                times: self.rng.random_range(1..10),
            },
            Kind::SyncError => Act::SyncError { node },
            Kind::FullDisk => Act::FillDisk {
                node,
                left: self.rng.random_range(0..300_000),
            },
            _ => Act::SyncLatency {
                node,
                latency: self.millis(1, 300),
            },
        };
        self.both(at, act, Act::MendDisk { node });
    }
}
