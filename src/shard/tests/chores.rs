//! Background work: cleanup, retention, the change log.

use crate::shard::command::{Chore, Command, Op, Removal};
use crate::shard::records::Settings;
use crate::shard::testing::{TestShard, mkdir, path, put, remove, version};
use crate::shard::{Batch, STATE_MACHINE, apply, apply_bytes, check, keys, read};
use crate::types::{Inode, Precondition, Revision, ShardTime};

fn shard() -> TestShard {
    TestShard::new(Settings::default())
}

/// A tree with deletions inside, an upload and old versions.
fn tree(shard: &mut TestShard) {
    for at in ["/t", "/t/a", "/t/a/b", "/t/c", "/t/c/d"] {
        shard.mkdir(at);
    }
    for at in ["/t/f", "/t/a/f", "/t/a/b/f", "/t/c/d/f"] {
        shard.put(at, "one", Precondition::Absent);
        shard.put(at, "two", version(1));
    }
    shard.op(remove("/t/a/f", Removal::File));
    shard.op(remove("/t/c", Removal::Tree));
    shard.op(Op::Reserve {
        path: path("/t/a/up"),
        upload: crate::types::UploadId([1; 16]),
        precondition: Precondition::Absent,
        mode: 0o644,
    });
}

#[test]
fn cleanup_goes_on_where_it_stopped_and_leaves_no_orphan() {
    let mut shard = shard();
    let empty = check::check(&shard.slot).unwrap();
    tree(&mut shard);
    shard.op(remove("/t", Removal::Tree));
    let chore = |now| Chore::Cleanup { records: 2, now };
    assert_eq!(shard.chore(chore(false)).done, 0);
    shard.time += Settings::default().grace_ms;
    // Every step is checked by the test shard: a crash between two loses nothing.
    let mut steps = 0;
    while shard.chore(chore(false)).more {
        steps += 1;
    }
    assert!(steps > 5, "{steps} steps");
    assert_eq!(read::header(&shard.slot).unwrap().deletions, 0);
    assert_eq!(read::header(&shard.slot).unwrap().contents, 0);
    let report = check::check(&shard.slot).unwrap();
    assert_eq!(report, empty);
    for table in [keys::ENTRIES, keys::INLINE, keys::VERSIONS, keys::UPLOADS] {
        assert!(shard.slot.0.keys().all(|key| key[0] != table));
    }
}

#[test]
fn what_cleanup_has_begun_with_does_not_come_back() {
    let mut shard = shard();
    tree(&mut shard);
    shard.op(remove("/t", Removal::Tree));
    let begun = shard.chore(Chore::Cleanup {
        records: 3,
        now: true,
    });
    assert!(begun.more && begun.done >= 3);
    shard.refused(Op::Undelete { path: path("/t") });
    shard.clean();
}

#[test]
fn deletions_that_are_not_due_are_passed_over() {
    let mut shard = shard();
    shard.mkdir("/a");
    shard.mkdir("/b");
    shard.op(remove("/a", Removal::EmptyDir));
    shard.time += Settings::default().grace_ms - 10;
    shard.op(remove("/b", Removal::EmptyDir));
    shard.time += 10;
    let done = shard.chore(Chore::Cleanup {
        records: 100,
        now: false,
    });
    assert_eq!((done.done, done.more), (2, false));
    shard.op(Op::Undelete { path: path("/b") });
    assert_eq!(shard.names("/"), ["b"]);
}

#[test]
fn retention_by_age_needs_no_further_commit() {
    let mut shard = shard();
    for name in ["/f", "/g", "/h"] {
        shard.put(name, "1", Precondition::Absent);
        shard.put(name, "2", version(1));
        shard.put(name, "3", version(2));
    }
    shard.time += Settings::default().keep_for_ms;
    let mut behind = Inode(0);
    let mut rounds = 0;
    loop {
        let done = shard.chore(Chore::ExpireVersions { behind, rows: 1 });
        rounds += 1;
        behind = done.next;
        if !done.more {
            break;
        }
    }
    assert!(rounds >= 3);
    assert_eq!(check::check(&shard.slot).unwrap().versions, 0);
    assert_eq!(shard.text("/g"), "3");
}

