//! Pure: how much of the log a leader lets go. Called by `RaftGroup::compact`.
//!
//! Entries that are folded here may be needed by a member that lags, or by one that is being
//! filled by an image and goes on behind it: without them it would need another image, and under
//! steady writes another one after that. They are kept for it within bounds; a member beyond one
//! of them does not count any more and will get an image.

use crate::limits::GIB;
use std::collections::BTreeMap;
use std::time::Duration;

/// Entries kept for members that lag: some 40 bytes each of the log's memory.
pub(super) const CATCH_UP_ENTRIES: u64 = 1_000_000;
/// Bytes of entries kept for members that lag: 16 segments of the log.
pub(super) const CATCH_UP_BYTES: u64 = GIB;
/// A member that lags and has not come any further for this long does not count: it is down
/// rather than slow.
pub(super) const CATCH_UP_TIME: Duration = Duration::from_secs(600);

/// A member other than the leader.
#[derive(Clone, Copy, Debug)]
pub(super) struct Follower {
    pub(super) replica: u64,
    /// It has everything up to here; `None`: not heard of since the election.
    pub(super) matched: Option<u64>,
    /// It has got, or is getting, an image that holds everything up to here.
    pub(super) image: Option<u64>,
    /// That image is on its way now: the transport sees to it that it moves or breaks off.
    pub(super) receiving: bool,
}

/// The log as the leader has it, by index.
#[derive(Clone, Copy, Debug)]
pub(super) struct Log {
    /// Gone up to here.
    pub(super) purged: u64,
    /// Folded up to here: may go.
    pub(super) folded: u64,
    pub(super) last: u64,
}

/// Who stands where since when.
#[derive(Default)]
pub(super) struct Laggards {
    /// By replica: how far it was when it was seen to lag, and when it was first seen there.
    seen: BTreeMap<u64, (u64, Duration)>,
}

impl Laggards {
    /// Up to which index the log may go. `bytes_behind` tells the bytes of the entries behind an
    /// index; `now` is a monotonic time.
    pub(super) fn purge_to(
        &mut self,
        log: Log,
        followers: &[Follower],
        bytes_behind: impl Fn(u64) -> u64,
        now: Duration,
    ) -> u64 {
        let is_follower = |id: &u64| followers.iter().any(|f| f.replica == *id);
        self.seen.retain(|id, _| is_follower(id));
        let mut upto = log.folded;
        for follower in followers {
            // One that was not heard of may need anything that is left.
            let has = follower.matched.max(follower.image).unwrap_or(log.purged);
            let stalled = self.stalled(follower, has, log.last, now);
            let lags = has < upto;
            let reachable = has >= log.purged
                && log.last.saturating_sub(has) <= CATCH_UP_ENTRIES
                && stalled <= CATCH_UP_TIME;
            if lags && reachable && bytes_behind(has) <= CATCH_UP_BYTES {
                upto = has;
            }
        }
        upto
    }

    /// For how long a follower has been seen to lag without coming any further.
    fn stalled(&mut self, follower: &Follower, has: u64, last: u64, now: Duration) -> Duration {
        if has >= last || follower.receiving {
            self.seen.remove(&follower.replica);
            return Duration::ZERO;
        }
        let seen = self.seen.entry(follower.replica).or_insert((has, now));
        if seen.0 != has {
            *seen = (has, now);
        }
        now.saturating_sub(seen.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: Log = Log {
        purged: 10,
        folded: 100,
        last: 120,
    };
    const MINUTE: Duration = Duration::from_secs(60);

    fn at(replica: u64, matched: Option<u64>) -> Follower {
        Follower {
            replica,
            matched,
            image: None,
            receiving: false,
        }
    }

    fn small(_: u64) -> u64 {
        0
    }

    #[test]
    fn the_slowest_member_that_moves_holds_the_log() {
        let mut laggards = Laggards::default();
        let members = [at(2, Some(120)), at(3, Some(70))];
        assert_eq!(laggards.purge_to(LOG, &members, small, MINUTE), 70);
        let members = [at(2, Some(120)), at(3, Some(110))];
        assert_eq!(laggards.purge_to(LOG, &members, small, MINUTE), 100);
        assert_eq!(laggards.purge_to(LOG, &[], small, MINUTE), 100);
    }

    #[test]
    fn one_that_was_not_heard_of_yet_holds_all_of_it() {
        let members = [at(2, None)];
        let upto = Laggards::default().purge_to(LOG, &members, small, MINUTE);
        assert_eq!(upto, 10);
    }

    #[test]
    fn one_that_needs_an_image_anyway_does_not_count() {
        let members = [at(2, Some(5))];
        let upto = Laggards::default().purge_to(LOG, &members, small, MINUTE);
        assert_eq!(upto, 100);
    }

    #[test]
    fn one_that_stands_still_for_too_long_does_not_count() {
        let mut laggards = Laggards::default();
        let still = [at(2, Some(50))];
        assert_eq!(laggards.purge_to(LOG, &still, small, MINUTE), 50);
        assert_eq!(laggards.purge_to(LOG, &still, small, 11 * MINUTE), 50);
        assert_eq!(laggards.purge_to(LOG, &still, small, 12 * MINUTE), 100);
        let moved = [at(2, Some(51))];
        assert_eq!(laggards.purge_to(LOG, &moved, small, 13 * MINUTE), 51);
    }

    #[test]
    fn time_in_which_nothing_was_missing_is_no_lag() {
        let mut laggards = Laggards::default();
        let idle = Log {
            last: 50,
            folded: 50,
            ..LOG
        };
        laggards.purge_to(idle, &[at(2, Some(50))], small, MINUTE);
        let upto = laggards.purge_to(LOG, &[at(2, Some(50))], small, 90 * MINUTE);
        assert_eq!(upto, 50);
    }

    #[test]
    fn entries_behind_an_image_are_kept_while_it_is_sent_and_caught_up_with() {
        let mut laggards = Laggards::default();
        let receiving = Follower {
            image: Some(60),
            receiving: true,
            ..at(2, None)
        };
        assert_eq!(laggards.purge_to(LOG, &[receiving], small, MINUTE), 60);
        assert_eq!(laggards.purge_to(LOG, &[receiving], small, 90 * MINUTE), 60);
        let received = Follower {
            receiving: false,
            ..receiving
        };
        assert_eq!(laggards.purge_to(LOG, &[received], small, 91 * MINUTE), 60);
        assert_eq!(
            laggards.purge_to(LOG, &[received], small, 102 * MINUTE),
            100
        );
    }

    #[test]
    fn nobody_holds_more_than_the_bounds() {
        let full = |_| CATCH_UP_BYTES + 1;
        let members = [at(2, Some(50))];
        let upto = Laggards::default().purge_to(LOG, &members, full, MINUTE);
        assert_eq!(upto, 100);
        let long = Log {
            last: 60 + CATCH_UP_ENTRIES,
            ..LOG
        };
        let upto = Laggards::default().purge_to(long, &members, small, MINUTE);
        assert_eq!(upto, 100);
    }
}
