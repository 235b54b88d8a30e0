//! Counts the lives of a data directory, so that an old copy of it, or a clone, is noticed:
//! whoever has seen a higher number of this node, or another nonce under the same one, refuses it.
//! Used by `node` at its start.
//!
//! `DIR/starts`: number u64, nonce u64, confirmed u8 (0 or 1), all little-endian, CRC32C of these
//! u32. Replaced by rename.
//!
//! A life counts once the cluster has confirmed it: until then further starts on the directory go
//! on under the same number and nonce. If each start counted, an old copy that is started again and
//! again (by a service manager, say) would reach a number nobody has seen.

use crate::env::{Disk, OpenMode};
use crate::error::{Error, Result};
use crate::store::replace::replace;
use std::path::Path;

const BYTES: usize = 8 + 8 + 1 + 4;
/// Of a file that has a number only: each start counted then.
const BYTES_BEFORE: usize = 8 + 4;

/// One life of a data directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// The first is 1.
    pub number: u64,
    /// Drawn once for the number.
    pub nonce: u64,
    /// The cluster knows of it.
    pub confirmed: bool,
}

/// The life that begins now, durably noted: the next one after a confirmed one, else the same once
/// more. `nonce` is for a new one.
///
/// # Errors
/// `corrupt` when what is stored is damaged.
pub async fn begin(disk: &dyn Disk, dir: &Path, nonce: u64) -> Result<Start> {
    let path = dir.join("starts");
    let last = read(disk, &path).await?;
    if last.number > 0 && !last.confirmed {
        return Ok(last);
    }
    let start = Start {
        number: last.number.checked_add(1).ok_or_else(|| damaged(&path))?,
        nonce,
        confirmed: false,
    };
    write(disk, dir, start).await?;
    Ok(start)
}

/// The cluster has confirmed the life that is noted: the next start is another one.
///
/// # Errors
/// `corrupt` when what is stored is damaged.
pub async fn confirm(disk: &dyn Disk, dir: &Path) -> Result<()> {
    let last = read(disk, &dir.join("starts")).await?;
    if last.confirmed {
        return Ok(());
    }
    let start = Start {
        confirmed: true,
        ..last
    };
    write(disk, dir, start).await
}

async fn write(disk: &dyn Disk, dir: &Path, start: Start) -> Result<()> {
    replace(disk, &dir.join("starts"), encoded(start).into()).await
}

fn encoded(start: Start) -> Vec<u8> {
    let mut bytes = start.number.to_le_bytes().to_vec();
    bytes.extend_from_slice(&start.nonce.to_le_bytes());
    bytes.push(u8::from(start.confirmed));
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    bytes
}

async fn read(disk: &dyn Disk, path: &Path) -> Result<Start> {
    let io = |e: std::io::Error| Error::io("read", path, &e);
    if !disk.exists(path).await.map_err(io)? {
        return Ok(Start::default());
    }
    let file = disk.open(path, OpenMode::Read).await.map_err(io)?;
    let bytes = file.read_at(0, BYTES).await.map_err(io)?;
    decoded(&bytes).ok_or_else(|| damaged(path))
}

fn decoded(bytes: &[u8]) -> Option<Start> {
    let (body, sum) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
    if sum != crc32c::crc32c(body).to_le_bytes() {
        return None;
    }
    let word = |at: usize| Some(u64::from_le_bytes(body.get(at..at + 8)?.try_into().ok()?));
    let number = word(0)?;
    match bytes.len() {
        BYTES_BEFORE => Some(Start {
            number,
            nonce: 0,
            confirmed: true,
        }),
        BYTES => Some(Start {
            number,
            nonce: word(8)?,
            confirmed: body[16] == 1,
        }),
        _ => None,
    }
}

fn damaged(path: &Path) -> Error {
    Error::corrupt("the count of starts is damaged (checksum)")
        .at(path.display())
        .hint("start from a backup of the data directory, or join the node anew")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::real;

    #[tokio::test]
    async fn a_life_that_nobody_confirmed_goes_on_under_its_number() {
        let (dir, env) = (
            tempfile::tempdir().unwrap(),
            real::env(tokio::runtime::Handle::current()),
        );
        let begin = |nonce| {
            let (disk, dir) = (env.disk.clone(), dir.path().to_owned());
            async move { begin(&*disk, &dir, nonce).await.unwrap() }
        };
        let first = begin(7).await;
        assert_eq!((first.number, first.nonce), (1, 7));
        assert_eq!(begin(8).await, first);
        confirm(&*env.disk, dir.path()).await.unwrap();
        let second = begin(9).await;
        assert_eq!((second.number, second.nonce), (2, 9));
        assert_eq!(begin(10).await, second);
    }

    #[test]
    fn damage_is_seen() {
        let start = Start {
            number: 3,
            nonce: 4,
            confirmed: true,
        };
        let bytes = encoded(start);
        assert_eq!(decoded(&bytes), Some(start));
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 4;
            assert_eq!(decoded(&bad), None, "at {at}");
            assert_eq!(decoded(&bytes[..at]), None, "cut at {at}");
        }
    }
}
