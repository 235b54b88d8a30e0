//! Where each chunk is: a memory overlay of recent changes on an ordered base.
//!
//! The base is a cache of what the packs and chunk files say: changes reach it in batches after
//! they are durable on disk, and [`super::recovery`] brings it up to date at open, from nothing
//! if need be. Called by the store, the appender, recovery and compaction.
//!
//! A row that cannot be read costs nothing but its chunk, which counts as not here: whoever keeps
//! copies writes it again, and the row with it. Nothing is removed by such a row, and the next open
//! makes the whole base anew ([`Index::make_anew`]).
//!
//! ```text
//! key                    value (codec, sealed by store::record)
//! 'c' hash[32]           Location
//! 'p' pack u64 BE        PackRow
//! 't'                    Totals
//! ```

use super::guard::Guard;
use crate::codec;
use crate::env::{BaseOp, Env, MetaBase, MetaRead};
use crate::error::{Code, Error, Result};
use crate::store::record;
use crate::types::ChunkHash;
use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::Notify;

/// Rows that cannot be read are remembered up to this number; a base with more is of no use.
const UNREADABLE_MAX: usize = 65_536;
/// Rows deleted in one commit when the base is made anew.
const CLEARED_AT_ONCE: usize = 16_384;

/// A record's place. Ordered by age: packs are numbered upwards and only appended to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    pub pack: u64,
    /// Of the record's header, bytes.
    pub offset: u64,
}

/// Where a chunk is, with its length in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Location {
    Pack { place: Place, len: u32 },
    File { len: u64 },
}

impl Location {
    pub fn len(&self) -> u64 {
        match self {
            Location::Pack { len, .. } => u64::from(*len),
            Location::File { len } => *len,
        }
    }
}

/// What the index knows of one pack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackRow {
    /// Tombstone slots (from the header).
    pub slots: u32,
    /// Records below this offset are indexed; appends go on here.
    pub end: u64,
    /// Records below `end`, dead ones too.
    pub records: u32,
    /// Records that no location points to.
    pub dead_records: u32,
    /// Bytes of dead records with header and padding.
    pub dead_bytes: u64,
    /// Tombstone slots used.
    pub tombstones: u32,
}

/// Chunks stored, and their bytes without headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    pub chunks: u64,
    pub bytes: u64,
}

/// Changes that become visible together.
#[derive(Default)]
pub struct Update {
    /// Hash, location before, location after.
    pub chunks: Vec<(ChunkHash, Option<Location>, Option<Location>)>,
    /// New rows; `None`: the pack is gone.
    pub packs: Vec<(u64, Option<PackRow>)>,
}

/// Changes on their way into the base.
#[derive(Default)]
struct Delta {
    chunks: BTreeMap<ChunkHash, Option<Location>>,
    packs: BTreeMap<u64, Option<PackRow>>,
    totals: Totals,
}

impl Delta {
    fn len(&self) -> usize {
        self.chunks.len() + self.packs.len()
    }
}

#[derive(Default)]
struct Recent {
    active: Delta,
    /// Being committed; kept when a commit found no space.
    frozen: Option<Arc<Delta>>,
    /// All packs, up to date.
    rows: BTreeMap<u64, PackRow>,
    totals: Totals,
    /// Chunks whose row in the base cannot be read, until it is written again. The totals count
    /// them.
    unreadable: BTreeSet<ChunkHash>,
    /// Something else in the base cannot be read: a pack's row, the totals, a key.
    damaged: bool,
}

/// 1. `active`, then `frozen`, then the base: the first that knows a hash is right.
/// 2. A change is in the base only after it is durable in a pack or a directory.
pub(super) struct Index {
    env: Env,
    base: Arc<dyn MetaBase>,
    guard: Arc<Guard>,
    recent: Mutex<Recent>,
    /// One flush at a time.
    flushing: tokio::sync::Mutex<()>,
    /// Told when something waits for a flush.
    pub dirty: Notify,
}

