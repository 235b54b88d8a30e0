//! Pure: the table of tables. Keys begin with one table byte; numbers are big-endian so that
//! bytes sort as numbers. The store puts the slot in front.
//!
//! | byte | table | key | value | found from | split keeps it with |
//! |---|---|---|---|---|---|
//! | 01 | header | | [`Header`] | the shard | each shard has its own |
//! | 02 | entries | parent inode u64, name | [`Entry`] | path | the parent |
//! | 03 | directories | inode u64 | [`DirRecord`] | entry | the inode |
//! | 04 | inline data | inode u64, content u64 | bytes | entry | the inode |
//! | 05 | versions | inode u64, version u64 | [`OldVersion`] | entry | the inode |
//! | 06 | manifests | inode u64, content u64, page u32 | [`ManifestPage`] | entry | the inode |
//! | 07 | references | chunk hash 32 bytes, inode u64, content u64 | [`Reference`] | manifest | the inode |
//! | 08 | uploads | parent inode u64, upload id 16 bytes | [`Upload`] | directory | the parent |
//! | 0a | deleted | former parent inode u64, revision u64 | [`Deleted`] | directory | the former parent |
//! | 0c | lanes | session 16 bytes, lane u16 | [`LaneRow`] | request | copied to both |
//! | 0d | lanes by age | minute of shard time u64, session 16 bytes, lane u16 | empty | header's horizon | copied to both |
//! | 0e | changes | revision u64 | [`ChangeRow`] | revision | the parent |
//!
//! An image copies all tables; removing a replica removes all. Bytes 09 (locks), 0b, 0f
//! (history), 10 (released references) and 11 (transactions) are kept for those tables.
//!
//! [`Header`]: super::records::Header
//! [`Entry`]: super::records::Entry
//! [`DirRecord`]: super::records::DirRecord
//! [`OldVersion`]: super::records::OldVersion
//! [`ManifestPage`]: super::records::ManifestPage
//! [`Reference`]: super::records::Reference
//! [`Upload`]: super::records::Upload
//! [`Deleted`]: super::records::Deleted
//! [`LaneRow`]: super::records::LaneRow
//! [`ChangeRow`]: super::records::ChangeRow

use crate::types::{
    ChunkHash, ContentId, FileVersion, Inode, Lane, Name, Revision, SessionId, UploadId,
};
use bytes::Bytes;

pub const HEADER: u8 = 0x01;
pub const ENTRIES: u8 = 0x02;
pub const DIRS: u8 = 0x03;
pub const INLINE: u8 = 0x04;
pub const VERSIONS: u8 = 0x05;
pub const MANIFESTS: u8 = 0x06;
pub const REFERENCES: u8 = 0x07;
pub const UPLOADS: u8 = 0x08;
pub const DELETED: u8 = 0x0a;
pub const LANES: u8 = 0x0c;
pub const LANES_BY_AGE: u8 = 0x0d;
pub const CHANGES: u8 = 0x0e;

fn build(table: u8, parts: &[&[u8]]) -> Bytes {
    let mut key = Vec::with_capacity(1 + parts.iter().map(|part| part.len()).sum::<usize>());
    key.push(table);
    parts.iter().for_each(|part| key.extend_from_slice(part));
    key.into()
}

pub fn header() -> Bytes {
    build(HEADER, &[])
}

pub fn entry(parent: Inode, name: &Name) -> Bytes {
    build(
        ENTRIES,
        &[&parent.0.to_be_bytes(), name.as_str().as_bytes()],
    )
}

/// Start of a directory's entries; [`after`] of it is their end.
pub fn entries_of(parent: Inode) -> Bytes {
    build(ENTRIES, &[&parent.0.to_be_bytes()])
}

pub fn dir(inode: Inode) -> Bytes {
    build(DIRS, &[&inode.0.to_be_bytes()])
}

pub fn inline(inode: Inode, content: ContentId) -> Bytes {
    build(INLINE, &[&inode.0.to_be_bytes(), &content.0.to_be_bytes()])
}

pub fn version(inode: Inode, version: FileVersion) -> Bytes {
    build(
        VERSIONS,
        &[&inode.0.to_be_bytes(), &version.0.to_be_bytes()],
    )
}

