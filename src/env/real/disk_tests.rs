//! What only the operating system can show of `RealDisk`.

use crate::env::real::RealDisk;
use crate::env::{Disk, DiskFile, OpenMode, WRITE_ALIGN};
use bytes::Bytes;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

const MIB: u64 = 1 << 20;

fn disk() -> RealDisk {
    RealDisk::new(2, 1)
}

async fn create(disk: &RealDisk, path: &Path) -> Arc<dyn DiskFile> {
    disk.open(path, OpenMode::CreateNew).await.unwrap()
}

fn allocated(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().blocks() * 512
}

#[tokio::test]
async fn zeroed_ranges_are_allocated() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), disk());
    let path = dir.path().join("a");
    let file = create(&disk, &path).await;
    file.zero(0, 4 * MIB).await.unwrap();
    file.sync().await.unwrap();
    assert!(allocated(&path) >= 4 * MIB);
    assert_eq!(file.len().await.unwrap(), 4 * MIB);
}

#[tokio::test]
async fn files_and_directories_are_for_their_owner_alone() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), disk());
    let inner = dir.path().join("x/y");
    disk.create_dir(&inner).await.unwrap();
    create(&disk, &inner.join("a")).await;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&inner) & 0o077, 0);
    assert_eq!(mode(&inner.join("a")) & 0o077, 0);
}

/// Keeps the one thread for other work busy until the sender says something.
fn block(disk: &RealDisk) -> SyncSender<()> {
    let (go, wait) = sync_channel(1);
    disk.pools
        .disk
        .submit(Box::new(move || wait.recv().unwrap()));
    go
}

#[tokio::test]
async fn a_log_append_does_not_wait_behind_other_work() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), RealDisk::new(1, 1));
    let log = create(&disk, &dir.path().join("log")).await;
    let go = block(&disk);
    let entry = vec![Bytes::from_static(b"entry")];
    log.write_sync(0, entry).await.unwrap();
    let mut len = log.len();
    assert!(futures::poll!(&mut len).is_pending());
    go.send(()).unwrap();
    assert_eq!(len.await.unwrap(), 5);
}

#[tokio::test]
async fn a_dropped_future_does_not_stop_its_write() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), RealDisk::new(1, 1));
    let file = create(&disk, &dir.path().join("a")).await;
    let go = block(&disk);
    {
        let mut write = file.write_at(0, vec![Bytes::from(vec![7; 1 << 20])]);
        assert!(futures::poll!(&mut write).is_pending());
    }
    go.send(()).unwrap();
    // With one thread, this runs behind it.
    assert_eq!(file.len().await.unwrap(), MIB);
}

#[tokio::test]
async fn many_operations_at_once_all_end() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), disk());
    let file = create(&disk, &dir.path().join("a")).await;
    let writes = (0..2_000u64).map(|number| {
        let data = Bytes::from(number.to_le_bytes().to_vec());
        file.write_at(8 * number, vec![data])
    });
    futures::future::try_join_all(writes).await.unwrap();
    let all = file.read_at(0, 16_000).await.unwrap();
    for (number, bytes) in (0..2_000u64).zip(all.chunks(8)) {
        assert_eq!(bytes, number.to_le_bytes());
    }
}

/// Memory that begins at a block's border.
fn aligned(len: usize, fill: u8) -> Bytes {
    let memory = Bytes::from(vec![fill; len + WRITE_ALIGN]);
    let before = memory.as_ptr().align_offset(WRITE_ALIGN);
    memory.slice(before..before + len)
}

#[tokio::test]
async fn writes_past_memory_and_others_make_one_file() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), disk());
    let file = create(&disk, &dir.path().join("a")).await;
    let mut expected = Vec::new();
    let parts = [
        aligned(8 * WRITE_ALIGN, 1),
        aligned(WRITE_ALIGN, 2),
        aligned(8 * WRITE_ALIGN, 3).slice(1..WRITE_ALIGN + 1),
        aligned(WRITE_ALIGN + 5, 4),
        aligned(7, 5),
    ];
    for part in parts {
        let at = expected.len() as u64;
        expected.extend_from_slice(&part);
        file.write_behind(at, vec![part]).await.unwrap();
    }
    file.write_sync(expected.len() as u64, vec![Bytes::from_static(b"end")])
        .await
        .unwrap();
    expected.extend_from_slice(b"end");
    // In the middle, over what memory holds of it.
    let over = aligned(2 * WRITE_ALIGN, 6);
    let at = 3 * WRITE_ALIGN;
    expected[at..at + over.len()].copy_from_slice(&over);
    let two = vec![over.slice(..WRITE_ALIGN), over.slice(WRITE_ALIGN..)];
    file.write_behind(at as u64, two).await.unwrap();
    assert_eq!(file.read_at(0, 1 << 20).await.unwrap(), expected);
}
