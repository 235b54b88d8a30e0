//! What stands on a disk: log segments, packs, chunk files, images. Each input is put as a file
//! on a simulated disk and opened the way a node opens it.

use crate::env::sim::{self, SimHandles};
use crate::env::{Env, OpenMode};
use crate::store::chunks::{ChunkOptions, ChunkStore};
use crate::store::image::{self, ImageMeta, ImageReader};
use crate::store::overlay::{FoldOptions, MetaStore, ReplicaMark, ReplicaRecord};
use crate::store::wal::{LogEntry, LogPosition, Wal, WalOptions};
use crate::types::{ChunkHash, GroupId, LogIndex, ReplicaId, Slot};
use bytes::Bytes;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const DIR: &str = "/node";
const IMAGE: &str = "/node/image";
const PACK: &str = "/node/packs/0000000001.pack";
const SEGMENT_BYTES: usize = 8 << 10;
/// Entries read of one group.
const ENTRIES_MAX: u64 = 1_000;

/// Runs on a runtime of its own, without threads.
fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime without I/O")
        .block_on(work)
}

/// A machine with one file.
async fn machine(path: &Path, bytes: &[u8]) -> (Env, SimHandles) {
    let (env, handles) = sim::env(1);
    write(&env, path, bytes).await;
    (env, handles)
}

async fn write(env: &Env, path: &Path, bytes: &[u8]) {
    let dir = path.parent().expect("a file in a directory");
    env.disk.create_dir(dir).await.expect("a simulated disk");
    let file = env
        .disk
        .open(path, OpenMode::CreateNew)
        .await
        .expect("a new disk");
    let parts = vec![Bytes::copy_from_slice(bytes)];
    file.write_sync(0, parts).await.expect("a simulated disk");
    env.disk.sync_dir(dir).await.expect("a simulated disk");
}

fn sound(handles: &SimHandles) {
    assert_eq!(handles.spawn.panics(), Vec::<String>::new());
    handles.spawn.stop();
}

fn segment(number: u64) -> PathBuf {
    PathBuf::from(format!("{DIR}/log/{number:016x}.wal"))
}

fn wal_options() -> WalOptions {
    WalOptions {
        segment_bytes: SEGMENT_BYTES as u64,
        cache_bytes: 1 << 10,
        seal_after: Duration::from_millis(5),
        on_fatal: Arc::new(|what, error| panic!("{what}: {error}")),
        ..WalOptions::default()
    }
}

/// Opens a log of this one segment, as long as a segment is, and again what opening made of it:
/// doubt stays, and of groups without doubt the second time finds what the first one said.
pub(super) fn log_segment(bytes: &[u8]) {
    run(async {
        let mut bytes = bytes.to_vec();
        bytes.resize(bytes.len().max(SEGMENT_BYTES), 0);
        let (env, handles) = machine(&segment(1), &bytes).await;
        let dir = Path::new(DIR).join("log");
        let Ok(wal) = Wal::open_with(env, &dir, wal_options()).await else {
            return;
        };
        let (found, doubtful) = (entries(&wal).await, doubtful(&wal));
        wal.close().await;
        sound(&handles);
        let (env, handles) = sim::env_on(1, handles.disk.kill());
        let again = Wal::open_with(env, &dir, wal_options())
            .await
            .expect("it opened before");
        assert!(
            doubtful
                .iter()
                .all(|group| again.state(*group).doubtful_tail)
        );
        let sure = |found: Vec<(GroupId, LogEntry)>| -> Vec<_> {
            let known = |(group, _): &(GroupId, LogEntry)| !doubtful.contains(group);
            found.into_iter().filter(known).collect()
        };
        assert_eq!(sure(entries(&again).await), sure(found));
        again.close().await;
        sound(&handles);
    });
}

/// Groups that may have lost something nobody can tell.
fn doubtful(wal: &Wal) -> Vec<GroupId> {
    let groups = wal.groups().into_iter();
    groups
        .filter(|group| wal.state(*group).doubtful_tail)
        .collect()
}

/// Everything intact that a log holds.
async fn entries(wal: &Wal) -> Vec<(GroupId, LogEntry)> {
    let mut found = Vec::new();
    for group in wal.groups() {
        let state = wal.state(group);
        let first = state
            .purged
            .map_or(1, |purged| purged.index.0.saturating_add(1));
        let last = state.last.map_or(0, |last| last.index.0);
        for index in (first..=last).take(ENTRIES_MAX as usize) {
            let end = LogIndex(index.saturating_add(1));
            if let Ok(read) = wal.read(group, LogIndex(index), end, 1).await {
                found.extend(read.into_iter().map(|entry| (group, entry)));
            }
        }
    }
    found
}

