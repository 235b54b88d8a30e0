//! Pure: the epochs that are open, and whom a reader asks. Made by `node` from each view of the root
//! group, which opens and closes them; the protocol stands in the module's doc.

use super::place::Ring;
use crate::error::{Code, Error, Result};
use crate::limits::RING_EPOCHS_OPEN_MAX;
use crate::types::{self, ChunkHash, NodeId};
use std::sync::Arc;

/// The open epochs, newest first.
///
/// Invariants:
/// 1. There is at least one, and at most `RING_EPOCHS_OPEN_MAX`.
/// 2. Their numbers fall.
#[derive(Clone)]
pub struct OpenEpochs {
    rings: Vec<Arc<Ring>>,
}

impl OpenEpochs {
    /// Of rings in any order; at least one, no epoch twice.
    pub fn new(mut rings: Vec<Arc<Ring>>) -> Result<OpenEpochs> {
        rings.sort_by_key(|ring| std::cmp::Reverse(ring.epoch()));
        let twice = rings
            .windows(2)
            .any(|pair| pair[0].epoch() == pair[1].epoch());
        if rings.is_empty() || rings.len() > RING_EPOCHS_OPEN_MAX || twice {
            let numbers: Vec<u64> = rings.iter().map(|ring| ring.epoch().0).collect();
            return Err(Error::new(
                Code::Corrupt,
                format!(
                    "bad list of open ring epochs {numbers:?} (1 to {RING_EPOCHS_OPEN_MAX}, \
                     none twice)"
                ),
            ));
        }
        Ok(OpenEpochs { rings })
    }

    /// Whether writes and commits that carry this epoch are accepted.
    pub fn is_open(&self, epoch: types::Epoch) -> bool {
        self.get(epoch).is_some()
    }

    /// The ring of an open epoch.
    pub fn get(&self, epoch: types::Epoch) -> Option<&Arc<Ring>> {
        self.rings.iter().find(|ring| ring.epoch() == epoch)
    }

    /// Where new chunks go.
    pub fn newest(&self) -> &Arc<Ring> {
        self.rings.first().expect("invariant 1")
    }

    /// All, newest first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Ring>> {
        self.rings.iter()
    }

    /// Whom to ask for a chunk, each node once: the owners in all open epochs that are up, newest
    /// epoch first; then the nodes that hold their places while others are `down`; last the owners
    /// that are down, because that is a judgement and theirs may be the only copy left.
    pub fn readers(
        &self,
        hash: &ChunkHash,
        copies: usize,
        down: &dyn Fn(NodeId) -> bool,
    ) -> impl Iterator<Item = NodeId> + use<> {
        let mut readers: Vec<NodeId> = Vec::with_capacity(copies);
        let mut silent: Vec<NodeId> = Vec::new();
        for ring in &self.rings {
            for node in ring.owners(hash, copies).iter() {
                let list = if down(*node) {
                    &mut silent
                } else {
                    &mut readers
                };
                if !list.contains(node) {
                    list.push(*node);
                }
            }
        }
        if !silent.is_empty() {
            for ring in &self.rings {
                for node in ring.owners_without(hash, copies, down).iter() {
                    if !readers.contains(node) {
                        readers.push(*node);
                    }
                }
            }
        }
        readers.into_iter().chain(silent)
    }
}
