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

mod contents;
mod tree;

use super::records::{ChangeRow, DirRecord, Header, LaneRow, decode};
use super::sum::Weight;
use super::{keys, read};
use crate::error::Result;
use crate::proto::FsckReport;
use crate::store::SlotRead;
use crate::types::{ChunkHash, ContentId, Inode, Revision, ShardTime};
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
