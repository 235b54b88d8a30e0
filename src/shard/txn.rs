//! Pure: staged changes of a batch of commands over one unchanging state.
//!
//! Everything `apply` reads and writes goes through a [`Batch`]: later commands see what earlier
//! ones staged, an operation that is refused is rolled back, and [`Batch::finish`] gives the
//! changes of the whole batch in key order. The header and the directory records that were
//! touched stay decoded until then: a thousand creates in one directory encode its record, its
//! ancestors' and the header once.
//!
//! 1. After a refused operation the batch is as it was before it.
//! 2. The records after a batch do not depend on how its commands were cut into batches.

use super::keys;
use super::records::{DirRecord, Header, decode, encode};
use super::refuse::{Step, Stop, damaged, refuse_hint};
use super::sum::Weight;
use crate::error::{Code, Error, Result};
use crate::store::{Change, SlotRead, VisitRecord};
use crate::types::{ContentId, Inode, Revision};
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

/// The state machine this build implements: highest value of `Header.state_machine`.
pub const STATE_MACHINE: u32 = 1;

/// Staged changes over a view. Made for one apply batch, then finished.
pub struct Batch<'v> {
    view: &'v dyn SlotRead,
    header: Header,
    header_before: Header,
    staged: BTreeMap<Bytes, Option<Bytes>>,
    dirs: HashMap<Inode, CachedDir>,
    /// Directory path → inodes from it up to the root. Emptied when a directory goes or moves.
    paths: HashMap<Box<str>, Arc<[Inode]>>,
    undo: Vec<Undo>,
    undoing: bool,
    /// Bytes that were ever staged.
    bytes: usize,
}

/// A directory record as this batch knows it.
#[derive(Clone, Debug)]
struct CachedDir {
    /// `None`: there is none.
    record: Option<DirRecord>,
    /// `sum::form_hash` of the record.
    form: u64,
    dirty: bool,
}

/// How one staged step is taken back.
enum Undo {
    Staged(Bytes, Option<Option<Bytes>>),
    Dir(Inode, CachedDir),
    Weight(Inode, Weight),
}

impl<'v> Batch<'v> {
    /// Begins over a state.
    ///
    /// # Errors
    /// `corrupt` when there is no readable header, `failed` when the shard is at a state machine
    /// that this build does not know.
    pub fn new(view: &'v dyn SlotRead) -> Result<Batch<'v>> {
        let bytes = view
            .get(&keys::header())?
            .ok_or_else(|| damaged("the shard's header is missing"))?;
        let header: Header = decode(&bytes)?;
        if header.state_machine > STATE_MACHINE {
            return Err(Error::failed(format!(
                "the shard is at state machine {}, this build knows up to {STATE_MACHINE}",
                header.state_machine
            ))
            .hint("start a newer build on this node"));
        }
        Ok(Batch {
            view,
            header_before: header.clone(),
            header,
            staged: BTreeMap::new(),
            dirs: HashMap::new(),
            paths: HashMap::new(),
            undo: Vec::new(),
            undoing: false,
            bytes: 0,
        })
    }

    /// Bytes of keys and values that were staged, those that were replaced or taken back included:
    /// about what the batch needs of memory.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The shard's header as of what is staged.
    pub fn header(&self) -> &Header {
        &self.header
    }

    pub(super) fn header_mut(&mut self) -> &mut Header {
        &mut self.header
    }

    /// The changes of all commands of the batch, in key order.
    pub fn finish(mut self) -> Vec<Change> {
        for (inode, dir) in self.dirs {
            if dir.dirty {
                self.staged
                    .insert(keys::dir(inode), dir.record.as_ref().map(encode));
            }
        }
        if self.header != self.header_before {
            self.staged
                .insert(keys::header(), Some(encode(&self.header)));
        }
        self.staged.into_iter().collect()
    }

    /// Runs one operation. A refusal leaves nothing of it (invariant 1).
    pub(super) fn attempt<T>(
        &mut self,
        run: impl FnOnce(&mut Self) -> Step<T>,
    ) -> Result<Result<T, Error>> {
        self.undo.clear();
        self.undoing = true;
        let header = self.header.clone();
        let outcome = run(self);
        self.undoing = false;
        match outcome {
            Ok(value) => Ok(Ok(value)),
            Err(Stop::Refused(error)) => {
                self.roll_back(header);
                Ok(Err(error))
            }
            Err(Stop::Damaged(error)) => Err(error),
        }
    }

    fn roll_back(&mut self, header: Header) {
        self.header = header;
        if !self.undo.is_empty() {
            self.paths.clear();
        }
        while let Some(undo) = self.undo.pop() {
            match undo {
                Undo::Staged(key, Some(before)) => {
                    self.staged.insert(key, before);
                }
                Undo::Staged(key, None) => {
                    self.staged.remove(&key);
                }
                Undo::Dir(inode, before) => {
                    self.dirs.insert(inode, before);
                }
                Undo::Weight(inode, weight) => {
                    if let Some(record) = self.dirs.get_mut(&inode).and_then(|d| d.record.as_mut())
                    {
                        weight.negated().add_to(record);
                    }
                }
            }
        }
    }

    // --- plain records: all tables but the header and the directories ---

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        debug_assert!(!matches!(key[0], keys::HEADER | keys::DIRS));
        match self.staged.get(key) {
            Some(staged) => Ok(staged.clone()),
            None => self.view.get(key),
        }
    }

