//! Pure: uploads in two phases. A reservation and its staged manifest pages are invisible; the
//! commit makes them the next version.
//!
//! Full manifest pages are handed over, with their references, by `Stage`: each is one bounded
//! step, judged when it comes. So a commit checks arithmetic and writes only the last page,
//! however large the file is.

use super::apply::{Caller, check_mode, done};
use super::command::Done;
use super::content::{self, Budget};
use super::files::{self, NewVersion};
use super::keys;
use super::records::{ChunkRef, Entry, Upload, decode, encode};
use super::refuse::{Step, judge_content, refuse, refuse_hint};
use super::sum::{self, Weight};
use super::tree::{self, Found, Place};
use super::txn::Batch;
use crate::error::{Code, Result};
use crate::limits::{MANIFEST_PAGE_REFS, MANIFEST_PAGES_MAX};
use crate::types::{
    ChunkHash, Content, DfsPath, FileVersion, Inode, Precondition, Revision, ShardTime, UploadId,
};
use bytes::Bytes;
use std::sync::Arc;

/// Records an abort drops at once; the rest goes with `Chore::ExpireUploads`.
const ABORT_DROPS: u64 = 4 * (MANIFEST_PAGE_REFS as u64 + 1);

/// An upload as stored.
struct Held {
    raw: Bytes,
    row: Upload,
}

fn find(batch: &Batch<'_>, parent: Inode, upload: UploadId) -> Result<Option<Held>> {
    match batch.get(&keys::upload(parent, upload))? {
        None => Ok(None),
        Some(raw) => Ok(Some(Held {
            row: decode(&raw)?,
            raw,
        })),
    }
}

/// Sets or removes an upload's row and carries the difference up.
pub(super) fn set_row(
    batch: &mut Batch<'_>,
    parent: Inode,
    upload: UploadId,
    old: Option<&Bytes>,
    new: Option<&Upload>,
) -> Result<()> {
    let delta = sum::replace(batch, keys::upload(parent, upload), old, new.map(encode));
    sum::carry(batch, parent, Weight::sum(delta))
}

pub(super) fn reserve(
    batch: &mut Batch<'_>,
    caller: &Caller<'_>,
    path: &DfsPath,
    upload: UploadId,
    precondition: Precondition,
    mode: u16,
) -> Step<Done> {
    check_mode(mode)?;
    let place = tree::target(batch, path)?;
    let expires = batch
        .header()
        .time
        .plus_ms(batch.header().settings.upload_ttl_ms);
    if let Some(held) = find(batch, place.parent, upload)? {
        check_held(batch, caller, &held.row)?;
        if held.row.name != place.name || held.row.precondition != precondition {
            return refuse_hint(
                Code::Usage,
                "this upload id was used for another upload",
                "draw a new id for a new upload",
            );
        }
        let row = Upload {
            expires,
            ..held.row
        };
        set_row(batch, place.parent, upload, Some(&held.raw), Some(&row))?;
        return Ok(answer(&row, place.parent));
    }
    let existing = tree::find(batch, place.parent, &place.name)?;
    judge_content(precondition, existing.as_ref().map(|found| &found.entry))?;
    let row = Upload {
        name: place.name,
        inode: files::inode_for(batch, existing.as_ref())?,
        content: batch.next_content(),
        precondition,
        mode,
        user: caller.user.to_owned(),
        chunk_bytes: batch.header().settings.chunk_bytes,
        pages: 0,
        expires,
    };
    set_row(batch, place.parent, upload, None, Some(&row))?;
    Ok(answer(&row, place.parent))
}

fn answer(row: &Upload, parent: Inode) -> Done {
    Done {
        chunk_bytes: row.chunk_bytes,
        ..done(Revision(0), row.inode, FileVersion(0), parent)
    }
}

fn check_held(batch: &Batch<'_>, caller: &Caller<'_>, row: &Upload) -> Step<()> {
    if row.user != caller.user {
        return refuse(
            Code::Denied,
            format!("the upload belongs to another user ({})", row.user),
        );
    }
    if row.expires <= batch.header().time {
        return no_upload();
    }
    Ok(())
}

