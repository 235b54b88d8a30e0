//! Walking through the records of a pack, on behind damage: a damaged stretch is skipped by
//! searching for the next record that names its own place and whose data match its hash.
//! Called by recovery and compaction.

use super::layout::{ALIGN, HEADER_BYTES, RecordHeader, record_bytes};
use crate::env::{DiskFile, Env};
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;

/// Bytes searched at once behind damage.
const SEARCH_BYTES: usize = 256 << 10;

pub(super) enum Step {
    /// A record whose header is sound (and its data, if the scan verifies).
    Record(RecordHeader),
    /// No record can be made out here.
    Damaged {
        range: Range<u64>,
        why: String,
        /// The disk gave an error: the bytes may be sound and must not be cut off.
        unreadable: bool,
    },
}

pub(super) struct Scan {
    env: Env,
    file: Arc<dyn DiskFile>,
    pack: u64,
    at: u64,
    /// Where the scan stops.
    end: u64,
    /// Hash every record's data.
    verify: bool,
    /// Largest record that is believed, bytes of data.
    len_max: u64,
}

enum Look {
    Sound(RecordHeader),
    /// The header is sound, the data are not.
    BadData(RecordHeader),
    Nothing,
    Unreadable(String),
}

impl Scan {
    pub fn new(
        env: Env,
        file: Arc<dyn DiskFile>,
        pack: u64,
        range: Range<u64>,
        verify: bool,
        len_max: u64,
    ) -> Self {
        Scan {
            env,
            file,
            pack,
            at: range.start,
            end: range.end,
            verify,
            len_max,
        }
    }

    /// The next record or damaged stretch; `None` at the end.
    pub async fn next(&mut self) -> Option<Step> {
        if self.at >= self.end {
            return None;
        }
        let start = self.at;
        let (from, why, unreadable) = match self.look(start, self.verify).await {
            Look::Sound(header) => {
                self.at = start + record_bytes(header.len);
                return Some(Step::Record(header));
            }
            Look::BadData(header) => {
                self.at = start + record_bytes(header.len);
                let why = format!("the data of chunk {} do not match its hash", header.hash);
                return Some(Step::Damaged {
                    range: start..self.at,
                    why,
                    unreadable: false,
                });
            }
            Look::Nothing => (
                start + ALIGN,
                "no record can be made out".to_string(),
                false,
            ),
            Look::Unreadable(why) => (start + ALIGN, why, true),
        };
        self.at = self.search(from).await;
        Some(Step::Damaged {
            range: start..self.at,
            why,
            unreadable,
        })
    }

    /// The first place from `from` on with a sound record, or the end.
    async fn search(&self, from: u64) -> u64 {
        let mut at = from;
        while at < self.end {
            let window = self
                .file
                .read_at(at, SEARCH_BYTES)
                .await
                .unwrap_or_default();
            let mut within = 0;
            while within + HEADER_BYTES as usize <= window.len() {
                let place = at + within as u64;
                let header = RecordHeader::decode(&window[within..], self.pack, place);
                if header.is_some() && matches!(self.look(place, true).await, Look::Sound(_)) {
                    return place;
                }
                within += ALIGN as usize;
            }
            at += (within as u64).max(SEARCH_BYTES as u64);
        }
        self.end
    }

    async fn look(&self, at: u64, verify: bool) -> Look {
        let header = match self.file.read_at(at, HEADER_BYTES as usize).await {
            Ok(bytes) => RecordHeader::decode(&bytes, self.pack, at),
            Err(error) => return Look::Unreadable(format!("read error: {error}")),
        };
        let Some(header) = header else {
            return Look::Nothing;
        };
        let len = u64::from(header.len);
        let fits = len <= self.len_max && at + record_bytes(header.len) <= self.end;
        if !fits {
            return Look::Nothing;
        }
        if !verify {
            return Look::Sound(header);
        }
        let read = self.file.read_at(at + HEADER_BYTES, header.len as usize);
        match read.await {
            Err(error) => Look::Unreadable(format!("read error: {error}")),
            Ok(data) => {
                if self.matches(&header, data).await {
                    Look::Sound(header)
                } else {
                    Look::BadData(header)
                }
            }
        }
    }

    async fn matches(&self, header: &RecordHeader, data: Bytes) -> bool {
        data.len() == header.len as usize
            && super::core::hash_of(&self.env, vec![data]).await == header.hash
    }
}
