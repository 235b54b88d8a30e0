//! Random histories against a plain model of a tree.
//!
//! After each step the shard's records are checked, the outcome and everything that can be seen
//! are compared with the model. Each history is applied a second time in one batch, and a third
//! time cut into batches of three commands: the records must be the same.

use crate::error::Code;
use crate::proto::EntryView;
use crate::shard::command::{Applied, Chore, Command, Op, Removal};
use crate::shard::records::{ChunkRef, Outcome, Settings};
use crate::shard::testing::{TestShard, path};
use crate::shard::{Batch, apply, read};
use crate::types::{ChunkHash, DfsPath, FileVersion, Inode, Precondition, Replacement, UploadId};
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::BTreeMap;

// --- the model ---

#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    File {
        /// All contents ever, by version; those past retention stay here.
        versions: Vec<String>,
        id: u64,
    },
    Dir(BTreeMap<String, Node>),
}

#[derive(Clone, Debug, Default)]
struct Model {
    root: BTreeMap<String, Node>,
    /// (directory's path at removal is not enough: directories are followed by number).
    removed: Vec<(u64, String, Node)>,
    next: u64,
}

type Verdict = Result<(), Code>;

impl Model {
    fn parent(&mut self, at: &DfsPath) -> Result<(&mut BTreeMap<String, Node>, String), Code> {
        let name = at.name().ok_or(Code::Usage)?.to_string();
        let mut dir = &mut self.root;
        for part in at.parent().ok_or(Code::Usage)?.names() {
            dir = match dir.get_mut(part.as_str()) {
                None => return Err(Code::NotFound),
                Some(Node::File { .. }) => return Err(Code::Conflict),
                Some(Node::Dir(below)) => below,
            };
        }
        Ok((dir, name))
    }

    fn get(&mut self, at: &DfsPath) -> Result<Node, Code> {
        let (dir, name) = self.parent(at)?;
        dir.get(&name).cloned().ok_or(Code::NotFound)
    }

    fn mkdir(&mut self, at: &DfsPath, parents: bool) -> Verdict {
        if parents {
            let mut dir = &mut self.root;
            // All or nothing: a file on the way is found before anything is made.
            for part in at.names() {
                match dir.get_mut(part.as_str()) {
                    None => break,
                    Some(Node::File { .. }) => return Err(Code::Conflict),
                    Some(Node::Dir(below)) => dir = below,
                }
            }
            let mut dir = &mut self.root;
            for part in at.names() {
                let node = dir
                    .entry(part.to_string())
                    .or_insert_with(|| Node::Dir(BTreeMap::new()));
                let Node::Dir(below) = node else {
                    unreachable!("looked at above")
                };
                dir = below;
            }
            return Ok(());
        }
        let (dir, name) = self.parent(at)?;
        if dir.contains_key(&name) {
            return Err(Code::Exists);
        }
        dir.insert(name, Node::Dir(BTreeMap::new()));
        Ok(())
    }

    fn write(&mut self, at: &DfsPath, text: &str, precondition: Precondition) -> Verdict {
        self.next += 1;
        let id = self.next;
        let (dir, name) = self.parent(at)?;
        match (dir.get_mut(&name), precondition) {
            (Some(Node::Dir(_)), _) => Err(Code::Conflict),
            (_, Precondition::Any) => Err(Code::Usage),
            (Some(_), Precondition::Absent) => Err(Code::Exists),
            (None, Precondition::Version(_) | Precondition::Exactly { .. }) => Err(Code::NotFound),
            (Some(_), Precondition::Exactly { inode, .. }) if inode == OTHER => Err(Code::Conflict),
            (
                Some(Node::File { versions, .. }),
                Precondition::Version(wanted)
                | Precondition::Exactly {
                    version: wanted, ..
                },
            ) => {
                if versions.len() as u64 != wanted.0 {
                    return Err(Code::Conflict);
                }
                versions.push(text.to_owned());
                Ok(())
            }
            (None, Precondition::Absent) => {
                let versions = vec![text.to_owned()];
                dir.insert(name, Node::File { versions, id });
                Ok(())
            }
        }
    }

