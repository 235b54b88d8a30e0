//! An image is installed while the power goes at every disk operation: the old state is there or
//! the new one, and whatever is not used any more goes.

use super::picture::Picture;
use super::play::{Client, send};
use super::script::script;
use super::{DIR, Life, Stores, powered, run};
use crate::env::sim::SimDisk;
use crate::env::{Disk, OpenMode};
use crate::error::Code;
use crate::node::machine::Machine;
use crate::raft::{ReceivedImage, StateMachine};
use crate::shard::check::check;
use crate::shard::testing::mkdir;
use crate::store::image::{self, ImageMeta};
use crate::store::overlay::ReplicaRecord;
use crate::types::{GroupId, ReplicaId};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const REPLICA: ReplicaId = ReplicaId(2);

fn file() -> PathBuf {
    Path::new(DIR).join("image")
}

/// A node's disk after some steps, all of it folded; with an image of the same group many
/// changes later, of several slices.
fn disk_with_image() -> SimDisk {
    let disk = run(async {
        let disk = SimDisk::new(31);
        let life = Life::start(&disk).await.unwrap();
        Client::default()
            .play(&life, &script(), 5, |_| {})
            .await
            .unwrap();
        life.node.fold_and_compact().await.unwrap();
        life.end();
        disk.kill()
    });
    let ahead = disk.if_crashed(0);
    let bytes = run(async {
        let life = Life::start(&ahead).await.unwrap();
        let mut client = Client::default();
        for number in 0..4 {
            let ops: Vec<_> = (0..500)
                .map(|dir| mkdir(&format!("/a/{number}-{dir}")))
                .collect();
            send(&life, &client.request(20, &ops)).await.unwrap();
        }
        let store = &life.node.store;
        let (record, _) = store.replica(GroupId::FIRST).unwrap();
        let meta = ImageMeta {
            group: GroupId::FIRST,
            mark: record.mark,
        };
        let view = store.view(record.slot).unwrap();
        let size = image::cut(&life.node.env, view, &meta, &file())
            .await
            .unwrap();
        assert!(size.records > 4_000, "{size:?}");
        life.end();
        ahead.contents(&file()).unwrap()
    });
    run(async {
        let image = disk.open(&file(), OpenMode::CreateNew).await.unwrap();
        image.write_sync(0, vec![bytes]).await.unwrap();
        disk.sync_dir(Path::new(DIR)).await.unwrap();
    });
    disk
}

fn replica(stores: &Stores) -> ReplicaRecord {
    stores.core.store.replica(GroupId::FIRST).unwrap().0
}

fn picture(stores: &Stores) -> Picture {
    Picture::of(&stores.core.store.view(replica(stores).slot).unwrap())
}

async fn clean(stores: &Stores) {
    while stores.core.store.remove_slice(&stores.env).await.unwrap() {}
}

/// Opens, installs, cleans up; whether the installation was acknowledged.
async fn install(disk: &SimDisk) -> bool {
    let Ok(stores) = powered(disk, Stores::open(disk)).await else {
        return false;
    };
    let store = &stores.core.store;
    let installed = powered(disk, store.install_image(&stores.env, &file(), REPLICA)).await;
    let acknowledged = installed.is_ok();
    while let Ok(true) = powered(disk, store.remove_slice(&stores.env)).await {}
    stores.handles.spawn.stop();
    acknowledged
}

/// Slots that have records, and whether any waits for something.
fn slots(stores: &Stores) -> (BTreeSet<u32>, bool) {
    let base = stores.handles.base(&Path::new(DIR).join("meta"));
    let (mut found, mut waiting) = (BTreeSet::new(), false);
    let mut look = |key: &[u8], _: &[u8]| {
        let slot = u32::from_be_bytes(key[..4].try_into().unwrap());
        found.insert(slot);
        waiting |= slot == 0 && key[4] == 2;
        true
    };
    base.begin_read()
        .unwrap()
        .scan(&[0], None, &mut look)
        .unwrap();
    (found, waiting)
}

