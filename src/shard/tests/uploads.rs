//! Uploads in two phases.

use crate::error::Code;
use crate::limits::MANIFEST_PAGE_REFS;
use crate::shard::command::{Chore, Done, Op, Removal};
use crate::shard::read;
use crate::shard::records::{ChunkRef, Settings};
use crate::shard::testing::{TestShard, path, put, remove, version};
use crate::types::{ChunkHash, Inode, Precondition, Replacement, Revision, UploadId};

const CHUNK: u64 = 4_096;
const ID: UploadId = UploadId([9; 16]);

fn shard() -> TestShard {
    TestShard::new(Settings {
        chunk_bytes: CHUNK,
        ..Settings::default()
    })
}

fn reserve(at: &str, precondition: Precondition) -> Op {
    Op::Reserve {
        path: path(at),
        upload: ID,
        precondition,
        mode: 0o640,
    }
}

fn chunks(from: u64, count: usize) -> Vec<ChunkRef> {
    (from..)
        .take(count)
        .map(|number| ChunkRef {
            hash: ChunkHash::of(&number.to_be_bytes()),
            len: CHUNK as u32,
        })
        .collect()
}

fn stage(done: Done, page: u32, chunks: Vec<ChunkRef>) -> Op {
    Op::Stage {
        parent: done.parent,
        upload: ID,
        page,
        chunks,
    }
}

fn commit(done: Done, size: u64, tail: Vec<ChunkRef>) -> Op {
    Op::Commit {
        parent: done.parent,
        upload: ID,
        size,
        hash: tail.first().map_or(ChunkHash::of(b""), |chunk| chunk.hash),
        tail,
    }
}

#[test]
fn nothing_shows_before_the_commit() {
    let mut shard = shard();
    let held = shard.op(reserve("/f", Precondition::Absent));
    assert_eq!(held.revision, Revision(0));
    assert_eq!(held.chunk_bytes, CHUNK);
    assert_eq!(shard.op(reserve("/f", Precondition::Absent)), held);
    let page = chunks(0, MANIFEST_PAGE_REFS);
    shard.op(stage(held, 0, page.clone()));
    assert!(shard.names("/").is_empty());
    // A repeated page is the same page; another one is refused.
    shard.op(stage(held, 0, page));
    shard.refused_with(
        stage(held, 0, chunks(7, MANIFEST_PAGE_REFS)),
        Code::Conflict,
    );
    shard.refused_with(
        stage(held, 2, chunks(7, MANIFEST_PAGE_REFS)),
        Code::Conflict,
    );
    shard.refused_with(stage(held, 1, chunks(7, 3)), Code::Usage);
    let size = (MANIFEST_PAGE_REFS as u64 + 1) * CHUNK + 5;
    let mut tail = chunks(9_000, 2);
    tail[1].len = 5;
    let done = shard.op(commit(held, size, tail));
    assert_eq!(done.inode, held.inode);
    let first = read::resolve(&shard.slot, &path("/f"), None, 0, None).unwrap();
    assert_eq!(first.chunks.len(), MANIFEST_PAGE_REFS);
    assert_eq!(first.file.attrs.size, size);
    let pin = Some((done.inode, done.version));
    let second = read::resolve(&shard.slot, &path("/f"), None, 1, pin).unwrap();
    assert_eq!(second.chunks.len(), 2);
    let known = read::knows(
        &shard.slot,
        "ann",
        &[second.chunks[0].hash, ChunkHash::of(b"not there")],
    );
    assert_eq!(known.unwrap(), [true, false]);
    let foreign = read::knows(&shard.slot, "bob", &[second.chunks[0].hash]);
    assert_eq!(foreign.unwrap(), [false]);
    shard.refused_with(commit(held, size, chunks(0, 1)), Code::NotFound);
}

