//! Takes down what clients ask and are told, and says where they work. Shared by all clients of a
//! simulation; read by `run` when it is over.

use super::content::bytes_of;
use super::history::{Ask, ContentId, Event, Outcome};
use super::network::Network;
use super::oracle::EVENTS_MAX;
use super::trace::Trace;
use crate::types::ChunkHash;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Directories that are worked in at a time.
const OPEN_DIRECTORIES: usize = 3;
/// A directory is left after so many operations, or so many of unknown outcome: each of these
/// doubles what a search may have to look at.
const EVENTS_EACH: usize = 70;
const UNKNOWN_EACH: usize = 7;
// What runs when a directory is left, and the questions at the end, fit beside them.
const _: () = assert!(EVENTS_EACH * 2 < EVENTS_MAX);

/// Everything recorded. Clones are the same.
#[derive(Clone)]
pub struct Recorder {
    state: Arc<Mutex<State>>,
    network: Network,
    trace: Trace,
}

#[derive(Default)]
struct State {
    /// Numbers moments.
    clock: u64,
    directories: Vec<Vec<Event>>,
    /// Those of them whose making was acknowledged.
    made: BTreeSet<u32>,
    open: Vec<u32>,
    contents: BTreeMap<ChunkHash, (ContentId, usize)>,
    next_content: ContentId,
    stopping: bool,
    /// Something stored could not be read, or was damaged: it may be called so.
    damaged: bool,
    slow: bool,
    /// Operations under way, of each client.
    running: BTreeMap<usize, usize>,
    /// What cannot be, whatever the order.
    violations: Vec<String>,
    /// How long answered operations took, and when the last was answered.
    slowest: Duration,
    answered: u64,
}

/// An operation under way.
#[must_use]
pub struct Running {
    directory: u32,
    at: usize,
    began: Duration,
}

impl Recorder {
    pub fn new(network: Network, trace: Trace) -> Recorder {
        Recorder {
            state: Arc::default(),
            network,
            trace,
        }
    }

    /// A directory to work in; `pick` chooses.
    pub fn directory(&self, pick: usize) -> u32 {
        let mut state = self.state.lock();
        let place = pick % OPEN_DIRECTORIES;
        let full = match state.open.get(place) {
            None => true,
            Some(&directory) => {
                let events = &state.directories[directory as usize];
                let unknown = |event: &&Event| event.outcome == Outcome::Unknown;
                let changes = |event: &&Event| !event.ask.is_read();
                events.len() >= EVENTS_EACH
                    || events.iter().filter(unknown).filter(changes).count() >= UNKNOWN_EACH + 6
            }
        };
        if !full {
            return state.open[place];
        }
        let new = state.directories.len() as u32;
        state.directories.push(Vec::new());
        match state.open.get_mut(place) {
            Some(there) => *there = new,
            None => state.open.push(new),
        }
        *state.open.get(place).unwrap_or(&new)
    }

    /// The directory's making was acknowledged: from now on it is there.
    pub fn made(&self, directory: u32) {
        self.state.lock().made.insert(directory);
    }

    /// False as long as whoever was to make the directory has died over it or was not answered.
    pub fn is_made(&self, directory: u32) -> bool {
        self.state.lock().made.contains(&directory)
    }

    /// A content that nobody has put before.
    pub fn content(&self, len: usize) -> (ContentId, Bytes) {
        let mut state = self.state.lock();
        let id = state.next_content;
        state.next_content += 1;
        let bytes = bytes_of(id, len);
        state.contents.insert(ChunkHash::of(&bytes), (id, len));
        (id, bytes)
    }

    /// Which content has this hash; what nobody put is a violation.
    pub fn content_of(&self, hash: ChunkHash, len: u64, where_: &str) -> ContentId {
        let mut state = self.state.lock();
        match state.contents.get(&hash) {
            Some((id, size)) if *size as u64 == len => *id,
            _ => {
                let text = format!("{where_}: a content of {len} bytes that nobody put ({hash})");
                state.violations.push(text);
                ContentId::MAX
            }
        }
    }

    /// Something that cannot be.
    pub fn violation(&self, text: String) {
        self.trace
            .note(self.network.now(), format_args!("violation: {text}"));
        self.state.lock().violations.push(text);
    }

    /// An operation begins; until it ends its outcome is unknown.
    pub fn invoke(&self, client: usize, directory: u32, ask: Ask) -> Running {
        let now = self.network.now();
        self.trace.note(
            now,
            format_args!("client {client} asks {directory} {ask:?}"),
        );
        let mut state = self.state.lock();
        state.clock += 1;
        *state.running.entry(client).or_default() += 1;
        let event = Event {
            client,
            ask,
            invoked: state.clock,
            returned: u64::MAX,
            outcome: Outcome::Unknown,
        };
        let events = &mut state.directories[directory as usize];
        events.push(event);
        Running {
            directory,
            at: events.len() - 1,
            began: now,
        }
    }

    /// It ended so.
    pub fn answer(&self, running: Running, outcome: Outcome) {
        let now = self.network.now();
        let mut state = self.state.lock();
        state.clock += 1;
        let returned = state.clock;
        if matches!(outcome, Outcome::Told(_)) {
            state.answered += 1;
            state.slowest = state.slowest.max(now.saturating_sub(running.began));
        }
        let event = &mut state.directories[running.directory as usize][running.at];
        event.returned = returned;
        event.outcome = outcome;
        let client = event.client;
        *state.running.entry(client).or_default() -= 1;
        let event = &state.directories[running.directory as usize][running.at];
        self.trace.note(now, format_args!("answer {event:?}"));
    }

    /// Operations of a client that has died are answered by nobody.
    pub fn died(&self, client: usize) {
        self.state.lock().running.remove(&client);
    }

    /// Clients are to end what they do and begin nothing.
    pub fn stop(&self) {
        self.state.lock().stopping = true;
    }

    /// Something stored cannot be read for a while, or is damaged.
    pub fn damaged(&self) {
        self.state.lock().damaged = true;
    }

    pub fn had_damage(&self) -> bool {
        self.state.lock().damaged
    }

    /// Clients are to take their time.
    pub fn slow_down(&self) {
        self.state.lock().slow = true;
    }

    pub fn is_slow(&self) -> bool {
        self.state.lock().slow
    }

    pub fn is_stopping(&self) -> bool {
        self.state.lock().stopping
    }

    pub fn running(&self) -> usize {
        self.state.lock().running.values().sum()
    }

    /// Answered operations so far.
    pub fn answered(&self) -> u64 {
        self.state.lock().answered
    }

    pub fn slowest(&self) -> Duration {
        self.state.lock().slowest
    }

    /// Histories of all directories so far.
    pub fn directories(&self) -> Vec<Vec<Event>> {
        self.state.lock().directories.clone()
    }

    pub fn violations(&self) -> Vec<String> {
        self.state.lock().violations.clone()
    }
}
