//! Files of packs: opening, making, reading records. Knows places, not which records are alive.
//! Called by the appender (the only writer), reads, recovery and compaction.

use super::damage::Damage;
use super::guard::Guard;
use super::index::Place;
use super::layout::{self, PackHeader, RecordHeader, Tombstone};
use crate::env::{Disk, DiskFile, OpenMode};
use crate::error::{Error, Result};
use crate::types::ChunkHash;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(super) struct Packs {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    guard: Arc<Guard>,
    open_max: usize,
    /// Packs kept open, at most `open_max`; the oldest number is closed first.
    open: Mutex<BTreeMap<u64, Arc<dyn DiskFile>>>,
}

/// What reading a record can end with.
pub(super) enum ReadFailure {
    /// The pack's file is gone: it was compacted, or lost.
    Gone,
    Damaged(Damage),
    Other(Error),
}

impl Packs {
    pub fn new(disk: Arc<dyn Disk>, dir: PathBuf, guard: Arc<Guard>, open_max: usize) -> Self {
        Packs {
            disk,
            dir,
            guard,
            open_max,
            open: Mutex::new(BTreeMap::new()),
        }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// `packs/0000000012.pack`: the names sort by number.
    pub fn path(&self, pack: u64) -> PathBuf {
        self.dir.join(format!("{pack:010}.pack"))
    }

    /// Numbers of the packs on disk in order, and names that are none.
    pub async fn list(&self) -> Result<(Vec<u64>, Vec<PathBuf>)> {
        let names = self.disk.list(&self.dir).await;
        let names = names.map_err(|e| Error::io("list packs", &self.dir, &e))?;
        let (mut numbers, mut others) = (Vec::new(), Vec::new());
        for name in names {
            let number = name
                .file_name()
                .and_then(|name| name.to_str())
                .and_then(|name| name.strip_suffix(".pack"))
                .and_then(|digits| digits.parse().ok());
            match number {
                Some(number) => numbers.push(number),
                None => others.push(self.dir.join(name)),
            }
        }
        numbers.sort_unstable();
        Ok((numbers, others))
    }

    pub async fn file(&self, pack: u64) -> io::Result<Arc<dyn DiskFile>> {
        if let Some(file) = self.open.lock().get(&pack) {
            return Ok(file.clone());
        }
        let path = self.path(pack);
        let file = match self.disk.open(&path, OpenMode::Write).await {
            // A disk that became read-only can still be read.
            Err(e)
                if matches!(
                    e.kind(),
                    ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied
                ) =>
            {
                self.disk.open(&path, OpenMode::Read).await?
            }
            other => other?,
        };
        self.keep(pack, &file);
        Ok(file)
    }

    fn keep(&self, pack: u64, file: &Arc<dyn DiskFile>) {
        let mut open = self.open.lock();
        if open.len() >= self.open_max {
            open.pop_first();
        }
        open.insert(pack, file.clone());
    }

    /// Makes an empty pack; header, tombstone slots and name are durable when it returns.
    pub async fn create(&self, pack: u64, slots: u32) -> Result<Arc<dyn DiskFile>> {
        let path = self.path(pack);
        let opened = self.disk.open(&path, OpenMode::CreateNew).await;
        let file = opened.map_err(|e| Error::io("create pack", &path, &e))?;
        let header = PackHeader {
            number: pack,
            slots,
        };
        let mut head = header.encode().to_vec();
        head.resize(layout::data_start(slots) as usize, 0);
        let written = file.write_sync(0, vec![Bytes::from(head)]).await;
        let synced = match written {
            Ok(()) => self.disk.sync_dir(&self.dir).await,
            Err(error) => Err(error),
        };
        if let Err(error) = synced {
            let error = self.guard.failed_write("create pack", &path, &error);
            // Only space was short: the empty file must not stay. If it does, recovery removes it.
            let _ = self.disk.remove(&path).await;
            return Err(error);
        }
        self.keep(pack, &file);
        Ok(file)
    }

    /// Removes a pack's file and name, durably.
    pub async fn remove(&self, pack: u64) -> Result<()> {
        self.open.lock().remove(&pack);
        let path = self.path(pack);
        match self.disk.remove(&path).await {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                return Err(self.guard.failed_write("remove pack", &path, &e));
            }
            _ => {}
        }
        let synced = self.disk.sync_dir(&self.dir).await;
        synced.map_err(|e| {
            self.guard
                .failed_write("sync packs directory", &self.dir, &e)
        })
    }

    /// Reads a record and checks its header, not its data.
    pub async fn read_raw(
        &self,
        place: Place,
        len: u32,
        hash: ChunkHash,
    ) -> Result<Bytes, ReadFailure> {
        let path = self.path(place.pack);
        let damaged = |why: &str| {
            ReadFailure::Damaged(Damage {
                path: path.clone(),
                offset: place.offset,
                why: why.to_string(),
            })
        };
        let file = match self.file(place.pack).await {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::NotFound => return Err(ReadFailure::Gone),
            Err(e) => return Err(ReadFailure::Other(Error::io("open pack", &path, &e))),
        };
        let bytes = layout::HEADER_BYTES as usize + len as usize;
        let read = file.read_at(place.offset, bytes).await;
        let mut read = read.map_err(|e| damaged(&format!("read error: {e}")))?;
        let header = RecordHeader::decode(&read, place.pack, place.offset);
        let header = header.ok_or_else(|| damaged("the record's header is damaged"))?;
        if header.hash != hash || header.len != len {
            return Err(damaged("another record is in this place"));
        }
        if read.len() != bytes {
            return Err(damaged("the pack ends within the record"));
        }
        Ok(read.split_off(layout::HEADER_BYTES as usize))
    }

    /// Header of the record at `place`, `None` when there is none.
    pub async fn header(&self, place: Place) -> Result<Option<RecordHeader>> {
        let path = self.path(place.pack);
        let file = self.file(place.pack).await;
        let file = file.map_err(|e| Error::io("open pack", &path, &e))?;
        // An unreadable header is a damaged one: its record cannot be found by it.
        let read = file.read_at(place.offset, layout::HEADER_BYTES as usize);
        let bytes = read.await.unwrap_or_default();
        Ok(RecordHeader::decode(&bytes, place.pack, place.offset))
    }

    /// Writes tombstones into the slots from `first` on; durable when it returns.
    pub async fn bury(&self, pack: u64, first: u32, stones: &[Tombstone]) -> Result<()> {
        let path = self.path(pack);
        let file = self.file(pack).await;
        let file = file.map_err(|e| Error::io("open pack", &path, &e))?;
        let offset = layout::HEADER_BYTES + u64::from(first) * layout::TOMBSTONE_BYTES;
        let bytes: Vec<u8> = stones.iter().flat_map(|s| s.encode(pack)).collect();
        let written = file.write_sync(offset, vec![Bytes::from(bytes)]).await;
        written.map_err(|e| self.guard.failed_write("write tombstones", &path, &e))
    }
}
