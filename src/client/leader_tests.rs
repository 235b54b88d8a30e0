//! The client against a cluster in memory whose leaders change, stop and die.

use super::testing::TestCluster;
use super::tests::path;
use super::{Client, ListOptions, NoProgress, OpIds, PutOptions};
use crate::error::{Code, Result};
use crate::proto::{AdminAnswer, AdminCall};
use crate::shard::command::Op;
use crate::types::{NodeId, ReadLevel};
use futures::future::join_all;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

async fn mkdir(client: &Client, at: &str) -> Result<super::Changed> {
    client
        .mkdir(path(at), 0o755, false, &OpIds::Automatic)
        .await
}

async fn names(client: &Client) -> BTreeSet<String> {
    let listing = client.list_all(path("/d"), ListOptions::default()).await;
    let entries = listing.unwrap().entries.into_iter();
    entries.map(|(name, _)| name.to_string()).collect()
}

/// Makes directories on so many lanes until `end`, while the leader changes so many times. When
/// each was acknowledged, in order; every change was made exactly once.
async fn busy(
    (cluster, client): (&TestCluster, &Client),
    (lanes, changes): (u32, u32),
    end: Instant,
) -> Vec<Instant> {
    let acks = Mutex::new(Vec::new());
    let made = Mutex::new(BTreeSet::new());
    let lane = |lane: u32| {
        let (acks, made) = (&acks, &made);
        async move {
            let mut count = 0;
            while Instant::now() < end {
                let name = format!("{lane}-{count}");
                // Made twice it would be refused the second time.
                mkdir(client, &format!("/d/{name}")).await.unwrap();
                acks.lock().push(Instant::now());
                made.lock().insert(name);
                count += 1;
            }
        }
    };
    join_all((0..lanes).map(lane)).await;
    assert_eq!(names(client).await, made.into_inner());
    cluster.state().shard.check();
    let calls = cluster.counts().calls;
    let (hellos, sent) = (calls["Hello"], calls["Mutate"] as usize);
    assert!(hellos < 60 * changes, "all lanes look together: {hellos}");
    let repeated = sent - acks.lock().len();
    let most = (changes * lanes * 12) as usize;
    assert!(repeated < most, "{repeated} of {sent} were sent again");
    acks.into_inner()
}

