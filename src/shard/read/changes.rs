//! Pure: which change rows are no longer kept.

use super::header;
use crate::error::Result;
use crate::shard::keys;
use crate::shard::records::{ChangeRow, decode};
use crate::shard::refuse::damaged;
use crate::store::SlotRead;
use crate::types::{Revision, ShardTime};

/// The last of the oldest change rows that may go, looking at most at `rows` of them: those older
/// than `keep_ms` at `now`, and younger ones only while more than `keep_bytes` are left behind
/// them. `None`: all are kept.
pub fn changes_due(
    view: &dyn SlotRead,
    now: ShardTime,
    keep_ms: u64,
    keep_bytes: u64,
    rows: u32,
) -> Result<Option<Revision>> {
    let header = header(view)?;
    let mut left = header.changes_bytes;
    let (mut due, mut looked) = (None, 0);
    let end = keys::after(&keys::table(keys::CHANGES));
    let start = keys::change(header.changes_trimmed.next());
    view.scan(&start, end.as_deref(), &mut |key, value| {
        let row: ChangeRow = decode(value)?;
        if looked == rows || (now.since(row.time) <= keep_ms && left <= keep_bytes) {
            return Ok(false);
        }
        let revision = keys::number_at(key, 1);
        due = Some(Revision(
            revision.ok_or_else(|| damaged("a key of `changes` is too short"))?,
        ));
        left = left.saturating_sub(value.len() as u64);
        looked += 1;
        Ok(true)
    })?;
    Ok(due)
}
