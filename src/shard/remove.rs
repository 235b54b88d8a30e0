//! Pure: removing and bringing back. What is removed moves from its directory's entries to a row
//! in `deleted`, whatever lies below; `cleanup` drops the records once the row is due.

use super::apply::{Caller, done};
use super::changes;
use super::command::{Done, Removal};
use super::keys;
use super::records::{Change, Deleted, Entry, decode, encode};
use super::refuse::{Step, moved_on, nested_shard, no_such, refuse, refuse_hint, replaced};
use super::sum::{self, Touch, Weight};
use super::tree::{self, Found, Place};
use super::txn::Batch;
use crate::error::{Code, IS_DIRECTORY, Result};
use crate::types::{DfsPath, FileVersion, Inode, Name, Precondition, Revision};
use bytes::Bytes;

pub(super) fn remove(
    batch: &mut Batch<'_>,
    caller: &Caller<'_>,
    path: &DfsPath,
    what: Removal,
    precondition: Precondition,
) -> Step<Done> {
    let Some(place) = tree::place(batch, path)? else {
        return refuse_hint(
            Code::Usage,
            "the root cannot be removed",
            "remove what is in it",
        );
    };
    let Some(found) = tree::find(batch, place.parent, &place.name)? else {
        return no_such();
    };
    let version = judge(batch, &found.entry, what, precondition)?;
    let revision = batch.next_revision();
    let weight = bury(batch, caller, &place, &found, revision)?;
    let touched = sum::touch(batch, place.parent, caller.wall, Touch::Names)?;
    sum::carry(batch, place.parent, weight.plus(Weight::sum(touched)))?;
    let inode = found.entry.inode();
    let change = Change::Removed {
        name: place.name.clone(),
        inode,
    };
    changes::record(batch, caller, change, &place.chain);
    Ok(done(revision, inode, version, place.parent))
}

/// Whether this may be removed in this way; a file's version.
fn judge(
    batch: &mut Batch<'_>,
    entry: &Entry,
    what: Removal,
    precondition: Precondition,
) -> Step<FileVersion> {
    match entry {
        Entry::File { inode, attrs, .. } => {
            if what == Removal::EmptyDir {
                return refuse_hint(
                    Code::Conflict,
                    "it is a file (not a directory)",
                    "use `dfs rm`",
                );
            }
            match precondition {
                Precondition::Any => Ok(attrs.version),
                Precondition::Version(wanted) if wanted == attrs.version => Ok(attrs.version),
                Precondition::Version(wanted) => moved_on(wanted, attrs.version),
                Precondition::Exactly { inode: wanted, .. } if wanted != *inode => {
                    replaced(attrs.version)
                }
                Precondition::Exactly { version, .. } if version == attrs.version => Ok(version),
                Precondition::Exactly { version, .. } => moved_on(version, attrs.version),
                Precondition::Absent => refuse(
                    Code::Usage,
                    "a removal cannot ask for an absent name (nothing could be removed)",
                ),
            }
        }
        Entry::Dir { inode, .. } => {
            if precondition != Precondition::Any {
                return refuse(
                    Code::Usage,
                    "a directory cannot be removed under a file's version",
                );
            }
            let totals = batch.dir(*inode)?.totals;
            match what {
                Removal::File => refuse_hint(
                    Code::Conflict,
                    format!("{IS_DIRECTORY} (not a file)"),
                    "use `dfs rmdir`, or `dfs rm -r` for everything below it",
                ),
                Removal::Tree if totals.mounts > 0 => refuse(
                    Code::Conflict,
                    format!("{} nested shards are below it", totals.mounts),
                ),
                Removal::Tree => Ok(FileVersion(0)),
                _ if totals.entries > 0 => not_empty(totals.entries),
                _ => Ok(FileVersion(0)),
            }
        }
        Entry::Mount { .. } => nested_shard(),
    }
}

pub(super) fn not_empty<T>(entries: u64) -> Step<T> {
    refuse_hint(
        Code::NotEmpty,
        format!("the directory is not empty (entries below it: {entries})"),
        "use `dfs rm -r` to remove everything below it",
    )
}

