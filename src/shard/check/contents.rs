//! Pure: what hangs on files: versions, inline data, manifests, references.

use super::Check;
use crate::error::Result;
use crate::limits::MANIFEST_PAGE_REFS;
use crate::shard::keys;
use crate::shard::records::{ManifestPage, OldVersion, Reference};
use crate::store::record::record_hash;
use crate::types::{ChunkHash, ContentId, FileVersion, Inode};
use std::collections::{BTreeSet, HashMap};

impl Check<'_> {
    pub(super) fn versions(&mut self) -> Result<()> {
        let mut last: Option<(Inode, FileVersion)> = None;
        self.each(&keys::table(keys::VERSIONS), |this, key, value| {
            this.count_hanging(key, value);
            let (Some(inode), Some(version)) = (keys::number_at(key, 1), keys::number_at(key, 9))
            else {
                return this.problem("a key of `versions` is too short".to_owned());
            };
            let (inode, version) = (Inode(inode), FileVersion(version));
            let Some(live) = this.files.get(&inode).copied() else {
                return this.problem(format!(
                    "version {version} of file {inode} that is not there"
                ));
            };
            let what = format!("version {version} of file {inode}");
            let Some(old) = this.decoded::<OldVersion>(&what, value) else {
                return;
            };
            if let Some((before, number)) = last
                && live
                && before == inode
                && number.next() != version
            {
                this.problem(format!(
                    "file {inode}: versions {number} to {version} are missing"
                ));
            }
            last = Some((inode, version));
            if old.attrs.version != version {
                this.problem(format!("{what} says it is {}", old.attrs.version));
            }
            this.report.versions += u64::from(live && !old.dropping);
            this.content(inode, &old.attrs, live && !old.dropping, false);
        })
    }

    fn count_hanging(&mut self, key: &[u8], value: &[u8]) {
        self.hanging = self.hanging.wrapping_add(record_hash(key, value));
    }

    pub(super) fn inline(&mut self) -> Result<()> {
        let mut seen = BTreeSet::new();
        self.each(&keys::table(keys::INLINE), |this, key, value| {
            this.count_hanging(key, value);
            let Some(at) = content_key(key, 1) else {
                return this.problem("a key of `inline` is too short".to_owned());
            };
            match this.contents.get(&at) {
                Some(content) if content.inline => {
                    seen.insert(at);
                }
                _ => this.problem(format!("inline data {at:?} belongs to nothing")),
            }
        })?;
        let missing: Vec<_> = self
            .contents
            .iter()
            .filter(|(at, content)| content.live && content.inline && !seen.contains(at))
            .map(|(at, _)| *at)
            .collect();
        for at in missing {
            self.problem(format!("inline data {at:?} is missing"));
        }
        Ok(())
    }

    pub(super) fn manifests(&mut self) -> Result<()> {
        let mut lens: HashMap<ChunkHash, u32> = HashMap::new();
        self.each(&keys::table(keys::MANIFESTS), |this, key, value| {
            this.count_hanging(key, value);
            let at = content_key(key, 1);
            let number = key
                .get(17..21)
                .and_then(|n| n.try_into().ok())
                .map(u32::from_be_bytes);
            let (Some(at), Some(number)) = (at, number) else {
                return this.problem("a key of `manifests` is too short".to_owned());
            };
            let what = format!("manifest page {number} of {at:?}");
            let Some(page) = this.decoded::<ManifestPage>(&what, value) else {
                return;
            };
            for chunk in &page.chunks {
                lens.insert(chunk.hash, chunk.len);
            }
            match this.contents.get_mut(&at) {
                Some(content) if !content.inline && number < content.pages => {
                    content.pages_seen += 1;
                    content.bytes_seen += page
                        .chunks
                        .iter()
                        .map(|chunk| u64::from(chunk.len))
                        .sum::<u64>();
                    content
                        .chunks
                        .extend(page.chunks.iter().map(|chunk| chunk.hash));
                    if number + 1 < content.pages && page.chunks.len() != MANIFEST_PAGE_REFS {
                        this.problem(format!("{what} has {} chunks", page.chunks.len()));
                    }
                }
                _ => this.problem(format!("{what} belongs to nothing")),
            }
        })?;
        self.report.chunks = lens.len() as u64;
        self.report.chunk_bytes = lens.values().map(|len| u64::from(*len)).sum();
        Ok(())
    }

    pub(super) fn references(&mut self) -> Result<()> {
        self.each(&keys::table(keys::REFERENCES), |this, key, value| {
            this.count_hanging(key, value);
            this.report.references += 1;
            let hash = key
                .get(1..33)
                .and_then(|h| h.try_into().ok())
                .map(ChunkHash);
            let (Some(hash), Some(at)) = (hash, content_key(key, 33)) else {
                return this.problem("a key of `references` is too short".to_owned());
            };
            let what = format!("reference of {at:?} to chunk {hash}");
            this.decoded::<Reference>(&what, value);
            match this.contents.get_mut(&at) {
                Some(content) if content.chunks.contains(&hash) => content.references += 1,
                _ => this.problem(format!("{what}: no manifest names it")),
            }
        })?;
        let mut wrong = Vec::new();
        for (at, content) in &self.contents {
            let chunks = content.chunks.len() as u64;
            // A content that is being dropped loses the reference of a repeated chunk early.
            if content.live && content.references != chunks {
                wrong.push(format!(
                    "content {at:?} has {chunks} chunks and {} references",
                    content.references
                ));
            }
            let complete = content.pages_seen == content.pages;
            if content.live && !content.inline && !complete {
                wrong.push(format!(
                    "content {at:?} has {} of {} manifest pages",
                    content.pages_seen, content.pages
                ));
            }
            if let (true, true, Some((size, _))) = (content.live, complete, content.size)
                && size != content.bytes_seen
            {
                wrong.push(format!(
                    "content {at:?} has {size} bytes, its chunks {}",
                    content.bytes_seen
                ));
            }
        }
        wrong.sort();
        wrong.into_iter().for_each(|what| self.problem(what));
        Ok(())
    }
}

fn content_key(key: &[u8], at: usize) -> Option<(Inode, ContentId)> {
    Some((
        Inode(keys::number_at(key, at)?),
        ContentId(keys::number_at(key, at + 8)?),
    ))
}
