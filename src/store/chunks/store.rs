//! The store's handle: opening, and what callers ask of it.

use super::appender::Appender;
use super::check;
use super::compaction::{Compactor, Stuck, stopped};
use super::core::Core;
use super::damage::Quarantine;
use super::guard::Guard;
use super::index::{Index, Location};
use super::large::LargeFiles;
use super::ops::{Op, QUEUE_MAX};
use super::packs::Packs;
use super::recovery::{self, Found, Recovered};
use super::survey;
use super::{ChunkOptions, ChunkPart, ChunkReader, ChunkWriter};
use crate::env::{Env, MetaBase};
use crate::error::{Code, Error, Result};
use crate::types::ChunkHash;
use bytes::Bytes;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};

/// Bytes read and written at once when a chunk is written again from its own data.
const MENDED_AT_ONCE: usize = 1 << 20;

/// All chunks of one node. See the module for what holds.
pub struct ChunkStore {
    pub(super) core: Arc<Core>,
    ops: mpsc::Sender<Op>,
    /// One compaction at a time; what it could not empty.
    compacting: Arc<tokio::sync::Mutex<Stuck>>,
    found: Found,
    /// Dropped with the store: ends its background tasks.
    _stop: watch::Sender<()>,
}

impl ChunkStore {
    /// Opens the store in `dir` (`dir/chunks`, `dir/packs`) with the default options, making it
    /// if it is not there. `index` is the pack index's own base (one writer each); it may be
    /// empty or behind.
    ///
    /// A damaged one is made anew.
    ///
    /// # Errors
    /// Whatever the disk says, with the path; `corrupt` when the index base cannot even be emptied.
    pub async fn open(env: Env, dir: &Path, index: Arc<dyn MetaBase>) -> Result<Arc<ChunkStore>> {
        Self::open_with(env, dir, index, ChunkOptions::default()).await
    }

    /// [`ChunkStore::open`] with other options.
    pub async fn open_with(
        env: Env,
        dir: &Path,
        index: Arc<dyn MetaBase>,
        options: ChunkOptions,
    ) -> Result<Arc<ChunkStore>> {
        options.check()?;
        let guard = Arc::new(Guard::new(options.on_fatal.clone()));
        let index = Index::open(env.clone(), index, guard.clone()).await?;
        let disk = env.disk.clone();
        let packs = Packs::new(
            disk,
            dir.join("packs"),
            guard.clone(),
            options.open_packs_max,
        );
        let large = LargeFiles::new(env.clone(), guard.clone(), dir.join("chunks"), &options);
        let core = Arc::new(Core {
            queued_bytes: Arc::new(Semaphore::new(options.queued_bytes_max as usize)),
            env,
            options,
            guard,
            index,
            packs,
            large,
            quarantine: Quarantine::default(),
            compaction: Notify::new(),
            appending: AtomicU64::new(0),
        });
        survey::prepare(&core).await?;
        let mut found = Recovered::default();
        if core.index.is_damaged() {
            recovery::make_index_anew(&core, &mut found).await?;
        }
        survey::recover(&core, &mut found).await?;
        // All rows were read by now.
        if core.index.is_damaged() {
            found = Recovered::default();
            recovery::make_index_anew(&core, &mut found).await?;
            survey::recover(&core, &mut found).await?;
        }
        match core.index.flush().await {
            // The changes stay in memory; what is stored can be read and removed.
            Err(error) if error.code != Code::NoSpace => return Err(error),
            _ => {}
        }
        Ok(Self::start(core, found))
    }

    fn start(core: Arc<Core>, found: Recovered) -> Arc<ChunkStore> {
        let (ops, queue) = mpsc::channel(QUEUE_MAX);
        let (stop, stopped) = watch::channel(());
        let appending = found.current.as_ref().map_or(0, |current| current.pack);
        core.appending.store(appending, Ordering::Release);
        let appender = Appender::new(core.clone(), queue, found.current, found.next_pack);
        let spawn = core.env.spawn.clone();
        spawn.spawn("chunk-appender", Box::pin(appender.run()));
        let flusher = flush_index(core.clone(), stopped.clone());
        spawn.spawn("chunk-index", Box::pin(flusher));
        let compacting = Arc::new(tokio::sync::Mutex::new(Stuck::new()));
        if core.options.compact_in_background {
            let ops = ops.downgrade();
            let task = compact_packs(core.clone(), ops, compacting.clone(), stopped);
            spawn.spawn("chunk-compaction", Box::pin(task));
            core.compaction.notify_one();
        }
        Arc::new(ChunkStore {
            core,
            ops,
            compacting,
            found: found.found,
            _stop: stop,
        })
    }

