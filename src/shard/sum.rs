//! Pure: totals and sums of directories, and the one walk that keeps them.
//!
//! # What a directory's `sum` counts
//! The wrapping sum of, for the directory itself and everything below it,
//! - the *form* of the directory's own record: its hash with totals and sum zeroed,
//! - its entries, its uploads' rows and its rows in `deleted`, each by `record_hash`,
//! - the sums of its subdirectories, those that are deleted but not yet cleaned up too.
//!
//! So each of these records counts in exactly one directory, and the root's sum covers them all:
//! a record that vanishes or changes anywhere shows as a difference. Removing a tree moves
//! nothing but its entry's hash to its row in `deleted`: what was removed stays covered until it
//! is cleaned up. Totals count only what can be seen: they shrink at once.
//!
//! # What hangs on files
//! Inline data, versions, manifests and references are keyed by the file's inode, so that a
//! rename or removal of a file touches none of them and retention needs no way back from an
//! inode to its directory. They add up shard-wide in `Header.contents` instead. Lanes and changes
//! are counted by the header's own numbers.
//!
//! # One walk
//! An operation gathers its [`Weight`] and calls [`carry`] once: every directory from the
//! changed one up to the shard's root gets it.

use super::keys;
use super::records::{DirRecord, Entry, encode};
use super::txn::Batch;
use crate::error::Result;
use crate::store::record::record_hash;
use crate::types::{DirVersion, Inode, WallTime};
use bytes::Bytes;

/// What a change adds to a directory and all above it. Wrapping: a negative number is its two's
/// complement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Weight {
    pub entries: u64,
    pub bytes: u64,
    pub mounts: u64,
    pub sum: u64,
}

impl Weight {
    pub fn sum(sum: u64) -> Weight {
        Weight {
            sum,
            ..Weight::default()
        }
    }

    pub fn negated(self) -> Weight {
        Weight {
            entries: self.entries.wrapping_neg(),
            bytes: self.bytes.wrapping_neg(),
            mounts: self.mounts.wrapping_neg(),
            sum: self.sum.wrapping_neg(),
        }
    }

    pub fn plus(self, other: Weight) -> Weight {
        Weight {
            entries: self.entries.wrapping_add(other.entries),
            bytes: self.bytes.wrapping_add(other.bytes),
            mounts: self.mounts.wrapping_add(other.mounts),
            sum: self.sum.wrapping_add(other.sum),
        }
    }

    pub fn add_to(self, record: &mut DirRecord) {
        let totals = &mut record.totals;
        totals.entries = totals.entries.wrapping_add(self.entries);
        totals.bytes = totals.bytes.wrapping_add(self.bytes);
        totals.mounts = totals.mounts.wrapping_add(self.mounts);
        record.sum = record.sum.wrapping_add(self.sum);
    }
}

/// What an entry weighs in its directory's totals, with everything below it. No sum.
pub(super) fn entry_totals(batch: &mut Batch<'_>, entry: &Entry) -> Result<Weight> {
    Ok(match entry {
        Entry::File { attrs, .. } => Weight {
            entries: 1,
            bytes: attrs.size,
            ..Weight::default()
        },
        Entry::Dir { inode, .. } => {
            let totals = batch.dir(*inode)?.totals;
            Weight {
                entries: totals.entries.wrapping_add(1),
                bytes: totals.bytes,
                mounts: totals.mounts,
                sum: 0,
            }
        }
        Entry::Mount { .. } => Weight {
            entries: 1,
            mounts: 1,
            ..Weight::default()
        },
    })
}

/// Hash of a directory record with totals and sum zeroed.
pub(super) fn form_hash(inode: Inode, record: &mut DirRecord) -> u64 {
    let totals = std::mem::take(&mut record.totals);
    let sum = std::mem::take(&mut record.sum);
    let bytes = encode(record);
    record.totals = totals;
    record.sum = sum;
    record_hash(&keys::dir(inode), &bytes)
}

/// Replaces a record that counts in a directory's sum; returns what its sum changes by.
pub(super) fn replace(
    batch: &mut Batch<'_>,
    key: Bytes,
    old: Option<&Bytes>,
    new: Option<Bytes>,
) -> u64 {
    let gone = old.map_or(0, |value| record_hash(&key, value));
    let come = new.as_ref().map_or(0, |value| record_hash(&key, value));
    match new {
        Some(value) => batch.put(key, value),
        None => batch.delete(key),
    }
    come.wrapping_sub(gone)
}

/// What of a directory a change counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Touch {
    /// Its list of names.
    Names,
    /// Attributes of one of its names.
    Attributes,
}

/// Counts a change of a directory: its version, and for names its `modified`. The version
/// becomes the change's revision, so that no two directories that had one path one after the
/// other had the same version there. Returns what its form's hash changes by, to be carried from
/// this directory upwards.
pub(super) fn touch(batch: &mut Batch<'_>, dir: Inode, wall: WallTime, what: Touch) -> Result<u64> {
    let mut record = batch.dir(dir)?.clone();
    record.version = DirVersion(batch.header().revision.0).max(record.version.next());
    if what == Touch::Names {
        record.modified = record.modified.max(wall);
    }
    batch.set_dir(dir, Some(record))
}

/// Adds a weight to a directory and every one above it, up to the shard's root.
pub(super) fn carry(batch: &mut Batch<'_>, dir: Inode, weight: Weight) -> Result<()> {
    carry_until(batch, dir, weight, None)
}

/// Like [`carry`]; totals stop behind `totals_until` (a deleted directory: those above it do not
/// count it any more), the sum goes on to the root.
pub(super) fn carry_until(
    batch: &mut Batch<'_>,
    dir: Inode,
    mut weight: Weight,
    totals_until: Option<Inode>,
) -> Result<()> {
    let root = batch.header().root;
    let mut at = dir;
    for _ in 0..super::tree::WALK_MAX {
        let parent = batch.weigh(at, weight)?;
        if at == root {
            return Ok(());
        }
        if totals_until == Some(at) {
            weight = Weight::sum(weight.sum);
        }
        at = parent;
    }
    Err(super::tree::endless(dir))
}
