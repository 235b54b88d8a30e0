//! Opening: brings the index up to date with what the packs say, cuts off what was never
//! acknowledged, and reports damage. Large chunks are `survey`'s.
//!
//! Records are taken in order of their place; of several records of one chunk the last counts.
//! A record with a tombstone is a put followed by a removal.

use super::appender::Current;
use super::core::Core;
use super::damage::Damage;
use super::index::{Location, PackRow, Place, Update};
use super::layout::{self, HEADER_BYTES, PackHeader, RecordHeader, TOMBSTONE_BYTES, Tombstone};
use super::ops::Ledger;
use super::scan::{Scan, Step};
use crate::env::DiskFile;
use crate::error::{Code, Error, Result};
use crate::store::renew::renew;
use crate::types::ChunkHash;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// Records looked up in the index at once.
const BATCH: usize = 512;
/// Rows of the index read at once.
const PAGE: usize = 4_096;
/// Problems kept for the operator; a disk with more is replaced, not read about.
pub(super) const PROBLEMS_MAX: usize = 10_000;

/// What opening found.
#[derive(Default)]
pub(super) struct Recovered {
    /// The newest pack, if it takes more.
    pub current: Option<Current>,
    pub next_pack: u64,
    pub found: Found,
}

/// What is told of it; each list is bounded.
#[derive(Default)]
pub(super) struct Found {
    /// Damage and what a crash left, each with file and offset.
    pub problems: Vec<String>,
    /// Damage alone.
    pub damage: Vec<String>,
}

impl Recovered {
    /// Damage.
    pub fn report(&mut self, problem: String) {
        if self.found.damage.len() < PROBLEMS_MAX {
            self.found.damage.push(problem.clone());
        }
        self.residue(problem);
    }

    /// What a crash leaves: never acknowledged, unless its disk lost it.
    pub fn residue(&mut self, problem: String) {
        tracing::warn!(%problem, "found at opening the chunk store");
        if self.found.problems.len() < PROBLEMS_MAX {
            self.found.problems.push(problem);
        }
    }
}

/// A pack being recovered.
struct Opening {
    pack: u64,
    file: Arc<dyn DiskFile>,
    file_len: u64,
    newest: bool,
    header_sound: bool,
    /// The index had a row: only what is behind it is scanned.
    known: bool,
    row: PackRow,
    /// Tombstones the index does not know.
    buried: BTreeSet<u64>,
    retired: bool,
}

/// Empties a damaged index: everything is read again then.
pub(super) async fn make_index_anew(core: &Core, out: &mut Recovered) -> Result<()> {
    core.index.make_anew().await?;
    out.report("the pack index was damaged: it is made anew from packs and chunk files".into());
    Ok(())
}

/// Recovers all packs, oldest first.
pub(super) async fn recover_packs(core: &Core, out: &mut Recovered) -> Result<()> {
    let (packs, others) = core.packs.list().await?;
    for path in others {
        out.report(format!("{}: not a file of this store", path.display()));
    }
    let newest = packs.last().copied().unwrap_or(0);
    out.next_pack = newest.saturating_add(1);
    for &pack in &packs {
        recover_pack(core, pack, pack == newest, out).await?;
        relieve(core).await?;
    }
    let lost: BTreeSet<u64> = core.index.rows().into_keys().collect();
    let lost: BTreeSet<u64> = lost
        .difference(&packs.into_iter().collect())
        .copied()
        .collect();
    if !lost.is_empty() {
        let chunks = sweep(core, |place, _| lost.contains(&place.pack)).await?;
        if chunks > 0 {
            let names: Vec<String> = lost.iter().map(u64::to_string).collect();
            let dir = core.packs.dir().display();
            let names = names.join(", ");
            out.report(format!(
                "{dir}: packs {names} are missing with {chunks} chunks"
            ));
        }
        core.index.apply(Update {
            chunks: Vec::new(),
            packs: lost.into_iter().map(|pack| (pack, None)).collect(),
        });
    }
    Ok(())
}

