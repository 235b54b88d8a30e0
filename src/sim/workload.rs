//! What simulated clients do: they put, get, list, rename and remove in a few small directories
//! and take down what they asked and were told. Started by `run`.

use super::cluster::{CHUNK_BYTES, INLINE_BYTES};
use super::history::{Ask, NAMES, NameId, Outcome, Over, Seen, Thing, Told};
use super::recorder::Recorder;
use crate::client::{Client, GetOptions, ListOptions, NoProgress, OpIds, Overwrite, PutOptions};
use crate::error::{Code, Error, Result};
use crate::proto::EntryView;
use crate::shard::command::Removal;
use crate::types::{ChunkHash, DfsPath, FileVersion, Precondition, ReadLevel, Replacement};
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The longest pause between two operations of one worker; and when it takes its time.
const PAUSE_MAX_MS: u64 = 60;
const SLOW_PAUSE_MAX_MS: u64 = 3_000;
/// One in so many times a worker wants the garbage taken out.
const GARBAGE: u32 = 50;

/// One of a client's tasks.
pub struct Worker {
    pub number: usize,
    pub client: Client,
    pub recorder: Recorder,
    rng: StdRng,
    /// Directories that are there.
    made: BTreeSet<u32>,
    /// The versions seen last.
    seen: BTreeMap<(u32, NameId), u64>,
}

impl Worker {
    pub fn new(number: usize, client: Client, recorder: Recorder, seed: u64) -> Worker {
        Worker {
            number,
            client,
            recorder,
            rng: StdRng::seed_from_u64(seed),
            made: BTreeSet::new(),
            seen: BTreeMap::new(),
        }
    }

