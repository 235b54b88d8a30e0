//! The one writer of packs: a task that takes everything queued, appends it with one write and
//! one sync, buries the dead, makes the changes visible and answers everyone.
//!
//! Order within a batch: new records are durable before an older record of the same chunk is
//! buried; both are durable before the index knows; the index knows before a caller is answered.

use super::core::Core;
use super::index::{Location, PackRow, Place, Update};
use super::layout::{self, RecordHeader, Tombstone};
use super::ops::{Ledger, Op, Put, PutReply, Reply, answer};
use crate::env::DiskFile;
use crate::error::{Code, Error, Result};
use crate::types::ChunkHash;
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Zeros between a record's data and the next record.
static PADDING: [u8; layout::ALIGN as usize] = [0; layout::ALIGN as usize];

/// Pages of memory are forgotten whole, and in groups as the system made them: a batch also takes
/// in what the ones before left.
const FORGET_BYTES: u64 = 4 << 20;
const PAGE_BYTES: u64 = 4_096;

/// The pack that is appended to.
pub(super) struct Current {
    pub pack: u64,
    pub file: Arc<dyn DiskFile>,
}

pub(super) struct Appender {
    core: Arc<Core>,
    ops: mpsc::Receiver<Op>,
    current: Option<Current>,
    /// Larger than the number of any pack on disk.
    next_pack: u64,
    /// Did not fit into the last batch.
    carry: Option<Op>,
}

/// A record to append, with everyone who waits for it.
struct Work {
    put: Put,
    before: Option<Location>,
    copies: Vec<PutReply>,
}

/// A record to bury: its chunk and length, and who waits for it.
struct Burial {
    hash: ChunkHash,
    place: Place,
    len: u32,
    /// `None`: replaced by a newer record, which the index knows already.
    reply: Option<Reply>,
}

impl Appender {
    pub fn new(
        core: Arc<Core>,
        ops: mpsc::Receiver<Op>,
        current: Option<Current>,
        next_pack: u64,
    ) -> Self {
        Appender {
            core,
            ops,
            current,
            next_pack,
            carry: None,
        }
    }

    /// Works until all senders are gone.
    pub async fn run(mut self) {
        while let Some(ops) = self.collect().await {
            self.work_off(ops).await;
        }
    }

    /// Everything queued, up to one pack's worth. Operations on one chunk share a batch only if
    /// both are uploads.
    async fn collect(&mut self) -> Option<Vec<Op>> {
        let first = match self.carry.take() {
            Some(op) => op,
            None => self.ops.recv().await?,
        };
        let alone = first.is_alone();
        let upload = |op: &Op| matches!(op, Op::Put(put) if put.moved_from.is_none());
        let mut bytes = first.record_bytes();
        let mut seen: HashMap<ChunkHash, bool> = HashMap::new();
        seen.extend(first.hash().map(|hash| (hash, upload(&first))));
        let mut batch = vec![first];
        while !alone && batch.len() < self.core.options.batch_records_max {
            let Ok(op) = self.ops.try_recv() else { break };
            bytes += op.record_bytes();
            let earlier = op.hash().and_then(|hash| seen.get(&hash).copied());
            let conflicts = earlier.is_some_and(|earlier| !earlier || !upload(&op));
            if op.is_alone() || conflicts || bytes > self.core.options.pack_bytes_max {
                self.carry = Some(op);
                break;
            }
            seen.extend(op.hash().map(|hash| (hash, upload(&op))));
            batch.push(op);
        }
        Some(batch)
    }

    async fn work_off(&mut self, mut ops: Vec<Op>) {
        if let Err(error) = self.admit(&ops).await {
            return ops.into_iter().for_each(|op| op.refuse(&error));
        }
        if ops.len() == 1 && ops[0].is_alone() {
            return match ops.pop() {
                Some(Op::Retire { pack, reply }) => answer(reply, self.retire(pack).await),
                Some(Op::Roll { reply }) => {
                    self.current = None;
                    answer(reply, Ok(()));
                }
                _ => unreachable!("only these are worked off alone"),
            };
        }
        let hashes = ops.iter().filter_map(Op::hash).collect();
        let located = match self.core.index.get_many(hashes).await {
            Ok(located) => located,
            Err(error) => return ops.into_iter().for_each(|op| op.refuse(&error)),
        };
        let (works, mut burials) = self.plan(ops, located);
        burials.extend(self.append(works).await);
        self.bury(burials).await;
    }

