//! The client against a node in memory: requests that are sent again, files that are not what
//! they were, uploads that take long.

use super::testing::{CHUNK, INLINE, TestCluster};
use super::tests::{bytes, cat, get, path, put};
use super::{
    Client, GetOptions, NoProgress, OpIds, OpState, Overwrite, Progress, PutOptions, PutReport,
};
use crate::error::{Code, Error};
use crate::shard::command::{Chore, Removal};
use crate::shard::testing;
use crate::types::{ChunkHash, FileVersion, Precondition};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};

fn given(id: &str) -> PutOptions {
    PutOptions {
        op: OpIds::Given(id.into()),
        ..PutOptions::default()
    }
}

/// The identity that the hint of an open outcome names.
fn named_in(error: &Error) -> String {
    let hint = error.hint.clone().unwrap();
    let mut words = hint.split(['`', ' ']);
    words.rfind(|word| word.contains('-')).unwrap().to_owned()
}

/// Gives its bytes after another file was put in place of the one that was there.
struct Meddling<'a> {
    node: &'a TestCluster,
    data: &'a [u8],
    done: bool,
}

impl AsyncRead for Meddling<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if !self.done {
            self.done = true;
            let mut state = self.node.state();
            state.shard.op(testing::remove("/d/f", Removal::File));
            state.shard.put("/d/f", "theirs", Precondition::Absent);
        }
        let len = self.data.len().min(to.remaining());
        let (now, later) = self.data.split_at(len);
        to.put_slice(now);
        self.data = later;
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn an_overwrite_does_not_take_a_file_put_anew_for_the_one_it_read() {
    let node = TestCluster::one();
    let client = node.client(None).await;
    for size in [INLINE, 3 * CHUNK] {
        let first = put(&client, b"mine", "/d/f", &PutOptions::default()).await;
        assert_eq!(first.unwrap().version, FileVersion(1));
        let data = bytes(size, 1);
        let mut reader = Meddling {
            node: &node,
            data: &data,
            done: false,
        };
        let options = PutOptions {
            overwrite: Overwrite::Current,
            ..PutOptions::default()
        };
        let error = client.put_reader(&mut reader, path("/d/f"), &options, &NoProgress);
        let error = error.await.unwrap_err();
        assert_eq!(
            (error.code, error.current_version),
            (Code::Conflict, Some(1))
        );
        let kept = cat(&client, "/d/f", &GetOptions::default()).await.unwrap();
        assert_eq!(kept, b"theirs");
        let ids = OpIds::Automatic;
        let removed = client.remove(path("/d/f"), Removal::File, Precondition::Any, &ids);
        removed.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn pages_of_another_content_are_not_taken_for_ours() {
    let node = TestCluster::one();
    let dir = tempfile::tempdir().unwrap();
    let local = dir.path().join("local");
    let state_dir = dir.path().join("state");
    let state = Some(state_dir.clone());
    let old = bytes(1_030 * CHUNK, 1);
    std::fs::write(&local, &old).unwrap();
    let modified = std::fs::metadata(&local).unwrap().modified().unwrap();
    node.faults(|faults| faults.chunks_until_down = Some(1_028));
    let client = node.client(state.clone()).await;
    let options = PutOptions {
        window_bytes: CHUNK,
        ..PutOptions::default()
    };
    let to = path("/d/f");
    let cut = client.put_file(&local, to, &options, &NoProgress).await;
    assert_eq!(cut.unwrap_err().code, Code::Unavailable);

    // Another content, and nothing tells it from the old one but its bytes.
    node.faults(|faults| faults.chunks_until_down = None);
    let new = bytes(1_030 * CHUNK, 2);
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(&local)
        .unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &new, 0).unwrap();
    file.set_modified(modified).unwrap();
    drop(file);
    let client = node.client(state.clone()).await;
    let report = client.put_file(&local, to, &options, &NoProgress).await;
    assert_eq!(report.unwrap().hash, ChunkHash::of(&new));
    let stored = cat(&client, "/d/f", &GetOptions::default()).await.unwrap();
    assert!(stored == new);
    let left = std::fs::read_dir(state_dir.join("uploads")).unwrap();
    assert_eq!(left.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn genuine_chunks_at_wrong_places_are_not_the_file() {
    let node = TestCluster::one();
    let client = node.client(None).await;
    let data = bytes(5 * CHUNK + 3, 5);
    let options = PutOptions::default();
    put(&client, &data, "/d/f", &options).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("f");
    node.faults(|faults| faults.swapped = true);
    let error = get(&client, "/d/f", &out).await.unwrap_err();
    assert_eq!(error.code, Code::Corrupt);
    assert_eq!(error.path.as_deref(), Some("/d/f"));
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    let error = cat(&client, "/d/f", &GetOptions::default()).await;
    assert_eq!(error.unwrap_err().code, Code::Corrupt);
    node.faults(|faults| faults.swapped = false);
    get(&client, "/d/f", &out).await.unwrap();
    assert!(std::fs::read(&out).unwrap() == data);
}

async fn mkdir(client: &Client, at: &str, ids: &OpIds) -> Result<super::Changed, Error> {
    client.mkdir(path(at), 0o755, false, ids).await
}

#[tokio::test(start_paused = true)]
async fn an_automatic_name_given_back_is_the_same_request() {
    let node = TestCluster::one();
    let client = node.client(None).await;
    node.faults(|faults| faults.lost_replies = u32::MAX);
    let open = mkdir(&client, "/d/a", &OpIds::Automatic).await.unwrap_err();
    let id = named_in(&open);
    node.faults(|faults| faults.lost_replies = 0);
    let again = node.client(None).await;
    // Executed anew it would be refused: the directory is there.
    let ids = OpIds::Given(id.clone());
    let done = mkdir(&again, "/d/a", &ids).await.unwrap();
    assert_eq!(done.op_id, id);
    let other = mkdir(&again, "/d/b", &ids).await.unwrap_err();
    assert_eq!(other.code, Code::Usage);

    // One that the shard may have forgotten is not executed.
    {
        let mut state = node.state();
        state.shard.time += 2 * crate::limits::SESSION_HORIZON_MS;
        let tick = state.shard.proposal(Vec::new(), Vec::new());
        state.shard.command(&tick);
        state.shard.chore(Chore::ExpireLanes { lanes: 1_000 });
    }
    let again = node.client(None).await;
    let ids = OpIds::Given(id.replace("-1", "-2"));
    let error = mkdir(&again, "/d/c", &ids).await.unwrap_err();
    assert_eq!(
        (error.code, error.may_have_happened),
        (Code::Unavailable, true)
    );
    let gone = again.stat(path("/d/c"), crate::types::ReadLevel::Linearizable);
    assert!(gone.await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_change_that_is_dropped_in_the_middle_stays_open_under_its_name() {
    let node = TestCluster::one();
    let client = node.client(None).await;
    let under_way = client.core.under_way.clone();
    mkdir(&client, "/d/a", &OpIds::Automatic).await.unwrap();
    assert_eq!(under_way.newest(), None, "what was answered is not open");

    node.works_for(Duration::from_secs(2));
    let soon = Duration::from_secs(1);
    let ids = OpIds::Automatic;
    let dropped = tokio::time::timeout(soon, mkdir(&client, "/d/b", &ids));
    assert!(dropped.await.is_err());
    let open = under_way.newest().unwrap();
    assert_eq!(open.path.as_ref(), Some(path("/d/b")));
    tokio::time::sleep(Duration::from_secs(5)).await;
    let state = client.op_status(&open.op_id.unwrap()).await.unwrap();
    assert!(matches!(state, OpState::Applied(_)), "{state:?}");
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_is_dropped_before_its_commit_leaves_nothing_open() {
    let node = TestCluster::one();
    let client = node.client(None).await;
    node.works_for(Duration::from_secs(2));
    let (data, options) = (bytes(3 * CHUNK, 1), PutOptions::default());
    let mut pipe = &data[..];
    let put = client.put_reader(&mut pipe, path("/d/f"), &options, &NoProgress);
    let dropped = tokio::time::timeout(Duration::from_secs(1), put).await;
    assert!(dropped.is_err(), "its reservation takes longer");
    assert_eq!(client.core.under_way.newest(), None);
}

#[tokio::test(start_paused = true)]
async fn a_put_that_failed_half_way_is_done_under_its_id() {
    let node = TestCluster::one();
    let client = node.client(None).await;
    let data = bytes(5 * CHUNK, 1);
    node.faults(|faults| faults.full = true);
    let failed = put(&client, &data, "/d/f", &given("job")).await;
    assert_eq!(failed.unwrap_err().code, Code::NoSpace);
    node.faults(|faults| faults.full = false);
    let done = put(&client, &data, "/d/f", &given("job")).await.unwrap();
    let again = put(&client, &data, "/d/f", &given("job")).await.unwrap();
    assert_eq!(
        (done.version, again.version),
        (FileVersion(1), FileVersion(1))
    );
}

#[tokio::test(start_paused = true)]
async fn an_upload_goes_on_after_its_ticket_was_refused() {
    let node = TestCluster::one();
    let client = node.client(None).await;
    let data = bytes(20 * CHUNK, 1);
    node.faults(|faults| faults.chunks_until_new_key = Some(7));
    put(&client, &data, "/d/f", &PutOptions::default())
        .await
        .unwrap();
    let stored = cat(&client, "/d/f", &GetOptions::default()).await.unwrap();
    assert!(stored == data);
}

#[tokio::test(start_paused = true)]
async fn a_slow_upload_keeps_its_reservation() {
    let node = TestCluster::one();
    let client = node.client(None).await;
    let data = bytes(6 * CHUNK, 1);
    let (mut writer, mut reader) = tokio::io::duplex(data.len());
    let write = async {
        let (first, rest) = data.split_at(2 * CHUNK as usize);
        writer.write_all(first).await.unwrap();
        tokio::time::sleep(Duration::from_secs(10 * 3_600 + 60)).await;
        // Ten times in ten hours, and the first time.
        assert_eq!(node.counts().requests, 11);
        writer.write_all(rest).await.unwrap();
        drop(writer);
    };
    let options = PutOptions::default();
    let to = path("/d/f");
    let (stored, ()) = tokio::join!(
        client.put_reader(&mut reader, to, &options, &NoProgress),
        write
    );
    assert_eq!(stored.unwrap().hash, ChunkHash::of(&data));
    let uploads = crate::shard::keys::table(crate::shard::keys::UPLOADS);
    let state = node.state();
    assert!(
        !state
            .shard
            .slot
            .0
            .keys()
            .any(|key| key.starts_with(&uploads))
    );
}

/// Whoever sends a put again does not know whether the one before is still under way: wherever
/// that one is executed, both are told of the one version.
#[tokio::test(start_paused = true)]
async fn a_put_under_one_id_is_done_once_wherever_the_run_before_is() {
    // With its request, or in chunks.
    for (size, overwrite) in [
        (3 * CHUNK, Overwrite::IfAbsent),
        (3 * CHUNK, Overwrite::Current),
        (INLINE, Overwrite::Current),
    ] {
        put_twice(&bytes(size, 1), overwrite).await;
    }
}

async fn put_twice(data: &[u8], overwrite: Overwrite) {
    for delay in (0..60).map(|step| Duration::from_micros(step * 500)) {
        let cluster = TestCluster::new(3);
        let (one, two) = (cluster.client(None).await, cluster.client(None).await);
        let options = PutOptions {
            overwrite,
            ..given("again")
        };
        let later = async {
            tokio::time::sleep(delay).await;
            put(&two, data, "/d/f", &options).await
        };
        let (first, second) = tokio::join!(put(&one, data, "/d/f", &options), later);
        for done in [first, second] {
            let done = done.unwrap_or_else(|e| panic!("{delay:?} later: {e}"));
            assert_eq!(done.version, FileVersion(1), "{delay:?} later");
        }
    }
}

/// Remembers the ids of what was put.
#[derive(Default)]
struct Ids(parking_lot::Mutex<Vec<String>>);

impl Progress for Ids {
    fn put(&self, report: &PutReport) {
        self.0.lock().push(report.op_id.clone());
    }
}

#[tokio::test(start_paused = true)]
async fn each_file_of_a_tree_can_be_asked_for_by_its_id() {
    let node = TestCluster::one();
    let client = node.client(None).await;
    let dir = tempfile::tempdir().unwrap();
    for (name, size) in [("inline", INLINE), ("large", 5 * CHUNK)] {
        std::fs::write(dir.path().join(name), bytes(size, 1)).unwrap();
    }
    let (first, again) = (Ids::default(), Ids::default());
    for ids in [&first, &again] {
        let put = client
            .put_tree(dir.path(), path("/d/t"), &given("job"), ids)
            .await;
        assert_eq!(put.unwrap().files, 2);
        let told = ids.0.lock().clone();
        for id in told {
            let state = client.op_status(&id).await.unwrap();
            assert!(matches!(state, OpState::Applied(_)), "{id}");
        }
    }
    let sorted = |ids: Ids| std::collections::BTreeSet::from_iter(ids.0.into_inner());
    let (first, again) = (sorted(first), sorted(again));
    assert_eq!((first.len(), &first), (2, &again));
}

/// A tree of many small files and a large one of so many chunks.
fn tree(dir: &std::path::Path, chunks: u64) -> std::path::PathBuf {
    let tree = dir.join("tree");
    std::fs::create_dir_all(tree.join("sub")).unwrap();
    for small in 0..20 {
        let name = ["", "sub"][small % 2];
        let name = tree.join(name).join(format!("f{small}"));
        std::fs::write(name, bytes(INLINE, small as u64)).unwrap();
    }
    std::fs::write(tree.join("large"), bytes(chunks * CHUNK, 99)).unwrap();
    tree
}

#[tokio::test(start_paused = true)]
async fn a_put_of_a_tree_goes_on_under_the_id_of_its_directory() {
    let node = TestCluster::one();
    let dir = tempfile::tempdir().unwrap();
    let client = node.client(Some(dir.path().join("state"))).await;
    let (local, to) = (tree(dir.path(), 40), path("/d/t"));
    let first = PutOptions {
        root_op: OpIds::Given("job".into()),
        ..PutOptions::default()
    };
    node.faults(|faults| faults.chunks_until_down = Some(20));
    let put = client.put_tree(&local, to, &first, &NoProgress).await;
    assert_eq!(put.unwrap_err().code, Code::Unavailable);
    node.faults(|faults| faults.chunks_until_down = None);
    let sent = node.counts().chunks_put;

    let step = PutOptions::root_step(to);
    let made = client.is_made_by(to, &given("job").op, &step).await;
    assert!(made.unwrap(), "the same target is meant");
    let put = client
        .put_tree(&local, to, &given("job"), &NoProgress)
        .await;
    let report = put.unwrap();
    assert_eq!((report.files, report.failed), (21, 0));
    // All the small ones were there, in one request with each other.
    let small = 20 * INLINE;
    assert_eq!(report.reused_bytes, small + u64::from(sent) * CHUNK);
    assert_eq!(sent + node.counts().chunks_put, 40);
    // Under another id nothing is taken for its own.
    let other = given("other");
    let put = client.put_tree(&local, to, &other, &NoProgress).await;
    assert_eq!(put.unwrap().failed, 21);
    // What is not the same is in the way.
    std::fs::write(local.join("f0"), "changed").unwrap();
    let put = client
        .put_tree(&local, to, &given("job"), &NoProgress)
        .await;
    assert_eq!(put.unwrap().failed, 1);
}

#[tokio::test(start_paused = true)]
async fn a_get_of_a_tree_goes_on_in_the_directory_that_it_made() {
    let node = TestCluster::one();
    let dir = tempfile::tempdir().unwrap();
    let client = node.client(Some(dir.path().join("state"))).await;
    let (local, from) = (tree(dir.path(), 5), path("/d/t"));
    let options = PutOptions::default();
    let put = client.put_tree(&local, from, &options, &NoProgress).await;
    put.unwrap();
    let out = dir.path().join("out");
    let lost = ChunkHash::of(&bytes(5 * CHUNK, 99)[..CHUNK as usize]);
    let kept = node.state().chunks().remove(&lost).unwrap();
    let options = GetOptions::default();
    let got = client.get_tree(from, &out, &options, &NoProgress).await;
    assert_eq!(got.unwrap().failed, 1);
    assert!(client.has_begun_get(from, &out).await);
    assert!(!client.has_begun_get(path("/d"), &out).await);
    // What somebody has changed meanwhile is not replaced.
    std::fs::write(out.join("f0"), "changed").unwrap();
    node.state().chunks().insert(lost, kept);
    let got = client.get_tree(from, &out, &options, &NoProgress).await;
    let report = got.unwrap();
    assert_eq!((report.files, report.failed), (20, 1));
    assert!(report.reused_bytes >= 19 * INLINE, "{report:?}");
    assert_eq!(std::fs::read(out.join("f0")).unwrap(), b"changed");
    std::fs::remove_file(out.join("f0")).unwrap();
    let got = client.get_tree(from, &out, &options, &NoProgress).await;
    assert_eq!(got.unwrap().moved_bytes, INLINE);
    assert!(!client.has_begun_get(from, &out).await, "all is there");
    let got = client.get_tree(from, &out, &options, &NoProgress).await;
    assert_eq!(got.unwrap().failed, 21);
}

#[tokio::test(start_paused = true)]
async fn another_content_under_an_id_that_was_used_is_refused() {
    let node = TestCluster::one();
    let client = node.client(None).await;
    let dir = tempfile::tempdir().unwrap();
    let local = dir.path().join("local");
    for size in [INLINE, 5 * CHUNK] {
        let (to, options) = (path(&format!("/d/{size}")), given(&format!("put-{size}")));
        let mut longer = bytes(size, 1);
        longer.push(0);
        for (data, same) in [
            (bytes(size, 1), true),
            (bytes(size, 2), false),
            (longer, false),
        ] {
            std::fs::write(&local, &data).unwrap();
            let mut pipe = &data[..];
            let ways = [
                put(&client, &data, to.as_str(), &options).await,
                client.put_file(&local, to, &options, &NoProgress).await,
                client
                    .put_reader(&mut pipe, to, &options, &NoProgress)
                    .await,
            ];
            for done in ways {
                match done {
                    Ok(done) => assert!(same && done.version == FileVersion(1)),
                    Err(error) => assert!(!same && error.code == Code::Conflict, "{error}"),
                }
            }
        }
        let stored = cat(&client, to.as_str(), &GetOptions::default()).await;
        assert_eq!(stored.unwrap(), bytes(size, 1));
    }
}

/// Whichever comes first is stored, and the other is told.
#[tokio::test(start_paused = true)]
async fn two_contents_at_once_under_one_id_are_not_taken_for_each_other() {
    for size in [INLINE, 3 * CHUNK] {
        for delay in (0..60).map(|step| Duration::from_micros(step * 500)) {
            let cluster = TestCluster::new(3);
            let (one, two) = (cluster.client(None).await, cluster.client(None).await);
            let (first, second) = (bytes(size, 1), bytes(size, 2));
            let (options, to) = (given("both"), path("/d/f"));
            let mut pipe = &second[..];
            let later = async {
                tokio::time::sleep(delay).await;
                two.put_reader(&mut pipe, to, &options, &NoProgress).await
            };
            let now = put(&one, &first, "/d/f", &options);
            let (now, later) = tokio::join!(now, later);
            let stored = cat(&one, "/d/f", &GetOptions::default()).await.unwrap();
            for (done, data) in [(now, first), (later, second)] {
                match done {
                    Ok(_) => assert!(data == stored, "{delay:?} later"),
                    Err(error) => assert_eq!(error.code, Code::Conflict, "{delay:?}: {error}"),
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn chunks_that_are_lost_before_the_commit_are_sent_again() {
    let node = TestCluster::one();
    let dir = tempfile::tempdir().unwrap();
    let client = node.client(Some(dir.path().join("state"))).await;
    let (data, local) = (bytes(5 * CHUNK, 2), dir.path().join("local"));
    std::fs::write(&local, &data).unwrap();
    node.faults(|faults| faults.chunks_lost = 3);
    let options = PutOptions::default();
    let put = client.put_file(&local, path("/d/f"), &options, &NoProgress);
    let report = put.await.unwrap();
    assert_eq!(report.version, FileVersion(1));
    assert_eq!((report.sent_bytes, report.reused_bytes), (8 * CHUNK, 0));
    let options = GetOptions::default();
    assert_eq!(cat(&client, "/d/f", &options).await.unwrap(), data);

    // Nobody can send again what came out of a pipe.
    node.faults(|faults| faults.chunks_lost = 1);
    let options = PutOptions::default();
    let mut pipe = &data[..];
    let put = client.put_reader(&mut pipe, path("/d/g"), &options, &NoProgress);
    let error = put.await.unwrap_err();
    assert_eq!(error.code, Code::Unavailable);
    assert!(cat(&client, "/d/g", &GetOptions::default()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_put_that_goes_on_sends_what_was_lost_meanwhile() {
    let node = TestCluster::one();
    let dir = tempfile::tempdir().unwrap();
    let client = node.client(Some(dir.path().join("state"))).await;
    let (data, local) = (bytes(20 * CHUNK, 3), dir.path().join("local"));
    std::fs::write(&local, &data).unwrap();
    node.faults(|faults| faults.chunks_until_down = Some(10));
    let options = PutOptions::default();
    let put = client.put_file(&local, path("/d/f"), &options, &NoProgress);
    assert_eq!(put.await.unwrap_err().code, Code::Unavailable);
    node.faults(|faults| faults.chunks_until_down = None);
    node.state().chunks().clear();
    let put = client.put_file(&local, path("/d/f"), &options, &NoProgress);
    assert_eq!(put.await.unwrap().sent_bytes, 20 * CHUNK);
    let options = GetOptions::default();
    assert_eq!(cat(&client, "/d/f", &options).await.unwrap(), data);
}
