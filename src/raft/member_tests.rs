//! Groups whose members change, on paused time.

use super::model_tests::{Cluster, eventually, node};
use crate::error::Code;
use crate::types::ReplicaId;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tokio::time::{Instant, sleep};

const LONG: Duration = Duration::from_secs(10);

fn ids(ids: &[u64]) -> BTreeSet<ReplicaId> {
    ids.iter().map(|id| ReplicaId(*id)).collect()
}

/// Writes to whoever leads, one after the other; what was acknowledged.
async fn write_until(cluster: &Cluster, done: &AtomicBool) -> Vec<String> {
    let mut acknowledged = Vec::new();
    let mut number = 0;
    while !done.load(Relaxed) {
        let running = |id: &&u64| {
            cluster.replicas[id]
                .group
                .as_ref()
                .is_some_and(|g| g.is_leader())
        };
        let Some(leader) = cluster.replicas.keys().find(running).copied() else {
            sleep(Duration::from_millis(5)).await;
            continue;
        };
        // One replica alone takes no time at all to acknowledge.
        sleep(Duration::from_millis(1)).await;
        let text = format!("write {number}");
        number += 1;
        if cluster.propose(leader, &text).await.is_ok() {
            acknowledged.push(text);
        }
    }
    acknowledged
}

#[tokio::test(start_paused = true)]
async fn one_grows_to_three_to_five_and_shrinks_to_three_under_writes() {
    let mut cluster = Cluster::start(1, 201).await;
    cluster.leader().await;
    for id in 2..=5 {
        cluster.add_empty(id).await;
    }
    let done = AtomicBool::new(false);
    let change = async {
        cluster.fill(2).await;
        cluster.fill(3).await;
        cluster.change_voters(&[1, 2, 3]).await;
        cluster.fill(4).await;
        cluster.fill(5).await;
        cluster.change_voters(&[1, 2, 3, 4, 5]).await;
        cluster.agree(&[1, 2, 3, 4, 5], 1).await;
        cluster.change_voters(&[3, 4, 5]).await;
        sleep(Duration::from_secs(2)).await;
        done.store(true, Relaxed);
    };
    let (acknowledged, ()) = tokio::join!(write_until(&cluster, &done), change);
    assert!(acknowledged.len() > 200, "{}", acknowledged.len());
    cluster.agree(&[3, 4, 5], acknowledged.len()).await;
    let commands = cluster.commands(4);
    for text in &acknowledged {
        let times = commands.iter().filter(|c| *c == text.as_bytes()).count();
        assert_eq!(times, 1, "{text}");
    }
    let members = cluster.group(4).members();
    let voters: Vec<ReplicaId> = members.voters.iter().map(|(id, _)| *id).collect();
    assert_eq!(voters, [3, 4, 5].map(ReplicaId));
    assert!(!members.joint && members.learners.is_empty());
    assert!(members.at.index.0 > 1);
    assert!([3, 4, 5].contains(&cluster.leader().await));
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_removes_itself_gives_the_lead_away() {
    let cluster = Cluster::start(3, 202).await;
    let first = cluster.leader().await;
    cluster.propose(first, "a").await.unwrap();
    let rest: Vec<u64> = (1..=3).filter(|id| *id != first).collect();
    let group = cluster.group(first);
    group.change_voters(&ids(&rest)).await.unwrap();
    let removed = Instant::now();
    eventually("another leads", || {
        rest.iter().any(|id| cluster.group(*id).is_leader()) && !group.is_leader()
    })
    .await;
    assert!(
        removed.elapsed() < Duration::from_secs(1),
        "{:?}",
        removed.elapsed()
    );
    let next = *rest
        .iter()
        .find(|id| cluster.group(**id).is_leader())
        .unwrap();
    let term = cluster.group(next).status().term;
    cluster.propose(next, "b").await.unwrap();
    // The removed one stays quiet.
    sleep(LONG).await;
    assert_eq!(cluster.group(next).status().term, term);
    assert!(cluster.group(next).is_leader());
    assert_eq!(
        group
            .propose("c".into())
            .await
            .map(|_| ())
            .unwrap_err()
            .code,
        Code::Redirect
    );
}

#[tokio::test(start_paused = true)]
async fn a_lost_replica_is_replaced_under_a_new_id_and_does_not_disturb() {
    let mut cluster = Cluster::start(3, 203).await;
    let leader = cluster.leader().await;
    cluster.propose(leader, "a").await.unwrap();
    let lost = if leader == 3 { 2 } else { 3 };
    cluster.agree(&[1, 2, 3], 1).await;
    cluster.board.cut(lost);
    cluster.add_empty(4).await;
    cluster.fill(4).await;
    let kept = 6 - lost - leader;
    cluster.change_voters(&[leader, kept, 4]).await;
    cluster.propose(leader, "b").await.unwrap();
    let term = cluster.group(leader).status().term;
    // It was not told, has lost its leader, and comes back.
    sleep(LONG).await;
    cluster.board.heal();
    sleep(LONG).await;
    assert_eq!(cluster.group(leader).status().term, term);
    assert!(cluster.group(leader).is_leader());
    assert_eq!(
        cluster.group(lost).status().term,
        term,
        "it never stood for election"
    );
    assert_eq!(cluster.commands(lost), ["a"]);
    cluster.propose(leader, "c").await.unwrap();
    cluster.agree(&[leader, kept, 4], 3).await;
    // Nor can it when the others elect somebody anew.
    cluster.stop(leader).await;
    let next = cluster.leader().await;
    assert!([kept, 4].contains(&next));
    cluster.propose(next, "d").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_was_cut_off_comes_back_without_raising_the_term() {
    let cluster = Cluster::start(3, 204).await;
    let leader = cluster.leader().await;
    cluster.propose(leader, "a").await.unwrap();
    let term = cluster.group(leader).status().term;
    let away = if leader == 3 { 2 } else { 3 };
    cluster.board.cut(away);
    sleep(LONG).await;
    cluster.propose(leader, "b").await.unwrap();
    cluster.board.heal();
    cluster.agree(&[1, 2, 3], 2).await;
    sleep(LONG).await;
    for id in 1..=3 {
        assert_eq!(cluster.group(id).status().term, term);
        assert_eq!(cluster.group(id).status().leader, Some(ReplicaId(leader)));
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_changed_is_said_in_our_words() {
    let mut cluster = Cluster::start(3, 205).await;
    let leader = cluster.leader().await;
    cluster.propose(leader, "a").await.unwrap();
    let group = cluster.group(leader).clone();
    let follower = if leader == 3 { 2 } else { 3 };
    let code = |outcome: crate::error::Result<()>| outcome.unwrap_err().code;

    assert_eq!(code(group.change_voters(&ids(&[])).await), Code::Usage);
    assert_eq!(
        code(group.change_voters(&ids(&[1, 2, 9])).await),
        Code::NotFound
    );
    assert_eq!(
        code(group.remove_learner(ReplicaId(1)).await),
        Code::Conflict
    );
    assert_eq!(
        code(group.remove_learner(ReplicaId(9)).await),
        Code::NotFound
    );
    assert_eq!(
        code(group.add_learner(ReplicaId(1), node(7)).await),
        Code::Conflict
    );
    group.add_learner(ReplicaId(1), node(1)).await.unwrap();
    group.change_voters(&ids(&[1, 2, 3])).await.unwrap();

    eventually("it knows its leader", || {
        cluster.group(follower).status().leader.is_some()
    })
    .await;
    let other = cluster.group(follower);
    assert_eq!(
        code(other.add_learner(ReplicaId(4), node(4)).await),
        Code::Redirect
    );
    assert_eq!(
        code(other.change_voters(&ids(&[1, 2])).await),
        Code::Redirect
    );
    assert_eq!(other.progress(), None);

    // A learner that nobody runs never catches up.
    group.add_learner(ReplicaId(4), node(4)).await.unwrap();
    assert_eq!(
        code(group.change_voters(&ids(&[1, 2, 4])).await),
        Code::Conflict
    );
    assert_eq!(group.progress().unwrap()[&ReplicaId(4)].matched, None);
    cluster.add_empty(4).await;
    cluster.fill(4).await;
    assert!(group.progress().unwrap()[&ReplicaId(4)].matched.is_some());
    assert_eq!(group.status().learners, [(ReplicaId(4), node(4))]);

    // One change after the other.
    (1..=4)
        .filter(|id| *id != leader)
        .for_each(|id| cluster.board.cut(id));
    let (one, two) = (ids(&[1, 2, 3, 4]), ids(&[1, 2, 3]));
    let (slow, refused) = tokio::join!(group.change_voters(&one), async {
        sleep(Duration::from_millis(50)).await;
        let refused = group.change_voters(&two).await;
        cluster.board.heal();
        refused
    });
    assert_eq!(refused.unwrap_err().code, Code::Busy);
    slow.unwrap();
    assert_eq!(group.members().voters.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_change_that_lost_its_leader_is_finished_by_the_next() {
    let mut cluster = Cluster::start(3, 206).await;
    let leader = cluster.leader().await;
    cluster.add_empty(4).await;
    cluster.fill(4).await;
    let group = cluster.group(leader).clone();
    let goal: Vec<u64> = (1..=4).filter(|id| *id != leader).collect();
    let change = ids(&goal);
    let started = tokio::time::timeout(Duration::from_millis(3), group.change_voters(&change));
    assert!(started.await.is_err(), "it takes two entries");
    eventually("the others know of it", || {
        goal.iter().all(|id| cluster.group(*id).members().joint)
    })
    .await;
    drop(group);
    cluster.stop(leader).await;
    cluster.leader().await;
    cluster.change_voters(&goal).await;
    let members = cluster.group(goal[0]).members();
    assert_eq!(members.voters.len(), 3);
    let next = cluster.leader().await;
    cluster.propose(next, "a").await.unwrap();
    cluster.agree(&goal, 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_hands_over_to_the_voter_that_has_most() {
    let cluster = Cluster::start(3, 207).await;
    let leader = cluster.leader().await;
    let behind = if leader == 3 { 2 } else { 3 };
    cluster.board.cut(behind);
    cluster.propose(leader, "a").await.unwrap();
    let heir = 6 - leader - behind;
    let given = Instant::now();
    cluster.group(leader).hand_over(LONG).await.unwrap();
    assert!(
        given.elapsed() < Duration::from_millis(200),
        "{:?}",
        given.elapsed()
    );
    cluster.group(heir).wait_leader(LONG).await.unwrap();
    cluster.board.heal();
    // A follower has nothing to give.
    cluster.group(behind).hand_over(LONG).await.unwrap();

    // Only to whom it may go, and if that is nobody it stays.
    for heir in [leader, behind] {
        let leads = cluster.leader().await;
        let to = |replica: ReplicaId| replica.0 == heir;
        let group = cluster.group(leads);
        let nobody = group.hand_over_to(|_| false, LONG).await.unwrap_err();
        assert_eq!(nobody.code, Code::Unavailable);
        assert!(group.is_leader());
        group.hand_over_to(to, LONG).await.unwrap();
        cluster.group(heir).wait_leader(LONG).await.unwrap();
    }

    let alone = Cluster::start(1, 208).await;
    alone.leader().await;
    let nobody = alone.group(1).hand_over(LONG).await.unwrap_err();
    assert_eq!(nobody.code, Code::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn heartbeats_may_wait_for_company_but_not_a_readers_question() {
    let cluster = Cluster::start(3, 209).await;
    let leader = cluster.leader().await;
    cluster.propose(leader, "a").await.unwrap();
    sleep(Duration::from_secs(1)).await;
    let count = || {
        let board = &cluster.board;
        (board.calls.load(Relaxed), board.heartbeats.load(Relaxed))
    };
    let before = count();
    sleep(Duration::from_secs(3)).await;
    let idle = count();
    // To two others every 150 ms.
    assert!(
        (36..=42).contains(&(idle.1 - before.1)),
        "{before:?} {idle:?}"
    );
    assert_eq!(
        idle.0 - before.0,
        idle.1 - before.1,
        "nothing but heartbeats"
    );
    for at in 0..15 {
        cluster.propose(leader, &format!("b{at}")).await.unwrap();
        sleep(Duration::from_millis(200)).await;
    }
    let used = count().1 - idle.1;
    assert!(used > 60, "every 75 ms while it is used: {used}");
    for _ in 0..50 {
        sleep(Duration::from_millis(13)).await;
        let before = count();
        // No lease holds after that.
        cluster.clock.sleep(Duration::from_secs(1));
        let asked = Instant::now();
        cluster.group(leader).read_barrier().await.unwrap();
        let after = count();
        assert!(asked.elapsed() < Duration::from_millis(10));
        assert!(after.0 - before.0 >= 2);
        assert_eq!(after.1, before.1, "a read waits for them");
    }
}