pub(super) fn log_segments() -> Vec<Vec<u8>> {
    let at = |index| LogPosition {
        term: 1,
        leader: 7,
        index: LogIndex(index),
    };
    let entry = |index: u64| LogEntry {
        position: at(index),
        payload: Bytes::from(format!("entry {index}")),
    };
    run(async {
        let (env, handles) = sim::env(1);
        let dir = Path::new(DIR).join("log");
        let wal = Wal::open_with(env, &dir, wal_options())
            .await
            .expect("a new log");
        let group = GroupId(1);
        wal.save_vote(group, Bytes::from_static(b"vote"))
            .await
            .expect("a simulated disk");
        let append = wal.append(group, (1..=3).map(entry).collect(), Box::new(drop));
        append.expect("in order");
        wal.truncate_after(group, Some(at(2)))
            .await
            .expect("it is there");
        wal.purge(group, at(1)).await.expect("it is there");
        wal.append(GroupId(2), vec![entry(1)], Box::new(drop))
            .expect("in order");
        wal.save_vote(GroupId(2), Bytes::from_static(b"v"))
            .await
            .expect("a simulated disk");
        let torn = handles.disk.contents(&segment(1));
        // The writer says what is synced once it has been idle.
        let whole = |bytes: &Option<Bytes>| bytes.as_ref().map(|bytes| bytes.to_vec());
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_millis(5)).await;
            if whole(&handles.disk.contents(&segment(1))) != whole(&torn) {
                break;
            }
        }
        let sealed = handles.disk.contents(&segment(1));
        let cut = |bytes: Option<Bytes>| {
            let bytes = bytes.expect("the log has a segment");
            let end = bytes
                .iter()
                .rposition(|byte| *byte != 0)
                .map_or(0, |at| at + 1);
            bytes[..end.next_multiple_of(512)].to_vec()
        };
        vec![cut(torn), cut(sealed)]
    })
}

/// Limits so small that every path is short.
fn chunk_options() -> ChunkOptions {
    ChunkOptions {
        pack_chunk_bytes_max: 2_048,
        chunk_bytes_max: 64 << 10,
        pack_bytes_max: 6 << 10,
        pack_records_max: 12,
        group_bytes: 1_024,
        slice_bytes: 4_096,
        queued_bytes_max: 16 << 10,
        index_changes_max: 16,
        compact_in_background: false,
        on_fatal: Arc::new(|what, error| panic!("{what}: {error}")),
        ..ChunkOptions::default()
    }
}

async fn chunk_store(env: Env, handles: &SimHandles) -> Option<Arc<ChunkStore>> {
    let base = handles.base(&Path::new(DIR).join("index"));
    ChunkStore::open_with(env, Path::new(DIR), base, chunk_options())
        .await
        .ok()
}

/// Gives what begins like one of our headers a checksum that fits, so that inputs get behind it.
fn with_checksums(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for header in bytes.chunks_exact_mut(64) {
        if header.starts_with(b"\x89dfs") {
            let sum = crc32c::crc32c(&header[..60]);
            header[60..].copy_from_slice(&sum.to_le_bytes());
        }
    }
    bytes
}

/// Opens a store, reads all chunks (whatever is given has its hash), checks it, and puts one
/// more.
async fn use_chunks(env: Env, handles: &SimHandles) {
    let Some(store) = chunk_store(env, handles).await else {
        return;
    };
    let listed = store
        .list(ChunkHash([0; 32]), None, 1_000)
        .await
        .unwrap_or_default();
    for (hash, len) in listed {
        if let Ok(bytes) = store.read(hash, 0, len).await {
            assert_eq!(
                ChunkHash::of(&bytes),
                hash,
                "bytes that are not the chunk's"
            );
        }
    }
    let _ = store.check_from(ChunkHash([0; 32]), u64::MAX).await;
    let more = Bytes::from_static(b"one more");
    let mut writer = store
        .begin(ChunkHash::of(&more), 8)
        .await
        .expect("there is room");
    writer.write(more.clone()).await.expect("as announced");
    writer.finish().await.expect("a sound disk");
    let read = store
        .read(ChunkHash::of(&more), 0, 8)
        .await
        .expect("just put");
    assert_eq!(read, more);
    drop(store);
    sound(handles);
}

