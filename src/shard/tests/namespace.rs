//! Directories, removal, rename, attributes, listings.

use crate::error::Code;
use crate::shard::command::{Op, Removal};
use crate::shard::read::{self, ListQuery, Listing};
use crate::shard::records::Settings;
use crate::shard::testing::{TestShard, mkdir, path, put, remove, version};
use crate::types::{DirVersion, Inode, Name, Precondition, Replacement, Revision};

fn shard() -> TestShard {
    TestShard::new(Settings::default())
}

fn rename(from: &str, to: &str, replace: Replacement) -> Op {
    Op::Rename {
        from: path(from),
        to: path(to),
        replace,
    }
}

fn mkdir_p(at: &str) -> Op {
    Op::Mkdir {
        path: path(at),
        mode: 0o700,
        parents: true,
    }
}

#[test]
fn mkdir_names_the_missing_parent_and_the_way_out() {
    let mut shard = shard();
    shard.mkdir("/a");
    let error = shard.refused_with(mkdir("/a/b/c"), Code::NotFound);
    assert!(error.message.contains("/a/b "), "{error}");
    assert!(error.hint.unwrap().contains("-p"));
    assert_eq!(error.path.as_deref(), Some("/a/b/c"));
    shard.refused_with(mkdir("/a"), Code::Exists);
    shard.refused_with(mkdir("/"), Code::Exists);
}

#[test]
fn mkdir_with_parents_makes_what_is_missing_and_takes_what_is_there() {
    let mut shard = shard();
    let made = shard.op(mkdir_p("/a/b/c"));
    assert_eq!(made.revision, Revision(3));
    let again = shard.op(mkdir_p("/a/b/c"));
    assert_eq!((again.revision, again.inode), (Revision(0), made.inode));
    assert_eq!(shard.op(mkdir_p("/")).revision, Revision(0));
    shard.put("/a/f", "x", Precondition::Absent);
    let error = shard.refused_with(mkdir_p("/a/f/g/h"), Code::Conflict);
    assert!(error.message.contains("not a directory"));
    shard.refused_with(mkdir("/a/f/g"), Code::Conflict);
}

#[test]
fn the_name_of_snapshots_is_reserved() {
    let mut shard = shard();
    shard.mkdir("/a");
    shard.refused_with(mkdir("/a/.snap"), Code::Usage);
    // What was made on the way goes again.
    shard.refused_with(mkdir_p("/new/dir/.snap/b"), Code::Usage);
    assert_eq!(shard.names("/"), ["a"]);
    shard.refused_with(put("/.snap", "x", Precondition::Absent), Code::Usage);
    shard.refused_with(rename("/a", "/.snap", Replacement::Never), Code::Usage);
}

#[test]
fn removals_respect_kinds() {
    let mut shard = shard();
    shard.mkdir("/d");
    shard.mkdir("/d/e");
    shard.put("/f", "x", Precondition::Absent);
    shard.refused_with(remove("/d", Removal::File), Code::Conflict);
    shard.refused_with(remove("/f", Removal::EmptyDir), Code::Conflict);
    shard.refused_with(remove("/d", Removal::EmptyDir), Code::NotEmpty);
    shard.refused_with(remove("/d", Removal::FileOrEmptyDir), Code::NotEmpty);
    shard.refused_with(remove("/", Removal::Tree), Code::Usage);
    shard.refused_with(remove("/g", Removal::Tree), Code::NotFound);
    let stale = Op::Remove {
        path: path("/f"),
        what: Removal::File,
        precondition: version(2),
    };
    let error = shard.refused_with(stale, Code::Conflict);
    assert_eq!(error.current_version, Some(1));
    shard.op(remove("/d/e", Removal::FileOrEmptyDir));
    shard.op(remove("/d", Removal::EmptyDir));
    shard.op(remove("/f", Removal::FileOrEmptyDir));
    assert!(shard.names("/").is_empty());
}

#[test]
fn a_removed_tree_is_gone_at_once_and_its_name_is_free() {
    let mut shard = shard();
    for at in ["/a", "/a/b", "/a/b/c"] {
        shard.mkdir(at);
    }
    shard.put("/a/b/f", "12345", Precondition::Absent);
    let root = || path("/");
    shard.op(remove("/a", Removal::Tree));
    let read::Found::Dir { record, .. } = read::lookup(&shard.slot, &root()).unwrap() else {
        panic!("the root is a directory")
    };
    assert_eq!((record.totals.entries, record.totals.bytes), (0, 0));
    shard.refused_with(mkdir("/a/b/x"), Code::NotFound);
    shard.mkdir("/a");
    assert!(shard.names("/a").is_empty());
    shard.clean();
    assert_eq!(shard.names("/"), ["a"]);
}

