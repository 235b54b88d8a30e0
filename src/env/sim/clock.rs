//! Time for `env::sim`.

use crate::env::Clock;
use crate::types::WallTime;
use parking_lot::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// What the wall clock shows when the monotonic clock shows zero: 2026-01-01 00:00 UTC.
const WALL_ORIGIN_MS: i64 = 1_767_225_600_000;

/// A clock that moves by [`advance`](SimClock::advance), and with tokio's (paused) time if it
/// follows it. Its wall clock can be set apart, as that of a machine with a wrong date.
#[derive(Debug)]
pub struct SimClock {
    follows: Option<Instant>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    advanced: Duration,
    wall_skew_ms: i64,
    slept: Duration,
}

impl SimClock {
    /// Stands still until it is advanced.
    pub fn manual() -> Self {
        SimClock {
            follows: None,
            state: Mutex::default(),
        }
    }

    /// Zero is now. Call it inside a runtime.
    pub fn following_tokio() -> Self {
        SimClock {
            follows: Some(Instant::now()),
            ..Self::manual()
        }
    }

    pub fn advance(&self, by: Duration) {
        self.state.lock().advanced += by;
    }

    /// The machine sleeps; its monotonic clock stands still meanwhile.
    pub fn sleep(&self, time: Duration) {
        self.state.lock().slept += time;
    }

    /// Sets the wall clock ahead (or behind) of where it would be.
    pub fn skew_wall(&self, by_ms: i64) {
        self.state.lock().wall_skew_ms = by_ms;
    }
}

impl Clock for SimClock {
    fn now(&self) -> Duration {
        let followed = self.follows.map_or(Duration::ZERO, |zero| zero.elapsed());
        followed + self.state.lock().advanced
    }

    fn slept(&self) -> Duration {
        self.state.lock().slept
    }

    fn wall(&self) -> WallTime {
        let passed = i64::try_from(self.now().as_millis()).unwrap_or(i64::MAX);
        let skew = self.state.lock().wall_skew_ms;
        WallTime(WALL_ORIGIN_MS.saturating_add(passed).saturating_add(skew))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_by_advance_alone() {
        let clock = SimClock::manual();
        assert_eq!(clock.now(), Duration::ZERO);
        clock.advance(Duration::from_secs(2));
        clock.skew_wall(-500);
        assert_eq!(clock.now(), Duration::from_secs(2));
        assert_eq!(clock.wall(), WallTime(WALL_ORIGIN_MS + 1_500));
    }

    #[tokio::test(start_paused = true)]
    async fn a_following_clock_moves_with_paused_time() {
        let clock = SimClock::following_tokio();
        tokio::time::sleep(Duration::from_secs(3_600)).await;
        assert_eq!(clock.now(), Duration::from_secs(3_600));
    }
}
