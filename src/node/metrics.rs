//! Counters of the node's calls, as Prometheus text.

use crate::proto::Call;
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use std::fmt::Write;
use std::time::Duration;

/// Kinds of calls, by position; the label `call`.
const KINDS: [&str; 8] = [
    "hello",
    "mutate",
    "stat",
    "list",
    "resolve",
    "put_chunk",
    "get_chunk",
    "other",
];
/// Latencies are kept from 1 µs to 10 minutes with two significant digits: 20 KiB a kind.
const MICROS_MAX: u64 = 600_000_000;

struct Kind {
    failed: u64,
    micros: Histogram<u64>,
    sum: Duration,
}

/// Calls served since the start.
pub struct Metrics {
    kinds: [Mutex<Kind>; KINDS.len()],
}

impl Default for Metrics {
    fn default() -> Self {
        let kind = || {
            let micros = Histogram::new_with_bounds(1, MICROS_MAX, 2).expect("fixed bounds fit");
            Mutex::new(Kind {
                failed: 0,
                micros,
                sum: Duration::ZERO,
            })
        };
        Metrics {
            kinds: std::array::from_fn(|_| kind()),
        }
    }
}

impl Metrics {
    /// The kind a call is counted under.
    pub fn kind_of(&self, call: &Call) -> usize {
        match call {
            Call::Hello { .. } => 0,
            Call::Mutate { .. } => 1,
            Call::Stat { .. } | Call::StatMany { .. } => 2,
            Call::List { .. } => 3,
            Call::Resolve { .. } => 4,
            Call::PutChunk { .. } => 5,
            Call::GetChunk { .. } => 6,
            _ => 7,
        }
    }

    pub fn record(&self, kind: usize, took: Duration, failed: bool) {
        let mut kind = self.kinds[kind].lock();
        kind.micros
            .saturating_record((took.as_micros() as u64).max(1));
        kind.sum += took;
        kind.failed += u64::from(failed);
    }

    /// The counters in Prometheus' text format.
    pub fn text(&self) -> String {
        let mut out = String::from(
            "# HELP dfs_call_seconds Time to serve a call.\n# TYPE dfs_call_seconds summary\n",
        );
        let mut failures = String::from(
            "# HELP dfs_call_failures_total Calls answered with an error.\n\
             # TYPE dfs_call_failures_total counter\n",
        );
        for (name, kind) in KINDS.iter().zip(&self.kinds) {
            let kind = kind.lock();
            for quantile in [0.5, 0.99, 0.999] {
                let seconds = kind.micros.value_at_quantile(quantile) as f64 / 1e6;
                let _ = writeln!(
                    out,
                    "dfs_call_seconds{{call=\"{name}\",quantile=\"{quantile}\"}} {seconds}"
                );
            }
            let (sum, count) = (kind.sum.as_secs_f64(), kind.micros.len());
            let _ = writeln!(out, "dfs_call_seconds_sum{{call=\"{name}\"}} {sum}");
            let _ = writeln!(out, "dfs_call_seconds_count{{call=\"{name}\"}} {count}");
            let _ = writeln!(
                failures,
                "dfs_call_failures_total{{call=\"{name}\"}} {}",
                kind.failed
            );
        }
        out + &failures
    }
}

/// Adds one gauge.
pub fn gauge(out: &mut String, name: &str, help: &str, value: u64) {
    let _ = writeln!(
        out,
        "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}"
    );
}