    /// Starts taking a chunk of `len` bytes. Waits while too many bytes are on their way.
    ///
    /// # Errors
    /// `usage` when it is too large, `no_space`.
    pub async fn begin(self: &Arc<Self>, hash: ChunkHash, len: u64) -> Result<ChunkWriter> {
        ChunkWriter::begin(self.clone(), hash, len).await
    }

    /// Length of a stored chunk, bytes; `None`: not here, or damaged. Reads no chunk.
    pub async fn have(&self, hash: ChunkHash) -> Result<Option<u64>> {
        let location = self.core.usable(hash).await?;
        Ok(location.map(|location| location.len()))
    }

    /// [`ChunkStore::have`], but what is on disk is looked at: a small chunk is read and verified;
    /// a large one must have its file, of the right length and with its footer. Damage puts the
    /// copy out of use.
    pub async fn confirm(&self, hash: ChunkHash) -> Result<Option<u64>> {
        check::confirm(&self.core, hash, true).await
    }

    /// [`ChunkStore::confirm`] without reading small chunks.
    pub async fn present(&self, hash: ChunkHash) -> Result<Option<u64>> {
        check::confirm(&self.core, hash, false).await
    }

    /// [`ChunkStore::have`] of many chunks, in the order asked.
    pub async fn have_many(&self, hashes: Vec<ChunkHash>) -> Result<Vec<Option<u64>>> {
        let located = self.core.index.get_many(hashes.clone()).await?;
        let usable = |(hash, location): (&ChunkHash, Option<Location>)| {
            let location = location.filter(|_| !self.core.quarantine.holds(hash));
            location.map(|location| location.len())
        };
        Ok(hashes.iter().zip(located).map(usable).collect())
    }

    /// Reads and verifies `offset..offset+len` of a chunk.
    ///
    /// # Errors
    /// `not_found`; `corrupt` with file and offset; `usage` when the range leaves the chunk.
    pub async fn read(&self, hash: ChunkHash, offset: u64, len: u64) -> Result<Bytes> {
        let found = self.core.find(hash).await?;
        let chunk_len = found.len();
        let end = offset.checked_add(len).filter(|end| *end <= chunk_len);
        let end = end.ok_or_else(|| {
            Error::usage(format!(
                "chunk {hash} has {chunk_len} bytes; {len} from byte {offset} on are not in it"
            ))
        })?;
        self.core.read_found(hash, &found, offset..end).await
    }

    /// Reads a whole chunk piece by piece.
    ///
    /// # Errors
    /// `not_found`, `corrupt` with file and offset.
    pub async fn open_read(&self, hash: ChunkHash) -> Result<ChunkReader> {
        let found = self.core.find(hash).await?;
        Ok(ChunkReader::new(self.core.clone(), hash, found))
    }

    /// Removes a chunk if it is here. Durable when it returns; works on a full disk.
    pub async fn remove(self: &Arc<Self>, hash: ChunkHash) -> Result<()> {
        self.core.guard.check()?;
        if let Some(Location::Pack { .. }) = self.core.index.get(hash).await? {
            return self.ask(|reply| Op::Remove { hash, reply }).await;
        }
        let core = self.core.clone();
        let task = async move { core.large.remove(&core.index, &core.quarantine, hash).await };
        self.run_to_end("chunk-remove", task).await
    }

    /// Verifies one chunk as it is on disk now (scrubbing); its length.
    ///
    /// # Errors
    /// `not_found`; `corrupt` with file and offset, also when only its outboard is damaged.
    pub async fn verify(&self, hash: ChunkHash) -> Result<u64> {
        check::verify(&self.core, hash).await
    }

