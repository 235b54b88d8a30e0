//! Pure: the ring itself: tokens in order, and the walk that finds a chunk's owners. Built by
//! `node` once an epoch and shared; the format of tokens and positions stands in the module's
//! doc.

use super::epoch::Epoch;
use super::holders::{Holders, LEVELS};
use super::owners::{Owners, Picks};
use crate::error::Result;
use crate::limits::COPIES_MAX;
use crate::types::{self, ChunkHash, NodeId};
use std::cmp::min;

/// The lower bits of a token, which hold the member's index instead of the hash.
pub(super) const MEMBER_BITS: u32 = 16;
const MEMBER_MASK: u64 = (1 << MEMBER_BITS) - 1;

/// Tokens that a walk looks at in vain before it asks who is missing. A walk that only has to
/// find a domain with a tenth of the tokens gets here once in 10^11 times.
const STEPS_IN_VAIN: usize = 256;

/// What computing a token costs (12 ns were measured), in looks at one that lies in memory.
const TOKEN_COST: u64 = 4;

/// Placement in one epoch.
///
/// Invariants:
/// 1. `tokens` is sorted; equal hashes stand in the order of node ids.
/// 2. Every holder has at least one token.
/// 3. Every machine builds the same from the same epoch.
pub struct Ring {
    epoch: types::Epoch,
    pub(super) holders: Holders,
    /// Each the upper 48 bits of a hash and the index of the holder: 8 bytes a token.
    pub(super) tokens: Vec<u64>,
}

impl Ring {
    /// Checks the epoch and sorts its tokens: a second or two for 10,000 nodes.
    pub fn build(epoch: &Epoch) -> Result<Ring> {
        epoch.check()?;
        let holders = Holders::of(epoch);
        let total: usize = holders.tokens.iter().map(|count| *count as usize).sum();
        let mut tokens = Vec::with_capacity(total);
        for member in 0..holders.len() as u16 {
            tokens.extend(tokens_of(&holders, member));
        }
        tokens.sort_unstable();
        Ok(Ring {
            epoch: epoch.epoch,
            holders,
            tokens,
        })
    }

    /// The number of its epoch.
    pub fn epoch(&self) -> types::Epoch {
        self.epoch
    }

    /// The nodes that hold something.
    pub fn nodes(&self) -> &[NodeId] {
        &self.holders.nodes
    }

    /// How many tokens there are; 8 bytes each are what a ring takes.
    pub fn tokens(&self) -> usize {
        self.tokens.len()
    }

    /// The nodes that a chunk belongs on, in order of preference: on as many zones as there can
    /// be, then on as many racks. Fewer if there are fewer nodes; at most `COPIES_MAX`.
    pub fn owners(&self, hash: &ChunkHash, copies: usize) -> Owners {
        self.owners_without(hash, copies, &|_| false)
    }

    /// The same as if the nodes that are `down` were not members, but without their zones and
    /// racks being missed where others are left. Owners that are up are among them: a node that
    /// is down is replaced, and nothing else changes.
    pub fn owners_without(
        &self,
        hash: &ChunkHash,
        copies: usize,
        down: &dyn Fn(NodeId) -> bool,
    ) -> Owners {
        let walk = Walk {
            ring: self,
            from: position(hash),
            wanted: min(copies, COPIES_MAX),
            down,
        };
        Owners::of(walk.run().iter().map(|member| self.holders.node(*member)))
    }

    /// The first token at or after a position, which may be one past the last.
    fn at_or_after(&self, position: u64) -> usize {
        self.tokens.partition_point(|token| *token < position)
    }
}

/// Where a chunk stands on the circle: the first 8 bytes of its hash, big-endian, without the bits
/// that hold a member in tokens.
pub(super) fn position(hash: &ChunkHash) -> u64 {
    let (first, _) = hash.0.split_first_chunk::<8>().expect("a hash is longer");
    u64::from_be_bytes(*first) & !MEMBER_MASK
}

