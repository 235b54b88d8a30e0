//! Replica records: which groups this node has, where their records are and up to where they
//! are applied. Written by each fold in the same transaction as the records they speak of.

use super::{NODE_SLOT, slot_key};
use crate::codec;
use crate::env::{BaseOp, MetaBase};
use crate::error::{Error, Result};
use crate::store::record;
use crate::store::wal::LogPosition;
use crate::types::{GroupId, ReplicaId, Slot};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

const REPLICAS: u8 = 1;
const TOMBSTONES: u8 = 3;

/// Up to where a replica is applied, and the members as of there (encoded by `raft`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaMark {
    pub position: LogPosition,
    pub members: Bytes,
}

/// One replica of a group on this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaRecord {
    pub group: GroupId,
    /// This replica's id; never used again in its group.
    pub replica: ReplicaId,
    /// Where its records are.
    pub slot: Slot,
    pub mark: ReplicaMark,
}

fn key(table: u8, group: GroupId) -> Vec<u8> {
    let mut key = vec![table];
    key.extend_from_slice(&group.0.to_be_bytes());
    key
}

/// The operation that stores a replica record.
pub(super) fn put(replica: &ReplicaRecord) -> BaseOp {
    let key = key(REPLICAS, replica.group);
    BaseOp::Put(
        slot_key(NODE_SLOT, &key),
        record::seal(&key, &codec::encode(replica)),
    )
}

/// The operations that take a replica out for ever: its id and all below are never taken again.
pub(super) fn bury(group: GroupId, replica: ReplicaId) -> [BaseOp; 2] {
    let stone = key(TOMBSTONES, group);
    [
        BaseOp::Delete(slot_key(NODE_SLOT, &key(REPLICAS, group))),
        BaseOp::Put(
            slot_key(NODE_SLOT, &stone),
            record::seal(&stone, &codec::encode(&replica)),
        ),
    ]
}

/// The highest id of a replica of the group that was taken out of this node.
pub(super) fn tombstone(base: &dyn MetaBase, group: GroupId) -> Result<Option<ReplicaId>> {
    let key = key(TOMBSTONES, group);
    let found = base.begin_read()?.get(&slot_key(NODE_SLOT, &key))?;
    found
        .map(|stored| record::open(&key, &stored).and_then(codec::decode))
        .transpose()
}

/// All replica records of a base.
pub(super) fn load(base: &dyn MetaBase) -> Result<Vec<ReplicaRecord>> {
    let mut found = Vec::new();
    let mut failed = None;
    let start = slot_key(NODE_SLOT, &[REPLICAS]);
    let end = slot_key(NODE_SLOT, &[REPLICAS + 1]);
    base.begin_read()?
        .scan(&start, Some(&end), &mut |key, stored| {
            let decoded = record::open(&key[4..], stored).and_then(codec::decode::<ReplicaRecord>);
            match decoded {
                Ok(replica) => found.push(replica),
                Err(error) => failed = Some(error),
            }
            failed.is_none()
        })?;
    match failed {
        Some(error) => Err(
            Error::corrupt(format!("a replica record is damaged ({error})"))
                .hint("restore the node's metadata from its peers or a backup"),
        ),
        None => Ok(found),
    }
}
