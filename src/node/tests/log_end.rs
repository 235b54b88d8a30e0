//! What a start does with a log whose end, or middle, is damaged.

use super::picture::Picture;
use super::play::{Client, send};
use super::{DIR, Life, Stores, options, run};
use crate::env::sim::{self, SimDisk};
use crate::error::{Code, Error};
use crate::shard::command::Op;
use crate::shard::testing::put;
use crate::store::wal::Wal;
use crate::types::{GroupId, Precondition};
use std::path::{Path, PathBuf};
use std::time::Duration;

fn file(at: &str, text: &str) -> Vec<Op> {
    vec![put(at, text, Precondition::Absent)]
}

fn has(life: &Life, at: &str) -> bool {
    Picture::of(&life.shard().machine.view().unwrap())
        .entries
        .contains_key(at)
}

/// A node that acknowledged `/kept`, went idle, acknowledged `/last`, and was killed at once;
/// before that it folded, or not.
fn killed_behind_a_put(seed: u64, fold: bool) -> (SimDisk, Client) {
    run(async {
        let disk = SimDisk::new(seed);
        let life = Life::start(&disk).await.unwrap();
        let mut client = Client::default();
        let request = client.request(0, &file("/kept", "needle needle needle"));
        send(&life, &request).await.unwrap().remove(0).unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let request = client.request(0, &file("/last", "last last last"));
        send(&life, &request).await.unwrap().remove(0).unwrap();
        if fold {
            life.node
                .store
                .fold(&life.node.env, &life.node.wal)
                .await
                .unwrap();
        }
        life.end();
        (disk.kill(), client)
    })
}

fn segments(disk: &SimDisk) -> Vec<PathBuf> {
    let files = disk.files().into_iter().map(|(path, _)| path);
    files
        .filter(|path| path.extension().is_some_and(|e| e == "wal"))
        .collect()
}

/// Turns over a bit of a text in the log; where.
fn damage(disk: &SimDisk, text: &str) -> (PathBuf, u64) {
    for path in segments(disk).into_iter().rev() {
        let bytes = disk.contents(&path).unwrap();
        let found = bytes
            .windows(text.len())
            .position(|part| part == text.as_bytes());
        if let Some(at) = found {
            assert!(disk.flip_bit(&path, at as u64, 2));
            return (path, at as u64);
        }
    }
    panic!("`{text}` is not in the log");
}

async fn refusal(disk: &SimDisk, accept: bool) -> Error {
    match Stores::open_with(disk, accept).await {
        Ok(_) => panic!("the start should be refused"),
        Err(error) => error,
    }
}

#[test]
fn a_damaged_last_batch_is_refused_until_its_loss_is_accepted() {
    let (disk, mut client) = killed_behind_a_put(1, false);
    damage(&disk, "last last last");
    run(async {
        for _ in 0..3 {
            let error = refusal(&disk, false).await;
            assert_eq!(error.code, Code::Corrupt, "{error}");
            assert!(
                error
                    .message
                    .contains("the last batch of the log is damaged"),
                "{error}"
            );
            assert!(error.message.contains("acknowledged changes"), "{error}");
            assert!(error.hint.unwrap().contains("--accept-lost-tail"));
        }
        let life = Life::on(Stores::open_with(&disk, true).await.unwrap())
            .await
            .unwrap();
        assert!(has(&life, "/kept") && !has(&life, "/last"));
        let again = client.request(0, &file("/last", "once more"));
        send(&life, &again).await.unwrap().remove(0).unwrap();
        life.checked();
        life.end();
    });
    // Said once, the doubt is gone.
    run(async {
        let life = Life::start(&disk.kill()).await.unwrap();
        assert!(has(&life, "/kept") && has(&life, "/last"));
        life.checked();
        life.end();
    });
}

#[test]
fn what_is_folded_outlives_the_end_of_the_log() {
    let (disk, mut client) = killed_behind_a_put(2, true);
    damage(&disk, "last last last");
    run(async {
        assert_eq!(refusal(&disk, false).await.code, Code::Corrupt);
        let life = Life::on(Stores::open_with(&disk, true).await.unwrap())
            .await
            .unwrap();
        assert!(has(&life, "/kept") && has(&life, "/last"));
        let request = client.request(0, &file("/more", "more"));
        send(&life, &request).await.unwrap().remove(0).unwrap();
        life.checked();
        life.end();
    });
    run(async {
        let life = Life::start(&disk.crash()).await.unwrap();
        assert!(has(&life, "/kept") && has(&life, "/last") && has(&life, "/more"));
        life.checked();
        life.end();
    });
}

#[test]
fn a_damaged_entry_inside_the_log_is_refused_with_its_place() {
    let (disk, _) = killed_behind_a_put(3, false);
    let (path, at) = damage(&disk, "needle needle needle");
    run(async {
        for accept in [false, true] {
            let error = refusal(&disk, accept).await;
            assert_eq!(error.code, Code::Corrupt, "{error}");
            assert_eq!(error.path, Some(path.display().to_string()), "{error}");
            let place = error
                .message
                .split("byte ")
                .nth(1)
                .unwrap_or_else(|| panic!("{error}"));
            let digits: String = place.chars().take_while(char::is_ascii_digit).collect();
            let offset: u64 = digits.parse().unwrap();
            assert!(
                offset < at && at - offset < 1_000,
                "{error}: damaged at {at}"
            );
        }
    });
}

/// Its changes were folded and synced: nobody needs the entry.
#[test]
fn a_damaged_entry_that_the_state_holds_is_let_go() {
    let (disk, mut client) = killed_behind_a_put(4, true);
    damage(&disk, "needle needle needle");
    run(async {
        let life = Life::start(&disk).await.unwrap();
        assert_eq!(life.node.wal.damaged(), []);
        assert!(has(&life, "/kept") && has(&life, "/last"));
        let request = client.request(0, &file("/more", "more"));
        send(&life, &request).await.unwrap().remove(0).unwrap();
        life.checked();
        life.end();
    });
    run(async {
        let life = Life::start(&disk.crash()).await.unwrap();
        assert!(has(&life, "/kept") && has(&life, "/last") && has(&life, "/more"));
        life.checked();
        life.end();
    });
}

/// The power goes while the log writes: nothing of that was acknowledged, so the node starts.
#[test]
fn a_write_that_was_cut_off_is_no_reason_not_to_start() {
    let mut doubted = 0;
    for seed in 0..30 {
        let disk = run(async {
            let disk = SimDisk::new(seed);
            let life = Life::start(&disk).await.unwrap();
            let mut client = Client::default();
            let request = client.request(0, &file("/kept", "kept"));
            send(&life, &request).await.unwrap().remove(0).unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
            disk.crash_at(disk.mutations() + 1);
            let text: String = std::iter::repeat_n('x', 3_900).collect();
            let request = client.request(0, &file("/cut", &text));
            life.answers(send(&life, &request)).await.unwrap_err();
            life.end();
            disk.crash()
        });
        let twin = disk.if_crashed(0);
        run(async {
            let (env, handles) = sim::env_on(1, twin);
            let options = options(&Default::default(), &handles, false);
            let wal = Wal::open_with(env, &Path::new(DIR).join("log"), options.wal)
                .await
                .unwrap();
            doubted += u64::from(wal.state(GroupId::FIRST).doubtful_tail);
            handles.spawn.stop();
        });
        run(async {
            let life = Life::start(&disk).await.unwrap();
            assert!(has(&life, "/kept"));
            life.checked();
            life.end();
        });
    }
    assert!(doubted > 3, "{doubted} in doubt");
}
