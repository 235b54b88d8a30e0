//! Writes again what a start reads and nobody is known to have synced, before anything is built on
//! it. Called by the log and the chunk store when they open.
//!
//! What a file gives back need not be on the disk. A process that was killed may have left it in
//! the system's memory, where a sync would bring it to the disk. But when a sync has failed, Linux
//! takes the pages for clean: they go on being read, no later sync writes them, and a power cut
//! takes them away. Nothing tells the two apart after a restart. Bytes that are written again are
//! not clean any more, whatever they were; then the sync that follows means what it says.

use crate::env::DiskFile;
use std::io;
use std::ops::Range;

/// Bytes read and written at once.
const STEP: u64 = 1 << 20;
/// Where a step cannot be read, its parts of this size are tried one by one.
const PAGE: u64 = 4_096;

/// Writes the bytes of a range again, as they are read, and syncs the file. What cannot be read is
/// left as it is: nobody builds on it.
///
/// # Errors
/// Of a write or of the sync; nothing of the range may be relied on then.
pub(super) async fn renew(file: &dyn DiskFile, range: Range<u64>) -> io::Result<()> {
    let mut at = range.start;
    while at < range.end {
        let end = range.end.min(at.saturating_add(STEP));
        if !copy(file, at..end).await? {
            copy_readable(file, at..end).await?;
        }
        at = end;
    }
    file.sync().await
}

/// False if the range cannot be read.
async fn copy(file: &dyn DiskFile, range: Range<u64>) -> io::Result<bool> {
    // At most a step, so it fits.
    let len = (range.end - range.start) as usize;
    let Ok(bytes) = file.read_at(range.start, len).await else {
        return Ok(false);
    };
    if !bytes.is_empty() {
        file.write_at(range.start, vec![bytes]).await?;
    }
    Ok(true)
}

async fn copy_readable(file: &dyn DiskFile, range: Range<u64>) -> io::Result<()> {
    let mut at = range.start;
    while at < range.end {
        let end = range.end.min(at.saturating_add(PAGE));
        copy(file, at..end).await?;
        at = end;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::sim::{Fault, OpKind, SimDisk};
    use crate::env::{Disk, OpenMode};
    use bytes::Bytes;
    use std::path::Path;

    fn sample(len: usize) -> Bytes {
        (0..len).map(|i| (i % 251) as u8).collect()
    }

    #[tokio::test]
    async fn what_a_failed_sync_left_is_durable_when_it_was_written_again() {
        let (path, len) = (Path::new("/a"), 3 << 20);
        for seed in 0..20 {
            let disk = SimDisk::new(seed);
            let file = disk.open(path, OpenMode::CreateNew).await.unwrap();
            disk.sync_dir(Path::new("/")).await.unwrap();
            disk.add_fault(Fault::once(OpKind::Sync, "a"));
            file.write_sync(0, vec![sample(len)]).await.unwrap_err();
            let disk = disk.kill();
            let file = disk.open(path, OpenMode::Write).await.unwrap();
            renew(file.as_ref(), 0..len as u64).await.unwrap();
            assert_eq!(disk.crash().contents(path), Some(sample(len)));
        }
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_left_and_the_rest_is_written() {
        let path = Path::new("/a");
        let disk = SimDisk::new(1);
        let file = disk.open(path, OpenMode::CreateNew).await.unwrap();
        file.write_at(0, vec![sample(20_000)]).await.unwrap();
        // The whole, then the first page.
        disk.add_fault(Fault {
            times: 2,
            ..Fault::once(OpKind::Read, "a")
        });
        let before = disk.count(OpKind::Write);
        renew(file.as_ref(), 0..20_000).await.unwrap();
        assert_eq!(disk.count(OpKind::Write) - before, 4);
        assert_eq!(disk.contents(path), Some(sample(20_000)));
    }

    #[tokio::test]
    async fn a_sync_that_fails_again_is_told() {
        let disk = SimDisk::new(1);
        let file = disk
            .open(Path::new("/a"), OpenMode::CreateNew)
            .await
            .unwrap();
        disk.add_fault(Fault::once(OpKind::Sync, "a"));
        renew(file.as_ref(), 0..0).await.unwrap_err();
    }
}
