//! The overlay against a plain model: every view shows the state at its own sequence, whatever
//! is published, frozen and folded meanwhile.

use super::fold::operations;
use super::{FoldOptions, MetaStore, ReplicaMark, ReplicaRecord, View};
use crate::env::{BaseOp, MetaBase, MetaRead};
use crate::error::Result;
use crate::store::SlotRead;
use crate::store::image::{self, ImageMeta};
use crate::store::wal::LogPosition;
use crate::types::{GroupId, LogIndex, ReplicaId, Slot};
use bytes::Bytes;
use parking_lot::Mutex;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// An ordered map as a base.
#[derive(Default)]
struct MapBase(Mutex<Arc<Map>>);

struct MapRead(Arc<Map>);

impl MetaRead for MapRead {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.0.get(key).map(|value| value.clone().into()))
    }

    fn scan(
        &self,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut crate::env::base::Visit<'_>,
    ) -> Result<()> {
        for (key, value) in self.0.range(from.to_vec()..) {
            if to.is_some_and(|to| key[..] >= *to) || !visit(key, value) {
                break;
            }
        }
        Ok(())
    }
}

impl MetaBase for MapBase {
    fn begin_read(&self) -> Result<Box<dyn MetaRead>> {
        Ok(Box::new(MapRead(self.0.lock().clone())))
    }

    fn commit(&self, ops: Vec<BaseOp>) -> Result<()> {
        let mut map = self.0.lock();
        for op in ops {
            match op {
                BaseOp::Put(key, value) => Arc::make_mut(&mut map).insert(key.into(), value.into()),
                BaseOp::Delete(key) => Arc::make_mut(&mut map).remove(&key[..]),
            };
        }
        Ok(())
    }

    fn used_bytes(&self) -> Result<u64> {
        Ok(0)
    }
}

const GROUP: GroupId = GroupId(1);
const REPLICA: (GroupId, ReplicaId) = (GROUP, ReplicaId(1));

fn mark(index: u64) -> ReplicaMark {
    let position = LogPosition {
        term: 1,
        leader: 1,
        index: LogIndex(index),
    };
    ReplicaMark {
        position,
        members: Bytes::new(),
    }
}

fn replica(group: u64, slot: u32) -> ReplicaRecord {
    ReplicaRecord {
        group: GroupId(group),
        replica: ReplicaId(1),
        slot: Slot(slot),
        mark: mark(1),
    }
}

fn store(base: Arc<MapBase>) -> Arc<MetaStore> {
    MetaStore::open(base, FoldOptions::default()).unwrap()
}

/// A fold without a log: freeze, commit, thaw.
fn fold(store: &MetaStore) {
    if let Some(cut) = store.freeze() {
        store
            .base
            .commit(operations(&cut.layer.read(), &cut.replicas).0)
            .unwrap();
        store.thaw(cut);
    }
}

fn all(view: &View, from: &[u8], to: Option<&[u8]>) -> Map {
    let mut map = Map::new();
    let mut last: Option<Vec<u8>> = None;
    view.scan(from, to, &mut |key, value| {
        assert!(
            last.as_deref().is_none_or(|last| last < key),
            "keys come in order, once"
        );
        last = Some(key.to_vec());
        map.insert(key.to_vec(), value.to_vec());
        Ok(true)
    })
    .unwrap();
    map
}

