//! Pure: listings of a directory and of what was removed from it.

use super::{dir_at, dir_record, dir_view, header};
use crate::error::Result;
use crate::limits::{PAGE_BYTES_MAX, PAGE_ENTRIES_MAX};
use crate::proto::{DeletedView, EntryView, FileView};
use crate::shard::keys;
use crate::shard::records::{Deleted, Entry, decode};
use crate::shard::refuse::damaged;
use crate::store::SlotRead;
use crate::types::{DfsPath, DirVersion, Kind, Name};
use std::collections::VecDeque;

/// A page of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listing {
    /// The directory still has the version that the caller knows.
    NotModified,
    Page {
        dir: DirVersion,
        entries: Vec<(Name, EntryView)>,
        /// There are names behind the last one.
        more: bool,
    },
}

/// How a listing is asked for.
#[derive(Clone, Debug)]
pub struct ListQuery<'a> {
    /// Begin behind this name.
    pub after: Option<&'a Name>,
    /// At most so many entries; 0 and numbers above `PAGE_ENTRIES_MAX` mean that.
    pub limit: usize,
    /// With attributes of each entry.
    pub attrs: bool,
    /// Answer [`Listing::NotModified`] at this version. Only without `attrs`: a directory's
    /// version does not count what happens in its subdirectories, which their attributes show.
    pub known: Option<DirVersion>,
}

/// One page of a directory's names in order, ended by `limit` or `PAGE_BYTES_MAX`. Errors as
/// [`super::lookup`], `conflict` for a file.
pub fn list(view: &dyn SlotRead, path: &DfsPath, query: &ListQuery<'_>) -> Result<Listing> {
    let (inode, record) = dir_at(view, path)?;
    if !query.attrs && query.known == Some(record.version) {
        return Ok(Listing::NotModified);
    }
    let limit = match query.limit {
        0 => PAGE_ENTRIES_MAX,
        limit => limit.min(PAGE_ENTRIES_MAX),
    };
    let prefix = keys::entries_of(inode);
    let from = match query.after {
        Some(name) => [&keys::entry(inode, name)[..], &[0]].concat(),
        None => prefix.to_vec(),
    };
    let mut page: Vec<(Name, Entry)> = Vec::new();
    let mut bytes = 0;
    let mut more = false;
    view.scan(&from, keys::after(&prefix).as_deref(), &mut |key, value| {
        if page.len() == limit || bytes >= PAGE_BYTES_MAX {
            more = true;
            return Ok(false);
        }
        let name = keys::entry_name(key).ok_or_else(|| damaged("an entry's key has no name"))?;
        bytes += key.len() + if query.attrs { value.len() + 64 } else { 12 };
        page.push((name, decode(value)?));
        Ok(true)
    })?;
    let entries = page
        .into_iter()
        .map(|(name, entry)| Ok((name, entry_view(view, entry, query.attrs)?)))
        .collect::<Result<_>>()?;
    Ok(Listing::Page {
        dir: record.version,
        entries,
        more,
    })
}

fn entry_view(view: &dyn SlotRead, entry: Entry, attrs: bool) -> Result<EntryView> {
    Ok(match entry {
        Entry::File {
            inode, attrs: a, ..
        } if attrs => EntryView::File(FileView { inode, attrs: a }),
        Entry::Dir { inode, .. } if attrs => {
            EntryView::Dir(dir_view(inode, dir_record(view, inode)?))
        }
        Entry::File { inode, .. } => EntryView::Bare {
            inode,
            kind: Kind::File,
        },
        Entry::Dir { inode, .. } | Entry::Mount { inode, .. } => EntryView::Bare {
            inode,
            kind: Kind::Dir,
        },
    })
}

/// What was removed from a directory and can be brought back, oldest first; the newest
/// `PAGE_ENTRIES_MAX` of it. Errors as [`super::lookup`], `conflict` for a file.
pub fn deleted(view: &dyn SlotRead, path: &DfsPath) -> Result<Vec<DeletedView>> {
    let (inode, _) = dir_at(view, path)?;
    let time = header(view)?.time;
    let prefix = keys::deleted_of(inode);
    let mut rows = VecDeque::new();
    view.scan(&prefix, keys::after(&prefix).as_deref(), &mut |_, value| {
        let row: Deleted = decode(value)?;
        if row.due > time {
            if rows.len() == PAGE_ENTRIES_MAX {
                rows.pop_front();
            }
            rows.push_back(DeletedView {
                name: row.name,
                kind: match row.entry {
                    Entry::File { .. } => Kind::File,
                    Entry::Dir { .. } | Entry::Mount { .. } => Kind::Dir,
                },
                at: row.at,
                left_ms: row.due.since(time),
            });
        }
        Ok(true)
    })?;
    Ok(rows.into())
}
