//! Whole groups in one process, on paused time: a run of many seconds takes milliseconds.

use super::model_tests::{Cluster, GROUP, eventually, node};
use super::{RaftGroup, Timers, barrier};
use crate::error::Code;
use crate::types::{LogIndex, ReplicaId};
use bytes::Bytes;
use futures::future::join_all;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const LONG: Duration = Duration::from_secs(10);

#[tokio::test(start_paused = true)]
async fn one_replica_elects_itself_and_applies() {
    let cluster = Cluster::start(1, 1).await;
    let group = cluster.group(1);
    group.wait_leader(LONG).await.unwrap();
    assert_eq!(cluster.propose(1, "a").await.unwrap(), 1);
    assert_eq!(cluster.propose(1, "b").await.unwrap(), 2);
    group.read_barrier().await.unwrap();
    let status = group.status();
    assert_eq!(status.leader, Some(ReplicaId(1)));
    assert_eq!(status.voters, [(ReplicaId(1), node(1))]);
    // The seed, the leader's empty entry, two commands.
    assert_eq!(
        (status.applied, status.last, group.log_entries()),
        (4, 4, 3)
    );
}

#[tokio::test(start_paused = true)]
async fn three_replicas_elect_a_leader_and_hold_the_same_state() {
    let cluster = Cluster::start(3, 2).await;
    let leader = cluster.leader().await;
    let texts: Vec<String> = (0..200).map(|n| format!("command {n:03}")).collect();
    let proposals = texts.iter().map(|text| cluster.propose(leader, text));
    let mut replies: Vec<usize> = join_all(proposals)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    replies.sort_unstable();
    assert_eq!(replies, (1..=200).collect::<Vec<_>>());
    let expected = cluster.commands(leader);
    let mut sorted = expected.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, texts, "each once, in some order");
    eventually("equal states", || {
        (1..=3).all(|id| cluster.commands(id) == expected)
    })
    .await;
    assert!(
        cluster.replicas[&leader]
            .state
            .batch_max
            .load(Ordering::Relaxed)
            > 10
    );
}

