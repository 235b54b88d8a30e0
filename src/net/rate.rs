//! Pure: how many of something there may be in a second. Used by `server`.

use std::collections::VecDeque;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// Lets through at most so many in any second. Remembers as many instants.
#[derive(Debug)]
pub(super) struct Rate {
    per_second: usize,
    /// When the last ones were let through, the oldest in front.
    passed: VecDeque<Duration>,
}

impl Rate {
    pub(super) fn new(per_second: usize) -> Rate {
        Rate {
            per_second,
            passed: VecDeque::with_capacity(per_second),
        }
    }

    /// Whether one more may pass at `now` (monotonic).
    pub(super) fn take(&mut self, now: Duration) -> bool {
        if self.passed.len() >= self.per_second {
            match self.passed.front() {
                Some(oldest) if now.saturating_sub(*oldest) >= SECOND => self.passed.pop_front(),
                _ => return false,
            };
        }
        self.passed.push_back(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn what_is_too_much_in_one_second_passes_in_the_next() {
        let mut rate = Rate::new(2);
        let passed = [0, 600, 700, 999, 1_000, 1_001, 1_599, 1_600].map(|at| rate.take(ms(at)));
        assert_eq!(passed, [true, true, false, false, true, false, false, true]);
        assert!(!Rate::new(0).take(ms(5_000)));
    }

    proptest! {
        #[test]
        fn no_second_ever_has_more(steps in proptest::collection::vec(0u64..300, 0..200)) {
            let (mut rate, mut now, mut passed) = (Rate::new(5), 0, Vec::new());
            for step in steps {
                now += step;
                if rate.take(ms(now)) {
                    passed.push(now);
                }
            }
            for window in passed.windows(6) {
                prop_assert!(window[5] - window[0] >= 1_000);
            }
        }
    }
}