fn no_upload<T>() -> Step<T> {
    refuse_hint(
        Code::NotFound,
        "no such upload (it was committed, aborted, or it expired)",
        "begin the upload again; chunks that are there are not sent again",
    )
}

/// The upload and the directories above it, all of which must still be there.
fn held(
    batch: &mut Batch<'_>,
    caller: &Caller<'_>,
    parent: Inode,
    upload: UploadId,
) -> Step<(Held, Arc<[Inode]>)> {
    let Some(held) = find(batch, parent, upload)? else {
        return no_upload();
    };
    check_held(batch, caller, &held.row)?;
    let Some(chain) = tree::alive_chain(batch, parent)? else {
        return refuse_hint(
            Code::NotFound,
            format!(
                "the directory that `{}` was to be written to was removed",
                held.row.name
            ),
            "bring it back with `dfs undelete`, or upload to another place",
        );
    };
    Ok((held, chain))
}

pub(super) fn stage(
    batch: &mut Batch<'_>,
    caller: &Caller<'_>,
    parent: Inode,
    upload: UploadId,
    page: u32,
    chunks: &[ChunkRef],
) -> Step<Done> {
    let (held, _) = held(batch, caller, parent, upload)?;
    let (inode, id) = (held.row.inode, held.row.content);
    let mut row = held.row;
    if page < row.pages {
        if content::page(batch, inode, id, page)?.chunks != chunks {
            return refuse(
                Code::Conflict,
                format!("manifest page {page} was staged with other chunks"),
            );
        }
    } else {
        check_page(&row, page, chunks)?;
        content::put_page(batch, inode, id, page, chunks.to_vec(), caller.user)?;
        row.pages = page + 1;
    }
    row.expires = batch
        .header()
        .time
        .plus_ms(batch.header().settings.upload_ttl_ms);
    set_row(batch, parent, upload, Some(&held.raw), Some(&row))?;
    Ok(answer(&row, parent))
}

/// A page that is staged is full, of full chunks, and the next one.
fn check_page(row: &Upload, page: u32, chunks: &[ChunkRef]) -> Step<()> {
    if page > row.pages {
        return refuse_hint(
            Code::Conflict,
            format!("manifest page {page} came before page {}", row.pages),
            "stage pages in order",
        );
    }
    // The last page comes with the commit.
    if page + 1 >= MANIFEST_PAGES_MAX {
        return refuse(
            Code::Usage,
            format!("the file is too large (at most {MANIFEST_PAGES_MAX} manifest pages)"),
        );
    }
    if chunks.len() != MANIFEST_PAGE_REFS {
        return refuse(
            Code::Usage,
            format!(
                "manifest page {page} has {} chunks ({MANIFEST_PAGE_REFS} were expected)",
                chunks.len()
            ),
        );
    }
    check_full(row, chunks)
}

fn check_full(row: &Upload, chunks: &[ChunkRef]) -> Step<()> {
    match chunks
        .iter()
        .find(|chunk| u64::from(chunk.len) != row.chunk_bytes)
    {
        None => Ok(()),
        Some(chunk) => refuse(
            Code::Usage,
            format!(
                "a chunk has {} bytes ({} were expected: only the last may be shorter)",
                chunk.len, row.chunk_bytes
            ),
        ),
    }
}

