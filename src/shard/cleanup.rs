//! Pure: `Chore::Cleanup` drops the records of what was removed.
//!
//! A deletion that is due is taken down from the leaves: a directory's record goes after
//! everything in it, its entry (or its row in `deleted`) goes with it. So whatever is left when a
//! batch ends still hangs on the tree, and the next chore begins again at the same row and walks
//! down to what is left. Deletions within a removed tree go with it, due or not; so do its
//! uploads.
//!
//! 1. At the end of each chore every record hangs on the tree, and all sums are right.
//! 2. A deletion that cleanup has begun with cannot be brought back: its row is due.

use super::command::ChoreDone;
use super::content::{self, Budget};
use super::keys;
use super::records::{Deleted, Entry, Upload, decode, encode};
use super::refuse::damaged;
use super::sum::{self, Weight};
use super::txn::Batch;
use super::versions;
use crate::error::Result;
use crate::types::{FileAttrs, Inode, Revision};
use bytes::Bytes;
use std::collections::VecDeque;

/// Rows of `deleted` looked at by one chore, beyond those it drops.
const LOOK_MAX: usize = 8_192;
/// Records of a directory read ahead.
const AHEAD_MAX: usize = 256;

/// Cleans up to `records` records of deletions that are due, all of them if `now`.
///
/// Goes round through all deletions; `more` says that the round is not over.
pub(super) fn run(batch: &mut Batch<'_>, records: u32, now: bool) -> Result<ChoreDone> {
    let table = keys::table(keys::DELETED);
    let (parent, revision) = batch.header().cleanup_behind;
    let from = [&keys::deleted(parent, revision)[..], &[0]].concat();
    let found = batch.collect(&table, &from, LOOK_MAX)?;
    let at_end = found.len() < LOOK_MAX;
    let mut budget = Budget::new(u64::from(records));
    for (key, _) in found {
        // It may have gone with a tree that was cleaned up before it.
        let Some(raw) = batch.get(&key)? else {
            continue;
        };
        let mut row: Deleted = decode(&raw)?;
        let time = batch.header().time;
        if row.due <= time || now {
            if row.due > time {
                row.due = time;
                rewrite(batch, &key, &raw, &row)?;
            }
            if !take_down(batch, &key, &row, &mut budget)? {
                return Ok(answer(&budget, true));
            }
        }
        batch.header_mut().cleanup_behind = row_of(&key)?;
    }
    if at_end {
        batch.header_mut().cleanup_behind = (Inode(0), Revision(0));
    }
    let left = now && batch.header().deletions > 0;
    Ok(answer(&budget, !at_end || left))
}

fn answer(budget: &Budget, more: bool) -> ChoreDone {
    ChoreDone {
        done: budget.spent,
        more,
        next: Inode(0),
    }
}

/// Former parent and revision in the key of a deletion.
fn row_of(key: &[u8]) -> Result<(Inode, Revision)> {
    match (keys::number_at(key, 1), keys::number_at(key, 9)) {
        (Some(parent), Some(revision)) => Ok((Inode(parent), Revision(revision))),
        _ => Err(damaged("a key of `deleted` is too short")),
    }
}

fn rewrite(batch: &mut Batch<'_>, key: &Bytes, raw: &Bytes, row: &Deleted) -> Result<()> {
    let delta = sum::replace(batch, key.clone(), Some(raw), Some(encode(row)));
    sum::carry(batch, row_of(key)?.0, Weight::sum(delta))
}

/// How a directory hangs in the one above it.
#[derive(Clone, Debug)]
struct Hook {
    /// Key of its entry or of its row in `deleted`.
    key: Bytes,
    parent: Inode,
    /// The totals of its parent count it up to this directory; `None`: not at all (deleted).
    totals_until: Option<Inode>,
}

/// What of a directory is being taken down, in this order.
#[derive(Clone, Copy, Debug)]
enum Part {
    Entries,
    Deletions,
    Uploads,
}

/// A directory on the way down.
#[derive(Debug)]
struct Frame {
    inode: Inode,
    hook: Hook,
    /// Its totals count up to this directory: the uppermost that is not itself in `deleted`.
    totals_until: Inode,
    part: Part,
    behind: Bytes,
    ahead: VecDeque<(Bytes, Bytes)>,
}

impl Frame {
    fn new(inode: Inode, hook: Hook) -> Frame {
        Frame {
            inode,
            totals_until: hook.totals_until.unwrap_or(inode),
            hook,
            part: Part::Entries,
            behind: keys::entries_of(inode),
            ahead: VecDeque::new(),
        }
    }

    fn prefix(&self) -> Bytes {
        match self.part {
            Part::Entries => keys::entries_of(self.inode),
            Part::Deletions => keys::deleted_of(self.inode),
            Part::Uploads => keys::uploads_of(self.inode),
        }
    }

    /// The next record of this directory; `None` when it is empty.
    fn next(&mut self, batch: &Batch<'_>, limit: usize) -> Result<Option<(Bytes, Bytes)>> {
        loop {
            if let Some(next) = self.ahead.pop_front() {
                return Ok(Some(next));
            }
            let limit = limit.clamp(1, AHEAD_MAX);
            self.ahead = batch.collect(&self.prefix(), &self.behind, limit)?.into();
            if let Some((last, _)) = self.ahead.back() {
                self.behind = [&last[..], &[0]].concat().into();
                continue;
            }
            self.part = match self.part {
                Part::Entries => Part::Deletions,
                Part::Deletions => Part::Uploads,
                Part::Uploads => return Ok(None),
            };
            self.behind = self.prefix();
        }
    }
}

