//! The fold: freezes the overlay of all groups at one instant and writes it to the base in one
//! synced transaction.

use super::MetaStore;
use super::layer::{Layer, LayerCell};
use super::replicas::{self, ReplicaRecord};
use crate::env::{BaseOp, Env};
use crate::error::{Code, Result};
use crate::store::wal::Wal;
use std::sync::Arc;

/// What one fold did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Folded {
    /// Records written or deleted.
    pub records: usize,
    /// Bytes of the frozen layer in memory.
    pub bytes: usize,
}

/// A frozen cut (invariant 1).
pub(super) struct Cut {
    pub layer: Arc<LayerCell>,
    pub replicas: Vec<ReplicaRecord>,
}

impl MetaStore {
    /// Folds what is applied now; returns after the transaction is synced. Folds queue behind
    /// each other. Nothing to do: returns at once.
    ///
    /// # Errors
    /// `no_space` when the base is full: nothing was changed, the frozen layer stays and the
    /// next fold tries it again. Any other failure of the base ends the process.
    pub async fn fold(&self, env: &Env, wal: &Wal) -> Result<Folded> {
        let _only = self.folding.lock().await;
        let Some(cut) = self.freeze() else {
            return Ok(Folded::default());
        };
        for replica in &cut.replicas {
            wal.wait_synced(replica.group, replica.mark.position.index)
                .await;
        }
        let base = self.base.clone();
        let (layer, records) = (cut.layer.clone(), cut.replicas.clone());
        let committed = env
            .run_blocking(move || {
                let (ops, folded) = operations(&layer.read(), &records);
                base.commit(ops).map(|()| folded)
            })
            .await;
        match committed {
            Ok(folded) => {
                self.thaw(cut);
                Ok(folded)
            }
            Err(error) if error.code == Code::NoSpace => Err(error),
            Err(error) => Err(self.fatal(error)),
        }
    }

    /// Takes the cut. A layer left frozen by a fold that found no space is taken again, with the
    /// marks it was frozen with.
    pub(super) fn freeze(&self) -> Option<Cut> {
        let mut state = self.state.write();
        if let Some(layer) = &state.frozen {
            let layer = layer.clone();
            let replicas = self.frozen_marks.lock().clone();
            return Some(Cut { layer, replicas });
        }
        let replicas: Vec<_> = state
            .replicas
            .values_mut()
            .filter_map(|replica| std::mem::take(&mut replica.dirty).then(|| replica.now.clone()))
            .collect();
        // Records without a replica are those of a slot that an image has replaced: they are
        // folded too, so that the slot's removal can begin behind them.
        if replicas.is_empty() && state.active.read().len() == 0 {
            return None;
        }
        let layer = std::mem::take(&mut state.active);
        state.frozen = Some(layer.clone());
        self.frozen_marks.lock().clone_from(&replicas);
        Some(Cut { layer, replicas })
    }

    /// The cut is in the base: views from now on need not look at it.
    pub(super) fn thaw(&self, cut: Cut) {
        let mut state = self.state.write();
        state.frozen = None;
        for record in cut.replicas {
            if let Some(replica) = state.replicas.get_mut(&record.group) {
                replica.folded = record;
            }
        }
    }
}

/// The cut as one transaction of the base, in key order.
pub(super) fn operations(layer: &Layer, replicas: &[ReplicaRecord]) -> (Vec<BaseOp>, Folded) {
    let mut ops = Vec::with_capacity(layer.len() + replicas.len());
    ops.extend(replicas.iter().map(replicas::put));
    ops.extend(layer.newest().map(|(key, value)| match value {
        Some(value) => BaseOp::Put(key.clone(), value.clone()),
        None => BaseOp::Delete(key.clone()),
    }));
    (
        ops,
        Folded {
            records: layer.len(),
            bytes: layer.bytes(),
        },
    )
}
