//! The open connections of a server, so that those of a removed peer can be closed. Kept by
//! `server`, which bounds their number.

use super::server::Guest;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Connections in the order in which they came. Each is there from before the gate is asked until
/// nobody serves it any more.
#[derive(Default)]
pub(super) struct Registry {
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    /// Entered so far.
    count: u64,
    connections: BTreeMap<u64, (quinn::Connection, Guest)>,
}

/// Keeps one connection listed while it lives.
pub(super) struct Entry {
    registry: Arc<Registry>,
    id: u64,
}

impl Registry {
    pub(super) fn enter(self: &Arc<Self>, connection: &quinn::Connection, guest: &Guest) -> Entry {
        let listed = (connection.clone(), guest.clone());
        let mut open = self.open.lock();
        open.count += 1;
        let id = open.count;
        open.connections.insert(id, listed);
        Entry {
            registry: self.clone(),
            id,
        }
    }

    /// All of them, as they are now.
    pub(super) fn all(&self) -> Vec<(quinn::Connection, Guest)> {
        self.open.lock().connections.values().cloned().collect()
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.registry.open.lock().connections.remove(&self.id);
    }
}
