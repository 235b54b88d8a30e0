//! Versions of files: preconditions, retention, restore, copy.

use crate::error::Code;
use crate::shard::command::{Op, Removal};
use crate::shard::read;
use crate::shard::records::Settings;
use crate::shard::testing::{TestShard, path, put, remove, version};
use crate::types::{ChunkHash, FileVersion, Precondition, Revision, UploadId};
use bytes::Bytes;

fn keeping(keep_versions: u32) -> TestShard {
    TestShard::new(Settings {
        keep_versions,
        ..Settings::default()
    })
}

fn kept(shard: &TestShard, at: &str) -> Vec<u64> {
    read::versions(&shard.slot, &path(at))
        .unwrap()
        .iter()
        .map(|view| view.attrs.version.0)
        .collect()
}

fn restore(at: &str, number: u64) -> Op {
    Op::Restore {
        path: path(at),
        version: FileVersion(number),
    }
}

fn copy(from: &str, to: &str, precondition: Precondition) -> Op {
    Op::Copy {
        from: path(from),
        version: None,
        to: path(to),
        precondition,
    }
}

#[test]
fn a_file_put_anew_is_not_the_one_that_was_read() {
    let mut shard = keeping(10);
    let read = shard.put("/f", "1", Precondition::Absent);
    let seen = Precondition::Exactly {
        inode: read.inode,
        version: read.version,
    };
    shard.op(remove("/f", Removal::File));
    let again = shard.put("/f", "2", Precondition::Absent);
    assert_eq!(
        (read.version, again.version),
        (FileVersion(1), FileVersion(1))
    );
    let error = shard.refused_with(put("/f", "3", seen), Code::Conflict);
    assert_eq!(error.current_version, Some(1));
    let removal = |precondition| Op::Remove {
        path: path("/f"),
        what: Removal::File,
        precondition,
    };
    shard.refused_with(removal(seen), Code::Conflict);
    let reserve = Op::Reserve {
        path: path("/f"),
        upload: UploadId([1; 16]),
        precondition: seen,
        mode: 0o644,
    };
    shard.refused_with(reserve, Code::Conflict);
    assert_eq!(shard.text("/f"), "2");

    let seen = |version| Precondition::Exactly {
        inode: again.inode,
        version: FileVersion(version),
    };
    assert_eq!(shard.put("/f", "3", seen(1)).version, FileVersion(2));
    let error = shard.refused_with(put("/f", "4", seen(1)), Code::Conflict);
    assert!(error.message.contains("version 1 was expected"), "{error}");
    shard.refused_with(removal(seen(1)), Code::Conflict);
    shard.op(removal(seen(2)));
    shard.refused_with(put("/f", "4", seen(2)), Code::NotFound);
}

#[test]
fn two_writers_from_one_base_exactly_one_wins() {
    let mut shard = keeping(10);
    shard.put("/f", "1", Precondition::Absent);
    let first = shard.put("/f", "2", version(1));
    assert_eq!(first.version, FileVersion(2));
    let error = shard.refused_with(put("/f", "3", version(1)), Code::Conflict);
    assert_eq!(error.current_version, Some(2));
    let error = shard.refused_with(put("/f", "3", Precondition::Absent), Code::Exists);
    assert_eq!(error.current_version, Some(2));
    assert!(error.hint.unwrap().contains("--if-version 2"));
    shard.refused_with(put("/f", "3", Precondition::Any), Code::Usage);
    shard.refused_with(put("/g", "3", version(1)), Code::NotFound);
    shard.mkdir("/d");
    shard.refused_with(put("/d", "3", Precondition::Absent), Code::Conflict);
    assert_eq!(shard.text("/f"), "2");
}

#[test]
fn damaged_and_too_large_puts_are_refused() {
    let mut shard = keeping(10);
    let with = |data: Bytes, hash| Op::Put {
        path: path("/f"),
        precondition: Precondition::Absent,
        mode: 0o644,
        hash,
        data,
    };
    shard.refused_with(
        with(Bytes::from_static(b"x"), ChunkHash::of(b"y")),
        Code::Corrupt,
    );
    let large = vec![0; 64 * 1024 + 1];
    let hash = ChunkHash::of(&large);
    shard.refused_with(with(large.into(), hash), Code::Usage);
}

