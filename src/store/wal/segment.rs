//! Files of the log: their names, the spare one that is prepared ahead, and reading a record.
//! Called by `writer` and `recover`; decides nothing.

use super::LogPosition;
use super::format::{BLOCK, RecordHeader};
use crate::env::{Disk, DiskFile, Env, OpenMode};
use crate::types::GroupId;
use bytes::Bytes;
use parking_lot::Mutex;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Notify;

/// Zeros written and synced at once, so that preparing a segment does not hold up the log's own
/// syncs for long.
const ZERO_STEP: u64 = 4 << 20;

const SUFFIX: &str = "wal";

/// Name of a segment's file.
pub(super) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:016x}.{SUFFIX}"))
}

/// The segment's number, if it is the name of one.
pub(super) fn number(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    let digits = name.strip_suffix(SUFFIX)?.strip_suffix('.')?;
    (digits.len() == 16)
        .then(|| u64::from_str_radix(digits, 16).ok())
        .flatten()
}

/// True for the name of a file that was to become a segment.
pub(super) fn is_spare(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.starts_with(SPARE))
}

const SPARE: &str = "spare-";

/// A file without a place in the log, under a spare's name.
pub(super) type SpareFile = (PathBuf, Arc<dyn DiskFile>);

#[derive(Default)]
enum Stage {
    #[default]
    Missing,
    Preparing,
    Ready(SpareFile),
}

/// The file that becomes the next segment: zeroed and synced in the background, so that a switch
/// costs one small write, and later writes there allocate nothing.
#[derive(Default)]
pub(super) struct Spare {
    stage: Mutex<Stage>,
    changed: Notify,
    /// An old segment's file, renamed durably, to be used for the one after.
    kept: Mutex<Option<SpareFile>>,
    names: AtomicU64,
}

impl Spare {
    /// A name that no other spare file has.
    pub fn path(&self, dir: &Path) -> PathBuf {
        let number = self.names.fetch_add(1, Ordering::Relaxed);
        dir.join(format!("{SPARE}{number:x}"))
    }

    /// True if an old segment's file would be of use.
    pub fn wants_file(&self) -> bool {
        self.kept.lock().is_none()
    }

    /// Takes an old segment's file; its new name must be durable.
    pub fn keep(&self, file: SpareFile) {
        *self.kept.lock() = Some(file);
    }

    fn is_missing(&self) -> bool {
        matches!(*self.stage.lock(), Stage::Missing)
    }

    /// Waits until none is being made.
    pub async fn settle(&self) {
        while matches!(*self.stage.lock(), Stage::Preparing) {
            self.changed.notified().await;
        }
    }

    fn take_ready(&self) -> Option<SpareFile> {
        let mut stage = self.stage.lock();
        match std::mem::take(&mut *stage) {
            Stage::Ready(file) => Some(file),
            other => {
                *stage = other;
                None
            }
        }
    }

    /// Begins to prepare one if there is none. An error leaves none; `take` will meet it again.
    pub fn prepare(self: &Arc<Self>, env: &Env, dir: &Path, bytes: u64) {
        {
            let mut stage = self.stage.lock();
            if !matches!(*stage, Stage::Missing) {
                return;
            }
            *stage = Stage::Preparing;
        }
        let (spare, disk, dir) = (self.clone(), env.disk.clone(), dir.to_path_buf());
        let task = async move {
            let made = spare.make(disk.as_ref(), &dir, bytes).await;
            *spare.stage.lock() = match made {
                Ok(file) => Stage::Ready(file),
                Err(error) => {
                    tracing::warn!(%error, "cannot prepare the log's next segment");
                    Stage::Missing
                }
            };
            spare.changed.notify_one();
        };
        env.spawn.spawn("wal-spare", Box::pin(task));
    }

    /// A prepared file; waits for it, or makes it here.
    pub async fn take(&self, env: &Env, dir: &Path, bytes: u64) -> io::Result<SpareFile> {
        while !self.is_missing() {
            if let Some(file) = self.take_ready() {
                return Ok(file);
            }
            self.changed.notified().await;
        }
        self.make(env.disk.as_ref(), dir, bytes).await
    }

    async fn make(&self, disk: &dyn Disk, dir: &Path, bytes: u64) -> io::Result<SpareFile> {
        let kept = self.kept.lock().take();
        let (path, file) = match kept {
            Some(kept) => kept,
            None => {
                let path = self.path(dir);
                let file = disk.open(&path, OpenMode::CreateNew).await?;
                (path, file)
            }
        };
        let made = async {
            if file.len().await? > bytes {
                file.set_len(bytes).await?;
            }
            zero(file.as_ref(), 0, bytes).await
        };
        if let Err(error) = made.await {
            give_up(disk, &path, &error).await;
            return Err(error);
        }
        Ok((path, file))
    }
}

/// True where there is no room for a write; another attempt may find some.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// A file that was to become a segment and found no room: it must not take what there is. Of what
/// it holds nothing is needed, whatever became of it on the disk.
pub(super) async fn give_up(disk: &dyn Disk, path: &Path, error: &io::Error) {
    if is_full(error)
        && let Err(error) = disk.remove(path).await
    {
        tracing::warn!(%error, path = %path.display(), "a file of the log is in the way");
    }
}

/// Writes and syncs zeros, a step at a time.
pub(super) async fn zero(file: &dyn DiskFile, from: u64, to: u64) -> io::Result<()> {
    let mut at = from;
    while at < to {
        let step = ZERO_STEP.min(to - at);
        file.zero(at, step).await?;
        file.sync().await?;
        at += step;
    }
    Ok(())
}

/// A record to be read back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub group: GroupId,
    pub position: LogPosition,
    pub offset: u32,
    pub length: u32,
}

impl Wanted {
    /// Where the record ends, without its padding.
    pub fn end(&self) -> u64 {
        u64::from(self.offset) + BLOCK + u64::from(self.length)
    }

    /// The payload, out of bytes of the segment that begin at `base`; `None` if it is not the
    /// wanted record or is damaged.
    pub fn pick(&self, bytes: &Bytes, base: u64, seed: u32) -> Option<Bytes> {
        let from = usize::try_from(u64::from(self.offset).checked_sub(base)?).ok()?;
        let header = RecordHeader::decode(bytes.get(from..)?, seed)?;
        let same = header.group == self.group
            && header.position == self.position
            && header.length == self.length
            && super::scan::is_entry(header.kind);
        let payload_from = from + BLOCK as usize;
        let range = payload_from..payload_from.checked_add(self.length as usize)?;
        bytes.get(range.clone())?;
        let payload = bytes.slice(range);
        (same && crc32c::crc32c(&payload) == header.payload_sum).then_some(payload)
    }
}
