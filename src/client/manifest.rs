//! Pure: how a file is cut into chunks, and how chunks become manifest pages.

use super::tree_hash::{PartHash, TreeHash, is_subtree_size};
use crate::error::{Code, Error, Result};
use crate::limits::{CHUNK_BYTES_MAX, MANIFEST_PAGE_REFS, MANIFEST_PAGES_MAX};
use crate::proto::{ChunkLocation, FileView};
use crate::shard::records::ChunkRef;
use crate::types::{ChunkHash, Content};

/// One chunk of a file: its place and size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) index: u64,
    /// Bytes from the start of the file.
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

/// The largest file that chunks of this size can hold.
pub(crate) fn size_max(chunk_bytes: u64) -> u64 {
    chunk_bytes
        .saturating_mul(MANIFEST_PAGE_REFS as u64)
        .saturating_mul(u64::from(MANIFEST_PAGES_MAX))
}

/// A chunk size that a node told.
///
/// # Errors
/// `failed` if it is 0 or larger than any chunk may be.
pub(crate) fn check_chunk_bytes(chunk_bytes: u64) -> Result<u64> {
    match chunk_bytes {
        1..=CHUNK_BYTES_MAX => Ok(chunk_bytes),
        _ => Err(Error::failed(format!(
            "the node told a chunk size of {chunk_bytes} bytes (at most {CHUNK_BYTES_MAX})"
        ))),
    }
}

/// The chunks of a file of `size` bytes, in order.
pub(crate) fn pieces(size: u64, chunk_bytes: u64) -> impl Iterator<Item = Piece> + Send {
    let count = size.div_ceil(chunk_bytes);
    (0..count).map(move |index| {
        let offset = index * chunk_bytes;
        Piece {
            index,
            offset,
            len: chunk_bytes.min(size - offset),
        }
    })
}

/// Gathers the chunks of an upload in order: pages, size, and the hash of the whole.
pub(crate) struct ManifestBuilder {
    page: Vec<ChunkRef>,
    pages: u32,
    chunks: u64,
    size: u64,
    hash: WholeHash,
}

/// The hash of a whole file from its chunks in order.
pub(crate) enum WholeHash {
    Tree(TreeHash),
    /// Chunks that are no subtrees: their bytes are hashed in order.
    InOrder(Box<blake3::Hasher>),
}

impl WholeHash {
    pub(crate) fn new(chunk_bytes: u64) -> Self {
        match is_subtree_size(chunk_bytes) {
            true => WholeHash::Tree(TreeHash::default()),
            false => WholeHash::InOrder(Box::default()),
        }
    }

    /// The next chunk. Its bytes count only where it has no subtree value.
    pub(crate) fn add(&mut self, part: &PartHash, bytes: &[u8]) {
        match self {
            WholeHash::Tree(tree) => tree.push(part),
            WholeHash::InOrder(hasher) => drop(hasher.update(bytes)),
        }
    }

    pub(crate) fn finish(self) -> ChunkHash {
        match self {
            WholeHash::Tree(tree) => tree.finish(),
            WholeHash::InOrder(hasher) => ChunkHash(*hasher.finalize().as_bytes()),
        }
    }
}

/// What a commit needs.
#[derive(Debug)]
pub(crate) struct Manifest {
    pub(crate) size: u64,
    pub(crate) hash: ChunkHash,
    pub(crate) chunks: u64,
    /// The chunks behind the last full page.
    pub(crate) tail: Vec<ChunkRef>,
}

impl ManifestBuilder {
    pub(crate) fn new(chunk_bytes: u64) -> Self {
        ManifestBuilder {
            page: Vec::new(),
            pages: 0,
            chunks: 0,
            size: 0,
            hash: WholeHash::new(chunk_bytes),
        }
    }

    /// True if [`add`](Self::add) needs the chunks' bytes.
    pub(crate) fn needs_bytes(&self) -> bool {
        matches!(self.hash, WholeHash::InOrder(_))
    }

