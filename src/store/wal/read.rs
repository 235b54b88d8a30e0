//! Reads entries: from memory, else from the segments, checked. Called by `Wal::read`.

use super::format;
use super::index::Place;
use super::segment::Wanted;
use super::{LogEntry, LogPosition, Shared};
use crate::env::DiskFile;
use crate::error::{Error, Result};
use crate::types::{GroupId, LogIndex};
use bytes::Bytes;
use std::sync::Arc;

/// Records that lie close together are read at once, up to so many bytes.
const SPAN_BYTES_MAX: u64 = 1 << 20;
/// What may lie between them (records of other groups).
const GAP_BYTES_MAX: u64 = 16 << 10;
/// An entry may be moved by the writer while it is read; that often in a row it is not.
const TRIES: usize = 4;

/// Where an entry is to be had.
enum Source {
    Memory(Bytes),
    Disk {
        segment: u64,
        file: Arc<dyn DiskFile>,
        wanted: Wanted,
    },
}

/// Entries in `from..to`; see `Wal::read`.
pub(super) async fn read(
    shared: &Shared,
    group: GroupId,
    from: LogIndex,
    to: LogIndex,
    bytes_max: usize,
) -> Result<Vec<LogEntry>> {
    for _ in 0..TRIES {
        let plan = plan(shared, group, from, to, bytes_max)?;
        if let Some(entries) = fetch(shared, group, plan).await? {
            return Ok(entries);
        }
    }
    let what = format!("group {group}: entry {from} of the log keeps moving");
    Err(Error::unavailable(what).hint("try again"))
}

fn plan(
    shared: &Shared,
    group: GroupId,
    from: LogIndex,
    to: LogIndex,
    bytes_max: usize,
) -> Result<Vec<(LogPosition, Source)>> {
    let state = shared.state.lock();
    let mut out: Vec<(LogPosition, Source)> = Vec::new();
    let Some(known) = state.groups.get(&group) else {
        return Ok(out);
    };
    if from < to && from <= known.entries.purged().index {
        let purged = known.entries.purged().index;
        let what = format!("group {group}: entry {from} is not in the log (purged up to {purged})");
        return Err(Error::not_found(what));
    }
    let mut bytes = 0usize;
    let mut index = from;
    while index < to {
        let (Some(slot), Some(position)) =
            (known.entries.slot(index), known.entries.position(index))
        else {
            break;
        };
        bytes = bytes.saturating_add(slot.length as usize);
        if bytes > bytes_max && !out.is_empty() {
            break;
        }
        let source = match (known.cached(index), slot.place) {
            (Some(payload), _) => Source::Memory(payload.clone()),
            (None, Place::At { segment, offset }) => {
                let file = state.segments.get(&segment).map(|s| s.file.clone());
                let wanted = Wanted {
                    group,
                    position,
                    offset,
                    length: slot.length,
                };
                let file = file.ok_or_else(|| damaged(shared, segment, &wanted))?;
                Source::Disk {
                    segment,
                    file,
                    wanted,
                }
            }
            _ if !out.is_empty() => break,
            (None, Place::Lost { segment, offset }) => {
                let wanted = Wanted {
                    group,
                    position,
                    offset,
                    length: slot.length,
                };
                return Err(damaged(shared, segment, &wanted));
            }
            (None, Place::Pending { .. }) => {
                let what = format!("group {group}: entry {index} is neither in memory nor on disk");
                return Err(Error::failed(what));
            }
        };
        out.push((position, source));
        index = index.next();
    }
    Ok(out)
}

/// Reads what is planned; `None` if something was moved or went meanwhile.
async fn fetch(
    shared: &Shared,
    group: GroupId,
    plan: Vec<(LogPosition, Source)>,
) -> Result<Option<Vec<LogEntry>>> {
    let mut out = Vec::with_capacity(plan.len());
    // Bytes of a segment and where they begin.
    let mut window: Option<(u64, u64, Bytes)> = None;
    for at in 0..plan.len() {
        let (position, source) = &plan[at];
        let payload = match source {
            Source::Memory(payload) => payload.clone(),
            Source::Disk {
                segment,
                file,
                wanted,
            } => {
                let seed = format::seed(shared.salt, *segment);
                let offset = u64::from(wanted.offset);
                let covered = window.as_ref().is_some_and(|(of, base, bytes)| {
                    of == segment && *base <= offset && wanted.end() <= base + bytes.len() as u64
                });
                if !covered {
                    let end = span_end(&plan[at..], *segment);
                    // A sector that cannot be read is damage, like one that reads wrong.
                    let len = usize::try_from(end - offset).unwrap_or(usize::MAX);
                    let bytes = file.read_at(offset, len).await.unwrap_or_default();
                    window = Some((*segment, offset, bytes));
                }
                let found = window
                    .as_ref()
                    .and_then(|(_, base, bytes)| wanted.pick(bytes, *base, seed));
                match found {
                    Some(payload) => payload,
                    None if out.is_empty() => return gone_or_damaged(shared, *segment, wanted),
                    // The next read begins there and finds out.
                    None => break,
                }
            }
        };
        out.push(LogEntry {
            position: *position,
            payload,
        });
    }
    debug_assert!(
        out.iter().all(|e: &LogEntry| e.position.index.0 > 0),
        "{group}"
    );
    Ok(Some(out))
}

/// Where a read that begins with the first planned record should end.
fn span_end(plan: &[(LogPosition, Source)], of: u64) -> u64 {
    let mut begin = None;
    let mut end = 0u64;
    for (_, source) in plan {
        let Source::Disk {
            segment, wanted, ..
        } = source
        else {
            break;
        };
        let offset = u64::from(wanted.offset);
        let begin = *begin.get_or_insert(offset);
        let near = end == 0 || (offset >= end && offset - end <= GAP_BYTES_MAX);
        let small = end == 0 || wanted.end().saturating_sub(begin) <= SPAN_BYTES_MAX;
        if *segment != of || !near || !small {
            break;
        }
        end = wanted.end();
    }
    end
}

fn gone_or_damaged(
    shared: &Shared,
    segment: u64,
    wanted: &Wanted,
) -> Result<Option<Vec<LogEntry>>> {
    let index = wanted.position.index;
    let at = (segment, wanted.offset);
    if shared.state.lock().lost(wanted.group, index, at) {
        return Err(damaged(shared, segment, wanted));
    }
    Ok(None)
}

fn damaged(shared: &Shared, segment: u64, wanted: &Wanted) -> Error {
    let path = super::segment::path(&shared.dir, segment);
    let what = format!(
        "entry {} of group {} is damaged (segment {segment:016x}, offset {})",
        wanted.position.index, wanted.group, wanted.offset
    );
    Error::corrupt(what)
        .at(path.display())
        .hint("it is fetched from another replica when the group is opened again")
}
