//! The state of all replicas of a node: a memory overlay on an ordered base.
//!
//! Applied entries change the overlay and nothing else: they are durable in the log of a
//! majority already. From time to time a **fold** writes the overlay of all groups to the base
//! in one synced transaction, with each group's applied position. Called by `node` (publish,
//! read, fold); knows slots and bytes, not what they mean.
//!
//! ```text
//! publish ─► active layer ──freeze──► frozen layer ──fold──► base (LMDB)
//!                 ▲                        ▲                   ▲
//!                 └──────────── a view reads all three ────────┘
//! ```
//!
//! # Invariants
//! 1. A fold is one cut through all groups, frozen at one instant between publications, and is
//!    committed only when the local log has synced every entry in it.
//! 2. At most one active and one frozen layer. When the active one has reached its bound while a
//!    fold is still running, [`MetaStore::is_full`] is true and proposals are refused as busy;
//!    at four times its bound what is committed waits as well.
//! 3. A view sees exactly the publications up to its sequence, however long it lives: it takes
//!    the layers, the base's transaction and the sequence under one lock; a newer value of a key
//!    never displaces an older one that a living view can see.
//! 4. The position a group is given in the base is that of the cut its records are from.
//!
//! # Keys in the base
//! `slot u32 big-endian, key`. Slot 0 is the node's own: `[0, 0, 0, 0, 1, group u64]` holds the
//! replica record of a group ([`ReplicaRecord`]), `[0, 0, 0, 0, 2, slot u32]` why a slot without a
//! replica has records (`slots`), `[0, 0, 0, 0, 3, group u64]` the highest id of a replica that was
//! taken out of this node. Values end in their checksum
//! (`store::record`), bound to the key without the slot.

mod fold;
mod layer;
mod mend;
mod replicas;
mod slots;
mod view;

pub use fold::Folded;
pub use mend::DamagedRecord;
pub use replicas::{ReplicaMark, ReplicaRecord};
pub use slots::StagedSlot;
pub use view::View;

use crate::env::MetaBase;
use crate::error::{Error, Result};
use crate::store::wal::OnFatal;
use crate::store::{Change, fail_stop, record};
use crate::types::{GroupId, ReplicaId, Slot};
use bytes::{BufMut, Bytes, BytesMut};
use layer::LayerCell;
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The node's own slot.
const NODE_SLOT: Slot = Slot(0);
/// The active layer holds at most so many times its bound, and one batch.
const OVERFULL: usize = 4;

/// When to fold, and how much may wait for it.
#[derive(Clone, Copy, Debug)]
pub struct FoldOptions {
    /// Bytes of the active layer at which a fold begins.
    pub bytes: usize,
    /// A fold begins after this even if fewer bytes wait.
    pub after: std::time::Duration,
}

impl Default for FoldOptions {
    fn default() -> Self {
        FoldOptions {
            bytes: crate::limits::FOLD_BYTES_DEFAULT,
            after: crate::limits::FOLD_AFTER,
        }
    }
}

/// The metadata of one node.
pub struct MetaStore {
    base: Arc<dyn MetaBase>,
    options: FoldOptions,
    state: RwLock<State>,
    /// Sequences of living views, with how many have each. Changed under `state`'s lock.
    views: Arc<Mutex<BTreeMap<u64, usize>>>,
    /// The positions of the frozen layer's cut, while there is one.
    frozen_marks: Mutex<Vec<ReplicaRecord>>,
    /// Held by the one fold that may run.
    folding: tokio::sync::Mutex<()>,
    /// Ends the process (`store::fail_stop`), except in tests.
    on_fatal: OnFatal,
}

struct State {
    active: Arc<LayerCell>,
    frozen: Option<Arc<LayerCell>>,
    /// Of the newest publication.
    sequence: u64,
    replicas: BTreeMap<GroupId, Replica>,
}

/// What is known of one replica.
#[derive(Clone, Debug)]
struct Replica {
    /// As of the newest publication.
    now: ReplicaRecord,
    /// As of the last synced fold.
    folded: ReplicaRecord,
    /// Changed since the last freeze.
    dirty: bool,
}

impl MetaStore {
    /// Opens the state that the last synced fold left.
    ///
    /// # Errors
    /// `corrupt` when a replica record does not fit its checksum.
    pub fn open(base: Arc<dyn MetaBase>, options: FoldOptions) -> Result<Arc<MetaStore>> {
        Self::open_with(
            base,
            options,
            Arc::new(|what, error| fail_stop(what, error)),
        )
    }

    /// [`MetaStore::open`], with what is called when a commit of the base failed. If that
    /// returns, the caller gets the error and the base refuses everything from then on.
    ///
    /// # Errors
    /// As [`MetaStore::open`].
    pub fn open_with(
        base: Arc<dyn MetaBase>,
        options: FoldOptions,
        on_fatal: OnFatal,
    ) -> Result<Arc<MetaStore>> {
        let replicas = replicas::load(&*base)?
            .into_iter()
            .map(|record| {
                let replica = Replica {
                    now: record.clone(),
                    folded: record,
                    dirty: false,
                };
                (replica.now.group, replica)
            })
            .collect();
        Ok(Arc::new(MetaStore {
            base,
            options,
            state: RwLock::new(State {
                active: Arc::default(),
                frozen: None,
                sequence: 0,
                replicas,
            }),
            views: Arc::default(),
            frozen_marks: Mutex::default(),
            folding: tokio::sync::Mutex::new(()),
            on_fatal,
        }))
    }

    /// Ends the process: after a failed commit nobody knows what is durable.
    fn fatal(&self, error: Error) -> Error {
        (self.on_fatal)("metadata", &error);
        error
    }

