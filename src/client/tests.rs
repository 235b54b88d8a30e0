//! The client against a node in memory: exactly once, resume, windows, preconditions.

use super::testing::{CHUNK, INLINE, TestCluster};
use super::{
    Client, GetOptions, GetReport, ListOptions, NoProgress, OpIds, OpState, Overwrite, Progress,
    PutOptions, PutReport,
};
use crate::error::{Code, Error, Result};
use crate::shard::command::{Op, Removal};
use crate::types::{ChunkHash, DfsPath, FileVersion, Name, Precondition, ReadLevel};
use bytes::Bytes;
use parking_lot::Mutex;
use std::path::Path;

/// Kept for ever, so that a call under way may borrow it.
pub(super) fn path(text: &str) -> &'static DfsPath {
    Box::leak(Box::new(DfsPath::parse(text).unwrap()))
}

pub(super) fn bytes(len: u64, seed: u64) -> Vec<u8> {
    let mix = |i: u64| (i ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56;
    (0..len).map(|i| mix(i) as u8).collect()
}

/// Remembers what it was told.
#[derive(Default)]
struct Told {
    sums: Mutex<(u64, u64, u64)>,
    failed: Mutex<Vec<Error>>,
    notes: Mutex<Vec<String>>,
}

impl Progress for Told {
    fn expect(&self, files: u64, bytes: u64) {
        let mut sums = self.sums.lock();
        sums.0 += files;
        sums.1 += bytes;
    }
    fn advance(&self, bytes: u64) {
        self.sums.lock().2 += bytes;
    }
    fn failed(&self, error: &Error) {
        self.failed.lock().push(error.clone());
    }
    fn note(&self, text: &str) {
        self.notes.lock().push(text.to_owned());
    }
}

pub(super) async fn put(
    client: &Client,
    data: &[u8],
    to: &str,
    options: &PutOptions,
) -> Result<PutReport> {
    let data = Bytes::copy_from_slice(data);
    client.put_bytes(data, path(to), options).await
}

pub(super) async fn cat(client: &Client, from: &str, options: &GetOptions) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    client
        .cat(path(from), &mut out, options, &NoProgress)
        .await?;
    Ok(out)
}