#[test]
fn what_was_removed_comes_back_whole_within_its_grace() {
    let mut shard = shard();
    shard.mkdir("/a");
    shard.put("/a/f", "one", Precondition::Absent);
    shard.op(remove("/a", Removal::Tree));
    shard.mkdir("/a");
    shard.refused_with(Op::Undelete { path: path("/a") }, Code::Exists);
    shard.op(remove("/a", Removal::EmptyDir));
    // The newest of that name comes first, then the one before.
    shard.op(Op::Undelete { path: path("/a") });
    assert!(shard.names("/a").is_empty());
    shard.op(rename("/a", "/later", Replacement::Never));
    shard.op(Op::Undelete { path: path("/a") });
    assert_eq!(shard.text("/a/f"), "one");
    shard.op(remove("/a", Removal::Tree));
    assert_eq!(read::deleted(&shard.slot, &path("/")).unwrap().len(), 1);
    shard.time += Settings::default().grace_ms;
    shard.refused_with(Op::Undelete { path: path("/a") }, Code::NotFound);
    assert!(read::deleted(&shard.slot, &path("/")).unwrap().is_empty());
}

#[test]
fn rename_moves_trees_and_refuses_cycles() {
    let mut shard = shard();
    for at in ["/a", "/a/b", "/c"] {
        shard.mkdir(at);
    }
    shard.put("/a/b/f", "text", Precondition::Absent);
    shard.refused_with(rename("/a", "/a/b/a", Replacement::Never), Code::Usage);
    shard.refused_with(rename("/", "/c/r", Replacement::Never), Code::Usage);
    shard.refused_with(rename("/x", "/y", Replacement::Never), Code::NotFound);
    shard.refused_with(rename("/a", "/x/y", Replacement::Never), Code::NotFound);
    shard.refused_with(rename("/a/b", "/a", Replacement::Posix), Code::NotEmpty);
    shard.op(rename("/a/b", "/c/d", Replacement::Never));
    assert_eq!(shard.text("/c/d/f"), "text");
    shard.refused_with(mkdir("/a/b/x"), Code::NotFound);
    let done = shard.op(rename("/c", "/c", Replacement::Never));
    assert_eq!(done.revision, Revision(0));
}

#[test]
fn rename_replaces_as_posix_does_only_when_asked() {
    let mut shard = shard();
    for at in ["/d", "/e", "/full", "/full/x"] {
        shard.mkdir(at);
    }
    shard.put("/f", "new", Precondition::Absent);
    shard.put("/g", "old", Precondition::Absent);
    let error = shard.refused_with(rename("/f", "/g", Replacement::Never), Code::Exists);
    assert_eq!(error.current_version, Some(1));
    assert_eq!(error.path.as_deref(), Some("/g"));
    shard.refused_with(rename("/f", "/d", Replacement::Posix), Code::Conflict);
    shard.refused_with(rename("/d", "/f", Replacement::Posix), Code::Conflict);
    shard.refused_with(rename("/d", "/full", Replacement::Posix), Code::NotEmpty);
    shard.op(rename("/f", "/g", Replacement::Posix));
    shard.op(rename("/d", "/e", Replacement::Posix));
    assert_eq!(shard.text("/g"), "new");
    // What was replaced was removed, and can be brought back.
    shard.op(remove("/g", Removal::File));
    shard.op(Op::Undelete { path: path("/g") });
    shard.op(rename("/g", "/h", Replacement::Never));
    shard.op(Op::Undelete { path: path("/g") });
    assert_eq!(shard.text("/g"), "old");
}

#[test]
fn attributes_change_in_place() {
    let mut shard = shard();
    shard.mkdir("/d");
    shard.put("/d/f", "x", Precondition::Absent);
    let set = |at: &str, mode, owner: Option<&str>| Op::SetAttrs {
        path: path(at),
        mode,
        owner: owner.map(str::to_owned),
        group: None,
    };
    shard.op(set("/d/f", Some(0o600), Some("bob")));
    shard.op(set("/d", Some(0o711), None));
    shard.op(set("/", Some(0o777), None));
    assert_eq!(shard.op(set("/d", Some(0o711), None)).revision, Revision(0));
    shard.refused_with(set("/d", Some(0o10000), None), Code::Usage);
    shard.refused_with(set("/d", None, Some("a:b")), Code::Usage);
    let crate::proto::EntryView::File(file) = read::stat(&shard.slot, &path("/d/f")).unwrap()
    else {
        panic!("a file")
    };
    assert_eq!((file.attrs.mode, file.attrs.owner.as_str()), (0o600, "bob"));
    assert_eq!(file.attrs.version.0, 1);
}