    /// Every replica this node has, as of now.
    pub fn replicas(&self) -> Vec<ReplicaRecord> {
        self.state
            .read()
            .replicas
            .values()
            .map(|replica| replica.now.clone())
            .collect()
    }

    /// The replica of a group as of now, and as of the last synced fold.
    pub fn replica(&self, group: GroupId) -> Option<(ReplicaRecord, ReplicaRecord)> {
        let state = self.state.read();
        state
            .replicas
            .get(&group)
            .map(|replica| (replica.now.clone(), replica.folded.clone()))
    }

    /// Adds a replica with its seed. Durable only after the next [`MetaStore::fold`]; the caller
    /// folds before the replica votes, appends or answers.
    pub fn add_replica(&self, record: ReplicaRecord, seed: Vec<Change>) {
        let mut state = self.state.write();
        let replica = Replica {
            now: record.clone(),
            folded: record.clone(),
            dirty: true,
        };
        let before = state.replicas.insert(record.group, replica);
        assert!(before.is_none(), "a group has one replica on a node");
        self.insert(&mut state, record.slot, seed);
    }

    /// Makes one batch of a group's changes visible, together with its applied position.
    ///
    /// # Errors
    /// `failed` when the replica is not here (any more): nothing is changed then.
    ///
    /// # Panics
    /// When its position would go back: the caller's order is broken.
    pub fn publish(
        &self,
        (group, id): (GroupId, ReplicaId),
        mark: ReplicaMark,
        changes: Vec<Change>,
    ) -> Result<()> {
        let mut state = self.state.write();
        let replica = state.replicas.get_mut(&group);
        let Some(replica) = replica.filter(|replica| replica.now.replica == id) else {
            return Err(Error::failed(format!(
                "replica {id} of group {group} was removed"
            )));
        };
        assert!(
            mark.position >= replica.now.mark.position,
            "applied positions only grow"
        );
        replica.now.mark = mark;
        replica.dirty = true;
        let slot = replica.now.slot;
        self.insert(&mut state, slot, changes);
        Ok(())
    }

    fn insert(&self, state: &mut State, slot: Slot, changes: Vec<Change>) {
        state.sequence += 1;
        let sequence = state.sequence;
        let views = self.views.lock();
        let mut active = state.active.write();
        for (key, value) in changes {
            let stored = value.map(|value| record::seal(&key, &value));
            active.insert(slot_key(slot, &key), stored, sequence, &views);
        }
    }

    /// A view of one slot as of the newest publication.
    pub fn view(self: &Arc<Self>, slot: Slot) -> Result<View> {
        self.view_of(&self.state.read(), slot)
    }

    /// A view of a group's records, with what is known of the replica at the same instant.
    pub fn replica_view(self: &Arc<Self>, group: GroupId) -> Result<Option<(ReplicaRecord, View)>> {
        let state = self.state.read();
        let Some(replica) = state.replicas.get(&group) else {
            return Ok(None);
        };
        let view = self.view_of(&state, replica.now.slot)?;
        Ok(Some((replica.now.clone(), view)))
    }

    fn view_of(&self, state: &State, slot: Slot) -> Result<View> {
        let base = self.base.begin_read()?;
        *self.views.lock().entry(state.sequence).or_default() += 1;
        Ok(View::new(
            slot,
            state.sequence,
            state.active.clone(),
            state.frozen.clone(),
            base,
            self.views.clone(),
        ))
    }

    /// Makes an installed image the replica's state: its records are in the base already.
    fn adopt(&self, record: ReplicaRecord) {
        let group = record.group;
        let replica = Replica {
            now: record.clone(),
            folded: record,
            dirty: false,
        };
        self.state.write().replicas.insert(group, replica);
    }

    /// True while changes of a slot wait for a fold.
    fn has_unfolded(&self, slot: Slot) -> bool {
        let state = self.state.read();
        let (start, end) = (slot_key(slot, &[]), slot_key(slot.next(), &[]));
        let holds = |layer: &LayerCell| {
            !layer
                .read()
                .range((&start, false), &end, u64::MAX, 1)
                .0
                .is_empty()
        };
        holds(&state.active) || state.frozen.as_ref().is_some_and(|layer| holds(layer))
    }

    /// True while the active layer is at its bound and cannot be frozen (invariant 2).
    pub fn is_full(&self) -> bool {
        let state = self.state.read();
        state.frozen.is_some() && state.active.read().bytes() >= self.options.bytes
    }

    /// True while the active layer is so far beyond its bound that even committed entries should
    /// wait: a follower takes what its leader, whose disk may be faster, has accepted.
    pub fn is_overfull(&self) -> bool {
        let state = self.state.read();
        let most = self.options.bytes.saturating_mul(OVERFULL);
        state.frozen.is_some() && state.active.read().bytes() >= most
    }

    /// Bytes that wait in the active layer.
    pub fn active_bytes(&self) -> usize {
        self.state.read().active.read().bytes()
    }

    /// True when a fold should begin because of size.
    pub fn wants_fold(&self) -> bool {
        self.active_bytes() >= self.options.bytes
    }

    pub fn options(&self) -> FoldOptions {
        self.options
    }

    /// Bytes of the base in use.
    pub fn used_bytes(&self) -> Result<u64> {
        self.base.used_bytes()
    }
}

/// A key of the base.
fn slot_key(slot: Slot, key: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(4 + key.len());
    out.put_u32(slot.0);
    out.put_slice(key);
    out.freeze()
}

#[cfg(test)]
mod tests;
