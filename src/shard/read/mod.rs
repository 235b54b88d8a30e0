//! Pure: questions answered from one state of a shard. Called by `node` for reads; changes
//! nothing.
//!
//! Paths are resolved by the same rules as in `tree`. What is returned are `proto`'s views where
//! a client sees it as it is.

mod changes;
mod content;
mod list;

pub use changes::changes_due;
pub use content::{
    ReferencePage, ResolvedContent, is_referenced, knows, references, resolve, versions,
};
pub use list::{ListQuery, Listing, deleted, list};

use super::keys;
use super::records::{DirRecord, Entry, Header, LaneRow, Upload, decode};
use super::refuse::damaged;
use crate::error::{Code, Error, IS_DIRECTORY, NO_SUCH_ENTRY, Result};
use crate::proto::{DirView, EntryView, FileView};
use crate::store::SlotRead;
use crate::types::{DfsPath, FileAttrs, GroupId, Inode, Lane, SessionId, UploadId};

/// What a path stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    Dir {
        inode: Inode,
        record: DirRecord,
    },
    File {
        inode: Inode,
        /// The directory that holds it.
        parent: Inode,
        attrs: FileAttrs,
    },
    /// The root of another shard.
    Mount {
        inode: Inode,
        shard: GroupId,
    },
}

/// The shard's header.
///
/// # Errors
/// `corrupt` when it is missing or damaged.
pub fn header(view: &dyn SlotRead) -> Result<Header> {
    decode(
        &view
            .get(&keys::header())?
            .ok_or_else(|| damaged("the shard's header is missing"))?,
    )
}

/// What a path stands for.
///
/// # Errors
/// `not_found`, `conflict` when a file is used as a directory, `redirect` below a mount point.
pub fn lookup(view: &dyn SlotRead, path: &DfsPath) -> Result<Found> {
    let root = header(view)?.root;
    let mut at = root;
    let mut names = path.names().peekable();
    while let Some(name) = names.next() {
        let bytes = view
            .get(&keys::entry(at, &name))?
            .ok_or_else(|| Error::not_found(NO_SUCH_ENTRY).at(path))?;
        match decode(&bytes)? {
            Entry::Dir { inode, .. } => {
                at = inode;
                if names.peek().is_none() {
                    let record = dir_record(view, inode)?;
                    return Ok(Found::Dir { inode, record });
                }
            }
            Entry::File { inode, attrs, .. } if names.peek().is_none() => {
                return Ok(Found::File {
                    inode,
                    parent: at,
                    attrs,
                });
            }
            Entry::Mount { inode, shard, .. } if names.peek().is_none() => {
                return Ok(Found::Mount { inode, shard });
            }
            Entry::File { .. } => {
                return Err(Error::new(
                    Code::Conflict,
                    format!("`{name}` on the way is a file (not a directory)"),
                )
                .at(path));
            }
            Entry::Mount { .. } => return Err(other_shard(path)),
        }
    }
    Ok(Found::Dir {
        inode: root,
        record: dir_record(view, root)?,
    })
}

fn other_shard(path: &DfsPath) -> Error {
    Error::new(
        Code::Redirect,
        "this part of the tree belongs to another shard",
    )
    .at(path)
}

fn dir_record(view: &dyn SlotRead, inode: Inode) -> Result<DirRecord> {
    decode(
        &view
            .get(&keys::dir(inode))?
            .ok_or_else(|| damaged(format!("the record of directory {inode} is missing")))?,
    )
}

fn dir_view(inode: Inode, record: DirRecord) -> DirView {
    DirView {
        inode,
        version: record.version,
        owner: record.owner,
        group: record.group,
        mode: record.mode,
        created: record.created,
        modified: record.modified,
        totals: record.totals,
    }
}

/// Attributes of what a path stands for. Errors as [`lookup`].
pub fn stat(view: &dyn SlotRead, path: &DfsPath) -> Result<EntryView> {
    match lookup(view, path)? {
        Found::Dir { inode, record } => Ok(EntryView::Dir(dir_view(inode, record))),
        Found::File { inode, attrs, .. } => Ok(EntryView::File(FileView { inode, attrs })),
        Found::Mount { .. } => Err(other_shard(path)),
    }
}

/// A directory's inode and record. Errors as [`lookup`], `conflict` for a file.
fn dir_at(view: &dyn SlotRead, path: &DfsPath) -> Result<(Inode, DirRecord)> {
    match lookup(view, path)? {
        Found::Dir { inode, record } => Ok((inode, record)),
        Found::File { .. } => {
            Err(Error::new(Code::Conflict, "it is a file (not a directory)").at(path))
        }
        Found::Mount { .. } => Err(other_shard(path)),
    }
}

/// A file's inode, directory and current attributes. Errors as [`lookup`], `conflict` for a
/// directory.
fn file_at(view: &dyn SlotRead, path: &DfsPath) -> Result<(Inode, Inode, FileAttrs)> {
    match lookup(view, path)? {
        Found::File {
            inode,
            parent,
            attrs,
        } => Ok((inode, parent, attrs)),
        Found::Dir { .. } => {
            let why = format!("{IS_DIRECTORY} (not a file)");
            Err(Error::new(Code::Conflict, why).at(path))
        }
        Found::Mount { .. } => Err(other_shard(path)),
    }
}

/// The last request of a lane.
pub fn lane(view: &dyn SlotRead, session: SessionId, lane: Lane) -> Result<Option<LaneRow>> {
    view.get(&keys::lane(session, lane))?
        .map(|bytes| decode(&bytes))
        .transpose()
}

/// A reservation that has not expired.
pub fn upload(view: &dyn SlotRead, parent: Inode, upload: UploadId) -> Result<Option<Upload>> {
    let Some(bytes) = view.get(&keys::upload(parent, upload))? else {
        return Ok(None);
    };
    let row: Upload = decode(&bytes)?;
    Ok((row.expires > header(view)?.time).then_some(row))
}
