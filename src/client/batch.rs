//! Pure: gathering small files into requests.

use crate::limits::{BATCH_BYTES_MAX, BATCH_ITEMS_MAX};

/// What an operation costs beside its content: path, hash, numbers.
const ITEM_OVERHEAD: u64 = 128;

/// Collects items until a request is full.
///
/// Invariants:
/// 1. A batch given out has 1 to `BATCH_ITEMS_MAX` items.
/// 2. Their bytes with overhead are at most `BATCH_BYTES_MAX`, or it is a single item.
/// 3. Items come out in the order they went in, each once.
#[derive(Debug)]
pub(crate) struct Batch<T> {
    items: Vec<T>,
    bytes: u64,
}

impl<T> Default for Batch<T> {
    fn default() -> Self {
        Batch {
            items: Vec::new(),
            bytes: 0,
        }
    }
}

impl<T> Batch<T> {
    /// Adds an item with `bytes` of content and path; returns the batch it did not fit in.
    pub(crate) fn push(&mut self, item: T, bytes: u64) -> Option<Vec<T>> {
        let cost = bytes.saturating_add(ITEM_OVERHEAD);
        let full = self.items.len() >= BATCH_ITEMS_MAX
            || self.bytes.saturating_add(cost) > BATCH_BYTES_MAX as u64;
        let out = if full { self.take() } else { None };
        self.items.push(item);
        self.bytes = self.bytes.saturating_add(cost);
        out
    }

    /// What is there; `None` if nothing is.
    pub(crate) fn take(&mut self) -> Option<Vec<T>> {
        self.bytes = 0;
        let items = std::mem::take(&mut self.items);
        (!items.is_empty()).then_some(items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Invariants 1 to 3.
        #[test]
        fn batches_are_bounded_and_complete(
            sizes in prop::collection::vec(
                prop_oneof![0u64..200, 0u64..20_000, 3_000_000u64..6_000_000], 0..1_500
            ),
        ) {
            let (mut batch, mut out) = (Batch::default(), Vec::new());
            for (index, size) in sizes.iter().enumerate() {
                out.extend(batch.push((index, *size), *size));
            }
            out.extend(batch.take());
            for items in &out {
                prop_assert!((1..=BATCH_ITEMS_MAX).contains(&items.len()), "1");
                let bytes: u64 = items.iter().map(|(_, size)| size + ITEM_OVERHEAD).sum();
                prop_assert!(bytes <= BATCH_BYTES_MAX as u64 || items.len() == 1, "2");
            }
            let flat: Vec<usize> = out.into_iter().flatten().map(|(index, _)| index).collect();
            prop_assert_eq!(flat, (0..sizes.len()).collect::<Vec<_>>(), "3");
        }
    }

    #[test]
    fn an_empty_batch_gives_nothing() {
        assert_eq!(Batch::<u8>::default().take(), None);
    }
}
