//! Bytes in flight: a bound on the memory of a transfer, shared by all its files.

use super::buffers::Buffers;
use std::sync::Arc;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Bytes of one permit; a window of 4 TiB still fits the semaphore's count.
const UNIT: u64 = 1_024;

/// A budget of bytes. A transfer takes what it is about to hold in memory and gives it back
/// when it dropped it.
pub(crate) struct Window {
    units: u32,
    free: Semaphore,
    /// The memory that these bytes are held in.
    pub(crate) buffers: Arc<Buffers>,
}

impl Window {
    /// A budget of `bytes`, at least one unit.
    pub(crate) fn new(bytes: u64) -> Self {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX >> 3);
        let units = units.clamp(1, u32::MAX >> 3);
        Window {
            units,
            free: Semaphore::new(units as usize),
            buffers: Arc::default(),
        }
    }

    /// Waits until `bytes` may be held. More than the whole window waits for all of it.
    pub(crate) async fn take(&self, bytes: u64) -> SemaphorePermit<'_> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX);
        let permit = self.free.acquire_many(units.min(self.units)).await;
        permit.expect("the window's semaphore is never closed")
    }

    /// Pieces of `bytes` of one file to be moved at once: what fits, at least one, and no more
    /// than keeps the line busy. Those that are under way share it and end together, so each
    /// more is one more to send again after an interruption.
    pub(crate) fn pieces(&self, bytes: u64) -> usize {
        let units = bytes.div_ceil(UNIT).max(1);
        let fit = usize::try_from(u64::from(self.units) / units).unwrap_or(usize::MAX);
        let useful = usize::try_from(BUSY_BYTES / bytes.max(1)).unwrap_or(usize::MAX);
        fit.min(useful.max(PIECES_MIN)).clamp(1, PIECES_MAX)
    }
}

/// Bytes of one file under way that keep any line busy: what a connection takes at once.
const BUSY_BYTES: u64 = 48 << 20;
/// One on the way, one being synced, one being read.
const PIECES_MIN: usize = 3;

/// Chunks of one file in flight at most, however small they are: each is a stream.
const PIECES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn never_holds_more_than_its_bytes() {
        let window = Window::new(10 * UNIT);
        let first = window.take(6 * UNIT).now_or_never().unwrap();
        assert!(window.take(5 * UNIT).now_or_never().is_none());
        drop(first);
        assert!(window.take(5 * UNIT).now_or_never().is_some());
    }

    #[test]
    fn a_piece_larger_than_the_window_passes_alone() {
        let window = Window::new(UNIT);
        let all = window.take(100 * UNIT).now_or_never().unwrap();
        assert!(window.take(1).now_or_never().is_none());
        drop(all);
        assert_eq!(window.pieces(100 * UNIT), 1);
        let window = Window::new(128 << 20);
        assert_eq!(window.pieces(16 << 20), 3);
        assert_eq!(window.pieces(64 << 20), 2);
        assert_eq!(window.pieces(4 << 20), 12);
        assert_eq!(window.pieces(1), PIECES_MAX);
    }
}
