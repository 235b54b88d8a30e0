//! What a client does in the crash tests: everything a node can do, with folds, compaction of
//! the log and of packs forced in between.

use super::{CHUNK_BYTES, sample, settings};
use crate::limits::MANIFEST_PAGE_REFS;
use crate::shard::command::{Op, Removal};
use crate::shard::records::{ChunkRef, Settings};
use crate::shard::testing::{mkdir, path, put, remove, version};
use crate::types::{ChunkHash, FileVersion, Inode, Precondition, Replacement, UploadId};
use bytes::Bytes;

/// One step; the next begins once all of it is answered.
pub enum Step {
    /// Requests at once, each on a lane of its own; with a fold beside them.
    Ask {
        asks: Vec<(u16, Vec<Op>)>,
        fold: bool,
    },
    /// Chunks arrive.
    Chunks(Vec<Bytes>),
    /// Chunks that nothing references go, and the packs are compacted.
    Drop(Vec<Bytes>),
    Fold,
    /// The log lets go of what it may, while changes wait for a fold.
    Compact,
    /// Chores: deletions that are due (all if `true`), uploads, versions, lanes, change rows.
    Clean(bool),
}

/// Where the player fills in the directory that an upload was reserved in.
pub const RESERVED: Inode = Inode(0);

fn one(op: Op) -> Step {
    Step::Ask {
        asks: vec![(0, vec![op])],
        fold: false,
    }
}

fn upload(number: u8) -> UploadId {
    UploadId([number; 16])
}

fn reserve(number: u8, at: &str, precondition: Precondition) -> Step {
    one(Op::Reserve {
        path: path(at),
        upload: upload(number),
        precondition,
        mode: 0o640,
    })
}

fn refs(chunks: &[Bytes]) -> Vec<ChunkRef> {
    let one = |bytes: &Bytes| ChunkRef {
        hash: ChunkHash::of(bytes),
        len: bytes.len() as u32,
    };
    chunks.iter().map(one).collect()
}

fn commit(number: u8, pages: usize, tail: &[Bytes]) -> Step {
    let full = pages * MANIFEST_PAGE_REFS * CHUNK_BYTES;
    let mut hasher = blake3::Hasher::new();
    for bytes in tail {
        hasher.update(bytes);
    }
    one(Op::Commit {
        parent: RESERVED,
        upload: upload(number),
        size: (full + tail.iter().map(Bytes::len).sum::<usize>()) as u64,
        hash: ChunkHash(*hasher.finalize().as_bytes()),
        tail: refs(tail),
    })
}

fn rename(from: &str, to: &str) -> Op {
    Op::Rename {
        from: path(from),
        to: path(to),
        replace: Replacement::Never,
    }
}

fn long(salt: char) -> String {
    std::iter::repeat_n(salt, 3_000).collect()
}

/// Puts of three kilobytes on four lanes at once: a segment's worth in two steps.
fn burst(dir: &str, name: &str, fold: bool) -> Step {
    let ask = |lane: u16| {
        let file = format!("{dir}/{name}{lane}");
        (
            lane,
            vec![put(
                &file,
                &long((b'a' + lane as u8) as char),
                Precondition::Absent,
            )],
        )
    };
    Step::Ask {
        asks: (1..=4).map(ask).collect(),
        fold,
    }
}

/// The whole script. Inode numbers are given, freed and given again; sessions go on over folds.
pub fn script() -> Vec<Step> {
    let full = [
        sample(1, CHUNK_BYTES),
        sample(2, CHUNK_BYTES),
        sample(3, CHUNK_BYTES),
    ];
    let [c0, c1, c2] = full;
    let (t0, t1) = (sample(4, 900), sample(5, 1_500));
    let junk: Vec<Bytes> = (10..17).map(|salt| sample(salt, 1_000)).collect();
    let page = refs(&vec![c0.clone(); MANIFEST_PAGE_REFS]);
    let mut steps = tree(&c0, &c1, &t0);
    steps.extend([
        reserve(2, "/c/huge", Precondition::Absent),
        one(Op::Stage {
            parent: RESERVED,
            upload: upload(2),
            page: 0,
            chunks: page,
        }),
        commit(2, 1, &[c1.clone(), t0.clone()]),
        Step::Fold,
        Step::Chunks([&[c2.clone(), t1.clone()], &junk[..]].concat()),
        reserve(3, "/a/big", version(1)),
        commit(3, 0, &[c2, t1]),
        one(Op::Restore {
            path: path("/a/big"),
            version: FileVersion(1),
        }),
        Step::Drop(junk),
    ]);
    steps.extend(ends());
    steps
}

/// Makes directories, small files and their versions, and a file of chunks.
fn tree(c0: &Bytes, c1: &Bytes, t0: &Bytes) -> Vec<Step> {
    let tail = [c0.clone(), c1.clone(), t0.clone()];
    vec![
        Step::Ask {
            asks: vec![(0, vec![mkdir("/a"), mkdir("/a/b"), mkdir("/c")])],
            fold: false,
        },
        burst("/a", "f", false),
        Step::Chunks(tail.to_vec()),
        reserve(1, "/a/big", Precondition::Absent),
        commit(1, 0, &tail),
        Step::Fold,
        one(put("/a/f1", "second", version(1))),
        one(put("/a/f1", "third", version(2))),
        // Refused: a refusal is an outcome too.
        one(put("/a/f1", "not this", version(1))),
        one(rename("/a/f2", "/c/g2")),
        burst("/c", "g", true),
        one(Op::Copy {
            from: path("/a/big"),
            version: None,
            to: path("/c/copy"),
            precondition: Precondition::Absent,
        }),
    ]
}

/// Removes, brings back, cleans up, and makes anew.
fn ends() -> Vec<Step> {
    let thrifty = Settings {
        grace_ms: 0,
        keep_versions: 1,
        ..settings()
    };
    vec![
        one(Op::SetAttrs {
            path: path("/a/f3"),
            mode: Some(0o600),
            owner: None,
            group: None,
        }),
        one(remove("/a/b", Removal::EmptyDir)),
        one(Op::Undelete { path: path("/a/b") }),
        one(rename("/a", "/d")),
        burst("/d/b", "h", false),
        Step::Compact,
        one(put("/d/f3", "again", version(1))),
        Step::Fold,
        one(Op::Settings(thrifty)),
        one(remove("/c", Removal::Tree)),
        Step::Clean(false),
        one(remove("/d/f4", Removal::File)),
        one(mkdir("/c")),
        Step::Clean(true),
        burst("/c", "i", true),
        reserve(4, "/d/x", Precondition::Absent),
        one(Op::Abort {
            parent: RESERVED,
            upload: upload(4),
        }),
        Step::Fold,
        burst("/d", "j", false),
        one(rename("/d/j1", "/c/j1")),
        Step::Fold,
        one(remove("/c", Removal::Tree)),
        Step::Clean(false),
        Step::Fold,
        // The newest number of all is freed, and another one is given.
        one(mkdir("/e")),
        one(remove("/e", Removal::EmptyDir)),
        Step::Clean(false),
        one(mkdir("/f")),
    ]
}