pub fn versions_of(inode: Inode) -> Bytes {
    build(VERSIONS, &[&inode.0.to_be_bytes()])
}

pub fn manifest(inode: Inode, content: ContentId, page: u32) -> Bytes {
    build(
        MANIFESTS,
        &[
            &inode.0.to_be_bytes(),
            &content.0.to_be_bytes(),
            &page.to_be_bytes(),
        ],
    )
}

pub fn manifest_of(inode: Inode, content: ContentId) -> Bytes {
    build(
        MANIFESTS,
        &[&inode.0.to_be_bytes(), &content.0.to_be_bytes()],
    )
}

pub fn reference(chunk: &ChunkHash, inode: Inode, content: ContentId) -> Bytes {
    build(
        REFERENCES,
        &[&chunk.0, &inode.0.to_be_bytes(), &content.0.to_be_bytes()],
    )
}

pub fn references_of(chunk: &ChunkHash) -> Bytes {
    build(REFERENCES, &[&chunk.0])
}

/// The chunk that a key of the references is about.
pub fn chunk_of_reference(key: &[u8]) -> Option<ChunkHash> {
    let hash = key.get(1..33)?;
    Some(ChunkHash(hash.try_into().ok()?))
}

pub fn upload(parent: Inode, upload: UploadId) -> Bytes {
    build(UPLOADS, &[&parent.0.to_be_bytes(), &upload.0])
}

pub fn uploads_of(parent: Inode) -> Bytes {
    build(UPLOADS, &[&parent.0.to_be_bytes()])
}

pub fn deleted(parent: Inode, revision: Revision) -> Bytes {
    build(
        DELETED,
        &[&parent.0.to_be_bytes(), &revision.0.to_be_bytes()],
    )
}

pub fn deleted_of(parent: Inode) -> Bytes {
    build(DELETED, &[&parent.0.to_be_bytes()])
}

pub fn lane(session: SessionId, lane: Lane) -> Bytes {
    build(LANES, &[&session.0, &lane.0.to_be_bytes()])
}

pub fn lane_by_age(minute: u64, session: SessionId, lane: Lane) -> Bytes {
    build(
        LANES_BY_AGE,
        &[&minute.to_be_bytes(), &session.0, &lane.0.to_be_bytes()],
    )
}

pub fn change(revision: Revision) -> Bytes {
    build(CHANGES, &[&revision.0.to_be_bytes()])
}

/// A whole table: its start; [`after`] of it is its end.
pub fn table(table: u8) -> Bytes {
    build(table, &[])
}

/// The first key behind all keys with this prefix (`None`: there is none).
pub fn after(prefix: &[u8]) -> Option<Bytes> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut key = prefix[..=last].to_vec();
    key[last] += 1;
    Some(key.into())
}

/// Reads the big-endian number at `at` of a key.
pub fn number_at(key: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(
        key.get(at..at.checked_add(8)?)?.try_into().ok()?,
    ))
}

/// The name at the end of an entry's key.
pub fn entry_name(key: &[u8]) -> Option<Name> {
    Name::parse(std::str::from_utf8(key.get(9..)?).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn entries_sort_by_parent_then_name(a: u64, b: u64, x in "[a-z]{1,8}", y in "[a-z]{1,8}") {
            let key = |parent, name: &str| entry(Inode(parent), &Name::parse(name).unwrap());
            prop_assert_eq!((a, &x).cmp(&(b, &y)), key(a, &x).cmp(&key(b, &y)));
        }

        #[test]
        fn after_is_behind_every_key_with_the_prefix(prefix: Vec<u8>, tail: Vec<u8>) {
            if let Some(end) = after(&prefix) {
                let key = [prefix.clone(), tail].concat();
                prop_assert!(key[..] < end[..]);
                prop_assert!(prefix[..] < end[..]);
            }
        }
    }

    #[test]
    fn longest_key_fits_lmdb() {
        let name = Name::parse(&"x".repeat(255)).unwrap();
        // 511 bytes are LMDB's limit; the slot adds 4.
        assert!(entry(Inode(u64::MAX), &name).len() + 4 <= 511);
    }
}
