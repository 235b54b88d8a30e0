//! A disk that fails, and one that is full.

use super::crash::{Reference, SEED, recovers, reference};
use super::picture::{Picture, all_is_readable};
use super::play::{Client, put_chunk, send};
use super::{DIR, Life, run, sample};
use crate::env::Disk;
use crate::env::base::ModelBase;
use crate::env::sim::{Fault, FaultError, OpKind, SimDisk};
use crate::error::{Code, Error, Result};
use crate::proto::Look;
use crate::shard::command::{Op, Removal};
use crate::shard::testing::{mkdir, put, remove};
use crate::types::{ChunkHash, Precondition};
use std::path::Path;

/// Plays until an operation fails; nothing is answered from there on. What the next start finds
/// when the power goes too, and when it does not.
fn fails(reference: &Reference, op: OpKind, path: &str, after: u64) -> bool {
    let what = format!("{op:?} of {path} fails after {after}");
    let (disk, client) = run(async {
        let disk = SimDisk::new(SEED);
        let life = Life::start(&disk).await.unwrap();
        // Once: what comes later would work again, and must not be relied on.
        disk.add_fault(Fault {
            after,
            ..Fault::once(op, path)
        });
        let mut client = Client::default();
        let played = client
            .play(&life, &reference.steps, reference.steps.len(), |_| {})
            .await;
        if played.is_ok() {
            life.checked();
            life.end();
            return (None, client);
        }
        assert!(!life.fatal.lock().is_empty(), "{what}: {played:?}");
        let mut late = client.clone();
        for lane in 10..14 {
            let request = late.request(lane, &[mkdir(&format!("/late{lane}"))]);
            let answer = life.answers(send(&life, &request)).await;
            assert!(
                answer.is_err(),
                "{what}: acknowledged afterwards: {answer:?}"
            );
        }
        life.end();
        disk.clear_faults();
        (Some(disk), client)
    });
    let Some(disk) = disk else { return false };
    recovers(
        reference,
        disk.crash_variant(0),
        &client,
        false,
        &format!("{what}, power cut"),
    );
    recovers(
        reference,
        disk.kill(),
        &client,
        false,
        &format!("{what}, restart"),
    );
    true
}

/// Lets one operation fail, then another, ...: at least so many of them end the process. The
/// others prepare the log's next segment, whose file is given up then.
fn each_failure(op: OpKind, path: &str, which: impl Iterator<Item = u64>, at_least: usize) {
    let reference = reference();
    let failed = which
        .filter(|after| fails(&reference, op, path, *after))
        .count();
    assert!(
        failed >= at_least,
        "{op:?} of {path} ended {failed} processes"
    );
}

#[test]
fn nothing_is_acknowledged_after_a_sync_of_the_log_failed() {
    each_failure(OpKind::Sync, "/log/", (0..70).step_by(7), 7);
}

#[test]
fn nothing_is_acknowledged_after_a_sync_of_the_logs_directory_failed() {
    each_failure(OpKind::SyncDir, "/log", (0..6).step_by(2), 2);
}

#[test]
fn nothing_is_acknowledged_after_a_commit_of_the_metadata_failed() {
    each_failure(OpKind::BaseCommit, "/meta", 0..5, 5);
}

#[test]
fn nothing_is_acknowledged_after_a_sync_of_a_chunk_failed() {
    each_failure(OpKind::Sync, "/chunks/", 0..2, 2);
    each_failure(OpKind::Sync, "/packs/", (0..6).step_by(2), 2);
}

async fn ask(life: &Life, client: &mut Client, op: Op) -> Result<()> {
    let request = client.request(0, &[op]);
    send(life, &request).await?.remove(0).map(drop)
}

/// Leaves so many bytes free.
async fn leave(disk: &SimDisk, free: u64) {
    disk.set_limit(None);
    let space = disk.space(Path::new("/")).await.unwrap();
    disk.set_limit(Some(space.total - space.available + free));
}

fn no_space<T: std::fmt::Debug>(answer: Result<T>) -> Error {
    let error = answer.unwrap_err();
    assert_eq!(error.code, Code::NoSpace, "{error}");
    error
}

fn new(at: &str) -> Op {
    put(at, "some text", Precondition::Absent)
}

