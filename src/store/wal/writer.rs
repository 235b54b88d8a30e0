//! The one task that writes the log: takes what all groups queued, writes it as one batch, syncs
//! once, completes the callbacks; switches, frees and rewrites segments. Started by `recover`.
//! Nobody else writes to the log's files.

use super::Shared;
use super::batch::{self, Laid, Out};
use super::begin::{Active, CHECKPOINT_COPIES, Previous, begin_segment};
use super::format::{self, Kind, Marks, ROW_BYTES, record_bytes};
use super::segment;
use super::state::{Item, State, Work};
use crate::types::GroupId;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How often it is looked whether the disk has room for a segment.
const ROOM_LOOK: Duration = Duration::from_millis(200);

pub(super) struct Writer {
    pub shared: Arc<Shared>,
    pub active: Active,
    /// Sequence of the next batch.
    pub sequence: u64,
    /// Batches up to this one are synced.
    pub synced: u64,
    /// What the newest batch's header says about that.
    pub told: u64,
    /// Every group as of the last batch that was written.
    pub durable: BTreeMap<GroupId, Marks>,
    /// The segment was switched: the oldest one may be worth rewriting.
    pub compact: bool,
}

enum Next {
    Round(Vec<Item>),
    Idle,
    Closed,
}

impl Writer {
    pub async fn run(mut self) {
        let outcome = self.work().await;
        if let Err(error) = outcome {
            let closing = self.shared.state.lock().closing;
            match segment::is_full(&error) && closing {
                // It waited for room when it was to end. What is queued was never acknowledged.
                true => self.shared.end(&error),
                false => self.shared.fail(&error),
            }
        }
        self.shared.spare.settle().await;
        self.shared.finished.send_replace(true);
    }

    async fn work(&mut self) -> io::Result<()> {
        loop {
            match self.next().await {
                Next::Round(items) => {
                    self.write(items).await?;
                    if std::mem::take(&mut self.compact) {
                        self.rewrite_oldest().await?;
                    }
                    self.free().await?;
                }
                Next::Idle => self.seal().await?,
                Next::Closed => {
                    if self.needs_seal() {
                        self.seal().await?;
                    }
                    return self.active.file.sync().await;
                }
            }
        }
    }

    async fn next(&mut self) -> Next {
        loop {
            {
                let mut state = self.shared.state.lock();
                if !state.queue.is_empty() {
                    let room = self.active.bytes.saturating_sub(self.active.end);
                    let head = record_bytes(0) + format::BLOCK;
                    return Next::Round(state.take(room.saturating_sub(head), ROW_BYTES as u64));
                }
                if state.closing {
                    return Next::Closed;
                }
            }
            let something = self.shared.wake.notified();
            if !self.needs_seal() {
                something.await;
            } else if tokio::time::timeout(self.shared.options.seal_after, something)
                .await
                .is_err()
            {
                return Next::Idle;
            }
        }
    }

    fn needs_seal(&self) -> bool {
        self.told < self.synced || !self.shared.state.lock().committed.is_empty()
    }

    /// Writes one batch with all items and what committed positions fit, syncs it, tells
    /// everybody.
    pub async fn write(&mut self, items: Vec<Item>) -> io::Result<()> {
        let mut records = Vec::new();
        items.iter().for_each(|item| item.records(&mut records));
        let bytes = size(&records);
        if self.active.end.saturating_add(bytes) > self.active.bytes {
            self.switch(bytes).await?;
        }
        self.add_committed(&mut records);
        let laid = self.lay_out(&records);
        let (at, parts) = (self.active.end, laid.parts);
        self.active.file.write_sync(at, parts).await?;
        self.synced = self.wrote(laid.bytes, &records);
        self.active.synced_end = self.active.end;
        let places: Vec<(u64, u32)> = laid
            .offsets
            .iter()
            .map(|offset| (self.active.number, offset32(at.saturating_add(*offset))))
            .collect();
        self.complete(items, &places);
        Ok(())
    }

