//! Pure: attributes of files and directories, and the shard's settings.

use super::apply::{Caller, check_mode, check_user_name, done};
use super::changes;
use super::command::Done;
use super::records::{Change, Entry, Settings};
use super::refuse::{Step, Stop, nested_shard, no_such, refuse_hint};
use super::sum::{self, Touch, Weight};
use super::tree::{self, Found, Place};
use super::txn::Batch;
use crate::error::{Code, Error};
use crate::limits::{CHUNK_BYTES_MAX, INLINE_BYTES_MAX, KIB};
use crate::types::{DfsPath, FileAttrs, FileVersion, Inode, Revision};

/// Superseded versions that may be asked to be kept: a commit looks at all rows of its file.
const KEEP_VERSIONS_MAX: u32 = 1_000;
/// Smallest chunk: below it references outweigh the data.
const CHUNK_BYTES_MIN: u64 = 4 * KIB;

/// What to change; `None` leaves it.
struct Wanted<'a> {
    mode: Option<u16>,
    owner: Option<&'a str>,
    group: Option<&'a str>,
}

impl Wanted<'_> {
    /// Changes what differs; false if nothing does.
    fn write(&self, mode: &mut u16, owner: &mut String, group: &mut String) -> bool {
        let mut changed = false;
        if let Some(new) = self.mode.filter(|new| new != mode) {
            *mode = new;
            changed = true;
        }
        for (field, new) in [(owner, self.owner), (group, self.group)] {
            if let Some(new) = new.filter(|new| *new != field.as_str()) {
                *field = new.to_owned();
                changed = true;
            }
        }
        changed
    }
}

pub(super) fn set(
    batch: &mut Batch<'_>,
    caller: &Caller<'_>,
    path: &DfsPath,
    mode: Option<u16>,
    owner: Option<&str>,
    group: Option<&str>,
) -> Step<Done> {
    if let Some(mode) = mode {
        check_mode(mode)?;
    }
    for name in [owner, group].into_iter().flatten() {
        check_user_name(name)?;
    }
    let wanted = Wanted { mode, owner, group };
    let Some(place) = tree::place(batch, path)? else {
        let root = batch.header().root;
        return set_dir(batch, caller, None, root, &wanted);
    };
    let Some(found) = tree::find(batch, place.parent, &place.name)? else {
        return no_such();
    };
    match found.entry.clone() {
        Entry::File { inode, attrs, .. } => {
            set_file(batch, caller, &place, &found, inode, attrs, &wanted)
        }
        Entry::Dir { inode, .. } => set_dir(batch, caller, Some(&place), inode, &wanted),
        Entry::Mount { .. } => nested_shard(),
    }
}

fn set_file(
    batch: &mut Batch<'_>,
    caller: &Caller<'_>,
    place: &Place,
    found: &Found,
    inode: Inode,
    mut attrs: FileAttrs,
    wanted: &Wanted<'_>,
) -> Step<Done> {
    let version = attrs.version;
    if !wanted.write(&mut attrs.mode, &mut attrs.owner, &mut attrs.group) {
        return Ok(done(Revision(0), inode, version, place.parent));
    }
    let revision = batch.next_revision();
    let entry = Entry::File {
        inode,
        born: revision,
        attrs,
    };
    let entry_sum = tree::set_entry(batch, place, Some(found), Some(&entry));
    let touched = sum::touch(batch, place.parent, caller.wall, Touch::Attributes)?;
    sum::carry(
        batch,
        place.parent,
        Weight::sum(entry_sum.wrapping_add(touched)),
    )?;
    let change = Change::Attributes {
        name: Some(place.name.clone()),
        inode,
    };
    changes::record(batch, caller, change, &place.chain);
    Ok(done(revision, inode, version, place.parent))
}

/// `place` is `None` for the root, whose change row stands in the root itself.
fn set_dir(
    batch: &mut Batch<'_>,
    caller: &Caller<'_>,
    place: Option<&Place>,
    inode: Inode,
    wanted: &Wanted<'_>,
) -> Step<Done> {
    let mut record = batch.dir(inode)?.clone();
    let parent = record.parent;
    if !wanted.write(&mut record.mode, &mut record.owner, &mut record.group) {
        return Ok(done(Revision(0), inode, FileVersion(0), parent));
    }
    let revision = batch.next_revision();
    record.born = revision;
    let form = batch.set_dir(inode, Some(record))?;
    sum::carry(batch, inode, Weight::sum(form))?;
    let ancestors = match place {
        Some(place) => {
            let touched = sum::touch(batch, place.parent, caller.wall, Touch::Attributes)?;
            sum::carry(batch, place.parent, Weight::sum(touched))?;
            place.chain.to_vec()
        }
        None => vec![inode],
    };
    let change = Change::Attributes {
        name: place.map(|place| place.name.clone()),
        inode,
    };
    changes::record(batch, caller, change, &ancestors);
    Ok(done(revision, inode, FileVersion(0), parent))
}

/// Sets the shard's settings. No change of the tree: no revision.
pub(super) fn settings(batch: &mut Batch<'_>, settings: &Settings) -> Step<Done> {
    let bad = |why: String| {
        Err(Stop::Refused(Error::new(
            Code::Usage,
            format!("bad settings ({why})"),
        )))
    };
    if settings.inline_bytes > INLINE_BYTES_MAX {
        return bad(format!("inline_bytes is at most {INLINE_BYTES_MAX}"));
    }
    if !(CHUNK_BYTES_MIN..=CHUNK_BYTES_MAX).contains(&settings.chunk_bytes) {
        return bad(format!(
            "chunk_bytes is {CHUNK_BYTES_MIN} to {CHUNK_BYTES_MAX}"
        ));
    }
    if settings.keep_versions > KEEP_VERSIONS_MAX {
        return refuse_hint(
            Code::Usage,
            format!("bad settings (keep_versions is at most {KEEP_VERSIONS_MAX})"),
            "copy what must be kept for longer",
        );
    }
    batch.header_mut().settings = settings.clone();
    let root = batch.header().root;
    Ok(done(Revision(0), root, FileVersion(0), root))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_only_what_differs() {
        let (mut mode, mut owner, mut group) = (0o644, "a".to_owned(), "g".to_owned());
        let wanted = |mode, owner| Wanted {
            mode,
            owner,
            group: None,
        };
        assert!(!wanted(Some(0o644), Some("a")).write(&mut mode, &mut owner, &mut group));
        assert!(wanted(None, Some("b")).write(&mut mode, &mut owner, &mut group));
        assert_eq!((mode, owner.as_str(), group.as_str()), (0o644, "b", "g"));
    }
}
