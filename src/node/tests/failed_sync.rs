//! A sync fails once, or the process is killed before one ends; the process that starts then reads
//! bytes that are in memory and not on the disk. It works on and acknowledges; then the power goes.
//! Whatever either process acknowledged must be there.
//!
//! When a sync has failed the system takes the pages for clean: a later sync does not write them.

use super::crash::{Reference, recovers, reference};
use super::play::Client;
use super::{Life, run};
use crate::env::sim::{Fault, FaultError, OpKind, SimDisk};

/// Disks, of which each draws for itself what a failed sync leaves.
const SEEDS: std::ops::Range<u64> = 21..24;
/// What the power cut at the end may find, drawn anew.
const VARIANTS: u64 = 4;
/// Steps that are acknowledged by the second process. Few, so that what the first one left is not
/// folded or written again for other reasons; and some, so that something depends on it.
const STEPS_MORE: usize = 2;

/// The first process, until an operation fails. `None`: the operation came too seldom.
fn first_life(reference: &Reference, seed: u64, fault: Fault) -> Option<(SimDisk, Client)> {
    run(async {
        let disk = SimDisk::new(seed);
        let life = Life::start(&disk).await.unwrap();
        disk.add_fault(fault);
        let mut client = Client::default();
        let (steps, to) = (&reference.steps, reference.steps.len());
        let played = client.play(&life, steps, to, |_| {}).await;
        life.end();
        played.is_err().then(|| (disk.kill(), client))
    })
}

/// The second process works on what the first left in memory; then the power goes.
fn works_on(reference: &Reference, disk: SimDisk, client: &Client, what: &str) {
    let mut client = client.clone();
    client.asks_first = true;
    let (disk, client) = run(async {
        let life = Life::start(&disk)
            .await
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        let to = (client.done + STEPS_MORE).min(reference.steps.len());
        client
            .play(&life, &reference.steps, to, |_| {})
            .await
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        life.checked();
        life.end();
        (disk, client)
    });
    for variant in 0..VARIANTS {
        let what = format!("{what}, restart, power cut {variant}");
        recovers(
            reference,
            disk.crash_variant(variant),
            &client,
            false,
            &what,
        );
    }
}

/// Lets one operation fail, then another, ...: at least so many of them end the process.
fn each_failure(op: OpKind, path: &str, which: impl Iterator<Item = u64>, at_least: u64) {
    each_end(op, path, which, at_least, FaultError::Eio);
}

/// The same where the process is killed in that operation.
fn each_kill(op: OpKind, path: &str, which: impl Iterator<Item = u64>, at_least: u64) {
    each_end(op, path, which, at_least, FaultError::PowerCut);
}

fn each_end(
    op: OpKind,
    path: &str,
    which: impl Iterator<Item = u64>,
    at_least: u64,
    error: FaultError,
) {
    let reference = reference();
    let (mut failed, seeds) = (0, SEEDS.end - SEEDS.start);
    for (after, seed) in which.flat_map(|after| SEEDS.map(move |seed| (after, seed))) {
        let fault = Fault {
            after,
            error,
            ..Fault::once(op, path)
        };
        let Some((disk, client)) = first_life(&reference, seed, fault) else {
            continue;
        };
        failed += 1;
        let what = format!("{op:?} of {path} ends in {error:?} after {after}, seed {seed}");
        works_on(&reference, disk, &client, &what);
    }
    assert!(
        failed >= at_least * seeds,
        "{op:?} of {path} ended {failed} processes"
    );
}

#[test]
fn after_a_failed_sync_of_the_log_nothing_is_built_on_what_is_not_on_disk() {
    each_failure(OpKind::Sync, "/log/", (0..70).step_by(5), 7);
    each_failure(OpKind::SyncDir, "/log", 0..6, 3);
}

#[test]
fn after_a_failed_sync_of_chunks_nothing_is_built_on_what_is_not_on_disk() {
    each_failure(OpKind::Sync, "/packs/", 0..8, 3);
    each_failure(OpKind::SyncDir, "/packs", 0..3, 1);
    each_failure(OpKind::Sync, "/chunks/", 0..2, 2);
    each_failure(OpKind::SyncDir, "/chunks/", 0..2, 1);
}

#[test]
fn after_a_failed_commit_nothing_is_built_on_what_is_not_on_disk() {
    each_failure(OpKind::BaseCommit, "/meta", 0..3, 3);
    each_failure(OpKind::BaseCommit, "/index", 0..3, 1);
}

/// No sync fails; what was not synced when the process was killed is no more durable for that.
#[test]
fn after_a_kill_nothing_is_built_on_what_is_not_on_disk() {
    /// A prime, and another one than for the plain cuts.
    const STRIDE: usize = 7;
    let reference = reference();
    for at in reference.operations.clone().step_by(STRIDE) {
        let (disk, client) = super::crash::cut(&reference, at);
        let what = format!("killed at {at}");
        works_on(&reference, disk.kill(), &client, &what);
    }
    // What the stride may step over.
    each_kill(OpKind::SyncDir, "/chunks/", 0..6, 3);
    each_kill(OpKind::Sync, "/packs/", 0..8, 3);
}