    /// Adds the committed positions that are not written yet, as far as they fit.
    fn add_committed(&self, records: &mut Vec<Out>) {
        let mut state = self.shared.state.lock();
        let room = self.active.bytes.saturating_sub(self.active.end);
        let mut bytes = size(records);
        let waiting: Vec<GroupId> = state.committed.iter().copied().collect();
        for group in waiting {
            let committed = state.groups.get(&group).and_then(|g| g.committed.clone());
            let Some(payload) = committed else {
                state.committed.remove(&group);
                continue;
            };
            bytes += record_bytes(payload.len()) + format::padded(ROW_BYTES as u64);
            if bytes > room {
                return;
            }
            state.committed.remove(&group);
            records.push(Out {
                kind: Kind::Committed,
                group,
                position: self.durable.get(&group).map(|m| m.last).unwrap_or_default(),
                payload,
            });
        }
    }

    fn lay_out(&self, records: &[Out]) -> Laid {
        let rows = batch::directory(records, |group| self.durable.get(&group));
        let seed = self.active.seed;
        batch::lay_out(seed, self.sequence, self.synced, &rows, records)
    }

    /// Notes a batch that was written; returns its sequence.
    fn wrote(&mut self, bytes: u64, records: &[Out]) -> u64 {
        for record in records {
            if record.kind == Kind::Remove {
                self.durable.remove(&record.group);
            } else if record.kind != Kind::Rewrite {
                let marks = self.durable.entry(record.group).or_default();
                marks.apply(record.kind, record.position, &record.payload);
            }
        }
        self.told = self.synced;
        self.active.end += bytes;
        let sequence = self.sequence;
        self.sequence += 1;
        sequence
    }

    /// Tells everybody that a batch is durable.
    fn complete(&self, items: Vec<Item>, places: &[(u64, u32)]) {
        let mut places = places.iter().copied();
        let mut flushed = Vec::new();
        let mut waiting = Vec::new();
        {
            let mut state = self.shared.state.lock();
            for item in items {
                complete_one(&mut state, item, &mut places, &mut flushed, &mut waiting);
            }
            state.evict(self.shared.options.cache_bytes);
        }
        for done in flushed {
            done(Ok(()));
        }
        for done in waiting {
            // Whoever asked may have stopped waiting.
            let _ = done.send(());
        }
        self.shared.rounds.send_modify(|round| *round += 1);
        self.shared.room.notify_waiters();
    }

    /// Says in the log what is synced, and writes committed positions, without a sync: so that
    /// damage to the last batch is told apart from a write that was cut off. An idle log only.
    async fn seal(&mut self) -> io::Result<()> {
        let room = self.active.bytes.saturating_sub(self.active.end);
        let mut records = Vec::new();
        self.add_committed(&mut records);
        let left = !self.shared.state.lock().committed.is_empty();
        let laid = self.lay_out(&records);
        if left || laid.bytes > room {
            // Full to the last blocks; the next segment's checkpoint says it all, also what was
            // taken for a batch here.
            let taken = records.iter().map(|record| record.group);
            self.shared.state.lock().committed.extend(taken);
            return self.switch(0).await;
        }
        let at = self.active.end;
        self.active.file.write_at(at, laid.parts).await?;
        self.wrote(laid.bytes, &records);
        Ok(())
    }

    /// Goes on in a new segment with room for `bytes` behind its checkpoint.
    async fn switch(&mut self, bytes: u64) -> io::Result<()> {
        self.take_committed();
        let previous = Previous {
            number: self.active.number,
            end: self.active.synced_end,
            sequence: self.sequence,
            synced: self.synced,
        };
        self.active = self.begin(&previous, bytes).await?;
        self.sequence += CHECKPOINT_COPIES;
        self.synced = self.sequence - 1;
        self.told = self.synced;
        self.compact = true;
        Ok(())
    }