/// Keeps the changes in memory bounded; on a full disk some more are held.
pub(super) async fn relieve(core: &Core) -> Result<()> {
    let most = core.options.index_changes_max;
    let pending = core.index.pending();
    if pending < most {
        return Ok(());
    }
    match core.index.flush().await {
        Err(error) if error.code == Code::NoSpace && pending < most.saturating_mul(4) => Ok(()),
        other => other,
    }
}

async fn recover_pack(core: &Core, pack: u64, newest: bool, out: &mut Recovered) -> Result<()> {
    let mut opening = open_pack(core, pack, newest, out).await?;
    if newest {
        make_certain(core, &opening).await?;
    }
    read_tombstones(core, &mut opening, out).await?;
    apply_tombstones(core, &opening).await?;
    if opening.retired {
        core.index.apply(Update {
            chunks: Vec::new(),
            packs: vec![(pack, None)],
        });
        return core.packs.remove(pack).await;
    }
    if opening.known && opening.file_len < opening.row.end {
        return truncated(core, opening, out).await;
    }
    let (good_end, tail_unreadable) = scan_records(core, &mut opening, out).await?;
    let mut row = core.index.row(pack).unwrap_or_default();
    if newest && row.records == 0 && !opening.header_sound && !tail_unreadable {
        out.residue(format!(
            "{}: removed; its making was not finished and it holds no record",
            core.packs.path(pack).display()
        ));
        core.index.apply(Update {
            chunks: Vec::new(),
            packs: vec![(pack, None)],
        });
        return core.packs.remove(pack).await;
    }
    if newest && row.records > 0 && !opening.header_sound && !opening.known {
        out.report(damaged_header(core, pack));
    }
    row.end = if newest {
        good_end
    } else {
        opening.file_len.max(good_end)
    };
    if newest && opening.file_len > good_end && !tail_unreadable {
        cut_tail(core, &opening, good_end, out).await?;
    }
    core.index.apply(Update {
        chunks: Vec::new(),
        packs: vec![(pack, Some(row))],
    });
    let usable = newest && opening.header_sound && !tail_unreadable;
    if usable && row.end.is_multiple_of(layout::ALIGN) && row.end < core.options.pack_bytes_max {
        out.current = Some(Current {
            pack,
            file: opening.file,
        });
    }
    Ok(())
}

fn damaged_header(core: &Core, pack: u64) -> String {
    let path = core.packs.path(pack);
    format!("{} at byte 0: the pack's header is damaged", path.display())
}

async fn open_pack(core: &Core, pack: u64, newest: bool, out: &mut Recovered) -> Result<Opening> {
    let path = core.packs.path(pack);
    let file = core.packs.file(pack).await;
    let file = file.map_err(|e| Error::io("open pack", &path, &e))?;
    let file_len = file.len().await;
    let file_len = file_len.map_err(|e| Error::io("read size of pack", &path, &e))?;
    let head = file
        .read_at(0, HEADER_BYTES as usize)
        .await
        .unwrap_or_default();
    let header = PackHeader::decode(&head).filter(|header| header.number == pack);
    let known = core.index.row(pack);
    if header.is_none() {
        let problem = damaged_header(core, pack);
        match newest && known.is_none() {
            // Its making may have been cut off: the records will tell.
            true => out.residue(problem),
            false => out.report(problem),
        }
    }
    // Without header and row the slots are unknown; records are found by searching.
    let slots = match (&header, &known) {
        (Some(header), _) => header.slots,
        (None, Some(row)) => row.slots,
        (None, None) => 0,
    };
    let start = layout::data_start(slots);
    let fresh = PackRow {
        slots,
        end: start,
        ..PackRow::default()
    };
    // The row must be there for the ledgers to count in.
    let row = known.unwrap_or(fresh);
    core.index.apply(Update {
        chunks: Vec::new(),
        packs: vec![(pack, Some(row))],
    });
    Ok(Opening {
        pack,
        file,
        file_len,
        newest,
        // A pack that is shorter than its head was never finished.
        header_sound: header.is_some() && file_len >= start,
        known: known.is_some(),
        row,
        buried: BTreeSet::new(),
        retired: false,
    })
}

