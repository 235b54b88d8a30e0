//! Pure: the BLAKE3 outboard of one large chunk: chaining values of its groups, with which any
//! group can be verified against the chunk's hash without reading the others.
//!
//! BLAKE3 is a binary tree over 1 KiB leaves. A group of `group_bytes` (a power of two) that
//! starts at a multiple of its size is a complete subtree, so its chaining value is a node of
//! the tree, and the hash follows from the groups' chaining values alone. A chunk of at most one
//! group has no chaining values: the hash itself verifies it.
//!
//! Called by the large-file reader and writer; knows nothing of files.

use crate::types::ChunkHash;
use blake3::Hasher;
use blake3::hazmat::{self, ChainingValue, HasherExt, Mode};
use std::ops::Range;

/// Bytes of one chaining value.
pub const VALUE_BYTES: usize = 32;

/// Chaining values of all groups of a chunk, checked against its hash.
///
/// 1. The chunk's hash follows from `values` (or `values` is empty and the chunk one group), so
///    a group that matches its value is a part of the chunk with that hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outboard {
    hash: ChunkHash,
    /// Bytes of the chunk.
    len: u64,
    group_bytes: u64,
    values: Vec<ChainingValue>,
}

/// How many chaining values a chunk has: one a group, none where one group is all.
pub fn value_count(len: u64, group_bytes: u64) -> u64 {
    if len <= group_bytes {
        0
    } else {
        len.div_ceil(group_bytes)
    }
}

impl Outboard {
    /// Takes stored chaining values; `None` when the hash does not follow from them.
    pub fn verified(hash: ChunkHash, len: u64, group_bytes: u64, stored: &[u8]) -> Option<Self> {
        let count = value_count(len, group_bytes);
        if u64::try_from(stored.len()).ok()? != count.checked_mul(VALUE_BYTES as u64)? {
            return None;
        }
        let values: Vec<ChainingValue> = stored
            .chunks_exact(VALUE_BYTES)
            .map(|value| value.try_into().expect("chunks_exact gives 32 bytes"))
            .collect();
        if !values.is_empty() && root(&values) != hash {
            return None;
        }
        Some(Outboard {
            hash,
            len,
            group_bytes,
            values,
        })
    }

    pub fn len(&self) -> u64 {
        self.len
    }

    /// The stored form.
    pub fn bytes(&self) -> Vec<u8> {
        self.values.concat()
    }

    /// The smallest range of whole groups around `range`, cut at the chunk's end.
    pub fn around(&self, range: Range<u64>) -> Range<u64> {
        let start = range.start / self.group_bytes * self.group_bytes;
        let end = range
            .end
            .div_ceil(self.group_bytes)
            .saturating_mul(self.group_bytes);
        start..end.min(self.len)
    }

    /// Checks `bytes`, whole groups that begin at `offset` (see [`Outboard::around`]); on damage
    /// the offset of the first group that does not match.
    pub fn check(&self, offset: u64, bytes: &[u8]) -> Result<(), u64> {
        debug_assert_eq!(offset % self.group_bytes, 0);
        if self.values.is_empty() {
            let whole = offset == 0 && bytes.len() as u64 == self.len;
            return if whole && ChunkHash::of(bytes) == self.hash {
                Ok(())
            } else {
                Err(offset)
            };
        }
        let mut at = offset;
        for group in bytes.chunks(self.group_bytes as usize) {
            let due = (self.len.saturating_sub(at)).min(self.group_bytes);
            let value = self.values.get((at / self.group_bytes) as usize);
            if group.len() as u64 != due || value != Some(&group_value(at, group)) {
                return Err(at);
            }
            at += due;
        }
        Ok(())
    }
}

/// Computes hash and outboard of a chunk in one pass while its bytes arrive.
pub struct OutboardBuilder {
    group_bytes: u64,
    /// The group being filled.
    hasher: Hasher,
    filled: u64,
    len: u64,
    values: Vec<ChainingValue>,
}

