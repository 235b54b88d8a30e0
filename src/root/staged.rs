//! Pure: changes of several commands over one view, so that each sees those before it. Root
//! records are few: a scan merges them in memory.

use crate::error::Result;
use crate::store::{Change, SlotRead, VisitRecord};
use bytes::Bytes;
use std::collections::BTreeMap;

/// A view with changes on top of it.
pub struct Staged<'a> {
    view: &'a dyn SlotRead,
    changes: BTreeMap<Bytes, Option<Bytes>>,
}
impl<'a> Staged<'a> {
    pub fn new(view: &'a dyn SlotRead) -> Self {
        Staged {
            view,
            changes: BTreeMap::new(),
        }
    }

    pub fn write(&mut self, changes: Vec<Change>) {
        self.changes.extend(changes);
    }

    /// All changes, in key order.
    pub fn finish(self) -> Vec<Change> {
        self.changes.into_iter().collect()
    }
}

impl SlotRead for Staged<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        match self.changes.get(key) {
            Some(value) => Ok(value.clone()),
            None => self.view.get(key),
        }
    }

    fn scan(&self, from: &[u8], to: Option<&[u8]>, visit: &mut VisitRecord<'_>) -> Result<()> {
        let mut found = BTreeMap::new();
        self.view.scan(from, to, &mut |key, value| {
            found.insert(
                Bytes::copy_from_slice(key),
                Some(Bytes::copy_from_slice(value)),
            );
            Ok(true)
        })?;
        let inside = |key: &Bytes| key[..] >= *from && to.is_none_or(|to| key[..] < *to);
        let staged = self.changes.iter().filter(|(key, _)| inside(key));
        found.extend(staged.map(|(key, value)| (key.clone(), value.clone())));
        for (key, value) in found {
            if let Some(value) = value
                && !visit(&key, &value)?
            {
                break;
            }
        }
        Ok(())
    }
}
