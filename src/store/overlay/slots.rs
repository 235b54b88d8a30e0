//! Slots: filling a fresh one from an image, and removing what no replica uses any more.
//!
//! 1. An image is written into a slot that nothing points to, in slices; one synced transaction
//!    then points the replica to it and queues its old slot for removal.
//! 2. A slot that was being filled when the process died is queued for removal at the start.
//! 3. A slot's number is given again only after its last record is gone.
//!
//! Rows in the node's slot: `[2, slot u32]` → [`SlotState`].

use super::{MetaStore, NODE_SLOT, replicas, slot_key};
use crate::codec;
use crate::env::{BaseOp, Env, MetaBase};
use crate::error::{Error, Result};
use crate::store::image::ImageReader;
use crate::store::overlay::ReplicaRecord;
use crate::store::record;
use crate::types::{GroupId, ReplicaId, Slot};
use serde::{Deserialize, Serialize};
use std::path::Path;

const SLOTS: u8 = 2;
/// Records of one slice; a few milliseconds of one transaction, so that folds get between.
const SLICE_RECORDS: usize = 2_000;

/// Why a slot without a replica has records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum SlotState {
    /// An image is being written into it.
    Filling,
    /// Its records are being removed.
    Removing,
}

fn key(slot: Slot) -> Vec<u8> {
    let mut key = vec![SLOTS];
    key.extend_from_slice(&slot.0.to_be_bytes());
    key
}

fn put(slot: Slot, state: SlotState) -> BaseOp {
    let key = key(slot);
    BaseOp::Put(
        slot_key(NODE_SLOT, &key),
        record::seal(&key, &codec::encode(&state)),
    )
}

fn forget(slot: Slot) -> BaseOp {
    BaseOp::Delete(slot_key(NODE_SLOT, &key(slot)))
}

/// Every slot with a row.
fn rows(base: &dyn MetaBase) -> Result<Vec<(Slot, SlotState)>> {
    let mut found = Vec::new();
    let mut failed = None;
    let (start, end) = (
        slot_key(NODE_SLOT, &[SLOTS]),
        slot_key(NODE_SLOT, &[SLOTS + 1]),
    );
    base.begin_read()?
        .scan(&start, Some(&end), &mut |key, stored| {
            let row = record::open(&key[4..], stored).and_then(codec::decode);
            match (row, key[5..].try_into()) {
                (Ok(state), Ok(number)) => found.push((Slot(u32::from_be_bytes(number)), state)),
                _ => failed = Some(Error::corrupt("a row of the slots is damaged")),
            }
            failed.is_none()
        })?;
    failed.map_or(Ok(found), Err)
}

/// An image that fills a slot which nothing points to yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StagedSlot {
    /// The replica's record once it is adopted.
    pub record: ReplicaRecord,
}

impl MetaStore {
    /// Queues slots that were being filled when the process ended (rule 2). Called at the start.
    pub async fn recover_slots(&self, env: &Env) -> Result<()> {
        let ops: Vec<_> = rows(&*self.base)?
            .into_iter()
            .filter(|(_, state)| *state == SlotState::Filling)
            .map(|(slot, _)| put(slot, SlotState::Removing))
            .collect();
        if ops.is_empty() {
            Ok(())
        } else {
            self.commit(env, ops).await
        }
    }

    /// [`MetaStore::stage_image`] and [`MetaStore::adopt_staged`]: durable when it returns.
    #[cfg(test)]
    pub async fn install_image(
        &self,
        env: &Env,
        path: &Path,
        replica: ReplicaId,
    ) -> Result<ReplicaRecord> {
        let staged = self.stage_image(env, path, replica).await?;
        self.adopt_staged(env, staged).await
    }

    /// Fills a fresh slot from an image; the replica is as before, also after a crash.
    ///
    /// # Errors
    /// `corrupt` for a damaged image: what was written is removed later. An image older than the
    /// replica's state is refused.
    pub async fn stage_image(
        &self,
        env: &Env,
        path: &Path,
        replica: ReplicaId,
    ) -> Result<StagedSlot> {
        let mut image = ImageReader::open(&*env.disk, path).await?;
        let record = |slot| ReplicaRecord {
            group: image.meta.group,
            replica,
            slot,
            mark: image.meta.mark.clone(),
        };
        self.must_be_newer(&record(NODE_SLOT))
            .map_err(|e| e.at(path.display()))?;
        let staged = StagedSlot {
            record: record(self.fresh_slot(env).await?),
        };
        match self.fill(env, staged.record.slot, &mut image).await {
            Ok(()) => Ok(staged),
            Err(error) => {
                self.discard_staged(env, staged).await?;
                Err(error)
            }
        }
    }

    /// Makes a staged image the replica's state: durable when it returns.
    ///
    /// # Errors
    /// `failed` if the state is newer by now, or a fold that found no space has to be done first;
    /// the image waits for its removal then.
    pub async fn adopt_staged(&self, env: &Env, staged: StagedSlot) -> Result<ReplicaRecord> {
        let record = staged.record.clone();
        let adopted = match self.must_be_newer(&record) {
            Ok(()) => self.point_to(env, record.clone()).await,
            older => older,
        };
        match adopted {
            Ok(()) => Ok(record),
            Err(error) => {
                self.discard_staged(env, staged).await?;
                Err(error)
            }
        }
    }

