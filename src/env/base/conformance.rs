//! What every ordered base must do, run against LMDB and against the model.

use super::{BaseOp, LmdbBase, META_MAP_BYTES, MetaBase, MetaRead, ModelBase};
use crate::env::sim::SimDisk;
use crate::error::Code;
use bytes::Bytes;
use proptest::prelude::{ProptestConfig, Strategy, any, prop_oneof, proptest};
use std::collections::BTreeMap;
use std::path::Path;

/// Large enough for every test, small enough to be filled by one.
const MAP_BYTES: usize = 8 << 20;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;
type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// A base that can be closed and opened again.
trait Place {
    fn open(&self) -> Box<dyn MetaBase>;
}

impl Place for tempfile::TempDir {
    fn open(&self) -> Box<dyn MetaBase> {
        // A reader that was dropped a moment ago on another thread may still close it.
        if let Some(closing) = heed::env_closing_event(self.path().join("base")) {
            closing.wait();
        }
        Box::new(LmdbBase::open(&self.path().join("base"), MAP_BYTES).unwrap())
    }
}

impl Place for SimDisk {
    fn open(&self) -> Box<dyn MetaBase> {
        self.set_limit(Some(MAP_BYTES as u64));
        Box::new(ModelBase::open(self, Path::new("/base")))
    }
}

fn on_both(test: impl Fn(&dyn Place)) {
    test(&tempfile::tempdir().unwrap());
    test(&SimDisk::new(1));
}

fn put(key: &[u8], value: &[u8]) -> BaseOp {
    BaseOp::Put(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value))
}

fn delete(key: &[u8]) -> BaseOp {
    BaseOp::Delete(Bytes::copy_from_slice(key))
}

fn scan(read: &dyn MetaRead, from: &[u8], to: Option<&[u8]>) -> Pairs {
    let mut out = Vec::new();
    read.scan(from, to, &mut |key, value| {
        out.push((key.to_vec(), value.to_vec()));
        true
    })
    .unwrap();
    out
}

fn keys(read: &dyn MetaRead, from: &[u8], to: Option<&[u8]>) -> Vec<Vec<u8>> {
    scan(read, from, to)
        .into_iter()
        .map(|(key, _)| key)
        .collect()
}

#[test]
fn a_key_is_read_back_and_a_missing_one_is_not_there() {
    on_both(|place| {
        let base = place.open();
        base.commit(vec![put(b"a", b"1"), put(b"empty", b"")])
            .unwrap();
        let read = base.begin_read().unwrap();
        assert_eq!(read.get(b"a").unwrap().as_deref(), Some(&b"1"[..]));
        assert_eq!(read.get(b"empty").unwrap().as_deref(), Some(&b""[..]));
        for missing in [&b"b"[..], b"", b"aa", &[7; 600]] {
            assert_eq!(read.get(missing).unwrap(), None);
        }
    });
}

#[test]
fn a_scan_takes_its_lower_bound_and_leaves_its_upper() {
    on_both(|place| {
        let base = place.open();
        let names: [&[u8]; 5] = [b"a", b"b", b"b\0", b"c", b"\xff"];
        base.commit(names.iter().map(|name| put(name, b"")).collect())
            .unwrap();
        let read = base.begin_read().unwrap();
        let scan = |from: &[u8], to| keys(read.as_ref(), from, to);
        assert_eq!(scan(b"", None), names);
        assert_eq!(scan(b"b", Some(b"c")), [&b"b"[..], b"b\0"]);
        assert_eq!(scan(b"aa", Some(b"b\0")), [b"b"]);
        assert_eq!(scan(b"c", None), [&b"c"[..], b"\xff"]);
        for (from, to) in [
            (&b"b"[..], &b"b"[..]),
            (b"c", b"a"),
            (b"", b""),
            (b"d", b"e"),
        ] {
            assert!(scan(from, Some(to)).is_empty());
        }
        assert!(scan(&[0xff; 600], None).is_empty());
    });
}

