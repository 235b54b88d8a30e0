//! What must hold, one file each. Each is given the run and adds what it finds to its violations.
//!
//! | | what must hold | checked |
//! |---|---|---|
//! | `starts` | no node refuses to start | always |
//! | `owners` | a replica id is one node's, and never another's | always |
//! | `votes` | most of those who elected a leader remember its term | always |
//! | `served` | a new client is served within 10 s of the end of all trouble | after healing |
//! | `members` | nodes that were to go are gone, all others serve | after healing |
//! | `contents` | every version of every file is read, whole, and is what somebody put | at the end |
//! | `health` | `fsck` finds nothing, every chunk has its copies, `status` is green | at the end |
//! | `replicas` | replicas reach the same index, and hold the same records there | at the end |
//! | `epochs` | a chunk under a closed epoch of the ring is refused | at the end |
//! | `histories` | what clients were told of each directory is linearizable: nothing acknowledged is lost or undone, listings show what was there | at the end |
//!
//! And always: nobody panics (`cluster`), a reader gets what somebody put (`workload`).

pub mod contents;
pub mod epochs;
pub mod health;
pub mod histories;
pub mod members;
pub mod owners;
pub mod replicas;
pub mod served;
pub mod starts;
pub mod votes;
