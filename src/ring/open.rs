//! Pure: the epochs that are open, and whom a reader asks. Held by `node`, which is told by the
//! root group what to open and close; the protocol stands in the module's doc.

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

    /// Makes a newer epoch the newest. `busy` where too many are open: the change waits until data
    /// have moved.
    pub fn open(&mut self, ring: Arc<Ring>) -> Result<()> {
        let newest = self.newest().epoch();
        if ring.epoch() <= newest {
            return Err(Error::failed(format!(
                "ring epoch {} is not newer than {newest}",
                ring.epoch()
            )));
        }
        if self.rings.len() == RING_EPOCHS_OPEN_MAX {
            return Err(Error::new(
                Code::Busy,
                format!(
                    "ring epoch {} must wait (data of {RING_EPOCHS_OPEN_MAX} epochs are still \
                     moving)",
                    ring.epoch()
                ),
            ));
        }
        self.rings.insert(0, ring);
        Ok(())
    }

    /// Closes an epoch whose data have moved. The newest cannot be closed; one that is closed stays
    /// so.
    pub fn close(&mut self, epoch: types::Epoch) -> Result<()> {
        if epoch == self.newest().epoch() {
            return Err(Error::failed(format!(
                "ring epoch {epoch} is the newest and stays open"
            )));
        }
        self.rings.retain(|ring| ring.epoch() != epoch);
        Ok(())
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
