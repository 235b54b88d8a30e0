//! Consensus: openraft behind one door. No openraft type leaves this module.
//!
//! Called by `node`, which implements [`StateMachine`] (over `shard` and `store`) and
//! [`PeerTransport`] (over `net`), and gives the node's log. One [`RaftGroup`] is one replica.
//!
//! | file | what it is |
//! |---|---|
//! | `group` | the replica: propose, read barrier, receive, compact |
//! | `barrier` | readers that share a question to the quorum |
//! | `log`, `machine`, `network` | openraft's three traits over ours |
//! | `stored`, `message` | bytes in the log and between replicas |
//! | `kinds`, `refusal` | openraft's types and errors in our words |
//!
//! # Birth
//! A group is never "initialized" in openraft's sense. It starts from a seed that counts as an
//! entry: the log is purged at (term 0, index 1), the state is applied and folded there with
//! [`seed_members`]. So a replica without the seed can never be filled from the log alone. A
//! group with one voter elects itself after one election timeout.
//!
//! # Restart
//! The log holds the vote and the committed position; the state machine starts at its last fold.
//! [`RaftGroup::start`] applies what lies between the two before it returns, without asking
//! anyone: these entries were committed. What was committed but not noted is applied as soon as
//! a leader says so, or this replica is elected. A leader never takes its lead up again without
//! an election: it could not know what it applied before.
//!
//! # Compaction
//! openraft purges only what a snapshot covers. Here a snapshot is a position and its members,
//! nothing else: those of the last synced fold. [`RaftGroup::compact`] notes it and purges the
//! log up to it. Whoever needs entries that are gone needs an image of the group.
//!
//! # Caveats
//! * A follower may apply an entry before its own log has synced it. A fold must hold only what
//!   the local log has synced; the state machine sees to that.
//! * A replica that comes back with an empty log under its old id would be counted as a copy and
//!   never filled. Replica ids are never used again, log reversion is off, and a leader refuses
//!   answers below what a replica acknowledged.
//! * Cores and timers run on the tokio runtime in whose context [`RaftGroup::start`] is polled. To
//!   keep them apart from bulk work give them a runtime of their own and start groups with
//!   `handle.spawn(RaftGroup::start(..)).await`; proposals and barriers may come from any runtime.
//! * openraft draws election timeouts from a generator seeded by `env.rng`: with a simulated
//!   environment on a single-threaded runtime with paused time, runs repeat.

mod barrier;
mod compaction;
mod group;
mod image;
mod kinds;
mod lead;
mod log;
mod machine;
mod members;
mod message;
mod network;
mod refusal;
mod seams;
mod sends;
mod status;
mod stored;

pub use group::{RaftGroup, seed_members};
pub use members::members_of;
#[doc(hidden)]
pub use message::takes_message;
pub use seams::{
    AppliedMark, Committed, CommittedWhat, CutImage, PeerTransport, ReceivedImage, Reply, Route,
    StagedImage, StateMachine, Urgency,
};
pub use status::{GroupStatus, Members, Progress, Timers};

#[cfg(test)]
mod chaos_tests;
#[cfg(test)]
mod image_tests;
#[cfg(test)]
mod member_tests;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;