/// Takes down one deletion; false when the budget ended before.
fn take_down(
    batch: &mut Batch<'_>,
    key: &Bytes,
    row: &Deleted,
    budget: &mut Budget,
) -> Result<bool> {
    let hook = Hook {
        key: key.clone(),
        parent: row_of(key)?.0,
        totals_until: None,
    };
    let mut frames = Vec::new();
    if !meet(batch, &row.entry, hook, &mut frames, budget)? {
        return Ok(false);
    }
    while let Some(frame) = frames.last_mut() {
        if budget.is_empty() {
            return Ok(false);
        }
        let Some((key, raw)) = frame.next(batch, budget.left())? else {
            let frame = frames.pop().expect("it was the last");
            unhang_dir(batch, &frame, budget)?;
            continue;
        };
        let (inode, part) = (frame.inode, frame.part);
        let totals_until = frame.totals_until;
        let finished = match part {
            Part::Uploads => drop_upload(batch, inode, key, &raw, budget)?,
            Part::Entries | Part::Deletions => {
                let deleted = matches!(part, Part::Deletions);
                let entry: Entry = match deleted {
                    true => decode::<Deleted>(&raw)?.entry,
                    false => decode(&raw)?,
                };
                let hook = Hook {
                    key,
                    parent: inode,
                    totals_until: (!deleted).then_some(totals_until),
                };
                meet(batch, &entry, hook, &mut frames, budget)?
            }
        };
        if !finished {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Drops a file, or begins with a directory; false when the budget ended before.
fn meet(
    batch: &mut Batch<'_>,
    entry: &Entry,
    hook: Hook,
    frames: &mut Vec<Frame>,
    budget: &mut Budget,
) -> Result<bool> {
    match entry {
        Entry::Dir { inode, .. } => {
            frames.push(Frame::new(*inode, hook));
            Ok(true)
        }
        Entry::File { inode, attrs, .. } => {
            if !drop_file(batch, *inode, attrs, budget)? {
                return Ok(false);
            }
            let totals = Weight {
                entries: 1,
                bytes: attrs.size,
                ..Weight::default()
            };
            unhang(batch, &hook, totals, budget)?;
            Ok(true)
        }
        // Removals of trees with nested shards below are refused.
        Entry::Mount { inode, .. } => Err(damaged(format!(
            "mount point {inode} lies in a removed tree"
        ))),
    }
}

/// Drops what hangs on a file's inode, but for contents that an upload still stages.
fn drop_file(
    batch: &mut Batch<'_>,
    inode: Inode,
    attrs: &FileAttrs,
    budget: &mut Budget,
) -> Result<bool> {
    for row in versions::rows_of(batch, inode)? {
        if budget.is_empty()
            || !content::drop_content(batch, inode, &row.old.attrs.content, budget)?
        {
            return Ok(false);
        }
        content::replace(batch, row.key, Some(&row.raw), None);
        budget.take(1);
    }
    content::drop_content(batch, inode, &attrs.content, budget)
}

fn drop_upload(
    batch: &mut Batch<'_>,
    parent: Inode,
    key: Bytes,
    raw: &Bytes,
    budget: &mut Budget,
) -> Result<bool> {
    let row: Upload = decode(raw)?;
    if !content::drop_pages(batch, row.inode, row.content, budget)? {
        return Ok(false);
    }
    let delta = sum::replace(batch, key, Some(raw), None);
    sum::carry(batch, parent, Weight::sum(delta))?;
    budget.take(1);
    Ok(true)
}

/// Removes an empty directory's record and what it hung on.
fn unhang_dir(batch: &mut Batch<'_>, frame: &Frame, budget: &mut Budget) -> Result<()> {
    let record = batch.dir(frame.inode)?;
    let weight = Weight {
        entries: record.totals.entries.wrapping_add(1),
        bytes: record.totals.bytes,
        mounts: record.totals.mounts,
        sum: record.sum,
    };
    batch.set_dir(frame.inode, None)?;
    budget.take(1);
    unhang(batch, &frame.hook, weight, budget)
}

/// Removes an entry or a row in `deleted`, and what it weighed, from the directory that held it.
fn unhang(batch: &mut Batch<'_>, hook: &Hook, weight: Weight, budget: &mut Budget) -> Result<()> {
    let raw = batch
        .get(&hook.key)?
        .ok_or_else(|| damaged("an entry vanished while its tree was cleaned up"))?;
    let delta = sum::replace(batch, hook.key.clone(), Some(&raw), None);
    let gone = weight.negated();
    budget.take(1);
    match hook.totals_until {
        Some(until) => {
            let weight = gone.plus(Weight::sum(delta));
            sum::carry_until(batch, hook.parent, weight, Some(until))
        }
        None => {
            let header = batch.header_mut();
            header.deletions = header.deletions.saturating_sub(1);
            sum::carry(
                batch,
                hook.parent,
                Weight::sum(gone.sum.wrapping_add(delta)),
            )
        }
    }
}
