//! The runtime that openraft's tasks run on: tokio's, but long sleeps end at the **ticks** of a
//! clock that all replicas of a node share. Called by openraft only; `kinds` names it.
//!
//! openraft looks at each replica's timers every 15 ms, at a time of each replica's own. A hundred
//! idle replicas would wake their thread six thousand times a second, and nearly all of what an
//! idle node costs is waking up. With shared ticks it wakes for all of them at once, and their
//! signs of life (`group::signs_of_life`), which are sent at every other tick, or every fourth of an
//! idle group's, find each other on their way. An idle group's timers look at every other one only.

use super::Timers;
use crate::env::until_next;
use openraft::impls::TokioRuntime;
use openraft::{AsyncRuntime, OptionalSend};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task_local;
use tokio::time::Instant;

type TokioInstant = <TokioRuntime as AsyncRuntime>::Instant;

/// What is no longer than this is no timer, but openraft's way to let something else go first.
const SHORT: Duration = Duration::from_micros(100);

task_local! {
    static TICKS: Ticks;
}

/// The clock of ticks.
#[derive(Clone, Debug)]
pub(super) struct Ticks {
    /// A tick, like all that are whole intervals from it.
    from: Instant,
    heartbeat: Duration,
    /// Every other one is enough.
    idle: Arc<AtomicBool>,
}

impl Ticks {
    /// Two in a heartbeat, one for an idle group. `now`: the time by the node's clock, the same one
    /// for all its replicas.
    pub(super) fn new(timers: Timers, now: Duration) -> Ticks {
        let here = Instant::now();
        Ticks {
            from: here.checked_sub(now).unwrap_or(here),
            heartbeat: timers.heartbeat,
            idle: Arc::default(),
        }
    }

    /// Whether a replica needs only the ticks at which there are signs of life: nobody waits for
    /// its group.
    pub(super) fn set_idle(&self, idle: bool) {
        self.idle.store(idle, Ordering::Relaxed);
    }

    fn interval(&self) -> Duration {
        match self.idle.load(Ordering::Relaxed) {
            true => self.heartbeat,
            false => self.heartbeat / 2,
        }
    }

    /// The next time for signs of life, and its number.
    pub(super) fn heartbeat(&self) -> (Instant, u128) {
        let now = Instant::now();
        let passed = now - self.from;
        let number = passed.as_nanos() / self.heartbeat.as_nanos().max(1) + 1;
        (now + until_next(passed, self.heartbeat), number)
    }

    /// Runs a future whose tasks, and theirs, sleep until ticks.
    pub(super) async fn scope<F: Future>(self, future: F) -> F::Output {
        TICKS.scope(self, future).await
    }
}

/// Tokio, whose sleeping tasks wake at ticks.
#[derive(Debug)]
pub(super) struct TickingRuntime(TokioRuntime);

impl TickingRuntime {
    fn waking(deadline: TokioInstant) -> TokioInstant {
        let now = <TokioInstant as openraft::rt::Instant>::now();
        let left = deadline.max(now) - now;
        if left <= SHORT {
            return deadline;
        }
        let wait = TICKS.try_with(|ticks| {
            let due = (Instant::now() + left).saturating_duration_since(ticks.from);
            left + until_next(due, ticks.interval())
        });
        now + wait.unwrap_or(left)
    }
}

impl AsyncRuntime for TickingRuntime {
    type JoinError = <TokioRuntime as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <TokioRuntime as AsyncRuntime>::Sleep;
    type Instant = TokioInstant;
    type TimeoutError = <TokioRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> =
        <TokioRuntime as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = <TokioRuntime as AsyncRuntime>::ThreadLocalRng;
    type Mpsc = <TokioRuntime as AsyncRuntime>::Mpsc;
    type Watch = <TokioRuntime as AsyncRuntime>::Watch;
    type Oneshot = <TokioRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        match TICKS.try_with(Ticks::clone) {
            Ok(ticks) => TokioRuntime::spawn(ticks.scope(future)),
            Err(_) => TokioRuntime::spawn(future),
        }
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        TokioRuntime::sleep(duration)
    }

    /// openraft's timers; pauses and deadlines are as they are asked for.
    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        TokioRuntime::sleep_until(Self::waking(deadline))
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        TokioRuntime::is_panic(join_error)
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        TokioRuntime::thread_rng()
    }

    fn new(threads: usize) -> Self {
        TickingRuntime(TokioRuntime::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }

    fn spawn_blocking<F, T>(work: F) -> impl Future<Output = Result<T, io::Error>> + Send
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        TokioRuntime::spawn_blocking(work)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMERS: Timers = Timers {
        heartbeat: Duration::from_millis(80),
        election_min: Duration::from_millis(250),
        election_max: Duration::from_millis(400),
        lease_reads: true,
    };

    /// After how many milliseconds from the begin of the test a task of `future`'s was woken.
    async fn woken(after: Duration) -> u128 {
        let begin = Instant::now();
        let now = <TokioInstant as openraft::rt::Instant>::now();
        let sleeper = TickingRuntime::spawn(TickingRuntime::sleep_until(now + after));
        sleeper.await.unwrap();
        begin.elapsed().as_millis()
    }

    #[tokio::test(start_paused = true)]
    async fn timers_end_at_ticks_but_for_the_shortest() {
        // The clock shows 13 ms: ticks are 27, 67, 107 ms from now.
        let ticks = Ticks::new(TIMERS, Duration::from_millis(13));
        let timer = |ms| ticks.clone().scope(woken(Duration::from_millis(ms)));
        assert_eq!(timer(5).await, 27);
        // Now there is one.
        assert_eq!(timer(1).await, 40);
        assert_eq!(timer(39).await, 40);
        assert_eq!(timer(41).await, 80);
        ticks.set_idle(true);
        assert_eq!(timer(39).await, 40, "240 by the clock");
        assert_eq!(timer(1).await, 80);
        let short = ticks.scope(woken(SHORT)).await;
        assert_eq!(short, 1, "as long as tokio's shortest");
        assert_eq!(woken(Duration::from_millis(5)).await, 5, "others' sleeps");
    }

    #[tokio::test(start_paused = true)]
    async fn all_replicas_of_a_node_have_the_same_ticks() {
        let clock = Instant::now() - Duration::from_millis(33);
        let mut times = Vec::new();
        for pause in [0, 11, 30] {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            times.push(Ticks::new(TIMERS, clock.elapsed()).heartbeat());
        }
        let (first, number) = times[0];
        assert_eq!(((first - clock).as_millis(), number), (80, 1));
        assert_eq!(times, [times[0]; 3]);
        tokio::time::sleep_until(first).await;
        let (next, number) = Ticks::new(TIMERS, clock.elapsed()).heartbeat();
        assert_eq!(((next - clock).as_millis(), number), (160, 2));
    }
}