#[test]
fn an_image_is_installed_wholly_or_not_at_all_whenever_the_power_goes() {
    let prepared = disk_with_image();
    let twin = prepared.if_crashed(0);
    let (old, old_mark, new, new_mark) = run(async {
        let before = prepared.if_crashed(0);
        let stores = Stores::open(&before).await.unwrap();
        let (old, old_mark) = (picture(&stores), replica(&stores).mark);
        assert!(install(&twin).await);
        let stores = Stores::open(&twin.if_crashed(0)).await.unwrap();
        (old, old_mark, picture(&stores), replica(&stores).mark)
    });
    assert!(new.entries.len() > old.entries.len() + 1_000 && new_mark.position > old_mark.position);
    let operations = twin.mutations();
    let (mut kept, mut replaced) = (0, 0);
    for at in 1..=operations {
        let disk = prepared.if_crashed(0);
        disk.crash_at(at);
        let acknowledged = run(install(&disk));
        for variant in 0..2 {
            let what = format!("power cut at {at} of {operations}, variant {variant}");
            let wreck = disk.crash_variant(variant);
            run(async {
                let stores = Stores::open(&wreck).await.unwrap();
                let now = replica(&stores);
                let is_new = now.mark == new_mark;
                assert!(
                    is_new || (now.mark == old_mark && !acknowledged),
                    "{what}: {now:?}"
                );
                assert_eq!(is_new, now.replica == REPLICA, "{what}");
                assert!(
                    picture(&stores) == if is_new { new.clone() } else { old.clone() },
                    "{what}"
                );
                let view = stores.core.store.view(now.slot).unwrap();
                assert_eq!(
                    check(&view).unwrap().problems,
                    Vec::<String>::new(),
                    "{what}"
                );
                drop(view);
                clean(&stores).await;
                assert_eq!(
                    slots(&stores),
                    (BTreeSet::from([0, 1, now.slot.0]), false),
                    "{what}"
                );
                if is_new {
                    replaced += 1;
                } else {
                    kept += 1;
                    // And it can be done again.
                    let store = &stores.core.store;
                    store
                        .install_image(&stores.env, &file(), REPLICA)
                        .await
                        .unwrap();
                    assert!(picture(&stores) == new, "{what}");
                    clean(&stores).await;
                }
                assert_eq!(*stores.fatal.lock(), Vec::<String>::new());
                stores.handles.spawn.stop();
            });
        }
    }
    assert!(kept > 3 && replaced > 3, "{kept} kept, {replaced} replaced");
}

/// The state machine cuts an image of one node and puts it in place on another, through staging.
#[test]
fn the_state_machine_cuts_and_takes_images() {
    let disk = SimDisk::new(32);
    let (old, bytes, expected, mark) = run(async {
        let life = Life::start(&disk).await.unwrap();
        life.node.fold_and_compact().await.unwrap();
        let old = disk.if_crashed(0);
        let ops: Vec<_> = (0..300).map(|dir| mkdir(&format!("/{dir}"))).collect();
        send(&life, &Client::default().request(21, &ops))
            .await
            .unwrap();
        let machine = &life.shard().machine;
        let cut = machine.cut_image().await.unwrap();
        assert_eq!(cut.mark, machine.applied());
        let bytes = disk.contents(&cut.file).unwrap();
        let expected = Picture::of(&machine.view().unwrap());
        let (file, mark) = (cut.file.clone(), cut.mark.clone());
        drop(cut);
        while disk.exists(&file).await.unwrap() {
            tokio::task::yield_now().await;
        }
        life.end();
        (old, bytes, expected, mark)
    });
    run(async {
        let stores = Stores::open(&old).await.unwrap();
        let image = old.open(&file(), OpenMode::CreateNew).await.unwrap();
        image.write_sync(0, vec![bytes]).await.unwrap();
        let received = || ReceivedImage {
            file: file(),
            keep: Box::new(()),
        };
        let machine = |group| {
            let (env, store) = (stores.env.clone(), stores.core.store.clone());
            let spool = Path::new(DIR).join("images");
            Machine::new(env, store, group, &spool, Default::default()).unwrap()
        };
        let other = machine(GroupId::ROOT).stage_image(received()).await;
        assert_eq!(other.map(|_| ()).unwrap_err().code, Code::Corrupt);
        let machine = machine(GroupId::FIRST);
        let before = machine.applied();
        let unused = machine.stage_image(received()).await.unwrap();
        machine.discard_image(unused).await.unwrap();
        let staged = machine.stage_image(received()).await.unwrap();
        assert_eq!((&staged.mark, machine.applied()), (&mark, before));
        assert_eq!(machine.install_image(staged).await.unwrap(), mark);
        assert_eq!((machine.applied(), machine.folded()), (mark.clone(), mark));
        assert!(Picture::of(&machine.view().unwrap()) == expected);
        clean(&stores).await;
        let now = replica(&stores);
        assert_eq!(slots(&stores), (BTreeSet::from([0, 1, now.slot.0]), false));
        stores.handles.spawn.stop();
    });
}
