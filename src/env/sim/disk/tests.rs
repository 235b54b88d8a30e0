//! What the simulated disk promises about crashes and faults.

use super::inode::SECTOR_BYTES;
use super::{Fault, FaultError, OpKind, SimDisk};
use crate::env::base::{BaseOp, MetaBase, ModelBase};
use crate::env::{Disk, DiskFile, OpenMode};
use crate::error::Code;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use proptest::prelude::{Strategy, any, prop_oneof, proptest};
use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Enough draws to see each outcome that is possible.
const VARIANTS: u64 = 200;
const SECTOR: usize = SECTOR_BYTES as usize;

/// Operations of this disk answer at once.
fn now<T>(operation: BoxFuture<'_, T>) -> T {
    operation.now_or_never().unwrap()
}

fn root() -> &'static Path {
    Path::new("/")
}

fn path(name: &str) -> PathBuf {
    root().join(name)
}

fn create(disk: &SimDisk, name: &str) -> Arc<dyn DiskFile> {
    now(disk.open(&path(name), OpenMode::CreateNew)).unwrap()
}

/// A file whose name is durable.
fn create_synced(disk: &SimDisk, name: &str) -> Arc<dyn DiskFile> {
    let file = create(disk, name);
    now(disk.sync_dir(root())).unwrap();
    file
}

fn write(file: &Arc<dyn DiskFile>, offset: u64, data: impl AsRef<[u8]>) -> io::Result<()> {
    now(file.write_at(offset, vec![Bytes::copy_from_slice(data.as_ref())]))
}

fn names(disk: &SimDisk) -> Vec<String> {
    let files = disk.files().into_iter();
    files.map(|(path, _)| path.display().to_string()).collect()
}

/// The file's bytes after each of many crashes.
fn outcomes(disk: &SimDisk, name: &str) -> BTreeSet<Option<Vec<u8>>> {
    let found = |variant| disk.if_crashed(variant).contents(&path(name));
    (0..VARIANTS)
        .map(|variant| found(variant).map(|bytes| bytes.to_vec()))
        .collect()
}

fn name_sets(disk: &SimDisk) -> BTreeSet<Vec<String>> {
    (0..VARIANTS)
        .map(|variant| names(&disk.if_crashed(variant)))
        .collect()
}

#[test]
fn rule_1_synced_bytes_survive_and_later_ones_may() {
    let disk = SimDisk::new(1);
    let file = create_synced(&disk, "a");
    write(&file, 0, "old").unwrap();
    now(file.sync()).unwrap();
    write(&file, 0, "new").unwrap();
    let expected = ["new", "old"].map(|text| Some(text.as_bytes().to_vec()));
    assert_eq!(outcomes(&disk, "a"), BTreeSet::from(expected));
}

#[test]
fn rule_1_unsynced_writes_tear_at_sectors() {
    let disk = SimDisk::new(1);
    let file = create_synced(&disk, "a");
    now(file.write_sync(0, vec![Bytes::from(vec![1; 3 * SECTOR])])).unwrap();
    // From the middle of the first sector to the middle of the third.
    write(&file, 100, vec![2; 2 * SECTOR]).unwrap();
    let outcomes = outcomes(&disk, "a");
    for found in outcomes.iter().flatten() {
        let mut expected = vec![1; 3 * SECTOR];
        for (sector, from, to) in [(0, 100, SECTOR), (1, SECTOR, 2 * SECTOR)] {
            expected[from..to].fill(found[from.max(sector * SECTOR)]);
        }
        expected[2 * SECTOR..2 * SECTOR + 100].fill(found[2 * SECTOR]);
        assert_eq!(*found, expected);
    }
    assert_eq!(outcomes.len(), 8, "every subset of three sectors is found");
}

#[test]
fn rule_1_a_length_may_survive_without_its_bytes() {
    let disk = SimDisk::new(1);
    let file = create_synced(&disk, "a");
    write(&file, 0, "abc").unwrap();
    let expected = [&b""[..], b"\0\0\0", b"abc"].map(|bytes| Some(bytes.to_vec()));
    assert_eq!(outcomes(&disk, "a"), BTreeSet::from(expected));
}

#[test]
fn rule_1_any_subset_of_pending_writes_may_survive() {
    let disk = SimDisk::new(1);
    let file = create_synced(&disk, "a");
    now(file.write_sync(0, vec![Bytes::from(vec![b'-'; 3 * SECTOR])])).unwrap();
    for sector in 0..3u64 {
        write(&file, sector * SECTOR_BYTES, "x").unwrap();
    }
    let outcomes = outcomes(&disk, "a");
    let survivors: BTreeSet<Vec<bool>> = outcomes
        .iter()
        .flatten()
        .map(|found| {
            found
                .chunks(SECTOR)
                .map(|sector| sector[0] == b'x')
                .collect()
        })
        .collect();
    assert_eq!(survivors.len(), 8);
}