    /// The index may lag behind by a bounded number of changes. While it finds no space, puts
    /// are refused early and removals late.
    async fn admit(&self, ops: &[Op]) -> Result<()> {
        self.core.guard.check()?;
        let most = self.core.options.index_changes_max;
        let pending = self.core.index.pending();
        if pending < most {
            return Ok(());
        }
        let puts = ops.iter().any(|op| matches!(op, Op::Put(_)));
        match self.core.index.flush().await {
            Err(error) if puts || pending >= most.saturating_mul(4) => Err(error),
            _ => self.core.guard.check(),
        }
    }

    /// What is to be appended and what buried; answers what is neither.
    fn plan(&self, ops: Vec<Op>, located: Vec<Option<Location>>) -> (Vec<Work>, Vec<Burial>) {
        let mut works: Vec<Work> = Vec::new();
        let mut burials = Vec::new();
        let mut at: HashMap<ChunkHash, usize> = HashMap::new();
        for (op, before) in ops.into_iter().zip(located) {
            match (op, before) {
                (Op::Put(put), _) if at.contains_key(&put.hash) => {
                    works[at[&put.hash]].copies.push(put.reply);
                }
                (Op::Put(put), before) => {
                    let needed = match put.moved_from {
                        Some(from) => {
                            matches!(before, Some(Location::Pack { place, .. }) if place == from)
                        }
                        None => before.is_none() || self.core.quarantine.holds(&put.hash),
                    };
                    if needed {
                        at.insert(put.hash, works.len());
                        works.push(Work {
                            put,
                            before,
                            copies: Vec::new(),
                        });
                    } else {
                        answer(put.reply, Ok(true));
                    }
                }
                (Op::Remove { hash, reply }, Some(Location::Pack { place, len })) => {
                    burials.push(Burial {
                        hash,
                        place,
                        len,
                        reply: Some(reply),
                    });
                }
                (Op::Remove { reply, .. }, _) => answer(reply, Ok(())),
                (op @ (Op::Retire { .. } | Op::Roll { .. }), _) => {
                    op.refuse(&Error::failed("worked off alone, never in a batch"));
                }
            }
        }
        (works, burials)
    }

    /// Appends records with one write and one sync, then makes them visible and answers.
    /// Returns the records they replace.
    async fn append(&mut self, works: Vec<Work>) -> Vec<Burial> {
        if works.is_empty() {
            return Vec::new();
        }
        let places = match self.write(&works).await {
            Ok(places) => places,
            Err(error) => {
                for work in works {
                    for reply in work.copies.into_iter().chain([work.put.reply]) {
                        answer(reply, Err(error.clone()));
                    }
                }
                return Vec::new();
            }
        };
        let mut ledger = Ledger::new(&self.core.index);
        let mut burials = Vec::new();
        let mut replies = Vec::new();
        for (work, place) in works.into_iter().zip(places) {
            let Put { hash, len, .. } = work.put;
            ledger.located(hash, work.before, Some(Location::Pack { place, len }));
            if let Some(row) = ledger.row(place.pack) {
                row.records += 1;
                row.end = place.offset + layout::record_bytes(len);
            }
            if let Some(Location::Pack { place, len }) = work.before {
                ledger.died(place, len);
                // The old record of a moved chunk goes with its whole pack.
                if work.put.moved_from.is_none() {
                    burials.push(Burial {
                        hash,
                        place,
                        len,
                        reply: None,
                    });
                }
            }
            self.core.quarantine.end(&hash);
            replies.extend(work.copies);
            replies.push(work.put.reply);
        }
        ledger.post();
        replies
            .into_iter()
            .for_each(|reply| answer(reply, Ok(false)));
        burials
    }

    /// Writes and syncs the records; on an error none of them counts.
    async fn write(&mut self, works: &[Work]) -> Result<Vec<Place>> {
        let bytes: u64 = works.iter().map(|w| layout::record_bytes(w.put.len)).sum();
        let (pack, file, start) = self.make_room(works.len() as u32, bytes).await?;
        let mut parts = Vec::with_capacity(works.len() * 3);
        let mut places = Vec::with_capacity(works.len());
        let mut offset = start;
        for Work { put, .. } in works {
            let header = RecordHeader {
                pack,
                offset,
                len: put.len,
                hash: put.hash,
            };
            parts.push(Bytes::copy_from_slice(&header.encode()));
            parts.extend(put.data.iter().cloned());
            let padding = layout::align(u64::from(put.len)) - u64::from(put.len);
            parts.push(Bytes::from_static(&PADDING[..padding as usize]));
            places.push(Place { pack, offset });
            offset += layout::record_bytes(put.len);
        }
        if let Err(error) = file.write_sync(start, parts).await {
            let path = self.core.packs.path(pack);
            let error = self.core.guard.failed_write("write to pack", &path, &error);
            // Cuts what was written in part. Where even that fails, the pack takes no more.
            if file.set_len(start).await.is_err() {
                self.current = None;
            }
            return Err(error);
        }
        // What is read again comes back, and stays then. The last page goes on being written.
        file.forget(
            start.saturating_sub(FORGET_BYTES),
            offset & !(PAGE_BYTES - 1),
        );
        Ok(places)
    }

