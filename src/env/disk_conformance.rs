//! What every disk must do while nothing fails, run against the operating system's and the
//! simulated one.

use super::real::RealDisk;
use super::sim::SimDisk;
use super::{Disk, DiskFile, OpenMode};
use bytes::Bytes;
use proptest::prelude::{ProptestConfig, Strategy, any, prop_oneof, proptest};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A disk and a directory on it.
type Place = (Arc<dyn Disk>, PathBuf);

async fn on_both<F: Future<Output = ()>>(test: impl Fn(Place) -> F) {
    let dir = tempfile::tempdir().unwrap();
    test((Arc::new(RealDisk::new(2, 1)), dir.path().to_owned())).await;
    let sim = SimDisk::new(1);
    sim.create_dir(Path::new("/dir")).await.unwrap();
    test((Arc::new(sim), PathBuf::from("/dir"))).await;
}

async fn create(disk: &dyn Disk, path: &Path) -> Arc<dyn DiskFile> {
    disk.open(path, OpenMode::CreateNew).await.unwrap()
}

async fn open_error(disk: &dyn Disk, path: &Path, mode: OpenMode) -> ErrorKind {
    disk.open(path, mode).await.err().unwrap().kind()
}

async fn all(file: &dyn DiskFile) -> Bytes {
    file.read_at(0, 1 << 20).await.unwrap()
}

fn bytes(text: &'static str) -> Vec<Bytes> {
    vec![Bytes::from_static(text.as_bytes())]
}

#[tokio::test]
async fn written_parts_are_read_back_one_behind_the_other() {
    on_both(|(disk, dir)| async move {
        let file = create(disk.as_ref(), &dir.join("a")).await;
        // More parts than one system call takes, empty ones among them.
        let parts: Vec<_> = (0..3_000u32)
            .map(|number| match number % 3 {
                0 => Bytes::new(),
                _ => Bytes::from(number.to_string()),
            })
            .collect();
        let expected = parts.concat();
        file.write_at(0, parts.clone()).await.unwrap();
        file.write_sync(expected.len() as u64, parts).await.unwrap();
        assert_eq!(file.len().await.unwrap(), 2 * expected.len() as u64);
        assert_eq!(
            all(file.as_ref()).await,
            [&expected[..], &expected].concat()
        );
        file.write_at(0, Vec::new()).await.unwrap();
        file.write_at(1 << 30, vec![Bytes::new()]).await.unwrap();
        assert_eq!(file.len().await.unwrap(), 2 * expected.len() as u64);
    })
    .await;
}

#[tokio::test]
async fn a_read_is_short_at_the_end_alone() {
    on_both(|(disk, dir)| async move {
        let file = create(disk.as_ref(), &dir.join("a")).await;
        file.write_at(0, bytes("0123456789")).await.unwrap();
        let read = async |offset, len| file.read_at(offset, len).await.unwrap();
        assert_eq!(read(2, 3).await, "234");
        assert_eq!(read(8, 5).await, "89");
        assert_eq!(read(10, 5).await, "");
        assert_eq!(read(1 << 40, 5).await, "");
        assert_eq!(read(0, 0).await, "");
        // A wrong length allocates nothing.
        assert_eq!(read(8, 1 << 50).await, "89");
    })
    .await;
}

#[tokio::test]
async fn open_modes_say_what_must_exist() {
    on_both(|(disk, dir)| async move {
        let (disk, path) = (disk.as_ref(), dir.join("a"));
        for mode in [OpenMode::Read, OpenMode::Write] {
            assert_eq!(open_error(disk, &path, mode).await, ErrorKind::NotFound);
        }
        assert!(!disk.exists(&path).await.unwrap());
        create(disk, &path).await;
        assert!(disk.exists(&path).await.unwrap());
        assert!(disk.exists(&dir).await.unwrap());
        assert!(!disk.exists(&dir.join("none/b")).await.unwrap());
        let again = open_error(disk, &path, OpenMode::CreateNew).await;
        assert_eq!(again, ErrorKind::AlreadyExists);
        let orphan = open_error(disk, &dir.join("none/b"), OpenMode::CreateNew).await;
        assert_eq!(orphan, ErrorKind::NotFound);
        let reader = disk.open(&path, OpenMode::Read).await.unwrap();
        reader.write_at(0, bytes("x")).await.unwrap_err();
        let writer = disk.open(&path, OpenMode::Write).await.unwrap();
        writer.write_at(0, bytes("x")).await.unwrap();
        assert_eq!(all(reader.as_ref()).await, "x");
    })
    .await;
}