/// What the index does not know of the newest pack may not have been synced, nor its head: both are
/// written again before any of it counts. In older packs every record was synced before the next
/// pack was made, or at a start like this one; a tombstone that is lost brings back a chunk that
/// nobody needs.
async fn make_certain(core: &Core, opening: &Opening) -> Result<()> {
    let head = 0..layout::data_start(opening.row.slots).min(opening.file_len);
    let tail = opening.row.end.max(head.end)..opening.file_len;
    for range in [head, tail] {
        let path = core.packs.path(opening.pack);
        let renewed = renew(opening.file.as_ref(), range).await;
        renewed.map_err(|e| {
            let verb = "write the end of a pack again";
            core.guard.failed_write(verb, &path, &e)
        })?;
    }
    Ok(())
}

/// Reads the tombstones behind those that the index knows.
async fn read_tombstones(core: &Core, opening: &mut Opening, out: &mut Recovered) -> Result<()> {
    let Opening { pack, row, .. } = *opening;
    let from = HEADER_BYTES + u64::from(row.tombstones) * TOMBSTONE_BYTES;
    let slots = row.slots.saturating_sub(row.tombstones) as usize;
    let path = core.packs.path(pack);
    let read = opening.file.read_at(from, slots * TOMBSTONE_BYTES as usize);
    let bytes = read.await.unwrap_or_else(|error| {
        let path = path.display();
        out.report(format!(
            "{path} at byte {from}: tombstones cannot be read ({error})"
        ));
        bytes::Bytes::new()
    });
    let mut used = 0;
    for (index, slot) in bytes.chunks_exact(TOMBSTONE_BYTES as usize).enumerate() {
        match Tombstone::decode(slot, pack) {
            Tombstone::Free => continue,
            Tombstone::Record(offset) => {
                opening.buried.insert(offset);
            }
            Tombstone::Retired => opening.retired = true,
            Tombstone::Damaged => {
                let at = from + index as u64 * TOMBSTONE_BYTES;
                out.report(format!(
                    "{} at byte {at}: a tombstone is damaged",
                    path.display()
                ));
            }
        }
        used = index as u32 + 1;
    }
    opening.row.tombstones += used;
    Ok(())
}

/// Removes from the index what the new tombstones say is dead.
async fn apply_tombstones(core: &Core, opening: &Opening) -> Result<()> {
    let pack = opening.pack;
    let mut ledger = Ledger::new(&core.index);
    if let Some(row) = ledger.row(pack) {
        row.tombstones = opening.row.tombstones;
    }
    for &offset in opening.buried.range(..opening.row.end) {
        let place = Place { pack, offset };
        let Some(header) = core.packs.header(place).await? else {
            continue;
        };
        let here = Location::Pack {
            place,
            len: header.len,
        };
        if core.index.get(header.hash).await? == Some(here) {
            ledger.located(header.hash, Some(here), None);
            ledger.died(place, header.len);
        }
    }
    ledger.post();
    Ok(())
}

/// Takes in the records that the index does not know. Returns the end of the last good one and
/// whether the disk refused to read something.
async fn scan_records(
    core: &Core,
    opening: &mut Opening,
    out: &mut Recovered,
) -> Result<(u64, bool)> {
    let (pack, from) = (opening.pack, opening.row.end);
    // What was closed properly is complete; what may be the end of a crash is hashed.
    let verify = opening.newest || opening.known || !opening.header_sound;
    let range = from..opening.file_len;
    let len_max = core.options.chunk_bytes_max;
    let env = core.env.clone();
    let mut scan = Scan::new(env, opening.file.clone(), pack, range, verify, len_max);
    let (mut good_end, mut unreadable_found) = (from, false);
    let mut batch = Vec::new();
    while let Some(step) = scan.next().await {
        match step {
            Step::Record(header) => {
                good_end = header.offset + layout::record_bytes(header.len);
                batch.push(header);
            }
            Step::Damaged {
                range,
                why,
                unreadable,
            } => {
                unreadable_found |= unreadable;
                let path = core.packs.path(pack);
                let offset = range.start;
                let why = format!("{why}; {} bytes skipped", range.end - range.start);
                let problem = Damage { path, offset, why }.to_string();
                // A write that was cut off looks like this: several records, any of which may be
                // whole. Nobody was told that they are stored; if somebody was, the disk lost
                // them, and the files that need them are found by their references.
                match opening.newest && !unreadable {
                    true => out.residue(problem),
                    false => out.report(problem),
                }
            }
        }
        if batch.len() >= BATCH {
            take_in(core, opening, std::mem::take(&mut batch)).await?;
        }
    }
    take_in(core, opening, batch).await?;
    Ok((good_end, unreadable_found))
}

