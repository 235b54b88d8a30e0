//! What this node knows of the cluster: the newest view of the root group, who is silent, where
//! groups are. Read by everything, written by `beat` alone.

use super::tickets::Tickets;
use crate::codec;
use crate::env::{Env, OpenMode};
use crate::error::{Error, Result};
use crate::proto::{
    ClusterView, GroupPlace, NodeAddress, NodeInfo, NodeState, RingEpoch, RingMember,
};
use crate::ring::{self, OpenEpochs, Ring};
use crate::root::TicketKey;
use crate::store::replace::replace;
use crate::types::{GroupId, NodeId, ShardTime};
use bytes::Bytes;
use parking_lot::RwLock;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// In the data directory: the newest view, so that a start finds the others.
const FILE: &str = "cluster.view";
/// A view of the largest cluster, with all its epochs, is far below.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// One state of the cluster, as this node knows it.
pub struct View {
    pub cluster: ClusterView,
    pub rings: OpenEpochs,
    /// Heard of within the last seconds, as the root group's leader says.
    pub online: BTreeSet<NodeId>,
    /// Silent for too long.
    pub offline: BTreeSet<NodeId>,
    pub groups: Vec<GroupPlace>,
}

impl View {
    pub fn node(&self, id: NodeId) -> Option<&NodeInfo> {
        let at = self
            .cluster
            .nodes
            .binary_search_by_key(&id, |node| node.node);
        at.ok().map(|at| &self.cluster.nodes[at])
    }

    /// Nodes that belong to the cluster.
    pub fn members(&self) -> impl Iterator<Item = &NodeInfo> {
        let nodes = self.cluster.nodes.iter();
        nodes.filter(|node| node.state != NodeState::Removed)
    }

    pub fn address(&self, id: NodeId) -> Option<NodeAddress> {
        let node = self
            .node(id)
            .filter(|node| node.state != NodeState::Removed)?;
        Some(NodeAddress {
            node: id,
            address: node.address.clone(),
        })
    }

    pub fn place(&self, group: GroupId) -> Option<&GroupPlace> {
        self.groups.iter().find(|place| place.group == group)
    }

    pub fn is_down(&self, node: NodeId) -> bool {
        self.offline.contains(&node)
            || self
                .node(node)
                .is_none_or(|info| info.state == NodeState::Removed)
    }
}

/// The view of now.
pub struct Views {
    now: RwLock<Arc<View>>,
    /// When the root group's leader answered last, monotonic; `None`: not in this life.
    heard: RwLock<Option<Duration>>,
    path: PathBuf,
    /// Held while a newer view is being kept: they are written to one file.
    taking: tokio::sync::Mutex<()>,
}

impl Views {
    /// # Errors
    /// `corrupt` for a view that makes no ring.
    pub fn new(view: ClusterView, data: &Path) -> Result<Views> {
        let first = View {
            rings: rings(&view)?,
            cluster: view,
            online: BTreeSet::new(),
            offline: BTreeSet::new(),
            groups: Vec::new(),
        };
        Ok(Views {
            now: RwLock::new(Arc::new(first)),
            heard: RwLock::new(None),
            path: data.join(FILE),
            taking: tokio::sync::Mutex::default(),
        })
    }

    pub fn now(&self) -> Arc<View> {
        self.now.read().clone()
    }

    /// When the root group's leader was heard last.
    pub fn heard(&self) -> Option<Duration> {
        *self.heard.read()
    }

    /// Takes what a heartbeat brought.
    pub fn beat(
        &self,
        at: Duration,
        online: Vec<NodeId>,
        offline: Vec<NodeId>,
        groups: Vec<GroupPlace>,
    ) {
        *self.heard.write() = Some(at);
        let mut now = self.now.write();
        *now = Arc::new(View {
            cluster: now.cluster.clone(),
            rings: now.rings.clone(),
            online: online.into_iter().collect(),
            offline: offline.into_iter().collect(),
            groups,
        });
    }

    /// Takes a newer view and keeps it for the next start. False if it is not newer.
    pub async fn take(&self, env: &Env, new: ClusterView, tickets: &Tickets) -> Result<bool> {
        let _one = self.taking.lock().await;
        if new.version <= self.now().cluster.version {
            return Ok(false);
        }
        let known = self.now();
        let rings = match known.cluster.epochs == new.epochs {
            true => known.rings.clone(),
            false => rings(&new)?,
        };
        tickets.set_keys(ticket_keys(&new));
        {
            let mut now = self.now.write();
            *now = Arc::new(View {
                cluster: new.clone(),
                rings,
                online: now.online.clone(),
                offline: now.offline.clone(),
                groups: now.groups.clone(),
            });
        }
        // What is kept helps the next start alone. A full disk must not keep a node from hearing
        // who was revoked.
        if let Err(error) = save(env, &self.path, &new).await {
            tracing::warn!(%error, "the view of the cluster is not kept for the next start");
        }
        Ok(true)
    }
}

pub fn ticket_keys(view: &ClusterView) -> Vec<TicketKey> {
    let keys = view.ticket_keys.iter().map(|(epoch, key)| TicketKey {
        epoch: *epoch,
        key: *key,
        made: ShardTime(0),
    });
    keys.collect()
}

fn rings(view: &ClusterView) -> Result<OpenEpochs> {
    let epochs = view.epochs.iter().rev();
    let epochs = epochs.map(|epoch| Ring::build(&ring_epoch(epoch)).map(Arc::new));
    let epochs: Result<Vec<Arc<Ring>>> = epochs.collect();
    OpenEpochs::new(epochs?)
}

/// An epoch as the ring is built from.
pub fn ring_epoch(epoch: &RingEpoch) -> ring::Epoch {
    ring::Epoch {
        epoch: epoch.epoch,
        base: epoch.base,
        members: epoch.members.iter().map(member).collect(),
    }
}

pub fn member(member: &RingMember) -> ring::Member {
    ring::Member {
        node: member.node,
        weight: member.weight,
        zone: member.zone.clone(),
        rack: member.rack.clone(),
    }
}

/// Replaces the file of the view.
pub async fn save(env: &Env, path: &Path, view: &ClusterView) -> Result<()> {
    replace(env.disk.as_ref(), path, sealed(view)).await
}

/// The view with a checksum before it.
fn sealed(view: &ClusterView) -> Bytes {
    let body = codec::encode(view);
    let sum = blake3::hash(&body);
    [&sum.as_bytes()[..8], &body].concat().into()
}

/// The view that an earlier life kept; `None` if there is none, or it is damaged: it is only a
/// copy of what others know.
pub async fn load(env: &Env, data: &Path) -> Result<Option<ClusterView>> {
    let path = data.join(FILE);
    let failed = |e: std::io::Error| Error::io("read", &path, &e);
    if !env.disk.exists(&path).await.map_err(failed)? {
        return Ok(None);
    }
    let file = env.disk.open(&path, OpenMode::Read).await.map_err(failed)?;
    let len = file.len().await.map_err(failed)?.min(FILE_BYTES_MAX);
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    let bytes = file.read_at(0, len).await.map_err(failed)?;
    let view = bytes.split_at_checked(8).and_then(|(sum, body)| {
        let whole = blake3::hash(body).as_bytes()[..8] == *sum;
        codec::decode(body).ok().filter(|_| whole)
    });
    if view.is_none() {
        tracing::warn!(path = %path.display(), "the kept view of the cluster is damaged");
    }
    Ok(view)
}
