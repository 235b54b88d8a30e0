//! Compaction: a pack of which half is dead is emptied by copying its live records to the
//! current pack, marked as retired, and removed.
//!
//! Crash-safe at each step: a copied record counts only once it is durable, and of two records
//! of a chunk the later counts; the mark is written when nothing in the pack is alive; a marked
//! pack is removed at open.

use super::core::Core;
use super::index::{Location, Place};
use super::layout::data_start;
use super::ops::{Op, Put};
use super::packs::ReadFailure;
use super::scan::{Scan, Step};
use crate::error::{Code, Error, Result};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Copies on their way at once.
const MOVES_MAX: usize = 32;

/// Compacts packs one after the other.
pub(super) struct Compactor {
    core: Arc<Core>,
    ops: mpsc::Sender<Op>,
}

/// Packs that could not be emptied, with their dead records then: not tried again until more
/// is dead.
pub(super) type Stuck = HashMap<u64, u32>;

impl Compactor {
    pub fn new(core: Arc<Core>, ops: mpsc::Sender<Op>) -> Self {
        Compactor { core, ops }
    }

    /// Compacts every pack that is worth it; returns how many were removed.
    pub async fn run(&self, stuck: &mut Stuck) -> Result<u64> {
        let mut removed = 0;
        let mut packs: Vec<(u64, u32, u32)> = self
            .core
            .index
            .rows()
            .into_iter()
            .map(|(pack, row)| (pack, row.records, row.dead_records))
            .collect();
        // Those without live records first: they free space without needing any.
        packs.sort_by_key(|(pack, records, dead)| (records.saturating_sub(*dead), *pack));
        for (pack, _, dead) in packs {
            if !self.core.is_compactable(pack) || stuck.get(&pack) == Some(&dead) {
                continue;
            }
            if self.compact(pack).await? {
                stuck.remove(&pack);
                removed += 1;
            } else {
                let dead = self.core.index.row(pack).map_or(0, |row| row.dead_records);
                stuck.insert(pack, dead);
            }
        }
        Ok(removed)
    }

    /// False: something in the pack is alive and could not be copied.
    async fn compact(&self, pack: u64) -> Result<bool> {
        let core = &self.core;
        let Some(row) = core.index.row(pack) else {
            return Ok(true);
        };
        if row.dead_records < row.records {
            self.copy_live(pack, data_start(row.slots)..row.end).await?;
        }
        match self.ask(|reply| Op::Retire { pack, reply }).await? {
            Err(error) if error.code == Code::Conflict => return Ok(false),
            other => other?,
        }
        // Recovery copes with an index that lags behind; without space it does.
        match core.index.flush().await {
            Err(error) if error.code != Code::NoSpace => return Err(error),
            _ => {}
        }
        core.packs.remove(pack).await?;
        Ok(true)
    }

    async fn copy_live(&self, pack: u64, range: std::ops::Range<u64>) -> Result<()> {
        let core = &self.core;
        let path = core.packs.path(pack);
        let file = core.packs.file(pack).await;
        let file = file.map_err(|e| Error::io("open pack", &path, &e))?;
        let len_max = core.options.chunk_bytes_max;
        let mut scan = Scan::new(core.env.clone(), file, pack, range, false, len_max);
        let mut moves = Vec::new();
        while let Some(step) = scan.next().await {
            // A record whose header is damaged stays alive; then the pack stays too.
            let Step::Record(header) = step else { continue };
            let place = Place {
                pack,
                offset: header.offset,
            };
            let here = Location::Pack {
                place,
                len: header.len,
            };
            if core.index.get(header.hash).await? != Some(here) {
                continue;
            }
            let permit = core
                .queued_bytes
                .clone()
                .acquire_many_owned(header.len)
                .await;
            let permit = permit.expect("the semaphores of a chunk store are never closed");
            let data = match core.read_record(place, header.len, header.hash).await {
                Ok(data) => data,
                Err(ReadFailure::Damaged(damage)) => {
                    core.damaged(header.hash, damage);
                    continue;
                }
                Err(ReadFailure::Gone) => continue,
                Err(ReadFailure::Other(error)) => return Err(error),
            };
            let (reply, done) = oneshot::channel();
            let op = Op::Put(Put {
                hash: header.hash,
                data: vec![data],
                len: header.len,
                moved_from: Some(place),
                _permit: Some(permit),
                reply,
            });
            self.ops.send(op).await.map_err(|_| stopped())?;
            moves.push(done);
            if moves.len() >= MOVES_MAX {
                settle(&mut moves).await?;
            }
        }
        settle(&mut moves).await
    }

    async fn ask(&self, op: impl FnOnce(super::ops::Reply) -> Op) -> Result<Result<()>> {
        let (reply, answer) = oneshot::channel();
        self.ops.send(op(reply)).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())
    }
}

async fn settle(moves: &mut Vec<oneshot::Receiver<Result<bool>>>) -> Result<()> {
    for done in moves.drain(..) {
        done.await.map_err(|_| stopped())??;
    }
    Ok(())
}

pub(super) fn stopped() -> Error {
    Error::unavailable("the chunk store has stopped").hint("start the node again")
}
