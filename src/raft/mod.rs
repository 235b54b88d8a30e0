//! Consensus: openraft behind one door. No openraft type leaves this module.
//!
//! Called by `node`, which implements [`StateMachine`] (over `shard` and `store`) and
//! [`PeerTransport`] (over `net`), and gives the node's log. One [`RaftGroup`] is one replica.
//!
//! | file | what it is |
//! |---|---|
//! | `group` | the replica: propose, read barrier, receive |
//! | `lead`, `members` | who leads, who belongs to it; asking and changing |
//! | `image` | taking an image |
//! | `barrier` | readers that share a look at the lease or a question to the quorum |
//! | `purge` | letting go of the log |
//! | `compaction`, `sends` | what of it others still need |
//! | `log`, `machine`, `network` | openraft's three traits over ours; `network` sends images |
//! | `seams`, `status` | what `node` implements, and what it is told |
//! | `stored`, `message` | bytes in the log and between replicas |
//! | `runtime` | when openraft's timers are looked at |
//! | `kinds`, `refusal` | openraft's types and errors in our words |
//!
//! # Birth
//! A group is never "initialized" in openraft's sense. It starts from a seed that counts as an
//! entry: the log is purged at (term 0, index 1), the state is applied and folded there with
//! [`seed_members`]. So a replica without the seed can never be filled from the log alone: it
//! starts with nothing, knows no members, therefore never campaigns, and waits for an image. It
//! does vote if it is asked: a candidate asks only those that are voters in its log, and an empty
//! log gives way to every other. A group with one voter elects itself after one election timeout.
//!
//! # Restart
//! The log holds the vote and the committed position; the state machine starts at its last fold.
//! [`RaftGroup::start`] applies what lies between the two before it returns, without asking
//! anyone: these entries were committed. What was committed but not noted is applied as soon as
//! a leader says so, or this replica is elected. A leader never takes its lead up again without
//! an election: it could not know what it applied before.
//!
//! # Leases
//! A leader whose messages a majority answered, and which sent them less than `barrier::lease` ago,
//! answers reads without asking: nobody else can have been elected meanwhile, so nothing newer can
//! have been acknowledged. This holds because
//! * the time counts from the sending of what was answered, and who answered votes for nobody for
//!   the longest election timeout from when it took it; the lease is shorter by more than clocks
//!   may differ (rates from 0.8 to 1.2 of the true one);
//! * a replica that was started votes for nobody for as long, whatever it may have answered in its
//!   life before, and does not campaign before the shortest election timeout, which is longer too;
//! * a leader that has told another one to take over answers no reads in that term, and only by
//!   its word are others elected sooner;
//! * a look at the lease comes after the reader, the reader's view of the state after the look, and
//!   the view holds what was committed then. However long the process is stopped in between, the
//!   answer was true when the lease was looked at;
//! * a machine that slept is noticed (`Clock::slept`). One whose clock was stopped from outside
//!   without a trace, as some hypervisors do with a machine that is moved, is not: `lease_reads =
//!   "no"` turns leases off.
//!
//! # Images
//! For openraft a snapshot is a position and its members, those of the last synced fold; it knows
//! nothing of images. When a member needs entries that are gone, the leader
//! 1. *offers* an image. The answer says whether it would be taken, and what is durable there: an
//!    image whose answer got lost is not sent again, and none is cut for a replica that is down;
//! 2. *cuts* one of what is applied at that moment (so it is newer than the position openraft has
//!    in mind) and sends it, head first: its own vote, the image's own mark.
//!
//! The receiver *stages* it, which is long and changes nothing, then openraft checks the vote and
//! whether it is newer than what is committed here, and has it *installed*, which is one synced
//! step. Only then does its log begin behind the image: entries before are gone, also those that
//! nobody committed. Should the power go between the two, the next start lets the log begin there.
//!
//! The leader goes on behind the position it had in mind. Appends at or below the image are
//! answered yes without being written: they are committed entries of the same group, so they are
//! those the image holds. That openraft does by itself.
//!
//! # Members
//! A member is a replica id, never used again in its group, and the node it lives on. It begins as
//! a learner and is promoted when it has caught up; voters change by joint consensus (`members`).
//! A replica that is removed is not told. It hears nothing any more and asks for pre-votes, which
//! nobody grants while there is a leader, so that it raises no term; who removed it ends it.
//!
//! # Compaction
//! openraft purges only what a snapshot covers. [`RaftGroup::compact`] notes the last synced fold
//! and purges the log up to it, or to less; on a leader only up to what members that lag, or that
//! are being filled, still need, within bounds (`compaction`). A follower knows nothing of the
//! others: whoever has it compacted keeps the newest entries on all replicas alike, so that one that
//! lags a little needs no image from a follower that is elected. One that was being filled may.
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
//! * While an image is put in place (one synced transaction) its replica answers nothing: openraft
//!   keeps what it has to say in order.
//! * Readers' questions to the quorum are heartbeats to openraft, one at a time for each member:
//!   one that is asked while a heartbeat is under way waits for that one's answer. So a transport
//!   that gathers heartbeats must not hold them for long.
//! * A leader that was removed leads for some 150 ms more, so that the others hear of it.

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
mod purge;
mod refusal;
mod runtime;
mod seams;
mod sends;
mod status;
mod stored;
mod votes;

pub use group::{RaftGroup, seed_members};
pub use members::{members_in_log, members_of};
#[doc(hidden)]
pub use message::takes_message;
pub use seams::{
    AppliedMark, Committed, CommittedWhat, CutImage, PeerTransport, ReceivedImage, Reply, Route,
    StagedImage, StateMachine, Urgency,
};
pub use status::{GroupStatus, Members, Progress, Timers};
pub use votes::{candidacy, term_of_vote};

#[cfg(test)]
mod chaos_tests;
#[cfg(test)]
mod image_tests;
#[cfg(test)]
mod lease_tests;
#[cfg(test)]
mod member_tests;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;