#[derive(Clone, Debug)]
enum Step {
    Publish(Vec<(u8, Option<u8>)>),
    View,
    DropView(u8),
    Freeze,
    Commit,
    Thaw,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => proptest::collection::vec((0u8..24, proptest::option::of(any::<u8>())), 0..6)
            .prop_map(Step::Publish),
        3 => Just(Step::View),
        2 => any::<u8>().prop_map(Step::DropView),
        2 => Just(Step::Freeze),
        2 => Just(Step::Commit),
        2 => Just(Step::Thaw),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn each_view_keeps_its_state(steps in proptest::collection::vec(step(), 1..80)) {
        let base = Arc::new(MapBase::default());
        let mut meta = store(base.clone());
        meta.add_replica(replica(1, 1), vec![]);
        let (mut now, mut folded, mut index) = (Map::new(), Map::new(), 1);
        // A fold in progress: its cut, the state it froze, and whether it is in the base yet.
        let mut cut = None;
        let mut views: Vec<(View, Map)> = Vec::new();
        for step in steps {
            match step {
                Step::Publish(changes) => {
                    index += 1;
                    let changes = changes
                        .into_iter()
                        .map(|(key, value)| {
                            match value {
                                Some(value) => now.insert(vec![key], vec![value]),
                                None => now.remove(&vec![key]),
                            };
                            (vec![key].into(), value.map(|value| vec![value].into()))
                        })
                        .collect();
                    meta.publish(REPLICA, mark(index), changes).unwrap();
                }
                Step::View => views.push((meta.view(Slot(1)).unwrap(), now.clone())),
                Step::DropView(at) if !views.is_empty() => {
                    views.swap_remove(at as usize % views.len());
                }
                Step::Freeze if cut.is_none() => {
                    cut = meta.freeze().map(|cut| (cut, now.clone(), index));
                }
                Step::Commit => {
                    if let Some((cut, state, _)) = &cut {
                        base.commit(operations(&cut.layer.read(), &cut.replicas).0).unwrap();
                        folded = state.clone();
                    }
                }
                Step::Thaw => {
                    if let Some((done, state, at)) = cut.take() {
                        base.commit(operations(&done.layer.read(), &done.replicas).0).unwrap();
                        folded = state;
                        meta.thaw(done);
                        let (_, replica) = meta.replica(GROUP).unwrap();
                        prop_assert_eq!(replica.mark.position.index.0, at);
                    }
                }
                Step::Reopen => {
                    views.clear();
                    cut = None;
                    meta = store(base.clone());
                    // What was never folded is gone: the log would bring it back.
                    now = folded.clone();
                    match meta.replica(GROUP) {
                        Some((replica, _)) => index = replica.mark.position.index.0,
                        None => {
                            meta.add_replica(replica(1, 1), vec![]);
                            index = 1;
                        }
                    }
                }
                _ => {}
            }
            for (view, expected) in &views {
                prop_assert_eq!(&all(view, &[], None), expected);
                prop_assert_eq!(
                    all(view, &[5], Some(&[9])),
                    expected.range(vec![5]..vec![9]).map(|(k, v)| (k.clone(), v.clone())).collect()
                );
                for key in 0u8..24 {
                    let found = view.get(&[key]).unwrap().map(|value| value.to_vec());
                    prop_assert_eq!(found.as_ref(), expected.get(&vec![key]));
                }
            }
        }
    }
}

#[test]
fn slots_do_not_see_each_other() {
    let meta = store(Arc::default());
    meta.add_replica(
        replica(1, 1),
        vec![(b"k".as_slice().into(), Some("one".into()))],
    );
    meta.add_replica(
        replica(2, 2),
        vec![(b"k".as_slice().into(), Some("two".into()))],
    );
    for _ in 0..2 {
        let value = |slot| meta.view(Slot(slot)).unwrap().get(b"k").unwrap().unwrap();
        assert_eq!((&value(1)[..], &value(2)[..]), (&b"one"[..], &b"two"[..]));
        assert_eq!(all(&meta.view(Slot(1)).unwrap(), &[], None).len(), 1);
        fold(&meta);
    }
}

#[test]
fn a_damaged_record_is_an_error_for_its_reader() {
    let base = Arc::new(MapBase::default());
    let meta = store(base.clone());
    meta.add_replica(
        replica(1, 1),
        vec![(b"k".as_slice().into(), Some("value".into()))],
    );
    fold(&meta);
    for value in Arc::make_mut(&mut base.0.lock()).values_mut() {
        value[0] ^= 1;
    }
    let view = meta.view(Slot(1)).unwrap();
    assert_eq!(
        view.get(b"k").unwrap_err().code,
        crate::error::Code::Corrupt
    );
    assert!(view.scan(&[], None, &mut |_, _| Ok(true)).is_err());
    assert!(MetaStore::open(base, FoldOptions::default()).is_err());
}

