//! How far scrubbing is, across starts. Used by `node`, which scrubs.
//!
//! `DIR/scrubbed`: milliseconds u64, under way u8 (0 or 1), hash (32 bytes), all little-endian, CRC32C
//! of these u32. Replaced by rename.
//!
//! Time is what the processes on the directory have run, by their monotonic clocks: no wall clock is
//! compared.

use crate::env::{Disk, OpenMode};
use crate::error::{Error, Result};
use crate::store::replace::replace;
use crate::types::ChunkHash;
use std::path::Path;

const NAME: &str = "scrubbed";
const BYTES: usize = 8 + 1 + 32 + 4;

/// How far scrubbing is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// For how long processes have run here since the last whole run ended, milliseconds.
    pub since_ms: u64,
    /// The first chunk that the run under way has not verified; `None`: none is under way.
    pub at: Option<ChunkHash>,
}

/// What an earlier life noted; the beginning if there is nothing or it is damaged.
///
/// # Errors
/// What the disk says.
pub async fn read(disk: &dyn Disk, dir: &Path) -> Result<Scrubbed> {
    let path = dir.join(NAME);
    let io = |e: std::io::Error| Error::io("read", &path, &e);
    if !disk.exists(&path).await.map_err(io)? {
        return Ok(Scrubbed::default());
    }
    let file = disk.open(&path, OpenMode::Read).await.map_err(io)?;
    let bytes = file.read_at(0, BYTES).await.map_err(io)?;
    let noted = decoded(&bytes);
    if noted.is_none() {
        tracing::warn!(path = %path.display(), "damaged (checksum); scrubbing begins anew");
    }
    Ok(noted.unwrap_or_default())
}

/// Durable when it returns.
pub async fn write(disk: &dyn Disk, dir: &Path, now: Scrubbed) -> Result<()> {
    replace(disk, &dir.join(NAME), encoded(now).into()).await
}

fn encoded(now: Scrubbed) -> Vec<u8> {
    let mut bytes = now.since_ms.to_le_bytes().to_vec();
    bytes.push(u8::from(now.at.is_some()));
    bytes.extend_from_slice(&now.at.map_or([0; 32], |hash| hash.0));
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    bytes
}

fn decoded(bytes: &[u8]) -> Option<Scrubbed> {
    let (body, sum) = bytes.split_at_checked(BYTES - 4)?;
    if sum != crc32c::crc32c(body).to_le_bytes() {
        return None;
    }
    let (since, rest) = body.split_first_chunk::<8>()?;
    let (under_way, hash) = rest.split_first()?;
    let hash = ChunkHash(hash.try_into().ok()?);
    Some(Scrubbed {
        since_ms: u64::from_le_bytes(*since),
        at: (*under_way == 1).then_some(hash),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_read_and_damage_is_seen() {
        let at = Some(ChunkHash([7; 32]));
        for now in [
            Scrubbed::default(),
            Scrubbed {
                since_ms: 1 << 40,
                at,
            },
        ] {
            let bytes = encoded(now);
            assert_eq!(decoded(&bytes), Some(now));
            for place in 0..bytes.len() {
                let mut bad = bytes.clone();
                bad[place] ^= 4;
                assert_eq!(decoded(&bad), None, "at {place}");
                assert_eq!(decoded(&bytes[..place]), None, "cut at {place}");
            }
        }
    }
}
