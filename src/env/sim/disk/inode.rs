//! one simulated file: what is read now, what is durable, and what lies between. Called by
//! the simulated disk.
//!
//! Invariants:
//! 1. `live` is `synced` with `pending` applied in order, unless a sync failed.
//! 2. A crash finds `synced` and any subset of `pending`, writes torn at sectors.
//! 3. After a failed sync its pending changes are durable or lost, and no later sync tells. They
//!    are read as before until the power goes; where a later change touches the same page, that
//!    page is written as it is read.

use super::content::{Content, PAGE_BYTES};
use bytes::Bytes;
use rand::Rng;
use rand::rngs::StdRng;

/// Writes are atomic up to this size and alignment, in bytes.
pub const SECTOR_BYTES: u64 = 512;

/// A change of a file that is not durable yet.
#[derive(Clone, Debug)]
pub enum Change {
    Write { offset: u64, data: Bytes },
    Zero { offset: u64, len: u64 },
    SetLen(u64),
}

#[derive(Clone, Debug, Default)]
pub struct Inode {
    live: Content,
    synced: Content,
    pending: Vec<Change>,
    /// Changes that ever left `pending`: number of the first pending one.
    settled: u64,
    /// Names in the live tree; without one, its pages are not counted.
    pub links: u32,
}

impl Inode {
    pub fn live(&self) -> &Content {
        &self.live
    }

    pub fn change(&mut self, change: Change) {
        change.apply(&mut self.live);
        self.pending.push(change);
    }

    /// The number of changes so far; hand it to [`Inode::sync`].
    pub fn changes(&self) -> u64 {
        self.settled + self.pending.len() as u64
    }

    /// Makes the first `upto` changes durable. Later bytes on the same pages may become so too.
    pub fn sync(&mut self, upto: u64) {
        for change in self.take_pending(upto) {
            let old_len = self.synced.len();
            let (from, to) = change.range(old_len);
            let len = change.len_after(old_len);
            self.synced.set_len(len.min(old_len));
            self.synced.take_pages(&self.live, from, to);
            // Cuts what the taken pages hold beyond the length.
            self.synced
                .set_len(len.max(to).next_multiple_of(PAGE_BYTES));
            self.synced.set_len(len);
        }
    }

    /// A failed sync: each change is durable or lost, as drawn (invariant 3).
    pub fn fail_sync(&mut self, upto: u64, rng: &mut StdRng) {
        for change in self.take_pending(upto) {
            change.survive(&mut self.synced, rng);
        }
    }

    fn take_pending(&mut self, upto: u64) -> Vec<Change> {
        let count = upto.saturating_sub(self.settled);
        let count =
            usize::try_from(count).map_or(self.pending.len(), |c| c.min(self.pending.len()));
        self.settled += count as u64;
        self.pending.drain(..count).collect()
    }

    /// What a machine finds after a power cut (invariant 2).
    pub fn after_crash(&self, rng: &mut StdRng) -> Inode {
        let found = match rng.random_range(0..4) {
            0 => self.synced.clone(),
            1 => {
                // All of it. Not what is read now: a failed sync may have left bytes there that
                // are not on the platter (invariant 3).
                let mut found = self.synced.clone();
                self.pending
                    .iter()
                    .for_each(|change| change.apply(&mut found));
                found
            }
            _ => {
                let mut found = self.synced.clone();
                for change in &self.pending {
                    change.survive(&mut found, rng);
                }
                found
            }
        };
        Inode::durable(found)
    }

    /// A file whose content is all durable.
    pub fn durable(content: Content) -> Inode {
        Inode {
            synced: content.clone(),
            live: content,
            ..Inode::default()
        }
    }

    /// Damage on the platter: changes what is read and what is durable.
    pub fn damage(&mut self, mut harm: impl FnMut(&mut Content) -> bool) -> bool {
        harm(&mut self.synced);
        harm(&mut self.live)
    }
}

impl Change {
    fn apply(&self, content: &mut Content) {
        match self {
            Change::Write { offset, data } => content.write(*offset, data),
            Change::Zero { offset, len } => content.zero(*offset, *len),
            Change::SetLen(len) => content.set_len(*len),
        }
    }

    /// The bytes that change in a file of `old_len` bytes.
    fn range(&self, old_len: u64) -> (u64, u64) {
        match self {
            Change::Write { offset, data } => (*offset, offset + data.len() as u64),
            Change::Zero { offset, len } => (*offset, offset + len),
            Change::SetLen(len) => (old_len.min(*len), old_len.max(*len)),
        }
    }

    fn len_after(&self, old_len: u64) -> u64 {
        match self {
            Change::Write { .. } | Change::Zero { .. } => {
                let (from, to) = self.range(old_len);
                if from == to { old_len } else { old_len.max(to) }
            }
            Change::SetLen(len) => *len,
        }
    }

    /// Reaches the platter, or not, or in part.
    fn survive(&self, content: &mut Content, rng: &mut StdRng) {
        match rng.random_range(0..3) {
            0 => {}
            1 => self.apply(content),
            _ => match self {
                Change::Write { offset, data } => tear(content, *offset, data, rng),
                Change::SetLen(_) => {}
                Change::Zero { offset, len } => {
                    // A part from the start, up to a sector's border.
                    let sectors = rng.random_range(0..=len / SECTOR_BYTES);
                    let end = (offset + sectors * SECTOR_BYTES) / SECTOR_BYTES * SECTOR_BYTES;
                    content.zero(*offset, end.saturating_sub(*offset).min(*len));
                }
            },
        }
    }
}

/// Writes a drawn subset of the sectors; the length may have been stored without them.
fn tear(content: &mut Content, offset: u64, data: &[u8], rng: &mut StdRng) {
    let mut done = 0;
    while done < data.len() {
        let at = offset + done as u64;
        let border = (at / SECTOR_BYTES + 1) * SECTOR_BYTES;
        // At most a sector, so it fits.
        let size = ((border - at) as usize).min(data.len() - done);
        if rng.random() {
            content.write(at, &data[done..done + size]);
        }
        done += size;
    }
    if rng.random() {
        let end = offset + data.len() as u64;
        content.set_len(content.len().max(end));
    }
}
