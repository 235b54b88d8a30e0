//! Pure: the placement of chunks on nodes: a consistent-hash ring with weights, zones and racks,
//! and the epochs it changes in. Called by `node` (owners of a chunk, movement, repair) and by
//! whatever plans; clients are told owners and build no ring. Knows nothing of sockets, disks or
//! who is alive: that is an argument.
//!
//! | file | what it is |
//! |---|---|
//! | `epoch` | members and weights of one epoch, as stored |
//! | `holders` | which members fail together |
//! | `place` | tokens, and the walk that finds owners |
//! | `sweep`, `plan` | the owners of all chunks at once: shares, movement |
//! | `open` | open epochs, and whom a reader asks |
//!
//! # Tokens
//! All nodes must agree on these, so they are a format and never change:
//! - Token i of a node is seahash of (node id, 8 bytes; i, 4 bytes), both little-endian. Its lower
//!   16 bits do not count: in memory they hold the member, which also orders equal tokens by node
//!   id.
//! - A node of weight w has w × 6,000 / base tokens, rounded, but at least one; the epoch names the
//!   base. The tokens of a lower weight are the first of those of a higher.
//! - A chunk stands at the first 8 bytes of its BLAKE3 hash as a big-endian number, again without
//!   the lower 16 bits, and belongs to the first token at or behind this, and those that follow,
//!   round the circle.
//!
//! Weights are relative: what they are measured in cancels out against the base. Only a change of
//! the mean weight to the double or the half makes another base ([`Epoch::next`]).
//!
//! # Owners
//! In the order in which the walk meets them: first the first node of each zone; where all zones
//! are used, the first node of each rack not used yet; then any node. So copies lie on as many
//! zones as there can be, then on as many racks, never twice on one node. It follows that taking
//! one node away gives its places to others and changes nothing else, whatever zones there are:
//! 1. a node that is down is replaced and all other owners stay owners;
//! 2. a node that joins only takes, from whoever was last; a node that leaves only gives;
//! 3. so no chunk ever moves between two nodes neither of which has changed (but for another base).
//!
//! What a node without a zone or a rack counts as stands in `holders`.
//!
//! # Why no table of owners
//! 2^16 fixed slices with their owners computed once an epoch would be smaller, but 1,000 nodes
//! then hold 200 slices each, by chance, so 7 % more or less: as many slices are needed as there
//! are tokens, and a table of them is the list of tokens with the number of copies fixed. So the
//! ring is only the sorted tokens, 8 bytes each, and an answer is a binary search and a walk over a
//! handful of them. The walk would be long where a zone is small. It looks at 256 tokens in vain,
//! then asks which members are missing and either walks on (if they have many tokens) or computes
//! the tokens they have (if few): about √tokens steps, with the answer of the walk without end.
//!
//! Measured in processor time of a cloud machine, release build, 6,000 tokens a node, 3 copies, 3
//! equal zones
//! (`cargo test --release --lib ring::tests::measure -- --ignored --nocapture`):
//!
//! | nodes | memory | build | owners | the same, a zone down | shares | farthest from fair | movement |
//! |---|---|---|---|---|---|---|---|
//! | 3 | 0.1 MB | < 1 ms | 0.1 µs | 2 µs | < 1 ms | 0 % | < 1 ms |
//! | 100 | 5 MB | 22 ms | 0.5 µs | 4 µs | 25 ms | 3.9 % | 64 ms |
//! | 1,000 | 48 MB | 0.25 s | 1 µs | 12 µs | 0.24 s | 4.4 % | 0.6 s |
//! | 10,000 | 480 MB | 2.6 s | 3 µs | 66 µs | 2.5 s | 5.4 % | 6.6 s |
//!
//! Where one of 10,000 nodes is alone in the third zone, owners take 64 µs, whether its weight is
//! that of the others or a thousandth. Without zones 1,000 equal nodes are within 2.5 %; a node
//! that joins them gets 1.001 of its part.
//!
//! Up to eight epochs are open at once, but the usual number is one or two.
//!
//! # Epochs
//! The root group makes an epoch with each change of the members: a node joins, its weight, zone
//! or rack changes, it is drained or removed, or it was silent for 30 minutes. A node that is
//! OFFLINE (silent for 30 s) keeps its tokens: copies of what it held are made on the nodes that
//! [`Ring::owners_without`] names, and if it comes back nothing has moved. A node that is drained
//! has no tokens any more but keeps its data and answers until they have moved.
//!
//! 1. **An epoch is open until all ranges that a later one took from it have moved.** The newest
//!    is always open. At most eight are; a further change waits. Data move to the owners of the
//!    newest epoch, from wherever they are.
//! 2. **Readers ask the owners of all open epochs, newest first**, then the nodes that stand in for
//!    owners that are down ([`OpenEpochs::readers`]).
//! 3. **A chunk write carries its epoch and is refused when that is closed.** A commit carries the
//!    epochs of its chunks and is refused when one is closed: the client asks the owners of the
//!    newest whether they have the chunk, and sends it if they do not.
//! 4. **The old copy goes only after the new ones have confirmed** that they have theirs, synced.
//!
//! # Caveats
//! - A move that ended counts only for what was there when it began. Before an epoch closes its
//!   nodes must refuse writes that carry it, and only a pass that began after all of them said so
//!   counts; else a chunk written behind the pass, and committed before the closing, lies where no
//!   reader looks. [`OpenEpochs`] knows open and closed only; whoever closes must hold to this.
//! - Nodes hear of epochs at different times. A node that is asked with an epoch it does not know
//!   yet must learn of it first, not refuse.
//! - Stand-ins are found from who is down now. Copies made on stand-ins for a node that came back
//!   are surplus; those made for a node that left in a later epoch are found only while the epoch
//!   is open in which they stood in.
//! - A node much larger than the others cannot be filled in proportion: no chunk lies on it twice.
//!   The same holds for a large zone, rack; in the small ones nodes are fuller. [`Share::fair`]
//!   says what each can get.
//! - A node with a thousandth of the mean weight has six tokens, and its share may be half or
//!   twice of what it should be.

mod epoch;
mod holders;
mod open;
mod owners;
mod place;
mod plan;
mod sweep;

#[cfg(test)]
mod tests;

pub use epoch::{Epoch, Member, TOKENS_PER_NODE, UNIT_BYTES, weight_of};
pub use open::OpenEpochs;
pub use owners::Owners;
pub use place::Ring;
pub use plan::{Moved, Movement, Share, moved};