#[test]
fn a_damaged_record_is_mended_with_what_it_was_and_nothing_else() {
    let key = b"k".as_slice();
    let stored = super::slot_key(Slot(1), key).to_vec();
    let value_bytes = b"value".len();
    // In the value, and in its checksum.
    for at in [0, value_bytes] {
        let base = Arc::new(MapBase::default());
        let meta = store(base.clone());
        meta.add_replica(replica(1, 1), vec![(key.into(), Some("value".into()))]);
        fold(&meta);
        assert_eq!(meta.damaged_records(GROUP, 9).unwrap(), []);
        Arc::make_mut(&mut base.0.lock()).get_mut(&stored).unwrap()[at] ^= 1;
        let [damaged] = &meta.damaged_records(GROUP, 9).unwrap()[..] else {
            panic!("one record is damaged");
        };
        for other in [&b"valuf"[..], b"", b"value2"] {
            assert!(!meta.mend(REPLICA, damaged, other).unwrap());
        }
        assert!(meta.mend(REPLICA, damaged, b"value").unwrap());
        for _ in 0..2 {
            let view = meta.view(Slot(1)).unwrap();
            assert_eq!(view.get(key).unwrap().unwrap(), "value");
            fold(&meta);
        }
        assert!(crate::store::record::open(key, &base.0.lock()[&stored]).is_ok());
    }
}

#[test]
fn mending_never_undoes_a_newer_value() {
    let key = b"k".as_slice();
    let base = Arc::new(MapBase::default());
    let meta = store(base.clone());
    meta.add_replica(replica(1, 1), vec![(key.into(), Some("value".into()))]);
    fold(&meta);
    for value in Arc::make_mut(&mut base.0.lock()).values_mut() {
        value[0] ^= 1;
    }
    let damaged = meta.damaged_records(GROUP, 9).unwrap().remove(0);
    let newer = vec![(key.into(), Some("newer".into()))];
    meta.publish(REPLICA, mark(2), newer).unwrap();
    for _ in 0..2 {
        // In a layer, then in the base.
        assert!(meta.mend(REPLICA, &damaged, b"value").unwrap());
        let view = meta.view(Slot(1)).unwrap();
        assert_eq!(view.get(key).unwrap().unwrap(), "newer");
        fold(&meta);
    }
    assert_eq!(meta.damaged_records(GROUP, 9).unwrap(), []);
}

#[test]
fn a_layer_that_cannot_be_frozen_is_full_and_then_overfull() {
    let options = FoldOptions {
        bytes: 64 << 10,
        ..FoldOptions::default()
    };
    let meta = MetaStore::open(Arc::<MapBase>::default(), options).unwrap();
    meta.add_replica(replica(1, 1), vec![]);
    let mut index = 1u64;
    let mut grow_to = |bytes: usize| {
        while meta.active_bytes() < bytes {
            index += 1;
            let key = Bytes::copy_from_slice(&index.to_be_bytes());
            let change = (key, Some(vec![7; 1_000].into()));
            meta.publish(REPLICA, mark(index), vec![change]).unwrap();
        }
    };
    grow_to(options.bytes);
    assert!(!meta.is_full(), "it can be frozen");
    let cut = meta.freeze().unwrap();
    grow_to(options.bytes);
    assert!(meta.is_full() && !meta.is_overfull());
    grow_to(options.bytes * 4);
    assert!(meta.is_overfull());
    meta.thaw(cut);
    assert!(!meta.is_full() && !meta.is_overfull());
}

#[test]
fn bytes_return_to_zero_after_a_fold_and_overwrites_coalesce() {
    let meta = store(Arc::default());
    meta.add_replica(replica(1, 1), vec![]);
    for index in 2..1000 {
        meta.publish(
            REPLICA,
            mark(index),
            vec![(b"hot".as_slice().into(), Some("v".into()))],
        )
        .unwrap();
    }
    assert!(
        meta.active_bytes() < 1024,
        "an unseen value is displaced, not kept"
    );
    fold(&meta);
    assert_eq!(meta.active_bytes(), 0);
}

/// A simulated disk with a file of an image of `records` records.
async fn image_of(env: &crate::env::Env, records: u32) -> (Map, std::path::PathBuf) {
    let meta = store(Arc::default());
    let changes = (0..records)
        .map(|n| {
            let key = Bytes::from(n.to_be_bytes().to_vec());
            (key, Some(Bytes::from(vec![n as u8; n as usize % 700])))
        })
        .collect();
    meta.add_replica(replica(1, 1), changes);
    let view = meta.view(Slot(1)).unwrap();
    let held = all(&view, &[], None);
    let path = std::path::PathBuf::from("/data/image");
    env.disk
        .create_dir(std::path::Path::new("/data"))
        .await
        .unwrap();
    let meta = ImageMeta {
        group: GROUP,
        mark: mark(77),
    };
    let size = image::cut(env, view, &meta, &path).await.unwrap();
    assert_eq!(size.records, u64::from(records));
    (held, path)
}