pub(super) fn commit(
    batch: &mut Batch<'_>,
    caller: &Caller<'_>,
    parent: Inode,
    upload: UploadId,
    size: u64,
    hash: ChunkHash,
    tail: &[ChunkRef],
) -> Step<Done> {
    let (held, chain) = held(batch, caller, parent, upload)?;
    let row = held.row;
    let place = Place {
        parent,
        name: row.name.clone(),
        chain,
    };
    let existing = tree::find(batch, parent, &place.name)?;
    judge_content(
        row.precondition,
        existing.as_ref().map(|found| &found.entry),
    )?;
    check_same_file(&row, existing.as_ref())?;
    check_content(&row, size, hash, tail)?;
    let mut pages = row.pages;
    if !tail.is_empty() {
        content::put_page(
            batch,
            row.inode,
            row.content,
            pages,
            tail.to_vec(),
            caller.user,
        )?;
        pages += 1;
    }
    let content = match pages {
        0 => Content::Empty,
        _ => Content::Chunks {
            id: row.content,
            pages,
            chunk_bytes: row.chunk_bytes,
        },
    };
    set_row(batch, parent, upload, Some(&held.raw), None)?;
    let new = NewVersion {
        inode: row.inode,
        size,
        hash,
        content,
        mode: row.mode,
    };
    files::write_version(batch, caller, &place, existing, new)
}

/// The manifest was staged under the inode of the file that was there at the reservation.
fn check_same_file(row: &Upload, existing: Option<&Found>) -> Step<()> {
    match existing.map(|found| &found.entry) {
        Some(Entry::File { inode, attrs, .. }) if *inode != row.inode => refuse_hint(
            Code::Conflict,
            format!(
                "the file was replaced by another one (now at version {})",
                attrs.version
            ),
            "read it again, then upload again",
        ),
        _ => Ok(()),
    }
}

/// The manifest as a whole: chunk sizes, total size, and the hash where one chunk is the file.
fn check_content(row: &Upload, size: u64, hash: ChunkHash, tail: &[ChunkRef]) -> Step<()> {
    if tail.len() > MANIFEST_PAGE_REFS {
        return refuse(
            Code::Usage,
            format!(
                "the last manifest page has {} chunks (at most {MANIFEST_PAGE_REFS})",
                tail.len()
            ),
        );
    }
    let mut last_len = 0;
    if let Some((last, full)) = tail.split_last() {
        check_full(row, full)?;
        last_len = u64::from(last.len);
        if last_len == 0 || last_len > row.chunk_bytes {
            return refuse(
                Code::Usage,
                format!(
                    "the last chunk has {last_len} bytes (1 to {} were expected)",
                    row.chunk_bytes
                ),
            );
        }
    }
    let full =
        u64::from(row.pages) * MANIFEST_PAGE_REFS as u64 + (tail.len() as u64).saturating_sub(1);
    let total = full
        .checked_mul(row.chunk_bytes)
        .and_then(|bytes| bytes.checked_add(last_len));
    if total != Some(size) {
        return refuse(
            Code::Usage,
            format!(
                "the chunks do not add up to the file's size ({} bytes in chunks, {size} told)",
                total.unwrap_or(u64::MAX)
            ),
        );
    }
    let whole = match (row.pages, tail) {
        (0, []) => Some(content::hash_of_nothing()),
        (0, [only]) => Some(only.hash),
        _ => None,
    };
    if whole.is_some_and(|whole| whole != hash) {
        return refuse_hint(
            Code::Corrupt,
            "the file's hash is not that of its only chunk",
            "send it again",
        );
    }
    Ok(())
}

pub(super) fn abort(
    batch: &mut Batch<'_>,
    caller: &Caller<'_>,
    parent: Inode,
    upload: UploadId,
) -> Step<Done> {
    let Some(held) = find(batch, parent, upload)? else {
        return Ok(done(Revision(0), Inode(0), FileVersion(0), parent));
    };
    if held.row.user != caller.user {
        return refuse(
            Code::Denied,
            format!("the upload belongs to another user ({})", held.row.user),
        );
    }
    let mut budget = Budget::new(ABORT_DROPS);
    let row = held.row;
    let answer = answer(&row, parent);
    if content::drop_pages(batch, row.inode, row.content, &mut budget)? {
        set_row(batch, parent, upload, Some(&held.raw), None)?;
    } else {
        let row = Upload {
            expires: ShardTime(0),
            ..row
        };
        set_row(batch, parent, upload, Some(&held.raw), Some(&row))?;
    }
    Ok(answer)
}