impl Index {
    /// Reads rows and totals; chunks stay in the base. Where these cannot be read it is empty, and
    /// [`Index::is_damaged`].
    pub async fn open(env: Env, base: Arc<dyn MetaBase>, guard: Arc<Guard>) -> Result<Self> {
        let from = base.clone();
        let mut recent = Recent::default();
        match env.run_blocking(move || load(from.as_ref())).await {
            Ok((rows, totals)) => (recent.rows, recent.totals) = (rows, totals),
            Err(error) if error.code == Code::Corrupt => recent.damaged = true,
            Err(error) => return Err(error),
        }
        Ok(Index {
            env,
            base,
            guard,
            recent: Mutex::new(recent),
            flushing: tokio::sync::Mutex::new(()),
            dirty: Notify::new(),
        })
    }

    /// Something in the base was read and is not what was written.
    pub fn is_damaged(&self) -> bool {
        self.unreadable() > 0
    }

    /// Rows that cannot be read, as far as they were met.
    pub fn unreadable(&self) -> u64 {
        let recent = self.recent.lock();
        recent.unreadable.len() as u64 + u64::from(recent.damaged)
    }

    /// Empties the base, for recovery to fill it from packs and files. At open, before anybody else
    /// uses the index.
    pub async fn make_anew(&self) -> Result<()> {
        *self.recent.lock() = Recent::default();
        let base = self.base.clone();
        self.env.run_blocking(move || clear(base.as_ref())).await
    }

    fn note_unreadable(&self, bad: &[ChunkHash]) {
        let mut recent = self.recent.lock();
        for hash in bad {
            // What was written since then is right.
            let stands = recent.find(hash).is_none() && recent.unreadable.len() < UNREADABLE_MAX;
            if stands && recent.unreadable.insert(*hash) {
                tracing::error!(%hash, "a row of the pack index cannot be read: its chunk counts as \
                    missing until it is written again; a restart makes the index anew");
            }
        }
    }

    pub fn totals(&self) -> Totals {
        self.recent.lock().totals
    }

    pub fn rows(&self) -> BTreeMap<u64, PackRow> {
        self.recent.lock().rows.clone()
    }

    pub fn row(&self, pack: u64) -> Option<PackRow> {
        self.recent.lock().rows.get(&pack).copied()
    }

    /// Changes not in the base yet.
    pub fn pending(&self) -> usize {
        let recent = self.recent.lock();
        recent.active.len() + recent.frozen.as_ref().map_or(0, |f| f.len())
    }

    pub async fn get(&self, hash: ChunkHash) -> Result<Option<Location>> {
        Ok(self.get_many(vec![hash]).await?.pop().flatten())
    }

    /// Locations in the order of `hashes`.
    pub async fn get_many(&self, hashes: Vec<ChunkHash>) -> Result<Vec<Option<Location>>> {
        let known: Vec<Option<Option<Location>>> = {
            let recent = self.recent.lock();
            hashes.iter().map(|hash| recent.find(hash)).collect()
        };
        if known.iter().all(Option::is_some) {
            return Ok(known.into_iter().map(Option::flatten).collect());
        }
        let base = self.base.clone();
        let look_up = move || {
            let (read, mut bad) = (base.begin_read()?, Vec::new());
            let mut look = |(hash, known)| match known {
                Some(known) => Ok(known),
                None => match get_row(read.as_ref(), &chunk_key(hash)) {
                    Err(error) if error.code == Code::Corrupt => {
                        bad.push(*hash);
                        Ok(None)
                    }
                    found => found,
                },
            };
            let found: Result<Vec<_>> = hashes.iter().zip(known).map(&mut look).collect();
            Ok((found?, bad))
        };
        let (found, bad) = self.env.run_blocking(look_up).await?;
        self.note_unreadable(&bad);
        Ok(found)
    }

