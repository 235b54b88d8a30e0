//! Pure: the hash of a whole file from the tree values of its chunks as they come, in any order.
//! It proves every byte at its place, so that chunks need not be hashed by themselves too.

use crate::client::tree_hash::TreeHash;
use crate::error::{Error, Result};
use crate::types::ChunkHash;
use blake3::hazmat::ChainingValue;
use std::collections::BTreeMap;

/// Takes the values of all chunks, two or more, of a file whose chunks are subtrees.
///
/// Invariant: `tree` has the chunks below `next`, `early` those behind a gap.
#[derive(Debug, Default)]
pub(super) struct WholeFile {
    tree: TreeHash,
    next: u64,
    early: BTreeMap<u64, ChainingValue>,
}

impl WholeFile {
    /// The chunk of this number, once.
    pub(super) fn add(&mut self, index: u64, subtree: ChainingValue) {
        self.early.insert(index, subtree);
        while let Some(subtree) = self.early.remove(&self.next) {
            self.tree.push_subtree(subtree);
            self.next += 1;
        }
    }

    /// The hash, once all chunks came.
    pub(super) fn finish(self) -> ChunkHash {
        self.tree.finish()
    }
}

/// # Errors
/// `corrupt` when the bytes that came are not the file's.
pub(super) fn check(found: ChunkHash, expected: ChunkHash) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(Error::corrupt(format!(
        "the chunks do not make the file: it hashes to {found}, not to {expected}"
    ))
    .hint("run `dfs fsck` on it"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::tree_hash::PartHash;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn equals_blake3_in_any_order(
            len in 1_025usize..60_000,
            order in prop::collection::vec(any::<u16>(), 60),
        ) {
            let data: Vec<u8> = (0..len).map(|i| (i * 7 + i / 251) as u8).collect();
            let mut parts: Vec<_> = data
                .chunks(1_024)
                .zip(0..)
                .map(|(part, index)| (index, PartHash::of(part, index * 1_024, 1_024)))
                .collect();
            parts.sort_by_key(|(index, _)| order[*index as usize]);
            let mut whole = WholeFile::default();
            for (index, part) in parts {
                whole.add(index, part.subtree.unwrap());
            }
            prop_assert_eq!(whole.finish(), ChunkHash::of(&data));
        }
    }

    #[test]
    fn another_hash_is_damage() {
        let (a, b) = (ChunkHash::of(b"a"), ChunkHash::of(b"b"));
        assert!(check(a, a).is_ok());
        assert_eq!(check(a, b).unwrap_err().code, crate::error::Code::Corrupt);
    }
}