    fn remove(&mut self, at: &DfsPath, what: Removal) -> Verdict {
        let (dir, name) = self.parent(at)?;
        match (dir.get(&name).ok_or(Code::NotFound)?, what) {
            (Node::File { .. }, Removal::EmptyDir) => return Err(Code::Conflict),
            (Node::Dir(_), Removal::File) => return Err(Code::Conflict),
            (Node::Dir(below), Removal::EmptyDir | Removal::FileOrEmptyDir)
                if !below.is_empty() =>
            {
                return Err(Code::NotEmpty);
            }
            _ => {}
        }
        let node = dir.remove(&name).expect("it was there");
        self.removed.push((0, at.to_string(), node));
        Ok(())
    }

    fn rename(&mut self, from: &DfsPath, to: &DfsPath, replace: Replacement) -> Verdict {
        let moved = self.get(from)?;
        if from == to {
            return Ok(());
        }
        let is_dir = matches!(moved, Node::Dir(_));
        if is_dir && to.is_at_or_below(from) {
            return Err(Code::Usage);
        }
        let (dir, name) = self.parent(to)?;
        match (dir.get(&name), replace, is_dir) {
            (None, _, _) => {}
            (Some(_), Replacement::Never, _) => return Err(Code::Exists),
            (Some(Node::File { .. }), _, true) => return Err(Code::Conflict),
            (Some(Node::Dir(_)), _, false) => return Err(Code::Conflict),
            (Some(Node::Dir(below)), _, true) if !below.is_empty() => return Err(Code::NotEmpty),
            (Some(_), _, _) => {}
        }
        let (dir, name) = self.parent(from)?;
        dir.remove(&name);
        let (dir, name) = self.parent(to)?;
        dir.insert(name, moved);
        Ok(())
    }
}

// --- steps ---

/// The inode of no file.
const OTHER: Inode = Inode(u64::MAX);

/// One step of a history. Paths are few, so that they meet.
#[derive(Clone, Debug)]
enum Step {
    Mkdir(DfsPath, bool),
    /// `ask`: what the precondition is made of (absent, right version, wrong version, right
    /// file, any, another file).
    Put(DfsPath, String, u8),
    /// An upload in one go: reserve, commit of so many chunks.
    Upload(DfsPath, u8, u8),
    /// Only the reservation; never committed.
    Reserve(DfsPath, u8),
    Remove(DfsPath, Removal),
    Rename(DfsPath, DfsPath, bool),
    Copy(DfsPath, DfsPath, u8),
    Restore(DfsPath, u64),
    Undelete(DfsPath),
    Chmod(DfsPath, u16),
    Cleanup(u32, bool),
    Expire,
    Pass(u64),
    /// The last request comes again.
    Repeat,
}

fn any_path() -> impl Strategy<Value = DfsPath> {
    prop::collection::vec("[ab]", 1..4).prop_map(|names| path(&format!("/{}", names.join("/"))))
}

fn any_removal() -> impl Strategy<Value = Removal> {
    prop::sample::select(vec![
        Removal::File,
        Removal::FileOrEmptyDir,
        Removal::EmptyDir,
        Removal::Tree,
    ])
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (any_path(), any::<bool>()).prop_map(|(at, parents)| Step::Mkdir(at, parents)),
        6 => (any_path(), "[xyz]{0,3}", 0u8..7).prop_map(|(at, text, ask)| Step::Put(at, text, ask)),
        3 => (any_path(), 0u8..3, 0u8..4).prop_map(|(at, n, ask)| Step::Upload(at, n, ask)),
        1 => (any_path(), 0u8..4).prop_map(|(at, ask)| Step::Reserve(at, ask)),
        4 => (any_path(), any_removal()).prop_map(|(at, what)| Step::Remove(at, what)),
        4 => (any_path(), any_path(), any::<bool>()).prop_map(|(a, b, posix)| Step::Rename(a, b, posix)),
        2 => (any_path(), any_path(), 0u8..4).prop_map(|(a, b, ask)| Step::Copy(a, b, ask)),
        2 => (any_path(), 0u64..4).prop_map(|(at, version)| Step::Restore(at, version)),
        2 => any_path().prop_map(Step::Undelete),
        1 => (any_path(), 0u16..0o1000).prop_map(|(at, mode)| Step::Chmod(at, mode)),
        2 => (1u32..6, any::<bool>()).prop_map(|(records, now)| Step::Cleanup(records, now)),
        1 => Just(Step::Expire),
        2 => (0u64..40_000).prop_map(Step::Pass),
        1 => Just(Step::Repeat),
    ]
}

struct Run {
    shard: TestShard,
    model: Model,
    commands: Vec<Command>,
    answers: Vec<Applied>,
    last: Option<(Command, Applied)>,
    uploads: u8,
}

