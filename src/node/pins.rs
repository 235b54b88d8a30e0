//! When chunks last arrived here, and which are being used right now. Told by `chunk_calls` and
//! `meta_calls`, asked by `garbage`, which argues why this is enough.
//!
//! A **hold** keeps a chunk from being removed while it lives; its end counts as an arrival. A
//! **claim** is the right to remove a chunk; while it lives, holds of that chunk wait. Neither is
//! given while the other is there.
//!
//! Arrivals are kept by bucket, not by chunk: memory is bounded (16 MiB) however many chunks
//! come. Chunks that share a bucket only let each other stay longer. With about 50 arrivals a
//! second, day and night, a third of what could go after 24 hours goes at each look; the rest
//! follows as buckets age.
//!
//! 1. No chunk is held and claimed at the same time.
//! 2. A claim as of `T` with the grace `G` is given only if no hold of the chunk ended at or after
//!    `T - G`, and `T - G` is not before the start of the process.

use crate::env::Clock;
use crate::types::ChunkHash;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// Locks; each has its own buckets, made when the first chunk of it comes.
const STRIPES: usize = 1_024;
/// Buckets of one stripe.
const BUCKETS: usize = 4_096;
/// Arrivals are told apart this finely; they count as later than they were, never as earlier.
const TICK_MS: u128 = 100;

/// The table. See the module.
pub struct Pins {
    clock: Arc<dyn Clock>,
    /// The process's start counts as an arrival of everything.
    start: Duration,
    stripes: Vec<Stripe>,
}

#[derive(Default)]
struct Stripe {
    state: Mutex<State>,
    /// A claim has ended.
    freed: Notify,
}

#[derive(Default)]
struct State {
    /// Tick of the last arrival in each bucket; empty: none yet.
    arrivals: Vec<u32>,
    held: HashMap<ChunkHash, u32>,
    claimed: HashSet<ChunkHash>,
}

/// A chunk is in use. Its end counts as an arrival.
pub struct Hold {
    pins: Arc<Pins>,
    hash: ChunkHash,
}

/// The right to remove a chunk.
pub struct Claim {
    pins: Arc<Pins>,
    hash: ChunkHash,
}

impl Pins {
    pub fn new(clock: Arc<dyn Clock>) -> Arc<Pins> {
        let start = clock.now();
        let stripes = (0..STRIPES).map(|_| Stripe::default()).collect();
        Arc::new(Pins {
            clock,
            start,
            stripes,
        })
    }

    /// Monotonic time of the start.
    pub fn start(&self) -> Duration {
        self.start
    }

    fn place(hash: &ChunkHash) -> (usize, usize) {
        let [a, b, c, d, ..] = hash.0;
        let number = |high: u8, low: u8| usize::from(u16::from_be_bytes([high, low]));
        (number(a, b) % STRIPES, number(c, d) % BUCKETS)
    }

    fn stripe(&self, hash: &ChunkHash) -> &Stripe {
        &self.stripes[Self::place(hash).0]
    }

    /// The first tick that begins after `time`. A process of 13 years has no tick left: nothing
    /// counts as old then.
    fn tick(&self, time: Duration) -> u32 {
        let millis = time.saturating_sub(self.start).as_millis();
        u32::try_from(millis / TICK_MS + 1).unwrap_or(u32::MAX)
    }

    /// Holds a chunk; waits while it is being removed.
    pub async fn hold(self: &Arc<Self>, hash: ChunkHash) -> Hold {
        let stripe = self.stripe(&hash);
        loop {
            // Made before the look: the end of a claim after the look wakes it.
            let freed = stripe.freed.notified();
            {
                let mut state = stripe.state.lock();
                if !state.claimed.contains(&hash) {
                    *state.held.entry(hash).or_default() += 1;
                    let pins = self.clone();
                    return Hold { pins, hash };
                }
            }
            freed.await;
        }
    }

    /// Invariant 2, as things are now.
    pub fn is_old(&self, hash: &ChunkHash, as_of: Duration, grace: Duration) -> bool {
        let state = self.stripe(hash).state.lock();
        self.may_go(&state, hash, as_of, grace)
    }