    /// Works until it is told to stop.
    pub async fn work(mut self) {
        while !self.recorder.is_stopping() {
            let directory = self.recorder.directory(self.rng.random_range(0..64));
            if self.make(directory).await {
                let (ask, content) = self.draw(directory);
                self.ask(directory, ask, content).await;
            }
            if self.rng.random_ratio(1, GARBAGE) {
                // Whether or not it is answered, nothing may change by it.
                let _ = self.client.gc(true).await;
            }
            let longest = match self.recorder.is_slow() {
                true => SLOW_PAUSE_MAX_MS,
                false => PAUSE_MAX_MS,
            };
            let pause = self.rng.random_range(0..longest);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    /// Makes the directory unless it is there.
    async fn make(&mut self, directory: u32) -> bool {
        if self.made.contains(&directory) {
            return true;
        }
        let path = path_of(directory);
        let made = self.client.mkdir(&path, 0o755, true, &OpIds::Automatic);
        let there = made.await.is_ok();
        if there {
            self.made.insert(directory);
            self.recorder.made(directory);
        }
        there
    }

    fn draw(&mut self, directory: u32) -> (Ask, Bytes) {
        let name = self.rng.random_range(0..NAMES.len()) as NameId;
        let version = self.seen.get(&(directory, name)).copied();
        let ask = match self.rng.random_range(0..100) {
            0..36 => return self.draw_put(name, version),
            36..54 => Ask::Get { name },
            54..59 => Ask::Stat { name },
            59..64 => Ask::Versions { name },
            64..73 => Ask::Remove {
                name,
                version: version.filter(|_| self.rng.random()),
            },
            73..82 => Ask::Rename {
                from: name,
                to: (name + self.rng.random_range(1..NAMES.len()) as NameId)
                    % NAMES.len() as NameId,
                replace: self.rng.random(),
            },
            82..85 => Ask::Mkdir { name },
            85..89 => Ask::Rmdir { name },
            _ => Ask::List,
        };
        (ask, Bytes::new())
    }

    fn draw_put(&mut self, name: NameId, version: Option<u64>) -> (Ask, Bytes) {
        let over = match (self.rng.random_range(0..10), version) {
            (0..4, _) | (_, None) => Over::Absent,
            (4..7, _) => Over::Found,
            (_, Some(version)) => Over::Version(version),
        };
        let chunked = self.rng.random_range(0..10) < 4;
        let inline = INLINE_BYTES as usize;
        let len = match chunked {
            false => self.rng.random_range(8..=inline),
            // Of one chunk, which goes with its request, or mostly of more.
            true => match self.rng.random() {
                true => self.rng.random_range(inline + 1..=CHUNK_BYTES as usize),
                false => self.rng.random_range(inline + 1..20 * inline),
            },
        };
        let (content, bytes) = self.recorder.content(len);
        let ask = Ask::Put {
            name,
            content,
            over,
            // What is one chunk goes with its request.
            chunked: len > CHUNK_BYTES as usize,
        };
        (ask, bytes)
    }

    /// Asks, and takes down what came back.
    pub async fn ask(&mut self, directory: u32, ask: Ask, content: Bytes) {
        let running = self.recorder.invoke(self.number, directory, ask);
        let outcome = match self.told(directory, ask, content).await {
            Ok(told) => {
                self.remember(directory, ask, &told);
                Outcome::Told(told)
            }
            Err(error) => self.judge(ask, &error),
        };
        self.recorder.answer(running, outcome);
    }

    /// True for the puts of every other content: what comes out of a pipe cannot be sent again, so
    /// that a chunk which is gone before its commit is seen.
    fn piped(&self, ask: Ask) -> bool {
        matches!(ask, Ask::Put { content, .. } if content % 2 == 0)
    }

    async fn told(&self, directory: u32, ask: Ask, content: Bytes) -> Result<Told> {
        let client = &self.client;
        let ids = &OpIds::Automatic;
        let at = |name: NameId| path_in(directory, name);
        match ask {
            Ask::Put { name, over, .. } => {
                let options = PutOptions {
                    overwrite: match over {
                        Over::Absent => Overwrite::IfAbsent,
                        Over::Version(version) => Overwrite::IfVersion(FileVersion(version)),
                        Over::Found => Overwrite::Current,
                    },
                    ..PutOptions::default()
                };
                let to = at(name);
                let report = match self.piped(ask) {
                    true => {
                        let mut pipe = &content[..];
                        let put = client.put_reader(&mut pipe, &to, &options, &NoProgress);
                        put.await?
                    }
                    false => client.put_bytes(content, &to, &options).await?,
                };
                Ok(Told::Wrote {
                    inode: report.inode.0,
                    version: report.version.0,
                })
            }
            Ask::Get { name } => self.get(&at(name), None).await.map(Told::Is),
            Ask::Stat { name } => {
                let view = client.stat(&at(name), ReadLevel::Linearizable).await?;
                Ok(Told::Is(self.thing(&view)))
            }
            Ask::Versions { name } => {
                let views = client.versions(&at(name), ReadLevel::Linearizable).await?;
                let version = |view: &crate::proto::VersionView| {
                    let attrs = &view.attrs;
                    let content = self.recorder.content_of(attrs.hash, attrs.size, "versions");
                    (attrs.version.0, content)
                };
                Ok(Told::Versions(views.iter().map(version).collect()))
            }
            Ask::Remove { name, version } => {
                let precondition = match version {
                    Some(version) => Precondition::Version(FileVersion(version)),
                    None => Precondition::Any,
                };
                let path = at(name);
                let removing = client.remove(&path, Removal::File, precondition, ids);
                removing.await.map(|_| Told::Done)
            }
            Ask::Rename { from, to, replace } => {
                let replace = match replace {
                    true => Replacement::Posix,
                    false => Replacement::Never,
                };
                let (from, to) = (at(from), at(to));
                let renaming = client.rename(&from, &to, replace, ids);
                renaming.await.map(|_| Told::Done)
            }
            Ask::Mkdir { name } => {
                let path = at(name);
                let making = client.mkdir(&path, 0o755, false, ids);
                making.await.map(|_| Told::Done)
            }
            Ask::Rmdir { name } => {
                let path = at(name);
                let removing = client.remove(&path, Removal::EmptyDir, Precondition::Any, ids);
                removing.await.map(|_| Told::Done)
            }
            Ask::List => self.list(directory).await,
        }
    }

    /// The bytes of a file, compared with what was put.
    pub async fn get(&self, path: &DfsPath, version: Option<u64>) -> Result<Thing> {
        let options = GetOptions {
            version: version.map(FileVersion),
            ..GetOptions::default()
        };
        let mut bytes = Vec::new();
        let report = self.client.cat(path, &mut bytes, &options, &NoProgress);
        let report = report.await?;
        let hash = ChunkHash::of(&bytes);
        if hash != report.hash {
            let text = format!(
                "{path}: the bytes got are not of version {}",
                report.version
            );
            self.recorder.violation(text);
        }
        let content = self.recorder.content_of(hash, bytes.len() as u64, "get");
        Ok(Thing::File(Seen {
            inode: None,
            version: report.version.0,
            content,
        }))
    }

    async fn list(&self, directory: u32) -> Result<Told> {
        let options = ListOptions {
            attrs: true,
            ..ListOptions::default()
        };
        let listing = self.client.list_all(&path_of(directory), options).await?;
        let mut names = BTreeMap::new();
        for (name, view) in &listing.entries {
            match NAMES.iter().position(|known| *known == name.as_str()) {
                Some(number) => {
                    names.insert(number as NameId, self.thing(view));
                }
                None => {
                    let text = format!("directory {directory} lists {name}, which nobody made");
                    self.recorder.violation(text);
                }
            }
        }
        Ok(Told::Names(names))
    }

    fn thing(&self, view: &EntryView) -> Thing {
        match view {
            EntryView::File(file) => Thing::File(Seen {
                inode: Some(file.inode.0),
                version: file.attrs.version.0,
                content: self
                    .recorder
                    .content_of(file.attrs.hash, file.attrs.size, "stat"),
            }),
            EntryView::Dir(_) | EntryView::Bare { .. } => Thing::Dir,
        }
    }

    fn remember(&mut self, directory: u32, ask: Ask, told: &Told) {
        match (ask, told) {
            (Ask::Put { name, .. }, Told::Wrote { version, .. })
            | (
                Ask::Get { name } | Ask::Stat { name },
                Told::Is(Thing::File(Seen { version, .. })),
            ) => {
                self.seen.insert((directory, name), *version);
            }
            (Ask::List, Told::Names(names)) => {
                for (name, thing) in names {
                    if let Thing::File(seen) = thing {
                        self.seen.insert((directory, *name), seen.version);
                    }
                }
            }
            _ => {}
        }
    }

    /// What an error says about whether it happened.
    fn judge(&self, ask: Ask, error: &Error) -> Outcome {
        if error.may_have_happened {
            return Outcome::Unknown;
        }
        match error.code {
            Code::Unavailable
                if error.message.contains("is not stored") && !self.recorder.had_damage() =>
            {
                // The grace of chunks is longer than any request is tried.
                let text = format!("{ask:?}: a chunk that was just put is gone: {error}");
                self.recorder.violation(text);
                Outcome::NotDone
            }
            Code::NotFound | Code::Conflict | Code::Exists | Code::NotEmpty | Code::Usage => {
                match ask {
                    // Its reservation may be what was not found.
                    Ask::Put { chunked: true, .. } => Outcome::NotDone,
                    _ => Outcome::Told(Told::Refused(error.code)),
                }
            }
            Code::Unavailable | Code::NoSpace | Code::Denied => Outcome::NotDone,
            Code::Corrupt | Code::Failed if self.recorder.had_damage() => Outcome::NotDone,
            _ => {
                self.recorder
                    .violation(format!("{ask:?} ended so: {:?} {error}", error.code));
                Outcome::NotDone
            }
        }
    }
}

pub fn path_of(directory: u32) -> DfsPath {
    DfsPath::parse(&format!("/d{directory}")).unwrap()
}

pub fn path_in(directory: u32, name: NameId) -> DfsPath {
    let text = format!("/d{directory}/{}", NAMES[usize::from(name)]);
    DfsPath::parse(&text).unwrap()
}
