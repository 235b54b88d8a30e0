//! Pure: one thing done to the cluster, or undone. Drawn by `schedule`, done by `acts`.

use super::network::HostId;
use std::time::Duration;

/// One thing done to the cluster.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// A node's process ends, with its machine if `power`; it starts again after `down`.
    End {
        node: usize,
        power: bool,
        down: Duration,
    },
    /// The power goes at the so-manieth change of the disk from now.
    CutAtWrite {
        node: usize,
        writes: u64,
    },
    Pause {
        host: HostId,
        on: bool,
    },
    /// Nothing goes from any of the first to any of the others.
    Cut {
        from: Vec<HostId>,
        to: Vec<HostId>,
    },
    /// Nothing goes between the leader of the shard of `/` with these hosts, and all others.
    CutLeader {
        clients: Vec<HostId>,
    },
    /// All cuts are over.
    Mend,
    Loss(u32),
    Duplication(u32),
    Corruption(u32),
    Jitter(Duration),
    Largest(Option<usize>),
    WallSkew {
        node: usize,
        ms: i64,
    },
    Rate {
        host: HostId,
        rate: u32,
    },
    /// So many reads fail, on paths with this in them.
    ReadErrors {
        node: usize,
        path: &'static str,
        times: u64,
    },
    /// The next sync fails once.
    SyncError {
        node: usize,
    },
    SyncLatency {
        node: usize,
        latency: Duration,
    },
    FillDisk {
        node: usize,
        left: u64,
    },
    MendDisk {
        node: usize,
    },
    ClientDeath {
        client: usize,
    },
    /// A machine that was not in use becomes a node.
    Join {
        node: usize,
    },
    /// The operator drains a node, and removes it.
    Retire {
        node: usize,
    },
    /// A node's disk is replaced by an empty one.
    Wipe {
        node: usize,
        down: Duration,
    },
    /// So many bits of files below a directory turn over; the process has ended before, if `down`.
    Rot {
        node: usize,
        path: &'static str,
        bits: usize,
        down: Option<Duration>,
    },
    /// A stranger sends so many datagrams, and as many frames over good connections.
    Garbage {
        node: usize,
        count: usize,
    },
}
