//! Re-verification of stored chunks: of one (scrubbing), of all (`fsck`). Read-only.

use super::core::{Core, Found};
use super::damage::Damage;
use super::index::Location;
use super::recovery::PROBLEMS_MAX;
use crate::error::{Code, Result};
use crate::types::ChunkHash;
use std::sync::Arc;

/// Chunks listed at once.
const PAGE: usize = 1_024;

/// What a check of a part of the store found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChunkPart {
    /// Chunks checked.
    pub chunks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Damaged or missing copies, each with file and offset; at most 10,000, then one line that
    /// says how many more.
    pub problems: Vec<String>,
    /// The first chunk that was not looked at; `None`: that was all.
    pub next: Option<ChunkHash>,
}

/// Verifies one chunk's data and outboard as they are on disk now; its length.
pub(super) async fn verify(core: &Arc<Core>, hash: ChunkHash) -> Result<u64> {
    if let Some(Location::File { len }) = core.index.get(hash).await? {
        // What is open already was verified before; the disk is asked again.
        core.large.forget(hash);
        if let Ok(chunk) = core.large.open_fresh(hash, len).await
            && chunk.outboard_damaged
        {
            let damage = Damage {
                path: chunk.path,
                offset: len,
                why: "its outboard is damaged, its data are whole".to_string(),
            };
            return Err(core.damaged(hash, damage));
        }
    }
    let found = core.find(hash).await?;
    let len = found.len();
    if let Found::Large(_) = found {
        let slice = core.options.slice_bytes;
        let mut at = 0;
        while at < len {
            let end = at.saturating_add(slice).min(len);
            core.read_found(hash, &found, at..end).await?;
            at = end;
        }
    }
    Ok(len)
}

/// Length of a chunk that is here by the index, and as far as it is looked at, on disk; `None`:
/// it must be written (again).
pub(super) async fn confirm(
    core: &Arc<Core>,
    hash: ChunkHash,
    read_small: bool,
) -> Result<Option<u64>> {
    let Some(location) = core.usable(hash).await? else {
        return Ok(None);
    };
    let sound = match location {
        Location::Pack { .. } if !read_small => true,
        Location::Pack { .. } => match core.find(hash).await {
            Ok(_) => true,
            Err(error) if matches!(error.code, Code::Corrupt | Code::NotFound) => false,
            Err(error) => return Err(error),
        },
        Location::File { len } => match core.large.looks_whole(hash, len).await? {
            Some(whole) => whole,
            None => {
                core.large.settled(hash).await;
                if core.index.get(hash).await? == Some(location) {
                    core.damaged(hash, core.missing(hash, location));
                }
                false
            }
        },
    };
    Ok(sound.then_some(location.len()))
}

/// Verifies chunks from one on until so many bytes were read.
pub(super) async fn verify_from(
    core: &Arc<Core>,
    from: ChunkHash,
    bytes_max: u64,
) -> Result<ChunkPart> {
    let mut part = ChunkPart::default();
    let mut unnamed = 0u64;
    let mut from = Some(from);
    'pages: while let Some(start) = from {
        let page = core.index.list(start, None, PAGE).await?;
        let last = page.last().filter(|_| page.len() >= PAGE);
        from = last.and_then(|(hash, _)| super::after(*hash));
        for (hash, location) in page {
            if part.bytes >= bytes_max {
                part.next = Some(hash);
                break 'pages;
            }
            match verify(core, hash).await {
                // Removed since it was listed.
                Err(error) if error.code == Code::NotFound => continue,
                Err(error) if part.problems.len() < PROBLEMS_MAX => {
                    part.problems.push(error.to_string());
                }
                Err(_) => unnamed += 1,
                Ok(_) => {}
            }
            part.chunks += 1;
            part.bytes = part.bytes.saturating_add(location.len());
        }
    }
    if unnamed > 0 {
        part.problems.push(format!("and {unnamed} more"));
    }
    Ok(part)
}
