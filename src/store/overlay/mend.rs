//! Putting damaged records of the base right with what other replicas have.
//!
//! A damaged record tells what it was: its checksum, or if that is what was hit, its value. So
//! another replica's record of the same key can be told for the same one, whatever either has
//! applied, and is written as a change of its own to the layer above; the next fold replaces what
//! is damaged. A key that is damaged itself, or a page that is gone, leaves nothing to go by.

use super::layer::LayerCell;
use super::{MetaStore, slot_key};
use crate::error::Result;
use crate::store::SlotRead;
use crate::store::record::{self, CHECKSUM_BYTES, record_hash};
use crate::types::{GroupId, ReplicaId};
use bytes::Bytes;
use std::sync::Arc;

/// A record of the base that does not fit its checksum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedRecord {
    /// Without the slot.
    pub key: Bytes,
    stored: Bytes,
}

impl DamagedRecord {
    /// True if the record had this value before it was damaged: the checksum fits it, or the
    /// value is still the same.
    pub fn was(&self, value: &[u8]) -> bool {
        let Some(cut) = self.stored.len().checked_sub(CHECKSUM_BYTES) else {
            return false;
        };
        let (kept, sum) = self.stored.split_at(cut);
        kept == value || sum == record_hash(&self.key, value).to_le_bytes()
    }
}

impl MetaStore {
    /// Records of a group's replica that are damaged and show, at most `max`. Reads all of the
    /// replica: blocks.
    ///
    /// # Errors
    /// `corrupt` when the base cannot be walked.
    pub fn damaged_records(
        self: &Arc<Self>,
        group: GroupId,
        max: usize,
    ) -> Result<Vec<DamagedRecord>> {
        let Some((record, view)) = self.replica_view(group)? else {
            return Ok(Vec::new());
        };
        let (start, end) = (
            slot_key(record.slot, &[]),
            slot_key(record.slot.next(), &[]),
        );
        let mut found = Vec::new();
        self.base
            .begin_read()?
            .scan(&start, Some(&end), &mut |full, stored| {
                let key = &full[start.len()..];
                if record::open(key, stored).is_err() {
                    found.push(DamagedRecord {
                        key: Bytes::copy_from_slice(key),
                        stored: Bytes::copy_from_slice(stored),
                    });
                }
                found.len() < max
            })?;
        // What a layer has a newer word on does no harm.
        found.retain(|damaged| view.get(&damaged.key).is_err());
        Ok(found)
    }

    /// Writes a damaged record again. False if `value` is not what it was; true also if the record
    /// has been replaced meanwhile.
    ///
    /// # Errors
    /// What the base says.
    pub fn mend(
        &self,
        (group, id): (GroupId, ReplicaId),
        damaged: &DamagedRecord,
        value: &[u8],
    ) -> Result<bool> {
        if !damaged.was(value) {
            return Ok(false);
        }
        let mut state = self.state.write();
        let Some(replica) = state.replicas.get(&group) else {
            return Ok(true);
        };
        let full = slot_key(replica.now.slot, &damaged.key);
        if replica.now.replica != id {
            return Ok(true);
        }
        let slot = replica.now.slot;
        // Under the lock of publications: nothing newer can come between.
        let holds = |layer: &LayerCell| layer.read().get(&full, u64::MAX).is_some();
        let newer = holds(&state.active) || state.frozen.as_ref().is_some_and(|one| holds(one));
        if newer || self.base.begin_read()?.get(&full)?.as_ref() != Some(&damaged.stored) {
            return Ok(true);
        }
        self.insert(
            &mut state,
            slot,
            vec![(damaged.key.clone(), Some(Bytes::copy_from_slice(value)))],
        );
        Ok(true)
    }
}
