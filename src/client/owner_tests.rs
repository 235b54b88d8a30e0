//! The client against a cluster in memory whose chunk owners die, fill up and rot.

use super::testing::{CHUNK, TestCluster};
use super::tests::{bytes, cat, get, path, put};
use super::{GetOptions, NoProgress, Overwrite, PutOptions};
use crate::error::Code;
use crate::types::{Ack, ChunkHash, NodeId};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn hashes(data: &[u8]) -> Vec<ChunkHash> {
    data.chunks(CHUNK as usize).map(ChunkHash::of).collect()
}

#[tokio::test(start_paused = true)]
async fn a_put_goes_past_a_silent_first_owner() {
    for size in [CHUNK, 20 * CHUNK] {
        let cluster = TestCluster::new(4);
        let client = cluster.client(None).await;
        // The leader is an owner too; another one is silent.
        let data = (0..).map(|seed| bytes(size, seed)).find(|data| {
            let owners = cluster.owners(&hashes(data)[0]);
            owners[0] != 1
        });
        let data = data.unwrap();
        let dead = cluster.owners(&hashes(&data)[0])[0];
        cluster.stop(dead);
        let began = Instant::now();
        put(&client, &data, "/d/f", &PutOptions::default())
            .await
            .unwrap();
        assert!(began.elapsed() < ms(4_000), "{:?}", began.elapsed());
        let stored = cat(&client, "/d/f", &GetOptions::default()).await.unwrap();
        assert!(stored == data);
    }
}

