//! The one task that writes the log: takes what all groups queued, writes it as one batch, syncs
//! once, completes the callbacks; switches, frees and rewrites segments. Started by `recover`.
//! Nobody else writes to the log's files.

use super::batch::{self, Laid, Out};
use super::format::{self, Kind, Marks, ROW_BYTES, SegmentHeader, record_bytes};
use super::index::Place;
use super::segment::{self, Wanted};
use super::state::{Item, ROUND_BYTES_MAX, Segment, State, Work};
use super::{LogEntry, Shared};
use crate::env::DiskFile;
use crate::types::GroupId;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// Every segment begins with its checkpoint, written so many times (as one batch each).
pub(super) const CHECKPOINT_COPIES: u64 = 2;

/// The segment that is written to.
pub(super) struct Active {
    pub number: u64,
    pub seed: u32,
    pub file: Arc<dyn DiskFile>,
    /// Length of the file.
    pub bytes: u64,
    /// Where the next batch goes.
    pub end: u64,
    /// Where the last synced batch ends.
    pub synced_end: u64,
}

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
            self.shared.fail(&error);
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
                    self.seal().await?;
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
    async fn write(&mut self, items: Vec<Item>) -> io::Result<()> {
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
            // Full to the last blocks; the next segment's checkpoint says it all.
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
        self.active = begin_segment(&self.shared, &self.durable, &previous, bytes).await?;
        self.sequence += CHECKPOINT_COPIES;
        self.synced = self.sequence - 1;
        self.told = self.synced;
        self.compact = true;
        Ok(())
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

    /// Writes the live records of the oldest segment again if they are few, so that it can go.
    async fn rewrite_oldest(&mut self) -> io::Result<()> {
        let Some((number, file, wanted)) = self.worth_rewriting() else {
            return Ok(());
        };
        let seed = format::seed(self.shared.salt, number);
        let mut items: Vec<Item> = Vec::new();
        for want in wanted {
            let length = format::BLOCK as usize + want.length as usize;
            let offset = u64::from(want.offset);
            let read = file.read_at(offset, length).await.ok();
            let Some(payload) = read.and_then(|bytes| want.pick(&bytes, offset, seed)) else {
                let at = (number, want.offset);
                let mut state = self.shared.state.lock();
                state.lost(want.group, want.position.index, at);
                tracing::warn!(segment = number, offset, group = %want.group, "a log record is damaged");
                return Ok(());
            };
            let entry = LogEntry {
                position: want.position,
                payload,
            };
            items.push(Item {
                group: want.group,
                work: Work::Rewrite {
                    entries: vec![entry],
                    done: None,
                },
            });
        }
        let mut round = Vec::new();
        let mut bytes = 0;
        for item in items {
            bytes += item.bytes() + ROW_BYTES as u64;
            if bytes > ROUND_BYTES_MAX && !round.is_empty() {
                self.write(std::mem::take(&mut round)).await?;
                bytes = item.bytes();
            }
            round.push(item);
        }
        if !round.is_empty() {
            self.write(round).await?;
        }
        Ok(())
    }

    /// The oldest segment's live records, if there are more segments than should be and these
    /// are few enough, and whole.
    fn worth_rewriting(&self) -> Option<(u64, Arc<dyn DiskFile>, Vec<Wanted>)> {
        let state = self.shared.state.lock();
        let options = &self.shared.options;
        if state.segments.len() <= options.segments_kept {
            return None;
        }
        let (number, oldest) = state.segments.first_key_value()?;
        let bytes: u64 = oldest.live.values().map(|live| live.bytes).sum();
        if *number >= self.active.number || bytes > options.segment_bytes / 8 {
            return None;
        }
        let mut wanted = Vec::new();
        for group in oldest.live.keys() {
            let entries = &state.groups.get(group)?.entries;
            for (index, slot) in entries.iter() {
                match slot.place {
                    Place::At { segment, offset } if segment == *number => wanted.push(Wanted {
                        group: *group,
                        position: entries.position(index)?,
                        offset,
                        length: slot.length,
                    }),
                    Place::Lost { segment, .. } if segment == *number => return None,
                    _ => {}
                }
            }
        }
        Some((*number, oldest.file.clone(), wanted))
    }
}

/// What a new segment follows on.
pub(super) struct Previous {
    pub number: u64,
    /// Where its valid bytes end.
    pub end: u64,
    /// Sequence of the next batch.
    pub sequence: u64,
    /// Batches up to this one are synced.
    pub synced: u64,
}

/// Makes the next segment, with room for `bytes` behind its checkpoint. The header and the
/// checkpoint are durable before the file gets its name, and the name before anything else is
/// written (invariant 3).
pub(super) async fn begin_segment(
    shared: &Arc<Shared>,
    durable: &BTreeMap<GroupId, Marks>,
    previous: &Previous,
    bytes: u64,
) -> io::Result<Active> {
    let number = previous.number + 1;
    let seed = format::seed(shared.salt, number);
    let records = checkpoint(durable);
    let lay_out = |sequence| batch::lay_out(seed, sequence, previous.synced, &[], &records);
    let copies = [lay_out(previous.sequence), lay_out(previous.sequence + 1)];
    let end = copies
        .iter()
        .fold(format::RECORDS_AT, |end, copy| end + copy.bytes);
    let usual = shared.options.segment_bytes;
    let length = usual.max(format::padded(end.saturating_add(bytes)));
    if length > u64::from(u32::MAX) {
        let what = format!("a log segment of {length} bytes would be needed (limit 4 GiB)");
        return Err(io::Error::other(what));
    }
    let (spare, file) = shared.spare.take(&shared.env, &shared.dir, usual).await?;
    segment::zero(file.as_ref(), usual, length).await?;
    let header = SegmentHeader {
        number,
        salt: shared.salt,
        bytes: length,
        first_batch: previous.sequence,
        previous_end: previous.end,
    };
    let mut parts = vec![Bytes::from(header.encode())];
    copies.into_iter().for_each(|copy| parts.extend(copy.parts));
    file.write_sync(0, parts).await?;
    let (disk, path) = (&shared.env.disk, segment::path(&shared.dir, number));
    disk.rename(&spare, &path).await?;
    disk.sync_dir(&shared.dir).await?;
    let segment = Segment {
        file: file.clone(),
        bytes: length,
        live: BTreeMap::new(),
    };
    shared.state.lock().segments.insert(number, segment);
    shared.spare.prepare(&shared.env, &shared.dir, usual);
    Ok(Active {
        number,
        seed,
        file,
        bytes: length,
        end,
        synced_end: end,
    })
}

fn checkpoint(durable: &BTreeMap<GroupId, Marks>) -> Vec<Out> {
    durable
        .iter()
        .map(|(group, marks)| Out {
            kind: Kind::Checkpoint,
            group: *group,
            position: marks.last,
            payload: marks.encode().into(),
        })
        .collect()
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
