//! Pure: the walk over the tree: directories, entries, deletions, uploads; totals and sums.

use super::{Check, ContentSeen, DirSeen};
use crate::error::Result;
use crate::shard::content::id_of;
use crate::shard::keys;
use crate::shard::records::{Deleted, DirRecord, Entry, Upload, decode};
use crate::shard::sum::{Weight, form_hash};
use crate::store::record::record_hash;
use crate::types::{Content, DirTotals, FileAttrs, Inode, Name};

impl Check<'_> {
    pub(super) fn walk(&mut self) -> Result<()> {
        let mut open = vec![(self.root, true)];
        let mut order = Vec::new();
        while let Some((inode, live)) = open.pop() {
            if self.dirs.contains_key(&inode) {
                self.problem(format!("directory {inode} hangs in two places"));
                continue;
            }
            let record = match self.view.get(&keys::dir(inode))? {
                Some(bytes) => self.decoded::<DirRecord>(&format!("directory {inode}"), &bytes),
                None => {
                    self.problem(format!("the record of directory {inode} is missing"));
                    None
                }
            };
            let Some(mut record) = record else { continue };
            self.next.0 = self.next.0.max(inode);
            self.report.dirs += u64::from(live);
            let own = Weight::sum(form_hash(inode, &mut record));
            let mut seen = DirSeen {
                record,
                own,
                below: Vec::new(),
            };
            self.entries(inode, live, &mut seen, &mut open)?;
            self.deleted(inode, &mut seen, &mut open)?;
            self.uploads(inode, live, &mut seen)?;
            self.dirs.insert(inode, seen);
            order.push(inode);
        }
        self.add_up(&order);
        Ok(())
    }

    fn entries(
        &mut self,
        dir: Inode,
        live: bool,
        seen: &mut DirSeen,
        open: &mut Vec<(Inode, bool)>,
    ) -> Result<()> {
        self.each(&keys::entries_of(dir), |this, key, value| {
            let name = keys::entry_name(key);
            let what = format!("entry {name:?} of directory {dir}");
            if name.is_none() {
                this.problem(format!("an entry of directory {dir} has a bad name"));
            }
            seen.own.sum = seen.own.sum.wrapping_add(record_hash(key, value));
            seen.own.entries += 1;
            let Some(entry) = this.decoded::<Entry>(&what, value) else {
                return;
            };
            match &entry {
                Entry::Dir { inode, .. } => {
                    this.hangs(*inode, dir, name.as_ref());
                    seen.below.push((*inode, true));
                    open.push((*inode, live));
                }
                Entry::File { inode, attrs, .. } => {
                    seen.own.bytes = seen.own.bytes.wrapping_add(attrs.size);
                    this.file(*inode, attrs, live);
                }
                Entry::Mount { .. } => seen.own.mounts += 1,
            }
        })
    }

    fn deleted(
        &mut self,
        dir: Inode,
        seen: &mut DirSeen,
        open: &mut Vec<(Inode, bool)>,
    ) -> Result<()> {
        self.each(&keys::deleted_of(dir), |this, key, value| {
            this.deletions += 1;
            seen.own.sum = seen.own.sum.wrapping_add(record_hash(key, value));
            let what = format!("deletion in directory {dir}");
            let Some(row) = this.decoded::<Deleted>(&what, value) else {
                return;
            };
            match &row.entry {
                Entry::Dir { inode, .. } => {
                    this.hangs(*inode, dir, Some(&row.name));
                    seen.below.push((*inode, false));
                    open.push((*inode, false));
                }
                Entry::File { inode, attrs, .. } => this.file(*inode, attrs, false),
                Entry::Mount { .. } => {}
            }
        })
    }

    fn uploads(&mut self, dir: Inode, live: bool, seen: &mut DirSeen) -> Result<()> {
        self.each(&keys::uploads_of(dir), |this, key, value| {
            seen.own.sum = seen.own.sum.wrapping_add(record_hash(key, value));
            let Some(row) = this.decoded::<Upload>(&format!("upload in directory {dir}"), value)
            else {
                return;
            };
            this.next = (this.next.0.max(row.inode), this.next.1.max(row.content));
            let content = ContentSeen {
                // An expired upload, or one in a removed tree, may be half dropped.
                live: live && row.expires > this.time,
                pages: row.pages,
                ..ContentSeen::default()
            };
            if this
                .contents
                .insert((row.inode, row.content), content)
                .is_some()
            {
                this.problem(format!(
                    "content {} of file {} belongs to an upload and to another",
                    row.content, row.inode
                ));
            }
        })
    }

    /// A directory's record must say where it hangs.
    fn hangs(&mut self, inode: Inode, parent: Inode, name: Option<&Name>) {
        let Ok(Some(bytes)) = self.view.get(&keys::dir(inode)) else {
            return;
        };
        if let Ok(record) = decode::<DirRecord>(&bytes)
            && (record.parent != parent || record.name.as_ref() != name)
        {
            self.problem(format!(
                "directory {inode} says it hangs in {} as {:?}, it hangs in {parent} as {name:?}",
                record.parent, record.name
            ));
        }
    }

    fn file(&mut self, inode: Inode, attrs: &FileAttrs, live: bool) {
        self.next.0 = self.next.0.max(inode);
        self.report.files += u64::from(live);
        if self.files.insert(inode, live).is_some() {
            self.problem(format!("file {inode} hangs in two places"));
        }
        self.content(inode, attrs, live, true);
    }

    /// Notes a content that a version has. `fresh`: no other version may have it yet.
    pub(super) fn content(&mut self, inode: Inode, attrs: &FileAttrs, live: bool, fresh: bool) {
        let Some(id) = id_of(&attrs.content) else {
            return;
        };
        self.next.1 = self.next.1.max(id);
        let mut seen = ContentSeen {
            live,
            ..ContentSeen::default()
        };
        match attrs.content {
            Content::Chunks {
                pages, chunk_bytes, ..
            } => {
                seen.pages = pages;
                seen.size = Some((attrs.size, chunk_bytes));
            }
            _ => seen.inline = true,
        }
        match self.contents.get_mut(&(inode, id)) {
            Some(before) if !fresh => before.live |= live,
            Some(_) => self.problem(format!("content {id} of file {inode} is held twice")),
            None => {
                self.contents.insert((inode, id), seen);
            }
        }
    }

    /// Compares totals and sums, children before parents.
    fn add_up(&mut self, order: &[Inode]) {
        for inode in order.iter().rev() {
            let Some(seen) = self.dirs.get(inode) else {
                continue;
            };
            let mut weight = seen.own;
            for (child, counted) in &seen.below {
                let Some(child) = self.dirs.get(child) else {
                    continue;
                };
                let totals = child.record.totals;
                weight.sum = weight.sum.wrapping_add(child.record.sum);
                if *counted {
                    weight.entries = weight.entries.wrapping_add(totals.entries);
                    weight.bytes = weight.bytes.wrapping_add(totals.bytes);
                    weight.mounts = weight.mounts.wrapping_add(totals.mounts);
                }
            }
            let totals = DirTotals {
                entries: weight.entries,
                bytes: weight.bytes,
                mounts: weight.mounts,
            };
            let (stored, stored_sum) = (seen.record.totals, seen.record.sum);
            if totals != stored {
                self.problem(format!(
                    "directory {inode} says {stored:?}, its entries add up to {totals:?}"
                ));
            }
            if weight.sum != stored_sum {
                self.problem(format!(
                    "directory {inode}: its sum is not that of its records (one was lost or \
                     damaged)"
                ));
            }
        }
    }

    /// Records keyed by a directory that the walk did not meet.
    pub(super) fn orphans(&mut self) -> Result<()> {
        for (table, what) in [
            (keys::ENTRIES, "entry"),
            (keys::DIRS, "directory record"),
            (keys::UPLOADS, "upload"),
            (keys::DELETED, "deletion"),
        ] {
            self.each(&keys::table(table), |this, key, _| {
                match keys::number_at(key, 1).map(Inode) {
                    Some(inode) if this.dirs.contains_key(&inode) => {}
                    inode => this.problem(format!(
                        "a {what} of directory {inode:?} that does not hang on the root"
                    )),
                }
            })?;
        }
        Ok(())
    }
}