#[tokio::test]
async fn rename_replaces_and_open_files_keep_their_bytes() {
    on_both(|(disk, dir)| async move {
        let (a, b) = (dir.join("a"), dir.join("b"));
        let first = create(disk.as_ref(), &a).await;
        first.write_at(0, bytes("first")).await.unwrap();
        let second = create(disk.as_ref(), &b).await;
        second.write_at(0, bytes("second")).await.unwrap();
        disk.rename(&a, &b).await.unwrap();
        disk.sync_dir(&dir).await.unwrap();
        assert_eq!(disk.list(&dir).await.unwrap(), [PathBuf::from("b")]);
        let found = disk.open(&b, OpenMode::Read).await.unwrap();
        assert_eq!(all(found.as_ref()).await, "first");
        assert_eq!(all(second.as_ref()).await, "second");
        disk.remove(&b).await.unwrap();
        assert_eq!(all(found.as_ref()).await, "first");
        let gone = disk.rename(&a, &b).await.unwrap_err();
        assert_eq!(gone.kind(), ErrorKind::NotFound);
        let gone = disk.remove(&b).await.unwrap_err();
        assert_eq!(gone.kind(), ErrorKind::NotFound);
    })
    .await;
}

#[tokio::test]
async fn directories_are_made_with_their_parents_and_listed_in_order() {
    on_both(|(disk, dir)| async move {
        let deep = dir.join("x/y/z");
        disk.create_dir(&deep).await.unwrap();
        disk.create_dir(&deep).await.unwrap();
        for name in ["b", "c", "a"] {
            create(disk.as_ref(), &deep.join(name)).await;
        }
        let names = disk.list(&deep).await.unwrap();
        assert_eq!(names, ["a", "b", "c"].map(PathBuf::from));
        assert_eq!(disk.list(&dir).await.unwrap(), [PathBuf::from("x")]);
        let taken = disk.create_dir(&deep.join("a")).await.unwrap_err();
        assert_eq!(taken.kind(), ErrorKind::NotADirectory);
        disk.create_dir(&deep.join("a/below")).await.unwrap_err();
        disk.list(&deep.join("a")).await.unwrap_err();
        disk.sync_dir(&dir.join("none")).await.unwrap_err();
        disk.remove(&deep).await.unwrap_err();
        disk.rename(&dir.join("x"), &dir.join("w")).await.unwrap();
        assert!(disk.exists(&dir.join("w/y/z/a")).await.unwrap());
        disk.rename(&dir.join("w"), &dir.join("w/y/v"))
            .await
            .unwrap_err();
    })
    .await;
}

#[tokio::test]
async fn space_has_a_total_and_less_available() {
    on_both(|(disk, dir)| async move {
        let space = disk.space(&dir).await.unwrap();
        assert!(space.total > 0 && space.available <= space.total);
        disk.space(&dir.join("none")).await.unwrap_err();
    })
    .await;
}

#[tokio::test]
async fn ranges_beyond_every_file_are_refused() {
    on_both(|(disk, dir)| async move {
        let file = create(disk.as_ref(), &dir.join("a")).await;
        file.write_at(u64::MAX, bytes("x")).await.unwrap_err();
        file.zero(u64::MAX, 2).await.unwrap_err();
        file.set_len(u64::MAX).await.unwrap_err();
        assert_eq!(file.len().await.unwrap(), 0);
    })
    .await;
}

#[derive(Clone, Debug)]
enum Step {
    Write(u64, Vec<u8>),
    Zero(u64, u64),
    SetLen(u64),
    Sync,
}

fn step() -> impl Strategy<Value = Step> {
    let offset = 0..12_000u64;
    let data = proptest::collection::vec(any::<u8>(), 0..6_000);
    prop_oneof![
        (offset.clone(), data).prop_map(|(offset, data)| Step::Write(offset, data)),
        (offset.clone(), 0..6_000u64).prop_map(|(offset, len)| Step::Zero(offset, len)),
        offset.prop_map(Step::SetLen),
        proptest::strategy::Just(Step::Sync),
    ]
}

async fn run(file: &dyn DiskFile, step: Step) {
    match step {
        Step::Write(offset, data) => file.write_at(offset, vec![Bytes::from(data)]).await,
        Step::Zero(offset, len) => file.zero(offset, len).await,
        Step::SetLen(len) => file.set_len(len).await,
        Step::Sync => file.sync().await,
    }
    .unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn the_simulated_file_reads_as_the_real_one(
        steps in proptest::collection::vec(step(), 0..12),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let real = create(&RealDisk::new(1, 1), &dir.path().join("a")).await;
            let sim = create(&SimDisk::new(1), Path::new("/a")).await;
            for step in steps {
                run(real.as_ref(), step.clone()).await;
                run(sim.as_ref(), step).await;
                assert_eq!(all(real.as_ref()).await, all(sim.as_ref()).await);
            }
        });
    }
}
