//! What happened, as one number: two runs of a seed must give the same. With `DFS_SIM_TRACE=1`
//! every event is printed, to find where two runs part.
//!
//! Bytes of datagrams are not in it: `ring` asks the kernel for what TLS needs, past `dice`.

use parking_lot::Mutex;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// The hash over all events so far. Clones are the same trace.
#[derive(Clone)]
pub struct Trace(Arc<Mutex<State>>);

struct State {
    hasher: blake3::Hasher,
    events: u64,
    line: String,
    print: bool,
}

impl Default for Trace {
    fn default() -> Self {
        Trace(Arc::new(Mutex::new(State {
            hasher: blake3::Hasher::new(),
            events: 0,
            line: String::new(),
            print: std::env::var_os("DFS_SIM_TRACE").is_some_and(|on| on == "1"),
        })))
    }
}

impl Trace {
    /// Anything that happened.
    pub fn note(&self, now: Duration, what: std::fmt::Arguments<'_>) {
        let mut state = self.0.lock();
        let State {
            hasher,
            events,
            line,
            print,
        } = &mut *state;
        line.clear();
        // Writing to a string cannot fail.
        let _ = writeln!(line, "{:>10.3} {what}", now.as_secs_f64() * 1_000.0);
        hasher.update(line.as_bytes());
        *events += 1;
        if *print {
            print!("{line}");
        }
    }

    /// A datagram was sent, or came.
    pub fn datagram(
        &self,
        what: &str,
        now: Duration,
        from: SocketAddr,
        to: SocketAddr,
        bytes: usize,
    ) {
        self.note(now, format_args!("{what} {from} {to} {bytes}"));
    }

    /// Events so far, and their hash.
    pub fn sum(&self) -> (u64, String) {
        let state = self.0.lock();
        let hash = state.hasher.finalize().to_hex();
        (state.events, hash[..16].to_owned())
    }
}