    /// Queues a staged image for removal.
    pub async fn discard_staged(&self, env: &Env, staged: StagedSlot) -> Result<()> {
        let ops = vec![put(staged.record.slot, SlotState::Removing)];
        self.commit(env, ops).await
    }

    fn must_be_newer(&self, image: &ReplicaRecord) -> Result<()> {
        let group = image.group;
        let now = self.replica(group).map(|(now, _)| now.mark.position);
        if now > Some(image.mark.position) {
            return Err(Error::failed(format!(
                "the image of group {group} is older than its state"
            )));
        }
        Ok(())
    }

    /// Takes a slot that has no records and marks it as being filled.
    pub async fn fresh_slot(&self, env: &Env) -> Result<Slot> {
        // One taker at a time: the row is there before the next one looks.
        let _only = self.folding.lock().await;
        let used = self.replicas().into_iter().map(|record| record.slot);
        let queued = rows(&*self.base)?.into_iter().map(|(slot, _)| slot);
        let highest = used.chain(queued).max().unwrap_or(NODE_SLOT);
        let slot = highest.next();
        self.commit(env, vec![put(slot, SlotState::Filling)])
            .await?;
        Ok(slot)
    }

    /// Adds a replica that has nothing yet, in a fresh slot. Durable when it returns.
    ///
    /// # Errors
    /// `no_space`.
    ///
    /// # Panics
    /// When the node has a replica of the group.
    pub async fn add_empty(&self, env: &Env, record: ReplicaRecord) -> Result<()> {
        let before = self.replica(record.group);
        assert!(before.is_none(), "a group has one replica on a node");
        self.point_to(env, record).await
    }

    /// Takes a replica out for ever; its records go slice by slice. Durable when it returns.
    /// Nothing may publish for it any more.
    ///
    /// # Errors
    /// `no_space`; `not_found` when there is none.
    pub async fn remove_replica(&self, env: &Env, group: GroupId) -> Result<()> {
        let _no_fold = self.folding.lock().await;
        let Some((now, _)) = self.replica(group) else {
            return Err(Error::not_found(format!(
                "no replica of group {group} here"
            )));
        };
        let mut ops = vec![put(now.slot, SlotState::Removing)];
        ops.extend(replicas::bury(group, now.replica));
        self.commit(env, ops).await?;
        self.state.write().replicas.remove(&group);
        self.frozen_marks.lock().retain(|mark| mark.group != group);
        Ok(())
    }

    /// The highest id of a replica of the group that was taken out of this node.
    ///
    /// # Errors
    /// `corrupt` when that is damaged.
    pub fn tombstone(&self, group: GroupId) -> Result<Option<ReplicaId>> {
        replicas::tombstone(&*self.base, group)
    }

    async fn fill(&self, env: &Env, slot: Slot, image: &mut ImageReader) -> Result<()> {
        while let Some(records) = image.next().await? {
            for slice in records.chunks(SLICE_RECORDS) {
                let ops = slice
                    .iter()
                    .map(|(key, value)| BaseOp::Put(slot_key(slot, key), record::seal(key, value)))
                    .collect();
                self.commit(env, ops).await?;
            }
        }
        Ok(())
    }

    /// The one transaction that makes the image the replica's state (rule 1).
    async fn point_to(&self, env: &Env, record: ReplicaRecord) -> Result<()> {
        let _no_fold = self.folding.lock().await;
        if self.state.read().frozen.is_some() {
            return Err(
                Error::failed("a fold that found no space has to be done first")
                    .hint("free space on the disk"),
            );
        }
        let old = self.replica(record.group).map(|(now, _)| now.slot);
        let mut ops = vec![replicas::put(&record), forget(record.slot)];
        ops.extend(old.map(|slot| put(slot, SlotState::Removing)));
        self.commit(env, ops).await?;
        // Changes of the old slot may still wait in the active layer: they are folded into a slot
        // that is being removed, and its removal begins behind them.
        self.adopt(record);
        Ok(())
    }

    /// Removes one slice of a slot that waits for removal; false when none waits.
    pub async fn remove_slice(&self, env: &Env) -> Result<bool> {
        let _no_fold = self.folding.lock().await;
        let Some((slot, _)) = rows(&*self.base)?
            .into_iter()
            .find(|(_, state)| *state == SlotState::Removing)
        else {
            return Ok(false);
        };
        if self.has_unfolded(slot) {
            return Ok(false);
        }
        let base = self.base.clone();
        let ops = env.run_blocking(move || deletions(&*base, slot)).await?;
        let ops = if ops.is_empty() {
            vec![forget(slot)]
        } else {
            ops
        };
        self.commit(env, ops).await?;
        Ok(true)
    }

    async fn commit(&self, env: &Env, ops: Vec<BaseOp>) -> Result<()> {
        let base = self.base.clone();
        let done = env.run_blocking(move || base.commit(ops)).await;
        match done {
            Err(error) if error.code != crate::error::Code::NoSpace => Err(self.fatal(error)),
            done => done,
        }
    }
}

fn deletions(base: &dyn MetaBase, slot: Slot) -> Result<Vec<BaseOp>> {
    let mut ops = Vec::new();
    let (start, end) = (slot_key(slot, &[]), slot_key(slot.next(), &[]));
    base.begin_read()?.scan(&start, Some(&end), &mut |key, _| {
        ops.push(BaseOp::Delete(bytes::Bytes::copy_from_slice(key)));
        ops.len() < SLICE_RECORDS
    })?;
    Ok(ops)
}
