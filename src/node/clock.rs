//! The time of one group as its leader counts it: the newest value in the state plus what the
//! monotonic clock counted since it was learned.

use crate::env::Env;
use crate::types::ShardTime;
use parking_lot::Mutex;
use std::time::Duration;

/// Counts the time of one group.
pub struct GroupClock {
    env: Env,
    last: Mutex<(ShardTime, Duration)>,
}

impl GroupClock {
    /// Begins at 0: the state takes the maximum, so until [`GroupClock::set`] its time only stands
    /// still.
    pub fn new(env: &Env) -> GroupClock {
        GroupClock {
            env: env.clone(),
            last: Mutex::new((ShardTime(0), env.clock.now())),
        }
    }

    /// Counts on from this, the newest value in the state; never back.
    pub fn set(&self, time: ShardTime) {
        let now = self.now();
        *self.last.lock() = (time.max(now), self.env.clock.now());
    }

    pub fn now(&self) -> ShardTime {
        let (time, at) = *self.last.lock();
        let counted = self.env.clock.now().saturating_sub(at).as_millis();
        time.plus_ms(u64::try_from(counted).unwrap_or(u64::MAX))
    }
}
