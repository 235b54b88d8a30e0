//! Reads that ask nobody, and when they must not.

use super::barrier::lease;
use super::model_tests::{Cluster, eventually};
use super::{Timers, barrier};
use crate::error::{Code, Result};
use crate::types::ReplicaId;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// Three replicas that have heard of each other just now: who leads, and the two others.
async fn settled(seed: u64) -> (Cluster, u64, [u64; 2]) {
    let cluster = Cluster::start(3, seed).await;
    let leader = cluster.leader().await;
    cluster.propose(leader, "old").await.unwrap();
    let others: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    (cluster, leader, [others[0], others[1]])
}

async fn read(cluster: &Cluster, id: u64) -> Result<()> {
    cluster.group(id).read_barrier().await
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_was_just_heard_asks_nobody() {
    let (cluster, leader, others) = settled(1).await;
    others.into_iter().for_each(|id| cluster.board.cut(id));
    let before = cluster.board.calls.load(Relaxed);
    for _ in 0..100 {
        read(&cluster, leader).await.unwrap();
    }
    assert_eq!(cluster.board.calls.load(Relaxed), before);
    sleep(lease(Timers::default())).await;
    let refused = read(&cluster, leader).await.unwrap_err();
    assert_eq!(refused.code, Code::Unavailable, "{refused}");
    assert!(refused.message.contains("no quorum"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn of_many_reads_few_ask() {
    let (cluster, leader, _) = settled(2).await;
    let before = cluster.board.calls.load(Relaxed);
    let mut asked = 0;
    for _ in 0..1_000 {
        let began = Instant::now();
        read(&cluster, leader).await.unwrap();
        asked += u32::from(began.elapsed() > Duration::ZERO);
        sleep(Duration::from_millis(1)).await;
    }
    assert!((10..=60).contains(&asked), "{asked} of 1,000 asked");
    let calls = cluster.board.calls.load(Relaxed) - before;
    assert!(calls < 200, "{calls} messages");
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_slept_asks_again() {
    let (cluster, leader, others) = settled(3).await;
    cluster.clock.sleep(Duration::from_secs(5));
    let asked = Instant::now();
    read(&cluster, leader).await.unwrap();
    assert_ne!(asked.elapsed(), Duration::ZERO, "somebody was asked");
    let asked = Instant::now();
    read(&cluster, leader).await.unwrap();
    assert_eq!(asked.elapsed(), Duration::ZERO, "once is enough");
    others.into_iter().for_each(|id| cluster.board.cut(id));
    cluster.clock.sleep(Duration::from_secs(5));
    let refused = read(&cluster, leader).await.unwrap_err();
    assert_eq!(refused.code, Code::Unavailable, "{refused}");
}

/// A follower that told the leader yes, and died and came back at once, must not help a candidate
/// that has not heard of the leader for long and has the whole log.
#[test]
fn a_replica_that_was_started_again_ends_nobodys_lease() {
    for seed in 1..=10 {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(restarted(seed));
    }
}

async fn restarted(seed: u64) {
    let (mut cluster, leader, [follower, candidate]) = settled(seed).await;
    cluster.board.cut(candidate);
    sleep(Duration::from_millis(1_000 + seed * 7)).await;
    // The lease begins anew.
    sleep(lease(Timers::default())).await;
    read(&cluster, leader).await.unwrap();
    cluster.stop(follower).await;
    cluster.board.heal();
    cluster.board.cut(leader);
    cluster.run(follower).await;
    // Else it would try too late in nearly all cases: a lease is much shorter than its patience.
    let candidacy = cluster.group(candidate).raft.trigger();
    candidacy.elect(true).await.unwrap();
    let led = |id: u64| cluster.group(id).is_leader();
    let mut written = false;
    for _ in 0..2_000 {
        if !written && let Some(new) = [follower, candidate].into_iter().find(|id| led(*id)) {
            written = cluster.propose(new, "new").await.is_ok();
        }
        if let Ok(Ok(())) = timeout(Duration::from_millis(1), read(&cluster, leader)).await {
            assert!(!written, "seed {seed}: a read of the past");
        }
        sleep(Duration::from_millis(1)).await;
    }
    assert!(written, "seed {seed}: nobody leads");
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_gives_the_lead_away_answers_no_reads() {
    for seed in 1..=20 {
        let (cluster, leader, [heir, _]) = settled(seed).await;
        let given = cluster.group(leader).transfer_leader(ReplicaId(heir));
        given.await.unwrap();
        let mut written = false;
        for _ in 0..200 {
            if !written && cluster.group(heir).is_leader() {
                written = cluster.propose(heir, "new").await.is_ok();
            }
            if let Ok(Ok(())) = timeout(Duration::from_millis(1), read(&cluster, leader)).await {
                assert!(!written, "seed {seed}: a read of the past");
            }
            sleep(Duration::from_millis(1)).await;
        }
        eventually("the heir leads", || cluster.group(heir).is_leader()).await;
    }
}

#[test]
fn a_lease_ends_before_anybody_else_can_lead_whatever_the_clocks() {
    let timers = Timers::default();
    let (slow, fast) = (0.8, 1.2);
    let ends = barrier::lease(timers).as_secs_f64() / slow;
    // What a follower that heard the leader waits, and one that was started again.
    for waits in [timers.election_max, timers.election_min] {
        assert!(ends < waits.as_secs_f64() / fast);
    }
}
