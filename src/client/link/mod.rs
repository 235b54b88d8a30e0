//! The ways to the nodes of the cluster: who they are, which connections are open, who leads.
//!
//! ```text
//! dial.rs   a connection to a node, or to any; made when it is needed, one dial a node at a time
//! look.rs   who leads now; asked of the other nodes while one is silent
//! peers.rs  what is known of each node        live.rs  one connection
//! told.rs   addresses kept from run to run    pulse.rs, load.rs  silence, speed
//! ```
//! # A leader that does not answer
//! A dead node's connection stays open for half a minute and says nothing. So a request that was
//! not answered for `SUSPECT_AFTER` makes us ask other nodes who leads; they are asked again and
//! again while it waits, once for all requests that wait for the same node. The request is given
//! up only for a node that says **of itself** that it leads: what nodes say of others may be old,
//! and a leader that is only slow keeps its requests.
//!
//! # Bounds
//! `PEERS_MAX` nodes known, `OPEN_MAX` connections kept.

mod dial;
mod live;
mod load;
mod look;
mod peers;
mod pulse;
mod told;

pub(crate) use live::Live;
pub(crate) use told::ToldFile;

use super::endpoints::Target;
use super::routes::Routes;
use super::wire::Dial;
use crate::env::Env;
use crate::proto::{NodeAddress, WhoAmI};
use crate::types::{GroupId, NodeId};
use parking_lot::Mutex;
use peers::Peers;
use std::net::SocketAddr;
use std::time::Duration;

#[derive(Default)]
struct State {
    peers: Peers,
    /// What a node said last; stays when connections are lost.
    hello: Option<WhoAmI>,
    routes: Routes,
    /// What is in the file, or on its way there.
    saved: Vec<NodeAddress>,
}

pub(crate) struct Link {
    env: Env,
    dialer: Box<dyn Dial>,
    /// What the user gave.
    targets: Vec<Target>,
    told: Option<ToldFile>,
    state: Mutex<State>,
    /// Held by the one task that looks for any node.
    dialling: tokio::sync::Mutex<()>,
    /// Held by the one task that asks around; whom it left out then, and when.
    looking: tokio::sync::Mutex<Option<(Option<NodeId>, Duration)>>,
}

impl Link {
    /// `told`: where nodes' addresses are kept from run to run, if anywhere.
    pub(crate) fn new(
        env: Env,
        dialer: Box<dyn Dial>,
        targets: Vec<Target>,
        told: Option<ToldFile>,
    ) -> Self {
        Link {
            env,
            dialer,
            targets,
            told,
            state: Mutex::default(),
            dialling: tokio::sync::Mutex::default(),
            looking: tokio::sync::Mutex::default(),
        }
    }

    /// Takes up the addresses that an earlier run was told.
    pub(crate) async fn recall(&self) {
        let Some(file) = self.told.clone() else {
            return;
        };
        let nodes = self.env.run_blocking(move || file.read()).await;
        let mut state = self.state.lock();
        state.peers.told(&nodes);
        state.saved = nodes;
    }

    /// What a node said last; `None` before the first connection.
    pub(crate) fn hello<T>(&self, ask: impl FnOnce(&WhoAmI) -> T) -> Option<T> {
        self.state.lock().hello.as_ref().map(ask)
    }

    /// Asks the routes.
    pub(crate) fn routes<T>(&self, ask: impl FnOnce(&mut Routes) -> T) -> T {
        ask(&mut self.state.lock().routes)
    }

    /// Where nodes are, by what a node said.
    pub(crate) fn learn_nodes(&self, nodes: &[NodeAddress]) {
        self.state.lock().peers.told(nodes);
    }

    /// The only node of the cluster, if no others are known.
    pub(crate) fn only_node(&self) -> Option<NodeId> {
        self.state.lock().peers.only()
    }

    /// Whom to ask for a shard: who leads it by what we heard, unless there was no way to it a
    /// moment ago.
    pub(crate) fn leader_in_reach(&self, shard: GroupId) -> Option<NodeId> {
        let now = self.env.clock.now();
        let state = self.state.lock();
        let leader = state.routes.leader_of(shard)?;
        state.peers.may_reach(leader, now).then_some(leader)
    }

    /// This node did not do what any can do: the next call goes to another. True if there is one
    /// at hand.
    pub(crate) fn turn_from(&self, node: NodeId) -> bool {
        let found = self.state.lock().peers.usable(Some(node));
        found.is_some()
    }

    /// Nodes that have the same thing, `bytes` of it wanted: the best to ask first. Nodes
    /// without an address are left out.
    pub(crate) fn ranked(&self, nodes: &[NodeId], bytes: u64) -> Vec<NodeId> {
        let now = self.env.clock.now();
        let state = self.state.lock();
        let known = nodes.iter().filter_map(|node| {
            let peer = state.peers.get(*node)?;
            Some(load::Candidate {
                node: *node,
                doubtful: peer.is_doubtful(now),
                seconds: peer.load.lock().seconds(bytes),
            })
        });
        load::order(known.collect())
    }

    /// The same with nothing but the order given and signs of death.
    pub(crate) fn living_first(&self, nodes: &[NodeId]) -> Vec<NodeId> {
        let now = self.env.clock.now();
        let state = self.state.lock();
        let known = nodes.iter().filter_map(|node| {
            let peer = state.peers.get(*node)?;
            Some((peer.is_doubtful(now), *node))
        });
        let mut known: Vec<_> = known.collect();
        known.sort_by_key(|(doubtful, _)| *doubtful);
        known.into_iter().map(|(_, node)| node).collect()
    }

    #[cfg(test)]
    pub(crate) fn open_connections(&self) -> usize {
        self.state.lock().peers.open_count()
    }

    fn learn(&self, hello: &WhoAmI, address: SocketAddr) {
        let now = self.env.clock.now();
        let mut state = self.state.lock();
        state.routes.learn(hello.node, &hello.routes, now);
        state.peers.answered(hello.node, address);
        state.peers.told(&hello.nodes);
        state.hello = Some(hello.clone());
    }

    /// Keeps the addresses for the next run, if they are others than those kept.
    async fn save(&self, nodes: &[NodeAddress]) {
        let Some(file) = self.told.clone() else {
            return;
        };
        let mut nodes = nodes.to_vec();
        nodes.sort();
        {
            let mut state = self.state.lock();
            if nodes.is_empty() || state.saved == nodes {
                return;
            }
            state.saved.clone_from(&nodes);
        }
        let written = self.env.run_blocking(move || file.write(&nodes)).await;
        if let Err(error) = written {
            tracing::debug!(%error, "the nodes' addresses are not kept");
        }
    }
}
