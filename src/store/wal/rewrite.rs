//! Frees the oldest segment when only a few records hold it, by writing these again at the end.
//! Part of the writer's task.

use super::LogEntry;
use super::format::{self, ROW_BYTES};
use super::index::Place;
use super::segment::Wanted;
use super::state::{Item, ROUND_BYTES_MAX, Work};
use super::writer::Writer;
use crate::env::DiskFile;
use std::io;
use std::sync::Arc;

impl Writer {
    /// Writes the live records of the oldest segment again if they are few, so that it can go.
    pub async fn rewrite_oldest(&mut self) -> io::Result<()> {
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
