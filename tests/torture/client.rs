//! The workload and what it knows: each client has a directory of its own, in which it knows for
//! certain what must be there, and all of them fight for a few files by version.

use crate::dice::Dice;
use crate::door::{Door, Outcome, Way};
use crate::support::bytes;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Names of a client's own directory; few, so that they are changed often.
const NAMES: u64 = 24;
/// Files that all clients fight for.
pub const FOUGHT_FOR: u64 = 3;
/// Inline, packed, a chunk of its own, two chunks of the size that the nodes are started with.
const SIZES: [usize; 5] = [0, 900, 40_000, 300_000, 1_300_000];

/// A file as it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    pub version: u64,
    pub seed: u64,
}

impl Known {
    pub fn content(&self) -> Vec<u8> {
        content(self.seed)
    }
}

pub fn content(seed: u64) -> Vec<u8> {
    bytes(seed, SIZES[(seed % SIZES.len() as u64) as usize])
}

pub fn hash(seed: u64) -> String {
    blake3::hash(&content(seed)).to_hex().to_string()
}

/// What all clients share.
pub struct Common {
    pub stop: AtomicBool,
    pub done: AtomicU64,
    /// Who won each version of each file that is fought for: the content's seed.
    pub winners: Mutex<BTreeMap<(u64, u64), u64>>,
    /// Contents that were refused: they may be nowhere.
    pub losers: Mutex<Vec<u64>>,
}

pub struct Client {
    door: Door,
    number: u64,
    common: Arc<Common>,
    pub files: BTreeMap<String, Known>,
    /// Next content.
    seed: u64,
}

impl Client {
    pub fn new(way: &Way, number: u64, dice: Dice, common: Arc<Common>) -> Client {
        Client {
            door: Door::new(way, &format!("c{number}"), dice),
            number,
            common,
            files: BTreeMap::new(),
            seed: number << 40,
        }
    }

    /// Works until it is told to stop; what must be in its directory then, and how often it had to
    /// send again.
    pub fn run(mut self) -> (BTreeMap<String, Known>, u64) {
        let made = self.door.change(&["mkdir", &self.dir()]);
        assert!(matches!(made, Outcome::Done(_)), "{made:?}");
        while !self.common.stop.load(Ordering::Relaxed) {
            match self.door.dice.below(12) {
                0..=2 => self.put_new(),
                3..=4 => self.put_over(),
                5 => self.remove(),
                6 => self.rename(),
                7 => self.list(),
                8..=9 => self.read(),
                _ => self.fight(),
            }
            self.common.done.fetch_add(1, Ordering::Relaxed);
        }
        (self.files, self.door.again)
    }

    fn dir(&self) -> String {
        format!("/c{}", self.number)
    }

    fn path(&self, name: &str) -> String {
        format!("/c{}/{name}", self.number)
    }

    fn any_name(&mut self) -> String {
        format!("f{}", self.door.dice.below(NAMES))
    }

    fn any_file(&mut self) -> Option<(String, Known)> {
        let files: Vec<_> = self.files.iter().map(|(n, k)| (n.clone(), *k)).collect();
        (!files.is_empty()).then(|| self.door.dice.pick(&files).clone())
    }

    /// A new content in the local file.
    fn fresh(&mut self) -> u64 {
        self.seed += 1;
        std::fs::write(self.door.local(), content(self.seed)).unwrap();
        self.seed
    }

    fn put(&mut self, path: &str, how: &[&str]) -> Outcome {
        let local = self.door.local().display().to_string();
        self.door.change(&[&["put"], how, &[&local, path]].concat())
    }

    /// Succeeds if the name is free, else is refused.
    fn put_new(&mut self) {
        let (name, seed) = (self.any_name(), self.fresh());
        let outcome = self.put(&self.path(&name), &[]);
        match (&outcome, self.files.contains_key(&name)) {
            (Outcome::Done(done), false) => {
                let known = Known { version: 1, seed };
                self.told(&name, done, known);
            }
            (Outcome::Refused(code), true) if code == "exists" => self.lost(seed),
            _ => self.wrong(&format!("put of {name}: {outcome:?}")),
        }
    }

    /// By the version it has, or by one it had.
    fn put_over(&mut self) {
        let Some((name, old)) = self.any_file() else {
            return;
        };
        let stale = old.version > 1 && self.door.dice.percent(20);
        let version = old.version - u64::from(stale);
        let seed = self.fresh();
        let outcome = self.put(&self.path(&name), &["--if-version", &version.to_string()]);
        match (&outcome, stale) {
            (Outcome::Done(done), false) => {
                let version = old.version + 1;
                self.told(&name, done, Known { version, seed });
            }
            (Outcome::Refused(code), true) if code == "conflict" => self.lost(seed),
            _ => self.wrong(&format!(
                "put of {name} by version {version} ({old:?}): {outcome:?}"
            )),
        }
    }