/// Few versions, short times: retention and expiry happen within a history.
fn settings() -> Settings {
    Settings {
        inline_bytes: 64,
        chunk_bytes: 4_096,
        keep_versions: 2,
        keep_for_ms: 60_000,
        grace_ms: 50_000,
        upload_ttl_ms: 30_000,
    }
}

impl Run {
    fn new() -> Run {
        Run {
            shard: TestShard::new(settings()),
            model: Model::default(),
            commands: Vec::new(),
            answers: Vec::new(),
            last: None,
            uploads: 0,
        }
    }

    fn command(&mut self, command: Command) -> Applied {
        let applied = self.shard.command(&command);
        self.commands.push(command.clone());
        self.answers.push(applied.clone());
        applied
    }

    fn op(&mut self, op: Op) -> Outcome {
        let request = self.shard.request(vec![op]);
        let command = self.shard.proposal(vec![request], Vec::new());
        let mut applied = self.command(command.clone());
        self.last = Some((command, applied.clone()));
        applied.requests.remove(0).remove(0)
    }

    fn chore(&mut self, chore: Chore) {
        let command = self.shard.proposal(Vec::new(), vec![chore]);
        self.command(command);
    }

    fn precondition(&mut self, at: &DfsPath, ask: u8) -> Precondition {
        let current = match self.model.get(at) {
            Ok(Node::File { versions, .. }) => versions.len() as u64,
            _ => 0,
        };
        match ask {
            0 | 1 => Precondition::Absent,
            2 => Precondition::Version(FileVersion(current)),
            3 => Precondition::Version(FileVersion(current + 1)),
            4 | 6 => Precondition::Exactly {
                inode: match read::stat(&self.shard.slot, at) {
                    Ok(EntryView::File(file)) if ask == 4 => file.inode,
                    _ => OTHER,
                },
                version: FileVersion(current),
            },
            _ => Precondition::Any,
        }
    }

    fn step(&mut self, step: &Step) {
        match step.clone() {
            Step::Mkdir(at, parents) => {
                let outcome = self.op(Op::Mkdir {
                    path: at.clone(),
                    mode: 0o755,
                    parents,
                });
                same(&outcome, self.model.mkdir(&at, parents));
            }
            Step::Put(at, text, ask) => {
                let precondition = self.precondition(&at, ask);
                let outcome = self.op(Op::Put {
                    path: at.clone(),
                    precondition,
                    mode: 0o644,
                    hash: ChunkHash::of(text.as_bytes()),
                    data: Bytes::from(text.clone()),
                });
                same(&outcome, self.model.write(&at, &text, precondition));
            }
            Step::Upload(at, chunks, ask) => self.upload(&at, chunks, ask),
            Step::Reserve(at, ask) => {
                let precondition = self.precondition(&at, ask);
                let expected = self.reservable(&at, precondition);
                same(&self.reserve(&at, precondition), expected);
            }
            Step::Remove(at, what) => {
                let outcome = self.op(Op::Remove {
                    path: at.clone(),
                    what,
                    precondition: Precondition::Any,
                });
                same(&outcome, self.model.remove(&at, what));
            }
            Step::Rename(from, to, posix) => {
                let replace = match posix {
                    true => Replacement::Posix,
                    false => Replacement::Never,
                };
                let outcome = self.op(Op::Rename {
                    from: from.clone(),
                    to: to.clone(),
                    replace,
                });
                same(&outcome, self.model.rename(&from, &to, replace));
            }
            Step::Copy(from, to, ask) => self.copy(from, to, ask),
            Step::Restore(at, version) => self.restore(at, version),
            Step::Undelete(at) => self.undelete(at),
            Step::Chmod(at, mode) => {
                let outcome = self.op(Op::SetAttrs {
                    path: at.clone(),
                    mode: Some(mode),
                    owner: None,
                    group: None,
                });
                same(&outcome, self.model.get(&at).map(|_| ()));
            }
            Step::Cleanup(records, now) => self.chore(Chore::Cleanup { records, now }),
            Step::Expire => {
                self.chore(Chore::ExpireUploads { uploads: 1 });
                self.chore(Chore::ExpireVersions {
                    behind: Inode(0),
                    rows: 2,
                });
                self.chore(Chore::ExpireLanes { lanes: 1 });
                let upto = read::header(&self.shard.slot).unwrap().revision;
                self.chore(Chore::TrimChanges { upto, rows: 3 });
            }
            Step::Pass(ms) => self.shard.time += ms,
            Step::Repeat => {
                if let Some((command, applied)) = self.last.clone() {
                    let before = self.shard.visible();
                    assert_eq!(self.command(command), applied);
                    assert_eq!(self.shard.visible(), before);
                }
            }
        }
    }