async fn take_in(core: &Core, opening: &Opening, headers: Vec<RecordHeader>) -> Result<()> {
    let hashes: Vec<ChunkHash> = headers.iter().map(|header| header.hash).collect();
    let located = core.index.get_many(hashes.clone()).await?;
    let mut now: HashMap<ChunkHash, Option<Location>> = hashes.into_iter().zip(located).collect();
    let mut ledger = Ledger::new(&core.index);
    for header in headers {
        let place = Place {
            pack: opening.pack,
            offset: header.offset,
        };
        if let Some(row) = ledger.row(opening.pack) {
            row.records += 1;
            row.end = header.offset + layout::record_bytes(header.len);
        }
        let before = now.get(&header.hash).copied().flatten();
        let newer = match before {
            None => true,
            Some(Location::Pack { place: older, .. }) => older <= place,
            Some(Location::File { .. }) => false,
        };
        let buried = opening.buried.contains(&header.offset);
        if buried || !newer {
            ledger.died(place, header.len);
        }
        if !newer {
            continue;
        }
        if let Some(Location::Pack { place: older, len }) = before
            && older != place
        {
            ledger.died(older, len);
        }
        let after = (!buried).then_some(Location::Pack {
            place,
            len: header.len,
        });
        ledger.located(header.hash, before, after);
        now.insert(header.hash, after);
    }
    ledger.post();
    relieve(core).await
}

/// Bytes behind the last good record of the newest pack: never acknowledged, or damaged.
async fn cut_tail(core: &Core, opening: &Opening, end: u64, out: &mut Recovered) -> Result<()> {
    let path = core.packs.path(opening.pack);
    out.residue(format!(
        "{} at byte {end}: {} bytes behind the last good record were cut off",
        path.display(),
        opening.file_len - end
    ));
    let cut = match opening.file.set_len(end).await {
        Ok(()) => opening.file.sync().await,
        Err(error) => Err(error),
    };
    cut.map_err(|e| core.guard.failed_write("cut the tail of a pack", &path, &e))
}

/// The pack is shorter than what was indexed of it: chunks behind its end are gone. Nothing more
/// is appended to it.
async fn truncated(core: &Core, opening: Opening, out: &mut Recovered) -> Result<()> {
    let (pack, end) = (opening.pack, opening.file_len);
    let behind = |place: Place, len: u32| {
        place.pack == pack && place.offset.saturating_add(HEADER_BYTES + u64::from(len)) > end
    };
    let chunks = sweep(core, behind).await?;
    out.report(format!(
        "{} at byte {end}: the pack was {} bytes long; {chunks} chunks are gone",
        core.packs.path(pack).display(),
        opening.row.end
    ));
    let mut row = core.index.row(pack).unwrap_or_default();
    row.end = end;
    core.index.apply(Update {
        chunks: Vec::new(),
        packs: vec![(pack, Some(row))],
    });
    Ok(())
}

/// Forgets all chunks whose record is at a place that `gone` names; returns how many.
async fn sweep(core: &Core, gone: impl Fn(Place, u32) -> bool) -> Result<u64> {
    let mut from = Some(ChunkHash([0; 32]));
    let mut chunks = 0;
    while let Some(start) = from {
        let page = core.index.list(start, None, PAGE).await?;
        from = (page.len() >= PAGE)
            .then(|| page.last().and_then(|(hash, _)| super::after(*hash)))
            .flatten();
        let mut ledger = Ledger::new(&core.index);
        for (hash, location) in page {
            if let Location::Pack { place, len } = location
                && gone(place, len)
            {
                ledger.located(hash, Some(location), None);
                ledger.died(place, len);
                chunks += 1;
            }
        }
        ledger.post();
        relieve(core).await?;
    }
    Ok(chunks)
}
