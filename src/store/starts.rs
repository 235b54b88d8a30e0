//! Counts the starts on a data directory, so that an old copy of it, or a clone, is noticed:
//! whoever has seen a higher number of this node refuses it. Used by `node` at its start.
//!
//! `DIR/starts`: number u64 little-endian, CRC32C of it u32. Replaced by rename.

use crate::env::{Disk, OpenMode};
use crate::error::{Error, Result};
use bytes::Bytes;
use std::path::Path;

/// Counts one more start, durably, and returns its number; the first is 1.
///
/// # Errors
/// `corrupt` when the stored number is damaged.
pub async fn next(disk: &dyn Disk, dir: &Path) -> Result<u64> {
    let path = dir.join("starts");
    let number = read(disk, &path)
        .await?
        .checked_add(1)
        .ok_or_else(|| damaged(&path))?;
    let temporary = dir.join("starts.new");
    let io = |verb: &'static str| {
        let path = path.clone();
        move |e: std::io::Error| Error::io(verb, &path, &e)
    };
    if disk.exists(&temporary).await.map_err(io("find"))? {
        disk.remove(&temporary).await.map_err(io("remove"))?;
    }
    let file = disk
        .open(&temporary, OpenMode::CreateNew)
        .await
        .map_err(io("create"))?;
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.extend_from_slice(&crc32c::crc32c(&number.to_le_bytes()).to_le_bytes());
    file.write_sync(0, vec![Bytes::from(bytes)])
        .await
        .map_err(io("write"))?;
    disk.rename(&temporary, &path)
        .await
        .map_err(io("replace"))?;
    disk.sync_dir(dir).await.map_err(io("sync"))?;
    Ok(number)
}

async fn read(disk: &dyn Disk, path: &Path) -> Result<u64> {
    let io = |e: std::io::Error| Error::io("read", path, &e);
    if !disk.exists(path).await.map_err(io)? {
        return Ok(0);
    }
    let file = disk.open(path, OpenMode::Read).await.map_err(io)?;
    let bytes = file.read_at(0, 16).await.map_err(io)?;
    let (number, sum) = bytes.split_at_checked(8).ok_or_else(|| damaged(path))?;
    if sum != crc32c::crc32c(number).to_le_bytes() {
        return Err(damaged(path));
    }
    Ok(u64::from_le_bytes(number.try_into().expect("split at 8")))
}

fn damaged(path: &Path) -> Error {
    Error::corrupt("the count of starts is damaged (checksum)")
        .at(path.display())
        .hint("start from a backup of the data directory, or join the node anew")
}
