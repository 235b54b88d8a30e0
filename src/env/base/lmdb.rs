//! LMDB as the ordered base: one environment, one database, every commit flushed to disk.
//! Made by `node`, used through `MetaBase`.
//!
//! Invariants:
//! 1. A commit that returned survives a power cut: data and meta page are both flushed (LMDB's
//!    default; `NOSYNC`, `NOMETASYNC`, `WRITEMAP` are never set), and so is the file's name.
//! 2. After a failed flush nothing more is committed or read (LMDB itself would go on).
//! 3. Nothing is built on a meta page that may be in memory alone (`renew_meta_pages`).
//! 4. One process at a time: the caller holds the data directory's lock.

use super::{BaseOp, MetaBase, MetaRead, Visit, check_ops, check_range};
use crate::env::real::{create_dir_durably, sync_dir};
use crate::error::{Code, Error, Result};
use bytes::Bytes;
use heed::types::Bytes as Raw;
use heed::{Database, Env, EnvOpenOptions, MdbError, RoTxn, WithoutTls};
use std::fs::OpenOptions;
use std::ops::Bound;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Readers at once, over all threads. Each holds 64 bytes of the lock file.
const READERS_MAX: u32 = 1_024;
/// Map size of the metadata, in bytes: address space alone, the file grows as needed. It is
/// never changed while the environment is open (LMDB forbids that while there are readers).
pub const META_MAP_BYTES: usize = 1 << 40;

/// LMDB's file in an environment's directory.
const DATA_FILE: &str = "data.mdb";
/// Largest page that LMDB uses, bytes.
const PAGE_BYTES_MAX: u64 = 64 << 10;
/// Where the first meta page says how long a page is: behind the page's header (16 bytes) and magic,
/// version, address and map size of the meta (24 bytes).
const PAGE_BYTES_AT: u64 = 40;

/// The environment of one directory.
pub struct LmdbBase {
    env: Env<WithoutTls>,
    db: Database<Raw, Raw>,
    path: PathBuf,
    /// A flush failed (invariant 2).
    failed: AtomicBool,
}

impl LmdbBase {
    /// Opens the environment in the directory `path`; makes both if they are not there.
    /// `map_bytes` is the most that it can hold. Blocks.
    ///
    /// # Errors
    /// What stands in the way of opening, with the directory; `corrupt` if it is not LMDB's.
    pub fn open(path: &Path, map_bytes: usize) -> Result<LmdbBase> {
        create_dir_durably(path)
            .map_err(|error| Error::io("create the directory", path, &error))?;
        renew_meta_pages(&path.join(DATA_FILE))
            .map_err(|error| Error::io("write the meta pages of", path, &error))?;
        let open = || -> heed::Result<_> {
            // SAFETY: the files are mapped into memory, so nobody else may change them: the
            // directory is this node's own and is locked (invariant 4), and this process opens
            // an environment once (heed refuses to open it twice).
            let env = unsafe {
                EnvOpenOptions::new()
                    .read_txn_without_tls()
                    .map_size(map_bytes)
                    .max_readers(READERS_MAX)
                    .open(path)
            }?;
            extend(path, &env)?;
            // Readers of a process that was killed would keep pages from being used again.
            env.clear_stale_readers()?;
            let mut txn = env.write_txn()?;
            let db = env.create_database(&mut txn, None)?;
            txn.commit()?;
            Ok((env, db))
        };
        let (env, db) = open().map_err(|error| opening(path, &error))?;
        sync_dir(path).map_err(|error| Error::io("sync the directory", path, &error))?;
        Ok(LmdbBase {
            env,
            db,
            path: path.to_owned(),
            failed: AtomicBool::new(false),
        })
    }

    fn check_alive(&self) -> Result<()> {
        if self.failed.load(Ordering::Acquire) {
            return Err(
                Error::failed("a commit failed earlier; what is on disk is not known")
                    .at(self.path.display())
                    .hint("check the disk, then start the node again"),
            );
        }
        Ok(())
    }

    fn apply(&self, ops: &[BaseOp]) -> heed::Result<()> {
        let mut txn = self.env.write_txn()?;
        for op in ops {
            match op {
                BaseOp::Put(key, value) => self.db.put(&mut txn, key, value)?,
                BaseOp::Delete(key) => {
                    self.db.delete(&mut txn, key)?;
                }
            }
        }
        txn.commit()
    }

    /// True if LMDB can still write: an error while the meta page was written cannot be undone,
    /// and LMDB refuses every later transaction then.
    fn can_still_write(&self) -> bool {
        self.env.write_txn().is_ok()
    }
}