#[test]
fn change_rows_are_trimmed_in_order() {
    let mut shard = shard();
    for number in 0..5 {
        shard.mkdir(&format!("/d{number}"));
    }
    let trim = |upto, rows| Chore::TrimChanges {
        upto: Revision(upto),
        rows,
    };
    let done = shard.chore(trim(4, 3));
    assert_eq!((done.done, done.more), (3, true));
    let done = shard.chore(trim(400, 30));
    assert_eq!((done.done, done.more), (2, false));
    assert_eq!(read::header(&shard.slot).unwrap().changes_bytes, 0);
}

#[test]
fn only_change_rows_that_are_old_or_too_many_are_due() {
    let mut shard = shard();
    for number in 1..=6 {
        shard.time = 100 * number;
        shard.mkdir(&format!("/d{number}"));
    }
    let due = |shard: &TestShard, now, keep_ms, keep_bytes, rows| {
        let now = ShardTime(now);
        let due = read::changes_due(&shard.slot, now, keep_ms, keep_bytes, rows).unwrap();
        due.map(|revision| revision.0)
    };
    let all = read::header(&shard.slot).unwrap().changes_bytes;
    assert_eq!(due(&shard, 600, 500, all, 10), None);
    assert_eq!(due(&shard, 801, 500, all, 10), Some(3));
    assert_eq!(due(&shard, 801, 500, all, 2), Some(2));
    assert_eq!(due(&shard, 600, 500, all - 1, 10), Some(1));
    assert_eq!(due(&shard, 701, 500, all / 2 + 10, 10), Some(3));
    assert_eq!(due(&shard, 601, 500, 0, 10), Some(6));
    let upto = Revision(3);
    shard.chore(Chore::TrimChanges { upto, rows: 10 });
    assert_eq!(due(&shard, 801, 500, all, 10), None);
    assert_eq!(due(&shard, 901, 500, all, 10), Some(4));
}

#[test]
fn shard_time_never_goes_back() {
    let mut shard = shard();
    shard.time = 500;
    shard.mkdir("/a");
    shard.time = 100;
    shard.mkdir("/b");
    assert_eq!(read::header(&shard.slot).unwrap().time.0, 500);
}

#[test]
fn unknown_commands_and_state_machines_stop_the_replica() {
    let shard = shard();
    let mut batch = Batch::new(&shard.slot).unwrap();
    assert!(apply_bytes(&mut batch, &[1, 77]).is_err());
    assert!(apply_bytes(&mut batch, &[]).is_err());
    assert!(apply(&mut batch, &Command::StateMachine(STATE_MACHINE + 1)).is_err());
    assert!(apply(&mut batch, &Command::StateMachine(STATE_MACHINE)).is_ok());
}

#[test]
fn settings_are_checked() {
    let mut shard = shard();
    let good = Settings {
        grace_ms: 0,
        ..Settings::default()
    };
    shard.op(Op::Settings(good.clone()));
    for bad in [
        Settings {
            inline_bytes: 1 << 20,
            ..good.clone()
        },
        Settings {
            chunk_bytes: 1,
            ..good.clone()
        },
        Settings {
            keep_versions: 100_000,
            ..good
        },
    ] {
        shard.refused(Op::Settings(bad));
    }
    // Without grace a removal is due at once.
    shard.mkdir("/a");
    shard.op(remove("/a", Removal::Tree));
    let done = shard.chore(Chore::Cleanup {
        records: 10,
        now: false,
    });
    assert_eq!(done.done, 2);
}

#[test]
fn a_refused_operation_between_others_leaves_nothing() {
    let mut shard = shard();
    let request = shard.request(vec![
        mkdir("/a"),
        put("/a/f", "x", Precondition::Absent),
        put("/a/f", "y", Precondition::Absent),
        remove("/a", Removal::EmptyDir),
        put("/a/g", "z", Precondition::Absent),
    ]);
    let outcomes = shard.send(request);
    let good: Vec<bool> = outcomes.iter().map(Result::is_ok).collect();
    assert_eq!(good, [true, true, false, false, true]);
    assert_eq!(outcomes[4].as_ref().unwrap().revision, Revision(3));
    assert_eq!(shard.names("/a"), ["f", "g"]);
}