pub(super) async fn get(client: &Client, from: &str, to: &Path) -> Result<GetReport> {
    let options = GetOptions {
        window_bytes: 4 * CHUNK,
        ..GetOptions::default()
    };
    client.get_file(path(from), to, &options, &NoProgress).await
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_is_asked_for_again_and_nothing_happens_twice() {
    let node = TestCluster::one();
    let client = node.client(None).await;
    node.faults(|faults| {
        faults.lost_replies = 2;
        faults.busy = 1;
    });
    // A second mkdir would be refused as existing.
    let made = client.mkdir(path("/d/a"), 0o755, false, &OpIds::Automatic);
    let made = made.await.unwrap();
    assert_eq!(node.counts().requests, 4);
    let state = client.op_status(&made.op_id).await.unwrap();
    assert_eq!(state, OpState::Applied(vec![Ok(made.done)]));
}

#[tokio::test(start_paused = true)]
async fn an_outcome_left_open_says_so_and_can_be_asked_for() {
    let node = TestCluster::one();
    let client = node.client(None).await;
    node.faults(|faults| faults.lost_replies = u32::MAX);
    let error = client.mkdir(path("/d/a"), 0o755, false, &OpIds::Automatic);
    let error = error.await.unwrap_err();
    assert_eq!(
        (error.code, error.may_have_happened),
        (Code::Unavailable, true)
    );
    assert_eq!(error.path.as_deref(), Some("/d/a"));
    node.faults(|faults| faults.lost_replies = 0);
    let hint = error.hint.unwrap();
    let id = hint.split(['`', ' ']).rev().find(|word| word.contains('-'));
    match client.op_status(id.unwrap()).await.unwrap() {
        OpState::Applied(outcomes) => assert!(outcomes[0].is_ok()),
        other => panic!("it was applied: {other:?}"),
    }
    // The lane is not used again, and the client goes on.
    let next = client.mkdir(path("/d/b"), 0o755, false, &OpIds::Automatic);
    next.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_command_of_several_requests_is_known_by_its_own_id() {
    let node = TestCluster::one();
    let client = node.client(None).await;
    let ids = |id: &str| OpIds::Given(id.into());
    assert_eq!(client.op_status("job").await.unwrap(), OpState::Unknown);
    client.begin_steps(&ids("job")).await.unwrap();
    assert_eq!(client.op_status("job").await.unwrap(), OpState::Begun);
    let first = ids("job.0");
    let made = client.mkdir(path("/d/a"), 0o755, false, &first);
    let made = OpState::Applied(vec![Ok(made.await.unwrap().done)]);
    assert_eq!(client.op_status("job.0").await.unwrap(), made);
    assert_eq!(client.op_status("job").await.unwrap(), OpState::Begun);
    client.end_steps(&ids("job")).await.unwrap();
    let all = OpState::Applied(Vec::new());
    assert_eq!(client.op_status("job").await.unwrap(), all);
    // Again, and of another command.
    client.begin_steps(&ids("job")).await.unwrap();
    client.begin_steps(&ids("other")).await.unwrap();
    client.begin_steps(&OpIds::Automatic).await.unwrap();
    assert_eq!(client.op_status("job").await.unwrap(), all);
}

#[tokio::test(start_paused = true)]
async fn a_given_id_is_applied_once_whoever_sends_it() {
    let node = TestCluster::one();
    let (one, two) = (node.client(None).await, node.client(None).await);
    let ids = OpIds::Given("backup-7".into());
    let first = one.mkdir(path("/d/a"), 0o755, false, &ids).await.unwrap();
    let again = two.mkdir(path("/d/a"), 0o755, false, &ids).await.unwrap();
    assert_eq!(first, again);
    assert_eq!(first.op_id, "backup-7");
    let other = two.mkdir(path("/d/b"), 0o755, false, &ids).await;
    assert_eq!(other.unwrap_err().code, Code::Usage);

    // Puts too, small and large, although `Current` would see another version now.
    for (name, size) in [("small", INLINE), ("large", 5 * CHUNK)] {
        let options = PutOptions {
            op: OpIds::Given(format!("put-{name}")),
            overwrite: Overwrite::Current,
            ..PutOptions::default()
        };
        let to = format!("/d/{name}");
        let first = put(&one, &bytes(size, 1), &to, &options).await.unwrap();
        let again = put(&two, &bytes(size, 1), &to, &options).await.unwrap();
        assert_eq!(
            (first.version, again.version),
            (FileVersion(1), FileVersion(1))
        );
        assert_eq!(first.hash, again.hash);
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_that_the_shard_forgot_is_replaced() {
    let node = TestCluster::one();
    let client = node.client(None).await;
    client
        .mkdir(path("/d/a"), 0o755, false, &OpIds::Automatic)
        .await
        .unwrap();
    // Two hours of shard time pass that the client's clock does not see.
    {
        let mut state = node.state();
        state.shard.time += 2 * crate::limits::SESSION_HORIZON_MS;
        let tick = state.shard.proposal(Vec::new(), Vec::new());
        state.shard.command(&tick);
        let expire = crate::shard::command::Chore::ExpireLanes { lanes: 1_000 };
        state.shard.chore(expire);
    }
    // A node that is busy has not looked at the request: it counts as sent once still.
    node.faults(|faults| faults.busy = 2);
    client
        .mkdir(path("/d/b"), 0o755, false, &OpIds::Automatic)
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn contents_of_every_shape_come_back_as_they_went() {
    let node = TestCluster::one();
    let client = node.client(None).await;
    let dir = tempfile::tempdir().unwrap();
    let sizes = [
        0,
        1,
        INLINE,
        INLINE + 1,
        CHUNK - 1,
        CHUNK,
        CHUNK + 1,
        20 * CHUNK + 7,
    ];
    for (index, size) in sizes.into_iter().enumerate() {
        let data = bytes(size, index as u64);
        let local = dir.path().join(format!("in-{index}"));
        std::fs::write(&local, &data).unwrap();
        let ways = [
            format!("/d/m{index}"),
            format!("/d/f{index}"),
            format!("/d/p{index}"),
        ];
        let options = PutOptions::default();
        let told = Told::default();
        put(&client, &data, &ways[0], &options).await.unwrap();
        let report = client
            .put_file(&local, path(&ways[1]), &options, &told)
            .await
            .unwrap();
        let mut pipe = &data[..];
        client
            .put_reader(&mut pipe, path(&ways[2]), &options, &NoProgress)
            .await
            .unwrap();
        assert_eq!(
            (report.size, report.hash),
            (size, ChunkHash::of(&data)),
            "{size}"
        );
        assert_eq!(report.sent_bytes + report.reused_bytes, size);
        assert_eq!(*told.sums.lock(), (1, size, size));
        for way in ways {
            assert_eq!(
                cat(&client, &way, &GetOptions::default()).await.unwrap(),
                data
            );
        }
        let out = dir.path().join(format!("out-{index}"));
        get(&client, &format!("/d/f{index}"), &out).await.unwrap();
        assert_eq!(std::fs::read(&out).unwrap(), data);
        let again = get(&client, &format!("/d/f{index}"), &out).await;
        assert_eq!(again.unwrap_err().code, Code::Exists);
    }
}

#[tokio::test(start_paused = true)]
async fn files_that_tell_their_size_only_when_read_are_stored_whole() {
    let node = TestCluster::one();
    let client = node.client(None).await;
    let (local, options) = (Path::new("/proc/version"), PutOptions::default());
    let content = std::fs::read(local).unwrap();
    let put = client.put_file(local, path("/d/f"), &options, &NoProgress);
    assert_eq!(put.await.unwrap().size, content.len() as u64);
    let whole = GetOptions::default();
    assert_eq!(cat(&client, "/d/f", &whole).await.unwrap(), content);

    let local = Path::new("/proc/sys/kernel/random");
    let content = std::fs::read(local.join("boot_id")).unwrap();
    let ways = [
        ("/d/a", OpIds::Automatic),
        ("/d/b", OpIds::Given("job".into())),
    ];
    for (to, op) in ways {
        let told = Told::default();
        let options = PutOptions {
            op,
            ..PutOptions::default()
        };
        let put = client.put_tree(local, path(to), &options, &told);
        assert_eq!(put.await.unwrap().files, told.sums.lock().0);
        assert!(told.failed.lock().is_empty(), "{:?}", told.failed.lock());
        let stored = cat(&client, &format!("{to}/boot_id"), &whole).await;
        assert_eq!(stored.unwrap(), content);
    }
}

#[tokio::test(start_paused = true)]
async fn more_chunks_than_a_manifest_page() {
    let node = TestCluster::one();
    let client = node.client(None).await;
    let data = bytes(1_030 * CHUNK + 5, 3);
    let report = put(&client, &data, "/d/big", &PutOptions::default())
        .await
        .unwrap();
    assert_eq!((report.chunks, report.hash), (1_031, ChunkHash::of(&data)));
    assert_eq!(
        cat(&client, "/d/big", &GetOptions::default())
            .await
            .unwrap(),
        data
    );
    let (start, end) = (1_023 * CHUNK + 9, 1_025 * CHUNK + 1);
    let options = GetOptions {
        range: Some((start, Some(end))),
        ..GetOptions::default()
    };
    let part = cat(&client, "/d/big", &options).await.unwrap();
    assert_eq!(part, data[start as usize..end as usize]);
}

#[tokio::test(start_paused = true)]
async fn ranges_beyond_the_end_name_the_size() {
    let node = TestCluster::one();
    let client = node.client(None).await;
    put(&client, &bytes(50, 1), "/d/f", &PutOptions::default())
        .await
        .unwrap();
    let options = GetOptions {
        range: Some((10, Some(51))),
        ..GetOptions::default()
    };
    let error = cat(&client, "/d/f", &options).await.unwrap_err();
    assert_eq!(error.code, Code::Usage);
    assert!(error.message.contains("50 bytes"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn broken_streams_are_sent_and_read_again() {
    let node = TestCluster::one();
    let client = node.client(None).await;
    let data = bytes(10 * CHUNK, 5);
    node.faults(|faults| faults.cut_streams = 4);
    put(&client, &data, "/d/f", &PutOptions::default())
        .await
        .unwrap();
    node.faults(|faults| {
        faults.cut_streams = 4;
        faults.flipped = 2;
    });
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("f");
    get(&client, "/d/f", &out).await.unwrap();
    assert_eq!(std::fs::read(&out).unwrap(), data);
}

#[tokio::test(start_paused = true)]
async fn bytes_that_never_match_are_not_given() {
    let node = TestCluster::one();
    let client = node.client(None).await;
    put(
        &client,
        &bytes(2 * CHUNK, 5),
        "/d/f",
        &PutOptions::default(),
    )
    .await
    .unwrap();
    node.faults(|faults| faults.flipped = u32::MAX);
    let dir = tempfile::tempdir().unwrap();
    let error = get(&client, "/d/f", &dir.path().join("f"))
        .await
        .unwrap_err();
    assert_eq!(error.code, Code::Corrupt);
    assert_eq!(error.path.as_deref(), Some("/d/f"));
    assert!(!dir.path().join("f").exists());
    assert!(cat(&client, "/d/f", &GetOptions::default()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn damage_found_in_the_middle_of_a_chunk_is_said_to_be_damage() {
    let node = TestCluster::of(1, 2 << 20);
    let client = node.client(None).await;
    let data = bytes(3 << 20, 5);
    let options = PutOptions::default();
    put(&client, &data, "/d/f", &options).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("f");
    node.faults(|faults| faults.damage_at = Some(1_500_000));
    let error = get(&client, "/d/f", &out).await.unwrap_err();
    assert_eq!(error.code, Code::Corrupt);
    node.faults(|faults| faults.damage_at = None);
    get(&client, "/d/f", &out).await.unwrap();
    assert_eq!(std::fs::read(&out).unwrap(), data);
}

#[tokio::test(start_paused = true)]
async fn unchanged_chunks_do_not_travel_again() {
    let node = TestCluster::one();
    let client = node.client(None).await;
    let mut data = bytes(100 * CHUNK, 5);
    put(&client, &data, "/d/f", &PutOptions::default())
        .await
        .unwrap();
    node.counts();
    data[(37 * CHUNK) as usize] ^= 1;
    let options = PutOptions {
        overwrite: Overwrite::Current,
        ..PutOptions::default()
    };
    let report = put(&client, &data, "/d/f", &options).await.unwrap();
    assert_eq!(
        (report.sent_bytes, report.reused_bytes),
        (CHUNK, 99 * CHUNK)
    );
    assert_eq!(node.counts().chunks_put, 1);
    assert_eq!(report.version, FileVersion(2));
    let old = GetOptions {
        version: Some(FileVersion(1)),
        ..GetOptions::default()
    };
    assert_eq!(
        cat(&client, "/d/f", &old).await.unwrap(),
        bytes(100 * CHUNK, 5)
    );
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_put_sends_only_what_is_missing() {
    let node = TestCluster::one();
    let dir = tempfile::tempdir().unwrap();
    let local = dir.path().join("local");
    let data = bytes(40 * CHUNK, 9);
    std::fs::write(&local, &data).unwrap();
    let state = dir.path().join("state");
    let options = PutOptions {
        window_bytes: 4 * CHUNK,
        ..PutOptions::default()
    };
    node.faults(|faults| faults.chunks_until_down = Some(20));
    let client = node.client(Some(state.clone())).await;
    let error = client
        .put_file(&local, path("/d/f"), &options, &NoProgress)
        .await;
    let error = error.unwrap_err();
    assert_eq!(error.code, Code::Unavailable);
    assert!(error.hint.unwrap().contains("same command again"));
    assert!(
        client
            .stat(path("/d/f"), ReadLevel::Linearizable)
            .await
            .is_err()
    );
    let first = node.counts().chunks_put;

    node.faults(|faults| faults.chunks_until_down = None);
    let client = node.client(Some(state.clone())).await;
    let told = Told::default();
    let report = client
        .put_file(&local, path("/d/f"), &options, &told)
        .await
        .unwrap();
    assert_eq!(first + node.counts().chunks_put, 40);
    assert_eq!(report.reused_bytes, u64::from(first) * CHUNK);
    assert_eq!(told.notes.lock().len(), 1);
    assert_eq!(
        cat(&client, "/d/f", &GetOptions::default()).await.unwrap(),
        data
    );
    let left = std::fs::read_dir(state.join("uploads")).unwrap();
    assert_eq!(left.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_get_fetches_only_what_is_missing() {
    let node = TestCluster::one();
    let client = node.client(None).await;
    let data = bytes(20 * CHUNK, 4);
    put(&client, &data, "/d/f", &PutOptions::default())
        .await
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("f");
    // One chunk is missing at the node for a while.
    let lost = ChunkHash::of(&data[(19 * CHUNK) as usize..]);
    let kept = node.state().chunks().remove(&lost).unwrap();
    assert!(get(&client, "/d/f", &out).await.is_err());
    assert!(!out.exists());
    node.state().chunks().insert(lost, kept);
    node.counts();
    let report = get(&client, "/d/f", &out).await.unwrap();
    assert!(report.kept_bytes > 0, "{report:?}");
    assert_eq!(
        u64::from(node.counts().chunks_got) * CHUNK,
        report.fetched_bytes
    );
    assert_eq!(std::fs::read(&out).unwrap(), data);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

/// What is left in `dir` of a get of the file of these bytes at `/d/f` that was interrupted.
async fn interrupt_get(node: &TestCluster, client: &Client, data: &[u8], dir: &Path) {
    let lost = ChunkHash::of(&data[data.len() - CHUNK as usize..]);
    let kept = node.state().chunks().remove(&lost).unwrap();
    assert!(get(client, "/d/f", &dir.join("f")).await.is_err());
    node.state().chunks().insert(lost, kept);
    assert_eq!(std::fs::read_dir(dir).unwrap().count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_part_of_an_interrupted_get_is_not_put_with_its_tree() {
    let node = TestCluster::one();
    let client = node.client(None).await;
    let data = bytes(20 * CHUNK, 4);
    let (options, told) = (PutOptions::default(), Told::default());
    put(&client, &data, "/d/f", &options).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    interrupt_get(&node, &client, &data, dir.path()).await;
    std::fs::write(dir.path().join(".mine.dfs-part"), "my own").unwrap();
    let report = client.put_tree(dir.path(), path("/d/t"), &options, &told);
    assert_eq!(report.await.unwrap().files, 1);
    assert_eq!(told.notes.lock().len(), 2);
    let mine = cat(&client, "/d/t/.mine.dfs-part", &GetOptions::default()).await;
    assert_eq!(mine.unwrap(), b"my own");
    get(&client, "/d/f", &dir.path().join("f")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_part_whose_content_is_gone_is_replaced_and_one_that_failed_for_good_removed() {
    let node = TestCluster::one();
    let client = node.client(None).await;
    let data = bytes(20 * CHUNK, 4);
    let options = PutOptions::default();
    put(&client, &data, "/d/f", &options).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    interrupt_get(&node, &client, &data, dir.path()).await;
    let newer = bytes(20 * CHUNK, 5);
    let overwrite = PutOptions {
        overwrite: Overwrite::Current,
        ..PutOptions::default()
    };
    put(&client, &newer, "/d/f", &overwrite).await.unwrap();
    let out = dir.path().join("f");
    let report = get(&client, "/d/f", &out).await.unwrap();
    assert_eq!(report.kept_bytes, 0);
    assert_eq!(std::fs::read(&out).unwrap(), newer);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);

    // A range cannot be continued.
    node.state().chunks().clear();
    let part = GetOptions {
        range: Some((1, None)),
        ..GetOptions::default()
    };
    let other = dir.path().join("g");
    let failed = client.get_file(path("/d/f"), &other, &part, &NoProgress);
    assert_eq!(failed.await.unwrap_err().code, Code::Corrupt);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_tree_with_names_like_parts_comes_whole() {
    let node = TestCluster::one();
    let client = node.client(None).await;
    let options = PutOptions::default();
    let dir = tempfile::tempdir().unwrap();
    let (source, back) = (dir.path().join("source"), dir.path().join("back"));
    std::fs::create_dir(&source).unwrap();
    // The others come to their end while it is under way.
    let names = [
        ("big", 200),
        (".big.dfs-part", 2),
        (".big.dfs-part.state", 3),
    ];
    for (name, chunks) in names {
        std::fs::write(source.join(name), bytes(chunks * CHUNK, chunks)).unwrap();
    }
    let put = client.put_tree(&source, path("/d/t"), &options, &NoProgress);
    put.await.unwrap();
    let options = GetOptions {
        force: true,
        ..GetOptions::default()
    };
    for _ in 0..2 {
        let got = client.get_tree(path("/d/t"), &back, &options, &NoProgress);
        assert_eq!(got.await.unwrap().failed, 0);
        let same = std::process::Command::new("diff")
            .arg("-r")
            .args([&source, &back])
            .status();
        assert!(same.unwrap().success());
    }
}

#[tokio::test(start_paused = true)]
async fn preconditions_protect_what_was_not_seen() {
    let node = TestCluster::one();
    let client = node.client(None).await;
    let with = |overwrite| PutOptions {
        overwrite,
        ..PutOptions::default()
    };
    for (to, size) in [("/d/small", 10), ("/d/large", 3 * CHUNK)] {
        let data = bytes(size, 1);
        put(&client, &data, to, &with(Overwrite::IfAbsent))
            .await
            .unwrap();
        let error = put(&client, &data, to, &with(Overwrite::IfAbsent))
            .await
            .unwrap_err();
        assert_eq!(error.code, Code::Exists);
        assert_eq!(error.path.as_deref(), Some(to));
        let second = put(&client, &data, to, &with(Overwrite::Current))
            .await
            .unwrap();
        assert_eq!(second.version, FileVersion(2));
        let stale = with(Overwrite::IfVersion(FileVersion(1)));
        let error = put(&client, &data, to, &stale).await.unwrap_err();
        assert_eq!(
            (error.code, error.current_version),
            (Code::Conflict, Some(2))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_put_that_is_refused_leaves_nothing_to_continue() {
    let node = TestCluster::one();
    let dir = tempfile::tempdir().unwrap();
    let (local, state) = (dir.path().join("local"), dir.path().join("state"));
    std::fs::write(&local, bytes(3 * CHUNK, 9)).unwrap();
    let client = node.client(Some(state.clone())).await;
    let options = PutOptions::default();
    for taken in [false, true] {
        let put = client.put_file(&local, path("/d/f"), &options, &NoProgress);
        assert_eq!(put.await.is_err(), taken);
        let left = std::fs::read_dir(state.join("uploads")).unwrap();
        assert_eq!(left.count(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_that_changes_while_it_is_put_is_not_stored() {
    let node = TestCluster::one();
    let client = node.client(None).await;
    let dir = tempfile::tempdir().unwrap();
    let local = dir.path().join("local");
    std::fs::write(&local, bytes(30 * CHUNK, 9)).unwrap();
    struct Touch(std::path::PathBuf);
    impl Progress for Touch {
        fn advance(&self, _: u64) {
            std::fs::write(&self.0, bytes(30 * CHUNK + 1, 8)).unwrap();
        }
    }
    let (options, touch) = (PutOptions::default(), Touch(local.clone()));
    let error = client
        .put_file(&local, path("/d/f"), &options, &touch)
        .await;
    let error = error.unwrap_err();
    assert_eq!(error.code, Code::Conflict);
    assert_eq!(error.path, Some(local.display().to_string()));
    assert!(
        client
            .stat(path("/d/f"), ReadLevel::Linearizable)
            .await
            .is_err()
    );
    // The reservation was given up: there is nothing to clean up later.
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

#[tokio::test(start_paused = true)]
async fn listings_are_paged_and_limited() {
    let node = TestCluster::one();
    let client = node.client(None).await;
    let ops = (0..30).map(|i| Op::Mkdir {
        path: path(&format!("/d/n{i:02}")).clone(),
        mode: 0o755,
        parents: false,
    });
    let (_, outcomes) = client
        .change_many(ops.collect(), &OpIds::Automatic)
        .await
        .unwrap();
    assert!(outcomes.iter().all(Result::is_ok));
    let all = client
        .list_all(path("/d"), ListOptions::default())
        .await
        .unwrap();
    assert_eq!((all.entries.len(), all.next), (30, None));
    let options = ListOptions {
        limit: Some(10),
        after: Some(Name::parse("n04").unwrap()),
        ..ListOptions::default()
    };
    let some = client.list_all(path("/d"), options).await.unwrap();
    assert_eq!(some.entries[0].0.as_str(), "n05");
    assert_eq!(some.next.unwrap().as_str(), "n14");
    let plain = ListOptions::default();
    let known = client.list_page(path("/d"), None, 0, Some(all.dir), &plain);
    assert_eq!(known.await.unwrap(), None);
    let removed = client.remove(
        path("/d/n03"),
        Removal::Tree,
        Precondition::Any,
        &OpIds::Automatic,
    );
    removed.await.unwrap();
    let missing = client
        .list_all(path("/d/n03"), ListOptions::default())
        .await;
    assert_eq!(missing.unwrap_err().code, Code::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_tree_goes_there_and_back_and_failures_do_not_stop_it() {
    let node = TestCluster::one();
    let client = node.client(None).await;
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    std::fs::create_dir_all(source.join("a/b/empty")).unwrap();
    for i in 0..700 {
        let at = ["", "a", "a/b"][i % 3];
        std::fs::write(
            source.join(at).join(format!("f{i}")),
            bytes(i as u64 % 90, 1),
        )
        .unwrap();
    }
    std::fs::write(source.join("a/large"), bytes(9 * CHUNK + 1, 2)).unwrap();
    std::os::unix::fs::symlink("f0", source.join("link")).unwrap();

    let told = Told::default();
    let options = PutOptions::default();
    let put = client
        .put_tree(&source, path("/d/t"), &options, &told)
        .await
        .unwrap();
    assert_eq!((put.dirs, put.files, put.failed), (4, 701, 1));
    assert_eq!(
        told.failed.lock()[0].path,
        Some(source.join("link").display().to_string())
    );
    let sums = *told.sums.lock();
    assert_eq!(
        (sums.0, sums.1),
        (701, sums.2),
        "everything announced was moved"
    );

    let back = dir.path().join("back");
    let told = Told::default();
    let options = GetOptions::default();
    let got = client
        .get_tree(path("/d/t"), &back, &options, &told)
        .await
        .unwrap();
    assert_eq!((got.dirs, got.files, got.failed), (4, 701, 0));
    assert_eq!(got.bytes, put.bytes);
    std::fs::remove_file(source.join("link")).unwrap();
    let same = std::process::Command::new("diff")
        .arg("-r")
        .args([&source, &back])
        .status();
    assert!(same.unwrap().success());

    // Again: nothing is overwritten, each file says so.
    let told = Told::default();
    let options = PutOptions::default();
    let again = client
        .put_tree(&source, path("/d/t"), &options, &told)
        .await
        .unwrap();
    assert_eq!((again.files, again.failed), (0, 701));
    assert!(
        told.failed
            .lock()
            .iter()
            .all(|error| error.code == Code::Exists)
    );
}
