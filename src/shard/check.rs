//! Pure: read-only check of all records of a shard. Called for `dfs fsck`, and by the tests
//! after each step.
//!
//! The tree is walked from the root; everything that belongs to it is noted; then each table is
//! gone through for records that belong to nothing. Memory grows with the number of directories,
//! contents and chunks, so a node runs it on request only.
//!
//! What is held to:
//! 1. every directory record, entry, upload and deletion hangs on the root;
//! 2. totals and sums are what their records add up to;
//! 3. every record that hangs on a file belongs to one of its contents or versions; live
//!    contents are complete;
//! 4. references and manifests agree, both ways;
//! 5. the header's counts, sums and next numbers are right.

use super::content::id_of;
use super::keys;
use super::read;
use super::records::{
    ChangeRow, Deleted, DirRecord, Entry, Header, LaneRow, ManifestPage, OldVersion, Reference,
    Upload, decode,
};
use super::sum::{Weight, form_hash};
use crate::error::Result;
use crate::limits::MANIFEST_PAGE_REFS;
use crate::proto::FsckReport;
use crate::store::SlotRead;
use crate::store::record::record_hash;
use crate::types::{
    ChunkHash, Content, ContentId, DirTotals, FileAttrs, FileVersion, Inode, Revision, ShardTime,
};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// Problems listed at most; more are only counted.
const PROBLEMS_MAX: usize = 1_000;

/// Checks a shard's records. Damage that can be read over is reported, not returned.
///
/// # Errors
/// Only when the header cannot be read or the view fails.
pub fn check(view: &dyn SlotRead) -> Result<FsckReport> {
    let header = read::header(view)?;
    let mut check = Check {
        view,
        root: header.root,
        time: header.time,
        report: FsckReport::default(),
        more: 0,
        dirs: BTreeMap::new(),
        files: HashMap::new(),
        contents: HashMap::new(),
        deletions: 0,
        hanging: 0,
        next: (Inode(0), ContentId(0)),
    };
    check.walk()?;
    check.orphans()?;
    check.versions()?;
    check.inline()?;
    check.manifests()?;
    check.references()?;
    check.lanes(&header)?;
    check.changes(&header)?;
    check.header(&header);
    if check.more > 0 {
        let more = format!("and {} more problems", check.more);
        check.report.problems.push(more);
    }
    Ok(check.report)
}

/// A directory met on the walk.
struct DirSeen {
    record: DirRecord,
    /// What its own entries weigh, without its subdirectories; the sum with uploads and
    /// deletions.
    own: Weight,
    /// Subdirectories: with the totals counted, or (deleted) the sum only.
    below: Vec<(Inode, bool)>,
}

/// A content of a file.
#[derive(Clone, Debug, Default)]
struct ContentSeen {
    /// Nothing of it may be missing: it can be read.
    live: bool,
    inline: bool,
    pages: u32,
    /// (size of the file, bytes a chunk) of a committed content.
    size: Option<(u64, u64)>,
    pages_seen: u32,
    bytes_seen: u64,
    /// Different chunks of its manifest.
    chunks: HashSet<ChunkHash>,
    references: u64,
}

struct Check<'v> {
    view: &'v dyn SlotRead,
    root: Inode,
    time: ShardTime,
    report: FsckReport,
    more: u64,
    dirs: BTreeMap<Inode, DirSeen>,
    /// Inodes of files, and whether they can be read.
    files: HashMap<Inode, bool>,
    contents: HashMap<(Inode, ContentId), ContentSeen>,
    deletions: u64,
    hanging: u64,
    /// Highest inode and content id met.
    next: (Inode, ContentId),
}

