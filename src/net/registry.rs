//! The open connections of a server, so that those of a removed peer can be closed. Kept by
//! `server`, which bounds their number.

use super::server::Guest;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

/// Connections by quinn's number of them, which no two open ones share. Each is there from before
/// the gate is asked until nobody serves it any more.
#[derive(Default)]
pub(super) struct Registry {
    open: Mutex<HashMap<usize, (quinn::Connection, Guest)>>,
}

/// Keeps one connection listed while it lives.
pub(super) struct Entry {
    registry: Arc<Registry>,
    id: usize,
}

impl Registry {
    pub(super) fn enter(self: &Arc<Self>, connection: &quinn::Connection, guest: &Guest) -> Entry {
        let id = connection.stable_id();
        let listed = (connection.clone(), guest.clone());
        self.open.lock().insert(id, listed);
        Entry {
            registry: self.clone(),
            id,
        }
    }

    /// All of them, as they are now.
    pub(super) fn all(&self) -> Vec<(quinn::Connection, Guest)> {
        self.open.lock().values().cloned().collect()
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.registry.open.lock().remove(&self.id);
    }
}