    /// The right to remove a chunk that has neither arrived nor been in use within `grace` before
    /// `as_of`; `None`: it stays.
    pub fn claim(
        self: &Arc<Self>,
        hash: ChunkHash,
        as_of: Duration,
        grace: Duration,
    ) -> Option<Claim> {
        let mut state = self.stripe(&hash).state.lock();
        let free = self.may_go(&state, &hash, as_of, grace) && state.claimed.insert(hash);
        free.then(|| Claim {
            pins: self.clone(),
            hash,
        })
    }

    fn may_go(&self, state: &State, hash: &ChunkHash, as_of: Duration, grace: Duration) -> bool {
        let Some(before) = as_of.checked_sub(grace) else {
            return false;
        };
        let last = state.arrivals.get(Self::place(hash).1).copied();
        let last_ms = u128::from(last.unwrap_or(0)) * TICK_MS;
        before >= self.start
            && last != Some(u32::MAX)
            && (before - self.start).as_millis() >= last_ms
            && !state.held.contains_key(hash)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let now = self.pins.tick(self.pins.clock.now());
        let (_, bucket) = Pins::place(&self.hash);
        let mut state = self.pins.stripe(&self.hash).state.lock();
        if state.arrivals.is_empty() {
            state.arrivals = vec![0; BUCKETS];
        }
        let last = &mut state.arrivals[bucket];
        *last = (*last).max(now);
        match state.held.get_mut(&self.hash) {
            Some(holds) if *holds > 1 => *holds -= 1,
            _ => {
                state.held.remove(&self.hash);
            }
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let stripe = self.pins.stripe(&self.hash);
        stripe.state.lock().claimed.remove(&self.hash);
        stripe.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::sim::SimClock;

    const HASH: ChunkHash = ChunkHash([7; 32]);
    const GRACE: Duration = Duration::from_secs(60);

    fn table() -> (Arc<Pins>, Arc<SimClock>) {
        let clock = Arc::new(SimClock::manual());
        clock.advance(Duration::from_secs(5));
        (Pins::new(clock.clone()), clock)
    }

    #[tokio::test]
    async fn the_start_counts_as_an_arrival_of_everything() {
        let (pins, clock) = table();
        clock.advance(GRACE - Duration::from_millis(1));
        assert!(pins.claim(HASH, clock.now(), GRACE).is_none());
        clock.advance(Duration::from_millis(1));
        assert!(pins.claim(HASH, clock.now(), GRACE).is_some());
    }

    #[tokio::test]
    async fn a_held_chunk_stays_and_a_hold_that_ended_counts_from_its_end() {
        let (pins, clock) = table();
        let (one, two) = (pins.hold(HASH).await, pins.hold(HASH).await);
        clock.advance(10 * GRACE);
        drop(one);
        assert!(pins.claim(HASH, clock.now(), Duration::ZERO).is_none());
        drop(two);
        let ended = clock.now();
        clock.advance(2 * GRACE);
        // What was seen before the end says nothing of what came after it.
        assert!(pins.claim(HASH, ended, GRACE).is_none());
        assert!(pins.claim(HASH, ended + GRACE / 2, GRACE).is_none());
        assert!(pins.is_old(&HASH, clock.now(), GRACE));
        assert!(pins.claim(HASH, clock.now(), GRACE).is_some());
    }

    /// A clock may show the same time twice.
    #[tokio::test]
    async fn a_hold_that_ended_at_the_moment_of_the_look_counts_as_after_it() {
        let (pins, clock) = table();
        let as_of = clock.now();
        drop(pins.hold(HASH).await);
        assert!(pins.claim(HASH, as_of, Duration::ZERO).is_none());
        clock.advance(Duration::from_millis(100));
        assert!(pins.claim(HASH, as_of, Duration::ZERO).is_none());
        assert!(pins.claim(HASH, clock.now(), Duration::ZERO).is_some());
    }

    #[tokio::test]
    async fn a_hold_waits_for_a_claim_and_there_is_one_claim() {
        let (pins, clock) = table();
        clock.advance(GRACE);
        let claim = pins.claim(HASH, clock.now(), GRACE).unwrap();
        assert!(pins.claim(HASH, clock.now(), GRACE).is_none());
        let mut hold = Box::pin(pins.hold(HASH));
        assert!(futures::poll!(&mut hold).is_pending());
        drop(claim);
        let held = hold.await;
        assert!(pins.claim(HASH, clock.now(), GRACE).is_none());
        drop(held);
    }
}