#[tokio::test]
async fn an_image_replaces_a_replica_and_its_old_slot_goes() {
    let (env, _handles) = crate::env::sim::env(1);
    let (held, path) = image_of(&env, 9_000).await;
    let base = Arc::new(MapBase::default());
    let meta = store(base.clone());
    meta.add_replica(
        replica(1, 1),
        vec![(b"old".as_slice().into(), Some("state".into()))],
    );
    fold(&meta);
    // Still in memory when the image comes.
    meta.publish(
        REPLICA,
        mark(3),
        vec![(b"newer".as_slice().into(), Some("state".into()))],
    )
    .unwrap();
    let now = meta.install_image(&env, &path, ReplicaId(2)).await.unwrap();
    assert_eq!((now.replica, &now.mark), (ReplicaId(2), &mark(77)));
    assert_eq!(all(&meta.view(now.slot).unwrap(), &[], None), held);
    assert!(
        !meta.remove_slice(&env).await.unwrap(),
        "not before the old changes are folded"
    );
    fold(&meta);
    while meta.remove_slice(&env).await.unwrap() {}
    assert!(all(&meta.view(Slot(1)).unwrap(), &[], None).is_empty());
    let again = store(base);
    assert_eq!(again.replicas(), std::slice::from_ref(&now));
    assert_eq!(all(&again.view(now.slot).unwrap(), &[], None), held);
}

#[tokio::test]
async fn a_damaged_image_changes_nothing() {
    let (env, _handles) = crate::env::sim::env(2);
    let (_, path) = image_of(&env, 300).await;
    let file = env
        .disk
        .open(&path, crate::env::OpenMode::Write)
        .await
        .unwrap();
    let len = file.len().await.unwrap();
    let whole = file.read_at(0, len as usize).await.unwrap();
    let base = Arc::new(MapBase::default());
    let meta = store(base.clone());
    meta.add_replica(
        replica(1, 1),
        vec![(b"old".as_slice().into(), Some("state".into()))],
    );
    fold(&meta);
    for at in (0..whole.len())
        .step_by(97)
        .chain(whole.len() - 30..whole.len())
    {
        file.write_at(at as u64, vec![vec![whole[at] ^ 0x10].into()])
            .await
            .unwrap();
        assert!(
            meta.install_image(&env, &path, ReplicaId(2)).await.is_err(),
            "byte {at}"
        );
        file.write_at(at as u64, vec![vec![whole[at]].into()])
            .await
            .unwrap();
    }
    file.set_len(len - 9).await.unwrap();
    assert!(meta.install_image(&env, &path, ReplicaId(2)).await.is_err());
    assert_eq!(meta.replicas()[0].slot, Slot(1));
    while meta.remove_slice(&env).await.unwrap() {}
    // What was written of it is gone again: the replica, its record, nothing else.
    assert_eq!(base.0.lock().len(), 2);
}

#[tokio::test]
async fn a_slot_that_was_being_filled_is_removed_after_a_restart() {
    let (env, _handles) = crate::env::sim::env(3);
    let base = Arc::new(MapBase::default());
    let meta = store(base.clone());
    meta.add_replica(replica(1, 1), vec![]);
    fold(&meta);
    let slot = meta.fresh_slot(&env).await.unwrap();
    let orphan = BaseOp::Put(super::slot_key(slot, b"k"), Bytes::from_static(b"half"));
    base.commit(vec![orphan]).unwrap();
    let meta = store(base.clone());
    meta.recover_slots(&env).await.unwrap();
    assert_ne!(
        meta.fresh_slot(&env).await.unwrap(),
        slot,
        "it is not given again yet"
    );
    while meta.remove_slice(&env).await.unwrap() {}
    assert!(
        meta.base
            .begin_read()
            .unwrap()
            .get(&super::slot_key(slot, b"k"))
            .unwrap()
            .is_none()
    );
}
