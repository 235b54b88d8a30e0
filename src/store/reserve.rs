//! Space given up in advance, so that deletes, folds and purging still work when the disk is
//! full: `DIR/reserve` is filled with zeros at the start and cut to nothing when a fold finds no
//! space. Used by `node`.

use crate::env::{Disk, OpenMode};
use crate::error::{Error, Result};
use crate::limits::MIB;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Enough for a fold of a full overlay with the pages it copies.
pub const RESERVE_BYTES: u64 = 256 * MIB;
/// Below this much free space new data is refused; deletes go on. Free space is looked at five
/// times a second: this is what a fast disk can take meanwhile, and the log's next segment.
pub const LOW_SPACE_BYTES: u64 = 768 * MIB;
/// Zeros are written in pieces of this size.
const STEP: u64 = 8 * MIB;

/// The file `DIR/reserve`.
pub struct Reserve {
    disk: Arc<dyn Disk>,
    path: PathBuf,
}

impl Reserve {
    pub fn new(disk: Arc<dyn Disk>, dir: &Path) -> Reserve {
        Reserve {
            disk,
            path: dir.join("reserve"),
        }
    }

    /// Fills the reserve up if there is plenty of space beside it. Called at the start and when
    /// space has returned; costs nothing when it is filled.
    pub async fn fill(&self) -> Result<()> {
        let failed = |e: std::io::Error| Error::io("fill", &self.path, &e);
        let exists = self.disk.exists(&self.path).await.map_err(failed)?;
        let mode = if exists {
            OpenMode::Write
        } else {
            OpenMode::CreateNew
        };
        let file = self.disk.open(&self.path, mode).await.map_err(failed)?;
        let mut at = file.len().await.map_err(failed)?;
        while at < RESERVE_BYTES {
            let parent = self.path.parent().unwrap_or(Path::new("/"));
            let space = self.disk.space(parent).await.map_err(failed)?;
            if space.available < 2 * LOW_SPACE_BYTES {
                return Ok(());
            }
            let step = STEP.min(RESERVE_BYTES - at);
            file.zero(at, step).await.map_err(failed)?;
            at += step;
        }
        Ok(())
    }

    /// Gives the reserved space back to the file system, for a fold that found none.
    pub async fn release(&self) -> Result<()> {
        let failed = |e: std::io::Error| Error::io("cut", &self.path, &e);
        if !self.disk.exists(&self.path).await.map_err(failed)? {
            return Ok(());
        }
        let file = self
            .disk
            .open(&self.path, OpenMode::Write)
            .await
            .map_err(failed)?;
        file.set_len(0).await.map_err(failed)
    }
}