fn page(shard: &TestShard, query: &ListQuery<'_>) -> (DirVersion, Vec<String>, bool) {
    match read::list(&shard.slot, &path("/d"), query).unwrap() {
        Listing::Page { dir, entries, more } => (
            dir,
            entries.iter().map(|(name, _)| name.to_string()).collect(),
            more,
        ),
        Listing::NotModified => panic!("it was modified"),
    }
}

#[test]
fn listings_are_sorted_paged_and_validated() {
    let mut shard = shard();
    shard.mkdir("/d");
    for name in ["c", "a", "b"] {
        shard.put(&format!("/d/{name}"), name, Precondition::Absent);
    }
    let after = Name::parse("a").unwrap();
    let mut query = ListQuery {
        after: None,
        limit: 2,
        attrs: true,
        known: None,
    };
    let (dir, names, more) = page(&shard, &query);
    assert_eq!((names, more), (vec!["a".into(), "b".to_owned()], true));
    query.after = Some(&after);
    let (_, names, more) = page(&shard, &query);
    assert_eq!((names, more), (vec!["b".into(), "c".to_owned()], false));
    query.attrs = false;
    query.known = Some(dir);
    assert_eq!(
        read::list(&shard.slot, &path("/d"), &query).unwrap(),
        Listing::NotModified
    );
    shard.op(remove("/d/b", Removal::File));
    let (later, names, _) = page(&shard, &query);
    assert!(later > dir);
    assert_eq!(names, ["c"]);
    assert_eq!(
        read::list(&shard.slot, &path("/d/a"), &query)
            .unwrap_err()
            .code,
        Code::Conflict
    );
}

#[test]
fn two_directories_of_one_path_never_have_one_version() {
    let mut shard = shard();
    let query = ListQuery {
        after: None,
        limit: 1,
        attrs: false,
        known: None,
    };
    let mut seen = Vec::new();
    let mut look = |shard: &TestShard| {
        let (version, ..) = page(shard, &query);
        assert!(!seen.contains(&version), "{version} again after {seen:?}");
        seen.push(version);
    };
    shard.mkdir("/d");
    look(&shard);
    shard.put("/d/f", "x", Precondition::Absent);
    look(&shard);
    shard.op(remove("/d", Removal::Tree));
    shard.mkdir("/d");
    look(&shard);
    shard.put("/d/f", "y", Precondition::Absent);
    look(&shard);
    // One made elsewhere before, and moved there.
    shard.op(remove("/d", Removal::Tree));
    shard.mkdir("/e");
    shard.op(rename("/e", "/d", Replacement::Never));
    look(&shard);
}

#[test]
fn a_new_shard_has_numbers_for_ever() {
    let header = read::header(&shard().slot).unwrap();
    assert!(header.end_inode >= Inode(1 << 40));
}

#[test]
fn a_lost_record_shows_in_the_sum() {
    let mut shard = shard();
    shard.mkdir("/d");
    shard.put("/d/f", "x", Precondition::Absent);
    for key in shard.slot.0.keys().cloned().collect::<Vec<_>>() {
        if key[0] == crate::shard::keys::HEADER {
            continue;
        }
        let mut damaged = shard.slot.clone();
        damaged.0.remove(&key);
        let report = crate::shard::check::check(&damaged).unwrap();
        assert!(!report.problems.is_empty(), "lost {key:?} went unseen");
    }
}

#[test]
fn inode_numbers_run_out_with_a_clear_refusal() {
    use crate::shard::{keys, records};
    let mut shard = shard();
    let mut header = read::header(&shard.slot).unwrap();
    header.end_inode = Inode(3);
    shard
        .slot
        .0
        .insert(keys::header(), records::encode(&header));
    shard.refused_with(mkdir_p("/x/y"), Code::NoSpace);
    shard.mkdir("/a");
    shard.refused_with(mkdir("/b"), Code::NoSpace);
}