impl OutboardBuilder {
    /// `group_bytes` is a power of two, at least 1,024.
    pub fn new(group_bytes: u64) -> Self {
        assert!(group_bytes.is_power_of_two() && group_bytes >= 1_024);
        OutboardBuilder {
            group_bytes,
            hasher: Hasher::new(),
            filled: 0,
            len: 0,
            values: Vec::new(),
        }
    }

    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.filled == self.group_bytes {
                self.next_group();
            }
            let room = (self.group_bytes - self.filled) as usize;
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.hasher.update(now);
            self.filled += now.len() as u64;
            self.len += now.len() as u64;
            bytes = later;
        }
    }

    fn next_group(&mut self) {
        self.values.push(self.hasher.finalize_non_root());
        self.hasher = Hasher::new();
        self.hasher.set_input_offset(self.len);
        self.filled = 0;
    }

    /// The outboard of everything that arrived; its hash is the chunk's.
    pub fn finish(mut self) -> (ChunkHash, Outboard) {
        let hash = if self.values.is_empty() {
            ChunkHash(*self.hasher.finalize().as_bytes())
        } else {
            self.values.push(self.hasher.finalize_non_root());
            root(&self.values)
        };
        let outboard = Outboard {
            hash,
            len: self.len,
            group_bytes: self.group_bytes,
            values: self.values,
        };
        (hash, outboard)
    }
}

fn group_value(offset: u64, group: &[u8]) -> ChainingValue {
    let mut hasher = Hasher::new();
    hasher.set_input_offset(offset);
    hasher.update(group);
    hasher.finalize_non_root()
}

/// The hash of a chunk of at least two groups.
fn root(values: &[ChainingValue]) -> ChunkHash {
    let (left, right) = values.split_at(left_count(values.len()));
    let hash = hazmat::merge_subtrees_root(&subtree(left), &subtree(right), Mode::Hash);
    ChunkHash(*hash.as_bytes())
}

fn subtree(values: &[ChainingValue]) -> ChainingValue {
    match values {
        [value] => *value,
        _ => {
            let (left, right) = values.split_at(left_count(values.len()));
            hazmat::merge_subtrees_non_root(&subtree(left), &subtree(right), Mode::Hash)
        }
    }
}

/// Groups in the left subtree: the largest power of two below `count` (BLAKE3, section 2.1).
fn left_count(count: usize) -> usize {
    count.next_power_of_two() / 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 31 + i / 251) as u8).collect()
    }

    #[test]
    fn hash_is_blake3_for_every_shape_of_tree() {
        for groups in 0..20 {
            for extra in [0usize, 1, 1_023] {
                let bytes = sample(groups * 1_024 + extra);
                let mut builder = OutboardBuilder::new(1_024);
                for piece in bytes.chunks(700) {
                    builder.update(piece);
                }
                let (hash, outboard) = builder.finish();
                assert_eq!(hash, ChunkHash::of(&bytes), "{groups} groups and {extra}");
                let again = Outboard::verified(hash, bytes.len() as u64, 1_024, &outboard.bytes());
                assert_eq!(again.as_ref(), Some(&outboard));
                assert_eq!(outboard.check(0, &bytes), Ok(()));
            }
        }
    }

    proptest! {
        /// Invariant 1.
        #[test]
        fn a_changed_group_or_value_is_never_accepted(
            len in 1usize..9_000, at in any::<prop::sample::Index>(), bit in 0u8..8,
        ) {
            let bytes = sample(len);
            let mut builder = OutboardBuilder::new(1_024);
            builder.update(&bytes);
            let (hash, outboard) = builder.finish();
            let hurt = at.index(len);
            let mut wrong = bytes.clone();
            wrong[hurt] ^= 1 << bit;
            let around = outboard.around(hurt as u64..hurt as u64 + 1);
            let group = around.start as usize..around.end as usize;
            prop_assert_eq!(outboard.check(around.start, &bytes[group.clone()]), Ok(()));
            prop_assert_eq!(outboard.check(around.start, &wrong[group]), Err(around.start));
            let mut stored = outboard.bytes();
            if !stored.is_empty() {
                let hurt = at.index(stored.len());
                stored[hurt] ^= 1 << bit;
                prop_assert!(Outboard::verified(hash, len as u64, 1_024, &stored).is_none());
            }
        }
    }
}
