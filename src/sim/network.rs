//! The simulated network: datagrams in flight, and what happens to them on the way. Fed by
//! `socket`, moved on by `world`, worsened by the schedule.
//!
//! Everything is drawn from one generator in the order of sending, so a seed decides it.

use super::trace::Trace;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

/// Datagrams a socket keeps for its process; more are lost, as with a full socket buffer.
const INBOX_MAX: usize = 2_048;

/// A machine's number; its address is made from it.
pub type HostId = usize;

/// What is wrong with the network. The default: nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Weather {
    /// Thousandths of all datagrams that are lost.
    pub loss: u32,
    /// That come twice.
    pub duplication: u32,
    /// That have one byte changed.
    pub corruption: u32,
    /// Added to the latency, drawn anew for each datagram: so they overtake each other.
    pub jitter: Duration,
    /// Larger datagrams vanish; `None`: none do.
    pub largest: Option<usize>,
    /// Nothing goes from the first to the second.
    pub cuts: BTreeSet<(HostId, HostId)>,
}

/// A datagram on its way.
struct Datagram {
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
}

#[derive(Default)]
struct Inbox {
    arrived: VecDeque<(SocketAddr, Vec<u8>)>,
    waker: Option<Waker>,
}

struct State {
    now: Duration,
    /// Of every link, one way.
    latency: Duration,
    rng: StdRng,
    weather: Weather,
    /// By arrival, then by the order of sending.
    flying: BTreeMap<(Duration, u64), Datagram>,
    sent: u64,
    inboxes: BTreeMap<SocketAddr, Inbox>,
    trace: Trace,
}

/// The network. Clones are the same.
#[derive(Clone)]
pub struct Network(Arc<Mutex<State>>);

impl Network {
    /// `latency`: of every link, one way.
    pub fn new(seed: u64, latency: Duration, trace: Trace) -> Network {
        Network(Arc::new(Mutex::new(State {
            now: Duration::ZERO,
            latency,
            rng: StdRng::seed_from_u64(seed),
            weather: Weather::default(),
            flying: BTreeMap::new(),
            sent: 0,
            inboxes: BTreeMap::new(),
            trace,
        })))
    }

    /// True time, as of the last step.
    pub fn now(&self) -> Duration {
        self.0.lock().now
    }

    /// Changes the weather.
    pub fn change(&self, change: impl FnOnce(&mut Weather)) {
        change(&mut self.0.lock().weather);
    }

    /// Makes a socket; one that was there is gone with what it held.
    pub fn bind(&self, at: SocketAddr) {
        self.0.lock().inboxes.insert(at, Inbox::default());
    }

    /// The sockets of a host are gone: their process has ended.
    pub fn unbind(&self, host: HostId) {
        let gone = |at: &SocketAddr| host_of(at) == host;
        self.0.lock().inboxes.retain(|at, _| !gone(at));
    }

    /// A datagram leaves.
    pub fn send(&self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        self.0.lock().send(from, to, bytes);
    }

    /// Takes what arrived at a socket, or leaves the waker to be called when something does.
    pub fn receive(&self, at: SocketAddr, waker: &Waker) -> Option<(SocketAddr, Vec<u8>)> {
        let mut state = self.0.lock();
        let inbox = state.inboxes.get_mut(&at)?;
        let first = inbox.arrived.pop_front();
        if first.is_none() {
            inbox.waker = Some(waker.clone());
        }
        first
    }

    /// It is `now`: hands over what has arrived by then.
    pub fn deliver(&self, now: Duration) {
        let mut wakers = Vec::new();
        {
            let mut state = self.0.lock();
            state.now = now;
            while let Some(first) = state.flying.first_entry() {
                if first.key().0 > now {
                    break;
                }
                let datagram = first.remove();
                wakers.extend(state.arrive(datagram));
            }
        }
        for waker in wakers {
            waker.wake();
        }
    }
}

impl State {
    fn send(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        self.trace.datagram("sent", self.now, from, to, bytes.len());
        let link = (host_of(&from), host_of(&to));
        let cut = self.weather.cuts.contains(&link);
        let large = self.weather.largest.is_some_and(|max| bytes.len() > max);
        // Drawn in any case: a cut must not shift what happens to others.
        let lost = self.rng.random_range(0..1_000) < self.weather.loss;
        if cut || large || lost {
            return;
        }
        let copies = 1 + u32::from(self.rng.random_range(0..1_000) < self.weather.duplication);
        for _ in 0..copies {
            let mut bytes = bytes.to_vec();
            if self.rng.random_range(0..1_000) < self.weather.corruption && !bytes.is_empty() {
                let at = self.rng.random_range(0..bytes.len());
                bytes[at] ^= 1 << self.rng.random_range(0..8);
            }
            let jitter = self.weather.jitter.as_micros() as u64;
            let late = Duration::from_micros(self.rng.random_range(0..=jitter));
            self.sent += 1;
            let key = (self.now + self.latency + late, self.sent);
            self.flying.insert(key, Datagram { from, to, bytes });
        }
    }

    fn arrive(&mut self, datagram: Datagram) -> Option<Waker> {
        let Datagram { from, to, bytes } = datagram;
        // A cut also takes what is on its way.
        let link = (host_of(&from), host_of(&to));
        if self.weather.cuts.contains(&link) {
            return None;
        }
        let inbox = self.inboxes.get_mut(&to)?;
        if inbox.arrived.len() >= INBOX_MAX {
            return None;
        }
        self.trace.datagram("came", self.now, from, to, bytes.len());
        inbox.arrived.push_back((from, bytes));
        inbox.waker.take()
    }
}

/// Where a host's sockets are.
pub fn address_of(host: HostId, port: u16) -> SocketAddr {
    let host = u8::try_from(host + 1).expect("a simulation has fewer than 255 hosts");
    SocketAddr::from(([10, 0, 0, host], port))
}

fn host_of(address: &SocketAddr) -> HostId {
    match address.ip() {
        std::net::IpAddr::V4(ip) => usize::from(ip.octets()[3]).wrapping_sub(1),
        std::net::IpAddr::V6(_) => usize::MAX,
    }
}
