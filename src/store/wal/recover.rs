//! Opens a log: reads its segments, has `replay` rebuild the state, goes on in a new segment,
//! starts the writer. Called by `Wal::open`.

use super::begin::{CHECKPOINT_COPIES, Previous, begin_segment};
use super::format::{self, Marks, SegmentHeader};
use super::index::Place;
use super::replay::{Recovered, Replay, Replayed, SegmentInput};
use super::salt;
use super::segment::{self, Spare};
use super::state::{Group, Segment, State};
use super::writer::Writer;
use super::{Shared, UNKNOWN_GROUPS, WalOptions};
use crate::env::{DiskFile, Env, OpenMode};
use crate::error::{Error, Result};
use crate::store::renew::renew;
use crate::types::GroupId;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::{Notify, watch};

/// A segment that was opened.
struct Opened {
    number: u64,
    header: Option<SegmentHeader>,
    file: Arc<dyn DiskFile>,
    bytes: u64,
}

/// Opens or makes the log in `dir`.
pub(super) async fn open(env: Env, dir: &Path, options: WalOptions) -> Result<Arc<Shared>> {
    let made = |e: std::io::Error| Error::io("make the log's directory", dir, &e);
    env.disk.create_dir(dir).await.map_err(made)?;
    let segments = find(&env, dir).await?;
    let headers: Vec<_> = (segments.iter())
        .map(|this| (this.number, this.header.map(|header| header.salt)))
        .collect();
    let copy = salt::read(env.disk.as_ref(), dir).await?;
    let known = salt::judge(dir, &headers, copy)?;
    let salt = known.unwrap_or_else(|| env.rng.u64());
    let replayed = replay(dir, &segments, salt).await?;
    for note in &replayed.notes {
        tracing::warn!(log = %dir.display(), "{note}");
    }
    if let Some(last) = segments.last() {
        // From here on all that was read counts as synced.
        let failed = |e| Error::io("write again and sync", segment::path(dir, last.number), &e);
        let uncertain = replayed.certain..replayed.end;
        renew(last.file.as_ref(), uncertain).await.map_err(failed)?;
    }
    let disk = env.disk.clone();
    let shared = start(env, dir, options, salt, segments, replayed).await?;
    if copy.is_none() {
        // Behind the first segment: a copy without one says that they were lost.
        salt::write(disk.as_ref(), dir, salt).await?;
    }
    Ok(shared)
}

/// Opens all segments, in order, and removes leftover spare files.
async fn find(env: &Env, dir: &Path) -> Result<Vec<Opened>> {
    let listed = |e: std::io::Error| Error::io("list the log", dir, &e);
    let names = env.disk.list(dir).await.map_err(listed)?;
    for spare in names.iter().filter(|name| segment::is_spare(name)) {
        let removed = |e: std::io::Error| Error::io("remove", dir.join(spare), &e);
        env.disk.remove(&dir.join(spare)).await.map_err(removed)?;
    }
    let mut numbers: Vec<u64> = names
        .iter()
        .filter_map(|name| segment::number(name))
        .collect();
    numbers.sort_unstable();
    let mut found = Vec::with_capacity(numbers.len());
    for number in numbers {
        let path = segment::path(dir, number);
        let failed = |e: std::io::Error| Error::io("open", &path, &e);
        let file = env
            .disk
            .open(&path, OpenMode::Write)
            .await
            .map_err(failed)?;
        let bytes = file.len().await.map_err(failed)?;
        if bytes > u64::from(u32::MAX) {
            let what = format!("a log segment has {bytes} bytes (a segment is below 4 GiB)");
            return Err(Error::corrupt(what).at(path.display()));
        }
        let begin = file
            .read_at(0, format::RECORDS_AT as usize)
            .await
            .map_err(failed)?;
        let header = read_header(&path, number, &begin)?;
        found.push(Opened {
            number,
            header,
            file,
            bytes,
        });
    }
    Ok(found)
}

fn read_header(path: &Path, number: u64, begin: &[u8]) -> Result<Option<SegmentHeader>> {
    let header = SegmentHeader::decode(begin).map_err(|found| {
        let what = format!(
            "the log has format {found} (this build reads {})",
            format::FORMAT
        );
        Error::failed(what)
            .at(path.display())
            .hint("start a build that knows this format")
    })?;
    match header {
        Some(header) if header.number != number => {
            let what = format!(
                "this is segment {:016x} of the log (the file was renamed or copied)",
                header.number
            );
            Err(Error::corrupt(what)
                .at(path.display())
                .hint("put the log's directory back as it was"))
        }
        header => Ok(header),
    }
}