    /// The pack that takes so many records and bytes, and where its records go.
    async fn make_room(
        &mut self,
        records: u32,
        bytes: u64,
    ) -> Result<(u64, Arc<dyn DiskFile>, u64)> {
        let options = &self.core.options;
        if let Some(current) = &self.current {
            let row = self.core.index.row(current.pack).unwrap_or_default();
            let empty = row.records == 0;
            // One slot is kept for the mark of retirement.
            let fits = row.records.saturating_add(records) < row.slots
                && (empty || row.end.saturating_add(bytes) <= options.pack_bytes_max);
            if fits {
                return Ok((current.pack, current.file.clone(), row.end));
            }
            self.current = None;
            self.core.compaction.notify_one();
        }
        let slots = options.pack_records_max.max(records).saturating_add(1);
        let pack = self.next_pack;
        let file = self.core.packs.create(pack, slots).await?;
        self.next_pack += 1;
        let row = PackRow {
            slots,
            end: layout::data_start(slots),
            ..PackRow::default()
        };
        self.core.index.apply(Update {
            chunks: Vec::new(),
            packs: vec![(pack, Some(row))],
        });
        self.core
            .appending
            .store(pack, std::sync::atomic::Ordering::Release);
        self.current = Some(Current {
            pack,
            file: file.clone(),
        });
        Ok((pack, file, row.end))
    }

    /// Writes tombstones, one sync a pack, then makes the removals visible and answers.
    async fn bury(&self, burials: Vec<Burial>) {
        let mut by_pack: BTreeMap<u64, Vec<Burial>> = BTreeMap::new();
        for burial in burials {
            by_pack.entry(burial.place.pack).or_default().push(burial);
        }
        for (pack, burials) in by_pack {
            let places: Vec<Place> = burials.iter().map(|b| b.place).collect();
            let done = self.write_tombstones(pack, &places).await;
            let mut ledger = Ledger::new(&self.core.index);
            if let (Ok(written), Some(row)) = (&done, ledger.row(pack)) {
                row.tombstones += written;
            }
            let mut replies = Vec::new();
            for burial in burials {
                // A replaced record is dead already, buried or not.
                let Some(reply) = burial.reply else { continue };
                if done.is_ok() {
                    let Burial { place, len, .. } = burial;
                    ledger.located(burial.hash, Some(Location::Pack { place, len }), None);
                    ledger.died(place, len);
                    self.core.quarantine.end(&burial.hash);
                }
                replies.push(reply);
            }
            ledger.post();
            for reply in replies {
                answer(reply, done.clone().map(|_| ()));
            }
            if self.core.is_compactable(pack) {
                self.core.compaction.notify_one();
            }
        }
    }

    /// Returns how many slots were used. Slots can only run short through damage; a removal
    /// then lasts as long as the index does.
    async fn write_tombstones(&self, pack: u64, places: &[Place]) -> Result<u32> {
        let Some(row) = self.core.index.row(pack) else {
            return Ok(0);
        };
        let free = row.slots.saturating_sub(row.tombstones).saturating_sub(1);
        let stones: Vec<Tombstone> = places
            .iter()
            .take(free as usize)
            .map(|place| Tombstone::Record(place.offset))
            .collect();
        if stones.is_empty() {
            return Ok(0);
        }
        match self.core.packs.bury(pack, row.tombstones, &stones).await {
            // A pack that was lost needs no tombstones.
            Err(error) if error.code == Code::NotFound => Ok(0),
            Err(error) => Err(error),
            Ok(()) => Ok(stones.len() as u32),
        }
    }

    async fn retire(&self, pack: u64) -> Result<()> {
        let row = self.core.index.row(pack).unwrap_or_default();
        let current = self.current.as_ref().is_some_and(|c| c.pack == pack);
        if current || row.dead_records < row.records {
            return Err(
                Error::new(Code::Conflict, "the pack has live chunks").at(self
                    .core
                    .packs
                    .path(pack)
                    .display()),
            );
        }
        let slot = row.tombstones.min(row.slots.saturating_sub(1));
        self.core
            .packs
            .bury(pack, slot, &[Tombstone::Retired])
            .await?;
        self.core.index.apply(Update {
            chunks: Vec::new(),
            packs: vec![(pack, None)],
        });
        Ok(())
    }
}
