//! Pure: versions of files, where their bytes are, who references a chunk.

use super::file_at;
use crate::error::{Code, Error, Result};
use crate::proto::{FileView, VersionView};
use crate::shard::keys;
use crate::shard::records::{ChunkRef, ManifestPage, OldVersion, Reference, decode};
use crate::shard::refuse::damaged;
use crate::store::SlotRead;
use crate::types::{ChunkHash, Content, ContentId, DfsPath, FileAttrs, FileVersion, Inode};
use bytes::Bytes;
use std::collections::VecDeque;

/// References of one chunk looked at to answer whether a user has one. A chunk that more others
/// have than this is sent again; nothing worse.
const KNOWN_LOOK_MAX: usize = 64;

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
        crate::shard::content::id_of(&self.file.attrs.content)
    }
}

/// The bytes or one manifest page of a file version (`None`: the current one).
///
/// `pinned` are inode and version that an earlier page gave: this page is of the same content or
/// the answer is `conflict`.
///
/// # Errors
/// As [`super::lookup`]; `not_found` for a version that is not kept and for a page behind the last.
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
            let bytes = view.get(&keys::manifest(inode, id, page))?;
            let bytes = bytes.ok_or_else(|| match pinned {
                // A removed file's pages are dropped some at a time, before its versions.
                Some((_, version)) if is_removed(view, path, inode) => went_away(path, version),
                _ => damaged(format!("manifest page {page} of file {inode} is missing")).at(path),
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
        None => Err(went_away(path, version)),
    }
}

/// The path leads to this file no more.
fn is_removed(view: &dyn SlotRead, path: &DfsPath, inode: Inode) -> bool {
    file_at(view, path).map_or(true, |(there, ..)| there != inode)
}

fn went_away(path: &DfsPath, version: FileVersion) -> Error {
    let why = format!("version {version} went away while it was read");
    Error::new(Code::Conflict, why)
        .hint("read it again from the beginning")
        .at(path)
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

/// The versions of a file that are kept, newest (the current one) first. Errors as [`super::lookup`],
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

/// Referenced chunks in the order of their hashes, each once, with its length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReferencePage {
    pub chunks: Vec<(ChunkHash, u32)>,
    /// Where to go on; `None`: that was all.
    pub next: Option<ChunkHash>,
}

/// The chunks that are referenced, from one hash on; looks at `rows` references at most.
///
/// # Errors
/// `corrupt` for a damaged row.
pub fn references(view: &dyn SlotRead, from: ChunkHash, rows: usize) -> Result<ReferencePage> {
    let mut page = ReferencePage::default();
    let mut seen = 0;
    let end = keys::after(&keys::table(keys::REFERENCES));
    view.scan(
        &keys::references_of(&from),
        end.as_deref(),
        &mut |key, row| {
            let hash = keys::chunk_of_reference(key)
                .ok_or_else(|| damaged("a chunk reference has too short a key"))?;
            let known = page.chunks.last().is_some_and(|(last, _)| *last == hash);
            if seen >= rows.max(1) && !known {
                page.next = Some(hash);
                return Ok(false);
            }
            seen += 1;
            if !known {
                let reference: Reference = decode(row)?;
                page.chunks.push((hash, reference.len));
            }
            Ok(true)
        },
    )?;
    Ok(page)
}
