//! Does what a schedule says to the cluster. Called by `run`.

use super::act::Act;
use super::machine::Death;
use super::network::HostId;
use super::operator::Job;
use super::run::Run;
use super::stranger;
use crate::env::sim::{Fault, OpKind};
use rand::Rng;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

impl Run {
    pub fn act(&mut self, act: &Act) {
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
            Act::CutLeader { clients } => self.cut_leader(clients),
            Act::Mend => network.change(|weather| weather.cuts.clear()),
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
            Act::Join { .. } | Act::Retire { .. } | Act::Wipe { .. } => self.members(act),
            Act::Rot {
                node,
                path,
                bits,
                down,
            } => self.rot(*node, path, *bits, *down),
            Act::Garbage { node, count } => self.garbage(*node, *count),
        }
    }

    fn cut_leader(&mut self, clients: &[HostId]) {
        let used = self.cluster.used();
        let leader = used.into_iter().find(|node| self.cluster.leads(*node));
        let Some(leader) = leader else {
            return;
        };
        let own = self.cluster.host_of(leader);
        let inside: BTreeSet<HostId> = clients.iter().copied().chain([own]).collect();
        let hosts = 0..self.hosts.size.machines() + self.hosts.size.clients;
        let outside: Vec<HostId> = hosts.filter(|host| !inside.contains(host)).collect();
        self.cluster.world.network.change(|weather| {
            for one in &inside {
                let others = outside.iter();
                weather
                    .cuts
                    .extend(others.flat_map(|other| [(*one, *other), (*other, *one)]));
            }
        });
    }

    fn disk(&mut self, act: &Act) {
        match act {
            Act::ReadErrors { node, path, times } => {
                self.ill.insert(*node);
                self.recorder.damaged();
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

    /// Nodes that come and go.
    fn members(&mut self, act: &Act) {
        match act {
            Act::Join { node } => {
                self.cluster.set_used(*node, true);
                self.cluster.start_node(*node);
            }
            Act::Retire { node } => {
                if let Some(id) = self.cluster.id_of(*node) {
                    self.leaving.insert(*node, id);
                    self.operator.ask(Job::Retire(id));
                }
            }
            Act::Wipe { node, down } => self.wipe(*node, *down),
            _ => {}
        }
    }

    /// A node has lost its disk: it joins as a new one, and the operator removes the old.
    pub fn wipe(&mut self, node: usize, down: Duration) {
        let id = self.cluster.id_of(node);
        self.cluster.wipe(node, down);
        if let Some(id) = id {
            self.operator.ask(Job::Remove(id));
        }
    }

    /// Bits turn over that are not zero: most of a preallocated file is nothing yet.
    fn rot(&mut self, node: usize, path: &str, bits: usize, down: Option<Duration>) {
        if !self.cluster.is_made(node) {
            return;
        }
        if down.is_some() {
            self.cluster.end_node(node, Death::Killed, down);
        }
        self.rotten.insert(node);
        self.recorder.damaged();
        let disk = self.cluster.node(node).disk.clone();
        let below = |(file, _): &(PathBuf, u64)| file.starts_with(path);
        let files: Vec<_> = disk.files().into_iter().filter(below).collect();
        for _ in 0..bits {
            if files.is_empty() {
                return;
            }
            let (file, _) = &files[self.rng.random_range(0..files.len())];
            let bytes = disk.contents(file).unwrap_or_default();
            let used = bytes.iter().filter(|byte| **byte != 0).count();
            if used == 0 {
                continue;
            }
            let nth = self.rng.random_range(0..used);
            let mut places = (0..bytes.len()).filter(|at| bytes[*at] != 0);
            let at = places.nth(nth).expect("it was counted");
            disk.flip_bit(file, at as u64, self.rng.random_range(0..8));
            let now = self.cluster.world.now();
            let what = format_args!("a bit turns over: node {node} {} {at}", file.display());
            self.cluster.trace.note(now, what);
        }
    }

    fn garbage(&mut self, node: usize, count: usize) {
        let network = self.cluster.world.network.clone();
        let (from, to) = (self.hosts.stranger(), self.cluster.host_of(node));
        stranger::datagrams(&network, from, to, count, &mut self.rng);
        let seed = self.rng.random();
        let work = move |connector| stranger::frames(connector, to, count, seed);
        let client = self.hosts.stranger_client();
        self.cluster.end_client(client);
        self.cluster
            .start_client(client, Duration::from_secs(5), work);
    }
}
