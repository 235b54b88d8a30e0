//! what goes wrong when, drawn from a seed. Played by `run`.
//!
//! Each seed takes a few kinds of trouble and repeats them: many kinds at once mostly hide each
//! other. The last trouble ends well before the end of the work.

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
    Split,
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
}

pub const KINDS: [Kind; 22] = [
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
];

/// One thing done to the cluster.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// A node's process ends, with its machine if `power`; it starts again after `down`.
    End {
        node: usize,
        power: bool,
        down: Duration,
    },
    /// The power goes at the so-manieth change of the disk from now.
    CutAtWrite {
        node: usize,
        writes: u64,
    },
    Pause {
        host: HostId,
        on: bool,
    },
    /// Nothing goes from any of the first to any of the others.
    Cut {
        from: Vec<HostId>,
        to: Vec<HostId>,
    },
    /// All cuts are over.
    Join,
    Loss(u32),
    Duplication(u32),
    Corruption(u32),
    Jitter(Duration),
    Largest(Option<usize>),
    WallSkew {
        node: usize,
        ms: i64,
    },
    Rate {
        host: HostId,
        rate: u32,
    },
    /// So many reads fail, on paths with this in them.
    ReadErrors {
        node: usize,
        path: &'static str,
        times: u64,
    },
    /// The next sync fails once.
    SyncError {
        node: usize,
    },
    SyncLatency {
        node: usize,
        latency: Duration,
    },
    FillDisk {
        node: usize,
        left: u64,
    },
    MendDisk {
        node: usize,
    },
    ClientDeath {
        client: usize,
    },
}

/// What happens in one run.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    pub kinds: Vec<Kind>,
    /// In order of time.
    pub acts: Vec<(Duration, Act)>,
}

/// How large a simulation is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub nodes: usize,
    pub clients: usize,
    /// Clients work for so long.
    pub work: Duration,
}

/// Draws what goes wrong in a run of this size.
pub fn draw(seed: u64, size: Size) -> Schedule {
    let mut rng = StdRng::seed_from_u64(seed ^ 0x7363_6865);
    let mut kinds = KINDS.to_vec();
    kinds.shuffle(&mut rng);
    kinds.truncate(rng.random_range(2..=5));
    let mut drawing = Drawing {
        rng,
        size,
        acts: Vec::new(),
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
}

impl Drawing {
    fn node(&mut self) -> usize {
        self.rng.random_range(0..self.size.nodes)
    }

    fn host(&mut self) -> HostId {
        self.rng
            .random_range(0..self.size.nodes + self.size.clients)
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
                let (node, hosts) = (self.node(), self.size.nodes + self.size.clients);
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
                self.act(at + mute, Act::Join);
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
        let hosts = self.size.nodes + self.size.clients;
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
        self.both(at, Act::Cut { from, to }, Act::Join);
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