    /// A reservation is judged like the write it prepares.
    fn reservable(&mut self, at: &DfsPath, precondition: Precondition) -> Verdict {
        self.model.clone().write(at, "", precondition)
    }

    fn reserve(&mut self, at: &DfsPath, precondition: Precondition) -> Outcome {
        self.uploads += 1;
        self.op(Op::Reserve {
            path: at.clone(),
            upload: UploadId([self.uploads; 16]),
            precondition,
            mode: 0o600,
        })
    }

    fn upload(&mut self, at: &DfsPath, chunks: u8, ask: u8) {
        let precondition = self.precondition(at, ask);
        // The text of an uploaded file stands for its chunks.
        let text = "#".repeat(usize::from(chunks));
        let chunk = |_| ChunkRef {
            hash: ChunkHash::of(b"a chunk"),
            len: 4_096,
        };
        let tail: Vec<ChunkRef> = (0..chunks).map(chunk).collect();
        let expected = self.model.write(at, &text, precondition);
        if let ([chunk], true) = (&tail[..], ask.is_multiple_of(2)) {
            let outcome = self.op(Op::PutChunk {
                path: at.clone(),
                precondition,
                mode: 0o600,
                chunk: *chunk,
            });
            return same(&outcome, expected);
        }
        let reserved = match (self.reserve(at, precondition), expected) {
            (Ok(done), Ok(())) => done,
            (outcome, expected) => return same(&outcome, expected),
        };
        let hash = match chunks {
            0 => ChunkHash::of(b""),
            _ => ChunkHash::of(b"a chunk"),
        };
        let outcome = self.op(Op::Commit {
            parent: reserved.parent,
            upload: UploadId([self.uploads; 16]),
            size: u64::from(chunks) * 4_096,
            hash,
            tail,
        });
        same(&outcome, Ok(()));
    }

    fn copy(&mut self, from: DfsPath, to: DfsPath, ask: u8) {
        let precondition = self.precondition(&to, ask);
        let expected = match self.model.get(&from) {
            Err(code) => Err(code),
            Ok(Node::Dir(_)) => Err(Code::Conflict),
            Ok(Node::File { versions, .. }) => {
                let text = versions.last().expect("a file has a version").clone();
                self.model.write(&to, &text, precondition)
            }
        };
        let outcome = self.op(Op::Copy {
            from,
            version: None,
            to,
            precondition,
        });
        same(&outcome, expected);
    }

    fn restore(&mut self, at: DfsPath, version: u64) {
        let kept: Vec<u64> = read::versions(&self.shard.slot, &at)
            .map(|all| all.iter().map(|view| view.attrs.version.0).collect())
            .unwrap_or_default();
        let outcome = self.op(Op::Restore {
            path: at.clone(),
            version: FileVersion(version),
        });
        let expected = match self.model.get(&at) {
            Err(code) => Err(code),
            Ok(Node::Dir(_)) => Err(Code::Conflict),
            Ok(Node::File { versions, .. }) => {
                let current = versions.len() as u64;
                match version {
                    _ if version == current => Ok(()),
                    _ if !kept.contains(&version) => Err(Code::NotFound),
                    _ => {
                        let text = versions[version as usize - 1].clone();
                        let right = Precondition::Version(FileVersion(current));
                        self.model.write(&at, &text, right)
                    }
                }
            }
        };
        same(&outcome, expected);
    }

    /// What comes back is taken from the shard's own list of deletions; the model says what it
    /// must look like.
    fn undelete(&mut self, at: DfsPath) {
        let parent = at.parent().expect("not the root");
        let name = at.name().expect("not the root");
        let listed = read::deleted(&self.shard.slot, &parent)
            .map(|rows| rows.iter().any(|row| row.name == name))
            .unwrap_or(false);
        let expected = match self.model.parent(&at) {
            Err(code) => Err(code),
            Ok((dir, name)) if dir.contains_key(&name) => Err(Code::Exists),
            Ok(_) if listed => Ok(()),
            Ok(_) => Err(Code::NotFound),
        };
        let outcome = self.op(Op::Undelete { path: at.clone() });
        same(&outcome, expected);
        if outcome.is_ok() {
            let node = seen(&self.shard, &at);
            // It must be something that was removed, whole.
            assert!(
                self.model
                    .removed
                    .iter()
                    .any(|(_, _, removed)| alike(removed, &node)),
                "{at} came back as {node:?}"
            );
            let (dir, name) = self.model.parent(&at).expect("it was found");
            dir.insert(name, node);
        }
    }