#[test]
fn a_disk_without_space_refuses_new_data_and_takes_deletions() {
    run(async {
        let disk = SimDisk::new(41);
        let life = Life::start(&disk).await.unwrap();
        let mut client = Client::default();
        ask(&life, &mut client, new("/a")).await.unwrap();
        ask(&life, &mut client, mkdir("/dir")).await.unwrap();
        ask(&life, &mut client, new("/dir/b")).await.unwrap();
        leave(&disk, 100 << 20).await;
        life.node.look_at_space().await;
        let refused = client.clone();
        let error = no_space(ask(&life, &mut refused.clone(), new("/c")).await);
        assert!(error.hint.is_some() && !error.may_have_happened, "{error}");
        no_space(ask(&life, &mut refused.clone(), mkdir("/d")).await);
        ask(&life, &mut client, remove("/a", Removal::File))
            .await
            .unwrap();
        ask(&life, &mut client, remove("/dir", Removal::Tree))
            .await
            .unwrap();
        life.node.fold_and_compact().await.unwrap();
        life.node.gc(true).await.unwrap();
        life.node.fold_and_compact().await.unwrap();
        disk.set_limit(None);
        life.node.look_at_space().await;
        ask(&life, &mut client, new("/c")).await.unwrap();
        let picture = Picture::of(&life.shard().machine.view().unwrap());
        assert_eq!(picture.entries.into_keys().collect::<Vec<_>>(), ["/", "/c"]);
        all_is_readable(&life, "space has returned").await;
        life.checked();
        life.end();
    });
}

/// The fold itself finds no room: changes stay in memory and in the log, deletions go on, and
/// nothing is lost when the process ends before the space returns.
#[test]
fn a_fold_without_space_is_done_later_and_loses_nothing() {
    for restart in [false, true] {
        run(async {
            let disk = SimDisk::new(42);
            let life = Life::start(&disk).await.unwrap();
            let mut client = Client::default();
            ask(&life, &mut client, new("/old")).await.unwrap();
            life.node.fold_and_compact().await.unwrap();
            leave(&disk, 2_000).await;
            let text: String = std::iter::repeat_n('x', 3_000).collect();
            ask(&life, &mut client, put("/new", &text, Precondition::Absent))
                .await
                .unwrap();
            no_space(life.node.fold_and_compact().await);
            no_space(put_chunk(&life, &sample(1, 40_000)).await);
            ask(&life, &mut client, remove("/old", Removal::File))
                .await
                .unwrap();
            no_space(life.node.fold_and_compact().await);
            life.checked();
            let life = if restart {
                life.end();
                let disk = disk.kill();
                disk.set_limit(None);
                Life::start(&disk).await.unwrap()
            } else {
                disk.set_limit(None);
                life
            };
            life.node.fold_and_compact().await.unwrap();
            put_chunk(&life, &sample(1, 40_000)).await.unwrap();
            ask(&life, &mut client, new("/more")).await.unwrap();
            let picture = Picture::of(&life.shard().machine.view().unwrap());
            assert_eq!(
                picture.entries.into_keys().collect::<Vec<_>>(),
                ["/", "/more", "/new"]
            );
            all_is_readable(&life, "space has returned").await;
            life.checked();
            life.end();
        });
    }
}

/// A chunk that found no room leaves nothing, and is taken when there is some.
#[test]
fn a_chunk_without_space_leaves_nothing_behind() {
    run(async {
        let disk = SimDisk::new(43);
        let life = Life::start(&disk).await.unwrap();
        disk.add_fault(Fault {
            error: FaultError::NoSpace,
            ..Fault::once(OpKind::Write, "/chunks/")
        });
        no_space(put_chunk(&life, &sample(2, 9_000)).await);
        put_chunk(&life, &sample(2, 9_000)).await.unwrap();
        all_is_readable(&life, "space has returned").await;
        life.checked();
        life.end();
    });
}

/// Nobody would look into the index of a node that is said to be well.
#[test]
fn a_row_of_the_pack_index_that_rots_shows_as_damage() {
    run(async {
        let life = Life::start(&SimDisk::new(SEED)).await.unwrap();
        let bytes = sample(7, 1_000);
        let hash = ChunkHash::of(&bytes);
        let chunks = &life.node.chunks;
        let mut writer = chunks.begin(hash, 1_000).await.unwrap();
        writer.write(bytes).await.unwrap();
        writer.finish().await.unwrap();
        chunks.flush_index().await.unwrap();
        let told = || life.node.own_damage().join("; ");
        assert!(!told().contains("pack index"));
        let base = ModelBase::open(&life.handles.disk, &Path::new(DIR).join("index"));
        assert!(base.flip_bit(&[&b"c"[..], &hash.0].concat(), 2, 1));
        let held = life.node.hold_here(vec![hash], Look::Known).await;
        assert_eq!(held.unwrap(), [None], "an answer all the same");
        assert!(told().contains("1 rows of its pack index are damaged"));
        life.checked();
        life.end();
    });
}
