//! Pure: the root group's state: the nodes of the cluster, who was let in and by what, the epochs
//! of the ring, the keys that nodes share. No namespace. Driven by `node` like a shard; every
//! command is idempotent, so that a retry after a lost answer does no harm.
//!
//! | byte | table | key | value |
//! |---|---|---|---|
//! | 01 | cluster | | [`Cluster`] |
//! | 02 | nodes | node id u64 | [`NodeInfo`](crate::proto::NodeInfo) |
//! | 03 | ticket keys | epoch u64 | [`TicketKey`] |
//! | 04 | the CA | | [`CaRecord`] |
//! | 05 | join tokens | token id u64 | [`TokenRecord`] |
//! | 06 | users | name | [`UserRecord`] |
//! | 07 | open ring epochs | epoch u64 | [`RingEpoch`](crate::proto::RingEpoch) |
//!
//! # Time
//! As in a shard, time is a count in the replicated state: an entry carries what its leader
//! counted, the state takes the maximum. Tokens and ticket keys age by it. Without a leader it
//! stands still, so a token can only last longer.
//!
//! # The view
//! What all nodes must know is one value ([`view`]), with a version that grows with each change of
//! it. Nodes ask for it when a heartbeat tells them of a newer one.
//!
//! # Rules
//! 1. A node id and a replica id are given once.
//! 2. A token is spent on one key: the same key may ask again and gets the same node id, until the
//!    token expires.
//! 3. A removed node stays removed.
//! 4. A start of a node counts if its number is higher than any before, or is the same life's.
//! 5. At most [`EPOCHS_OPEN_MAX`] epochs of the ring are open; there is always one.

mod apply;
mod command;
#[cfg(test)]
mod golden;
mod read;
mod records;
mod staged;
#[cfg(test)]
mod tests;

pub use apply::{apply, seed};
pub use command::{RootCommand, RootDone, RootEntry, RootReply, Seed};
pub use read::{ca, cluster, node, nodes, ring_epochs, ticket_keys, token, users, view};
pub use records::{CaRecord, Cluster, Role, TicketKey, TokenRecord, UserRecord};
pub use staged::Staged;

/// Ticket keys kept: today's, and those that running transfers were given tickets with.
pub const TICKET_KEYS_KEPT: u64 = 3;
/// Epochs of the ring whose ranges may be moving at once; a further change waits.
pub const EPOCHS_OPEN_MAX: usize = 8;
/// Tokens that may wait to be spent.
pub const TOKENS_MAX: usize = 1_000;
/// The longest life of a token.
pub const TOKEN_MS_MAX: u64 = 30 * 24 * 3_600_000;
/// Users that were ever let in.
pub const USERS_MAX: usize = 100_000;
/// Nodes that ever joined: what one view holds.
pub const NODES_MAX: usize = 20_000;