#[tokio::test(start_paused = true)]
async fn a_stopped_leader_is_followed_by_another_and_comes_back() {
    let mut cluster = Cluster::start(3, 3).await;
    let first = cluster.leader().await;
    cluster.propose(first, "before").await.unwrap();
    cluster.stop(first).await;
    let stopped = Instant::now();
    let second = cluster.leader().await;
    assert!(
        stopped.elapsed() < Duration::from_secs(3),
        "{:?}",
        stopped.elapsed()
    );
    cluster.propose(second, "after").await.unwrap();
    cluster.run(first).await;
    eventually("the stopped one catches up", || {
        cluster.commands(first) == ["before", "after"]
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_was_committed_is_applied_before_a_restart_returns() {
    let mut cluster = Cluster::start(3, 4).await;
    let leader = cluster.leader().await;
    let texts: Vec<String> = (0..150).map(|n| n.to_string()).collect();
    let written = join_all(texts.iter().map(|text| cluster.propose(leader, text))).await;
    assert!(written.iter().all(Result::is_ok));
    let before = cluster.commands(leader);
    let term = cluster.group(leader).status().term;
    (1..=3).for_each(|id| cluster.board.cut(id));
    cluster.stop(leader).await;
    assert!(
        cluster.commands(leader).is_empty(),
        "the fold is at the seed"
    );
    cluster.run(leader).await;
    // Nobody can be asked: what is applied now comes from the log and its committed mark, which
    // is noted before an entry is answered.
    assert_eq!(cluster.commands(leader), before);
    assert!(
        !cluster.group(leader).is_leader(),
        "no lead without an election"
    );
    cluster.board.heal();
    let next = cluster.leader().await;
    assert!(cluster.group(next).status().term > term);
    cluster.group(next).read_barrier().await.unwrap();
    assert_eq!(cluster.commands(next), before);
}

#[tokio::test(start_paused = true)]
async fn without_a_committed_mark_a_restart_applies_after_the_election() {
    let mut cluster = Cluster::start(1, 5).await;
    cluster.group(1).wait_leader(LONG).await.unwrap();
    cluster.propose(1, "a").await.unwrap();
    cluster.stop(1).await;
    cluster.replicas[&1].log.forget_committed();
    cluster.run(1).await;
    assert!(cluster.commands(1).is_empty());
    let refused = cluster.group(1).read_barrier().await.unwrap_err();
    assert_eq!(
        refused.code,
        Code::Redirect,
        "a stale state is never read: {refused}"
    );
    cluster.group(1).wait_leader(LONG).await.unwrap();
    cluster.group(1).read_barrier().await.unwrap();
    assert_eq!(cluster.commands(1), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_applied_before_its_own_sync_restarts_from_less() {
    let mut cluster = Cluster::start(3, 6).await;
    let leader = cluster.leader().await;
    cluster.propose(leader, "synced").await.unwrap();
    let follower = if leader == 1 { 2 } else { 1 };
    eventually("the follower has it", || {
        cluster.commands(follower) == ["synced"]
    })
    .await;
    cluster.replicas[&follower].log.hold_flushes(true);
    cluster.propose(leader, "unsynced").await.unwrap();
    eventually("applied unsynced", || cluster.commands(follower).len() == 2).await;
    cluster.stop(follower).await;
    cluster.run(follower).await;
    eventually("sent again", || {
        cluster.commands(follower) == ["synced", "unsynced"]
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_follower_redirects_and_names_the_leader() {
    let cluster = Cluster::start(3, 7).await;
    let leader = cluster.leader().await;
    cluster.propose(leader, "known to all").await.unwrap();
    let follower = if leader == 1 { 2 } else { 1 };
    eventually("it knows its leader", || {
        cluster.group(follower).status().leader.is_some()
    })
    .await;
    let refused = cluster.propose(follower, "b").await.unwrap_err();
    assert_eq!(
        (refused.code, refused.may_have_happened),
        (Code::Redirect, false)
    );
    assert!(
        refused
            .message
            .contains(&format!("replica {leader} on node {}", node(leader)))
    );
    let refused = cluster.group(follower).read_barrier().await.unwrap_err();
    assert_eq!(refused.code, Code::Redirect);
}

#[tokio::test(start_paused = true)]
async fn without_a_majority_nothing_is_read_or_written_and_the_answer_comes_soon() {
    let cluster = Cluster::start(3, 8).await;
    let leader = cluster.leader().await;
    cluster.propose(leader, "a").await.unwrap();
    (1..=3)
        .filter(|id| *id != leader)
        .for_each(|id| cluster.board.cut(id));
    sleep(barrier::lease(Timers::default())).await;
    let asked = Instant::now();
    let refused = cluster.group(leader).read_barrier().await.unwrap_err();
    assert_eq!(refused.code, Code::Unavailable, "{refused}");
    assert!(
        asked.elapsed() < Duration::from_secs(1),
        "{:?}",
        asked.elapsed()
    );
    let refused = cluster.propose(leader, "b").await.unwrap_err();
    assert_eq!(
        (refused.code, refused.may_have_happened),
        (Code::Unavailable, false),
        "{refused}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_proposal_that_lost_its_leader_may_have_happened() {
    let cluster = Cluster::start(3, 9).await;
    let leader = cluster.leader().await;
    cluster.propose(leader, "a").await.unwrap();
    // Not yet known to have lost its majority, the leader takes the proposal.
    cluster.board.cut(leader);
    let group = cluster.group(leader).clone();
    let lost = tokio::time::timeout(LONG * 10, group.propose(Bytes::from_static(b"lost")));
    let heal = async {
        let next = cluster.leader().await;
        cluster.propose(next, "instead").await.unwrap();
        cluster.board.heal();
    };
    let (refused, ()) = tokio::join!(lost, heal);
    let refused = refused.unwrap().map(|_| ()).unwrap_err();
    assert_eq!(
        (refused.code, refused.may_have_happened),
        (Code::Unavailable, true),
        "{refused}"
    );
}

#[tokio::test(start_paused = true)]
async fn the_log_goes_up_to_the_fold_and_a_restart_goes_on_from_there() {
    let mut cluster = Cluster::start(1, 10).await;
    cluster.group(1).wait_leader(LONG).await.unwrap();
    for n in 0..20 {
        cluster.propose(1, &format!("{n}")).await.unwrap();
    }
    let group = cluster.group(1).clone();
    group.compact(LogIndex(u64::MAX)).await.unwrap();
    assert_eq!(group.log_entries(), 21, "nothing is folded yet");
    cluster.replicas[&1].state.fold();
    cluster.propose(1, "behind the fold").await.unwrap();
    group.compact(LogIndex(u64::MAX)).await.unwrap();
    eventually("the log is let go", || group.log_entries() == 1).await;
    group.compact(LogIndex(u64::MAX)).await.unwrap();
    cluster.stop(1).await;
    cluster.run(1).await;
    assert_eq!(cluster.commands(1).len(), 21, "its mark was noted");
    cluster.group(1).wait_leader(LONG).await.unwrap();
    assert_eq!(cluster.propose(1, "on it goes").await.unwrap(), 22);
}

#[tokio::test(start_paused = true)]
async fn each_replica_of_three_compacts_and_restarts() {
    let mut cluster = Cluster::start(3, 11).await;
    let leader = cluster.leader().await;
    for n in 0..50 {
        cluster.propose(leader, &format!("{n}")).await.unwrap();
    }
    eventually("equal states", || {
        (1..=3).all(|id| cluster.commands(id).len() == 50)
    })
    .await;
    for id in 1..=3 {
        cluster.replicas[&id].state.fold();
        cluster.group(id).compact(LogIndex(u64::MAX)).await.unwrap();
        eventually("the log is let go", || cluster.group(id).log_entries() == 0).await;
    }
    for id in 1..=3 {
        cluster.stop(id).await;
    }
    for id in 1..=3 {
        cluster.run(id).await;
    }
    let leader = cluster.leader().await;
    assert_eq!(cluster.propose(leader, "next").await.unwrap(), 51);
    eventually("equal states", || {
        (1..=3).all(|id| cluster.commands(id).len() == 51)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_lead_goes_to_whom_it_is_given() {
    let cluster = Cluster::start(3, 12).await;
    let leader = cluster.leader().await;
    cluster.propose(leader, "a").await.unwrap();
    let heir = if leader == 1 { 2 } else { 1 };
    let given = Instant::now();
    cluster
        .group(leader)
        .transfer_leader(ReplicaId(heir))
        .await
        .unwrap();
    cluster.group(heir).wait_leader(LONG).await.unwrap();
    assert!(
        given.elapsed() < Duration::from_millis(100),
        "{:?}",
        given.elapsed()
    );
    assert_eq!(cluster.propose(heir, "b").await.unwrap(), 2);
    let nobody = cluster
        .group(heir)
        .transfer_leader(ReplicaId(9))
        .await
        .unwrap_err();
    assert_eq!(nobody.code, Code::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_failed_sync_stops_the_replica() {
    let cluster = Cluster::start(1, 13).await;
    cluster.group(1).wait_leader(LONG).await.unwrap();
    cluster.replicas[&1].log.fail_flushes();
    let refused = cluster.propose(1, "a").await.unwrap_err();
    assert_eq!(
        (refused.code, refused.may_have_happened),
        (Code::Unavailable, true),
        "{refused}"
    );
    let refused = cluster.group(1).read_barrier().await.unwrap_err();
    assert!(refused.message.contains("the disk is gone"), "{refused}");
    assert!(cluster.commands(1).is_empty());
}

#[tokio::test(start_paused = true)]
async fn readers_share_their_question() {
    let cluster = Cluster::start(3, 14).await;
    let leader = cluster.leader().await;
    cluster.propose(leader, "a").await.unwrap();
    let before = cluster.board.calls.load(Ordering::Relaxed);
    let group = cluster.group(leader);
    let passed = join_all((0..1_000).map(|_| group.read_barrier())).await;
    assert!(passed.iter().all(Result::is_ok));
    let calls = cluster.board.calls.load(Ordering::Relaxed) - before;
    assert!(calls < 20, "{calls} messages for 1000 readers");
}

#[tokio::test(start_paused = true)]
async fn a_message_for_another_replica_is_not_answered() {
    let cluster = Cluster::start(1, 15).await;
    let other = super::message::Envelope {
        group: GROUP,
        from: ReplicaId(2),
        to: ReplicaId(7),
        ask: super::message::Ask::Vote(
            openraft::raft::VoteRequest::new(super::kinds::vote(9, 2, false), None).into(),
        ),
    };
    let refused = cluster
        .group(1)
        .receive(crate::codec::encode(&other).into())
        .await;
    assert_eq!(refused.unwrap_err().code, Code::NotFound);
    let refused = cluster
        .group(1)
        .receive(Bytes::from_static(b"\x01nonsense"))
        .await;
    assert_eq!(refused.unwrap_err().code, Code::Corrupt);
}

#[tokio::test(start_paused = true)]
async fn timers_that_contradict_each_other_are_refused() {
    let cluster = Cluster::start(1, 16).await;
    let replica = &cluster.replicas[&1];
    let timers = Timers {
        election_min: Duration::from_millis(400),
        election_max: Duration::from_millis(250),
        ..Timers::default()
    };
    let started = RaftGroup::start_on(
        cluster.env.clone(),
        GROUP,
        ReplicaId(1),
        replica.log.clone(),
        replica.state.clone(),
        cluster.board.clone(),
        timers,
    );
    assert_eq!(started.await.map(|_| ()).unwrap_err().code, Code::Usage);
}

/// What happened in a run, with its times.
async fn trace(seed: u64) -> Vec<(u64, u64, Duration)> {
    let began = Instant::now();
    let mut cluster = Cluster::start(3, seed).await;
    let mut seen = Vec::new();
    for round in 0..4 {
        let leader = cluster.leader().await;
        let term = cluster.group(leader).status().term;
        seen.push((leader, term, began.elapsed()));
        cluster.propose(leader, &format!("{round}")).await.unwrap();
        cluster.stop(leader).await;
        let next = cluster.leader().await;
        cluster.propose(next, "x").await.unwrap();
        cluster.run(leader).await;
    }
    seen
}

#[test]
fn a_seed_repeats_its_run() {
    let run = |seed| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(trace(seed))
    };
    let runs: Vec<_> = (0..3).map(run).collect();
    for (seed, first) in (0..3).zip(&runs) {
        assert_eq!(&run(seed), first, "seed {seed}");
    }
    assert!(
        runs[0] != runs[1] || runs[1] != runs[2],
        "seeds make a difference"
    );
}

/// A replica that is dropped takes its tasks with it.
#[tokio::test(start_paused = true)]
async fn a_stopped_replica_answers_that_it_has_stopped() {
    let mut cluster = Cluster::start(1, 17).await;
    let group: Arc<RaftGroup> = cluster.group(1).clone();
    group.wait_leader(LONG).await.unwrap();
    cluster.stop(1).await;
    assert_eq!(
        group.read_barrier().await.unwrap_err().code,
        Code::Unavailable
    );
    let refused = group.propose(Bytes::from_static(b"a")).await.map(|_| ());
    assert_eq!(refused.unwrap_err().code, Code::Unavailable);
}
