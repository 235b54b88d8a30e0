//! Pure: new versions of files: inline puts, copies, restored versions. Uploads end here too.

use super::apply::{Caller, check_mode, done};
use super::changes;
use super::command::Done;
use super::content;
use super::records::{Change, ChunkRef, Entry};
use super::refuse::{
    Step, Stop, is_dir, judge_content, nested_shard, no_such, refuse, refuse_hint,
};
use super::sum::{self, Touch, Weight};
use super::tree::{self, Found, Place};
use super::txn::Batch;
use super::versions;
use crate::error::{Code, Error};
use crate::limits::{DIRECT_BYTES_MAX, INLINE_BYTES_MAX};
use crate::types::{
    ChunkHash, Content, DfsPath, FileAttrs, FileVersion, Inode, Precondition, Revision,
};
use bytes::Bytes;

/// Manifest pages that a copy may write in one step: 64 pages are 1 TiB in chunks of 16 MiB.
pub(super) const COPY_PAGES_MAX: u32 = 64;

/// What a version to be written consists of.
pub(super) struct NewVersion {
    pub inode: Inode,
    pub size: u64,
    pub hash: ChunkHash,
    pub content: Content,
    /// For a new file.
    pub mode: u16,
}

pub(super) fn put(
    batch: &mut Batch<'_>,
    caller: &Caller<'_>,
    path: &DfsPath,
    precondition: Precondition,
    mode: u16,
    hash: ChunkHash,
    data: &Bytes,
) -> Step<Done> {
    check_mode(mode)?;
    let size = data.len() as u64;
    if size > INLINE_BYTES_MAX {
        return refuse_hint(
            Code::Usage,
            format!("too large for one step ({size} bytes, at most {INLINE_BYTES_MAX})"),
            "upload it in chunks",
        );
    }
    if ChunkHash::of(data) != hash {
        return refuse_hint(
            Code::Corrupt,
            "the content does not match its hash (damaged on the way)",
            "send it again",
        );
    }
    let place = tree::target(batch, path)?;
    let existing = tree::find(batch, place.parent, &place.name)?;
    judge_content(precondition, existing.as_ref().map(|found| &found.entry))?;
    let inode = inode_for(batch, existing.as_ref())?;
    let new = NewVersion {
        inode,
        size,
        hash,
        content: content::put_inline(batch, inode, data.clone()),
        mode,
    };
    write_version(batch, caller, &place, existing, new)
}

pub(super) fn put_chunk(
    batch: &mut Batch<'_>,
    caller: &Caller<'_>,
    path: &DfsPath,
    precondition: Precondition,
    mode: u16,
    chunk: &ChunkRef,
) -> Step<Done> {
    check_mode(mode)?;
    let size = u64::from(chunk.len);
    if !(1..=DIRECT_BYTES_MAX).contains(&size) {
        return refuse(
            Code::Usage,
            format!("a chunk of {size} bytes is no file of one step"),
        );
    }
    let place = tree::target(batch, path)?;
    let existing = tree::find(batch, place.parent, &place.name)?;
    judge_content(precondition, existing.as_ref().map(|found| &found.entry))?;
    let inode = inode_for(batch, existing.as_ref())?;
    let id = batch.next_content();
    content::put_page(batch, inode, id, 0, vec![*chunk], caller.user)?;
    // The setting may be smaller by now than it was when the chunk was made.
    let chunk_bytes = batch.header().settings.chunk_bytes.max(size);
    let new = NewVersion {
        inode,
        size,
        hash: chunk.hash,
        content: Content::Chunks {
            id,
            pages: 1,
            chunk_bytes,
        },
        mode,
    };
    write_version(batch, caller, &place, existing, new)
}

/// A file's inode: its own, or a new one.
pub(super) fn inode_for(batch: &mut Batch<'_>, existing: Option<&Found>) -> Step<Inode> {
    match existing {
        Some(found) => Ok(found.entry.inode()),
        None => batch.next_inode(),
    }
}

/// Makes the next version of a file current. Its precondition was judged and its content is
/// stored under `new.inode`.
pub(super) fn write_version(
    batch: &mut Batch<'_>,
    caller: &Caller<'_>,
    place: &Place,
    existing: Option<Found>,
    new: NewVersion,
) -> Step<Done> {
    let previous = match &existing {
        None => None,
        Some(Found {
            entry: Entry::File { attrs, .. },
            ..
        }) => Some(attrs.clone()),
        Some(_) => return is_dir(),
    };
    let revision = batch.next_revision();
    let attrs = next_attrs(caller, previous.as_ref(), &new);
    let version = attrs.version;
    let mut weight = Weight {
        entries: u64::from(previous.is_none()),
        bytes: new
            .size
            .wrapping_sub(previous.as_ref().map_or(0, |old| old.size)),
        ..Weight::default()
    };
    if let Some(old) = previous {
        versions::supersede(batch, new.inode, old, &new.content)?;
    }
    let entry = Entry::File {
        inode: new.inode,
        born: revision,
        attrs,
    };
    weight.sum = tree::set_entry(batch, place, existing.as_ref(), Some(&entry))
        .wrapping_add(sum::touch(batch, place.parent, caller.wall, Touch::Names)?);
    sum::carry(batch, place.parent, weight)?;
    let change = Change::Wrote {
        name: place.name.clone(),
        inode: new.inode,
        version,
        size: new.size,
    };
    changes::record(batch, caller, change, &place.chain);
    Ok(done(revision, new.inode, version, place.parent))
}