#[test]
fn attributes_of_an_existing_file_stay() {
    let mut shard = keeping(10);
    shard.put("/f", "1", Precondition::Absent);
    shard.op(Op::SetAttrs {
        path: path("/f"),
        mode: Some(0o600),
        owner: Some("bob".into()),
        group: None,
    });
    shard.time += 5;
    shard.put("/f", "22", version(1));
    let read::Found::File { attrs, .. } = read::lookup(&shard.slot, &path("/f")).unwrap() else {
        panic!("a file")
    };
    assert_eq!((attrs.mode, attrs.owner.as_str()), (0o600, "bob"));
    assert!(attrs.modified > attrs.created);
    assert_eq!(attrs.size, 2);
}

#[test]
fn old_versions_are_kept_by_number_and_by_age() {
    let mut shard = keeping(2);
    shard.put("/f", "1", Precondition::Absent);
    for number in 1..5 {
        shard.put("/f", &(number + 1).to_string(), version(number));
    }
    assert_eq!(kept(&shard, "/f"), [5, 4, 3]);
    shard.time += Settings::default().keep_for_ms;
    shard.put("/f", "6", version(5));
    assert_eq!(kept(&shard, "/f"), [6, 5]);
    let mut none = keeping(0);
    none.put("/f", "1", Precondition::Absent);
    none.put("/f", "2", version(1));
    assert_eq!(kept(&none, "/f"), [2]);
}

#[test]
fn a_restored_version_shares_its_content_until_the_last_goes() {
    let mut shard = keeping(2);
    shard.put("/f", "one", Precondition::Absent);
    shard.put("/f", "two", version(1));
    assert_eq!(shard.op(restore("/f", 1)).version, FileVersion(3));
    assert_eq!(shard.text("/f"), "one");
    // Version 1 goes, its content is that of version 3.
    shard.put("/f", "four", version(3));
    assert_eq!(kept(&shard, "/f"), [4, 3, 2]);
    let old = read::resolve(&shard.slot, &path("/f"), Some(FileVersion(3)), 0, None).unwrap();
    assert_eq!(old.inline.unwrap(), "one");
    shard.put("/f", "five", version(4));
    shard.put("/f", "six", version(5));
    assert_eq!(kept(&shard, "/f"), [6, 5, 4]);
    shard.refused_with(restore("/f", 3), Code::NotFound);
    assert_eq!(shard.op(restore("/f", 6)).revision, Revision(0));
}

#[test]
fn copies_are_independent() {
    let mut shard = keeping(2);
    shard.put("/f", "one", Precondition::Absent);
    shard.op(copy("/f", "/g", Precondition::Absent));
    shard.put("/f", "two", version(1));
    assert_eq!(shard.text("/g"), "one");
    shard.refused_with(copy("/f", "/g", Precondition::Absent), Code::Exists);
    shard.op(copy("/f", "/g", version(1)));
    assert_eq!(shard.text("/g"), "two");
    // A file over itself is a new version of the same content.
    shard.op(copy("/g", "/g", version(2)));
    assert_eq!(kept(&shard, "/g"), [3, 2, 1]);
    shard.mkdir("/d");
    shard.refused_with(copy("/d", "/e", Precondition::Absent), Code::Conflict);
    let error = shard.refused_with(copy("/f", "/x/y", Precondition::Absent), Code::NotFound);
    assert_eq!(error.path.as_deref(), Some("/x/y"));
    shard.clean();
}

#[test]
fn a_pinned_reader_keeps_its_version() {
    let mut shard = keeping(2);
    let first = shard.put("/f", "one", Precondition::Absent);
    shard.put("/f", "two", version(1));
    let pin = Some((first.inode, FileVersion(1)));
    let read = |shard: &TestShard| read::resolve(&shard.slot, &path("/f"), None, 0, pin);
    assert_eq!(read(&shard).unwrap().inline.unwrap(), "one");
    for number in 2..5 {
        shard.put("/f", "more", version(number));
    }
    assert_eq!(read(&shard).unwrap_err().code, Code::Conflict);
}
