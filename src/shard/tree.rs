//! Pure: from paths to records inside a batch, and from a directory up to the root.

use super::keys;
use super::records::{Entry, decode, encode};
use super::refuse::{Step, Stop, damaged, nested_shard, refuse, refuse_hint};
use super::sum;
use super::txn::Batch;
use crate::error::{Code, Error, Result};
use crate::types::{DfsPath, Inode, Name};
use bytes::Bytes;
use std::sync::Arc;

/// Steps of a walk up to the root. Paths are at most 255 names deep, but renames can push a tree
/// below what a path reaches; this only keeps a damaged tree from making a walk endless.
pub(super) const WALK_MAX: usize = 1 << 20;

/// Reserved for snapshots.
pub(super) const SNAPSHOTS: &str = ".snap";

/// A name in an existing directory.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub parent: Inode,
    pub name: Name,
    /// `parent` and all above it, up to the shard's root.
    pub chain: Arc<[Inode]>,
}

/// What a name stands for, with its stored form.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub raw: Bytes,
    pub entry: Entry,
}

/// What `name` in `parent` stands for.
pub(super) fn find(batch: &Batch<'_>, parent: Inode, name: &Name) -> Result<Option<Found>> {
    match batch.get(&keys::entry(parent, name))? {
        None => Ok(None),
        Some(raw) => Ok(Some(Found {
            entry: decode(&raw)?,
            raw,
        })),
    }
}

/// Sets or removes an entry; returns what its directory's sum changes by.
pub(super) fn set_entry(
    batch: &mut Batch<'_>,
    place: &Place,
    old: Option<&Found>,
    new: Option<&Entry>,
) -> u64 {
    sum::replace(
        batch,
        keys::entry(place.parent, &place.name),
        old.map(|found| &found.raw),
        new.map(encode),
    )
}

/// Where a path's last name is; `None` for `/`. The parent must exist.
pub(super) fn place(batch: &mut Batch<'_>, path: &DfsPath) -> Step<Option<Place>> {
    let Some(name) = path.name() else {
        return Ok(None);
    };
    let cut = path.as_str().len() - name.as_str().len() - 1;
    let chain = directory(batch, &path.as_str()[..cut])?;
    Ok(Some(Place {
        parent: chain[0],
        name,
        chain,
    }))
}

/// Like [`place`], for a name that is to be made: `/` and `.snap` are refused.
pub(super) fn target(batch: &mut Batch<'_>, path: &DfsPath) -> Step<Place> {
    match place(batch, path)? {
        None => super::refuse::is_dir(),
        Some(place) => {
            check_name(&place.name)?;
            Ok(place)
        }
    }
}

/// Refuses names that are reserved.
pub(super) fn check_name(name: &Name) -> Step<()> {
    if name.as_str() == SNAPSHOTS {
        return refuse_hint(
            Code::Usage,
            "the name `.snap` is reserved for snapshots",
            "use another name",
        );
    }
    Ok(())
}

/// Inodes from the directory at this path (without a trailing slash; `""` is `/`) up to the root.
fn directory(batch: &mut Batch<'_>, path: &str) -> Step<Arc<[Inode]>> {
    if let Some(chain) = batch.known_path(path) {
        return Ok(chain);
    }
    let mut chain = vec![batch.header().root];
    let mut end = 0;
    for part in path.split('/').skip(1) {
        end += part.len() + 1;
        let name = Name::parse(part).map_err(Stop::Refused)?;
        let at = *chain.last().expect("the chain begins with the root");
        match find(batch, at, &name)?.map(|found| found.entry) {
            Some(Entry::Dir { inode, .. }) => chain.push(inode),
            Some(Entry::Mount { .. }) => return nested_shard(),
            Some(Entry::File { .. }) => {
                return refuse(
                    Code::Conflict,
                    format!("{} is a file (not a directory)", &path[..end]),
                );
            }
            None => {
                return refuse_hint(
                    Code::NotFound,
                    format!("the directory {} does not exist", &path[..end]),
                    "make it first (`dfs mkdir -p`)",
                );
            }
        }
    }
    chain.reverse();
    let chain: Arc<[Inode]> = chain.into();
    batch.remember_path(path, &chain);
    Ok(chain)
}

/// Inodes from a directory up to the root; `None` when it or one above it was removed: every
/// step checks that the parent's entry still leads to it.
pub(super) fn alive_chain(batch: &mut Batch<'_>, dir: Inode) -> Result<Option<Arc<[Inode]>>> {
    let root = batch.header().root;
    let mut chain = vec![dir];
    let mut at = dir;
    while at != root {
        let Some(record) = batch.find_dir(at)? else {
            return Ok(None);
        };
        let parent = record.parent;
        let name = record
            .name
            .clone()
            .ok_or_else(|| damaged(format!("directory {at} has no name")))?;
        match find(batch, parent, &name)?.map(|found| found.entry) {
            Some(Entry::Dir { inode, .. }) if inode == at => {}
            _ => return Ok(None),
        }
        if chain.len() > WALK_MAX {
            return Err(endless(dir));
        }
        chain.push(parent);
        at = parent;
    }
    Ok(Some(chain.into()))
}

pub(super) fn endless(dir: Inode) -> Error {
    damaged(format!("directory {dir} does not hang on the root"))
}