/// A pack; the first byte says whether checksums are made to fit.
pub(super) fn pack(bytes: &[u8]) {
    let Some((fit, bytes)) = bytes.split_first() else {
        return;
    };
    let bytes = if fit & 1 == 1 {
        with_checksums(bytes)
    } else {
        bytes.to_vec()
    };
    run(async {
        let (env, handles) = machine(Path::new(PACK), &bytes).await;
        use_chunks(env, &handles).await;
    });
}

/// A file of one chunk under the name that its footer gives it; the first byte as for a pack.
pub(super) fn chunk_file(bytes: &[u8]) {
    let Some((fit, bytes)) = bytes.split_first() else {
        return;
    };
    let bytes = if fit & 1 == 1 {
        with_checksums(bytes)
    } else {
        bytes.to_vec()
    };
    let mut hash = ChunkHash([0; 32]);
    if let Some(at) = bytes.len().checked_sub(64 - 24)
        && let Some(named) = bytes.get(at..at + 32)
    {
        hash.0.copy_from_slice(named);
    }
    let text = hash.to_string();
    run(async {
        let path = Path::new(DIR)
            .join("chunks")
            .join(&text[..2])
            .join(&text[2..]);
        let (env, handles) = machine(&path, &bytes).await;
        use_chunks(env, &handles).await;
    });
}

/// The files of a store with two small chunks, one removed again, and a large one.
async fn stored(path: impl Fn(ChunkHash) -> PathBuf) -> Vec<u8> {
    let (env, handles) = sim::env(1);
    let store = chunk_store(env, &handles).await.expect("a new store");
    let mut large = ChunkHash([0; 32]);
    for (salt, len) in [(1u8, 70usize), (2, 5), (3, 2_100)] {
        let data = Bytes::from(vec![salt; len]);
        let hash = ChunkHash::of(&data);
        let mut writer = store.begin(hash, len as u64).await.expect("there is room");
        writer.write(data.clone()).await.expect("as announced");
        writer.finish().await.expect("a sound disk");
        if salt == 2 {
            store.remove(hash).await.expect("a sound disk");
        }
        large = hash;
    }
    let bytes = handles.disk.contents(&path(large)).expect("it was written");
    [&[1][..], &bytes].concat()
}

pub(super) fn packs() -> Vec<Vec<u8>> {
    let whole = run(stored(|_| PathBuf::from(PACK)));
    let plain = [&[0][..], &whole[1..]].concat();
    vec![whole, plain]
}

pub(super) fn chunk_files() -> Vec<Vec<u8>> {
    vec![run(stored(|hash| {
        let text = hash.to_string();
        Path::new(DIR)
            .join("chunks")
            .join(&text[..2])
            .join(&text[2..])
    }))]
}

/// Reads an image to its end.
pub(super) fn image(bytes: &[u8]) {
    run(async {
        let (env, _handles) = machine(Path::new(IMAGE), bytes).await;
        let Ok(mut reader) = ImageReader::open(&*env.disk, Path::new(IMAGE)).await else {
            return;
        };
        while let Ok(Some(records)) = reader.next().await {
            assert!(records.iter().all(|(key, _)| !key.is_empty()));
        }
    });
}

pub(super) fn images() -> Vec<Vec<u8>> {
    run(async {
        let (env, handles) = sim::env(1);
        env.disk
            .create_dir(Path::new(DIR))
            .await
            .expect("a simulated disk");
        let base = handles.base(&Path::new(DIR).join("meta"));
        let store = MetaStore::open(base, FoldOptions::default()).expect("an empty base");
        let position = LogPosition {
            term: 1,
            leader: 1,
            index: LogIndex(5),
        };
        let mark = ReplicaMark {
            position,
            members: Bytes::from_static(b"m"),
        };
        let (group, slot) = (GroupId(1), Slot(1));
        let replica = ReplicaRecord {
            group,
            replica: ReplicaId(1),
            slot,
            mark: mark.clone(),
        };
        store.add_replica(replica, Vec::new());
        let record =
            |key: &'static [u8]| (Bytes::from_static(key), Some(Bytes::from_static(b"value")));
        let changes = vec![record(b"a"), record(b"b")];
        let published = store.publish((group, ReplicaId(1)), mark.clone(), changes);
        published.expect("the replica is there");
        let view = store.view(slot).expect("a sound base");
        let path = Path::new(IMAGE);
        image::cut(&env, view, &ImageMeta { group, mark }, path)
            .await
            .expect("a sound disk");
        vec![handles.disk.contents(path).expect("just written").to_vec()]
    })
}