fn longest_gap(acks: &[Instant]) -> Duration {
    let gaps = acks.windows(2).map(|pair| pair[1] - pair[0]);
    gaps.max().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_dies_silently_stops_64_changes_for_less_than_a_second() {
    for (seed, election) in [(0, 300), (1, 450), (2, 600), (3, 700)] {
        let cluster = TestCluster::new(3);
        cluster.works_for(ms(60));
        let client = cluster.client(None).await;
        let end = Instant::now() + ms(2_200);
        let fate = async {
            sleep(ms(500 + seed)).await;
            cluster.stop(1);
            sleep(ms(250)).await;
            cluster.elect(None);
            sleep(ms(election - 250)).await;
            cluster.elect(Some(2));
            sleep(ms(700)).await;
            // It finds everything that was sent to it meanwhile, and applies nothing of it.
            cluster.wake(1);
        };
        let (acks, ()) = tokio::join!(busy((&cluster, &client), (64, 1), end), fate);
        let gap = longest_gap(&acks);
        assert!(gap < ms(election + 300), "{election}: {gap:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_stopped_is_left_before_the_others_notice() {
    // They still name it when they are asked first, and the one that leads is asked last.
    let cluster = TestCluster::new(5);
    let client = cluster.client(None).await;
    mkdir(&client, "/d/a").await.unwrap();
    cluster.stop(1);
    let fate = async {
        sleep(ms(400)).await;
        cluster.state().leader = Some(NodeId(5));
        cluster.state().node(5).believes = Some(NodeId(5));
        sleep(ms(10_000)).await;
    };
    let began = Instant::now();
    tokio::select! {
        made = mkdir(&client, "/d/b") => drop(made.unwrap()),
        () = fate => panic!("it was never found"),
    }
    assert!(began.elapsed() < ms(1_000), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn leaders_change_back_and_forth() {
    let cluster = TestCluster::new(5);
    cluster.works_for(ms(60));
    let client = cluster.client(None).await;
    let end = Instant::now() + ms(10_000);
    let fate = async {
        for turn in 0..12u64 {
            let (old, new) = (turn % 4 + 1, (turn + 1) % 4 + 1);
            sleep(ms(300 + 37 * turn)).await;
            match turn % 4 {
                // Handed over.
                0 => cluster.elect(Some(new)),
                // Dies and comes back, with what was sent to it or without.
                1 => {
                    cluster.stop(old);
                    sleep(ms(400)).await;
                    cluster.elect(Some(new));
                    sleep(ms(200)).await;
                    cluster.wake(old);
                }
                2 => {
                    cluster.stop(old);
                    sleep(ms(500)).await;
                    cluster.elect(Some(new));
                    cluster.restart(old);
                }
                // For a while nobody leads.
                _ => {
                    cluster.elect(None);
                    sleep(ms(350)).await;
                    cluster.elect(Some(new));
                }
            }
        }
    };
    let (acks, ()) = tokio::join!(busy((&cluster, &client), (24, 12), end), fate);
    let gap = longest_gap(&acks);
    assert!(gap < ms(1_000), "{gap:?}");
}

#[tokio::test(start_paused = true)]
async fn a_slow_leader_keeps_its_requests_and_rumours_are_not_followed() {
    let cluster = TestCluster::new(3);
    let client = cluster.client(None).await;
    mkdir(&client, "/d/a").await.unwrap();
    cluster.works_for(ms(3_000));
    // Node 2 is behind: node 3 has never led.
    cluster.state().node(2).believes = Some(NodeId(3));
    cluster.counts();
    mkdir(&client, "/d/b").await.unwrap();
    let counts = cluster.counts();
    assert_eq!(counts.requests, 1);
    assert_eq!(counts.calls["Mutate"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_knows_a_follower_only_sends_changes_to_the_leader() {
    let cluster = TestCluster::new(3);
    let client = cluster.client_at(&[3], None).await;
    mkdir(&client, "/d/a").await.unwrap();
    assert_eq!(cluster.counts().calls["Mutate"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_former_leader_that_does_not_know_it_is_not_asked_for_long() {
    let cluster = TestCluster::new(3);
    let client = cluster.client(None).await;
    mkdir(&client, "/d/a").await.unwrap();
    cluster.stop(1);
    cluster.elect(Some(3));
    cluster.wake(1);
    for name in ["b", "c", "e"] {
        let began = Instant::now();
        mkdir(&client, &format!("/d/{name}")).await.unwrap();
        assert!(began.elapsed() < ms(100), "{:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn while_nobody_leads_everybody_is_asked_again() {
    let cluster = TestCluster::new(3);
    let client = cluster.client(None).await;
    mkdir(&client, "/d/a").await.unwrap();
    cluster.elect(None);
    let began = Instant::now();
    let fate = async {
        sleep(ms(600)).await;
        cluster.elect(Some(3));
    };
    let (made, ()) = tokio::join!(mkdir(&client, "/d/b"), fate);
    made.unwrap();
    assert!(began.elapsed() < ms(900), "{:?}", began.elapsed());
    let calls = cluster.counts().calls;
    assert!(calls["Mutate"] < 25 && calls["Hello"] < 60, "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_never_leads_ends_at_the_deadline() {
    let cluster = TestCluster::new(3);
    let client = cluster.client(None).await;
    cluster.elect(None);
    let began = Instant::now();
    let error = mkdir(&client, "/d/a").await.unwrap_err();
    assert_eq!(
        (error.code, error.may_have_happened),
        (Code::Unavailable, false)
    );
    assert!(began.elapsed() <= ms(10_000), "{:?}", began.elapsed());
    for node in 1..=3 {
        cluster.stop(node);
    }
    let began = Instant::now();
    let error = mkdir(&client, "/d/a").await.unwrap_err();
    assert_eq!(error.code, Code::Unavailable);
    assert!(began.elapsed() <= ms(12_000), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_request_about_many_paths_that_fails_names_the_first() {
    let cluster = TestCluster::new(3);
    let client = cluster.client(None).await;
    cluster.elect(None);
    let op = |at| Op::Mkdir {
        path: path(at).clone(),
        mode: 0o755,
        parents: false,
    };
    let ops = vec![op("/d/a"), op("/d/b"), op("/d/c")];
    let error = client.change_many(ops, &OpIds::Automatic).await;
    let error = error.unwrap_err();
    assert_eq!(error.path.as_deref(), Some("/d/a"));
    assert!(error.message.ends_with(" (the same for 2 more)"), "{error}");

    let local = tempfile::tempdir().unwrap();
    for name in ["one", "two"] {
        std::fs::write(local.path().join(name), name).unwrap();
    }
    cluster.elect(Some(1));
    cluster.faults(|faults| faults.lost_replies = u32::MAX);
    let put = PutOptions::default();
    let error = client.put_tree(local.path(), path("/d"), &put, &NoProgress);
    let error = error.await.unwrap_err();
    assert!(error.may_have_happened);
    assert!(error.path.is_some_and(|at| at.starts_with("/d/")));
    assert!(
        error.message.ends_with(" (the same for 1 more)"),
        "{}",
        error.message
    );
}

#[tokio::test(start_paused = true)]
async fn long_work_waits_for_the_node_that_does_it_and_for_nothing_else() {
    let cluster = TestCluster::new(3);
    let client = cluster.client(None).await;
    cluster.works_for(ms(20 * 60_000));
    client.gc(true).await.unwrap();
    client.fsck(path("/d"), true).await.unwrap();

    cluster.works_for(ms(0));
    cluster.elect(None);
    for stopped in [0, 3] {
        (1..=stopped).for_each(|node| cluster.stop(node));
        let began = Instant::now();
        let checked = client.fsck(path("/d"), true).await;
        assert_eq!(checked.unwrap_err().code, Code::Unavailable);
        let cleaned = client.gc(true).await.unwrap_err();
        assert_eq!(cleaned.code, Code::Unavailable);
        // Twice the client's timeout, and a node that is dialled last.
        assert!(began.elapsed() < ms(30_000), "{:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_takes_no_longer_than_its_timeout() {
    let cluster = TestCluster::new(1);
    let client = cluster.client_within(ms(1_000), &[1], None).await;
    cluster.stop(1);
    let began = Instant::now();
    let read = client.stat(path("/d"), ReadLevel::Linearizable).await;
    assert_eq!(read.unwrap_err().code, Code::Unavailable);
    assert!(began.elapsed() <= ms(1_500), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_restarted_leader_is_connected_to_again() {
    for nodes in [1, 3] {
        let cluster = TestCluster::new(nodes);
        let client = cluster.client(None).await;
        mkdir(&client, "/d/a").await.unwrap();
        cluster.restart(1);
        let began = Instant::now();
        mkdir(&client, "/d/b").await.unwrap();
        assert!(began.elapsed() < ms(200), "{:?}", began.elapsed());
        let dials = cluster.counts().dials;
        assert_eq!(dials[&NodeId(1)], 2, "{dials:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_addresses_of_an_earlier_run_lead_past_a_dead_node() {
    let cluster = TestCluster::new(3);
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let client = cluster.client_at(&[1], Some(state.clone())).await;
    mkdir(&client, "/d/a").await.unwrap();
    drop(client);
    cluster.stop(1);
    cluster.elect(Some(2));
    let began = Instant::now();
    let client = cluster.client_at(&[1], Some(state.clone())).await;
    assert_eq!(names(&client).await, BTreeSet::from(["a".to_owned()]));
    assert!(began.elapsed() < ms(1_000), "{:?}", began.elapsed());

    // One that was never told of the others cannot find them.
    let (env, _) = crate::env::sim::env(1);
    let targets = super::endpoints::parse_all(&["127.0.0.1:7401".to_owned()]).unwrap();
    let link = super::link::Link::new(env, Box::new(cluster.clone()), targets, None);
    let error = link.any(None, ms(10_000)).await.err().unwrap();
    assert_eq!(error.code, Code::Unavailable);
    assert!(error.message.contains("127.0.0.1:7401"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn older_news_come_from_any_node_with_a_replica() {
    let cluster = TestCluster::new(3);
    let client = cluster.client_at(&[2], None).await;
    mkdir(&client, "/d/a").await.unwrap();
    cluster.stop(1);
    for level in [
        ReadLevel::Stale,
        ReadLevel::Bounded(1_000),
        ReadLevel::Follower,
    ] {
        let began = Instant::now();
        client.stat(path("/d/a"), level).await.unwrap();
        assert!(began.elapsed() < ms(2_000), "{:?}", began.elapsed());
    }
    // One without a replica sends us to the leader.
    cluster.wake(1);
    cluster.state().without_replica = BTreeSet::from([NodeId(2), NodeId(3)]);
    let level = ReadLevel::Stale;
    client.stat(path("/d/a"), level).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn fresh_reads_follow_a_new_leader() {
    let cluster = TestCluster::new(3);
    let client = cluster.client(None).await;
    mkdir(&client, "/d/a").await.unwrap();
    cluster.stop(1);
    let fate = async {
        sleep(ms(500)).await;
        cluster.elect(Some(3));
    };
    let began = Instant::now();
    let (found, ()) = tokio::join!(names(&client), fate);
    assert_eq!(found.len(), 1);
    assert!(began.elapsed() < ms(1_000), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn administrators_are_answered_by_a_node_that_lives() {
    let cluster = TestCluster::new(3);
    let client = cluster.client_at(&[2], None).await;
    cluster.stop(2);
    let began = Instant::now();
    let done = client.admin(AdminCall::Drain(NodeId(2))).await.unwrap();
    assert_eq!(done, AdminAnswer::Done("it is done".into()));
    assert!(began.elapsed() < ms(2_000), "{:?}", began.elapsed());
    cluster.stop(1);
    cluster.stop(3);
    let error = client.admin(AdminCall::Drain(NodeId(2))).await.unwrap_err();
    assert!(error.may_have_happened, "{error}");
    let error = client.admin(AdminCall::Nodes).await.unwrap_err();
    assert!(!error.may_have_happened, "{error}");
}
