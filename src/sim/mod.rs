//! Whole clusters in one thread, from one seed: the real node and client code over a simulated
//! network, simulated time and simulated disks. Tests only.
//!
//! ```text
//! run ─ schedule (what goes wrong when) ─ acts     workload (clients at work) ─ history
//!  │                                operator, stranger                           │
//!  ├─ invariants (what must hold) ─────────────────────── oracle (was it right?) ─┘
//!  └─ cluster ─ birth (a node's process) ─ machine (disk, clocks, lives)
//!            └─ world (hosts, time) ─ network ─ socket (quinn's)
//! ```
//! # Determinism
//! A seed decides everything: time moves in steps of a millisecond when all hosts wait, all
//! randomness comes from seeded generators, nothing runs on a thread of its own. What takes its
//! randomness from the system (TLS, QUIC's ids, maps, tokio) gets it from `dice`. tokio seeds a
//! runtime with a count of the process, so each run has a process of its own (`tests`). `trace`
//! tells when two runs of a seed part.
//!
//! # Why no ready-made simulator
//! In `turmoil` all hosts share one rate of time and none can be stopped: neither drifting clocks
//! nor SIGSTOP can be had. What remains of it, a step loop and datagrams with a latency, is
//! `world` and `network`.

mod act;
mod acts;
mod birth;
mod cluster;
mod content;
mod damaged_logs;
mod damaged_records;
mod dice;
mod history;
mod invariants;
mod lost_chunks;
mod machine;
mod network;
mod operator;
mod oracle;
mod panics;
mod recorder;
mod run;
mod schedule;
mod socket;
mod stranger;
mod trace;
mod workload;
mod world;

mod tests;