    /// Compares everything that can be seen.
    fn compare(&self) {
        let Node::Dir(shown) = seen(&self.shard, &DfsPath::root()) else {
            unreachable!("the root is a directory")
        };
        assert!(
            alike(
                &Node::Dir(shown.clone()),
                &Node::Dir(self.model.root.clone())
            ),
            "shard: {shown:?}\nmodel: {:?}",
            self.model.root
        );
    }
}

fn same(outcome: &Outcome, expected: Verdict) {
    let code = match outcome {
        Ok(_) => Ok(()),
        Err(error) => Err(error.code),
    };
    assert_eq!(code, expected, "{outcome:?}");
}

/// Same names, same current contents, same version numbers.
fn alike(a: &Node, b: &Node) -> bool {
    match (a, b) {
        (Node::File { versions: a, .. }, Node::File { versions: b, .. }) => {
            a.len() == b.len() && a.last() == b.last()
        }
        (Node::Dir(a), Node::Dir(b)) => {
            a.len() == b.len()
                && a.iter()
                    .zip(b)
                    .all(|((name_a, a), (name_b, b))| name_a == name_b && alike(a, b))
        }
        _ => false,
    }
}

/// What the shard shows at a path, old versions included where they are kept.
fn seen(shard: &TestShard, at: &DfsPath) -> Node {
    match read::lookup(&shard.slot, at).unwrap() {
        read::Found::Dir { record, .. } => {
            let below: BTreeMap<String, Node> = shard
                .names(at.as_str())
                .into_iter()
                .map(|name| {
                    let child = at.join(&crate::types::Name::parse(&name).unwrap()).unwrap();
                    let node = seen(shard, &child);
                    (name, node)
                })
                .collect();
            assert_eq!(record.totals.entries, count(&below), "{at}");
            Node::Dir(below)
        }
        read::Found::File { inode, attrs, .. } => {
            let mut versions = vec![String::new(); attrs.version.0 as usize];
            for view in read::versions(&shard.slot, at).unwrap() {
                let version = view.attrs.version;
                let found = read::resolve(&shard.slot, at, Some(version), 0, None).unwrap();
                versions[version.0 as usize - 1] = match found.inline {
                    Some(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
                    None => "#".repeat(found.chunks.len()),
                };
            }
            Node::File {
                versions,
                id: inode.0,
            }
        }
        read::Found::Mount { .. } => unreachable!("no mounts in these histories"),
    }
}

fn count(below: &BTreeMap<String, Node>) -> u64 {
    below
        .values()
        .map(|node| match node {
            Node::File { .. } => 1,
            Node::Dir(below) => 1 + count(below),
        })
        .sum()
}

/// Applies the commands in batches of `size`.
fn replay(commands: &[Command], size: usize) -> (TestShard, Vec<Applied>) {
    let mut shard = TestShard::new(settings());
    let mut answers = Vec::new();
    for chunk in commands.chunks(size) {
        let mut batch = Batch::new(&shard.slot).unwrap();
        for command in chunk {
            answers.push(apply(&mut batch, command).unwrap());
        }
        let changes = batch.finish();
        shard.slot.write(changes);
    }
    (shard, answers)
}

/// A few histories each time; `PROPTEST_CASES` asks for more.
fn config() -> ProptestConfig {
    let mut config = ProptestConfig::default();
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = 64;
    }
    config
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn shard_does_what_the_model_does(steps in prop::collection::vec(any_step(), 1..60)) {
        let mut run = Run::new();
        for step in &steps {
            run.step(step);
            run.compare();
        }
        for size in [3, usize::MAX] {
            let (shard, answers) = replay(&run.commands, size);
            prop_assert_eq!(&answers, &run.answers);
            prop_assert_eq!(&shard.slot.0, &run.shard.slot.0);
        }
        // Everything that was removed can be cleaned up to the last record.
        run.shard.clean();
    }
}
