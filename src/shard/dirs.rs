//! Pure: making directories. Removing one is in `remove`.

use super::apply::{Caller, check_mode, done};
use super::changes;
use super::command::Done;
use super::records::{Change, DirRecord, Entry};
use super::refuse::{Step, Stop, nested_shard, refuse, refuse_hint};
use super::sum::{self, Touch, Weight};
use super::tree::{self, Place};
use super::txn::Batch;
use crate::error::{Code, Error};
use crate::types::{DfsPath, DirTotals, DirVersion, FileVersion, Inode, Revision};
use std::sync::Arc;

pub(super) fn mkdir(
    batch: &mut Batch<'_>,
    caller: &Caller<'_>,
    path: &DfsPath,
    mode: u16,
    parents: bool,
) -> Step<Done> {
    check_mode(mode)?;
    if path.is_root() {
        if parents {
            return Ok(unchanged(batch.header().root, batch.header().root));
        }
        return refuse_hint(Code::Exists, "the root is always there", "name a directory");
    }
    if parents {
        return mkdir_parents(batch, caller, path, mode);
    }
    let place = tree::target(batch, path)?;
    match tree::find(batch, place.parent, &place.name)?.map(|found| found.entry) {
        None => make(batch, caller, &place, mode),
        Some(Entry::File { attrs, .. }) => Err(Stop::Refused(
            Error::new(Code::Exists, "a file of that name exists").version(attrs.version.0),
        )),
        Some(_) => refuse_hint(
            Code::Exists,
            "the directory exists already",
            "with `-p` that is fine",
        ),
    }
}

/// Makes what is missing of a path. Each directory made is a change of its own.
fn mkdir_parents(
    batch: &mut Batch<'_>,
    caller: &Caller<'_>,
    path: &DfsPath,
    mode: u16,
) -> Step<Done> {
    let root = batch.header().root;
    let mut chain: Arc<[Inode]> = [root].into();
    let mut last = unchanged(root, root);
    let mut shown = String::new();
    for name in path.names() {
        shown.push('/');
        shown.push_str(name.as_str());
        tree::check_name(&name)?;
        let place = Place {
            parent: chain[0],
            name,
            chain: Arc::clone(&chain),
        };
        last = match tree::find(batch, place.parent, &place.name)?.map(|found| found.entry) {
            Some(Entry::Dir { inode, .. }) => unchanged(inode, place.parent),
            Some(Entry::Mount { .. }) => return nested_shard(),
            Some(Entry::File { .. }) => {
                return refuse(
                    Code::Conflict,
                    format!("{shown} is a file (not a directory)"),
                );
            }
            None => make(batch, caller, &place, mode)?,
        };
        chain = std::iter::once(last.inode)
            .chain(chain.iter().copied())
            .collect();
    }
    Ok(last)
}

fn unchanged(inode: Inode, parent: Inode) -> Done {
    done(Revision(0), inode, FileVersion(0), parent)
}

fn make(batch: &mut Batch<'_>, caller: &Caller<'_>, place: &Place, mode: u16) -> Step<Done> {
    let inode = batch.next_inode()?;
    let revision = batch.next_revision();
    let record = DirRecord {
        born: revision,
        snapshot: batch.dir(place.parent)?.snapshot,
        parent: place.parent,
        name: Some(place.name.clone()),
        owner: caller.user.to_owned(),
        group: caller.group.to_owned(),
        mode,
        created: caller.wall,
        modified: caller.wall,
        // Not 1: a directory of this path may have been listed at 1 before.
        version: DirVersion(revision.0),
        totals: DirTotals::default(),
        sum: 0,
    };
    let form = batch.set_dir(inode, Some(record))?;
    let entry = Entry::Dir {
        inode,
        born: revision,
    };
    let entry_sum = tree::set_entry(batch, place, None, Some(&entry));
    batch.weigh(inode, Weight::sum(form))?;
    let touched = sum::touch(batch, place.parent, caller.wall, Touch::Names)?;
    let weight = Weight {
        entries: 1,
        sum: form.wrapping_add(entry_sum).wrapping_add(touched),
        ..Weight::default()
    };
    sum::carry(batch, place.parent, weight)?;
    let change = Change::MadeDir {
        name: place.name.clone(),
        inode,
    };
    changes::record(batch, caller, change, &place.chain);
    Ok(done(revision, inode, FileVersion(0), place.parent))
}
