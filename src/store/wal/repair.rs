//! Damaged entries: which there are, and taking them back from somebody who has them whole. Called
//! by `node` before it opens a group.

use super::format::{BLOCK, RecordHeader, seed};
use super::index::Place;
use super::scan::is_entry;
use super::state::{Item, Work};
use super::{DamagedEntry, LogEntry, LogPosition, Wal};
use crate::error::{Code, Error, Result};
use crate::types::{GroupId, LogIndex};
use tokio::sync::oneshot;

impl Wal {
    /// Entries that cannot be read, of all groups. A group must not open before its own are
    /// repaired.
    pub fn damaged(&self) -> Vec<DamagedEntry> {
        let state = self.shared.state.lock();
        let mut out = Vec::new();
        for (group, known) in &state.groups {
            for (index, slot) in known.entries.iter() {
                let Place::Lost { segment, offset } = slot.place else {
                    continue;
                };
                out.push(DamagedEntry {
                    group: *group,
                    index,
                    position: known.entries.position(index).filter(|_| slot.known),
                    place: (segment > 0).then_some((segment, u64::from(offset))),
                });
            }
        }
        out
    }

    /// The position of an entry, damaged or not, if it is known; that of the last one that was let
    /// go, too.
    pub fn position(&self, group: GroupId, index: LogIndex) -> Option<LogPosition> {
        let state = self.shared.state.lock();
        let entries = &state.groups.get(&group)?.entries;
        if index > LogIndex(0) && entries.purged().index == index {
            return Some(entries.purged());
        }
        let known = entries.slot(index)?.known;
        entries.position(index).filter(|_| known)
    }

    /// Puts back a damaged entry, as a peer has it. Durable when it returns.
    ///
    /// # Errors
    /// `conflict` when that entry is not damaged, is known to have another position, or when what
    /// is left of its record says that it had other bytes.
    pub async fn repair(&self, group: GroupId, entry: LogEntry) -> Result<()> {
        let index = entry.position.index;
        let misfit = || {
            let what = format!(
                "group {group}: entry {index} needs no repair with this one (it is intact, gone, \
                 or another one)"
            );
            Error::new(Code::Conflict, what)
        };
        if let Some(header) = self.header_left(group, index).await
            && (header.length as usize != entry.payload.len()
                || header.payload_sum != crc32c::crc32c(&entry.payload))
        {
            return Err(misfit());
        }
        let (send, durable) = oneshot::channel();
        {
            let mut state = self.accepting()?;
            let entries = state.groups.get(&group).map(|g| &g.entries);
            let slot = entries.and_then(|e| e.slot(index));
            let position = entries.and_then(|e| e.position(index));
            let fits = slot.is_some_and(|slot| {
                matches!(slot.place, Place::Lost { .. })
                    && (!slot.known || position == Some(entry.position))
            });
            if !fits {
                return Err(misfit());
            }
            let work = Work::Rewrite {
                entries: vec![entry],
                done: Some(send),
            };
            state.push(Item { group, work });
        }
        self.shared.wake.notify_one();
        self.wait(durable).await
    }

    /// The header of a damaged entry's record, if that is intact and the entry's own.
    async fn header_left(&self, group: GroupId, index: LogIndex) -> Option<RecordHeader> {
        let (position, segment, offset, file) = {
            let state = self.shared.state.lock();
            let entries = &state.groups.get(&group)?.entries;
            let slot = entries.slot(index)?;
            let Place::Lost { segment, offset } = slot.place else {
                return None;
            };
            let position = entries.position(index).filter(|_| slot.known)?;
            let file = state.segments.get(&segment)?.file.clone();
            (position, segment, offset, file)
        };
        let bytes = file.read_at(u64::from(offset), BLOCK as usize).await.ok()?;
        let header = RecordHeader::decode(&bytes, seed(self.shared.salt, segment))?;
        let own = header.group == group && header.position == position && is_entry(header.kind);
        own.then_some(header)
    }
}
