//! What `network` learns of the receivers while this replica leads: images on their way, and which
//! entries their receivers will need behind them (read when the log is compacted); replicas that
//! turn out to have lost entries.

use crate::types::ReplicaId;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// An image that broke off so often is not thought to arrive.
const TRIES: u32 = 5;

/// The images that one replica sends or has sent.
#[derive(Default)]
pub(super) struct Sends {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Tells apart two images for one receiver, one after the other.
    next: u64,
    sent: BTreeMap<u64, Sent>,
    /// Ids are never used again, so none ever leaves.
    lossy: BTreeSet<ReplicaId>,
}

/// What is known of the newest image for one receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    number: u64,
    /// Entries behind this index are needed.
    pub(super) from: u64,
    /// It is still being sent.
    pub(super) running: bool,
    /// How often that broke off.
    failed: u32,
}

impl Sends {
    /// Notes that an image which holds at least the entries up to `from` is going to be sent.
    pub(super) fn begin(self: &Arc<Self>, to: ReplicaId, from: u64) -> Sending {
        let mut inner = self.inner.lock();
        let number = inner.next;
        inner.next += 1;
        let sent = Sent {
            number,
            from,
            running: true,
            failed: 0,
        };
        inner.sent.insert(to.0, sent);
        Sending {
            sends: self.clone(),
            to,
            number,
        }
    }

    /// Whether a replica is being filled, as far as one can tell.
    pub(super) fn is_filling(&self, to: ReplicaId) -> bool {
        let inner = self.inner.lock();
        let sent = inner.sent.get(&to.0);
        sent.is_some_and(|sent| sent.running && sent.failed < TRIES)
    }

    /// All of them, by receiver.
    pub(super) fn all(&self) -> BTreeMap<u64, Sent> {
        self.inner.lock().sent.clone()
    }

    /// Notes that a replica does not have what it acknowledged.
    pub(super) fn note_lossy(&self, replica: ReplicaId) {
        self.inner.lock().lossy.insert(replica);
    }

    pub(super) fn lossy(&self) -> BTreeSet<ReplicaId> {
        self.inner.lock().lossy.clone()
    }

    /// Forgets those that are over and that `needed` does not ask for any more.
    pub(super) fn retain(&self, needed: impl Fn(u64, &Sent) -> bool) {
        let mut inner = self.inner.lock();
        (inner.sent).retain(|to, sent| sent.running || needed(*to, sent));
    }
}

/// An image that is being sent, until this is dropped.
pub(super) struct Sending {
    sends: Arc<Sends>,
    to: ReplicaId,
    number: u64,
}

impl Sending {
    /// A try broke off.
    pub(super) fn note_failure(&self) {
        if let Some(sent) = self.sends.inner.lock().sent.get_mut(&self.to.0)
            && sent.number == self.number
        {
            sent.failed += 1;
        }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if let Some(sent) = self.sends.inner.lock().sent.get_mut(&self.to.0)
            && sent.number == self.number
        {
            sent.running = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_image_that_ends_says_nothing_of_the_newer() {
        let sends = Arc::new(Sends::default());
        let first = sends.begin(ReplicaId(7), 10);
        let second = sends.begin(ReplicaId(7), 20);
        drop(first);
        assert!(sends.all()[&7].running);
        sends.retain(|_, _| false);
        assert_eq!(sends.all()[&7].from, 20);
        (1..TRIES).for_each(|_| second.note_failure());
        assert!(sends.is_filling(ReplicaId(7)));
        second.note_failure();
        assert!(!sends.is_filling(ReplicaId(7)));
        drop(second);
        assert!(!sends.all()[&7].running);
        sends.retain(|_, sent| sent.from > 10);
        assert_eq!(sends.all().len(), 1);
        sends.retain(|_, _| false);
        assert!(sends.all().is_empty());
    }
}