/// Moves an entry to a row in `deleted`; returns what the directory's weight changes by. The sum
/// of what lies below stays where it is: the directory goes on covering it.
pub(super) fn bury(
    batch: &mut Batch<'_>,
    caller: &Caller<'_>,
    place: &Place,
    found: &Found,
    revision: Revision,
) -> Result<Weight> {
    let totals = sum::entry_totals(batch, &found.entry)?;
    let time = batch.header().time;
    let row = Deleted {
        name: place.name.clone(),
        entry: found.entry.clone(),
        at: time,
        due: time.plus_ms(batch.header().settings.grace_ms),
        user: caller.user.to_owned(),
    };
    let key = keys::deleted(place.parent, revision);
    let row_sum = sum::replace(batch, key, None, Some(encode(&row)));
    let entry_sum = tree::set_entry(batch, place, Some(found), None);
    batch.header_mut().deletions += 1;
    if matches!(found.entry, Entry::Dir { .. }) {
        batch.forget_paths();
    }
    Ok(totals
        .negated()
        .plus(Weight::sum(row_sum.wrapping_add(entry_sum))))
}

pub(super) fn undelete(batch: &mut Batch<'_>, caller: &Caller<'_>, path: &DfsPath) -> Step<Done> {
    let place = tree::target(batch, path)?;
    if tree::find(batch, place.parent, &place.name)?.is_some() {
        return refuse_hint(
            Code::Exists,
            "something of that name is there now",
            "rename it, then undelete",
        );
    }
    let Some((key, raw, row)) = newest(batch, place.parent, &place.name)? else {
        return refuse_hint(
            Code::NotFound,
            "nothing of that name was deleted here within the grace time",
            "`dfs undelete --list` shows what can be brought back",
        );
    };
    let revision = batch.next_revision();
    let entry = reborn(row.entry, revision);
    let totals = sum::entry_totals(batch, &entry)?;
    let row_sum = sum::replace(batch, key, Some(&raw), None);
    let entry_sum = tree::set_entry(batch, &place, None, Some(&entry));
    let touched = sum::touch(batch, place.parent, caller.wall, Touch::Names)?;
    let hashes = row_sum.wrapping_add(entry_sum).wrapping_add(touched);
    sum::carry(batch, place.parent, totals.plus(Weight::sum(hashes)))?;
    let header = batch.header_mut();
    header.deletions = header.deletions.saturating_sub(1);
    let (change, version) = came_back(&place.name, &entry);
    changes::record(batch, caller, change, &place.chain);
    Ok(done(revision, entry.inode(), version, place.parent))
}

fn reborn(entry: Entry, born: Revision) -> Entry {
    match entry {
        Entry::Dir { inode, .. } => Entry::Dir { inode, born },
        Entry::File { inode, attrs, .. } => Entry::File { inode, born, attrs },
        Entry::Mount { inode, shard, .. } => Entry::Mount { inode, born, shard },
    }
}

fn came_back(name: &Name, entry: &Entry) -> (Change, FileVersion) {
    let name = name.clone();
    match entry {
        Entry::File { inode, attrs, .. } => (
            Change::Wrote {
                name,
                inode: *inode,
                version: attrs.version,
                size: attrs.size,
            },
            attrs.version,
        ),
        Entry::Dir { inode, .. } | Entry::Mount { inode, .. } => (
            Change::MadeDir {
                name,
                inode: *inode,
            },
            FileVersion(0),
        ),
    }
}

/// The newest deletion of that name in the directory that can still be brought back.
fn newest(
    batch: &Batch<'_>,
    parent: Inode,
    name: &Name,
) -> Result<Option<(Bytes, Bytes, Deleted)>> {
    // A row begins with its encoded name: the others are passed over without decoding them.
    let begins = encode(name);
    let prefix = keys::deleted_of(parent);
    let time = batch.header().time;
    let mut newest = None;
    batch.scan(
        &prefix,
        keys::after(&prefix).as_deref(),
        &mut |key, value| {
            if value.starts_with(&begins) {
                let row: Deleted = decode(value)?;
                if row.due > time {
                    let copied = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
                    newest = Some((copied.0, copied.1, row));
                }
            }
            Ok(true)
        },
    )?;
    Ok(newest)
}
