//! Opening: compares the directories of chunk files with the index. A file is known by its name
//! alone if the index has it; only files that it does not know are opened. A file that has its name
//! was synced before; the name itself may not have been.

use super::core::Core;
use super::index::{Location, Update};
use super::recovery::{Recovered, recover_packs, relieve};
use crate::env::OpenMode;
use crate::error::{Error, Result};
use crate::types::ChunkHash;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};

/// Rows of the index read at once.
const PAGE: usize = 4_096;

/// Makes the directories and removes what an earlier run was writing.
pub(super) async fn prepare(core: &Core) -> Result<()> {
    let disk = &core.env.disk;
    let (large, packs) = (core.large.dir(), core.packs.dir());
    let temporary = core.large.temporary_dir();
    for dir in [large, &temporary, packs] {
        let made = disk.create_dir(dir).await;
        made.map_err(|e| core.guard.failed_write("create directory", dir, &e))?;
    }
    // Names that an earlier process made and did not sync before it ended.
    for dir in [large, packs] {
        sync_dir(core, dir).await?;
    }
    for name in names(core, &temporary).await? {
        let path = temporary.join(name);
        let removed = disk.remove(&path).await;
        removed.map_err(|e| {
            core.guard
                .failed_write("remove unfinished chunk", &path, &e)
        })?;
    }
    Ok(())
}

/// Brings the index up to date. Reads all of its rows.
pub(super) async fn recover(core: &Core, out: &mut Recovered) -> Result<()> {
    recover_packs(core, out).await?;
    survey_files(core, out).await
}

/// Takes unknown chunk files in and forgets those that are gone.
async fn survey_files(core: &Core, out: &mut Recovered) -> Result<()> {
    let dirs: BTreeSet<PathBuf> = names(core, core.large.dir()).await?.into_iter().collect();
    let mut rows = Rows::new();
    for prefix in 0..=u8::MAX {
        let dir = core.large.prefix_dir(prefix);
        let mut known = rows.files_of(core, prefix).await?;
        let there = dir
            .file_name()
            .is_some_and(|name| dirs.contains(Path::new(name)));
        let names = match there {
            true => names(core, &dir).await?,
            false => Vec::new(),
        };
        let mut unknown = Vec::new();
        for name in names {
            let text = name.to_str().map(|rest| format!("{prefix:02x}{rest}"));
            let Some(hash) = text.as_deref().and_then(ChunkHash::parse) else {
                let path = dir.join(name);
                out.report(format!("{}: not a file of this store", path.display()));
                continue;
            };
            if known.remove(&hash).is_none() {
                unknown.push(hash);
            }
        }
        if !unknown.is_empty() {
            // Before anybody is told that they are here.
            sync_dir(core, &dir).await?;
        }
        for hash in unknown {
            take_in(core, hash, out).await?;
        }
        // Removed just before the process ended, or lost: who references them can tell.
        core.index.apply(Update {
            chunks: known
                .into_iter()
                .map(|(hash, location)| (hash, Some(location), None))
                .collect(),
            packs: Vec::new(),
        });
        relieve(core).await?;
    }
    Ok(())
}

async fn sync_dir(core: &Core, dir: &Path) -> Result<()> {
    let synced = core.env.disk.sync_dir(dir).await;
    synced.map_err(|e| core.guard.failed_write("sync directory", dir, &e))
}

/// File names in a directory; none if it does not exist.
async fn names(core: &Core, dir: &Path) -> Result<Vec<PathBuf>> {
    match core.env.disk.list(dir).await {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(Error::io("list directory", dir, &e)),
        Ok(names) => Ok(names
            .iter()
            .filter_map(|name| name.file_name().map(PathBuf::from))
            .collect()),
    }
}

/// Reads the index once from end to end, prefix by prefix.
struct Rows {
    page: VecDeque<(ChunkHash, Location)>,
    /// Where the next page begins; `None`: there is none.
    next: Option<ChunkHash>,
}

impl Rows {
    fn new() -> Self {
        Rows {
            page: VecDeque::new(),
            next: Some(ChunkHash([0; 32])),
        }
    }

    /// Files that the index knows of a prefix. Prefixes are asked for in order.
    async fn files_of(&mut self, core: &Core, prefix: u8) -> Result<BTreeMap<ChunkHash, Location>> {
        let mut files = BTreeMap::new();
        loop {
            while let Some((hash, location)) = self.page.pop_front() {
                if hash.0[0] > prefix {
                    self.page.push_front((hash, location));
                    return Ok(files);
                }
                if matches!(location, Location::File { .. }) {
                    files.insert(hash, location);
                }
            }
            let Some(from) = self.next else {
                return Ok(files);
            };
            self.page = core.index.list(from, None, PAGE).await?.into();
            let last = self.page.back().filter(|_| self.page.len() >= PAGE);
            self.next = last.and_then(|(hash, _)| super::after(*hash));
        }
    }
}

async fn take_in(core: &Core, hash: ChunkHash, out: &mut Recovered) -> Result<()> {
    let path = core.large.path(hash);
    let opened = core.env.disk.open(&path, OpenMode::Read).await;
    let file = opened.map_err(|e| Error::io("open chunk", &path, &e))?;
    let footer = core.large.footer(file.as_ref()).await;
    let Some(footer) = footer.filter(|footer| footer.hash == hash) else {
        let path = path.display();
        out.report(format!(
            "{path} at its end: the footer is damaged; the copy is not used"
        ));
        return Ok(());
    };
    if let Some(Location::Pack { .. }) = core.index.get(hash).await? {
        let path = path.display();
        out.report(format!("{path}: a second copy of a packed chunk; not used"));
        return Ok(());
    }
    core.index.apply(Update {
        chunks: vec![(hash, None, Some(Location::File { len: footer.len }))],
        packs: Vec::new(),
    });
    Ok(())
}