#[tokio::test(start_paused = true)]
async fn a_put_goes_past_an_owner_that_dies_under_it() {
    let cluster = TestCluster::new(4);
    let client = cluster.client(None).await;
    let warm = bytes(40 * CHUNK, 1);
    put(&client, &warm, "/d/warm", &PutOptions::default())
        .await
        .unwrap();
    // Its connections are open and take bytes still.
    cluster.stop(3);
    let data = bytes(40 * CHUNK, 2);
    let began = Instant::now();
    put(&client, &data, "/d/f", &PutOptions::default())
        .await
        .unwrap();
    assert!(began.elapsed() < ms(4_000), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_full_owner_is_passed_over_and_full_everywhere_is_said() {
    let cluster = TestCluster::new(4);
    let client = cluster.client(None).await;
    let data = bytes(20 * CHUNK, 1);
    for node in 1..=2 {
        cluster.state().node(node).full = true;
    }
    let options = PutOptions::default();
    put(&client, &data, "/d/f", &options).await.unwrap();
    for node in 1..=4 {
        cluster.state().node(node).full = true;
    }
    let began = Instant::now();
    let other = bytes(20 * CHUNK, 2);
    let error = put(&client, &other, "/d/g", &options).await.unwrap_err();
    assert_eq!(error.code, Code::NoSpace);
    assert!(began.elapsed() < ms(1_000), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn bytes_handed_over_again_and_again_are_no_progress() {
    let cluster = TestCluster::new(3);
    let client = cluster.client(None).await;
    cluster.faults(|faults| faults.chunks_unanswered = true);
    let began = Instant::now();
    let data = bytes(3 * CHUNK, 1);
    let error = put(&client, &data, "/d/f", &PutOptions::default()).await;
    assert_eq!(error.unwrap_err().code, Code::Unavailable);
    // Two rounds through three owners, each as long as the timeout: the first got somewhere.
    assert!(began.elapsed() < ms(70_000), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_get_goes_on_while_owners_die_one_after_the_other() {
    let cluster = TestCluster::new(5);
    let client = cluster.client(None).await;
    let data = bytes(200 * CHUNK, 1);
    put(&client, &data, "/d/f", &PutOptions::default())
        .await
        .unwrap();
    cluster.faults(|faults| {
        faults.gets_until_death = BTreeMap::from([(NodeId(2), 3), (NodeId(4), 12)]);
    });
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("f");
    let began = Instant::now();
    get(&client, "/d/f", &out).await.unwrap();
    assert!(std::fs::read(&out).unwrap() == data);
    assert!(began.elapsed() < ms(10_000), "{:?}", began.elapsed());
    let began = Instant::now();
    assert!(cat(&client, "/d/f", &GetOptions::default()).await.unwrap() == data);
    assert!(began.elapsed() < ms(10_000), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn different_chunks_are_damaged_on_different_nodes() {
    let cluster = TestCluster::new(5);
    let client = cluster.client(None).await;
    let data = bytes(60 * CHUNK, 1);
    put(&client, &data, "/d/f", &PutOptions::default())
        .await
        .unwrap();
    // Each chunk has one good copy: the others are damaged, lost, or of other bytes.
    for (index, hash) in hashes(&data).into_iter().enumerate() {
        let owners = cluster.owners(&hash);
        let mut state = cluster.state();
        let (first, second) = (owners[index % 3], owners[(index + 1) % 3]);
        state.node(first).damaged.insert(hash);
        state.node(second).chunks.remove(&hash);
        if index % 7 == 0 {
            let wrong = vec![7; CHUNK as usize].into();
            state.node(second).chunks.insert(hash, wrong);
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("f");
    get(&client, "/d/f", &out).await.unwrap();
    assert!(std::fs::read(&out).unwrap() == data);
    assert!(cat(&client, "/d/f", &GetOptions::default()).await.unwrap() == data);
}

#[tokio::test(start_paused = true)]
async fn damage_everywhere_is_told_and_so_is_loss() {
    let cluster = TestCluster::new(4);
    let client = cluster.client(None).await;
    let data = bytes(3 * CHUNK, 1);
    put(&client, &data, "/d/f", &PutOptions::default())
        .await
        .unwrap();
    let hash = hashes(&data)[1];
    for node in 1..=4 {
        cluster.state().node(node).damaged.insert(hash);
    }
    let began = Instant::now();
    let error = cat(&client, "/d/f", &GetOptions::default()).await;
    assert_eq!(error.unwrap_err().code, Code::Corrupt);
    for node in 1..=4 {
        cluster.state().node(node).damaged.clear();
        cluster.state().node(node).chunks.remove(&hash);
    }
    cluster.counts();
    let error = cat(&client, "/d/f", &GetOptions::default()).await;
    assert_eq!(error.unwrap_err().code, Code::Corrupt);
    assert_eq!(cluster.counts().calls["Owners"], 1, "asked anew, once");
    assert!(began.elapsed() < ms(2_000), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_dead_owner_may_have_what_the_others_lost() {
    let cluster = TestCluster::new(4);
    let client = cluster.client(None).await;
    let data = bytes(2 * CHUNK, 1);
    put(&client, &data, "/d/f", &PutOptions::default())
        .await
        .unwrap();
    let hash = hashes(&data)[0];
    let owners = cluster.owners(&hash);
    let keeper = *owners.iter().find(|node| **node != 1).unwrap();
    for node in (1..=4).filter(|node| *node != keeper) {
        cluster.state().node(node).chunks.remove(&hash);
    }
    cluster.stop(keeper);
    let error = cat(&client, "/d/f", &GetOptions::default()).await;
    assert_eq!(error.unwrap_err().code, Code::Unavailable, "not lost");
    let wake = async {
        tokio::time::sleep(ms(3_000)).await;
        cluster.wake(keeper);
    };
    let options = GetOptions::default();
    let (stored, ()) = tokio::join!(cat(&client, "/d/f", &options), wake);
    assert!(stored.unwrap() == data);
}

#[tokio::test(start_paused = true)]
async fn chunks_that_moved_are_found_at_their_new_owners() {
    let cluster = TestCluster::new(7);
    let client = cluster.client(None).await;
    let data = bytes(10 * CHUNK, 1);
    put(&client, &data, "/d/f", &PutOptions::default())
        .await
        .unwrap();
    cluster.faults(|faults| faults.stale_owners = true);
    assert!(cat(&client, "/d/f", &GetOptions::default()).await.unwrap() == data);
}

#[tokio::test(start_paused = true)]
async fn owners_share_the_reads_of_a_file() {
    let cluster = TestCluster::new(3);
    let client = cluster.client(None).await;
    let data = bytes(300 * CHUNK, 1);
    put(&client, &data, "/d/f", &PutOptions::default())
        .await
        .unwrap();
    cluster.counts();
    assert!(cat(&client, "/d/f", &GetOptions::default()).await.unwrap() == data);
    let gets = cluster.counts().gets;
    assert_eq!(gets.values().sum::<u32>(), 300);
    assert!(gets.values().all(|count| *count > 50), "{gets:?}");
}

#[tokio::test(start_paused = true)]
async fn the_acknowledgement_asked_for_travels_with_chunks_and_commit() {
    for ack in [Ack::One, Ack::Quorum, Ack::All] {
        let cluster = TestCluster::new(3);
        let client = cluster.client(None).await;
        let with = |overwrite| PutOptions {
            ack,
            overwrite,
            ..PutOptions::default()
        };
        let data = bytes(2 * CHUNK, 1);
        let first = with(Overwrite::IfAbsent);
        put(&client, &data, "/d/f", &first).await.unwrap();
        // Reserved, both sent, committed.
        assert_eq!(cluster.counts().acks, [Ack::Quorum, ack, ack, ack]);
        let again = with(Overwrite::Current);
        put(&client, &data, "/d/f", &again).await.unwrap();
        // Reserved, both pinned, committed.
        assert_eq!(cluster.counts().acks, [Ack::Quorum, ack, ack, ack]);
        put(&client, &bytes(CHUNK, 1), "/d/g", &first)
            .await
            .unwrap();
        assert_eq!(cluster.counts().acks, [ack], "all in one");
    }
}

#[tokio::test(start_paused = true)]
async fn asking_for_owners_costs_little() {
    let cluster = TestCluster::new(3);
    let client = cluster.client(None).await;
    let options = PutOptions::default();
    // Connections to all.
    put(&client, &bytes(50 * CHUNK, 1), "/d/warm", &options)
        .await
        .unwrap();
    cluster.counts();
    let began = Instant::now();
    put(&client, &bytes(CHUNK, 2), "/d/small", &options)
        .await
        .unwrap();
    // One request: a millisecond each way.
    assert_eq!(began.elapsed(), ms(2));
    assert!(!cluster.counts().calls.contains_key("Owners"));
    let began = Instant::now();
    put(&client, &bytes(2 * CHUNK, 4), "/d/two", &options)
        .await
        .unwrap();
    // Reserve, the owners, the chunks, commit.
    assert_eq!(began.elapsed(), ms(8));
    put(&client, &bytes(640 * CHUNK, 3), "/d/large", &options)
        .await
        .unwrap();
    let asked = cluster.counts().calls["Owners"];
    assert!(asked < 40, "{asked} times for 640 chunks");

    let alone = TestCluster::one();
    let client = alone.client(None).await;
    put(&client, &bytes(9 * CHUNK, 2), "/d/f", &options)
        .await
        .unwrap();
    assert!(!alone.counts().calls.contains_key("Owners"));
}

#[tokio::test(start_paused = true)]
async fn connections_stay_bounded_in_a_large_cluster() {
    let cluster = TestCluster::new(150);
    let client = cluster.client(None).await;
    let data = bytes(600 * CHUNK, 1);
    let options = PutOptions {
        window_bytes: 16 * CHUNK,
        ..PutOptions::default()
    };
    put(&client, &data, "/d/f", &options).await.unwrap();
    assert!(cluster.counts().dials.len() > 64);
    let open = client.core.link.open_connections();
    assert!(open <= 64, "{open} connections");
    let dir = tempfile::tempdir().unwrap();
    let options = GetOptions {
        window_bytes: 16 * CHUNK,
        ..GetOptions::default()
    };
    let out = dir.path().join("f");
    let got = client.get_file(path("/d/f"), &out, &options, &NoProgress);
    got.await.unwrap();
    assert!(std::fs::read(&out).unwrap() == data);
    let open = client.core.link.open_connections();
    assert!(open <= 64, "{open} connections");
}
