//! Which groups' records a read found damaged here: told by whoever reads them, taken by `verify`,
//! which mends them or has the replica replaced.

use crate::error::{Code, Error};
use crate::types::GroupId;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::Notify;

/// A replica that could not be replaced is tried again after this.
pub(super) const RECHECK_AFTER: Duration = Duration::from_secs(60);

enum Doubt {
    /// For this reason, nobody has looked after it yet.
    New(String),
    /// It is being seen to.
    Taken,
    /// Nothing could be done; until when it is not tried again.
    Stays(Duration),
}

/// The groups in doubt.
#[derive(Default)]
pub struct Doubts {
    groups: Mutex<BTreeMap<GroupId, Doubt>>,
    wake: Notify,
}

impl Doubts {
    /// Notes damage. True while it is being seen to: it is worth asking again soon.
    pub fn suspect(&self, group: GroupId, why: String, now: Duration) -> bool {
        let mut groups = self.groups.lock();
        match groups.get(&group) {
            Some(Doubt::Stays(until)) if now < *until => return false,
            Some(Doubt::New(_) | Doubt::Taken) => return true,
            _ => {}
        }
        groups.insert(group, Doubt::New(why));
        drop(groups);
        self.wake.notify_one();
        true
    }

    /// The answer to somebody whose read met damage in a group that has other replicas: `busy`
    /// while the lead goes to one of them.
    pub fn instead_of(&self, group: GroupId, error: Error, now: Duration) -> Error {
        if !self.suspect(group, error.to_string(), now) {
            return error;
        }
        let why = "records on this node are damaged; another replica takes over";
        Error::new(Code::Busy, why).hint("try again in a moment")
    }

    /// The next group to be seen to, and why.
    pub async fn next(&self) -> (GroupId, String) {
        loop {
            if let Some(next) = self.take() {
                return next;
            }
            self.wake.notified().await;
        }
    }

    fn take(&self) -> Option<(GroupId, String)> {
        let mut groups = self.groups.lock();
        groups.iter_mut().find_map(
            |(group, doubt)| match std::mem::replace(doubt, Doubt::Taken) {
                Doubt::New(why) => Some((*group, why)),
                other => {
                    *doubt = other;
                    None
                }
            },
        )
    }

    /// True while a group is being seen to.
    pub fn is_open(&self, group: GroupId) -> bool {
        let groups = self.groups.lock();
        matches!(groups.get(&group), Some(Doubt::New(_) | Doubt::Taken))
    }

    /// Nothing could be done.
    pub fn stays(&self, group: GroupId, until: Duration) {
        self.groups.lock().insert(group, Doubt::Stays(until));
    }

    /// The records are whole again, or the replica is gone.
    pub fn end(&self, group: GroupId) {
        self.groups.lock().remove(&group);
    }
}
