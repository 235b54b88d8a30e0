//! Pure: what is read of the root group's records.

use super::records::{
    CA, CLUSTER, CaRecord, Cluster, EPOCHS, NODES, TICKET_KEYS, TOKENS, TicketKey, TokenRecord,
    USERS, UserRecord, key, single,
};
use crate::codec;
use crate::error::{Error, Result};
use crate::proto::{ClusterView, NodeInfo, RingEpoch};
use crate::store::SlotRead;
use crate::types::NodeId;
use serde::de::DeserializeOwned;

/// The cluster's own record.
pub fn cluster(view: &dyn SlotRead) -> Result<Cluster> {
    one(view, &single(CLUSTER))?.ok_or_else(|| Error::corrupt("the root group is empty"))
}

pub fn ca(view: &dyn SlotRead) -> Result<CaRecord> {
    one(view, &single(CA))?.ok_or_else(|| Error::corrupt("the root group has no CA"))
}

pub fn node(view: &dyn SlotRead, node: NodeId) -> Result<Option<NodeInfo>> {
    one(view, &key(NODES, node.0))
}

/// All nodes, by id.
pub fn nodes(view: &dyn SlotRead) -> Result<Vec<NodeInfo>> {
    table(view, NODES)
}

/// The keys tickets may have been made with, oldest first.
pub fn ticket_keys(view: &dyn SlotRead) -> Result<Vec<TicketKey>> {
    table(view, TICKET_KEYS)
}

pub fn token(view: &dyn SlotRead, id: u64) -> Result<Option<TokenRecord>> {
    one(view, &key(TOKENS, id))
}

pub(super) fn tokens(view: &dyn SlotRead) -> Result<Vec<TokenRecord>> {
    table(view, TOKENS)
}

/// All users, by name.
pub fn users(view: &dyn SlotRead) -> Result<Vec<UserRecord>> {
    table(view, USERS)
}

/// Open epochs of the ring, oldest first.
pub fn ring_epochs(view: &dyn SlotRead) -> Result<Vec<RingEpoch>> {
    table(view, EPOCHS)
}

/// What all nodes must know.
pub fn view(view: &dyn SlotRead) -> Result<ClusterView> {
    let cluster = cluster(view)?;
    let keys = ticket_keys(view)?;
    let revoked = users(view)?.into_iter().filter(|user| user.revoked);
    Ok(ClusterView {
        version: cluster.view,
        cluster: cluster.id,
        nodes: nodes(view)?,
        epochs: ring_epochs(view)?,
        ticket_keys: keys.into_iter().map(|key| (key.epoch, key.key)).collect(),
        revoked_users: revoked.map(|user| user.name).collect(),
        ca: ca(view)?.certificate,
        time: cluster.time,
    })
}

pub(super) fn one<T: DeserializeOwned>(view: &dyn SlotRead, key: &[u8]) -> Result<Option<T>> {
    view.get(key)?
        .map(|bytes| codec::decode(&bytes))
        .transpose()
}

fn table<T: DeserializeOwned>(view: &dyn SlotRead, table: u8) -> Result<Vec<T>> {
    let mut found = Vec::new();
    view.scan(&[table], Some(&[table + 1]), &mut |_, bytes| {
        found.push(codec::decode(bytes)?);
        Ok(true)
    })?;
    Ok(found)
}
