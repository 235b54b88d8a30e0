//! The power goes, or the process is killed, at every disk operation of a script: what was
//! acknowledged is there with its bytes, what was in doubt is there wholly or not at all, a
//! repetition changes nothing, and the node goes on.
//!
//! `DFS_CRASH_ALL=1` takes every operation; otherwise it is one in so many, so that a build stays
//! quick.

use super::picture::{Picture, all_is_readable};
use super::play::{Client, send};
use super::script::{Step, script};
use super::{Life, powered, run};
use crate::env::sim::SimDisk;
use crate::shard::testing::put;
use crate::types::Precondition;
use std::time::Duration;

pub const SEED: u64 = 21;
/// Operations between two cuts, unless all are asked for. A prime: no pattern of the script
/// falls between.
const STRIDE: u64 = 5;
/// Every so many cuts the whole rest of the script is played after the recovery.
const FINISH_EVERY: u64 = 5;

/// A disk whose syncs take time: whoever is answered before one is done goes on meanwhile.
fn slow_disk() -> SimDisk {
    let disk = SimDisk::new(SEED);
    disk.set_sync_latency(Duration::from_millis(1));
    disk
}

/// A run without a cut.
pub struct Reference {
    pub steps: Vec<Step>,
    /// Before the first step, after the first, ...
    pictures: Vec<Picture>,
    /// Disk operations when the node had started for the first time, and at the end.
    pub operations: std::ops::RangeInclusive<u64>,
}

fn picture(life: &Life) -> Picture {
    Picture::of(&life.shard().machine.view().unwrap())
}

pub fn reference() -> Reference {
    run(async {
        let steps = script();
        let disk = slow_disk();
        let life = Life::start(&disk).await.unwrap();
        let first = disk.mutations() + 1;
        let mut pictures = vec![picture(&life)];
        let mut client = Client::default();
        let played = client
            .play(&life, &steps, steps.len(), |life| {
                pictures.push(picture(life))
            })
            .await;
        played.unwrap();
        life.checked();
        all_is_readable(&life, "without a cut").await;
        assert!(
            life.node.wal.segments()[0].number > 3,
            "the log let segments go"
        );
        let operations = first..=disk.mutations();
        life.end();
        Reference {
            steps,
            pictures,
            operations,
        }
    })
}

/// Plays until the power goes at operation `at`.
pub fn cut(reference: &Reference, at: u64) -> (SimDisk, Client) {
    run(async {
        let disk = slow_disk();
        disk.crash_at(at);
        let life = Life::start(&disk)
            .await
            .expect("the cut is behind the first start");
        let mut client = Client::default();
        let steps = &reference.steps;
        let played = client.play(&life, steps, steps.len(), |_| {}).await;
        // A cut in what goes on in the background behind the last answer stops nothing.
        assert!(played.is_ok() || disk.is_crashed(), "at {at}: {played:?}");
        life.end();
        (disk, client)
    })
}

/// A process starts on what is left, and everything holds.
pub fn recovers(reference: &Reference, disk: SimDisk, client: &Client, to_end: bool, what: &str) {
    let (steps, pictures) = (&reference.steps, &reference.pictures);
    let mut client = client.clone();
    run(async {
        let life = Life::start(&disk)
            .await
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        client.numbers_grow(&life);
        let found = picture(&life);
        let (before, after) = match pictures.get(client.done + 1) {
            Some(after) => (&pictures[client.done], after),
            None => (&pictures[client.done], &pictures[client.done]),
        };
        let alone = match steps.get(client.done) {
            Some(Step::Ask { asks, .. }) => asks.len() == 1,
            _ => false,
        };
        let whole = if alone {
            found == *before || found == *after
        } else {
            found.is_between(before, after)
        };
        assert!(
            whole,
            "{what}: step {}: {found:#?}\nwas {before:#?}",
            client.done
        );
        all_is_readable(&life, what).await;
        client.repeat_answered(&life, what).await;
        let to = if to_end {
            steps.len()
        } else {
            (client.done + 1).min(steps.len())
        };
        client
            .play(&life, steps, to, |_| {})
            .await
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(picture(&life), pictures[to], "{what}: after the repetition");
        client.repeat_answered(&life, what).await;
        let later = client.request(9, &[put("/later", "and on", Precondition::Absent)]);
        send(&life, &later).await.unwrap().remove(0).unwrap();
        life.node.fold_and_compact().await.unwrap();
        all_is_readable(&life, what).await;
        life.checked();
        life.end();
    });
}

fn all_operations() -> bool {
    std::env::var_os("DFS_CRASH_ALL").is_some_and(|all| all == "1")
}

#[test]
fn whatever_was_acknowledged_survives_a_cut_at_every_disk_operation() {
    let reference = reference();
    let operations = reference.operations.clone();
    assert!(
        operations.end() - operations.start() > 250,
        "{operations:?}"
    );
    let (stride, variants) = if all_operations() {
        (1, 3)
    } else {
        (STRIDE, 2)
    };
    for (number, at) in operations.step_by(stride as usize).enumerate() {
        let (disk, client) = cut(&reference, at);
        for variant in 0..variants {
            let what = format!("power cut at {at}, variant {variant}");
            let to_end = (number as u64 + variant).is_multiple_of(FINISH_EVERY);
            recovers(
                &reference,
                disk.crash_variant(variant),
                &client,
                to_end,
                &what,
            );
        }
        recovers(
            &reference,
            disk.kill(),
            &client,
            false,
            &format!("killed at {at}"),
        );
    }
}

/// The recovery is cut as well: what it finds the next time is no less.
#[test]
fn a_recovery_that_is_cut_off_loses_nothing() {
    let reference = reference();
    let (first, last) = reference.operations.clone().into_inner();
    let cuts = if all_operations() { 12 } else { 3 };
    for number in 1..=cuts {
        let at = first + (last - first) * number / (cuts + 1);
        let (disk, client) = cut(&reference, at);
        let wreck = disk.crash();
        let twin = wreck.if_crashed(0);
        let operations = run(async {
            let life = Life::start(&twin).await.unwrap();
            life.end();
            twin.mutations()
        });
        for again in (1..=operations).step_by(if all_operations() { 1 } else { 4 }) {
            let second = wreck.if_crashed(0);
            second.crash_at(again);
            run(async {
                if let Ok(life) = powered(&second, Life::start(&second)).await {
                    life.end();
                }
            });
            let what = format!("power cut at {at}, and at {again} of the recovery");
            recovers(&reference, second.crash(), &client, false, &what);
        }
    }
}

/// A killed process loses its memory alone: the log is read again, nothing is in doubt.
#[test]
fn a_kill_between_operations_loses_nothing() {
    let reference = reference();
    for to in 1..=reference.steps.len() {
        let (disk, client) = run(async {
            let disk = slow_disk();
            let life = Life::start(&disk).await.unwrap();
            let mut client = Client::default();
            client
                .play(&life, &reference.steps, to, |_| {})
                .await
                .unwrap();
            life.end();
            (disk.kill(), client)
        });
        recovers(
            &reference,
            disk,
            &client,
            false,
            &format!("killed after step {to}"),
        );
    }
}
