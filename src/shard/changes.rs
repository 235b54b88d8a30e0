//! Pure: change rows, one for each revision, for watchers.

use super::apply::Caller;
use super::command::ChoreDone;
use super::keys;
use super::records::{Change, ChangeRow, encode};
use super::refuse::damaged;
use super::txn::Batch;
use crate::error::Result;
use crate::types::{Inode, Revision};

/// Writes the change row of the newest revision. `ancestors`: from the changed name's directory
/// up to the shard's root.
pub(super) fn record(
    batch: &mut Batch<'_>,
    caller: &Caller<'_>,
    change: Change,
    ancestors: &[Inode],
) {
    let row = encode(&ChangeRow {
        time: batch.header().time,
        wall: caller.wall,
        user: caller.user.to_owned(),
        change,
        ancestors: ancestors.to_vec(),
    });
    let header = batch.header_mut();
    header.changes_bytes = header.changes_bytes.wrapping_add(row.len() as u64);
    let key = keys::change(header.revision);
    batch.put(key, row);
}

/// `Chore::TrimChanges`: drops the oldest change rows, up to `upto`, at most `rows` of them.
pub(super) fn trim(batch: &mut Batch<'_>, upto: Revision, rows: u32) -> Result<ChoreDone> {
    let upto = upto.min(batch.header().revision);
    let mut done = 0;
    while done < u64::from(rows) && batch.header().changes_trimmed < upto {
        let revision = batch.header().changes_trimmed.next();
        let key = keys::change(revision);
        let row = batch
            .get(&key)?
            .ok_or_else(|| damaged(format!("the change row of revision {revision} is missing")))?;
        batch.delete(key);
        let header = batch.header_mut();
        header.changes_bytes = header.changes_bytes.wrapping_sub(row.len() as u64);
        header.changes_trimmed = revision;
        done += 1;
    }
    Ok(ChoreDone {
        done,
        more: batch.header().changes_trimmed < upto,
        next: Inode(0),
    })
}