#[test]
fn a_commit_must_add_up() {
    let mut shard = shard();
    let held = shard.op(reserve("/f", Precondition::Absent));
    shard.refused_with(commit(held, CHUNK + 1, chunks(0, 1)), Code::Usage);
    shard.refused_with(commit(held, 2 * CHUNK - 1, chunks(0, 1)), Code::Usage);
    let mut empty = chunks(0, 1);
    empty[0].len = 0;
    shard.refused_with(commit(held, 0, empty), Code::Usage);
    let mut short_first = chunks(0, 2);
    short_first[0].len = 7;
    shard.refused_with(commit(held, CHUNK + 7, short_first), Code::Usage);
    let wrong_hash = Op::Commit {
        parent: held.parent,
        upload: ID,
        size: CHUNK,
        hash: ChunkHash::of(b"other"),
        tail: chunks(0, 1),
    };
    shard.refused_with(wrong_hash, Code::Corrupt);
    shard.op(commit(held, CHUNK, chunks(0, 1)));
}

#[test]
fn an_empty_upload_is_an_empty_file() {
    let mut shard = shard();
    let held = shard.op(reserve("/f", Precondition::Absent));
    shard.op(commit(held, 0, Vec::new()));
    assert_eq!(shard.text("/f"), "");
}

#[test]
fn the_precondition_is_judged_again_at_the_commit() {
    let mut shard = shard();
    let held = shard.op(reserve("/f", Precondition::Absent));
    shard.put("/f", "first", Precondition::Absent);
    let error = shard.refused_with(commit(held, CHUNK, chunks(0, 1)), Code::Exists);
    assert_eq!(error.current_version, Some(1));
    shard.op(Op::Abort {
        parent: held.parent,
        upload: ID,
    });
    // Another file under the same name and version is not the file that was reserved.
    let held = shard.op(reserve("/f", version(1)));
    shard.op(remove("/f", Removal::File));
    shard.refused_with(commit(held, CHUNK, chunks(0, 1)), Code::NotFound);
    shard.put("/f", "another", Precondition::Absent);
    shard.refused_with(commit(held, CHUNK, chunks(0, 1)), Code::Conflict);
    shard.refused_with(reserve("/f", version(7)), Code::Usage);
}

#[test]
fn a_commit_below_a_removed_ancestor_fails_and_a_moved_one_holds() {
    let mut shard = shard();
    shard.mkdir("/a");
    shard.mkdir("/a/b");
    let held = shard.op(reserve("/a/b/f", Precondition::Absent));
    shard.op(remove("/a", Removal::Tree));
    shard.refused_with(commit(held, CHUNK, chunks(0, 1)), Code::NotFound);
    shard.refused_with(
        stage(held, 0, chunks(0, MANIFEST_PAGE_REFS)),
        Code::NotFound,
    );
    shard.op(Op::Undelete { path: path("/a") });
    shard.op(Op::Rename {
        from: path("/a"),
        to: path("/c"),
        replace: Replacement::Never,
    });
    shard.op(commit(held, CHUNK, chunks(0, 1)));
    assert_eq!(shard.names("/c/b"), ["f"]);
}

#[test]
fn an_upload_belongs_to_its_user_and_expires() {
    let mut shard = shard();
    let held = shard.op(reserve("/f", Precondition::Absent));
    let mut request = shard.request(vec![commit(held, CHUNK, chunks(0, 1))]);
    request.user = "eve".into();
    let refused = shard.send(request).remove(0).unwrap_err();
    assert_eq!(refused.code, Code::Denied);
    shard.op(stage(held, 0, chunks(0, MANIFEST_PAGE_REFS)));
    let expire = Chore::ExpireUploads { uploads: 10 };
    assert_eq!(shard.chore(expire.clone()).done, 0);
    assert!(
        read::upload(&shard.slot, held.parent, ID)
            .unwrap()
            .is_some()
    );
    shard.time += Settings::default().upload_ttl_ms;
    shard.refused_with(commit(held, CHUNK, chunks(0, 1)), Code::NotFound);
    let done = shard.chore(expire);
    assert_eq!((done.done, done.more), (1, false));
    assert!(
        read::upload(&shard.slot, held.parent, ID)
            .unwrap()
            .is_none()
    );
    let report = crate::shard::check::check(&shard.slot).unwrap();
    assert_eq!(report.references, 0);
}