#[test]
fn rule_2_an_unsynced_name_may_be_lost_and_a_synced_one_not() {
    let disk = SimDisk::new(1);
    create_synced(&disk, "kept");
    create(&disk, "new");
    now(disk.remove(&path("kept"))).unwrap();
    let sets = name_sets(&disk);
    assert_eq!(sets.len(), 4, "each name is there or not: {sets:?}");
    now(disk.sync_dir(root())).unwrap();
    assert_eq!(name_sets(&disk), BTreeSet::from([vec!["/new".to_string()]]));
}

#[test]
fn rule_2_a_replaced_name_stands_for_the_old_file_or_the_new_one() {
    let disk = SimDisk::new(1);
    for name in ["a", "a.new"] {
        let file = create_synced(&disk, name);
        now(file.write_sync(0, vec![Bytes::from(name.to_string())])).unwrap();
    }
    now(disk.rename(&path("a.new"), &path("a"))).unwrap();
    let expected = ["a", "a.new"].map(|text| Some(text.as_bytes().to_vec()));
    assert_eq!(outcomes(&disk, "a"), BTreeSet::from(expected));
    now(disk.sync_dir(root())).unwrap();
    assert_eq!(
        outcomes(&disk, "a"),
        BTreeSet::from([Some(b"a.new".to_vec())])
    );
    assert_eq!(name_sets(&disk).len(), 1);
}

#[test]
fn rule_2_directories_are_durable_when_made() {
    let disk = SimDisk::new(1);
    now(disk.create_dir(Path::new("/x/y"))).unwrap();
    for variant in 0..VARIANTS {
        let found = disk.crash_variant(variant);
        assert!(now(found.exists(Path::new("/x/y"))).unwrap());
    }
}

fn put(key: &'static str, value: &'static str) -> BaseOp {
    BaseOp::Put(Bytes::from(key), Bytes::from(value))
}

/// The values of `a` and `b` in the base.
fn base_values(disk: &SimDisk) -> [Option<Bytes>; 2] {
    let read = ModelBase::open(disk, Path::new("/base"))
        .begin_read()
        .unwrap();
    [b"a", b"b"].map(|key| read.get(key).unwrap())
}

#[test]
fn rule_3_a_commit_survives_whole_once_it_returned() {
    let mut seen = BTreeSet::new();
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        let base = ModelBase::open(&disk, Path::new("/base"));
        base.commit(vec![put("a", "1"), put("b", "1")]).unwrap();
        disk.crash_at(2);
        base.commit(vec![put("a", "2"), put("b", "2")]).unwrap_err();
        assert!(base.begin_read().is_err());
        let [a, b] = base_values(&disk.crash());
        assert_eq!(a, b);
        seen.insert(a);
    }
    let expected = ["1", "2"].map(|text| Some(Bytes::from(text)));
    assert_eq!(seen, BTreeSet::from(expected));
}

#[test]
fn a_base_commit_that_fails_stops_the_base() {
    let disk = SimDisk::new(1);
    let base = ModelBase::open(&disk, Path::new("/base"));
    disk.add_fault(Fault {
        error: FaultError::NoSpace,
        ..Fault::once(OpKind::BaseCommit, "base")
    });
    let full = base.commit(vec![put("a", "1")]).unwrap_err();
    assert_eq!(full.code, Code::NoSpace);
    assert_eq!(base_values(&disk), [None, None]);
    disk.add_fault(Fault::once(OpKind::BaseCommit, "base"));
    let error = base.commit(vec![put("a", "1")]).unwrap_err();
    assert_eq!(error.code, Code::Failed);
    base.commit(vec![put("a", "1")]).unwrap_err();
    assert!(base.begin_read().is_err());
}

#[test]
fn a_flipped_bit_of_a_base_value_is_read() {
    let disk = SimDisk::new(1);
    let base = ModelBase::open(&disk, Path::new("/base"));
    base.commit(vec![put("a", "1")]).unwrap();
    assert!(base.flip_bit(b"a", 0, 1));
    assert!(!base.flip_bit(b"a", 1, 1));
    assert!(!base.flip_bit(b"b", 0, 1));
    assert_eq!(base_values(&disk)[0].as_deref(), Some(&b"3"[..]));
}

/// Appends five records, each acknowledged after its sync; how many were.
fn append_five(disk: &SimDisk) -> io::Result<u8> {
    let mut acknowledged = 0;
    let result = (|| {
        let file = now(disk.open(&path("log"), OpenMode::CreateNew))?;
        now(disk.sync_dir(root()))?;
        for record in 1..=5u8 {
            let at = u64::from(record - 1) * 700;
            now(file.write_sync(at, vec![Bytes::from(vec![record; 700])]))?;
            acknowledged = record;
        }
        Ok(())
    })();
    match result {
        Err(error) if !disk.is_crashed() => Err(error),
        _ => Ok(acknowledged),
    }
}

