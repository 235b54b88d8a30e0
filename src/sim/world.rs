//! Hosts and time: each host is a tokio runtime of its own with paused time, and one loop moves
//! all of them a millisecond at a time. Called by `cluster`.
//!
//! Nothing leaves a host and reaches another within one step (the network's latency sees to
//! that), so the order in which hosts are stepped decides nothing. As each has its own time, a
//! host's clock and timers can run fast or slow together, and one that is paused does not run at
//! all and finds that time has passed when it goes on, as a stopped process does.

use super::network::{HostId, Network};
use super::panics::Watch;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

/// How far all hosts move at once.
pub const STEP: Duration = Duration::from_millis(1);
/// A host's time runs by so many thousandths of the world's.
pub const RATE_TRUE: u32 = 1_000;

/// All hosts.
pub struct World {
    /// Tells of panics in what runs here.
    _watch: Watch,
    pub network: Network,
    now: Duration,
    hosts: Vec<Host>,
}

struct Host {
    /// The running process, if there is one.
    runtime: Option<Runtime>,
    paused: bool,
    rate: u32,
    /// Thousandths of a millisecond by which the host's time is behind.
    owed: u64,
}

impl World {
    pub fn new(network: Network, hosts: usize) -> World {
        let host = |_| Host {
            runtime: None,
            paused: false,
            rate: RATE_TRUE,
            owed: 0,
        };
        World {
            _watch: Watch::begin(),
            network,
            now: Duration::ZERO,
            hosts: (0..hosts).map(host).collect(),
        }
    }

    /// True time since the simulation began.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// Starts a process on a host: `software` makes its main task, in the context of the runtime
    /// that it will run on. What ran there before has ended.
    #[allow(clippy::disallowed_methods)] // The main task belongs to nobody.
    pub fn start<F>(&mut self, host: HostId, software: impl FnOnce() -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.kill(host);
        let mut builder = Builder::new_current_thread();
        builder.enable_time().start_paused(true);
        let runtime = builder
            .build()
            .expect("a runtime without I/O asks nothing of the system");
        {
            let _context = runtime.enter();
            tokio::spawn(software());
        }
        self.hosts[host].runtime = Some(runtime);
        self.hosts[host].owed = 0;
    }

    /// Does something in the context of the process on a host, if one runs.
    pub fn within(&self, host: HostId, work: impl FnOnce()) {
        if let Some(runtime) = &self.hosts[host].runtime {
            let _context = runtime.enter();
            work();
        }
    }

    /// The process on a host ends where it is; nothing of it runs or sends any more.
    pub fn kill(&mut self, host: HostId) {
        self.network.unbind(host);
        self.hosts[host].paused = false;
        drop(self.hosts[host].runtime.take());
    }

    pub fn is_running(&self, host: HostId) -> bool {
        self.hosts[host].runtime.is_some()
    }

    /// Stops a process as SIGSTOP does, or lets it go on: its time has passed meanwhile.
    pub fn pause(&mut self, host: HostId, paused: bool) {
        self.hosts[host].paused = paused && self.is_running(host);
    }

    /// A host's clocks and timers run by so many thousandths of true time from now on.
    pub fn set_rate(&mut self, host: HostId, rate: u32) {
        self.hosts[host].rate = rate;
    }

    /// Moves everything by [`STEP`]; what panicked, and where.
    pub fn step(&mut self) -> Vec<(HostId, String)> {
        self.now += STEP;
        self.network.deliver(self.now);
        let mut panics = Vec::new();
        for (number, host) in self.hosts.iter_mut().enumerate() {
            host.step();
            panics.extend(Watch::take().into_iter().map(|text| (number, text)));
        }
        panics
    }
}

impl Host {
    fn step(&mut self) {
        self.owed += u64::from(self.rate);
        let Some(runtime) = &self.runtime else {
            self.owed = 0;
            return;
        };
        let millis = self.owed / u64::from(RATE_TRUE);
        if self.paused || millis == 0 {
            return;
        }
        self.owed %= u64::from(RATE_TRUE);
        let (jump, run) = match millis {
            // Two at once are the rate's; more are a pause that ended.
            0..=2 => (0, millis),
            _ => (millis - 1, 1),
        };
        runtime.block_on(async {
            if jump > 0 {
                // Everything that was due meanwhile is due now, at once.
                tokio::time::advance(Duration::from_millis(jump)).await;
            }
            tokio::time::sleep(Duration::from_millis(run)).await;
        });
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for host in 0..self.hosts.len() {
            self.kill(host);
        }
    }
}