    fn remove(&mut self) {
        let Some((name, old)) = self.any_file() else {
            return;
        };
        match self.door.change(&["rm", &self.path(&name)]) {
            Outcome::Done(_) => drop(self.files.remove(&name)),
            other => self.wrong(&format!("rm of {name} ({old:?}): {other:?}")),
        }
    }

    fn rename(&mut self) {
        let Some((name, known)) = self.any_file() else {
            return;
        };
        let to = self.any_name();
        if to == name {
            return;
        }
        let (from, target) = (self.path(&name), self.path(&to));
        let outcome = self.door.change(&["mv", &from, &target]);
        match (&outcome, self.files.contains_key(&to)) {
            (Outcome::Done(_), false) => {
                self.files.remove(&name);
                self.files.insert(to, known);
            }
            (Outcome::Refused(code), true) if code == "exists" => {}
            _ => self.wrong(&format!("mv of {name} to {to}: {outcome:?}")),
        }
    }

    fn list(&mut self) {
        let answer = self.door.ask(&["ls", &self.dir()]);
        let listing = answer.unwrap_or_else(|code| self.wrong(&format!("ls: {code}")));
        let listing: Value = serde_json::from_slice(&listing).unwrap();
        let listed = listed(&listing);
        let wanted: BTreeMap<String, (u64, String)> = (self.files.iter())
            .map(|(name, known)| (name.clone(), (known.version, hash(known.seed))))
            .collect();
        if listed != wanted {
            self.wrong(&format!("the listing is {listed:?}\nand not {wanted:?}"));
        }
    }

    fn read(&mut self) {
        let name = self.any_name();
        let answer = self.door.ask(&["cat", &self.path(&name)]);
        match (answer, self.files.get(&name)) {
            (Ok(found), Some(known)) if found == known.content() => {}
            (Err(code), None) if code == "not_found" => {}
            (Ok(found), known) => self.wrong(&format!(
                "{name} has {} bytes of something else than {known:?}",
                found.len()
            )),
            (Err(code), known) => self.wrong(&format!("{name} ({known:?}): {code}")),
        }
    }

    /// A write by version to a file that everybody writes to.
    fn fight(&mut self) {
        let file = self.door.dice.below(FOUGHT_FOR);
        let path = format!("/fought{file}");
        let version = match self.door.ask(&["stat", &path]) {
            Ok(stat) => {
                let stat: Value = serde_json::from_slice(&stat).unwrap();
                stat["version"].as_u64().expect("a file has a version")
            }
            Err(code) if code == "not_found" => 0,
            Err(code) => self.wrong(&format!("stat of {path}: {code}")),
        };
        let seed = self.fresh();
        let wanted = version.to_string();
        let how: &[&str] = match version {
            0 => &[],
            _ => &["--if-version", &wanted],
        };
        match self.put(&path, how) {
            Outcome::Done(done) => {
                let mut winners = self.common.winners.lock().unwrap();
                let before = winners.insert((file, version + 1), seed);
                drop(winners);
                let told = of(&done)["version"].as_u64();
                if before.is_some() || told != Some(version + 1) {
                    self.wrong(&format!(
                        "{path} by version {version} was won twice ({before:?}, {seed}): {done}"
                    ));
                }
            }
            Outcome::Refused(code) if code == "conflict" || code == "exists" => self.lost(seed),
            Outcome::Refused(code) => self.wrong(&format!("put of {path}: {code}")),
        }
    }

    fn told(&mut self, name: &str, done: &Value, known: Known) {
        let done = of(done);
        if done["version"] != known.version || done["hash"] != hash(known.seed) {
            self.wrong(&format!("{name} is told to be {done}, and not {known:?}"));
        }
        self.files.insert(name.to_owned(), known);
    }

    fn lost(&mut self, seed: u64) {
        self.common.losers.lock().unwrap().push(seed);
    }

    fn wrong(&self, what: &str) -> ! {
        let (number, home) = (self.number, self.door.home().display().to_string());
        panic!("client {number}: {what}\nits journal: {home}/journal-c{number}.txt");
    }
}

/// A put of one file answers with an object, or a list of one.
fn of(done: &Value) -> &Value {
    done.get(0).unwrap_or(done)
}

/// Names of a listing with version and hash.
pub fn listed(listing: &Value) -> BTreeMap<String, (u64, String)> {
    let entries = listing["entries"].as_array().cloned().unwrap_or_default();
    let one = |entry: Value| {
        let path = entry["path"].as_str().unwrap_or_default();
        let name = entry["name"].as_str().or(path.rsplit('/').next());
        let hash = entry["hash"].as_str().unwrap_or_default().to_owned();
        let version = entry["version"].as_u64().unwrap_or_default();
        (name.unwrap_or_default().to_owned(), (version, hash))
    };
    entries.into_iter().map(one).collect()
}
