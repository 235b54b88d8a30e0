//! What of a content was sent and told of, over all runs through it. Shared by the pieces of a
//! transfer, which are under way at once.

use crate::client::progress::Progress;
use parking_lot::Mutex;
use std::collections::HashMap;

#[derive(Default)]
struct Known {
    /// Bytes that progress was told of.
    told: u64,
    /// Its length, once it was sent.
    sent: u64,
}

/// One for each put.
#[derive(Default)]
pub(super) struct Ledger {
    pieces: Mutex<HashMap<u64, Known>>,
    sent_bytes: Mutex<u64>,
}

impl Ledger {
    /// So many bytes of a piece are done in this run; what was told in an earlier one is not told
    /// again.
    pub(super) fn done(&self, index: u64, bytes: u64, progress: &dyn Progress) {
        let mut pieces = self.pieces.lock();
        let told = &mut pieces.entry(index).or_default().told;
        progress.advance(bytes.saturating_sub(*told));
        *told = bytes.max(*told);
    }

    /// A piece of so many bytes was sent, whole.
    pub(super) fn sent(&self, index: u64, len: u64) {
        self.pieces.lock().entry(index).or_default().sent = len;
        *self.sent_bytes.lock() += len;
    }

    /// True if the piece was sent in an earlier run.
    pub(super) fn was_sent(&self, index: u64) -> bool {
        let pieces = self.pieces.lock();
        pieces.get(&index).is_some_and(|known| known.sent > 0)
    }

    /// Bytes that travelled, also those that did so more than once.
    pub(super) fn sent_bytes(&self) -> u64 {
        *self.sent_bytes.lock()
    }

    /// Of a content of `size` bytes, those that never had to travel.
    pub(super) fn reused_bytes(&self, size: u64) -> u64 {
        let pieces = self.pieces.lock();
        let sent: u64 = pieces.values().map(|known| known.sent).sum();
        size.saturating_sub(sent)
    }
}