impl Check<'_> {
    fn problem(&mut self, what: String) {
        if self.report.problems.len() < PROBLEMS_MAX {
            self.report.problems.push(what);
        } else {
            self.more += 1;
        }
    }

    /// Decodes a record, or notes that it cannot be.
    fn decoded<T: serde::de::DeserializeOwned>(&mut self, what: &str, value: &[u8]) -> Option<T> {
        match decode(value) {
            Ok(record) => Some(record),
            Err(error) => {
                self.problem(format!("{what}: {}", error.message));
                None
            }
        }
    }

    /// All records of a table or part of one.
    fn each(
        &mut self,
        prefix: &[u8],
        mut visit: impl FnMut(&mut Self, &[u8], &[u8]),
    ) -> Result<()> {
        let view = self.view;
        view.scan(prefix, keys::after(prefix).as_deref(), &mut |key, value| {
            visit(self, key, value);
            Ok(true)
        })
    }

    // --- the tree ---

    fn walk(&mut self) -> Result<()> {
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
    fn hangs(&mut self, inode: Inode, parent: Inode, name: Option<&crate::types::Name>) {
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
    fn content(&mut self, inode: Inode, attrs: &FileAttrs, live: bool, fresh: bool) {
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
    fn orphans(&mut self) -> Result<()> {
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

    // --- what hangs on files ---

    fn versions(&mut self) -> Result<()> {
        let mut last: Option<(Inode, FileVersion)> = None;
        self.each(&keys::table(keys::VERSIONS), |this, key, value| {
            this.count_hanging(key, value);
            let (Some(inode), Some(version)) = (keys::number_at(key, 1), keys::number_at(key, 9))
            else {
                return this.problem("a key of `versions` is too short".to_owned());
            };
            let (inode, version) = (Inode(inode), FileVersion(version));
            let Some(live) = this.files.get(&inode).copied() else {
                return this.problem(format!(
                    "version {version} of file {inode} that is not there"
                ));
            };
            let what = format!("version {version} of file {inode}");
            let Some(old) = this.decoded::<OldVersion>(&what, value) else {
                return;
            };
            if let Some((before, number)) = last
                && live
                && before == inode
                && number.next() != version
            {
                this.problem(format!(
                    "file {inode}: versions {number} to {version} are missing"
                ));
            }
            last = Some((inode, version));
            if old.attrs.version != version {
                this.problem(format!("{what} says it is {}", old.attrs.version));
            }
            this.report.versions += u64::from(live && !old.dropping);
            this.content(inode, &old.attrs, live && !old.dropping, false);
        })
    }

    fn count_hanging(&mut self, key: &[u8], value: &[u8]) {
        self.hanging = self.hanging.wrapping_add(record_hash(key, value));
    }

    fn inline(&mut self) -> Result<()> {
        let mut seen = BTreeSet::new();
        self.each(&keys::table(keys::INLINE), |this, key, value| {
            this.count_hanging(key, value);
            let Some(at) = content_key(key, 1) else {
                return this.problem("a key of `inline` is too short".to_owned());
            };
            match this.contents.get(&at) {
                Some(content) if content.inline => {
                    seen.insert(at);
                }
                _ => this.problem(format!("inline data {at:?} belongs to nothing")),
            }
        })?;
        let missing: Vec<_> = self
            .contents
            .iter()
            .filter(|(at, content)| content.live && content.inline && !seen.contains(at))
            .map(|(at, _)| *at)
            .collect();
        for at in missing {
            self.problem(format!("inline data {at:?} is missing"));
        }
        Ok(())
    }

    fn manifests(&mut self) -> Result<()> {
        let mut lens: HashMap<ChunkHash, u32> = HashMap::new();
        self.each(&keys::table(keys::MANIFESTS), |this, key, value| {
            this.count_hanging(key, value);
            let at = content_key(key, 1);
            let number = key
                .get(17..21)
                .and_then(|n| n.try_into().ok())
                .map(u32::from_be_bytes);
            let (Some(at), Some(number)) = (at, number) else {
                return this.problem("a key of `manifests` is too short".to_owned());
            };
            let what = format!("manifest page {number} of {at:?}");
            let Some(page) = this.decoded::<ManifestPage>(&what, value) else {
                return;
            };
            for chunk in &page.chunks {
                lens.insert(chunk.hash, chunk.len);
            }
            match this.contents.get_mut(&at) {
                Some(content) if !content.inline && number < content.pages => {
                    content.pages_seen += 1;
                    content.bytes_seen += page
                        .chunks
                        .iter()
                        .map(|chunk| u64::from(chunk.len))
                        .sum::<u64>();
                    content
                        .chunks
                        .extend(page.chunks.iter().map(|chunk| chunk.hash));
                    if number + 1 < content.pages && page.chunks.len() != MANIFEST_PAGE_REFS {
                        this.problem(format!("{what} has {} chunks", page.chunks.len()));
                    }
                }
                _ => this.problem(format!("{what} belongs to nothing")),
            }
        })?;
        self.report.chunks = lens.len() as u64;
        self.report.chunk_bytes = lens.values().map(|len| u64::from(*len)).sum();
        Ok(())
    }

    fn references(&mut self) -> Result<()> {
        self.each(&keys::table(keys::REFERENCES), |this, key, value| {
            this.count_hanging(key, value);
            this.report.references += 1;
            let hash = key
                .get(1..33)
                .and_then(|h| h.try_into().ok())
                .map(ChunkHash);
            let (Some(hash), Some(at)) = (hash, content_key(key, 33)) else {
                return this.problem("a key of `references` is too short".to_owned());
            };
            let what = format!("reference of {at:?} to chunk {hash}");
            this.decoded::<Reference>(&what, value);
            match this.contents.get_mut(&at) {
                Some(content) if content.chunks.contains(&hash) => content.references += 1,
                _ => this.problem(format!("{what}: no manifest names it")),
            }
        })?;
        let mut wrong = Vec::new();
        for (at, content) in &self.contents {
            let chunks = content.chunks.len() as u64;
            // A content that is being dropped loses the reference of a repeated chunk early.
            if content.live && content.references != chunks {
                wrong.push(format!(
                    "content {at:?} has {chunks} chunks and {} references",
                    content.references
                ));
            }
            let complete = content.pages_seen == content.pages;
            if content.live && !content.inline && !complete {
                wrong.push(format!(
                    "content {at:?} has {} of {} manifest pages",
                    content.pages_seen, content.pages
                ));
            }
            if let (true, true, Some((size, _))) = (content.live, complete, content.size)
                && size != content.bytes_seen
            {
                wrong.push(format!(
                    "content {at:?} has {size} bytes, its chunks {}",
                    content.bytes_seen
                ));
            }
        }
        wrong.sort();
        wrong.into_iter().for_each(|what| self.problem(what));
        Ok(())
    }

    // --- the shard's own tables ---

    fn lanes(&mut self, header: &Header) -> Result<()> {
        let mut rows = BTreeSet::new();
        self.each(&keys::table(keys::LANES), |this, key, value| {
            if let Some(row) = this.decoded::<LaneRow>("lane", value) {
                let minute = (row.used.0 / 60_000).to_be_bytes();
                rows.insert([&[keys::LANES_BY_AGE][..], &minute, &key[1..]].concat());
            }
        })?;
        let mut ages = BTreeSet::new();
        self.each(&keys::table(keys::LANES_BY_AGE), |_, key, _| {
            ages.insert(key.to_vec());
        })?;
        if rows != ages {
            self.problem("`lanes` and `lanes by age` do not agree".to_owned());
        }
        if header.lanes != rows.len() as u64 {
            self.problem(format!(
                "the header counts {} lanes, there are {}",
                header.lanes,
                rows.len()
            ));
        }
        Ok(())
    }

    fn changes(&mut self, header: &Header) -> Result<()> {
        let mut bytes = 0;
        let mut last = header.changes_trimmed;
        self.each(&keys::table(keys::CHANGES), |this, key, value| {
            bytes += value.len() as u64;
            this.decoded::<ChangeRow>("change row", value);
            let revision = keys::number_at(key, 1).map(Revision);
            if revision != Some(last.next()) {
                this.problem(format!("change row {revision:?} comes after {last}"));
            }
            last = revision.unwrap_or(last);
        })?;
        if last != header.revision {
            self.problem(format!(
                "the header is at revision {}, the newest change row is {last}",
                header.revision
            ));
        }
        if bytes != header.changes_bytes {
            self.problem(format!(
                "the header counts {} bytes of changes, there are {bytes}",
                header.changes_bytes
            ));
        }
        Ok(())
    }

    fn header(&mut self, header: &Header) {
        if header.deletions != self.deletions {
            self.problem(format!(
                "the header counts {} deletions, there are {}",
                header.deletions, self.deletions
            ));
        }
        if header.contents != self.hanging {
            self.problem(
                "the sum of what hangs on files is not right (a record was lost or damaged)"
                    .to_owned(),
            );
        }
        if self.next.0 >= header.next_inode {
            self.problem(format!(
                "inode {} is in use, the next to be given is {}",
                self.next.0, header.next_inode
            ));
        }
        if self.next.1 >= header.next_content {
            self.problem(format!(
                "content {} is in use, the next to be given is {}",
                self.next.1, header.next_content
            ));
        }
    }
}

fn content_key(key: &[u8], at: usize) -> Option<(Inode, ContentId)> {
    Some((
        Inode(keys::number_at(key, at)?),
        ContentId(keys::number_at(key, at + 8)?),
    ))
}
