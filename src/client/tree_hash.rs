//! Pure: BLAKE3 of a whole file from parts that were hashed in parallel.
//!
//! BLAKE3 is a binary tree over 1 KiB leaves; a part that begins at a multiple of its own
//! power-of-two length is a subtree. Each part's chaining value is computed anywhere, and the
//! values are merged in order here, with at most one waiting for each level of the tree.
//! (BLAKE3 paper, section 2.4, and `blake3::hazmat`.)

use crate::types::ChunkHash;
use blake3::Hasher;
use blake3::hazmat::{
    ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root,
};

/// One part's hashes: its own, and its value in the tree of the whole file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PartHash {
    pub(crate) hash: ChunkHash,
    /// `None` where the file's parts are no subtrees.
    pub(crate) subtree: Option<ChainingValue>,
}

/// True if parts of this size are subtrees.
pub(crate) fn is_subtree_size(part_bytes: u64) -> bool {
    part_bytes.is_power_of_two() && part_bytes >= blake3::CHUNK_LEN as u64
}

impl PartHash {
    /// Hashes the part that begins at `offset` of its file; parts have `part_bytes`, the last
    /// may have fewer.
    pub(crate) fn of(bytes: &[u8], offset: u64, part_bytes: u64) -> PartHash {
        let subtree = (is_subtree_size(part_bytes) && !bytes.is_empty()).then(|| {
            let mut hasher = Hasher::new();
            hasher.set_input_offset(offset);
            hasher.update(bytes);
            hasher.finalize_non_root()
        });
        PartHash {
            hash: ChunkHash::of(bytes),
            subtree,
        }
    }
}

/// Hashes one part as its bytes come.
#[derive(Debug)]
pub(crate) struct PartHasher {
    own: Hasher,
    /// Its value in the tree of the whole file, where that is wanted.
    subtree: Option<Hasher>,
}

impl PartHasher {
    /// `tree`: the part's offset in its file and the size of parts; `None`: only its own hash is
    /// wanted.
    pub(crate) fn new(tree: Option<(u64, u64)>) -> Self {
        let tree = tree.filter(|(_, part_bytes)| is_subtree_size(*part_bytes));
        PartHasher {
            own: Hasher::new(),
            subtree: tree.map(|(offset, _)| {
                let mut hasher = Hasher::new();
                hasher.set_input_offset(offset);
                hasher
            }),
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.own.update(bytes);
        if let Some(subtree) = &mut self.subtree {
            subtree.update(bytes);
        }
    }

    /// The hashes of what came.
    pub(crate) fn finish(&self) -> PartHash {
        let subtree = self.subtree.as_ref().filter(|hasher| hasher.count() > 0);
        PartHash {
            hash: ChunkHash(*self.own.finalize().as_bytes()),
            subtree: subtree.map(Hasher::finalize_non_root),
        }
    }
}

/// Takes the parts of one file in order.
///
/// Invariant: after n parts, `waiting` holds one value for each set bit of n, or fewer merges
/// are due only for the newest part, which is kept apart because it may be the root's child.
#[derive(Debug, Default)]
pub(crate) struct TreeHash {
    parts: u64,
    /// The only part's own hash, which is the file's.
    single: Option<ChunkHash>,
    waiting: Vec<ChainingValue>,
}

impl TreeHash {
    /// The next part.
    ///
    /// # Panics
    /// If the part has no subtree value: the caller made it with a size that has none.
    pub(crate) fn push(&mut self, part: &PartHash) {
        let subtree = part.subtree.expect("parts of a tree hash are subtrees");
        // Complete subtrees merge only once more follows: the last merge must be the root's.
        while self.waiting.len() > self.parts.count_ones() as usize {
            self.merge();
        }
        self.waiting.push(subtree);
        self.parts += 1;
        self.single = (self.parts == 1).then_some(part.hash);
    }

    fn merge(&mut self) {
        let (right, left) = (self.waiting.pop(), self.waiting.pop());
        let (Some(right), Some(left)) = (right, left) else {
            unreachable!("merges are asked for only while two values wait");
        };
        self.waiting
            .push(merge_subtrees_non_root(&left, &right, Mode::Hash));
    }

    /// The hash of the whole file.
    pub(crate) fn finish(mut self) -> ChunkHash {
        if self.parts == 0 {
            return ChunkHash::of(&[]);
        }
        if let Some(single) = self.single {
            return single;
        }
        while self.waiting.len() > 2 {
            self.merge();
        }
        let root = merge_subtrees_root(&self.waiting[0], &self.waiting[1], Mode::Hash);
        ChunkHash(*root.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hash_by_parts(bytes: &[u8], part_bytes: usize) -> ChunkHash {
        let mut tree = TreeHash::default();
        for (index, part) in bytes.chunks(part_bytes).enumerate() {
            let offset = (index * part_bytes) as u64;
            tree.push(&PartHash::of(part, offset, part_bytes as u64));
        }
        tree.finish()
    }

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
    }

    #[test]
    fn equals_blake3_for_every_number_of_parts_and_ragged_ends() {
        for part in [1_024, 2_048, 8_192] {
            for parts in 0..40 {
                for rest in [0, 1, 1_023, part - 1] {
                    let data = bytes(parts * part + rest);
                    assert_eq!(
                        hash_by_parts(&data, part),
                        ChunkHash::of(&data),
                        "{parts} parts of {part} and {rest}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_part_hashed_as_it_comes_has_the_same_hashes() {
        let data = bytes(5_000);
        for (offset, part_bytes) in [(0, 8_192), (16_384, 8_192), (9_000, 3_000)] {
            let mut hasher = PartHasher::new(Some((offset, part_bytes)));
            data.chunks(700).for_each(|piece| hasher.update(piece));
            assert_eq!(hasher.finish(), PartHash::of(&data, offset, part_bytes));
        }
        let mut hasher = PartHasher::new(None);
        hasher.update(&data);
        assert_eq!(hasher.finish().hash, ChunkHash::of(&data));
        assert_eq!(PartHasher::new(Some((0, 8_192))).finish().subtree, None);
    }

    #[test]
    fn sizes_that_are_no_subtrees_are_known() {
        assert!(is_subtree_size(1_024) && is_subtree_size(16 << 20));
        for bad in [0, 1, 512, 1_000, 3_072] {
            assert!(!is_subtree_size(bad), "{bad}");
            assert_eq!(PartHash::of(b"x", 0, bad).subtree, None);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn equals_blake3_for_any_length(len in 0usize..300_000, power in 10u32..17) {
            let data = bytes(len);
            prop_assert_eq!(hash_by_parts(&data, 1 << power), ChunkHash::of(&data));
        }
    }
}
