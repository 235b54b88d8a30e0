//! Where chunks belong: asked for all chunks that are ready together in one call, and remembered
//! for a moment.

use super::ask::To;
use super::core::{Client, odd};
use crate::error::{Error, Result};
use crate::limits::HAVE_HASHES_MAX;
use crate::proto::{Answer, Call};
use crate::types::{ChunkHash, NodeId};
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// An answer may be used for this long: who owned a chunk hands it on to who owns it now.
const KNOWN_FOR: Duration = Duration::from_secs(10);
/// Answers remembered.
const KNOWN_MAX: usize = 4_096;
/// Owners of one chunk that are believed.
const OWNERS_MAX: usize = 64;

/// Owners in the order of preference.
type Owners = Arc<Vec<NodeId>>;

/// What is being asked, and what was answered lately.
#[derive(Default)]
pub(crate) struct OwnersDesk {
    state: Mutex<Desk>,
    /// Held by who asks. It is given in the order of coming.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Desk {
    known: HashMap<ChunkHash, (Owners, Duration)>,
    /// The hashes in `known`, the oldest first.
    order: VecDeque<ChunkHash>,
    /// The question that will be asked next.
    next: Option<Arc<Question>>,
}

/// One call for several who want to know.
#[derive(Default)]
struct Question {
    hashes: Mutex<Vec<ChunkHash>>,
    answer: OnceLock<Result<HashMap<ChunkHash, Owners>>>,
}

impl Client {
    /// Where a chunk belongs, the best to send it to first. `anew`: what was heard before is of
    /// no use. A cluster of one node is not asked.
    pub(crate) async fn owners_of(&self, hash: ChunkHash, anew: bool) -> Result<Owners> {
        if let Some(only) = self.core.link.only_node() {
            return Ok(Arc::new(vec![only]));
        }
        let desk = &self.core.owners;
        let now = self.core.env.clock.now();
        let question = {
            let mut state = desk.state.lock();
            if !anew && let Some(owners) = state.recall(&hash, now) {
                return Ok(owners);
            }
            state.join(hash)
        };
        let _turn = desk.turn.lock().await;
        let answer = match question.answer.get() {
            Some(answer) => answer,
            None => {
                let hashes = desk.state.lock().close(&question);
                let answer = self.ask_owners(hashes).await;
                question.answer.get_or_init(|| answer)
            }
        };
        let all = answer.as_ref().map_err(Error::clone)?;
        let owners = all.get(&hash).cloned();
        owners.ok_or_else(|| odd("the owners of chunks"))
    }

    async fn ask_owners(&self, hashes: Vec<ChunkHash>) -> Result<HashMap<ChunkHash, Owners>> {
        let call = Call::Owners {
            hashes: hashes.clone(),
        };
        let (owners, nodes) = match self.ask(To::Any, &call).await? {
            Answer::Owners { owners, nodes } if owners.len() == hashes.len() => (owners, nodes),
            _ => return Err(odd("the owners of chunks")),
        };
        self.core.link.learn_nodes(&nodes);
        let now = self.core.env.clock.now();
        let mut state = self.core.owners.state.lock();
        let named = hashes.into_iter().zip(owners).map(|(hash, mut owners)| {
            owners.truncate(OWNERS_MAX);
            let owners = Arc::new(owners);
            state.remember(hash, Arc::clone(&owners), now);
            (hash, owners)
        });
        Ok(named.collect())
    }
}

impl Desk {
    fn recall(&self, hash: &ChunkHash, now: Duration) -> Option<Owners> {
        let (owners, heard) = self.known.get(hash)?;
        (now.saturating_sub(*heard) < KNOWN_FOR).then(|| Arc::clone(owners))
    }

    fn remember(&mut self, hash: ChunkHash, owners: Owners, now: Duration) {
        if self.known.insert(hash, (owners, now)).is_none() {
            self.order.push_back(hash);
        }
        if self.order.len() > KNOWN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    fn join(&mut self, hash: ChunkHash) -> Arc<Question> {
        let full = |question: &Arc<Question>| question.hashes.lock().len() >= HAVE_HASHES_MAX;
        if self.next.as_ref().is_some_and(full) {
            self.next = None;
        }
        let question = Arc::clone(self.next.get_or_insert_default());
        let mut hashes = question.hashes.lock();
        if !hashes.contains(&hash) {
            hashes.push(hash);
        }
        drop(hashes);
        question
    }

    /// Nobody joins this question any more.
    fn close(&mut self, question: &Arc<Question>) -> Vec<ChunkHash> {
        let next = self.next.as_ref();
        if next.is_some_and(|next| Arc::ptr_eq(next, question)) {
            self.next = None;
        }
        question.hashes.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_heard_is_bounded_and_gets_old() {
        let mut desk = Desk::default();
        let hash = |n: usize| ChunkHash::of(&n.to_le_bytes());
        for n in 0..KNOWN_MAX + 10 {
            desk.remember(hash(n), Arc::default(), Duration::ZERO);
        }
        assert_eq!((desk.known.len(), desk.order.len()), (KNOWN_MAX, KNOWN_MAX));
        assert!(desk.recall(&hash(9), Duration::ZERO).is_none());
        assert!(desk.recall(&hash(10), Duration::ZERO).is_some());
        assert!(desk.recall(&hash(10), KNOWN_FOR).is_none());
    }

    #[test]
    fn those_who_come_together_share_a_question() {
        let mut desk = Desk::default();
        let (one, two) = (ChunkHash([1; 32]), ChunkHash([2; 32]));
        let first = desk.join(one);
        assert!(Arc::ptr_eq(&first, &desk.join(two)));
        assert!(Arc::ptr_eq(&first, &desk.join(one)));
        assert_eq!(desk.close(&first), [one, two]);
        assert!(!Arc::ptr_eq(&first, &desk.join(one)), "it is being asked");
    }
}
