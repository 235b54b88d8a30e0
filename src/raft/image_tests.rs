//! Replicas that are filled by images, on paused time.

use super::compaction::CATCH_UP_TIME;
use super::image::Parcel;
use super::kinds::{self, Vote};
use super::message::{Answer, Ask, Envelope, ImageHead};
use super::model_tests::{Cluster, GROUP, Journal, node};
use super::stored::StoredVote;
use super::{ReceivedImage, StateMachine};
use crate::codec;
use crate::error::Code;
use crate::types::{LogIndex, ReplicaId};
use bytes::Bytes;
use futures::future::join_all;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::time::sleep;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Writes to whoever leads, many at a time; how many were acknowledged.
async fn write(cluster: &Cluster, count: usize) -> usize {
    let mut written = 0;
    let mut number = 0;
    while written < count {
        let leader = cluster.leader().await;
        let texts: Vec<String> = (0..100).map(|n| format!("{number}.{n}")).collect();
        number += 1;
        let done = join_all(texts.iter().map(|text| cluster.propose(leader, text))).await;
        written += done.iter().filter(|outcome| outcome.is_ok()).count();
    }
    written
}

/// Folds and compacts every replica again and again.
async fn compact_all(cluster: &Cluster, ids: &[u64]) {
    loop {
        for id in ids {
            cluster.compact(*id).await;
        }
        sleep(ms(20)).await;
    }
}

/// Three replicas whose log begins far behind the seed.
async fn compacted(seed: u64) -> Cluster {
    let cluster = Cluster::start(3, seed).await;
    write(&cluster, 200).await;
    cluster.agree(&[1, 2, 3], 200).await;
    for id in 1..=3 {
        cluster.compact_whole(id).await;
    }
    cluster
}

#[tokio::test(start_paused = true)]
async fn an_empty_replica_waits_and_never_campaigns() {
    let mut cluster = Cluster::start(1, 101).await;
    cluster.add_empty(2).await;
    cluster.leader().await;
    sleep(Duration::from_secs(20)).await;
    let status = cluster.group(2).status();
    assert_eq!((status.term, status.leader, status.last), (0, None, 0));
    assert!(status.voters.is_empty() && status.learners.is_empty());
    assert_eq!(cluster.board.calls.load(Relaxed), 0);
    assert_eq!(cluster.group(2).members().at.index, LogIndex(0));
}

#[tokio::test(start_paused = true)]
async fn an_empty_replica_is_filled_by_an_image_even_if_the_whole_log_is_there() {
    let mut cluster = Cluster::start(1, 102).await;
    cluster.leader().await;
    cluster.propose(1, "a").await.unwrap();
    cluster.add_empty(2).await;
    cluster.fill(2).await;
    cluster.agree(&[1, 2], 1).await;
    assert_eq!(cluster.board.images.load(Relaxed), 1);
    let status = cluster.group(1).status();
    assert_eq!(status.learners, [(ReplicaId(2), node(2))]);
}

#[tokio::test(start_paused = true)]
async fn a_learner_is_filled_by_one_image_while_ten_thousand_entries_are_written() {
    let mut cluster = compacted(103).await;
    cluster.add_empty(4).await;
    cluster.board.image_ms.store(200, Relaxed);
    let term = cluster.group(1).status().term;
    let work = async { tokio::join!(write(&cluster, 10_000), cluster.fill(4)) };
    tokio::select! {
        _ = work => {}
        () = compact_all(&cluster, &[1, 2, 3]) => unreachable!(),
    }
    cluster.agree(&[1, 2, 3, 4], 10_200).await;
    assert_eq!(
        cluster.board.images.load(Relaxed),
        1,
        "no image after the other"
    );
    assert_eq!(cluster.replicas[&4].state.installed.load(Relaxed), 1);
    assert_eq!(cluster.group(1).status().term, term);
    // Its log begins behind the image, and goes on.
    cluster.compact(4).await;
    let log = cluster.replicas[&4].log.entries();
    assert!(log < 10_000, "{log}");
    assert!(cluster.group(4).status().last > 10_200);
}

