//! When to try again: growing, jittered pauses inside one deadline.

use crate::env::Rng;
use crate::error::Error;
use std::time::Duration;
use tokio::time::Instant;

/// The first pause: two round trips in a rack, half a heartbeat.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// The longest pause: a new leader is there within a second.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// The longest while a new leader is expected.
const QUICK_MAX: Duration = Duration::from_millis(100);
/// Quick pauses of one operation: for these two seconds and more a leader may be missing.
const QUICK_PAUSES: u32 = 40;
/// Whoever waits for longer than this is told for what, if the retry tells.
const TELL_AFTER: Duration = Duration::from_secs(2);
/// Attempts without a pause, one after the other: two nodes that name each other must not keep
/// us busy.
const AT_ONCE_MAX: u32 = 2;

/// How soon the next attempt is worth it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// We know better whom to ask.
    AtOnce,
    /// Somebody else will answer soon.
    Quick,
    /// With growing pauses.
    Usual,
}

/// The pauses of one operation.
#[derive(Debug)]
pub(crate) struct Retry {
    deadline: Instant,
    /// When to tell what is waited for; `None`: not, or it was told.
    tell_at: Option<Instant>,
    pause: Duration,
    /// Attempts that failed.
    pub(crate) failures: u32,
    /// The last ones that were followed by no pause.
    hurried: u32,
}

impl Retry {
    pub(crate) fn until(deadline: Instant) -> Self {
        Retry {
            deadline,
            tell_at: None,
            pause: PAUSE_MIN,
            failures: 0,
            hurried: 0,
        }
    }

    pub(crate) fn within(timeout: Duration) -> Self {
        Self::until(deadline_in(timeout))
    }

    /// Tells the user, once, when this takes long.
    pub(crate) fn telling(mut self) -> Self {
        self.tell_at = Some(Instant::now() + TELL_AFTER);
        self
    }

    /// How long the next attempt may take: what is left, `most` at the most.
    pub(crate) fn attempt(&self, most: Duration) -> Duration {
        self.deadline
            .saturating_duration_since(Instant::now())
            .min(most)
    }

    /// There was progress: the deadline begins anew.
    pub(crate) fn progressed(&mut self, timeout: Duration) {
        self.deadline = deadline_in(timeout);
        self.pause = PAUSE_MIN;
    }

    /// Waits before the next attempt; `Err` with the last cause when the time is over.
    pub(crate) async fn pause(
        &mut self,
        rng: &dyn Rng,
        cause: Error,
        pace: Pace,
    ) -> Result<(), Error> {
        self.failures = self.failures.saturating_add(1);
        let now = Instant::now();
        if self.tell_at.is_some_and(|at| at <= now) {
            self.tell_at = None;
            let left = self.deadline.saturating_duration_since(now).as_secs();
            if left > 0 {
                tracing::warn!("{}; trying for {left} s more", cause.message);
            }
        }
        if pace == Pace::AtOnce && self.hurried < AT_ONCE_MAX && Instant::now() < self.deadline {
            self.hurried += 1;
            return Ok(());
        }
        self.hurried = 0;
        let most = match pace != Pace::Usual && self.failures <= QUICK_PAUSES {
            true => QUICK_MAX,
            false => PAUSE_MAX,
        };
        let pause = jittered(self.pause.min(most), rng.u64());
        self.pause = (self.pause * 2).min(most);
        if Instant::now() + pause >= self.deadline {
            return Err(cause);
        }
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

/// A pause between half of `pause` and all of it, so that clients that failed together do not
/// come back together.
fn jittered(pause: Duration, random: u64) -> Duration {
    let half = pause / 2;
    let span = u64::try_from(half.as_nanos())
        .unwrap_or(u64::MAX)
        .saturating_add(1);
    half + Duration::from_nanos(random % span)
}

/// A long `timeout` must not run over the end of the clock.
fn deadline_in(timeout: Duration) -> Instant {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3_600);
    Instant::now() + timeout.min(YEAR)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::sim::SeededRng;

    #[test]
    fn pauses_stay_between_half_and_whole() {
        for random in [0, 1, 12_345, u64::MAX] {
            let pause = jittered(PAUSE_MAX, random);
            assert!(pause >= PAUSE_MAX / 2 && pause <= PAUSE_MAX, "{pause:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_leader_is_not_waited_for_in_long_pauses() {
        let rng = SeededRng::new(1);
        let mut retry = Retry::within(Duration::from_secs(60));
        for count in 0..QUICK_PAUSES {
            let before = Instant::now();
            let cause = Error::unavailable("no leader");
            let pace = match count % 5 {
                0..3 => Pace::AtOnce,
                _ => Pace::Quick,
            };
            retry.pause(&rng, cause, pace).await.unwrap();
            let pause = before.elapsed();
            assert!(pause <= QUICK_MAX, "{pause:?}");
            assert_eq!(pause.is_zero(), count % 5 < AT_ONCE_MAX, "{count}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_takes_long_is_told_once() {
        let rng = SeededRng::new(1);
        let mut retry = Retry::within(Duration::from_secs(60)).telling();
        let due = |retry: &Retry| retry.tell_at.is_some();
        let begun = Instant::now();
        while begun.elapsed() < TELL_AFTER {
            assert!(due(&retry), "after {:?}", begun.elapsed());
            let cause = Error::unavailable("no leader");
            retry.pause(&rng, cause, Pace::Usual).await.unwrap();
        }
        let cause = Error::unavailable("no leader");
        retry.pause(&rng, cause, Pace::Usual).await.unwrap();
        assert!(!due(&retry));
    }

    #[tokio::test(start_paused = true)]
    async fn gives_up_at_the_deadline_with_the_cause() {
        let rng = SeededRng::new(1);
        let started = Instant::now();
        let mut retry = Retry::within(Duration::from_secs(3));
        let error = loop {
            if let Err(error) = retry
                .pause(&rng, Error::unavailable("no quorum"), Pace::Usual)
                .await
            {
                break error;
            }
        };
        assert_eq!(error.message, "no quorum");
        assert!(started.elapsed() <= Duration::from_secs(3));
        assert!(retry.failures > 4 && retry.failures < 200);
    }
}
