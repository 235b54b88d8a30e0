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
    /// `None` where the file's parts are no subtrees, and where this is the only one.
    pub(crate) subtree: Option<ChainingValue>,
}

/// Bytes hashed at once: fits the inner caches, and gives BLAKE3 enough to use all lanes.
pub(crate) const PIECE_BYTES: usize = 128 << 10;

/// True if parts of this size are subtrees.
pub(crate) fn is_subtree_size(part_bytes: u64) -> bool {
    part_bytes.is_power_of_two() && part_bytes >= blake3::CHUNK_LEN as u64
}

impl PartHash {
    /// Hashes the part that begins at `offset` of its file; parts have `part_bytes`, the last
    /// may have fewer.
    pub(crate) fn of(bytes: &[u8], offset: u64, part_bytes: u64) -> PartHash {
        let mut hasher = PartHasher::for_part(offset, bytes.len() as u64, part_bytes);
        hasher.update(bytes);
        hasher
            .finish()
            .expect("a part's own hash is always asked for")
    }
}

/// Hashes one part as its bytes come, in one way or in both.
#[derive(Debug)]
pub(crate) struct PartHasher {
    own: Option<Hasher>,
    /// Its value in the tree of the whole file.
    subtree: Option<Hasher>,
}

impl PartHasher {
    /// What a file's hash needs of the part of `len` bytes at `offset`, beside the part's own hash.
    pub(crate) fn for_part(offset: u64, len: u64, part_bytes: u64) -> Self {
        // One that is first and not whole is the only one: its own hash is the file's.
        let is_only = offset == 0 && len < part_bytes;
        let subtree = is_subtree_size(part_bytes) && !is_only;
        let subtree = subtree.then(|| subtree_hasher(offset));
        PartHasher {
            own: Some(Hasher::new()),
            subtree,
        }
    }

    /// The part's own hash.
    pub(crate) fn own() -> Self {
        PartHasher {
            own: Some(Hasher::new()),
            subtree: None,
        }
    }

    /// Its value in the tree of the whole file.
    pub(crate) fn subtree(offset: u64) -> Self {
        PartHasher {
            own: None,
            subtree: Some(subtree_hasher(offset)),
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        // Piece by piece: the second hash finds in the cache what the first has just read.
        for piece in bytes.chunks(PIECE_BYTES) {
            for hasher in self.own.iter_mut().chain(&mut self.subtree) {
                hasher.update(piece);
            }
        }
    }

    /// The part's own hash, if that was wanted.
    pub(crate) fn finish_own(&self) -> Option<ChunkHash> {
        let hash = |own: &Hasher| ChunkHash(*own.finalize().as_bytes());
        self.own.as_ref().map(hash)
    }

    /// The part's hashes, if its own was wanted.
    pub(crate) fn finish(&self) -> Option<PartHash> {
        let subtree = self.finish_subtree();
        self.finish_own().map(|hash| PartHash { hash, subtree })
    }

    /// Its value in the tree, if that was wanted and anything came.
    pub(crate) fn finish_subtree(&self) -> Option<ChainingValue> {
        let subtree = self.subtree.as_ref().filter(|hasher| hasher.count() > 0);
        subtree.map(Hasher::finalize_non_root)
    }
}

fn subtree_hasher(offset: u64) -> Hasher {
    let mut hasher = Hasher::new();
    hasher.set_input_offset(offset);
    hasher
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
    /// If one of several parts has no subtree value: the caller made it with a size that has none.
    pub(crate) fn push(&mut self, part: &PartHash) {
        if self.parts == 0 && part.subtree.is_none() {
            self.parts = 1;
        } else {
            self.push_subtree(part.subtree.expect("parts of a tree hash are subtrees"));
        }
        self.single = (self.parts == 1).then_some(part.hash);
    }

    /// The next part of a file that has more than one: without its own hash.
    pub(crate) fn push_subtree(&mut self, subtree: ChainingValue) {
        let is_complete = self.parts == 0 || !self.waiting.is_empty();
        assert!(
            is_complete,
            "nothing comes behind a part that is the only one"
        );
        // Complete subtrees merge only once more follows: the last merge must be the root's.
        while self.waiting.len() > self.parts.count_ones() as usize {
            self.merge();
        }
        self.waiting.push(subtree);
        self.parts += 1;
        self.single = None;
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
    ///
    /// # Panics
    /// If the only part came without its own hash.
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
            let mut hasher = PartHasher::for_part(offset, 5_000, part_bytes);
            data.chunks(700).for_each(|piece| hasher.update(piece));
            let whole = PartHash::of(&data, offset, part_bytes);
            assert_eq!(whole.hash, ChunkHash::of(&data));
            assert_eq!(hasher.finish(), Some(whole));
        }
        let mut hasher = PartHasher::own();
        hasher.update(&data);
        assert_eq!(hasher.finish_own(), Some(ChunkHash::of(&data)));
        assert_eq!(hasher.finish_subtree(), None);
        let mut hasher = PartHasher::subtree(16_384);
        assert_eq!(hasher.finish_subtree(), None, "nothing came");
        hasher.update(&data);
        let subtree = PartHash::of(&data, 16_384, 8_192).subtree;
        assert_eq!(
            (hasher.finish_own(), hasher.finish_subtree()),
            (None, subtree)
        );
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
