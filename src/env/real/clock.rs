//! The operating system's clocks, for `env::real`.

use crate::env::Clock;
use crate::types::WallTime;
use rustix::time::{ClockId, clock_gettime};
use std::time::{Duration, Instant, SystemTime};

/// Monotonic time since this was made, and the system's wall clock.
#[derive(Debug)]
pub struct RealClock {
    origin: Instant,
}

impl RealClock {
    #[allow(clippy::disallowed_methods)] // This is the clock that everything else asks.
    pub fn new() -> Self {
        RealClock {
            origin: Instant::now(),
        }
    }
}

impl Default for RealClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for RealClock {
    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn slept(&self) -> Duration {
        let read = |id| Duration::try_from(clock_gettime(id)).unwrap_or_default();
        // In this order: a pause between the two makes it more, never less.
        let monotonic = read(ClockId::Monotonic);
        read(ClockId::Boottime).saturating_sub(monotonic)
    }

    #[allow(clippy::disallowed_methods)] // This is the clock that everything else asks.
    fn wall(&self) -> WallTime {
        let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => WallTime(millis(after)),
            // A machine whose clock was never set.
            Err(before) => WallTime(-millis(before.duration())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monotonic_time_never_runs_back() {
        let clock = RealClock::new();
        let first = clock.now();
        assert!(clock.now() >= first);
    }

    #[test]
    fn a_machine_that_is_awake_does_not_sleep() {
        let clock = RealClock::new();
        let before = clock.slept();
        let slept = (0..1_000).map(|_| clock.slept().saturating_sub(before));
        assert!(slept.min().unwrap() < Duration::from_millis(1));
    }

    #[test]
    fn wall_time_is_in_this_century() {
        let year_2020_ms = 1_577_836_800_000;
        assert!(RealClock::new().wall().0 > year_2020_ms);
    }
}
