//! Whole clusters in one thread, from one seed: the real node and client code over a simulated
//! network, simulated time and simulated disks. Tests only.
//!
//! ```text
//! run ─ schedule (what goes wrong when)       workload (clients at work) ─ history
//!    └─ cluster ─ machine (disk, clocks, lives)      oracle (was it right?) ─┘
//!              └─ world (hosts, time) ─ network ─ socket (quinn's)
//! ```
//! # Determinism
//! A seed decides everything: time moves in steps of a millisecond when all hosts wait, all
//! randomness comes from seeded generators, nothing runs on a thread of its own. Only TLS draws
//! from the system, as do the maps of the standard library; neither is in a decision. `trace`
//! tells when that stops being true. (`tokio::select!` draws its first branch from a generator
//! that cannot be seeded without `--cfg tokio_unstable`: say `biased` in what runs here.)
//!
//! # Why no ready-made simulator
//! In `turmoil` all hosts share one rate of time and none can be stopped: neither drifting clocks
//! nor SIGSTOP can be had. What remains of it, a step loop and datagrams with a latency, is
//! `world` and `network`.

mod cluster;
mod content;
mod damaged_logs;
mod history;
mod machine;
mod network;
mod oracle;
mod panics;
mod recorder;
mod run;
mod schedule;
mod socket;
mod trace;
mod workload;
mod world;

mod tests;