    /// Makes durable changes visible.
    pub fn apply(&self, update: Update) {
        let mut recent = self.recent.lock();
        for (hash, before, after) in update.chunks {
            let counted = recent.unreadable.remove(&hash);
            let totals = &mut recent.totals;
            if let Some(before) = before {
                totals.chunks = totals.chunks.saturating_sub(1);
                totals.bytes = totals.bytes.saturating_sub(before.len());
            }
            if let Some(after) = after.filter(|_| !counted) {
                totals.chunks += 1;
                totals.bytes += after.len();
            }
            recent.active.chunks.insert(hash, after);
        }
        for (pack, row) in update.packs {
            match row {
                Some(row) => recent.rows.insert(pack, row),
                None => recent.rows.remove(&pack),
            };
            recent.active.packs.insert(pack, row);
        }
        drop(recent);
        self.dirty.notify_one();
    }

    /// Brings everything applied before the call into the base.
    ///
    /// # Errors
    /// `no_space`: the changes stay in memory and are tried again with the next flush. Other
    /// errors stop the store.
    pub async fn flush(&self) -> Result<()> {
        let _one = self.flushing.lock().await;
        // Twice: what an earlier flush could not write, then what came since.
        for _ in 0..2 {
            let Some(delta) = self.recent.lock().freeze() else {
                return Ok(());
            };
            let (base, frozen) = (self.base.clone(), delta.clone());
            let done = self
                .env
                .run_blocking(move || base.commit(ops(&frozen)))
                .await;
            if let Err(error) = done {
                return Err(match error.code {
                    Code::NoSpace => error,
                    _ => self.guard.fatal("commit of the pack index", error),
                });
            }
            self.recent.lock().frozen = None;
        }
        Ok(())
    }

    /// Chunks with `from <= hash < to` (`to` `None`: to the end) in order, at most `limit`; those
    /// whose row cannot be read are left out.
    pub async fn list(
        &self,
        from: ChunkHash,
        to: Option<ChunkHash>,
        limit: usize,
    ) -> Result<Vec<(ChunkHash, Location)>> {
        let changed = self.recent.lock().changed(from, to);
        let base = self.base.clone();
        let listing = move || list_merged(base.as_ref(), changed, from, to, limit);
        let listed = self.env.run_blocking(listing).await;
        let damaged = match &listed {
            Ok(listed) => listed.bad_key,
            Err(error) => error.code == Code::Corrupt,
        };
        self.recent.lock().damaged |= damaged;
        let Listed { chunks, bad, .. } = listed?;
        self.note_unreadable(&bad);
        Ok(chunks)
    }
}

impl Recent {
    /// The outer `None`: ask the base.
    fn find(&self, hash: &ChunkHash) -> Option<Option<Location>> {
        let frozen = || self.frozen.as_ref().and_then(|f| f.chunks.get(hash));
        self.active.chunks.get(hash).or_else(frozen).copied()
    }

    /// What to commit next, with the totals as of now.
    fn freeze(&mut self) -> Option<Arc<Delta>> {
        if self.frozen.is_none() && self.active.len() > 0 {
            let mut delta = std::mem::take(&mut self.active);
            delta.totals = self.totals;
            self.frozen = Some(Arc::new(delta));
        }
        self.frozen.clone()
    }

    fn changed(
        &self,
        from: ChunkHash,
        to: Option<ChunkHash>,
    ) -> BTreeMap<ChunkHash, Option<Location>> {
        let mut changed = BTreeMap::new();
        let frozen = self.frozen.iter().flat_map(|f| f.chunks.range(from..));
        for (hash, location) in frozen.chain(self.active.chunks.range(from..)) {
            if to.is_none_or(|to| *hash < to) {
                changed.insert(*hash, *location);
            }
        }
        changed
    }
}

/// A page of the index, and what of it cannot be read.
#[derive(Default)]
struct Listed {
    chunks: Vec<(ChunkHash, Location)>,
    /// Their rows are damaged.
    bad: Vec<ChunkHash>,
    /// A key is.
    bad_key: bool,
}

