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

/// Name of the file that becomes the next segment.
pub(super) fn spare_path(dir: &Path) -> PathBuf {
    dir.join("spare")
}

#[derive(Default)]
enum Stage {
    #[default]
    Missing,
    Preparing,
    Ready(Arc<dyn DiskFile>),
}

/// The file that becomes the next segment: zeroed and synced in the background, so that a switch
/// costs one small write, and later writes there allocate nothing.
#[derive(Default)]
pub(super) struct Spare {
    stage: Mutex<Stage>,
    changed: Notify,
}

impl Spare {
    /// True if there is none and none is being made.
    pub fn is_missing(&self) -> bool {
        matches!(*self.stage.lock(), Stage::Missing)
    }

    /// Waits until none is being made.
    pub async fn settle(&self) {
        while matches!(*self.stage.lock(), Stage::Preparing) {
            self.changed.notified().await;
        }
    }

    fn take_ready(&self) -> Option<Arc<dyn DiskFile>> {
        let mut stage = self.stage.lock();
        match std::mem::take(&mut *stage) {
            Stage::Ready(file) => Some(file),
            other => {
                *stage = other;
                None
            }
        }
    }

    /// Begins to prepare one, out of a file that already has the spare's name durably if one is
    /// given. Does nothing if there is one. An error leaves none; `take` will meet it again.
    pub fn prepare(
        self: &Arc<Self>,
        env: &Env,
        dir: &Path,
        bytes: u64,
        file: Option<Arc<dyn DiskFile>>,
    ) {
        {
            let mut stage = self.stage.lock();
            if !matches!(*stage, Stage::Missing) {
                return;
            }
            *stage = Stage::Preparing;
        }
        let (spare, disk, dir) = (self.clone(), env.disk.clone(), dir.to_path_buf());
        let task = async move {
            let made = make(disk.as_ref(), &dir, bytes, file).await;
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

    /// The prepared file, under the spare's name; waits for it, or makes it here.
    pub async fn take(&self, env: &Env, dir: &Path, bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
        while !self.is_missing() {
            if let Some(file) = self.take_ready() {
                return Ok(file);
            }
            self.changed.notified().await;
        }
        let disk = env.disk.as_ref();
        let path = spare_path(dir);
        if disk.exists(&path).await? {
            disk.remove(&path).await?;
        }
        make(disk, dir, bytes, None).await
    }
}

async fn make(
    disk: &dyn Disk,
    dir: &Path,
    bytes: u64,
    file: Option<Arc<dyn DiskFile>>,
) -> io::Result<Arc<dyn DiskFile>> {
    let file = match file {
        Some(file) => file,
        None => disk.open(&spare_path(dir), OpenMode::CreateNew).await?,
    };
    if file.len().await? > bytes {
        file.set_len(bytes).await?;
    }
    zero(file.as_ref(), 0, bytes).await?;
    Ok(file)
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
