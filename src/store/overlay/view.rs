//! One unchanging state of one slot: layers and base, merged.

use super::layer::LayerCell;
use super::slot_key;
use crate::env::MetaRead;
use crate::error::Result;
use crate::store::{SlotRead, VisitRecord, record};
use crate::types::Slot;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Keys taken from a layer under one lock during a scan.
const SCAN_STEP: usize = 512;
/// Slot and checksum around what the slot's reader sees.
const SLOT_BYTES: usize = 4;

/// A view of one slot. Reads block on page faults of the base: use it on the reader pool.
pub struct View {
    slot: Slot,
    sequence: u64,
    active: Arc<LayerCell>,
    frozen: Option<Arc<LayerCell>>,
    base: Box<dyn MetaRead>,
    views: Arc<Mutex<BTreeMap<u64, usize>>>,
}

impl Drop for View {
    fn drop(&mut self) {
        let mut views = self.views.lock();
        if let Some(count) = views.get_mut(&self.sequence) {
            *count -= 1;
            if *count == 0 {
                views.remove(&self.sequence);
            }
        }
    }
}

impl View {
    pub(super) fn new(
        slot: Slot,
        sequence: u64,
        active: Arc<LayerCell>,
        frozen: Option<Arc<LayerCell>>,
        base: Box<dyn MetaRead>,
        views: Arc<Mutex<BTreeMap<u64, usize>>>,
    ) -> Self {
        View {
            slot,
            sequence,
            active,
            frozen,
            base,
            views,
        }
    }

    /// The publication this view is as of.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    fn layers(&self) -> impl Iterator<Item = &Arc<LayerCell>> {
        std::iter::once(&self.active).chain(self.frozen.as_ref())
    }
}

/// What a stored form of the overlay holds: its checksum was made here and is not read again.
fn unsealed(stored: &Bytes) -> Bytes {
    stored.slice(..stored.len() - record::CHECKSUM_BYTES)
}

impl SlotRead for View {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        let full = slot_key(self.slot, key);
        for layer in self.layers() {
            if let Some(found) = layer.read().get(&full, self.sequence) {
                return Ok(found.as_ref().map(unsealed));
            }
        }
        match self.base.get(&full)? {
            None => Ok(None),
            Some(stored) => {
                let len = record::open(key, &stored)?.len();
                Ok(Some(stored.slice(..len)))
            }
        }
    }

    fn scan(&self, from: &[u8], to: Option<&[u8]>, visit: &mut VisitRecord<'_>) -> Result<()> {
        let start = slot_key(self.slot, from);
        let end = match to {
            Some(to) => slot_key(self.slot, to),
            None => slot_key(
                Slot(self.slot.0.checked_add(1).expect("slots stay small")),
                &[],
            ),
        };
        let mut merged = Merged {
            cursors: self
                .layers()
                .map(|layer| Cursor::new(layer, &start))
                .collect(),
            sequence: self.sequence,
            end: &end,
        };
        let mut failed = None;
        let mut stopped = false;
        self.base.scan(&start, Some(&end), &mut |key, stored| {
            let step = (|| {
                // What the layers have before this key, then the layers' word on this key.
                while let Some((over, value)) = merged.next_below(Some(key)) {
                    if let Some(value) = value
                        && !visit(&over[SLOT_BYTES..], &unsealed(&value))?
                    {
                        return Ok(false);
                    }
                }
                match merged.take(key) {
                    Some(None) => Ok(true),
                    Some(Some(value)) => visit(&key[SLOT_BYTES..], &unsealed(&value)),
                    None => visit(
                        &key[SLOT_BYTES..],
                        record::open(&key[SLOT_BYTES..], stored)?,
                    ),
                }
            })();
            match step {
                Ok(go_on) => {
                    stopped = !go_on;
                    go_on
                }
                Err(error) => {
                    failed = Some(error);
                    false
                }
            }
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        while !stopped {
            match merged.next_below(None) {
                None => break,
                Some((_, None)) => {}
                Some((key, Some(value))) => {
                    stopped = !visit(&key[SLOT_BYTES..], &unsealed(&value))?;
                }
            }
        }
        Ok(())
    }
}

/// The layers' keys of a range in order, the newest layer's word for each.
struct Merged<'a> {
    /// Newest layer first.
    cursors: Vec<Cursor<'a>>,
    sequence: u64,
    end: &'a [u8],
}

impl Merged<'_> {
    /// The next key, if it is below `bound`.
    fn next_below(&mut self, bound: Option<&[u8]>) -> Option<(Bytes, Option<Bytes>)> {
        let (sequence, end) = (self.sequence, self.end);
        self.cursors
            .iter_mut()
            .for_each(|cursor| cursor.fill(sequence, end));
        let lowest = self.cursors.iter().filter_map(Cursor::peek).min()?.clone();
        if bound.is_some_and(|bound| lowest[..] >= *bound) {
            return None;
        }
        let value = self.take(&lowest).expect("the lowest key is some cursor's");
        Some((lowest, value))
    }

    /// The layers' word on a key that no cursor is behind.
    fn take(&mut self, key: &[u8]) -> Option<Option<Bytes>> {
        let (sequence, end) = (self.sequence, self.end);
        let mut word = None;
        for cursor in &mut self.cursors {
            cursor.fill(sequence, end);
            if cursor.peek().is_some_and(|at| at[..] == *key) {
                let (_, value) = cursor.ahead.pop_front().expect("peeked");
                word.get_or_insert(value);
            }
        }
        word
    }
}

/// Walks one layer in steps, so that its lock is never held while a visitor runs.
struct Cursor<'a> {
    layer: &'a LayerCell,
    ahead: VecDeque<(Bytes, Option<Bytes>)>,
    /// Where the next step begins, and whether behind that key.
    from: (Bytes, bool),
    more: bool,
}

impl<'a> Cursor<'a> {
    fn new(layer: &'a LayerCell, from: &Bytes) -> Self {
        Cursor {
            layer,
            ahead: VecDeque::new(),
            from: (from.clone(), false),
            more: true,
        }
    }

    fn fill(&mut self, sequence: u64, end: &[u8]) {
        if self.ahead.is_empty() && self.more {
            let (from, behind) = (&self.from.0, self.from.1);
            let (found, more) = self
                .layer
                .read()
                .range((from, behind), end, sequence, SCAN_STEP);
            if let Some((last, _)) = found.last() {
                self.from = (last.clone(), true);
            }
            self.ahead = found.into();
            self.more = more;
        }
    }

    fn peek(&self) -> Option<&Bytes> {
        self.ahead.front().map(|(key, _)| key)
    }
}