/// Token `index` of a node: seahash of the node's id (8 bytes) and the index (4 bytes), both
/// little-endian.
pub(super) fn token(node: NodeId, index: u32) -> u64 {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&node.0.to_le_bytes());
    bytes[8..].copy_from_slice(&index.to_le_bytes());
    seahash::hash(&bytes)
}

/// The holder that a stored token belongs to.
pub(super) fn member_of(token: u64) -> u16 {
    (token & MEMBER_MASK) as u16
}

/// The tokens of a holder as they are stored, not sorted.
fn tokens_of(holders: &Holders, member: u16) -> impl Iterator<Item = u64> {
    let node = holders.node(member);
    let count = holders.tokens[usize::from(member)];
    (0..count).map(move |index| token(node, index) & !MEMBER_MASK | u64::from(member))
}

/// One question for owners.
///
/// It goes round once for each level: for zones, and where all of them are used, for racks, then
/// for nodes. Nobody ever has to go round the whole circle: where many tokens bring nobody new,
/// [`Walk::search`] finds out who could still be picked, and goes on to the next token of theirs.
/// The answer is that of the walk without end.
struct Walk<'a> {
    ring: &'a Ring,
    from: u64,
    wanted: usize,
    down: &'a dyn Fn(NodeId) -> bool,
}

impl Walk<'_> {
    fn run(&self) -> Picks {
        let start = self.ring.at_or_after(self.from);
        let mut picks = Picks::default();
        for level in LEVELS {
            self.round(level, start, &mut picks);
        }
        picks
    }

    /// Picks the first node of each unused domain of a level until all are used or enough is
    /// picked. At each level all picks so far are in distinct domains, because each domain lies
    /// within one of the level before.
    fn round(&self, level: usize, start: usize, picks: &mut Picks) {
        let tokens = &self.ring.tokens;
        let wanted = min(self.wanted, self.ring.holders.counts[level]);
        let mut at = start;
        let mut in_vain = 0;
        while picks.len() < wanted {
            if in_vain == STEPS_IN_VAIN {
                let Some(next) = self.search(level, at, picks) else {
                    return;
                };
                at = next;
            }
            if at == tokens.len() {
                at = 0;
            }
            let member = member_of(tokens[at]);
            if self.fits(level, member, picks) {
                picks.push(member);
                in_vain = 0;
            } else {
                in_vain += 1;
            }
            at += 1;
        }
    }

    fn fits(&self, level: usize, member: u16, picks: &Picks) -> bool {
        let holders = &self.ring.holders;
        let domain = holders.domain(level, member);
        let used = |pick: &u16| holders.domain(level, *pick) == domain;
        !picks.iter().any(used) && !(self.down)(holders.node(member))
    }

    /// The next token at or after `at` of a node that fits, `None` if there is none such. Either
    /// walks on, or, where that would be long, computes the few tokens that are in question: at
    /// most about √tokens steps are expected, besides one look at each member.
    fn search(&self, level: usize, at: usize, picks: &Picks) -> Option<usize> {
        let ring = self.ring;
        let missing: Vec<u16> = (0..ring.holders.len() as u16)
            .filter(|member| self.fits(level, *member, picks))
            .collect();
        let count = |member: &u16| u64::from(ring.holders.tokens[usize::from(*member)]);
        let few: u64 = missing.iter().map(count).sum();
        let all = ring.tokens.len();
        if few == 0 {
            return None;
        }
        if few.saturating_mul(few) > all as u64 / TOKEN_COST {
            let mut circle = (at..all).chain(0..at);
            return circle.find(|at| missing.binary_search(&member_of(ring.tokens[*at])).is_ok());
        }
        let from = ring.tokens.get(at).or(ring.tokens.first())?;
        let theirs = missing
            .iter()
            .flat_map(|member| tokens_of(&ring.holders, *member));
        let next = theirs.min_by_key(|token| token.wrapping_sub(*from))?;
        Some(ring.at_or_after(next))
    }
}