#[test]
fn a_scan_stops_when_told() {
    on_both(|place| {
        let base = place.open();
        base.commit((0..9).map(|key| put(&[key], b"")).collect())
            .unwrap();
        let mut seen = 0;
        let read = base.begin_read().unwrap();
        read.scan(b"", None, &mut |_, _| {
            seen += 1;
            seen < 3
        })
        .unwrap();
        assert_eq!(seen, 3);
    });
}

#[test]
fn a_reader_sees_one_state_while_commits_happen() {
    on_both(|place| {
        let base = place.open();
        base.commit(vec![put(b"a", b"1"), put(b"b", b"1")]).unwrap();
        let old = base.begin_read().unwrap();
        base.commit(vec![put(b"a", b"2"), delete(b"b"), put(b"c", b"2")])
            .unwrap();
        // Readers may move between threads.
        let old = std::thread::spawn(move || old).join().unwrap();
        assert_eq!(old.get(b"a").unwrap().as_deref(), Some(&b"1"[..]));
        assert_eq!(keys(old.as_ref(), b"", None), [b"a", b"b"]);
        let new = base.begin_read().unwrap();
        assert_eq!(new.get(b"a").unwrap().as_deref(), Some(&b"2"[..]));
        assert_eq!(keys(new.as_ref(), b"", None), [b"a", b"c"]);
    });
}

#[test]
fn later_operations_of_a_commit_win() {
    on_both(|place| {
        let base = place.open();
        base.commit(vec![
            put(b"a", b"1"),
            put(b"a", b"2"),
            put(b"b", b"1"),
            delete(b"b"),
            delete(b"c"),
            put(b"c", b"1"),
        ])
        .unwrap();
        let read = base.begin_read().unwrap();
        let expected = [
            (b"a".to_vec(), b"2".to_vec()),
            (b"c".to_vec(), b"1".to_vec()),
        ];
        assert_eq!(scan(read.as_ref(), b"", None), expected);
    });
}

#[test]
fn a_base_opened_again_holds_every_commit() {
    on_both(|place| {
        for round in 0..3u8 {
            let base = place.open();
            let read = base.begin_read().unwrap();
            assert_eq!(keys(read.as_ref(), b"", None).len(), usize::from(round));
            base.commit(vec![put(&[round], b"")]).unwrap();
        }
    });
}

#[test]
fn keys_have_1_to_511_bytes_and_values_any_number() {
    on_both(|place| {
        let base = place.open();
        base.commit(vec![put(&[1; 511], &[2; 300_000])]).unwrap();
        for bad in [&b""[..], &[1; 512]] {
            base.commit(vec![put(b"good", b""), put(bad, b"")])
                .unwrap_err();
            base.commit(vec![delete(bad)]).unwrap_err();
        }
        let read = base.begin_read().unwrap();
        assert_eq!(read.get(&[1; 511]).unwrap().unwrap().len(), 300_000);
        assert_eq!(read.get(b"good").unwrap(), None);
        assert!(base.used_bytes().unwrap() >= 300_000);
    });
}

#[test]
fn a_full_base_says_so_changes_nothing_and_goes_on() {
    on_both(|place| {
        let base = place.open();
        base.commit(vec![put(b"a", b"1")]).unwrap();
        let large = vec![0; MAP_BYTES];
        let error = base
            .commit(vec![put(b"a", b"2"), put(b"large", &large)])
            .unwrap_err();
        assert_eq!(error.code, Code::NoSpace);
        base.commit(vec![put(b"b", b"1")]).unwrap();
        let read = base.begin_read().unwrap();
        let expected = [
            (b"a".to_vec(), b"1".to_vec()),
            (b"b".to_vec(), b"1".to_vec()),
        ];
        assert_eq!(scan(read.as_ref(), b"", None), expected);
    });
}

/// What a random run does.
#[derive(Clone, Debug)]
enum Step {
    Commit(Vec<(Vec<u8>, Option<Vec<u8>>)>),
    Scan(Vec<u8>, Option<Vec<u8>>),
    Hold,
    Reopen,
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(0..4u8, 1..4)
}

