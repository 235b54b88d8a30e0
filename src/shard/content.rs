//! Pure: the records that hang on a file's inode: inline data, manifest pages, references. Each
//! change goes into `Header.contents`.

use super::keys;
use super::records::{ChunkRef, ManifestPage, Reference, decode, encode};
use super::refuse::damaged;
use super::sum;
use super::txn::Batch;
use crate::error::Result;
use crate::types::{ChunkHash, Content, ContentId, Inode};
use bytes::Bytes;

/// Records that one piece of work may still drop. A manifest page with its references goes as a
/// whole, so that a budget is overdrawn by at most one page.
#[derive(Debug)]
pub(super) struct Budget {
    left: u64,
    pub spent: u64,
}

impl Budget {
    pub fn new(records: u64) -> Budget {
        Budget {
            left: records,
            spent: 0,
        }
    }

    pub fn take(&mut self, records: u64) {
        self.left = self.left.saturating_sub(records);
        self.spent += records;
    }

    pub fn is_empty(&self) -> bool {
        self.left == 0
    }

    pub fn left(&self) -> usize {
        usize::try_from(self.left).unwrap_or(usize::MAX)
    }
}

/// The content's number; `None` for no bytes.
pub(super) fn id_of(content: &Content) -> Option<ContentId> {
    match content {
        Content::Empty => None,
        Content::Inline { id } | Content::Chunks { id, .. } => Some(*id),
    }
}

/// Replaces a record that hangs on a file.
pub(super) fn replace(batch: &mut Batch<'_>, key: Bytes, old: Option<&Bytes>, new: Option<Bytes>) {
    let delta = sum::replace(batch, key, old, new);
    let header = batch.header_mut();
    header.contents = header.contents.wrapping_add(delta);
}

/// Removes a record that hangs on a file; false if it is not there.
pub(super) fn remove(batch: &mut Batch<'_>, key: Bytes) -> Result<bool> {
    let Some(old) = batch.get(&key)? else {
        return Ok(false);
    };
    replace(batch, key, Some(&old), None);
    Ok(true)
}

/// Stores inline data under a new content of the file.
pub(super) fn put_inline(batch: &mut Batch<'_>, inode: Inode, data: Bytes) -> Content {
    if data.is_empty() {
        return Content::Empty;
    }
    let id = batch.next_content();
    replace(batch, keys::inline(inode, id), None, Some(data));
    Content::Inline { id }
}

/// The inline data of a content that has some.
pub(super) fn inline(batch: &Batch<'_>, inode: Inode, id: ContentId) -> Result<Bytes> {
    batch
        .get(&keys::inline(inode, id))?
        .ok_or_else(|| damaged(format!("inline data {id} of file {inode} is missing")))
}

/// A manifest page that must be there.
pub(super) fn page(
    batch: &Batch<'_>,
    inode: Inode,
    id: ContentId,
    page: u32,
) -> Result<ManifestPage> {
    match batch.get(&keys::manifest(inode, id, page))? {
        Some(bytes) => decode(&bytes),
        None => Err(damaged(format!(
            "manifest page {page} of content {id} of file {inode} is missing"
        ))),
    }
}

/// Stores a manifest page that was not there, with a reference for each chunk.
pub(super) fn put_page(
    batch: &mut Batch<'_>,
    inode: Inode,
    id: ContentId,
    page: u32,
    chunks: Vec<ChunkRef>,
    user: &str,
) -> Result<()> {
    for chunk in &chunks {
        let key = keys::reference(&chunk.hash, inode, id);
        let reference = encode(&Reference {
            user: user.to_owned(),
            len: chunk.len,
        });
        // A content may hold a chunk many times and has one reference to it.
        if batch.get(&key)?.is_none() {
            replace(batch, key, None, Some(reference));
        }
    }
    let key = keys::manifest(inode, id, page);
    replace(batch, key, None, Some(encode(&ManifestPage { chunks })));
    Ok(())
}

/// Drops what is left of a content; false when the budget ended before.
pub(super) fn drop_content(
    batch: &mut Batch<'_>,
    inode: Inode,
    content: &Content,
    budget: &mut Budget,
) -> Result<bool> {
    match content {
        Content::Empty => Ok(true),
        Content::Inline { id } => {
            if budget.is_empty() {
                return Ok(false);
            }
            if remove(batch, keys::inline(inode, *id))? {
                budget.take(1);
            }
            Ok(true)
        }
        Content::Chunks { id, .. } => drop_pages(batch, inode, *id, budget),
    }
}

/// Drops manifest pages of a content with their references; false when some are left. Which are
/// left is seen from the records themselves, so it can be gone on with at any time.
pub(super) fn drop_pages(
    batch: &mut Batch<'_>,
    inode: Inode,
    id: ContentId,
    budget: &mut Budget,
) -> Result<bool> {
    let prefix = keys::manifest_of(inode, id);
    loop {
        let Some((key, value)) = batch.collect(&prefix, &prefix, 1)?.pop() else {
            return Ok(true);
        };
        if budget.is_empty() {
            return Ok(false);
        }
        let page: ManifestPage = decode(&value)?;
        let mut records = 1;
        for chunk in &page.chunks {
            records += u64::from(remove(batch, keys::reference(&chunk.hash, inode, id))?);
        }
        replace(batch, key, Some(&value), None);
        budget.take(records);
    }
}

/// BLAKE3 of no bytes.
pub(super) fn hash_of_nothing() -> ChunkHash {
    ChunkHash::of(&[])
}
