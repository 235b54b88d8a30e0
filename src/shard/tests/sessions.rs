//! Exactly once.

use crate::error::Code;
use crate::limits::SESSION_HORIZON_MS;
use crate::shard::command::{Chore, Request};
use crate::shard::read;
use crate::shard::records::Settings;
use crate::shard::testing::{TestShard, mkdir, put};
use crate::types::{Lane, OpSeq, Precondition, SessionId, ShardTime};

fn shard() -> TestShard {
    TestShard::new(Settings::default())
}

#[test]
fn a_repeated_request_gets_the_first_answer_refusals_too() {
    let mut shard = shard();
    let request = shard.request(vec![
        put("/f", "x", Precondition::Absent),
        put("/f", "y", Precondition::Absent),
    ]);
    let first = shard.send(request.clone());
    assert!(first[0].is_ok() && first[1].is_err());
    let before = shard.visible();
    assert_eq!(shard.send(request.clone()), first);
    assert_eq!(shard.visible(), before);
    let row = read::lane(&shard.slot, request.session, request.lane).unwrap();
    assert_eq!(row.unwrap().outcomes, first);
}

#[test]
fn another_request_under_the_same_number_is_refused() {
    let mut shard = shard();
    let mut request = shard.request(vec![mkdir("/a")]);
    shard.send(request.clone());
    request.ops = vec![mkdir("/b")];
    let error = shard.send(request).remove(0).unwrap_err();
    assert_eq!(error.code, Code::Usage);
    assert!(error.message.contains("used for another request"));
    assert_eq!(shard.names("/"), ["a"]);
}

#[test]
fn another_users_session_is_neither_answered_from_nor_disturbed_invariant_4() {
    let mut shard = shard();
    let mine = shard.request(vec![mkdir("/a")]);
    let first = shard.send(mine.clone());
    let as_eve = |seq| Request {
        user: "eve".into(),
        seq,
        ..mine.clone()
    };
    for seq in [mine.seq, OpSeq(mine.seq.0 + 1), OpSeq(u64::MAX)] {
        let error = shard.send(as_eve(seq)).remove(0).unwrap_err();
        assert_eq!(error.code, Code::Denied, "{error}");
        assert!(!error.may_have_happened);
    }
    assert_eq!(shard.send(mine.clone()), first);
    let row = read::lane(&shard.slot, mine.session, mine.lane)
        .unwrap()
        .unwrap();
    assert_eq!((row.user.as_str(), row.seq), ("ann", mine.seq));
}

#[test]
fn an_older_request_is_refused() {
    let mut shard = shard();
    let old = shard.request(vec![mkdir("/a")]);
    shard.mkdir("/b");
    let error = shard.send(old).remove(0).unwrap_err();
    assert_eq!(error.code, Code::Conflict);
    assert!(error.may_have_happened);
    assert_eq!(shard.names("/"), ["b"]);
}

#[test]
fn a_forgotten_session_is_told_that_the_outcome_is_unknown() {
    let mut shard = shard();
    let request = shard.request(vec![mkdir("/a")]);
    shard.send(request.clone());
    shard.time += SESSION_HORIZON_MS + 120_000;
    let done = shard.chore(Chore::ExpireLanes { lanes: 10 });
    assert_eq!((done.done, done.more), (1, false));
    let error = shard.send(request).remove(0).unwrap_err();
    assert_eq!(error.code, Code::Unavailable);
    assert!(error.may_have_happened);
    // One that met the shard later is executed; a stamp from the future is no excuse.
    let mut later = shard.request(vec![mkdir("/b")]);
    later.met = ShardTime(u64::MAX);
    assert!(shard.send(later).remove(0).is_ok());
}

#[test]
fn lanes_are_used_again_without_new_rows() {
    let mut shard = shard();
    for _ in 0..3 {
        shard.time += 61_000;
        let name = format!("/d{}", shard.time);
        shard.mkdir(&name);
    }
    assert_eq!(read::header(&shard.slot).unwrap().lanes, 1);
}

#[test]
fn requests_that_are_none_are_refused_without_a_row() {
    let mut shard = shard();
    let good = shard.request(vec![mkdir("/a")]);
    let bad = [
        Request {
            lane: Lane(64),
            ..good.clone()
        },
        Request {
            seq: OpSeq(0),
            ..good.clone()
        },
        Request {
            user: String::new(),
            ..good.clone()
        },
        Request {
            ops: vec![mkdir("/a"); 513],
            ..good
        },
    ];
    for request in bad {
        let outcomes = shard.send(request.clone());
        assert_eq!(outcomes.len(), request.ops.len());
        assert!(outcomes.iter().all(|outcome| {
            outcome
                .as_ref()
                .is_err_and(|error| error.code == Code::Usage)
        }));
        assert_eq!(read::header(&shard.slot).unwrap().lanes, 0);
    }
}

#[test]
fn lanes_are_dropped_oldest_first_and_bounded() {
    let mut shard = shard();
    for number in 0..5u8 {
        let mut request = shard.request(Vec::new());
        request.session = SessionId([number; 16]);
        shard.time += 60_000;
        shard.send(request);
    }
    shard.time += SESSION_HORIZON_MS - 100_000;
    let done = shard.chore(Chore::ExpireLanes { lanes: 1 });
    assert_eq!((done.done, done.more), (1, true));
    let gone = read::lane(&shard.slot, SessionId([0; 16]), Lane(0)).unwrap();
    assert_eq!(gone, None);
    let horizon = read::header(&shard.slot).unwrap().lanes_horizon;
    assert_eq!(horizon, ShardTime(60_002));
}