fn step() -> impl Strategy<Value = Step> {
    let value = proptest::collection::vec(any::<u8>(), 0..20);
    let change = (key(), proptest::option::of(value));
    let bound = proptest::collection::vec(0..4u8, 0..4);
    prop_oneof![
        4 => proptest::collection::vec(change, 0..12).prop_map(Step::Commit),
        4 => (bound.clone(), proptest::option::of(bound))
            .prop_map(|(from, to)| Step::Scan(from, to)),
        1 => proptest::strategy::Just(Step::Hold),
        1 => proptest::strategy::Just(Step::Reopen),
    ]
}

fn model_scan(model: &Model, from: &[u8], to: Option<&[u8]>) -> Pairs {
    let inside = |key: &[u8]| key >= from && to.is_none_or(|to| key < to);
    let entries = model.iter().filter(|(key, _)| inside(key));
    entries
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

fn commit(base: &dyn MetaBase, model: &mut Model, changes: &[(Vec<u8>, Option<Vec<u8>>)]) {
    let mut ops = Vec::new();
    for (key, value) in changes {
        match value {
            Some(value) => {
                ops.push(put(key, value));
                model.insert(key.clone(), value.clone());
            }
            None => {
                ops.push(delete(key));
                model.remove(key);
            }
        }
    }
    base.commit(ops).unwrap();
}

fn run(place: &dyn Place, steps: &[Step]) {
    let (mut base, mut model) = (place.open(), Model::new());
    let mut held: Vec<(Box<dyn MetaRead>, Model)> = Vec::new();
    for step in steps {
        match step {
            Step::Commit(changes) => commit(base.as_ref(), &mut model, changes),
            Step::Scan(from, to) => {
                let read = base.begin_read().unwrap();
                let expected = model_scan(&model, from, to.as_deref());
                assert_eq!(scan(read.as_ref(), from, to.as_deref()), expected);
                let value = read.get(from).unwrap();
                assert_eq!(value.as_deref(), model.get(from).map(Vec::as_slice));
            }
            Step::Hold => held.push((base.begin_read().unwrap(), model.clone())),
            Step::Reopen => {
                for (read, model) in held.drain(..) {
                    assert_eq!(
                        scan(read.as_ref(), b"", None),
                        model_scan(&model, b"", None)
                    );
                }
                drop(base);
                base = place.open();
            }
        }
    }
    for (read, model) in held {
        assert_eq!(
            scan(read.as_ref(), b"", None),
            model_scan(&model, b"", None)
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_run_reads_like_an_ordered_map(steps in proptest::collection::vec(step(), 0..30)) {
        on_both(|place| run(place, &steps));
    }
}

proptest! {
    #[test]
    fn any_run_of_the_model_reads_like_an_ordered_map(
        steps in proptest::collection::vec(step(), 0..60),
    ) {
        run(&SimDisk::new(1), &steps);
    }
}

#[test]
fn what_is_not_lmdb_is_refused_with_its_path() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("data.mdb"), [0xab; 40_000]).unwrap();
    let error = LmdbBase::open(dir.path(), MAP_BYTES).err().unwrap();
    assert_eq!(error.code, Code::Corrupt);
    assert_eq!(error.path, Some(dir.path().display().to_string()));
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file/base");
    std::fs::write(dir.path().join("file"), b"").unwrap();
    let error = LmdbBase::open(&path, MAP_BYTES).err().unwrap();
    assert_eq!(error.path, Some(path.display().to_string()));
    std::fs::create_dir_all(dir.path().join("base/data.mdb")).unwrap();
    let path = dir.path().join("base");
    let error = LmdbBase::open(&path, MAP_BYTES).err().unwrap();
    assert_eq!(error.path, Some(path.display().to_string()));
}

#[test]
fn a_second_opening_of_the_same_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _first = LmdbBase::open(dir.path(), MAP_BYTES).unwrap();
    assert!(LmdbBase::open(dir.path(), 2 * MAP_BYTES).is_err());
}

#[test]
fn a_map_of_a_tebibyte_takes_little_room() {
    let dir = tempfile::tempdir().unwrap();
    let base = LmdbBase::open(dir.path(), META_MAP_BYTES).unwrap();
    base.commit(vec![put(b"a", b"1")]).unwrap();
    assert!(base.used_bytes().unwrap() < 1 << 20);
}