    /// The next chunk; returns a page that is full now, with its number.
    ///
    /// # Errors
    /// `usage` when the file has more chunks than a manifest can list.
    pub(crate) fn add(
        &mut self,
        part: &PartHash,
        len: u32,
        bytes: &[u8],
    ) -> Result<Option<(u32, Vec<ChunkRef>)>> {
        if self.pages >= MANIFEST_PAGES_MAX {
            return Err(Error::usage("the file is too large for its chunk size"));
        }
        self.hash.add(part, bytes);
        self.chunks += 1;
        self.size += u64::from(len);
        let hash = part.hash;
        self.page.push(ChunkRef { hash, len });
        if self.page.len() < MANIFEST_PAGE_REFS {
            return Ok(None);
        }
        let full = (self.pages, std::mem::take(&mut self.page));
        self.pages += 1;
        Ok(Some(full))
    }

    pub(crate) fn finish(self) -> Manifest {
        Manifest {
            size: self.size,
            chunks: self.chunks,
            tail: self.page,
            hash: self.hash.finish(),
        }
    }
}

/// The part of one chunk that a download needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Want {
    pub(crate) location: ChunkLocation,
    pub(crate) index: u64,
    /// Bytes within the chunk.
    pub(crate) from: u32,
    pub(crate) len: u32,
    /// Where these bytes begin in the file.
    pub(crate) offset: u64,
}

impl Want {
    /// The chunk is wanted wholly, so that its hash can be checked.
    pub(crate) fn is_whole(&self) -> bool {
        self.from == 0 && self.len == self.location.len
    }
}

/// The shape of a chunked file as a node told it, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) size: u64,
    pub(crate) chunk_bytes: u64,
    pub(crate) pages: u32,
}

impl Shape {
    /// `None` for contents that are not in chunks.
    ///
    /// # Errors
    /// `corrupt` when sizes and pages do not fit together.
    pub(crate) fn of(file: &FileView) -> Result<Option<Shape>> {
        let Content::Chunks {
            pages, chunk_bytes, ..
        } = file.attrs.content
        else {
            return Ok(None);
        };
        let size = file.attrs.size;
        if !(1..=CHUNK_BYTES_MAX).contains(&chunk_bytes)
            || size
                .div_ceil(chunk_bytes)
                .div_ceil(MANIFEST_PAGE_REFS as u64)
                != u64::from(pages)
        {
            return Err(bad_manifest("its size and pages do not fit together"));
        }
        Ok(Some(Shape {
            size,
            chunk_bytes,
            pages,
        }))
    }

    pub(crate) fn chunks(&self) -> u64 {
        self.size.div_ceil(self.chunk_bytes)
    }

    /// The pages that hold `start..end`.
    pub(crate) fn pages_of(&self, start: u64, end: u64) -> std::ops::Range<u32> {
        let page_bytes = self.chunk_bytes * MANIFEST_PAGE_REFS as u64;
        let at = |page: u64| u32::try_from(page).unwrap_or(u32::MAX).min(self.pages);
        if start >= end {
            return 0..0;
        }
        at(start / page_bytes)..at(end.div_ceil(page_bytes))
    }

    /// What of one page is needed for `start..end`.
    ///
    /// # Errors
    /// `corrupt` when the page has not the chunks that the file's size says.
    pub(crate) fn wants(
        &self,
        page: u32,
        chunks: &[ChunkLocation],
        start: u64,
        end: u64,
    ) -> Result<Vec<Want>> {
        let first = u64::from(page) * MANIFEST_PAGE_REFS as u64;
        let total = self.size.div_ceil(self.chunk_bytes);
        let expected = total.saturating_sub(first).min(MANIFEST_PAGE_REFS as u64);
        if chunks.len() as u64 != expected {
            return Err(bad_manifest("a page has not the chunks it should have"));
        }
        let mut wants = Vec::new();
        for (location, index) in chunks.iter().zip(first..) {
            let begin = index * self.chunk_bytes;
            let len = self.chunk_bytes.min(self.size - begin);
            if u64::from(location.len) != len {
                return Err(bad_manifest("a chunk has not the length it should have"));
            }
            let (from, to) = (start.max(begin), end.min(begin + len));
            if from >= to {
                continue;
            }
            let narrow = |bytes: u64| u32::try_from(bytes).map_err(|_| bad_manifest("too long"));
            wants.push(Want {
                location: location.clone(),
                index,
                from: narrow(from - begin)?,
                len: narrow(to - from)?,
                offset: from,
            });
        }
        Ok(wants)
    }
}

