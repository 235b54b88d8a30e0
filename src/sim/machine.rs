//! One simulated machine: a disk that outlives processes, a wall clock that may be wrong, and
//! numbered process lives. Made and driven by `cluster`.

use super::network::HostId;
use super::world::World;
use crate::env::sim::{self, Fault, SimDisk, SimHandles};
use crate::env::{Clock, Env};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// Size of a disk. Below this much a node fills no reserve (256 MiB of pages that every crash
/// would copy), above it a node takes new data.
const DISK_BYTES: u64 = 1_400 << 20;

/// How a life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// The process ends; the disk has all that was written.
    Killed,
    /// The machine does; what was not synced is lost.
    PowerCut,
}

/// A machine.
pub struct Machine {
    pub host: HostId,
    seed: u64,
    /// Processes started so far.
    pub lives: u64,
    pub disk: SimDisk,
    /// By how much the wall clock is wrong.
    wall_skew_ms: i64,
    /// How long a sync takes now, and when nothing is wrong.
    sync_latency: Duration,
    sync_latency_usual: Duration,
    life: Option<Life>,
}

/// One process.
struct Life {
    handles: SimHandles,
    /// What the wall clock is ahead of its own origin by, if it is right.
    origin_ms: i64,
    /// Why the process ended by itself.
    ended: Ended,
}

/// Where a process leaves why it ends.
#[derive(Clone, Default)]
pub struct Ended(Arc<Mutex<Option<String>>>);

impl Ended {
    pub fn why(&self) -> Option<String> {
        self.0.lock().clone()
    }

    /// The process ends: nothing more is written or sent; the world takes its tasks apart when
    /// the step is over.
    fn end(&self, why: &str, handles: &SimHandles) {
        if handles.disk.is_crashed() {
            // Without power there is nobody who could end.
            return;
        }
        self.0.lock().get_or_insert_with(|| why.to_owned());
        handles.disk.power_off();
    }
}

/// What a process is started with.
pub struct Birth {
    pub env: Env,
    pub handles: SimHandles,
    ended: Ended,
}

impl Birth {
    /// What ends the process, with why.
    pub fn on_end(&self) -> Arc<dyn Fn(&str) + Send + Sync> {
        let (ended, handles) = (self.ended.clone(), self.handles.clone());
        Arc::new(move |why| ended.end(why, &handles))
    }
}

impl Machine {
    /// `sync_latency`: how long a sync takes when nothing is wrong. It should take some time: what
    /// is told before it is done can be told then, and lost.
    pub fn new(host: HostId, seed: u64, sync_latency: Duration) -> Machine {
        let mut machine = Machine {
            host,
            seed,
            lives: 0,
            disk: SimDisk::new(seed),
            wall_skew_ms: 0,
            sync_latency,
            sync_latency_usual: sync_latency,
            life: None,
        };
        machine.wipe();
        machine
    }

    /// An empty disk.
    pub fn wipe(&mut self) {
        self.disk = SimDisk::new(self.seed.wrapping_add(self.lives));
        self.disk.set_limit(Some(DISK_BYTES));
    }

    pub fn is_alive(&self) -> bool {
        self.life.is_some()
    }

    /// Starts a process.
    pub fn boot<F>(&mut self, world: &mut World, software: impl FnOnce(Birth) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.lives += 1;
        let seed = self.seed.wrapping_mul(1_000_003).wrapping_add(self.lives);
        self.disk.set_sync_latency(self.sync_latency);
        let disk = self.disk.clone();
        let ended = Ended::default();
        let theirs = ended.clone();
        let mut born = None;
        world.start(self.host, || {
            let (env, handles) = sim::env_on(seed, disk);
            born = Some(handles.clone());
            software(Birth {
                env,
                handles,
                ended: theirs,
            })
        });
        self.life = Some(Life {
            handles: born.expect("the world calls what it starts"),
            origin_ms: millis(world.now()),
            ended,
        });
        self.set_wall_skew(self.wall_skew_ms);
    }

    /// Ends the process.
    pub fn end(&mut self, world: &mut World, death: Death) {
        // Nothing of it is written or sent while its tasks are taken apart.
        self.disk.power_off();
        world.kill(self.host);
        self.life = None;
        self.disk = match death {
            Death::Killed => self.disk.kill(),
            Death::PowerCut => self.disk.crash(),
        };
    }

    /// What ended the process during the last step, if something did.
    pub fn died(&self) -> Option<(Death, String)> {
        let life = self.life.as_ref()?;
        if let Some(why) = life.ended.why() {
            return Some((Death::Killed, why));
        }
        (self.disk.is_crashed()).then(|| (Death::PowerCut, "the power went".to_owned()))
    }

    /// The wall clock is wrong by so much from now on, in later lives too.
    pub fn set_wall_skew(&mut self, skew_ms: i64) {
        self.wall_skew_ms = skew_ms;
        if let Some(life) = &self.life {
            life.handles
                .clock
                .skew_wall(life.origin_ms.saturating_add(skew_ms));
        }
    }

    /// How long a sync takes from now on, in later lives too.
    pub fn set_sync_latency(&mut self, latency: Duration) {
        self.sync_latency = latency;
        self.disk.set_sync_latency(latency);
    }

    /// The power goes at the `writes`th change of the disk from now.
    pub fn cut_at(&self, writes: u64) {
        self.disk.crash_at(self.disk.mutations() + writes);
    }

    pub fn add_fault(&self, fault: Fault) {
        self.disk.add_fault(fault);
    }

    /// The disk has no more than so many bytes left.
    pub fn fill_up(&self, left: u64) {
        let used = DISK_BYTES.saturating_sub(self.disk.available());
        self.disk.set_limit(Some(used.saturating_add(left)));
    }

    /// The disk works, is as fast as usual and has space.
    pub fn mend_disk(&mut self) {
        self.disk.clear_faults();
        self.disk.set_limit(Some(DISK_BYTES));
        self.set_sync_latency(self.sync_latency_usual);
    }
}

/// What every wall clock shows at the beginning.
pub fn wall_at_start() -> crate::types::WallTime {
    sim::SimClock::manual().wall()
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