async fn replay(dir: &Path, segments: &[Opened], salt: u64) -> Result<Replayed> {
    let mut replay = Replay::default();
    for (at, this) in segments.iter().enumerate() {
        let next = segments.get(at + 1);
        if let Some(next) = next.filter(|next| this.number.checked_add(1) != Some(next.number)) {
            let what = format!("the segments from here to {:016x} are missing", next.number);
            replay.note(this.number, &what);
            replay.doubt_all(false);
        }
        let adjacent = next.filter(|next| this.number.checked_add(1) == Some(next.number));
        let end = adjacent
            .and_then(|next| next.header)
            .map(|header| header.previous_end);
        let declared = this.header.map_or(0, |header| header.bytes);
        // A length beyond 4 GiB cannot be right, whatever its checksum says.
        let whole = declared.min(u64::from(u32::MAX)).max(this.bytes);
        let path = segment::path(dir, this.number);
        let file = read_all(this)
            .await
            .map_err(|e| Error::io("read", path, &e))?;
        replay.segment(&SegmentInput {
            number: this.number,
            header: this.header,
            seed: format::seed(salt, this.number),
            file,
            limit: end.unwrap_or(whole),
            exact: end.is_some(),
            last: next.is_none(),
        });
        let short = match this.header {
            _ if end.is_some() => None,
            Some(_) => (this.bytes < declared).then_some("the file was cut"),
            None => Some("its header is damaged: nothing tells how long it should be"),
        };
        if let Some(what) = short {
            replay.note(this.number, what);
            replay.doubt_all(false);
        }
    }
    Ok(replay.finish())
}

/// A whole segment; the only time that one is in memory. Sectors that cannot be read count as
/// damaged: they come back as bytes that are no record.
async fn read_all(this: &Opened) -> std::io::Result<Bytes> {
    let len = usize::try_from(this.bytes).unwrap_or(usize::MAX);
    match this.file.read_at(0, len).await {
        Ok(bytes) => Ok(bytes),
        Err(_) => read_around(this, len).await,
    }
}

async fn read_around(this: &Opened, len: usize) -> std::io::Result<Bytes> {
    /// What stands for a sector that cannot be read: no zeros, so that it is not taken for
    /// unused space.
    const UNREADABLE: u8 = 0xff;
    const STEP: usize = 4_096;
    let mut out = Vec::with_capacity(len);
    let mut readable = false;
    while out.len() < len {
        let step = STEP.min(len - out.len());
        match this.file.read_at(out.len() as u64, step).await {
            Ok(bytes) if bytes.len() == step => {
                readable = true;
                out.extend_from_slice(&bytes);
            }
            Ok(_) => break,
            Err(error) if !readable && out.len() + step >= len => return Err(error),
            Err(_) => out.resize(out.len() + step, UNREADABLE),
        }
    }
    Ok(out.into())
}

async fn start(
    env: Env,
    dir: &Path,
    options: WalOptions,
    salt: u64,
    mut segments: Vec<Opened>,
    replayed: Replayed,
) -> Result<Arc<Shared>> {
    let sequence = replayed.next_batch.max(1);
    let previous = Previous {
        number: segments.last().map_or(0, |last| last.number),
        end: replayed.end,
        sequence,
        synced: sequence - 1,
    };
    let previous = match bare(&segments, &replayed) {
        Some(header) => {
            segments.pop();
            Previous {
                number: header.number - 1,
                end: header.previous_end,
                ..previous
            }
        }
        None => previous,
    };
    let durable: BTreeMap<GroupId, Marks> = replayed
        .groups
        .iter()
        .map(|(group, recovered)| (*group, recovered.marks.clone()))
        .collect();
    let state = state(&segments, replayed.groups);
    let shared = Arc::new(Shared {
        env: env.clone(),
        dir: dir.to_path_buf(),
        options,
        salt,
        state: Mutex::new(state),
        wake: Notify::new(),
        room: Notify::new(),
        rounds: watch::Sender::new(0),
        finished: watch::Sender::new(false),
        spare: Arc::new(Spare::default()),
        full: Default::default(),
    });
    let begun = |e: std::io::Error| Error::io("begin a log segment in", dir, &e);
    let active = begin_segment(&shared, &durable, &previous, 0)
        .await
        .map_err(begun)?;
    let mut writer = Writer {
        shared: shared.clone(),
        active,
        sequence: sequence + CHECKPOINT_COPIES,
        synced: sequence + CHECKPOINT_COPIES - 1,
        told: sequence + CHECKPOINT_COPIES - 1,
        durable,
        compact: false,
    };
    writer.free().await.map_err(begun)?;
    env.spawn.spawn("wal", Box::pin(writer.run()));
    Ok(shared)
}

/// The header of a last segment that a start has begun and nobody has written to. The new one takes
/// its number and, by the rename, its place: a start that fails later, again and again, must not fill
/// the disk. Before and after the rename there is one segment of this number, with a checkpoint that
/// says the same.
fn bare(segments: &[Opened], replayed: &Replayed) -> Option<SegmentHeader> {
    let header = segments.last()?.header?;
    (replayed.bare && header.number > 0).then_some(header)
}

/// What callers see, from what was recovered.
fn state(segments: &[Opened], groups: BTreeMap<GroupId, Recovered>) -> State {
    let mut state = State::default();
    for opened in segments {
        let segment = Segment {
            file: opened.file.clone(),
            bytes: opened.bytes,
            live: BTreeMap::new(),
        };
        state.segments.insert(opened.number, segment);
    }
    for (group, recovered) in groups {
        if group == UNKNOWN_GROUPS {
            state.unknown_doubt = recovered.marks.doubt;
            continue;
        }
        for (_, slot) in recovered.entries.iter() {
            if let Place::At { segment, .. } | Place::Lost { segment, .. } = slot.place {
                state.hold(group, segment, slot.length);
            }
        }
        let known = Group::recovered(recovered.entries, recovered.marks);
        state.groups.insert(group, known);
    }
    state
}
