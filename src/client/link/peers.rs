//! What is known of each node: addresses, its connection, how dialling it went. No I/O.

use super::live::Live;
use super::load::Load;
use crate::client::endpoints::Target;
use crate::error::Error;
use crate::proto::NodeAddress;
use crate::types::NodeId;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Nodes known at most: those told with greetings, and owners of chunks.
const PEERS_MAX: usize = 4_096;
/// Connections kept: each costs its end some tens of KiB. Only those in use go beyond it.
pub(super) const OPEN_MAX: usize = 64;
/// A node that could not be reached is not dialled again for this long.
const DIAL_AGAIN: Duration = Duration::from_millis(500);

/// For this long it is asked last where others have the same.
const DOUBTED_FOR: Duration = Duration::from_secs(10);

pub(super) struct Peer {
    /// Where the cluster says it is.
    pub(super) told: Option<Target>,
    /// Where it answered last.
    pub(super) via: Option<SocketAddr>,
    live: Option<Arc<Live>>,
    /// When it could not be reached last, and why.
    pub(super) failed: Option<(Duration, Error)>,
    /// Held by the one task that dials it.
    pub(super) turn: Arc<tokio::sync::Mutex<()>>,
    /// Outlives its connections.
    pub(super) load: Arc<Mutex<Load>>,
}

impl Peer {
    fn new() -> Peer {
        Peer {
            told: None,
            via: None,
            live: None,
            failed: None,
            turn: Arc::default(),
            load: Arc::new(Mutex::new(Load::new())),
        }
    }

    pub(super) fn live(&self) -> Option<&Arc<Live>> {
        self.live.as_ref().filter(|live| !live.is_closed())
    }

    /// Why it was not to be reached, if that was a moment ago.
    pub(super) fn failed_lately(&self, now: Duration) -> Option<&Error> {
        let (at, error) = self.failed.as_ref()?;
        (now.saturating_sub(*at) < DIAL_AGAIN).then_some(error)
    }

    /// It seems to be dead: it says nothing, or could not be reached the last time.
    pub(super) fn is_doubtful(&self, now: Duration) -> bool {
        let failed = |(at, _): &(Duration, Error)| now.saturating_sub(*at) < DOUBTED_FOR;
        match self.live() {
            Some(live) => live.is_silent(),
            None => self.failed.as_ref().is_some_and(failed),
        }
    }
}

/// All nodes we know.
#[derive(Default)]
pub(super) struct Peers {
    peers: BTreeMap<NodeId, Peer>,
    /// Who was asked last where anybody could have been.
    favourite: Option<NodeId>,
    /// Who was asked around last.
    rotated: Option<NodeId>,
}

impl Peers {
    pub(super) fn get(&self, node: NodeId) -> Option<&Peer> {
        self.peers.get(&node)
    }

    /// Takes addresses that a node told; malformed ones are left out.
    pub(super) fn told(&mut self, nodes: &[NodeAddress]) {
        for one in nodes {
            if let Ok(target) = Target::parse(&one.address)
                && let Some(peer) = self.entry(one.node)
            {
                peer.told = Some(target);
            }
        }
    }

    /// A node answered at an address, where none else does then.
    pub(super) fn answered(&mut self, node: NodeId, address: SocketAddr) {
        for peer in self.peers.values_mut() {
            if peer.via == Some(address) {
                peer.via = None;
            }
        }
        if let Some(peer) = self.entry(node) {
            peer.via = Some(address);
        }
    }

    /// `None` where too many are known and all are connected.
    fn entry(&mut self, node: NodeId) -> Option<&mut Peer> {
        if self.peers.len() >= PEERS_MAX && !self.peers.contains_key(&node) {
            let idle = self.peers.iter().find(|(_, peer)| peer.live().is_none());
            let idle = idle.map(|(node, _)| *node)?;
            self.peers.remove(&idle);
        }
        Some(self.peers.entry(node).or_insert_with(Peer::new))
    }

    pub(super) fn load_of(&mut self, node: NodeId) -> Arc<Mutex<Load>> {
        match self.entry(node) {
            Some(peer) => Arc::clone(&peer.load),
            None => Arc::new(Mutex::new(Load::new())),
        }
    }

    pub(super) fn only(&self) -> Option<NodeId> {
        let mut nodes = self.peers.keys();
        match (nodes.next(), nodes.next()) {
            (Some(only), None) => Some(*only),
            _ => None,
        }
    }

