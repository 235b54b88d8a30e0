//! The metadata plane: one shard's namespace as a deterministic state machine.
//!
//! A shard owns a subtree. Its state is a set of records in one slot of the store; its log
//! carries [`command::Command`]s. [`apply()`] turns (state, command) into record changes and
//! outcomes; [`read`] answers questions from a state. Both are pure: no clock, no randomness, no
//! I/O but the records. `node` drives them: it proposes commands, applies what Raft committed
//! and publishes the changes to the store in one step with the applied index.
//!
//! # Records
//! `keys` holds the table of tables. Entries are keyed (parent inode, name), so a listing is one
//! range scan and a rename is one delete and one insert. A directory's attributes, totals and
//! sum live in its own record; an entry of a directory holds only its inode and, for a mount
//! point, the shard.
//!
//! # One walk
//! Every change resolves its path from the shard's root and then walks from the changed
//! directory up to the root once: totals, sums, quota and the check that no ancestor is deleted
//! come from that walk. A path below a deleted ancestor does not exist, because the ancestor's
//! entry is gone; an inode held by an upload is checked by the same walk upwards.
//!
//! What each directory's sum counts stands in `sum`; `check` adds everything up again.
//!
//! # Batches
//! `node` makes one [`Batch`] over a view for each batch of committed entries, applies their
//! commands in order and stores what [`Batch::finish`] gives. Where a batch is cut changes
//! nothing in the records.
//!
//! # Exactly once
//! A request names (session, lane, sequence). One lane has one request in flight. The lane's row
//! keeps the last sequence, a digest of the request and its outcomes, refusals too: a repeated
//! request gets the first answer, an older one is refused, and none is executed twice. The row
//! also keeps the user, whom the node takes from the certificate: nobody else's request is
//! answered from it or takes its place. A request whose lane row is gone is executed only if the
//! session met this shard within the horizon (`met`); otherwise the outcome is unknown and it is
//! refused as such.
//!
//! # Shard time
//! Milliseconds in the replicated state. A command carries the last value plus what its
//! leader's monotonic clock counted since; the state machine takes the maximum. All expiries are
//! judged by it. Wall clocks are only written into `created` and `modified`.
//!
//! # Two parts of a failure
//! A refusal (name taken, version moved on) is an outcome, stored and answered. An error of
//! `apply` itself (a damaged record, an unknown command or version) is not an outcome: the
//! replica stops, because it cannot know what the others will do.

pub mod check;
pub mod command;
pub mod keys;
pub mod read;
pub mod records;

mod apply;
mod attrs;
mod changes;
mod chores;
mod cleanup;
mod content;
mod dirs;
mod files;
mod refuse;
mod remove;
mod rename;
mod seed;
mod sessions;
mod sum;
mod tree;
mod txn;
mod uploads;
mod versions;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use apply::{apply, apply_bytes};
pub use seed::seed;
pub use txn::{Batch, STATE_MACHINE};
