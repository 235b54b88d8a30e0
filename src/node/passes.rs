//! Pure: what a pass over a node's chunks found, and when the next one is due. Called by
//! `repairs`.

use crate::types::ChunkHash;
use std::time::Duration;

/// A pass follows at the latest so long after the last.
const PASS_EVERY: Duration = Duration::from_secs(600);
/// After a pass that changed something, or was the first with these nodes: longer than a beat. What
/// is wanted here is told by a shard's leader, which may hear later than this node that another one
/// is silent; its answer is of before then.
const AGAIN_AFTER: Duration = Duration::from_secs(2);
/// While something is missing the pause is doubled by each pass that changes nothing: it cannot be
/// had, or there is no space for it.
const AGAIN_MAX: Duration = Duration::from_secs(60);
/// While nothing is, it grows faster: to the longest one in a few steps.
const CALM: u32 = 8;
/// After a pass that left surplus copies because they were too young.
const SURPLUS_AGAIN: Duration = Duration::from_secs(20);
/// After a pass that broke off; doubled by each that follows, up to `AGAIN_MAX`.
const BROKEN_AGAIN: Duration = Duration::from_millis(200);
/// So many of the missing chunks are remembered, to see when they come.
const NAMED_MAX: usize = 64;

/// What one pass found, and did about it.
#[derive(Clone, Debug, Default)]
pub(super) struct Pass {
    /// Chunks that belong on this node.
    pub wanted: u64,
    /// Of these, not here in the end.
    pub missing: u64,
    /// Of the missing, those that every node has said it does not have, or not whole.
    pub lost: u64,
    /// Copies that do not belong here, in the end.
    pub surplus: u64,
    /// Copies that were fetched or let go.
    pub moved: u64,
    /// The first of the missing, with their lengths.
    pub named: Vec<(ChunkHash, u32)>,
}

impl Pass {
    pub fn lacks(&mut self, hash: ChunkHash, len: u32, lost: bool) {
        self.missing += 1;
        self.lost += u64::from(lost);
        if self.named.len() < NAMED_MAX {
            self.named.push((hash, len));
        }
    }

    /// All that belongs here is here, but for what is nowhere.
    pub fn is_settled(&self) -> bool {
        self.missing == self.lost
    }

    /// How long it should be until the next one, if nothing changes.
    fn longest_pause(&self) -> Duration {
        match (self.missing, self.surplus) {
            (0, 0) => PASS_EVERY,
            (0, _) => SURPLUS_AGAIN,
            _ => AGAIN_MAX,
        }
    }
}

/// The pauses between passes.
#[derive(Default)]
pub(super) struct Pauses {
    pause: Duration,
    /// The last one after a pass that broke off; zero once one did not.
    broken: Duration,
    /// What was missing, and lost, after the last whole pass.
    left: (u64, u64),
}

impl Pauses {
    /// Until the pass after this one. `anew`: it was the first under its ring and with these nodes.
    pub fn after(&mut self, pass: &Pass, anew: bool) -> Duration {
        let left = (pass.missing, pass.lost);
        let changed = anew || pass.moved > 0 || left != self.left;
        (self.left, self.broken) = (left, Duration::ZERO);
        let pause = match (changed, pass.missing) {
            (true, _) => AGAIN_AFTER,
            (false, 0) => self.pause * CALM,
            (false, _) => self.pause * 2,
        };
        self.pause = pause.clamp(AGAIN_AFTER, pass.longest_pause());
        self.pause
    }

    /// Until the pass after one that broke off.
    pub fn after_broken(&mut self, anew: bool) -> Duration {
        self.broken = match anew {
            true => BROKEN_AGAIN,
            false => (self.broken * 2).clamp(BROKEN_AGAIN, AGAIN_MAX),
        };
        self.broken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(missing: u64, lost: u64, surplus: u64) -> Pass {
        let mut pass = Pass {
            wanted: 1_000,
            surplus,
            ..Pass::default()
        };
        (0..missing).for_each(|number| pass.lacks(ChunkHash([7; 32]), 9, number < lost));
        pass
    }

    fn seconds(pauses: &mut Pauses, pass: &Pass, count: usize) -> Vec<u64> {
        let next = |_| pauses.after(pass, false).as_secs();
        (0..count).map(next).collect()
    }

    #[test]
    fn pauses_grow_while_nothing_changes() {
        let mut pauses = Pauses::default();
        let stuck = found(3, 1, 0);
        assert_eq!(pauses.after(&stuck, true).as_secs(), 2);
        assert_eq!(seconds(&mut pauses, &stuck, 6), [4, 8, 16, 32, 60, 60]);
        let mut moving = found(3, 1, 0);
        moving.moved = 1;
        assert_eq!(seconds(&mut pauses, &moving, 2), [2, 2]);
        assert_eq!(seconds(&mut pauses, &stuck, 2), [4, 8]);
        assert_eq!(seconds(&mut pauses, &found(3, 2, 0), 2), [2, 4]);
        assert_eq!(pauses.after(&stuck, true).as_secs(), 2, "other nodes");
    }

    #[test]
    fn what_is_whole_is_looked_at_seldom_but_soon_again_with_other_nodes() {
        let mut pauses = Pauses::default();
        for _ in 0..2 {
            assert_eq!(pauses.after(&found(0, 0, 0), true).as_secs(), 2);
            assert_eq!(
                seconds(&mut pauses, &found(0, 0, 0), 4),
                [16, 128, 600, 600]
            );
        }
        assert_eq!(pauses.after(&found(0, 0, 5), true).as_secs(), 2);
        assert_eq!(seconds(&mut pauses, &found(0, 0, 5), 3), [16, 20, 20]);
    }

    #[test]
    fn passes_that_break_off_are_tried_again_less_and_less() {
        let mut pauses = Pauses::default();
        pauses.after(&found(0, 0, 0), true);
        let mut next = |anew| pauses.after_broken(anew).as_millis();
        assert_eq!([next(false), next(false), next(false)], [200, 400, 800]);
        assert_eq!(next(true), 200);
        let last = (0..20).map(|_| next(false)).last();
        assert_eq!(last, Some(60_000));
    }

    #[test]
    fn what_is_nowhere_is_not_waited_for() {
        assert!(found(0, 0, 3).is_settled());
        assert!(found(2, 2, 0).is_settled());
        assert!(!found(2, 1, 0).is_settled());
        assert_eq!(found(100, 0, 0).named.len(), NAMED_MAX);
    }
}
