//! Files of images on their way, in a directory of their own. Called by `machine` (cut) and by
//! what receives images. Nothing in it is needed after a restart.

use crate::env::{Disk, Env};
use crate::error::{Error, Result};
use crate::types::GroupId;
use std::path::{Path, PathBuf};

/// Makes the directory, and removes what an earlier start left in it.
pub(super) async fn clear(disk: &dyn Disk, dir: &Path) -> Result<()> {
    let failed = |verb: &'static str| move |e: std::io::Error| Error::io(verb, dir, &e);
    disk.create_dir(dir).await.map_err(failed("make"))?;
    for name in disk.list(dir).await.map_err(failed("list"))? {
        let left = dir.join(name);
        let removed = disk.remove(&left).await;
        removed.map_err(|e| Error::io("remove", &left, &e))?;
    }
    Ok(())
}

/// A name for a new file, which goes when this is dropped.
pub(super) struct SpoolFile {
    env: Env,
    path: PathBuf,
}

impl SpoolFile {
    pub(super) fn new(env: &Env, dir: &Path, group: GroupId) -> SpoolFile {
        let name = format!("{group}-{:016x}", env.rng.u64());
        SpoolFile {
            env: env.clone(),
            path: dir.join(name),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SpoolFile {
    fn drop(&mut self) {
        let (disk, path) = (self.env.disk.clone(), std::mem::take(&mut self.path));
        let remove = async move {
            // It may never have been made; what stays is removed at the next start.
            if let Err(error) = disk.remove(&path).await {
                tracing::debug!(path = %path.display(), %error, "a spooled image stays");
            }
        };
        self.env.spawn.spawn("image-spool", Box::pin(remove));
    }
}