fn list_merged(
    base: &dyn MetaBase,
    changed: BTreeMap<ChunkHash, Option<Location>>,
    from: ChunkHash,
    to: Option<ChunkHash>,
    limit: usize,
) -> Result<Listed> {
    let end = to.map_or_else(|| b"d".to_vec(), |to| chunk_key(&to).to_vec());
    let mut found: BTreeMap<ChunkHash, Location> = BTreeMap::new();
    let mut out = Listed::default();
    let mut cut = None;
    let read = base.begin_read()?;
    read.scan(&chunk_key(&from), Some(&end), &mut |key, stored| {
        let hash = key.get(1..).and_then(|hash| hash.try_into().ok());
        let Some(hash) = hash.map(ChunkHash) else {
            out.bad_key = true;
            return true;
        };
        if !changed.contains_key(&hash) {
            match open_row(key, stored) {
                Ok(location) => drop(found.insert(hash, location)),
                Err(_) => out.bad.push(hash),
            }
        }
        cut = (found.len() >= limit).then_some(hash);
        cut.is_none()
    })?;
    for (hash, location) in changed {
        if let Some(location) = location
            && cut.is_none_or(|cut| hash <= cut)
        {
            found.insert(hash, location);
        }
    }
    out.chunks = found.into_iter().take(limit).collect();
    Ok(out)
}

/// Deletes all rows. The totals are spoilt first and go last: a cut leaves a base that is damaged.
fn clear(base: &dyn MetaBase) -> Result<()> {
    let spoilt = BaseOp::Put(Bytes::from_static(b"t"), Bytes::new());
    base.commit(vec![spoilt])?;
    loop {
        let mut ops = Vec::new();
        let read = base.begin_read()?;
        read.scan(&[], None, &mut |key, _| {
            ops.push(BaseOp::Delete(Bytes::copy_from_slice(key)));
            ops.len() < CLEARED_AT_ONCE
        })?;
        if ops.is_empty() {
            return Ok(());
        }
        base.commit(ops)?;
    }
}

fn ops(delta: &Delta) -> Vec<BaseOp> {
    let mut ops = Vec::with_capacity(delta.len() + 1);
    for (hash, location) in &delta.chunks {
        ops.push(row_op(&chunk_key(hash), location.as_ref()));
    }
    for (pack, row) in &delta.packs {
        ops.push(row_op(&pack_key(*pack), row.as_ref()));
    }
    ops.push(row_op(b"t", Some(&delta.totals)));
    ops
}

fn row_op<T: Serialize>(key: &[u8], value: Option<&T>) -> BaseOp {
    let name = Bytes::copy_from_slice(key);
    match value {
        Some(value) => BaseOp::Put(name, record::seal(key, &codec::encode(value))),
        None => BaseOp::Delete(name),
    }
}

fn load(base: &dyn MetaBase) -> Result<(BTreeMap<u64, PackRow>, Totals)> {
    let read = base.begin_read()?;
    let totals = get_row(read.as_ref(), b"t")?.unwrap_or_default();
    let mut rows = BTreeMap::new();
    let mut failed = None;
    read.scan(b"p", Some(b"q"), &mut |key, stored| {
        let number = key.get(1..).and_then(|n| n.try_into().ok());
        match (number, open_row(key, stored)) {
            (Some(number), Ok(row)) => {
                rows.insert(u64::from_be_bytes(number), row);
            }
            (None, _) => failed = Some(Error::corrupt("a key of the pack index is damaged")),
            (_, Err(error)) => failed = Some(error),
        }
        failed.is_none()
    })?;
    failed.map_or(Ok((rows, totals)), Err)
}

fn get_row<T: DeserializeOwned>(read: &dyn MetaRead, key: &[u8]) -> Result<Option<T>> {
    match read.get(key)? {
        Some(stored) => open_row(key, &stored).map(Some),
        None => Ok(None),
    }
}

fn open_row<T: DeserializeOwned>(key: &[u8], stored: &[u8]) -> Result<T> {
    let opened = record::open(key, stored).and_then(codec::decode);
    opened.map_err(|error| Error::corrupt(format!("pack index: {}", error.message)))
}

fn chunk_key(hash: &ChunkHash) -> [u8; 33] {
    let mut key = [b'c'; 33];
    key[1..].copy_from_slice(&hash.0);
    key
}

fn pack_key(pack: u64) -> [u8; 9] {
    let mut key = [b'p'; 9];
    key[1..].copy_from_slice(&pack.to_be_bytes());
    key
}