    /// Writes a chunk again that counts as damaged, from its own data, if these are whole: its
    /// outboard was damaged, or it could not be read for a while. False if they are not, or it does
    /// not count as damaged.
    ///
    /// # Errors
    /// `no_space`; what else the disk says.
    pub async fn mend(self: &Arc<Self>, hash: ChunkHash) -> Result<bool> {
        if !self.core.quarantine.holds(&hash) {
            return Ok(false);
        }
        // What is open already was verified before; the disk is asked again.
        self.core.large.forget(hash);
        match self.copy_onto_itself(hash).await {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.code, Code::Corrupt | Code::NotFound) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn copy_onto_itself(self: &Arc<Self>, hash: ChunkHash) -> Result<()> {
        let mut reader = self.open_read(hash).await?;
        let mut writer = self.begin(hash, reader.chunk_len()).await?;
        while let Some(bytes) = reader.next(MENDED_AT_ONCE).await? {
            writer.write(bytes).await?;
        }
        writer.finish().await
    }

    /// Verifies chunks from one on, in order of their hashes, until `bytes_max` bytes were read
    /// (at least one; read-only). Damage is listed, not an error.
    pub async fn check_from(&self, from: ChunkHash, bytes_max: u64) -> Result<ChunkPart> {
        check::verify_from(&self.core, from, bytes_max).await
    }

    /// Verifies everything.
    #[cfg(test)]
    pub async fn check(&self) -> Result<ChunkPart> {
        self.check_from(ChunkHash([0; 32]), u64::MAX).await
    }

    /// Chunks with `from <= hash < to` (`to` `None`: to the end) in order with their lengths, at
    /// most `limit` and at least one: fewer than `limit` means that there are no more. Damaged
    /// ones are listed too.
    pub async fn list(
        &self,
        from: ChunkHash,
        to: Option<ChunkHash>,
        limit: usize,
    ) -> Result<Vec<(ChunkHash, u64)>> {
        let page = self.core.index.list(from, to, limit.max(1)).await?;
        Ok(page
            .into_iter()
            .map(|(hash, location)| (hash, location.len()))
            .collect())
    }

    /// (chunks, bytes) stored, kept up to date.
    pub fn totals(&self) -> (u64, u64) {
        let totals = self.core.index.totals();
        (totals.chunks, totals.bytes)
    }

    /// Copies known to be damaged or missing now: out of use until they are written again.
    pub fn damaged_now(&self) -> u64 {
        self.core.quarantine.len()
    }

    /// Rows of the index that cannot be read, as far as they were met: their chunks count as not
    /// here. The next open makes the index anew.
    pub fn unreadable_rows(&self) -> u64 {
        self.core.index.unreadable()
    }

    /// What opening found damaged or cut off, each with file and offset.
    pub fn problems_at_open(&self) -> &[String] {
        &self.found.problems
    }

    /// [`ChunkStore::problems_at_open`] without what a crash leaves behind in good order.
    pub fn damage_at_open(&self) -> &[String] {
        &self.found.damage
    }

    /// Compacts every pack of which half is dead; returns how many were removed. Runs by itself
    /// in the background unless the options say otherwise.
    ///
    /// # Errors
    /// `no_space` when live records cannot be copied.
    pub async fn compact(&self) -> Result<u64> {
        let mut stuck = self.compacting.lock().await;
        let compactor = Compactor::new(self.core.clone(), self.ops.clone());
        compactor.run(&mut stuck).await
    }

    /// Ends the pack that is appended to, so that it can be compacted; the next small chunk
    /// begins a new one.
    pub async fn roll(&self) -> Result<()> {
        self.ask(|reply| Op::Roll { reply }).await
    }

    /// Brings the index up to date, so that the next open has little to read. Not needed for
    /// safety.
    pub async fn flush_index(&self) -> Result<()> {
        self.core.index.flush().await
    }

    /// Has the appender do something.
    pub(super) async fn ask<T>(
        &self,
        op: impl FnOnce(oneshot::Sender<Result<T>>) -> Op,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.ops.send(op(reply)).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    /// Runs a change in a task of its own, so that a caller that gives up does not leave it half
    /// done.
    pub(super) async fn run_to_end(
        &self,
        name: &'static str,
        work: impl Future<Output = Result<()>> + Send + 'static,
    ) -> Result<()> {
        let (send, receive) = oneshot::channel();
        let task = async move {
            // Whoever gave up waiting needs no answer.
            let _ = send.send(work.await);
        };
        self.core.env.spawn.spawn(name, Box::pin(task));
        receive.await.map_err(|_| stopped())?
    }
}

/// Brings changes into the index some time after the first; ends with the store.
async fn flush_index(core: Arc<Core>, mut stop: watch::Receiver<()>) {
    loop {
        tokio::select! {
            biased;
            _ = stop.changed() => return,
            () = core.index.dirty.notified() => {}
        }
        tokio::select! {
            biased;
            _ = stop.changed() => return,
            () = tokio::time::sleep(core.options.index_after) => {}
        }
        if let Err(error) = core.index.flush().await {
            if core.guard.check().is_err() {
                return;
            }
            tracing::warn!(%error, "the pack index cannot be written; it is tried again");
            core.index.dirty.notify_one();
        }
    }
}

/// Compacts when told that it may be worth it; ends with the store.
async fn compact_packs(
    core: Arc<Core>,
    ops: mpsc::WeakSender<Op>,
    compacting: Arc<tokio::sync::Mutex<Stuck>>,
    mut stop: watch::Receiver<()>,
) {
    loop {
        tokio::select! {
            biased;
            _ = stop.changed() => return,
            () = core.compaction.notified() => {}
        }
        let mut stuck = compacting.lock().await;
        let Some(ops) = ops.upgrade() else { return };
        let done = Compactor::new(core.clone(), ops).run(&mut stuck).await;
        if let Err(error) = done {
            tracing::warn!(%error, "a pack could not be compacted; it is tried again later");
        }
    }
}
