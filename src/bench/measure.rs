//! Runs one request shape from many tasks and counts.

use crate::env::Env;
use crate::error::{Error, Result};
use futures::future::BoxFuture;
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;

/// Longest latency told apart: 10 minutes in microseconds.
const MICROS_MAX: u64 = 600_000_000;

/// One phase of a benchmark.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measured {
    /// What was done, as a short name.
    pub phase: String,
    /// Requests (or files) done.
    pub count: u64,
    pub seconds: f64,
    pub per_second: f64,
    /// Bytes of content moved; 0 for names only.
    pub bytes: u64,
    pub mib_per_second: f64,
    pub clients: usize,
    /// `None` where one request is the whole phase.
    pub latency: Option<Percentiles>,
}

/// Latencies of single requests, milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Percentiles {
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
}

impl Measured {
    pub fn new(phase: &str, count: u64, bytes: u64, clients: usize, took: Duration) -> Measured {
        let seconds = took.as_secs_f64().max(1e-9);
        Measured {
            phase: phase.to_owned(),
            count,
            seconds,
            per_second: count as f64 / seconds,
            bytes,
            mib_per_second: bytes as f64 / seconds / f64::from(1 << 20),
            clients,
            latency: None,
        }
    }
}

/// How much of a phase is done at most.
#[derive(Clone, Copy)]
pub struct Bounds {
    pub count: u64,
    pub clients: usize,
    pub duration: Option<Duration>,
    /// Content bytes of one request.
    pub bytes: u64,
}

/// Runs `request(task, number)` for numbers `0..count`, `clients` at a time, until the count or
/// the duration is reached.
pub async fn run(
    env: &Env,
    phase: &str,
    bounds: Bounds,
    request: impl Fn(usize, u64) -> BoxFuture<'static, Result<()>> + Send + Sync + 'static,
) -> Result<Measured> {
    let shared = Arc::new(Shared {
        next: AtomicU64::new(0),
        done: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        micros: Mutex::new(Histogram::new_with_bounds(1, MICROS_MAX, 3).expect("fixed bounds")),
        request: Box::new(request),
    });
    let started = env.clock.now();
    let end = bounds.duration.map(|duration| started + duration);
    let (send, mut ended) = mpsc::channel(bounds.clients.max(1));
    for task in 0..bounds.clients {
        let (shared, env2, send) = (shared.clone(), env.clone(), send.clone());
        let work = async move {
            let result = shared.work(&env2, task, bounds.count, end).await;
            // Nobody listens where the phase was dropped.
            let _ = send.send(result).await;
        };
        env.spawn.spawn("bench", Box::pin(work));
    }
    drop(send);
    let _stop = StopAtEnd(shared.clone());
    let mut failed = None;
    while let Some(result) = ended.recv().await {
        if let Err(error) = result {
            shared.stop.store(true, Ordering::Relaxed);
            failed.get_or_insert(error);
        }
    }
    if let Some(error) = failed {
        return Err(Error {
            message: format!("{phase}: {}", error.message),
            ..error
        });
    }
    let took = env.clock.now().saturating_sub(started);
    let done = shared.done.load(Ordering::Relaxed);
    let mut measured = Measured::new(phase, done, done * bounds.bytes, bounds.clients, took);
    measured.latency = Some(percentiles(&shared.micros.lock()));
    Ok(measured)
}

type Request = dyn Fn(usize, u64) -> BoxFuture<'static, Result<()>> + Send + Sync;

struct Shared {
    next: AtomicU64,
    done: AtomicU64,
    stop: AtomicBool,
    micros: Mutex<Histogram<u64>>,
    request: Box<Request>,
}

/// No task begins another request once the phase is over, or is dropped in the middle.
struct StopAtEnd(Arc<Shared>);

impl Drop for StopAtEnd {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    async fn work(&self, env: &Env, task: usize, count: u64, end: Option<Duration>) -> Result<()> {
        // Each task counts for itself; merging at the end keeps the tasks out of each other's way.
        let mut micros = Histogram::<u64>::new_with_bounds(1, MICROS_MAX, 3).expect("fixed bounds");
        let mut result = Ok(());
        while !self.stop.load(Ordering::Relaxed) {
            let started = env.clock.now();
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= count || end.is_some_and(|end| started >= end) {
                break;
            }
            result = (self.request)(task, number).await;
            if result.is_err() {
                break;
            }
            let took = env.clock.now().saturating_sub(started).as_micros() as u64;
            micros.saturating_record(took.max(1));
            self.done.fetch_add(1, Ordering::Relaxed);
        }
        self.micros.lock().add(&micros).expect("the same bounds");
        result
    }
}

fn percentiles(micros: &Histogram<u64>) -> Percentiles {
    let at = |quantile| micros.value_at_quantile(quantile) as f64 / 1000.0;
    Percentiles {
        p50_ms: at(0.5),
        p90_ms: at(0.9),
        p99_ms: at(0.99),
        p999_ms: at(0.999),
        max_ms: micros.max() as f64 / 1000.0,
    }
}
