//! Pure: superseded versions of a file and their retention.
//!
//! Rows are dropped oldest first. A content that several versions share belongs to the newest of
//! them; the others' rows say `shared`. So a row can be dropped without looking at the entry,
//! which retention by inode could not find.

use super::content::{self, Budget};
use super::keys;
use super::records::{OldVersion, decode, encode};
use super::txn::Batch;
use crate::error::Result;
use crate::limits::MANIFEST_PAGE_REFS;
use crate::types::{Content, FileAttrs, FileVersion, Inode};
use bytes::Bytes;

/// Records that one commit drops at most for retention; `Chore::ExpireVersions` does the rest.
const COMMIT_DROPS: u64 = 4 * (MANIFEST_PAGE_REFS as u64 + 1) + 64;

/// A version row as read.
pub(super) struct Row {
    pub key: Bytes,
    pub raw: Bytes,
    pub old: OldVersion,
}

impl Row {
    pub fn decode(key: Bytes, raw: Bytes) -> Result<Row> {
        Ok(Row {
            old: decode(&raw)?,
            key,
            raw,
        })
    }

    fn rewrite(&mut self, batch: &mut Batch<'_>) {
        let new = encode(&self.old);
        content::replace(batch, self.key.clone(), Some(&self.raw), Some(new.clone()));
        self.raw = new;
    }
}

/// All version rows of a file, oldest first.
pub(super) fn rows_of(batch: &Batch<'_>, inode: Inode) -> Result<Vec<Row>> {
    let prefix = keys::versions_of(inode);
    batch
        .collect(&prefix, &prefix, usize::MAX)?
        .into_iter()
        .map(|(key, raw)| Row::decode(key, raw))
        .collect()
}

/// A version row that can still be read.
pub(super) fn find(
    batch: &Batch<'_>,
    inode: Inode,
    version: FileVersion,
) -> Result<Option<FileAttrs>> {
    let Some(raw) = batch.get(&keys::version(inode, version))? else {
        return Ok(None);
    };
    let old: OldVersion = decode(&raw)?;
    Ok((!old.dropping).then_some(old.attrs))
}

/// Puts a file's version that has just been replaced among the old ones and drops what is past
/// retention.
pub(super) fn supersede(
    batch: &mut Batch<'_>,
    inode: Inode,
    old: FileAttrs,
    new_content: &Content,
) -> Result<()> {
    let mut rows = rows_of(batch, inode)?;
    let new_id = content::id_of(new_content);
    for row in &mut rows {
        let same = new_id.is_some() && content::id_of(&row.old.attrs.content) == new_id;
        if same && !row.old.shared {
            row.old.shared = true;
            row.rewrite(batch);
        }
    }
    let key = keys::version(inode, old.version);
    let old = OldVersion {
        shared: new_id.is_some() && content::id_of(&old.content) == new_id,
        superseded: batch.header().time,
        dropping: false,
        attrs: old,
    };
    let raw = encode(&old);
    content::replace(batch, key.clone(), None, Some(raw.clone()));
    rows.push(Row { key, raw, old });
    prune(batch, inode, rows, &mut Budget::new(COMMIT_DROPS))?;
    Ok(())
}

/// Drops those of a file's version rows that are past retention; false when some are left over
/// because the budget ended.
pub(super) fn prune(
    batch: &mut Batch<'_>,
    inode: Inode,
    rows: Vec<Row>,
    budget: &mut Budget,
) -> Result<bool> {
    let time = batch.header().time;
    let keep = batch.header().settings.keep_versions as usize;
    let keep_for_ms = batch.header().settings.keep_for_ms;
    let live = rows.iter().filter(|row| !row.old.dropping).count();
    let mut excess = live.saturating_sub(keep);
    for mut row in rows {
        let past = excess > 0 || row.old.superseded.plus_ms(keep_for_ms) <= time;
        if !row.old.dropping && !past {
            break;
        }
        if budget.is_empty() {
            return Ok(false);
        }
        if !row.old.dropping {
            excess = excess.saturating_sub(1);
        }
        let gone =
            row.old.shared || content::drop_content(batch, inode, &row.old.attrs.content, budget)?;
        if !gone {
            if !row.old.dropping {
                row.old.dropping = true;
                row.rewrite(batch);
            }
            return Ok(false);
        }
        content::replace(batch, row.key, Some(&row.raw), None);
        budget.take(1);
    }
    Ok(true)
}