    pub(super) fn live_of(&self, node: NodeId) -> Option<Arc<Live>> {
        self.peers.get(&node)?.live().cloned()
    }

    /// Keeps a new connection; one that was there before stays if it works.
    pub(super) fn adopt(&mut self, live: Arc<Live>) -> Arc<Live> {
        while self.open_count() >= OPEN_MAX && self.close_one() {}
        let Some(peer) = self.entry(live.node) else {
            return live;
        };
        peer.failed = None;
        match peer.live() {
            Some(before) if !before.is_silent() => Arc::clone(before),
            _ => {
                peer.live = Some(Arc::clone(&live));
                live
            }
        }
    }

    pub(super) fn open_count(&self) -> usize {
        let peers = self.peers.values();
        peers.filter(|peer| peer.live().is_some()).count()
    }

    /// Lets go of the connection that was not used for the longest time. `false`: all are in use.
    fn close_one(&mut self) -> bool {
        let idle = self.peers.values_mut().filter(|peer| {
            let held = peer.live.as_ref();
            held.is_some_and(|live| Arc::strong_count(live) == 1)
        });
        let used = |peer: &&mut Peer| peer.live.as_ref().map(|live| *live.used.lock());
        let oldest = idle.min_by_key(used);
        oldest.and_then(|peer| peer.live.take()).is_some()
    }

    pub(super) fn failed(&mut self, node: NodeId, now: Duration, error: Error) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.failed = Some((now, error));
        }
    }

    pub(super) fn may_reach(&self, node: NodeId, now: Duration) -> bool {
        self.peers
            .get(&node)
            .is_some_and(|peer| peer.live().is_some() || peer.failed_lately(now).is_none())
    }

    /// A connected node that is not silent, the same as the last time if possible.
    pub(super) fn usable(&mut self, but: Option<NodeId>) -> Option<Arc<Live>> {
        let fits = |node: NodeId, peer: &Peer| {
            let live = peer.live().filter(|live| !live.is_silent())?;
            (Some(node) != but).then(|| Arc::clone(live))
        };
        let favourite = self.favourite.and_then(|node| {
            let peer = self.peers.get(&node)?;
            fits(node, peer)
        });
        let found = favourite.or_else(|| {
            let mut peers = self.peers.iter();
            peers.find_map(|(node, peer)| fits(*node, peer))
        });
        if let Some(live) = &found {
            self.favourite = Some(live.node);
        }
        found
    }

    /// Any connection there is.
    pub(super) fn open(&self, but: Option<NodeId>) -> Option<Arc<Live>> {
        let open = |skip: Option<NodeId>| {
            let mut peers = self.peers.iter();
            peers.find_map(|(node, peer)| match Some(*node) == skip {
                true => None,
                false => peer.live().cloned(),
            })
        };
        open(but).or_else(|| open(None))
    }

    /// Nodes that could be dialled now.
    pub(super) fn closed(&self, but: Option<NodeId>, now: Duration) -> Vec<NodeId> {
        let closed = self.peers.iter().filter(|(node, peer)| {
            Some(**node) != but && peer.live().is_none() && peer.failed_lately(now).is_none()
        });
        closed.map(|(node, _)| *node).collect()
    }

    /// Nodes that were dialled in vain a moment ago, and why.
    pub(super) fn just_failed(&self, now: Duration) -> Vec<(NodeId, Error)> {
        let failed = self.peers.iter().filter_map(|(node, peer)| {
            let error = peer.failed_lately(now).filter(|_| peer.live().is_none())?;
            Some((*node, error.clone()))
        });
        failed.collect()
    }

    /// All but one, living ones first, beginning behind whom it began with the last time.
    pub(super) fn others(&mut self, but: Option<NodeId>, now: Duration) -> Vec<NodeId> {
        let mut others: Vec<_> = self
            .peers
            .iter()
            .filter(|(node, peer)| Some(**node) != but && peer.failed_lately(now).is_none())
            .map(|(node, peer)| {
                (
                    peer.is_doubtful(now),
                    *node <= self.rotated.unwrap_or(NodeId(0)),
                    *node,
                )
            })
            .collect();
        others.sort();
        let others: Vec<_> = others.into_iter().map(|(.., node)| node).collect();
        self.rotated = others.first().copied();
        others
    }

    pub(super) fn has_others(&self, but: NodeId) -> bool {
        self.peers.keys().any(|node| *node != but)
    }
}
