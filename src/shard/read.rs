//! Pure: questions answered from one state of a shard. Called by `node` for reads; changes
//! nothing.
//!
//! Paths are resolved by the same rules as in `tree`. What is returned are `proto`'s views where
//! a client sees it as it is.

use super::keys;
use super::records::{
    ChunkRef, Deleted, DirRecord, Entry, Header, LaneRow, ManifestPage, OldVersion, Reference,
    Upload, decode,
};
use super::refuse::damaged;
use crate::error::{Code, Error, Result};
use crate::limits::{PAGE_BYTES_MAX, PAGE_ENTRIES_MAX};
use crate::proto::{DeletedView, DirView, EntryView, FileView, VersionView};
use crate::store::SlotRead;
use crate::types::{
    ChunkHash, Content, ContentId, DfsPath, DirVersion, FileAttrs, FileVersion, GroupId, Inode,
    Kind, Lane, Name, SessionId, UploadId,
};
use bytes::Bytes;
use std::collections::VecDeque;

/// References of one chunk looked at to answer whether a user has one. A chunk that more others
/// have than this is sent again; nothing worse.
const KNOWN_LOOK_MAX: usize = 64;

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

/// Where the bytes of a file version are, without tickets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedContent {
    pub file: FileView,
    /// The content itself, if it is inline (or empty).
    pub inline: Option<Bytes>,
    /// One page of the manifest.
    pub chunks: Vec<ChunkRef>,
}

impl ResolvedContent {
    /// The content's number, for a ticket; `None` for an empty file.
    pub fn content(&self) -> Option<ContentId> {
        super::content::id_of(&self.file.attrs.content)
    }
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
            .ok_or_else(|| Error::not_found("no such file or directory").at(path))?;
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
            Err(Error::new(Code::Conflict, "it is a directory (not a file)").at(path))
        }
        Found::Mount { .. } => Err(other_shard(path)),
    }
}

/// One page of a directory's names in order, ended by `limit` or `PAGE_BYTES_MAX`. Errors as
/// [`lookup`], `conflict` for a file.
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

/// The bytes or one manifest page of a file version (`None`: the current one).
///
/// `pinned` are inode and version that an earlier page gave: this page is of the same content or
/// the answer is `conflict`.
///
/// # Errors
/// As [`lookup`]; `not_found` for a version that is not kept and for a page behind the last.
pub fn resolve(
    view: &dyn SlotRead,
    path: &DfsPath,
    version: Option<FileVersion>,
    page: u32,
    pinned: Option<(Inode, FileVersion)>,
) -> Result<ResolvedContent> {
    let (inode, attrs) = match pinned {
        Some((inode, version)) => pinned_version(view, path, inode, version)?,
        None => {
            let (inode, _, current) = file_at(view, path)?;
            let wanted = version.unwrap_or(current.version);
            match version_of(view, inode, &current, wanted)? {
                Some(attrs) => (inode, attrs),
                None => {
                    return Err(Error::not_found(format!(
                        "no version {wanted} (the current one is {}; older ones go after a time)",
                        current.version
                    ))
                    .version(current.version.0)
                    .hint("`dfs versions` shows those that are kept")
                    .at(path));
                }
            }
        }
    };
    let (inline, chunks) = match attrs.content {
        Content::Empty => (Some(Bytes::new()), Vec::new()),
        Content::Inline { id } => (
            Some(view.get(&keys::inline(inode, id))?.ok_or_else(|| {
                damaged(format!("inline data {id} of file {inode} is missing")).at(path)
            })?),
            Vec::new(),
        ),
        Content::Chunks { id, pages, .. } => {
            if page >= pages {
                return Err(Error::not_found(format!(
                    "no manifest page {page} (there are {pages})"
                ))
                .at(path));
            }
            let bytes = view.get(&keys::manifest(inode, id, page))?.ok_or_else(|| {
                damaged(format!("manifest page {page} of file {inode} is missing")).at(path)
            })?;
            (None, decode::<ManifestPage>(&bytes)?.chunks)
        }
    };
    Ok(ResolvedContent {
        file: FileView { inode, attrs },
        inline,
        chunks,
    })
}

/// The pinned version, wherever it is now: current at the path, or among the old ones.
fn pinned_version(
    view: &dyn SlotRead,
    path: &DfsPath,
    inode: Inode,
    version: FileVersion,
) -> Result<(Inode, FileAttrs)> {
    if let Ok((there, _, attrs)) = file_at(view, path)
        && (there, attrs.version) == (inode, version)
    {
        return Ok((inode, attrs));
    }
    match old_version(view, inode, version)? {
        Some(attrs) => Ok((inode, attrs)),
        None => Err(Error::new(
            Code::Conflict,
            format!("version {version} went away while it was read"),
        )
        .hint("read it again from the beginning")
        .at(path)),
    }
}

fn version_of(
    view: &dyn SlotRead,
    inode: Inode,
    current: &FileAttrs,
    version: FileVersion,
) -> Result<Option<FileAttrs>> {
    if version == current.version {
        return Ok(Some(current.clone()));
    }
    old_version(view, inode, version)
}

fn old_version(
    view: &dyn SlotRead,
    inode: Inode,
    version: FileVersion,
) -> Result<Option<FileAttrs>> {
    let Some(bytes) = view.get(&keys::version(inode, version))? else {
        return Ok(None);
    };
    let old: OldVersion = decode(&bytes)?;
    Ok((!old.dropping).then_some(old.attrs))
}

/// The versions of a file that are kept, newest (the current one) first. Errors as [`lookup`],
/// `conflict` for a directory.
pub fn versions(view: &dyn SlotRead, path: &DfsPath) -> Result<Vec<VersionView>> {
    let (inode, _, current) = file_at(view, path)?;
    let prefix = keys::versions_of(inode);
    let mut all = VecDeque::new();
    view.scan(&prefix, keys::after(&prefix).as_deref(), &mut |_, value| {
        let old: OldVersion = decode(value)?;
        if !old.dropping {
            all.push_front(VersionView {
                attrs: old.attrs,
                current: false,
            });
        }
        Ok(true)
    })?;
    all.push_front(VersionView {
        attrs: current,
        current: true,
    });
    Ok(all.into())
}

/// What was removed from a directory and can be brought back, oldest first; the newest
/// `PAGE_ENTRIES_MAX` of it. Errors as [`lookup`], `conflict` for a file.
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

/// In the order asked: does the user reference this chunk? `false` may also mean that too many
/// others do.
pub fn knows(view: &dyn SlotRead, user: &str, hashes: &[ChunkHash]) -> Result<Vec<bool>> {
    hashes
        .iter()
        .map(|hash| {
            let prefix = keys::references_of(hash);
            let mut known = false;
            let mut looked = 0;
            view.scan(&prefix, keys::after(&prefix).as_deref(), &mut |_, value| {
                known = decode::<Reference>(value)?.user == user;
                looked += 1;
                Ok(!known && looked < KNOWN_LOOK_MAX)
            })?;
            Ok(known)
        })
        .collect()
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

/// Is this chunk referenced by anything in the shard?
pub fn is_referenced(view: &dyn SlotRead, hash: &ChunkHash) -> Result<bool> {
    let prefix = keys::references_of(hash);
    let mut found = false;
    view.scan(&prefix, keys::after(&prefix).as_deref(), &mut |_, _| {
        found = true;
        Ok(false)
    })?;
    Ok(found)
}