#[tokio::test(start_paused = true)]
async fn a_learner_is_filled_although_the_leader_changes_while_it_is_sent() {
    for seed in 0..10 {
        let mut cluster = compacted(110 + seed).await;
        cluster.add_empty(4).await;
        cluster.board.image_ms.store(400, Relaxed);
        let first = cluster.leader().await;
        let group = cluster.group(first).clone();
        group.add_learner(ReplicaId(4), node(4)).await.unwrap();
        let writes = write(&cluster, 300);
        let change = async {
            sleep(ms(100 + 35 * seed)).await;
            group.hand_over(Duration::from_secs(5)).await.unwrap();
        };
        tokio::join!(writes, change);
        cluster.fill(4).await;
        cluster.agree(&[1, 2, 3, 4], 500).await;
        let images = cluster.board.images.load(Relaxed);
        assert!((1..=3).contains(&images), "{images} images");
    }
}

#[tokio::test(start_paused = true)]
async fn an_image_whose_answer_got_lost_is_not_sent_again() {
    let mut cluster = compacted(120).await;
    cluster.add_empty(4).await;
    cluster.board.lose_image_answers.store(1, Relaxed);
    cluster.fill(4).await;
    cluster.agree(&[1, 2, 3, 4], 200).await;
    assert_eq!(cluster.board.images.load(Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn an_image_is_not_cut_for_a_replica_that_does_not_answer() {
    let cluster = compacted(121).await;
    let leader = cluster.leader().await;
    let group = cluster.group(leader);
    group.add_learner(ReplicaId(4), node(4)).await.unwrap();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(cluster.replicas[&leader].state.cut.load(Relaxed), 0);
    group.remove_learner(ReplicaId(4)).await.unwrap();
    let unknown = group.remove_learner(ReplicaId(4)).await.unwrap_err();
    assert_eq!(unknown.code, Code::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_filled_replica_restarts_on_what_it_was_given() {
    let mut cluster = compacted(122).await;
    cluster.add_empty(4).await;
    cluster.fill(4).await;
    cluster.agree(&[1, 2, 3, 4], 200).await;
    cluster.stop(4).await;
    write(&cluster, 100).await;
    cluster.run(4).await;
    cluster.agree(&[1, 2, 3, 4], 300).await;
    assert_eq!(cluster.board.images.load(Relaxed), 1, "the log goes on");
}

#[tokio::test(start_paused = true)]
async fn the_power_goes_between_the_installed_image_and_its_log() {
    let mut cluster = compacted(123).await;
    // A follower is cut off until it needs an image, and has entries of its own.
    let leader = cluster.leader().await;
    let late = if leader == 3 { 2 } else { 3 };
    cluster.board.cut(late);
    let old = cluster.replicas[&late].log.after_power_cut();
    write(&cluster, 100).await;
    cluster.compact(leader).await;
    cluster.clock.advance(CATCH_UP_TIME + ms(1));
    cluster.compact_whole(leader).await;
    cluster.board.heal();
    cluster.agree(&[1, 2, 3], 300).await;
    assert_eq!(cluster.replicas[&late].state.installed.load(Relaxed), 1);
    cluster.stop(late).await;
    let replica = cluster.replicas.get_mut(&late).unwrap();
    assert_eq!(old.entries(), 0);
    replica.log = old;
    cluster.run(late).await;
    write(&cluster, 10).await;
    cluster.agree(&[1, 2, 3], 310).await;
}

#[tokio::test(start_paused = true)]
async fn a_member_that_lags_holds_the_log_for_ten_minutes() {
    let cluster = compacted(124).await;
    let leader = cluster.leader().await;
    let late = if leader == 3 { 2 } else { 3 };
    cluster.board.cut(late);
    write(&cluster, 100).await;
    cluster.compact(leader).await;
    sleep(ms(500)).await;
    assert!(cluster.group(leader).log_entries() >= 100, "kept");
    cluster.clock.advance(CATCH_UP_TIME / 2);
    cluster.compact(leader).await;
    cluster.board.heal();
    cluster.agree(&[1, 2, 3], 300).await;
    assert_eq!(cluster.board.images.load(Relaxed), 0, "it was there for it");
    cluster.compact_whole(leader).await;
    cluster.board.cut(late);
    write(&cluster, 100).await;
    cluster.compact(leader).await;
    cluster.clock.advance(CATCH_UP_TIME + ms(1));
    cluster.compact_whole(leader).await;
    cluster.board.heal();
    cluster.agree(&[1, 2, 3], 400).await;
    assert_eq!(cluster.board.images.load(Relaxed), 1);
}

fn head(cluster: &Cluster, to: u64, from: u64, vote: &Vote) -> Bytes {
    let mark = cluster.replicas[&from].state.applied();
    let head = ImageHead {
        vote: vote.into(),
        position: mark.position,
        members: mark.members,
    };
    let envelope = Envelope {
        group: GROUP,
        from: ReplicaId(from),
        to: ReplicaId(to),
        ask: Ask::Image(head),
    };
    codec::encode(&envelope).into()
}

async fn file(journal: &Arc<Journal>) -> ReceivedImage {
    let cut = journal.cut_image().await.unwrap();
    ReceivedImage {
        file: cut.file,
        keep: cut.keep,
    }
}

#[tokio::test(start_paused = true)]
async fn an_image_is_taken_only_from_a_leader_and_only_if_it_fits() {
    let mut cluster = compacted(125).await;
    cluster.add_empty(4).await;
    let source = cluster.replicas[&1].state.clone();
    let term = cluster.group(1).status().term;
    let group = cluster.group(4).clone();
    let leads = cluster.leader().await;
    let leader = kinds::vote(term, leads, true);
    let give = async |head: Bytes| group.receive_image(head, file(&source).await).await;

    let other = give(head(&cluster, 5, 1, &leader)).await.unwrap_err();
    assert_eq!(other.code, Code::NotFound);
    let older = kinds::vote(term - 1, 9, true);
    let newer = give(head(&cluster, 4, 1, &older)).await.unwrap_err();
    assert_eq!(newer.code, Code::Corrupt, "{newer}");
    // The head says something else than the image.
    let said = head(&cluster, 4, 1, &leader);
    cluster.propose(leads, "more").await.unwrap();
    cluster.agree(&[1, 2, 3], 201).await;
    let unlike = give(said).await.unwrap_err();
    assert_eq!(unlike.code, Code::Corrupt, "{unlike}");
    assert_eq!(cluster.replicas[&4].state.discarded.load(Relaxed), 1);
    assert!(cluster.commands(4).is_empty());

    let (first, second) = tokio::join!(
        give(head(&cluster, 4, 1, &leader)),
        give(head(&cluster, 4, 1, &leader))
    );
    let (taken, refused) = if first.is_ok() {
        (first, second)
    } else {
        (second, first)
    };
    assert_eq!(refused.unwrap_err().code, Code::Busy);
    let answer: Answer = codec::decode(&taken.unwrap()).unwrap();
    assert_eq!(answer, Answer::Image(StoredVote::from(&leader)));
    assert_eq!(cluster.commands(4).len(), 201);
    // Again: it has it.
    give(head(&cluster, 4, 1, &leader)).await.unwrap();
    assert_eq!(cluster.replicas[&4].state.installed.load(Relaxed), 1);

    // One that has heard of a newer leader says so.
    let deposed = kinds::vote(term, 0, true);
    let told = cluster
        .group(2)
        .receive_image(head(&cluster, 2, 1, &deposed), file(&source).await);
    let Answer::Image(vote) = codec::decode(&told.await.unwrap()).unwrap() else {
        panic!("another answer");
    };
    assert!(Vote::from(vote) > deposed);
}

#[tokio::test(start_paused = true)]
async fn an_image_without_its_file_and_a_file_without_an_image_are_refused() {
    let mut cluster = Cluster::start(1, 126).await;
    cluster.add_empty(2).await;
    let head = head(&cluster, 2, 1, &kinds::vote(1, 1, true));
    let refused = cluster.group(2).receive(head).await.unwrap_err();
    assert_eq!(refused.code, Code::Corrupt);
    let offer = Envelope {
        group: GROUP,
        from: ReplicaId(1),
        to: ReplicaId(2),
        ask: Ask::Offer((&kinds::vote(1, 1, true)).into()),
    };
    let image = file(&cluster.replicas[&1].state).await;
    let offer = codec::encode(&offer).into();
    let refused = cluster.group(2).receive_image(offer, image).await;
    assert_eq!(refused.unwrap_err().code, Code::Corrupt);
    assert!(Parcel::default().take().is_none());
}