    pub(super) fn put(&mut self, key: Bytes, value: Bytes) {
        self.stage(key, Some(value));
    }

    pub(super) fn delete(&mut self, key: Bytes) {
        self.stage(key, None);
    }

    fn stage(&mut self, key: Bytes, value: Option<Bytes>) {
        debug_assert!(!matches!(key[0], keys::HEADER | keys::DIRS));
        self.bytes += key.len() + value.as_ref().map_or(0, Bytes::len);
        let before = self.staged.insert(key.clone(), value);
        if self.undoing {
            self.undo.push(Undo::Staged(key, before));
        }
    }

    /// Visits records with `from <= key < to`, staged ones included, in key order.
    pub(super) fn scan(
        &self,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut VisitRecord<'_>,
    ) -> Result<()> {
        if to.is_some_and(|to| from >= to) {
            return Ok(());
        }
        let bounds = (
            Bound::Included(from),
            to.map_or(Bound::Unbounded, Bound::Excluded),
        );
        let mut staged = self.staged.range::<[u8], _>(bounds).peekable();
        let mut go_on = true;
        self.view.scan(from, to, &mut |key, value| {
            while let Some((staged_key, staged_value)) =
                staged.next_if(|(staged_key, _)| &staged_key[..] <= key)
            {
                if let Some(staged_value) = staged_value {
                    go_on = visit(staged_key, staged_value)?;
                    if !go_on {
                        return Ok(false);
                    }
                }
                if &staged_key[..] == key {
                    return Ok(true);
                }
            }
            go_on = visit(key, value)?;
            Ok(go_on)
        })?;
        while go_on && let Some((key, value)) = staged.next() {
            if let Some(value) = value {
                go_on = visit(key, value)?;
            }
        }
        Ok(())
    }

