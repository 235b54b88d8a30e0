//! Pure: is there an order of a directory's operations, each between its call and its answer, in
//! which a directory would have answered so? (Wing and Gong's search with Lowe's memory of
//! configurations that led nowhere.) Called by `oracle`.
//!
//! Two shortcuts change nothing in the verdict. A read, or a refusal, that fits the state is taken
//! at once: it changes nothing, so taking it early can close no way. Operations of unknown outcome
//! need not be taken at all; they are tried last.

use super::directory::Directory;
use crate::sim::history::{Event, Outcome};
use std::collections::HashSet;

/// Configurations looked at before the search gives up.
const NODES_MAX: u64 = 400_000;
/// Operations of one directory.
pub const EVENTS_MAX: usize = 256;

/// What a search found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Linearizable,
    /// There is no such order; the longest that was found is of these operations.
    Impossible {
        longest: Vec<usize>,
    },
    /// Too many to look at.
    Undecided,
}

/// A set of operations, by their place in the history.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Set([u64; EVENTS_MAX / 64]);

impl Set {
    fn has(&self, at: usize) -> bool {
        self.0[at / 64] >> (at % 64) & 1 == 1
    }

    fn with(mut self, at: usize) -> Set {
        self.0[at / 64] |= 1 << (at % 64);
        self
    }
}

struct Search<'a> {
    /// In the order of their calls.
    events: Vec<(usize, &'a Event)>,
    dead: HashSet<(Set, Directory)>,
    nodes: u64,
    order: Vec<usize>,
    longest: Vec<usize>,
}

/// Judges the operations of one directory, which was empty before them.
pub fn search(events: &[Event]) -> Verdict {
    let mut sorted: Vec<(usize, &Event)> = (events.iter().enumerate())
        .filter(|(_, event)| event.outcome != Outcome::NotDone)
        .filter(|(_, event)| !(event.outcome == Outcome::Unknown && event.ask.is_read()))
        .collect();
    sorted.sort_by_key(|(_, event)| event.invoked);
    if sorted.len() > EVENTS_MAX {
        return Verdict::Undecided;
    }
    let mut search = Search {
        events: sorted,
        dead: HashSet::new(),
        nodes: 0,
        order: Vec::new(),
        longest: Vec::new(),
    };
    match search.go(Set::default(), Directory::default()) {
        Some(true) => Verdict::Linearizable,
        Some(false) => Verdict::Impossible {
            longest: search.longest,
        },
        None => Verdict::Undecided,
    }
}

impl Search<'_> {
    /// Whether all answered operations can follow; `None` when that was given up.
    fn go(&mut self, taken: Set, state: Directory) -> Option<bool> {
        let before = self.order.len();
        let found = self.go_on(taken, state);
        if found != Some(true) {
            self.order.truncate(before);
        }
        found
    }

    fn go_on(&mut self, mut taken: Set, state: Directory) -> Option<bool> {
        let mut candidates;
        loop {
            candidates = self.candidates(&taken);
            let quiet = candidates.iter().copied().find(|&at| {
                let event = self.events[at].1;
                event.ends().is_some()
                    && state.step(event.ask, &event.outcome).as_ref() == Some(&state)
            });
            let Some(at) = quiet else { break };
            taken = taken.with(at);
            self.order.push(self.events[at].0);
        }
        if self.order.len() > self.longest.len() {
            self.longest.clone_from(&self.order);
        }
        let open = |at: &usize| self.events[*at].1.ends().is_some();
        if !candidates.iter().any(open) {
            // Candidates always hold the answered one that ends first: there is none left.
            return Some(true);
        }
        if self.dead.contains(&(taken, state.clone())) {
            return Some(false);
        }
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return None;
        }
        candidates.sort_by_key(|&at| self.events[at].1.ends().unwrap_or(u64::MAX));
        for at in candidates {
            let (number, event) = self.events[at];
            let Some(next) = state.step(event.ask, &event.outcome) else {
                continue;
            };
            self.order.push(number);
            match self.go(taken.with(at), next) {
                Some(false) => {}
                found => return found,
            }
            self.order.pop();
        }
        self.dead.insert((taken, state));
        Some(false)
    }

    /// Operations that may come next: called before any that is not taken was answered.
    fn candidates(&self, taken: &Set) -> Vec<usize> {
        let left = || (0..self.events.len()).filter(|at| !taken.has(*at));
        let first_end = left()
            .filter_map(|at| self.events[at].1.ends())
            .min()
            .unwrap_or(u64::MAX);
        left()
            .take_while(|&at| self.events[at].1.invoked < first_end)
            .collect()
    }
}
