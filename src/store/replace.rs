//! Replaces a small file as a whole: whoever reads it finds the old bytes or the new ones.
//! Used for the files of a data directory that are no log, pack or database.

use crate::env::{Disk, OpenMode};
use crate::error::{Error, Result};
use bytes::Bytes;
use std::path::Path;

/// Durable when it returns. The bytes are written beside the file, under the extension `new`; a
/// file of that name that an earlier life left is removed.
///
/// # Errors
/// Any of the disk's. The old file is then still there, or the new one is, durable or not.
pub async fn replace(disk: &dyn Disk, path: &Path, bytes: Bytes) -> Result<()> {
    let temporary = path.with_extension("new");
    let failed = |verb: &'static str| {
        let temporary = &temporary;
        move |e: std::io::Error| Error::io(verb, temporary, &e)
    };
    let exists = disk.exists(&temporary).await;
    if exists.map_err(failed("look for"))? {
        let removed = disk.remove(&temporary).await;
        removed.map_err(failed("remove"))?;
    }
    let opened = disk.open(&temporary, OpenMode::CreateNew).await;
    let file = opened.map_err(failed("create"))?;
    let written = file.write_sync(0, vec![bytes]).await;
    written.map_err(failed("write"))?;
    let renamed = disk.rename(&temporary, path).await;
    renamed.map_err(failed("rename"))?;
    let dir = path.parent().unwrap_or(Path::new("."));
    disk.sync_dir(dir).await.map_err(failed("sync"))
}
