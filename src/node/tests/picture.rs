//! What a user can see of a node's shard, to compare it; and that all of it can be read.

use super::Life;
use crate::error::Result;
use crate::proto::EntryView;
use crate::shard::read::{self, ListQuery, Listing};
use crate::store::SlotRead;
use crate::types::{ChunkHash, Content, ContentId, DfsPath, FileAttrs, GroupId, Inode, Revision};
use std::collections::{BTreeMap, BTreeSet};

/// The tree with all versions, without times, totals and numbers of contents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Picture {
    pub entries: BTreeMap<String, String>,
    pub revision: Revision,
}

impl Picture {
    pub fn of(view: &dyn SlotRead) -> Picture {
        let mut picture = Picture {
            entries: BTreeMap::new(),
            revision: read::header(view).unwrap().revision,
        };
        let mut todo = vec![DfsPath::root()];
        while let Some(path) = todo.pop() {
            let text = match read::stat(view, &path).unwrap() {
                EntryView::Dir(dir) => {
                    todo.extend(names(view, &path));
                    format!("dir {:o} {}", dir.mode, dir.owner)
                }
                EntryView::File(_) => {
                    let versions = read::versions(view, &path).unwrap();
                    let all: Vec<String> = versions
                        .iter()
                        .map(|version| described(&version.attrs))
                        .collect();
                    all.join("; ")
                }
                EntryView::Bare { .. } => unreachable!("attributes were asked for"),
            };
            picture.entries.insert(path.to_string(), text);
        }
        picture
    }

    /// Each path is as in one of the two, and the revision lies between theirs.
    pub fn is_between(&self, before: &Picture, after: &Picture) -> bool {
        let all: BTreeSet<&String> = [self, before, after]
            .iter()
            .flat_map(|p| p.entries.keys())
            .collect();
        let known = |path: &String| {
            let now = self.entries.get(path);
            now == before.entries.get(path) || now == after.entries.get(path)
        };
        all.into_iter().all(known) && (before.revision..=after.revision).contains(&self.revision)
    }
}

fn names(view: &dyn SlotRead, path: &DfsPath) -> Vec<DfsPath> {
    let query = ListQuery {
        after: None,
        limit: 0,
        attrs: false,
        known: None,
    };
    match read::list(view, path, &query).unwrap() {
        Listing::Page { entries, .. } => entries
            .iter()
            .map(|(name, _)| path.join(name).unwrap())
            .collect(),
        Listing::NotModified => unreachable!("no version was given"),
    }
}

fn described(attrs: &FileAttrs) -> String {
    let content = match attrs.content {
        Content::Empty => "empty".to_owned(),
        Content::Inline { .. } => "inline".to_owned(),
        Content::Chunks { pages, .. } => format!("{pages} pages"),
    };
    let FileAttrs {
        version,
        size,
        hash,
        mode,
        owner,
        ..
    } = attrs;
    format!("v{version} {size} {hash} {mode:o} {owner} {content}")
}

/// The next numbers to be given: they never go back.
pub fn next_numbers(view: &dyn SlotRead) -> Result<(Inode, ContentId)> {
    let header = read::header(view)?;
    Ok((header.next_inode, header.next_content))
}

/// Every byte of every version of every file is there: each chunk is verified, files of one
/// piece as a whole too. Records, references and packs are checked.
pub async fn all_is_readable(life: &Life, what: &str) {
    let node = &life.node;
    let report = node.fsck(DfsPath::root(), true).await.unwrap();
    assert_eq!(report.problems, Vec::<String>::new(), "{what}");
    let wanted = wanted(
        &node
            .groups
            .shard(GroupId::FIRST)
            .unwrap()
            .machine
            .view()
            .unwrap(),
        what,
    );
    for (hash, len) in wanted {
        let bytes = node.chunks.read(hash, 0, u64::from(len)).await;
        assert_eq!(ChunkHash::of(&bytes.unwrap()), hash, "{what}");
    }
}

/// The chunks of all versions; looks at the inline ones.
fn wanted(view: &dyn SlotRead, what: &str) -> BTreeSet<(ChunkHash, u32)> {
    let mut wanted = BTreeSet::new();
    let mut todo = vec![DfsPath::root()];
    while let Some(path) = todo.pop() {
        if matches!(read::stat(view, &path).unwrap(), EntryView::Dir(_)) {
            todo.extend(names(view, &path));
            continue;
        }
        for version in read::versions(view, &path).unwrap() {
            let attrs = version.attrs;
            let pages = match attrs.content {
                Content::Chunks { pages, .. } => pages,
                Content::Inline { .. } | Content::Empty => 1,
            };
            let mut size = 0;
            for page in 0..pages {
                let found = read::resolve(view, &path, Some(attrs.version), page, None).unwrap();
                if let Some(inline) = found.inline {
                    assert_eq!(ChunkHash::of(&inline), attrs.hash, "{what}: {path}");
                    size += inline.len() as u64;
                }
                size += found
                    .chunks
                    .iter()
                    .map(|chunk| u64::from(chunk.len))
                    .sum::<u64>();
                wanted.extend(found.chunks.iter().map(|chunk| (chunk.hash, chunk.len)));
            }
            assert_eq!(size, attrs.size, "{what}: {path}");
        }
    }
    wanted
}