#[test]
fn at_every_crash_point_what_was_acknowledged_is_found() {
    let whole = SimDisk::new(1);
    assert_eq!(append_five(&whole).unwrap(), 5);
    // Create, sync of the directory, and five times a write and a sync.
    assert_eq!(whole.mutations(), 12);
    for crash_at in 1..=12 {
        let disk = SimDisk::new(crash_at);
        disk.crash_at(crash_at);
        let acknowledged = append_five(&disk).unwrap();
        assert_eq!(u64::from(acknowledged), crash_at.saturating_sub(3) / 2);
        for variant in 0..20 {
            let log = disk.crash_variant(variant).contents(&path("log"));
            let log = log.unwrap_or_default();
            for record in 1..=acknowledged {
                let at = usize::from(record - 1) * 700;
                assert_eq!(log[at..at + 700], [record; 700]);
            }
        }
    }
}

#[test]
fn after_the_power_went_everything_fails() {
    let disk = SimDisk::new(1);
    let file = create(&disk, "a");
    disk.power_off();
    write(&file, 0, "x").unwrap_err();
    now(file.sync()).unwrap_err();
    now(file.read_at(0, 1)).unwrap_err();
    now(disk.exists(root())).unwrap_err();
    now(disk.create_dir(Path::new("/d"))).unwrap_err();
    assert!(disk.is_crashed() && !disk.crash().is_crashed());
}

#[test]
fn a_failed_sync_leaves_bytes_that_no_later_sync_makes_durable() {
    let mut seen = BTreeSet::new();
    for seed in 0..40 {
        let disk = SimDisk::new(seed);
        let file = create_synced(&disk, "a");
        now(file.write_sync(0, vec![Bytes::from_static(b"old")])).unwrap();
        write(&file, 0, "new").unwrap();
        disk.add_fault(Fault::once(OpKind::Sync, "a"));
        let error = now(file.sync()).unwrap_err();
        assert_eq!(
            error.raw_os_error(),
            Some(rustix::io::Errno::IO.raw_os_error())
        );
        now(file.sync()).unwrap();
        let read = now(file.read_at(0, 8)).unwrap();
        assert_eq!(read, "new", "read as if nothing had happened");
        let restarted = disk.kill();
        let found = outcomes(&restarted, "a");
        assert_eq!(found.len(), 1, "drawn once, whatever comes: {found:?}");
        seen.extend(found.into_iter().flatten().map(Bytes::from));
        // Written again, the page is dirty again.
        let file = now(restarted.open(&path("a"), OpenMode::Write)).unwrap();
        now(file.write_sync(0, vec![read])).unwrap();
        assert_eq!(
            outcomes(&restarted, "a"),
            BTreeSet::from([Some(b"new".to_vec())])
        );
    }
    assert_eq!(seen, BTreeSet::from(["old", "new"].map(Bytes::from)));
}

#[test]
fn faults_hit_the_chosen_operations_alone() {
    let disk = SimDisk::new(1);
    let (a, b) = (create(&disk, "a"), create(&disk, "b"));
    disk.add_fault(Fault {
        after: 1,
        times: 2,
        ..Fault::once(OpKind::Read, "/a")
    });
    let failed: Vec<_> = (0..5).map(|_| now(a.read_at(0, 1)).is_err()).collect();
    assert_eq!(failed, [false, true, true, false, false]);
    assert!(now(b.read_at(0, 1)).is_ok());
    assert_eq!(disk.count(OpKind::Read), 6);
    disk.add_fault(Fault {
        times: u64::MAX,
        error: FaultError::NoSpace,
        ..Fault::once(OpKind::Write, "")
    });
    for _ in 0..3 {
        assert_eq!(
            write(&b, 0, "x").unwrap_err().kind(),
            ErrorKind::StorageFull
        );
    }
    disk.clear_faults();
    write(&b, 0, "x").unwrap();
}

#[test]
fn a_full_disk_takes_writes_into_zeroed_ranges_and_after_removals() {
    let disk = SimDisk::new(1);
    disk.set_limit(Some(64 << 10));
    let (a, b) = (create(&disk, "a"), create(&disk, "b"));
    now(a.zero(0, 40 << 10)).unwrap();
    write(&b, 0, vec![1; 20 << 10]).unwrap();
    let space = now(disk.space(root())).unwrap();
    assert_eq!((space.total, space.available), (64 << 10, 4 << 10));
    let full = write(&b, 20 << 10, vec![1; 8 << 10]).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::StorageFull);
    assert_eq!(now(b.len()).unwrap(), 20 << 10);
    write(&a, 1_000, vec![1; 30_000]).unwrap();
    now(a.set_len(36 << 10)).unwrap();
    write(&b, 20 << 10, vec![1; 8 << 10]).unwrap();
    now(disk.remove(&path("a"))).unwrap();
    assert_eq!(now(disk.space(root())).unwrap().available, 36 << 10);
}