impl MetaBase for LmdbBase {
    fn begin_read(&self) -> Result<Box<dyn MetaRead>> {
        self.check_alive()?;
        let txn = self
            .env
            .clone()
            .static_read_txn()
            .map_err(|error| match error {
                heed::Error::Mdb(MdbError::ReadersFull) => Error::new(
                    Code::Busy,
                    format!("too many reads at once (at most {READERS_MAX})"),
                ),
                error => reading(&error),
            });
        let (db, path) = (self.db, self.path.clone());
        match txn {
            Ok(txn) => Ok(Box::new(LmdbRead { txn, db, path })),
            Err(error) => Err(error.at(self.path.display())),
        }
    }

    fn commit(&self, ops: Vec<BaseOp>) -> Result<()> {
        check_ops(&ops)?;
        self.check_alive()?;
        let Err(error) = self.apply(&ops) else {
            return Ok(());
        };
        if is_full(&error) && self.can_still_write() {
            return Err(
                Error::new(Code::NoSpace, format!("cannot commit ({error})"))
                    .at(self.path.display())
                    .hint("free space on the disk, or delete files"),
            );
        }
        self.failed.store(true, Ordering::Release);
        Err(committing(&error).at(self.path.display()))
    }

    fn used_bytes(&self) -> Result<u64> {
        let size = self.env.real_disk_size();
        size.map_err(|error| reading(&error).at(self.path.display()))
    }
}

/// A read transaction of the environment.
struct LmdbRead {
    txn: RoTxn<'static, WithoutTls>,
    db: Database<Raw, Raw>,
    path: PathBuf,
}

impl MetaRead for LmdbRead {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        if key.is_empty() {
            return Ok(None);
        }
        let found = self.db.get(&self.txn, key);
        found
            .map(|value| value.map(Bytes::copy_from_slice))
            .map_err(|error| reading(&error).at(self.path.display()))
    }

    fn scan(&self, from: &[u8], to: Option<&[u8]>, visit: &mut Visit<'_>) -> Result<()> {
        if check_range(from, to).is_none() {
            return Ok(());
        }
        // LMDB knows no empty key; all keys are after it.
        let lower = match from {
            [] => Bound::Unbounded,
            from => Bound::Included(from),
        };
        let upper = to.map_or(Bound::Unbounded, Bound::Excluded);
        let failed = |error: heed::Error| reading(&error).at(self.path.display());
        let range = (lower, upper);
        for entry in self.db.range(&self.txn, &range).map_err(failed)? {
            let (key, value) = entry.map_err(failed)?;
            if !visit(key, value) {
                break;
            }
        }
        Ok(())
    }
}

/// Writes both meta pages of an environment again, one after the other, and syncs each.
///
/// A commit writes and syncs its data pages, then a meta page. Where that page's write fails, the
/// system goes on giving back either what LMDB wrote or what LMDB put over it, whatever is on the
/// disk; it is the same when a process is killed in the middle. If the disk had the older one, the
/// power could go and take a commit away that was read and built upon. If it had the newer one, the
/// next commit would use pages again that are still part of it. Written again, the disk has what is
/// read, and the data pages of both were synced before. Data pages need nothing of the kind: those
/// that no meta page knows are not read, and are written before one knows them.
fn renew_meta_pages(data: &Path) -> std::io::Result<()> {
    use std::io::ErrorKind::NotFound;
    let opened = OpenOptions::new().read(true).write(true).open(data);
    let file = match opened {
        Err(error) if error.kind() == NotFound => return Ok(()),
        other => other?,
    };
    let len = file.metadata()?.len();
    let mut size = [0; 4];
    if len < PAGE_BYTES_AT + size.len() as u64 {
        return Ok(());
    }
    file.read_exact_at(&mut size, PAGE_BYTES_AT)?;
    let size = u64::from(u32::from_le_bytes(size));
    // Anything else is no environment; opening it says so.
    if !size.is_power_of_two() || size > PAGE_BYTES_MAX || len < 2 * size {
        return Ok(());
    }
    let mut page = vec![0; size as usize];
    for at in [0, size] {
        file.read_exact_at(&mut page, at)?;
        file.write_all_at(&page, at)?;
        file.sync_data()?;
    }
    Ok(())
}

/// The map or the disk is full: before the meta page is written, so nothing has changed.
fn is_full(error: &heed::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    match error {
        heed::Error::Mdb(MdbError::MapFull) => true,
        heed::Error::Io(error) => matches!(error.kind(), StorageFull | QuotaExceeded),
        _ => false,
    }
}

