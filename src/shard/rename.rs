//! Pure: renaming within the shard: one delete and one insert, whatever lies below.

use super::apply::{Caller, done};
use super::changes;
use super::command::Done;
use super::records::{Change, Entry};
use super::refuse::{Step, Stop, nested_shard, no_such, refuse, refuse_hint};
use super::remove::{bury, not_empty};
use super::sum::{self, Touch, Weight};
use super::tree::{self, Found, Place};
use super::txn::Batch;
use crate::error::{Code, Error, Result};
use crate::types::{DfsPath, DirVersion, FileVersion, Inode, Replacement, Revision};

pub(super) fn rename(
    batch: &mut Batch<'_>,
    caller: &Caller<'_>,
    from: &DfsPath,
    to: &DfsPath,
    replace: Replacement,
) -> Step<Done> {
    let Some(source) = tree::place(batch, from)? else {
        return refuse(Code::Usage, "the root cannot be renamed");
    };
    let Some(moved) = tree::find(batch, source.parent, &source.name)? else {
        return no_such();
    };
    if matches!(moved.entry, Entry::Mount { .. }) {
        return nested_shard();
    }
    let version = version_of(&moved.entry);
    if from == to {
        return Ok(done(
            Revision(0),
            moved.entry.inode(),
            version,
            source.parent,
        ));
    }
    if to.is_at_or_below(from) && matches!(moved.entry, Entry::Dir { .. }) {
        return refuse_hint(
            Code::Usage,
            format!("a directory cannot be moved below itself (to {to})"),
            "name a place outside of it",
        );
    }
    let (target, replaced) =
        judge_target(batch, &moved.entry, to, replace).map_err(|stop| match stop {
            Stop::Refused(error) => Stop::Refused(error.at(to)),
            damage => damage,
        })?;
    let revision = batch.next_revision();
    shift(
        batch,
        caller,
        &source,
        &moved,
        &target,
        replaced.as_ref(),
        revision,
    )?;
    let change = Change::Renamed {
        from: source.name.clone(),
        from_ancestors: source.chain.to_vec(),
        to: target.name.clone(),
        inode: moved.entry.inode(),
        replaced: replaced.map(|found| found.entry.inode()),
    };
    changes::record(batch, caller, change, &target.chain);
    Ok(done(revision, moved.entry.inode(), version, target.parent))
}

fn version_of(entry: &Entry) -> FileVersion {
    match entry {
        Entry::File { attrs, .. } => attrs.version,
        Entry::Dir { .. } | Entry::Mount { .. } => FileVersion(0),
    }
}

/// Where it goes to, and what it replaces there.
fn judge_target(
    batch: &mut Batch<'_>,
    moved: &Entry,
    to: &DfsPath,
    replace: Replacement,
) -> Step<(Place, Option<Found>)> {
    if to.is_root() {
        return refuse(Code::Exists, "the root cannot be replaced");
    }
    let target = tree::target(batch, to)?;
    let there = tree::find(batch, target.parent, &target.name)?;
    let Some(found) = &there else {
        return Ok((target, None));
    };
    match (replace, moved, &found.entry) {
        (_, _, Entry::Mount { .. }) => nested_shard(),
        (Replacement::Never, _, Entry::File { attrs, .. }) => Err(Stop::Refused(
            Error::new(Code::Exists, "the target exists already")
                .version(attrs.version.0)
                .hint("use another name, or remove it first"),
        )),
        (Replacement::Never, _, Entry::Dir { .. }) => refuse_hint(
            Code::Exists,
            "the target is a directory that exists already",
            "to move into it, end the target with `/` and the name",
        ),
        (Replacement::Posix, Entry::File { .. }, Entry::Dir { .. }) => refuse(
            Code::Conflict,
            "the target is a directory (a file cannot replace it)",
        ),
        (Replacement::Posix, Entry::Dir { .. }, Entry::File { .. }) => refuse(
            Code::Conflict,
            "the target is a file (a directory cannot replace it)",
        ),
        (Replacement::Posix, _, Entry::Dir { inode, .. }) => {
            match batch.dir(*inode)?.totals.entries {
                0 => Ok((target, there)),
                entries => not_empty(entries),
            }
        }
        (Replacement::Posix, _, Entry::File { .. }) => Ok((target, there)),
    }
}

/// The records of the move: entries, the moved directory's own record, both parents, both walks.
fn shift(
    batch: &mut Batch<'_>,
    caller: &Caller<'_>,
    source: &Place,
    moved: &Found,
    target: &Place,
    replaced: Option<&Found>,
    revision: Revision,
) -> Result<()> {
    let totals = sum::entry_totals(batch, &moved.entry)?;
    let mut leaves = totals.negated();
    let mut comes = totals;
    if let Some(replaced) = replaced {
        comes = comes.plus(bury(batch, caller, target, replaced, revision)?);
    }
    leaves.sum = tree::set_entry(batch, source, Some(moved), None);
    let entry = match &moved.entry {
        Entry::Dir { inode, .. } => {
            // What lies below it leaves with the sum it has, and comes with a new form.
            let below = batch.dir(*inode)?.sum;
            let form = rehang(batch, *inode, target, revision)?;
            leaves.sum = leaves.sum.wrapping_sub(below);
            comes.sum = comes.sum.wrapping_add(below).wrapping_add(form);
            batch.forget_paths();
            Entry::Dir {
                inode: *inode,
                born: revision,
            }
        }
        Entry::File { inode, attrs, .. } => Entry::File {
            inode: *inode,
            born: revision,
            attrs: attrs.clone(),
        },
        Entry::Mount { inode, shard, .. } => Entry::Mount {
            inode: *inode,
            born: revision,
            shard: *shard,
        },
    };
    // The name is free now: what was replaced is in `deleted`.
    let entry_sum = tree::set_entry(batch, target, None, Some(&entry));
    comes.sum = comes.sum.wrapping_add(entry_sum);
    let touched = sum::touch(batch, source.parent, caller.wall, Touch::Names)?;
    leaves.sum = leaves.sum.wrapping_add(touched);
    if source.parent == target.parent {
        return sum::carry(batch, source.parent, leaves.plus(comes));
    }
    let touched = sum::touch(batch, target.parent, caller.wall, Touch::Names)?;
    sum::carry(batch, source.parent, leaves)?;
    sum::carry(batch, target.parent, comes.plus(Weight::sum(touched)))
}

/// Hangs a directory's record to its new place; returns what its form's hash changes by, which
/// its own sum has already.
fn rehang(batch: &mut Batch<'_>, inode: Inode, target: &Place, revision: Revision) -> Result<u64> {
    let mut record = batch.dir(inode)?.clone();
    record.parent = target.parent;
    record.name = Some(target.name.clone());
    record.born = revision;
    // Whoever knows a directory of the new path by its version must see that this is another.
    record.version = DirVersion(revision.0).max(record.version.next());
    let form = batch.set_dir(inode, Some(record))?;
    batch.weigh(inode, Weight::sum(form))?;
    Ok(form)
}