#[test]
fn a_killed_process_loses_nothing_but_the_power_still_may() {
    let disk = SimDisk::new(1);
    let file = create(&disk, "a");
    write(&file, 0, "abc").unwrap();
    let next = disk.kill();
    write(&file, 0, "late").unwrap_err();
    assert_eq!(next.contents(&path("a")).as_deref(), Some(&b"abc"[..]));
    assert!(outcomes(&next, "a").contains(&None));
}

#[test]
fn damage_is_read_and_stays() {
    let disk = SimDisk::new(1);
    let file = create_synced(&disk, "a");
    now(file.write_sync(0, vec![Bytes::from_static(b"abc")])).unwrap();
    assert!(disk.flip_bit(&path("a"), 1, 0));
    assert!(disk.truncate(&path("a"), 2));
    assert!(!disk.flip_bit(&path("a"), 2, 0));
    assert!(!disk.truncate(&path("none"), 2));
    assert_eq!(now(file.read_at(0, 9)).unwrap(), "ac");
    assert_eq!(
        disk.crash().contents(&path("a")).as_deref(),
        Some(&b"ac"[..])
    );
}

#[tokio::test(start_paused = true)]
async fn a_sync_covers_nothing_written_after_it_began() {
    let disk = SimDisk::new(1);
    let file = create_synced(&disk, "a");
    disk.set_sync_latency(Duration::from_millis(5));
    write(&file, 0, "a").unwrap();
    let mut sync = file.sync();
    assert!(futures::poll!(&mut sync).is_pending());
    // On another page than the first, which the sync may take along as it is.
    write(&file, 8_192, "b").unwrap();
    sync.await.unwrap();
    let found = outcomes(&disk, "a");
    assert!(found.iter().flatten().all(|bytes| bytes[0] == b'a'));
    assert!(found.contains(&Some(b"a".to_vec())));
}

#[derive(Clone, Debug)]
enum Step {
    Write(u64, u8, usize),
    Zero(u64, u64),
    SetLen(u64),
    Sync,
}

fn step() -> impl Strategy<Value = Step> {
    let offset = 0..9_000u64;
    prop_oneof![
        4 => (offset.clone(), any::<u8>(), 0..3_000usize)
            .prop_map(|(offset, byte, len)| Step::Write(offset, byte, len)),
        1 => (offset.clone(), 0..5_000u64).prop_map(|(offset, len)| Step::Zero(offset, len)),
        1 => offset.prop_map(Step::SetLen),
        2 => proptest::strategy::Just(Step::Sync),
    ]
}

/// Runs the steps; what the file held at its last sync and after each step since.
fn run(disk: &SimDisk, steps: &[Step]) -> Vec<Bytes> {
    let file = create_synced(disk, "a");
    let mut states = vec![Bytes::new()];
    for step in steps {
        match *step {
            Step::Write(offset, byte, len) => write(&file, offset, vec![byte; len]),
            Step::Zero(offset, len) => now(file.zero(offset, len)),
            Step::SetLen(len) => now(file.set_len(len)),
            Step::Sync => now(file.sync()),
        }
        .unwrap();
        if matches!(step, Step::Sync) {
            states.clear();
        }
        states.push(disk.contents(&path("a")).unwrap());
    }
    states
}

proptest! {
    #[test]
    fn after_a_crash_each_byte_is_one_that_it_had_since_the_last_sync(
        steps in proptest::collection::vec(step(), 0..12),
        seed: u64,
    ) {
        let disk = SimDisk::new(seed);
        let states = run(&disk, &steps);
        for variant in 0..8 {
            let found = disk.crash_variant(variant).contents(&path("a")).unwrap();
            if let [only] = &states[..] {
                assert_eq!(found, only);
            }
            for (at, byte) in found.iter().enumerate() {
                // Zero: the length survived, or a cut, without the bytes.
                let had = states.iter().any(|state| state.get(at) == Some(byte));
                assert!(had || *byte == 0, "byte {at} is {byte}");
            }
        }
    }

    #[test]
    fn a_seed_and_the_operations_decide_what_is_found(
        steps in proptest::collection::vec(step(), 0..12),
        seed: u64,
    ) {
        let wreck = || {
            let disk = SimDisk::new(seed);
            run(&disk, &steps);
            create(&disk, "b");
            let found = disk.crash();
            (names(&found), found.contents(&path("a")), disk.crash().files())
        };
        assert_eq!(wreck(), wreck());
    }
}
