//! A copy of the log's salt beside its segments: without the salt no record can be told from
//! other bytes, and the segments' headers, which have it too, lie in one sector each. Called by
//! `recover`.
//!
//! `log/salt`: "dfs-salt", salt u64, CRC32C of these u32; little-endian.

use super::segment;
use crate::env::{Disk, OpenMode};
use crate::error::{Code, Error, Result};
use crate::store::replace::replace;
use std::io;
use std::path::Path;

const NAME: &str = "salt";
const MAGIC: [u8; 8] = *b"dfs-salt";
const BYTES: usize = 8 + 8 + 4;

/// The copy; `None` if there is none, or it is damaged or cannot be read: the headers may do.
pub(super) async fn read(disk: &dyn Disk, dir: &Path) -> Result<Option<u64>> {
    let path = dir.join(NAME);
    let looked = disk.exists(&path).await;
    if !looked.map_err(|e| Error::io("look for", &path, &e))? {
        return Ok(None);
    }
    match read_bytes(disk, &path).await.map(|bytes| decode(&bytes)) {
        Ok(Some(salt)) => Ok(Some(salt)),
        Ok(None) => {
            tracing::warn!(path = %path.display(), "the copy of the log's salt is damaged");
            Ok(None)
        }
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the copy of the log's salt is unreadable");
            Ok(None)
        }
    }
}

async fn read_bytes(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open(path, OpenMode::Read).await?;
    Ok(file.read_at(0, BYTES).await?.to_vec())
}

/// Makes the copy, or makes it again.
pub(super) async fn write(disk: &dyn Disk, dir: &Path, salt: u64) -> Result<()> {
    replace(disk, &dir.join(NAME), encode(salt).into()).await
}

/// The log's salt, from its segments' headers (`None`: damaged) and the copy. `None`: nothing of
/// a log is there.
///
/// # Errors
/// `corrupt` if neither has it, if they are of different logs, and if there is a copy but no
/// segment.
pub(super) fn judge(
    dir: &Path,
    headers: &[(u64, Option<u64>)],
    copy: Option<u64>,
) -> Result<Option<u64>> {
    let Some(salt) = headers.iter().find_map(|(_, salt)| *salt).or(copy) else {
        return match headers.is_empty() {
            true => Ok(None),
            false => Err(unreadable(dir, headers.len())),
        };
    };
    if headers.is_empty() {
        return Err(corrupt("all segments of the log are missing", dir));
    }
    let is_foreign = |(_, found): &&(u64, Option<u64>)| found.is_some_and(|found| found != salt);
    if let Some((number, _)) = headers.iter().find(is_foreign) {
        let what = "this segment is another log's (the file was copied here)";
        return Err(corrupt(what, &segment::path(dir, *number)));
    }
    if copy.is_some_and(|copy| copy != salt) {
        let what = "the salt is another log's (the file or the segments were copied here)";
        return Err(corrupt(what, &dir.join(NAME)));
    }
    Ok(Some(salt))
}

fn corrupt(what: &str, path: &Path) -> Error {
    Error::corrupt(what)
        .at(path.display())
        .hint("put the log's directory back as it was, or replace this node: remove it from the cluster and join with an empty directory")
}

fn unreadable(dir: &Path, segments: usize) -> Error {
    let what = format!(
        "the log cannot be read (the headers of all {segments} segments and the copy of the salt are damaged)"
    );
    Error::new(Code::Corrupt, what)
        .at(dir.display())
        .hint("replace this node: remove it from the cluster and join with an empty directory")
}

fn encode(salt: u64) -> Vec<u8> {
    let mut bytes = [MAGIC, salt.to_le_bytes()].concat();
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<u64> {
    let (body, sum) = bytes.split_at_checked(BYTES - 4)?;
    let salt = body.strip_prefix(&MAGIC)?.try_into().ok()?;
    (sum == crc32c::crc32c(body).to_le_bytes()).then(|| u64::from_le_bytes(salt))
}