/// Makes a file that was cut off as long as its pages say, before any of them is touched. Behind
/// the end of a mapped file every access kills the process; pages of zeros are found to be damaged.
/// A whole file may be shorter by pages that were never used, and is not harmed.
fn extend(path: &Path, env: &Env<WithoutTls>) -> heed::Result<()> {
    let pages = env.info().last_page_number as u64 + 1;
    let needed = pages.saturating_mul(u64::from(env.stat().page_size));
    let data = path.join("data.mdb");
    let len = std::fs::metadata(&data)?.len();
    if len < needed {
        tracing::warn!(file = %data.display(), len, needed, "the database is shorter than its pages");
        let file = std::fs::OpenOptions::new().write(true).open(&data)?;
        file.set_len(needed)?;
        file.sync_all()?;
    }
    Ok(())
}

fn opening(path: &Path, error: &heed::Error) -> Error {
    let error = match error {
        heed::Error::Io(io) => Error::io("open the database", path, io),
        heed::Error::Mdb(MdbError::Invalid | MdbError::Corrupted | MdbError::VersionMismatch) => {
            Error::corrupt(format!("not a database that can be read ({error})")).hint(JOIN_ANEW)
        }
        _ => Error::failed(format!("cannot open the database ({error})")),
    };
    error.at(path.display())
}

/// What is left to do about a database that cannot be worked with.
const JOIN_ANEW: &str = "if the cluster has other nodes, remove this one (`dfs node remove N --force`) \
     and join again with an empty directory";

fn committing(error: &heed::Error) -> Error {
    match error {
        // Met on the way to what is to be changed: a restart would meet it again.
        heed::Error::Mdb(MdbError::Corrupted | MdbError::PageNotFound) => {
            Error::corrupt(format!("cannot commit, the database is damaged ({error})"))
                .hint(JOIN_ANEW)
        }
        _ => Error::failed(format!("cannot commit ({error})")),
    }
}

fn reading(error: &heed::Error) -> Error {
    match error {
        heed::Error::Mdb(MdbError::Corrupted | MdbError::PageNotFound) => {
            Error::corrupt(format!("cannot read the database ({error})"))
        }
        _ => Error::failed(format!("cannot read the database ({error})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes as Buffer;
    use std::time::SystemTime;

    #[test]
    fn meta_pages_are_written_again_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let put = |value: &'static str| BaseOp::Put(Buffer::from("key"), Buffer::from(value));
        let base = LmdbBase::open(dir.path(), 1 << 20).unwrap();
        base.commit(vec![put("one")]).unwrap();
        base.commit(vec![put("two")]).unwrap();
        drop(base);
        let data = dir.path().join(DATA_FILE);
        let before = std::fs::read(&data).unwrap();
        let file = OpenOptions::new().write(true).open(&data).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        renew_meta_pages(&data).unwrap();
        assert!(file.metadata().unwrap().modified().unwrap() > SystemTime::UNIX_EPOCH);
        assert_eq!(std::fs::read(&data).unwrap(), before);
        let base = LmdbBase::open(dir.path(), 1 << 20).unwrap();
        let found = base.begin_read().unwrap().get(b"key").unwrap();
        assert_eq!(found.as_deref(), Some(&b"two"[..]));
    }

    #[test]
    fn damage_that_a_commit_meets_is_named() {
        const PAGE: usize = 4_096;
        let dir = tempfile::tempdir().unwrap();
        let put = |key: u32| BaseOp::Put(key.to_be_bytes().to_vec().into(), Buffer::from("value"));
        let base = LmdbBase::open(dir.path(), 64 << 20).unwrap();
        base.commit((0..5_000).map(put).collect()).unwrap();
        drop(base);
        let data = dir.path().join(DATA_FILE);
        let mut bytes = std::fs::read(&data).unwrap();
        // Flags of a page: it is a leaf.
        let leaves = bytes.chunks_mut(PAGE).filter(|page| page[10..12] == [2, 0]);
        let damaged = leaves.map(|page| page.fill(0)).count();
        assert!(damaged > 10, "{damaged}");
        std::fs::write(&data, bytes).unwrap();
        let base = LmdbBase::open(dir.path(), 64 << 20).unwrap();
        let error = base.commit(vec![put(77)]).unwrap_err();
        assert_eq!(error.code, Code::Corrupt, "{error}");
        assert!(error.to_string().contains("join again"), "{error}");
        // Nothing is written by this process any more.
        base.commit(vec![put(5_000)]).unwrap_err();
    }

    #[test]
    fn a_file_without_meta_pages_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join(DATA_FILE);
        renew_meta_pages(&data).unwrap();
        assert!(!data.exists());
        let mut half = vec![0; 6_000];
        half[40..44].copy_from_slice(&4_096u32.to_le_bytes());
        for content in [vec![], vec![7; 43], vec![7; 300_000], half] {
            std::fs::write(&data, &content).unwrap();
            renew_meta_pages(&data).unwrap();
            assert_eq!(std::fs::read(&data).unwrap(), content);
        }
    }
}
