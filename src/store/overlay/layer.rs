//! One layer of the overlay: an ordered map whose values remember the sequence of the
//! publication that wrote them. Used by `overlay` and its views only.

use bytes::Bytes;
use parking_lot::RwLock;
use std::collections::BTreeMap;

/// A layer that publications fill and views read.
pub(super) type LayerCell = RwLock<Layer>;

/// What a key costs beside its bytes: tree node share, reference counts, the cell.
const CELL_BYTES: usize = 160;

#[derive(Default)]
pub(super) struct Layer {
    cells: BTreeMap<Bytes, Cell>,
    bytes: usize,
}

/// The values of one key, stored form; `None` is a deletion.
struct Cell {
    sequence: u64,
    value: Option<Bytes>,
    /// Older values that a living view can see, oldest first. Almost always empty.
    older: Vec<(u64, Option<Bytes>)>,
}

impl Cell {
    /// The newest value at or before a sequence. Outer `None`: nothing here that old.
    fn at(&self, sequence: u64) -> Option<&Option<Bytes>> {
        if self.sequence <= sequence {
            return Some(&self.value);
        }
        self.older
            .iter()
            .rev()
            .find(|(at, _)| *at <= sequence)
            .map(|(_, value)| value)
    }
}

impl Layer {
    /// Bytes of memory held, roughly.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn len(&self) -> usize {
        self.cells.len()
    }

    /// Writes a value; what it displaces is kept only where one of `views` can see it
    /// (invariant 3).
    pub fn insert(
        &mut self,
        key: Bytes,
        value: Option<Bytes>,
        sequence: u64,
        views: &BTreeMap<u64, usize>,
    ) {
        let size = |value: &Option<Bytes>| value.as_ref().map_or(0, Bytes::len);
        let key_len = key.len();
        let added = size(&value);
        match self.cells.entry(key) {
            std::collections::btree_map::Entry::Vacant(vacant) => {
                vacant.insert(Cell {
                    sequence,
                    value,
                    older: Vec::new(),
                });
                self.bytes += key_len + added + CELL_BYTES;
            }
            std::collections::btree_map::Entry::Occupied(mut occupied) => {
                let cell = occupied.get_mut();
                let seen = |from: u64, to: u64| views.range(from..to).next().is_some();
                if cell.sequence < sequence && seen(cell.sequence, sequence) {
                    cell.older.push((cell.sequence, cell.value.take()));
                } else {
                    self.bytes -= size(&cell.value);
                }
                (cell.sequence, cell.value) = (sequence, value);
                self.bytes += added;
                if !cell.older.is_empty() {
                    self.bytes -= prune(&mut cell.older, sequence, seen, size);
                }
            }
        }
    }

    /// The value of a key as of a sequence. Outer `None`: this layer says nothing.
    pub fn get(&self, key: &[u8], sequence: u64) -> Option<Option<Bytes>> {
        self.cells.get(key)?.at(sequence).cloned()
    }

    /// Up to `max` keys of `from..to` (from exclusive if `behind`) with their values as of a
    /// sequence, and whether there may be more.
    pub fn range(
        &self,
        from: (&[u8], bool),
        to: &[u8],
        sequence: u64,
        max: usize,
    ) -> (Vec<(Bytes, Option<Bytes>)>, bool) {
        use std::ops::Bound::{Excluded, Included};
        let start = if from.1 {
            Excluded(from.0)
        } else {
            Included(from.0)
        };
        if from.0 >= to {
            return (Vec::new(), false);
        }
        let mut found = Vec::new();
        for (key, cell) in self.cells.range::<[u8], _>((start, Excluded(to))) {
            if let Some(value) = cell.at(sequence) {
                found.push((key.clone(), value.clone()));
                if found.len() == max {
                    return (found, true);
                }
            }
        }
        (found, false)
    }

    /// Every key with its newest value, in order.
    pub fn newest(&self) -> impl Iterator<Item = (&Bytes, &Option<Bytes>)> {
        self.cells.iter().map(|(key, cell)| (key, &cell.value))
    }
}

/// Drops older values that no view can see; returns the bytes freed.
fn prune(
    older: &mut Vec<(u64, Option<Bytes>)>,
    newest: u64,
    seen: impl Fn(u64, u64) -> bool,
    size: impl Fn(&Option<Bytes>) -> usize,
) -> usize {
    let ends: Vec<u64> = older
        .iter()
        .skip(1)
        .map(|(at, _)| *at)
        .chain(std::iter::once(newest))
        .collect();
    let mut ends = ends.into_iter();
    let mut freed = 0;
    older.retain(|(at, value)| {
        let keep = seen(*at, ends.next().expect("one end for each value"));
        freed += if keep { 0 } else { size(value) };
        keep
    });
    freed
}
