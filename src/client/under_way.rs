//! Which changes are under way: what has to be said of them when a command is stopped before they
//! were answered. Written by whatever sends changes, read by `cmd`.

use crate::types::DfsPath;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A change that was handed to a node, or is about to be, and is not answered yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenChange {
    /// What it is about: the first path of many. `None` where the change names none.
    pub path: Option<DfsPath>,
    /// What `dfs op status` takes. `None` for what administrators do and for a token that is
    /// spent: these have no identity.
    pub op_id: Option<String>,
}

/// The open changes of a client; all clones share them. At most as many as requests are in flight.
#[derive(Clone, Debug, Default)]
pub struct UnderWay {
    changes: Arc<Mutex<Changes>>,
}

#[derive(Debug, Default)]
struct Changes {
    /// By the order in which they began.
    open: BTreeMap<u64, OpenChange>,
    begun: u64,
}

impl UnderWay {
    /// A change that stays open until [`UnderWay::ended`]: whoever is dropped in between leaves
    /// it open, for nobody knows what became of it.
    pub(crate) fn began(&self, change: OpenChange) -> u64 {
        let mut changes = self.changes.lock();
        changes.begun += 1;
        let number = changes.begun;
        changes.open.insert(number, change);
        number
    }

    /// Its answer came, or an error that says whether it may have happened.
    pub(crate) fn ended(&self, number: u64) {
        self.changes.lock().open.remove(&number);
    }

    /// The open change that began last.
    pub fn newest(&self) -> Option<OpenChange> {
        let changes = self.changes.lock();
        changes.open.last_key_value().map(|(_, open)| open.clone())
    }
}
