//! LMDB as the ordered base: one environment, one database, every commit flushed to disk.
//! Made by `node`, used through `MetaBase`.
//!
//! Invariants:
//! 1. A commit that returned survives a power cut: data and meta page are both flushed (LMDB's
//!    default; `NOSYNC`, `NOMETASYNC`, `WRITEMAP` are never set), and so is the file's name.
//! 2. After a failed flush nothing more is committed or read (LMDB itself would go on).
//! 3. One process at a time: the caller holds the data directory's lock.

use super::{BaseOp, MetaBase, MetaRead, Visit, check_ops, check_range};
use crate::env::real::{create_dir_durably, sync_dir};
use crate::error::{Code, Error, Result};
use bytes::Bytes;
use heed::types::Bytes as Raw;
use heed::{Database, Env, EnvOpenOptions, MdbError, RoTxn, WithoutTls};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Readers at once, over all threads. Each holds 64 bytes of the lock file.
const READERS_MAX: u32 = 1_024;
/// Map size of the metadata, in bytes: address space alone, the file grows as needed. It is
/// never changed while the environment is open (LMDB forbids that while there are readers).
pub const META_MAP_BYTES: usize = 1 << 40;

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
        let open = || -> heed::Result<_> {
            // SAFETY: the files are mapped into memory, so nobody else may change them: the
            // directory is this node's own and is locked (invariant 3), and this process opens
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
        Err(Error::failed(format!("cannot commit ({error})")).at(self.path.display()))
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
            Error::corrupt(format!("not a database that can be read ({error})")).hint(
                "if the cluster has other nodes, remove this one (`dfs node remove N --force`) \
                     and join again with an empty directory",
            )
        }
        _ => Error::failed(format!("cannot open the database ({error})")),
    };
    error.at(path.display())
}

fn reading(error: &heed::Error) -> Error {
    match error {
        heed::Error::Mdb(MdbError::Corrupted | MdbError::PageNotFound) => {
            Error::corrupt(format!("cannot read the database ({error})"))
        }
        _ => Error::failed(format!("cannot read the database ({error})")),
    }
}