    /// Begins a segment. Where the disk has no room for one everything waits: what was acknowledged
    /// is where it was, and others go on without this node.
    async fn begin(&self, previous: &Previous, bytes: u64) -> io::Result<Active> {
        let shared = &self.shared;
        loop {
            let begun = begin_segment(shared, &self.durable, previous, bytes).await;
            let waits = match &begun {
                Err(error) => segment::is_full(error) && !shared.state.lock().closing,
                Ok(_) => false,
            };
            if shared.full.swap(waits, Ordering::Relaxed) != waits {
                tracing::warn!(waits, "room on the disk for the log's next segment");
            }
            if !waits {
                return begun;
            }
            tokio::time::sleep(ROOM_LOOK).await;
        }
    }

    /// Committed positions go into the checkpoint.
    fn take_committed(&mut self) {
        let mut state = self.shared.state.lock();
        for group in std::mem::take(&mut state.committed) {
            let committed = state.groups.get(&group).and_then(|g| g.committed.clone());
            if committed.is_some() {
                self.durable.entry(group).or_default().committed = committed;
            }
        }
    }

    /// Removes the oldest segments while nobody needs anything of them. Only ever from the old
    /// end: a mark may go only after everything that it makes void.
    pub async fn free(&mut self) -> io::Result<()> {
        let mut gone = Vec::new();
        {
            let mut state = self.shared.state.lock();
            while let Some(oldest) = state.segments.first_entry() {
                if *oldest.key() >= self.active.number || !oldest.get().live.is_empty() {
                    break;
                }
                gone.push(oldest.remove_entry());
            }
        }
        if gone.is_empty() {
            return Ok(());
        }
        let shared = &self.shared;
        let disk = &shared.env.disk;
        let mut kept = None;
        for (number, segment) in gone {
            let path = segment::path(&shared.dir, number);
            if kept.is_none() && shared.spare.wants_file() {
                let spare = shared.spare.path(&shared.dir);
                disk.rename(&path, &spare).await?;
                kept = Some((spare, segment.file));
            } else {
                disk.remove(&path).await?;
            }
        }
        disk.sync_dir(&shared.dir).await?;
        if let Some(kept) = kept {
            shared.spare.keep(kept);
        }
        Ok(())
    }
}

/// An upper bound of the bytes of a batch.
fn size(records: &[Out]) -> u64 {
    let lens = records.iter().map(|record| record.payload.len());
    // Each record may be of another group.
    batch::bytes_max(records.len(), lens)
}

/// Offsets are below the length of a segment, which `Writer::switch` keeps below 4 GiB.
fn offset32(offset: u64) -> u32 {
    u32::try_from(offset).expect("a segment is shorter than 4 GiB")
}

fn complete_one(
    state: &mut State,
    item: Item,
    places: &mut impl Iterator<Item = (u64, u32)>,
    flushed: &mut Vec<super::Flushed>,
    waiting: &mut Vec<tokio::sync::oneshot::Sender<()>>,
) {
    let group = item.group;
    match item.work {
        Work::Entries {
            ticket,
            entries,
            done,
        } => {
            for ((ticket, entry), place) in (ticket..).zip(&entries).zip(&mut *places) {
                state.synced(group, entry, ticket, place);
            }
            flushed.extend(done);
        }
        Work::Rewrite { entries, done } => {
            for (entry, place) in entries.iter().zip(&mut *places) {
                state.moved(group, entry, place);
            }
            waiting.extend(done);
        }
        Work::Mark {
            kind,
            position,
            released,
            done,
            ..
        } => {
            places.next();
            state.release(group, &released);
            if let (Kind::Purge, Some(target)) = (kind, state.groups.get_mut(&group)) {
                let upto = position.index.min(target.entries.purged().index);
                target.synced = target.synced.max(upto);
            }
            waiting.push(done);
        }
    }
}