    /// Up to `limit` records with this prefix whose keys are at or behind `from`.
    pub(super) fn collect(
        &self,
        prefix: &[u8],
        from: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>> {
        let mut found = Vec::new();
        if limit == 0 {
            return Ok(found);
        }
        self.scan(
            from.max(prefix),
            keys::after(prefix).as_deref(),
            &mut |key, value| {
                found.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
                Ok(found.len() < limit)
            },
        )?;
        Ok(found)
    }

    // --- directory records ---

    fn cached(&mut self, inode: Inode) -> Result<&mut CachedDir> {
        use std::collections::hash_map::Entry::{Occupied, Vacant};
        match self.dirs.entry(inode) {
            Occupied(slot) => Ok(slot.into_mut()),
            Vacant(slot) => {
                let mut record: Option<DirRecord> = self
                    .view
                    .get(&keys::dir(inode))?
                    .map(|bytes| decode(&bytes))
                    .transpose()?;
                let form = record
                    .as_mut()
                    .map_or(0, |record| super::sum::form_hash(inode, record));
                Ok(slot.insert(CachedDir {
                    record,
                    form,
                    dirty: false,
                }))
            }
        }
    }

    /// A directory's record, if it has one.
    pub(super) fn find_dir(&mut self, inode: Inode) -> Result<Option<&DirRecord>> {
        Ok(self.cached(inode)?.record.as_ref())
    }

    /// A directory's record that must be there.
    pub(super) fn dir(&mut self, inode: Inode) -> Result<&DirRecord> {
        self.find_dir(inode)?.ok_or_else(|| missing_dir(inode))
    }

    /// Replaces a directory's record; `None` removes it. Returns the hash of its new form less
    /// that of its old one, for the caller to add to the sums from this directory upwards.
    pub(super) fn set_dir(&mut self, inode: Inode, record: Option<DirRecord>) -> Result<u64> {
        let mut new = CachedDir {
            record,
            form: 0,
            dirty: true,
        };
        if let Some(record) = new.record.as_mut() {
            new.form = super::sum::form_hash(inode, record);
        }
        let form = new.form;
        let before = std::mem::replace(self.cached(inode)?, new);
        let delta = form.wrapping_sub(before.form);
        if self.undoing {
            self.undo.push(Undo::Dir(inode, before));
        }
        Ok(delta)
    }

    /// Adds to a directory's totals and sum and returns its parent.
    pub(super) fn weigh(&mut self, inode: Inode, weight: Weight) -> Result<Inode> {
        let cached = self.cached(inode)?;
        let record = cached.record.as_mut().ok_or_else(|| missing_dir(inode))?;
        weight.add_to(record);
        cached.dirty = true;
        let parent = record.parent;
        if self.undoing {
            self.undo.push(Undo::Weight(inode, weight));
        }
        Ok(parent)
    }

    // --- resolved directory paths ---

    pub(super) fn known_path(&self, path: &str) -> Option<Arc<[Inode]>> {
        self.paths.get(path).cloned()
    }

    pub(super) fn remember_path(&mut self, path: &str, chain: &Arc<[Inode]>) {
        self.paths.insert(path.into(), Arc::clone(chain));
    }

    /// A directory was removed or moved: paths mean something else now.
    pub(super) fn forget_paths(&mut self) {
        self.paths.clear();
    }

    // --- numbers ---

    /// Takes the next revision. Every revision taken has exactly one change row.
    pub(super) fn next_revision(&mut self) -> Revision {
        self.header.revision = self.header.revision.next();
        self.header.revision
    }

    /// Takes an inode number.
    pub(super) fn next_inode(&mut self) -> Step<Inode> {
        let inode = self.header.next_inode;
        if inode >= self.header.end_inode {
            return refuse_hint(
                Code::NoSpace,
                "the shard has no inode numbers left",
                "try again when it has been given new ones",
            );
        }
        self.header.next_inode = inode.next();
        Ok(inode)
    }

    pub(super) fn next_content(&mut self) -> ContentId {
        let content = self.header.next_content;
        self.header.next_content = content.next();
        content
    }
}

fn missing_dir(inode: Inode) -> Error {
    damaged(format!("the record of directory {inode} is missing"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::records::Settings;
    use crate::shard::refuse::refuse;
    use crate::shard::testing::{MemSlot, TestShard};
    use proptest::prelude::*;

    type Edit = (u8, Option<u8>);

    fn key(number: u8) -> Bytes {
        keys::change(Revision(u64::from(number)))
    }

    fn write(batch: &mut Batch<'_>, edits: &[Edit]) {
        for (number, value) in edits {
            match value {
                Some(value) => batch.put(key(*number), vec![*value].into()),
                None => batch.delete(key(*number)),
            }
        }
    }

    fn all(batch: &Batch<'_>) -> Vec<(Bytes, Bytes)> {
        let prefix = keys::table(keys::CHANGES);
        batch.collect(&prefix, &prefix, usize::MAX).unwrap()
    }

    fn any_edits() -> impl Strategy<Value = Vec<Edit>> {
        prop::collection::vec((0u8..12, any::<Option<u8>>()), 0..16)
    }

    proptest! {
        #[test]
        fn a_scan_merges_what_is_staged(
            stored in any_edits(), staged in any_edits(), from in 0u8..14, to in 0u8..14,
            limit in 1usize..6,
        ) {
            let mut slot = TestShard::new(Settings::default()).slot;
            for (number, value) in &stored {
                slot.write(vec![(key(*number), value.map(|value| vec![value].into()))]);
            }
            let mut batch = Batch::new(&slot).unwrap();
            write(&mut batch, &staged);
            let mut expected = slot.clone();
            for (number, value) in &staged {
                expected.write(vec![(key(*number), value.map(|value| vec![value].into()))]);
            }
            let in_range = |slot: &MemSlot| -> Vec<(Bytes, Bytes)> {
                let (from, to) = (key(from), key(to));
                let inside = |key: &Bytes| *key >= from && *key < to;
                slot.0
                    .iter()
                    .filter(|(key, _)| inside(key))
                    .take(limit)
                    .map(|(key, value)| (key.clone(), value.clone()))
                    .collect()
            };
            let mut found = Vec::new();
            batch
                .scan(&key(from), Some(&key(to)), &mut |key, value| {
                    found.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
                    Ok(found.len() < limit)
                })
                .unwrap();
            prop_assert_eq!(found, in_range(&expected));
            slot.write(batch.finish());
            prop_assert_eq!(slot, expected);
        }

        #[test]
        fn a_refusal_takes_back_everything_invariant_1(
            kept in any_edits(), taken_back in any_edits(), bytes: u64,
        ) {
            let slot = TestShard::new(Settings::default()).slot;
            let mut batch = Batch::new(&slot).unwrap();
            write(&mut batch, &kept);
            let before = (all(&batch), batch.header().clone(), batch.dir(Inode::ROOT)?.clone());
            let outcome = batch.attempt::<()>(|batch| {
                write(batch, &taken_back);
                batch.next_revision();
                batch.next_inode()?;
                let weight = Weight { bytes, sum: bytes, ..Weight::default() };
                super::super::sum::carry(batch, Inode::ROOT, weight)?;
                let mut record = batch.dir(Inode::ROOT)?.clone();
                record.mode = 0;
                batch.set_dir(Inode::ROOT, Some(record.clone()))?;
                batch.set_dir(Inode(77), Some(record))?;
                super::super::sum::carry(batch, Inode::ROOT, weight)?;
                refuse(Code::Failed, "no")
            });
            prop_assert!(outcome?.is_err());
            let after = (all(&batch), batch.header().clone(), batch.dir(Inode::ROOT)?.clone());
            prop_assert_eq!(after, before);
            prop_assert!(batch.find_dir(Inode(77))?.is_none());
        }
    }
}