fn bad_manifest(why: &str) -> Error {
    Error::new(
        Code::Corrupt,
        format!("the file's list of chunks is damaged ({why})"),
    )
    .hint("run `dfs fsck` on it")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ChunkHash, Mac};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_cover_the_file_without_gap(size in 0u64..100_000, chunk in 1u64..5_000) {
            let mut at = 0;
            for piece in pieces(size, chunk) {
                prop_assert_eq!(piece.offset, at);
                prop_assert_eq!(piece.index, at / chunk);
                prop_assert!(piece.len <= chunk && piece.len > 0);
                at += piece.len;
            }
            prop_assert_eq!(at, size);
        }

        #[test]
        fn wants_cover_the_range_without_gap(
            size in 1u64..4_000_000,
            chunk in 1u64..3_000,
            a in 0u64..4_000_000,
            b in 0u64..4_000_000,
        ) {
            let (start, end) = (a.min(b).min(size), a.max(b).min(size));
            let shape = shape(size, chunk);
            let mut at = start;
            for page in shape.pages_of(start, end) {
                for want in shape.wants(page, &page_of(&shape, page), start, end).unwrap() {
                    prop_assert_eq!(want.offset, at);
                    prop_assert_eq!(want.index * chunk + u64::from(want.from), at);
                    prop_assert!(want.from + want.len <= want.location.len);
                    at += u64::from(want.len);
                }
            }
            prop_assert_eq!(at.max(start), end.max(start));
        }
    }

    fn shape(size: u64, chunk_bytes: u64) -> Shape {
        let pages = size
            .div_ceil(chunk_bytes)
            .div_ceil(MANIFEST_PAGE_REFS as u64);
        Shape {
            size,
            chunk_bytes,
            pages: pages as u32,
        }
    }

    fn page_of(shape: &Shape, page: u32) -> Vec<ChunkLocation> {
        pieces(shape.size, shape.chunk_bytes)
            .skip(page as usize * MANIFEST_PAGE_REFS)
            .take(MANIFEST_PAGE_REFS)
            .map(|piece| ChunkLocation {
                hash: ChunkHash([1; 32]),
                len: piece.len as u32,
                mac: Mac([0; 16]),
                owners: Vec::new(),
            })
            .collect()
    }

    #[test]
    fn full_pages_come_out_as_they_fill_and_the_rest_at_the_end() {
        let chunk = 1_024;
        let mut builder = ManifestBuilder::new(chunk);
        let part = PartHash::of(&[7; 1_024], 0, chunk);
        let mut staged = Vec::new();
        for _ in 0..2 * MANIFEST_PAGE_REFS + 3 {
            if let Some((page, refs)) = builder.add(&part, 1_024, &[]).unwrap() {
                staged.push((page, refs.len()));
            }
        }
        assert_eq!(staged, [(0, MANIFEST_PAGE_REFS), (1, MANIFEST_PAGE_REFS)]);
        let manifest = builder.finish();
        assert_eq!((manifest.tail.len(), manifest.chunks), (3, 2_051));
        assert_eq!(manifest.size, 2_051 * 1_024);
    }

    #[test]
    fn odd_chunk_sizes_hash_in_order() {
        let data: Vec<u8> = (0..10_000u32).map(|i| i as u8).collect();
        let mut builder = ManifestBuilder::new(3_000);
        assert!(builder.needs_bytes());
        for piece in pieces(data.len() as u64, 3_000) {
            let bytes = &data[piece.offset as usize..(piece.offset + piece.len) as usize];
            let part = PartHash::of(bytes, piece.offset, 3_000);
            builder.add(&part, piece.len as u32, bytes).unwrap();
        }
        assert_eq!(builder.finish().hash, ChunkHash::of(&data));
    }

    #[test]
    fn pages_that_lie_are_refused() {
        let shape = shape(10_000, 1_000);
        let good = page_of(&shape, 0);
        assert!(shape.wants(0, &good[1..], 0, 10_000).is_err());
        let mut short = good.clone();
        short[3].len = 999;
        assert!(shape.wants(0, &short, 0, 10_000).is_err());
        assert_eq!(shape.wants(0, &good, 0, 10_000).unwrap().len(), 10);
    }
}