#[test]
fn an_upload_of_many_pages_is_aborted_piece_by_piece() {
    let mut shard = shard();
    let held = shard.op(reserve("/f", Precondition::Absent));
    for page in 0..6 {
        let from = u64::from(page) * MANIFEST_PAGE_REFS as u64;
        shard.op(stage(held, page, chunks(from, MANIFEST_PAGE_REFS)));
    }
    let abort = Op::Abort {
        parent: held.parent,
        upload: ID,
    };
    shard.op(abort.clone());
    shard.refused_with(commit(held, CHUNK, chunks(0, 1)), Code::NotFound);
    while shard.chore(Chore::ExpireUploads { uploads: 1 }).more {}
    let report = crate::shard::check::check(&shard.slot).unwrap();
    assert_eq!(report.references, 0);
    assert_eq!(shard.op(abort).inode, Inode(0));
    shard.refused_with(put("/", "x", Precondition::Absent), Code::Conflict);
}

#[test]
fn an_old_version_of_many_pages_is_dropped_piece_by_piece_and_not_shown_meanwhile() {
    let mut shard = shard();
    shard.op(Op::Settings(Settings {
        chunk_bytes: CHUNK,
        keep_versions: 0,
        ..Settings::default()
    }));
    let held = shard.op(reserve("/f", Precondition::Absent));
    for page in 0..24 {
        let from = u64::from(page) * MANIFEST_PAGE_REFS as u64;
        shard.op(stage(held, page, chunks(from, MANIFEST_PAGE_REFS)));
    }
    let size = 24 * MANIFEST_PAGE_REFS as u64 * CHUNK;
    let first = shard.op(commit(held, size, Vec::new()));
    shard.put("/f", "small", version(1));
    // Its content goes later, but nobody sees it any more.
    let old =
        |shard: &TestShard| read::resolve(&shard.slot, &path("/f"), Some(first.version), 0, None);
    assert_eq!(old(&shard).unwrap_err().code, Code::NotFound);
    assert_eq!(read::versions(&shard.slot, &path("/f")).unwrap().len(), 1);
    let restore = Op::Restore {
        path: path("/f"),
        version: first.version,
    };
    shard.refused_with(restore, Code::NotFound);
    let mut behind = Inode(0);
    let mut rounds = 0;
    loop {
        let done = shard.chore(Chore::ExpireVersions { behind, rows: 10 });
        rounds += 1;
        behind = done.next;
        if !done.more {
            break;
        }
        // 0 would mean to begin again.
        assert_ne!(behind, Inode(0));
    }
    assert!(rounds > 1);
    let report = crate::shard::check::check(&shard.slot).unwrap();
    assert_eq!((report.references, report.problems.len()), (0, 0));
}

#[test]
fn a_reader_of_a_removed_file_is_told_so_however_much_of_it_is_left() {
    let mut shard = shard();
    let held = shard.op(reserve("/f", Precondition::Absent));
    for page in 0..4 {
        let from = u64::from(page) * MANIFEST_PAGE_REFS as u64;
        shard.op(stage(held, page, chunks(from, MANIFEST_PAGE_REFS)));
    }
    let size = 4 * MANIFEST_PAGE_REFS as u64 * CHUNK;
    let first = shard.op(commit(held, size, Vec::new()));
    shard.put("/f", "small", version(1));
    let pin = Some((first.inode, first.version));
    let read = |shard: &TestShard, page| {
        read::resolve(&shard.slot, &path("/f"), None, page, pin).map(drop)
    };
    shard.op(remove("/f", Removal::File));
    let mut refused = 0;
    loop {
        for page in 0..4 {
            if let Err(error) = read(&shard, page) {
                assert_eq!(error.code, Code::Conflict, "{error}");
                refused += usize::from(read(&shard, 3).is_ok());
            }
        }
        let cleanup = Chore::Cleanup {
            records: 50,
            now: true,
        };
        if !shard.chore(cleanup).more {
            break;
        }
    }
    assert!(refused > 0, "pages went before their version");
    assert_eq!(read(&shard, 0).unwrap_err().code, Code::Conflict);
}