fn next_attrs(caller: &Caller<'_>, previous: Option<&FileAttrs>, new: &NewVersion) -> FileAttrs {
    match previous {
        Some(old) => FileAttrs {
            size: new.size,
            version: old.version.next(),
            modified: old.modified.max(caller.wall),
            hash: new.hash,
            content: new.content,
            ..old.clone()
        },
        None => FileAttrs {
            size: new.size,
            version: FileVersion(1),
            created: caller.wall,
            modified: caller.wall,
            owner: caller.user.to_owned(),
            group: caller.group.to_owned(),
            mode: new.mode,
            hash: new.hash,
            content: new.content,
        },
    }
}

/// An existing file with its place.
fn file_at(batch: &mut Batch<'_>, path: &DfsPath) -> Step<(Place, Found, FileAttrs)> {
    let Some(place) = tree::place(batch, path)? else {
        return is_dir();
    };
    let Some(found) = tree::find(batch, place.parent, &place.name)? else {
        return no_such();
    };
    match &found.entry {
        Entry::File { attrs, .. } => {
            let attrs = attrs.clone();
            Ok((place, found, attrs))
        }
        Entry::Dir { .. } => is_dir(),
        Entry::Mount { .. } => nested_shard(),
    }
}

/// A version of a file: the current one or an old one that is still kept.
fn version_of(
    batch: &Batch<'_>,
    inode: Inode,
    current: &FileAttrs,
    version: FileVersion,
) -> Step<FileAttrs> {
    if version == current.version {
        return Ok(current.clone());
    }
    match versions::find(batch, inode, version)? {
        Some(attrs) => Ok(attrs),
        None => Err(Stop::Refused(
            Error::not_found(format!(
                "no version {version} (the current one is {}; older ones go after a time)",
                current.version
            ))
            .version(current.version.0)
            .hint("`dfs versions` shows those that are kept"),
        )),
    }
}

pub(super) fn restore(
    batch: &mut Batch<'_>,
    caller: &Caller<'_>,
    path: &DfsPath,
    version: FileVersion,
) -> Step<Done> {
    let (place, found, current) = file_at(batch, path)?;
    let inode = found.entry.inode();
    if version == current.version {
        return Ok(done(Revision(0), inode, version, place.parent));
    }
    let old = version_of(batch, inode, &current, version)?;
    let new = NewVersion {
        inode,
        size: old.size,
        hash: old.hash,
        content: old.content,
        mode: current.mode,
    };
    write_version(batch, caller, &place, Some(found), new)
}

pub(super) fn copy(
    batch: &mut Batch<'_>,
    caller: &Caller<'_>,
    from: &DfsPath,
    version: Option<FileVersion>,
    to: &DfsPath,
    precondition: Precondition,
) -> Step<Done> {
    let (_, source, current) = file_at(batch, from)?;
    let source_inode = source.entry.inode();
    let attrs = match version {
        Some(version) => version_of(batch, source_inode, &current, version)?,
        None => current,
    };
    let at_target = |stop| match stop {
        Stop::Refused(error) => Stop::Refused(error.at(to)),
        damage => damage,
    };
    let place = tree::target(batch, to).map_err(at_target)?;
    let existing = tree::find(batch, place.parent, &place.name)?;
    judge_content(precondition, existing.as_ref().map(|found| &found.entry)).map_err(at_target)?;
    let inode = inode_for(batch, existing.as_ref())?;
    let content = if inode == source_inode {
        attrs.content
    } else {
        copy_content(batch, caller, source_inode, &attrs.content, inode)?
    };
    let new = NewVersion {
        inode,
        size: attrs.size,
        hash: attrs.hash,
        content,
        mode: attrs.mode,
    };
    write_version(batch, caller, &place, existing, new)
}

/// The same content under another file: inline data and manifest pages are written again, chunks
/// are referenced.
fn copy_content(
    batch: &mut Batch<'_>,
    caller: &Caller<'_>,
    from: Inode,
    content: &Content,
    to: Inode,
) -> Step<Content> {
    match *content {
        Content::Empty => Ok(Content::Empty),
        Content::Inline { id } => {
            let data = content::inline(batch, from, id)?;
            Ok(content::put_inline(batch, to, data))
        }
        Content::Chunks { pages, .. } if pages > COPY_PAGES_MAX => refuse_hint(
            Code::Failed,
            format!(
                "too large to copy in one step ({pages} manifest pages, at most {COPY_PAGES_MAX})"
            ),
            "get it and put it again (chunks that are there are not sent)",
        ),
        Content::Chunks {
            id,
            pages,
            chunk_bytes,
        } => {
            let new = batch.next_content();
            for number in 0..pages {
                let page = content::page(batch, from, id, number)?;
                content::put_page(batch, to, new, number, page.chunks, caller.user)?;
            }
            Ok(Content::Chunks {
                id: new,
                pages,
                chunk_bytes,
            })
        }
    }
}
