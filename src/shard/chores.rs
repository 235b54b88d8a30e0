//! Pure: chores on uploads and old versions. Each does a bounded amount, can be repeated at will
//! and goes on where it stopped. Lanes are in `sessions`, change rows in `changes`, deletions in
//! `cleanup`.

use super::command::ChoreDone;
use super::content::{self, Budget};
use super::keys;
use super::records::{Upload, decode};
use super::refuse::damaged;
use super::txn::Batch;
use super::uploads;
use super::versions::{self, Row};
use crate::error::Result;
use crate::limits::MANIFEST_PAGE_REFS;
use crate::types::{Inode, UploadId};
use bytes::Bytes;

/// Upload rows looked at for each one that may be dropped.
const LOOK_FACTOR: usize = 16;
/// Records of contents that one chore drops at most.
const CHORE_DROPS: u64 = 16 * (MANIFEST_PAGE_REFS as u64 + 1);

/// Parent and id in the key of an upload.
pub(super) fn upload_of(key: &[u8]) -> Result<(Inode, UploadId)> {
    let parent = keys::number_at(key, 1).map(Inode);
    let id = key.get(9..).and_then(|id| id.try_into().ok()).map(UploadId);
    match (parent, id) {
        (Some(parent), Some(id)) => Ok((parent, id)),
        _ => Err(damaged("a key of `uploads` has the wrong length")),
    }
}

/// `Chore::ExpireUploads`: drops uploads that have expired, at most `uploads` of them, going
/// round through all.
pub(super) fn expire_uploads(batch: &mut Batch<'_>, uploads: u32) -> Result<ChoreDone> {
    let table = keys::table(keys::UPLOADS);
    let limit = uploads as usize;
    let look = limit.saturating_mul(LOOK_FACTOR).max(1);
    let (parent, id) = batch.header().uploads_behind;
    let from = [&keys::upload(parent, id)[..], &[0]].concat();
    let found = batch.collect(&table, &from, look)?;
    let at_end = found.len() < look;
    let mut budget = Budget::new(CHORE_DROPS);
    let mut done = ChoreDone::default();
    for (key, raw) in found {
        let row: Upload = decode(&raw)?;
        let (parent, id) = upload_of(&key)?;
        if row.expires <= batch.header().time {
            if done.done == limit as u64
                || !content::drop_pages(batch, row.inode, row.content, &mut budget)?
            {
                done.more = true;
                return Ok(done);
            }
            uploads::set_row(batch, parent, id, Some(&raw), None)?;
            done.done += 1;
        }
        batch.header_mut().uploads_behind = (parent, id);
    }
    if at_end {
        batch.header_mut().uploads_behind = (Inode(0), UploadId([0; 16]));
    }
    done.more = !at_end;
    Ok(done)
}

/// `Chore::ExpireVersions`: drops version rows past retention of the files behind an inode,
/// looking at about `rows` rows (a file's rows are looked at together).
pub(super) fn expire_versions(
    batch: &mut Batch<'_>,
    behind: Inode,
    rows: u32,
) -> Result<ChoreDone> {
    let table = keys::table(keys::VERSIONS);
    let mut done = ChoreDone::default();
    let Some(first) = behind.0.checked_add(1) else {
        return Ok(done);
    };
    let look = (rows as usize).max(1);
    let mut found = batch.collect(&table, &keys::versions_of(Inode(first)), look)?;
    done.more = found.len() == look;
    if done.more
        && let Some((last, _)) = found.last()
    {
        let rest = [&last[..], &[0]].concat();
        let prefix = keys::versions_of(inode_of(last)?);
        found.extend(batch.collect(&prefix, &rest, usize::MAX)?);
    }
    let mut budget = Budget::new(CHORE_DROPS);
    let mut group: Vec<Row> = Vec::new();
    let mut finished = behind;
    for (key, raw) in found {
        let inode = inode_of(&key)?;
        if let Some(before) = group.first().map(|row| inode_of(&row.key)).transpose()?
            && before != inode
        {
            if !versions::prune(batch, before, std::mem::take(&mut group), &mut budget)? {
                return Ok(stopped(&budget, before));
            }
            finished = before;
        }
        group.push(Row::decode(key, raw)?);
    }
    if let Some(inode) = group.first().map(|row| inode_of(&row.key)).transpose()? {
        if !versions::prune(batch, inode, group, &mut budget)? {
            return Ok(stopped(&budget, inode));
        }
        finished = inode;
    }
    done.done = budget.spent;
    done.next = if done.more { finished } else { Inode(0) };
    Ok(done)
}

/// The budget ended within a file: the next chore begins with it again.
fn stopped(budget: &Budget, at: Inode) -> ChoreDone {
    ChoreDone {
        done: budget.spent,
        more: true,
        next: Inode(at.0.saturating_sub(1)),
    }
}

fn inode_of(key: &Bytes) -> Result<Inode> {
    keys::number_at(key, 1)
        .map(Inode)
        .ok_or_else(|| damaged("a key of `versions` is too short"))
}
