//! Images: the whole state of one replica as a file, to fill another replica with. Cut by the
//! sender from a view, spooled to its disk, carried by `node`, installed by `overlay` into a
//! fresh slot of the receiver. An image holds no slot numbers.
//!
//! ```text
//! file     := head frame* tail
//! head     := "dfsimage" format u8 (1) len u32 meta checksum u64
//! frame    := len u32 (> 0) record* checksum u64          one frame is at most 1 MiB and a record
//! record   := key_len u16 value_len u32 key value
//! tail     := 0 u32 frames u64 records u64 chain u64
//! ```
//! Numbers are little-endian; `meta` is an encoded [`ImageMeta`]. Each checksum is XXH3-64 of
//! what it stands behind, seeded with the checksum before it (the head's with 0); `chain` is the
//! last one. So frames cannot be left out, doubled or exchanged unseen.

use crate::codec;
use crate::env::{Disk, DiskFile, Env, OpenMode};
use crate::error::{Code, Error, Result};
use crate::limits::MIB;
use crate::store::SlotRead;
use crate::store::overlay::{ReplicaMark, View};
use crate::store::reserve::LOW_SPACE_BYTES;
use crate::types::GroupId;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64_with_seed;

const MAGIC: &[u8; 8] = b"dfsimage";
const FORMAT: u8 = 1;
/// A frame is closed once it has this many bytes.
const FRAME_BYTES: usize = 1 << 20;
/// Longest frame: a full one and one record (inline data or a manifest page are the largest).
const FRAME_BYTES_MAX: usize = FRAME_BYTES + (4 << 20);
/// The free space is looked at each time so much was written.
const SPACE_LOOK_BYTES: u64 = 64 * MIB;
const META_BYTES_MAX: usize = 1 << 20;
const TAIL_BYTES: usize = 4 + 8 + 8 + 8;

/// Whose state an image is, and as of where. It is that of the view it was cut from, whatever the
/// state is by the time it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageMeta {
    pub group: GroupId,
    pub mark: ReplicaMark,
}

/// What a whole image held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImageSize {
    pub frames: u64,
    pub records: u64,
    pub bytes: u64,
}

/// Writes a view to a new file, synced. `view` must be as of `meta.mark`. Leaves the disk with the
/// space that the node itself needs.
///
/// # Errors
/// `corrupt` when a record of the view is damaged; `no_space`; I/O errors with the path. What was
/// written is the caller's to remove.
pub async fn cut(env: &Env, view: View, meta: &ImageMeta, path: &Path) -> Result<ImageSize> {
    let io = |verb: &'static str| move |e: std::io::Error| Error::io(verb, path, &e);
    let file = env
        .disk
        .open(path, OpenMode::CreateNew)
        .await
        .map_err(io("create"))?;
    let encoded = codec::encode(meta);
    let mut head = BytesMut::new();
    head.put_slice(MAGIC);
    head.put_u8(FORMAT);
    head.put_u32_le(u32::try_from(encoded.len()).expect("a mark is small"));
    head.put_slice(&encoded);
    let mut chain = seal(&mut head, 0);
    let mut looked_at = 0;
    let mut size = ImageSize {
        bytes: head.len() as u64,
        ..ImageSize::default()
    };
    file.write_at(0, vec![head.freeze()])
        .await
        .map_err(io("write"))?;

    let (mut view, mut from) = (view, Vec::new());
    loop {
        let (back, frame) = env
            .run_blocking(move || {
                let frame = next_frame(&view, &from);
                (view, frame)
            })
            .await;
        let Some(Frame {
            mut body,
            records,
            behind,
        }) = frame?
        else {
            break;
        };
        (view, from) = (back, behind);
        if looked_at != size.bytes / SPACE_LOOK_BYTES {
            looked_at = size.bytes / SPACE_LOOK_BYTES;
            must_leave_space(env, path).await?;
        }
        let mut bytes = BytesMut::with_capacity(body.len() + 12);
        bytes.put_u32_le(u32::try_from(body.len()).expect("a frame is bounded"));
        bytes.unsplit(body.split());
        chain = seal(&mut bytes, chain);
        (size.frames, size.records) = (size.frames + 1, size.records + records);
        let len = bytes.len() as u64;
        file.write_at(size.bytes, vec![bytes.freeze()])
            .await
            .map_err(io("write"))?;
        size.bytes += len;
    }
    let mut tail = BytesMut::with_capacity(TAIL_BYTES);
    tail.put_u32_le(0);
    tail.put_u64_le(size.frames);
    tail.put_u64_le(size.records);
    tail.put_u64_le(chain);
    file.write_sync(size.bytes, vec![tail.freeze()])
        .await
        .map_err(io("write"))?;
    size.bytes += TAIL_BYTES as u64;
    Ok(size)
}

async fn must_leave_space(env: &Env, path: &Path) -> Result<()> {
    let space = env.disk.space(path.parent().unwrap_or(path)).await;
    let available = space.map_or(0, |space| space.available);
    if available >= LOW_SPACE_BYTES + SPACE_LOOK_BYTES {
        return Ok(());
    }
    let why = format!(
        "no space for an image of the group ({} MiB are left)",
        available / MIB
    );
    Err(Error::new(Code::NoSpace, why).at(path.display()))
}

/// Appends the checksum of everything in `bytes` and returns it.
fn seal(bytes: &mut BytesMut, chain: u64) -> u64 {
    let sum = xxh3_64_with_seed(bytes, chain);
    bytes.put_u64_le(sum);
    sum
}

struct Frame {
    body: BytesMut,
    records: u64,
    /// The first key that the next frame may have.
    behind: Vec<u8>,
}

fn next_frame(view: &View, from: &[u8]) -> Result<Option<Frame>> {
    let mut frame = Frame {
        body: BytesMut::new(),
        records: 0,
        behind: Vec::new(),
    };
    view.scan(from, None, &mut |key, value| {
        frame
            .body
            .put_u16_le(u16::try_from(key.len()).expect("keys are short"));
        frame
            .body
            .put_u32_le(u32::try_from(value.len()).expect("records are bounded"));
        frame.body.put_slice(key);
        frame.body.put_slice(value);
        frame.records += 1;
        if frame.body.len() < FRAME_BYTES {
            return Ok(true);
        }
        frame.behind = [key, &[0]].concat();
        Ok(false)
    })?;
    if frame.records > 0 && frame.behind.is_empty() {
        // The slot's end was reached; nothing is behind a key of all ones.
        frame.behind = vec![0xff; 512];
    }
    Ok((frame.records > 0).then_some(frame))
}

/// Reads an image file from front to end, checking as it goes.
pub struct ImageReader {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    at: u64,
    chain: u64,
    size: ImageSize,
    pub meta: ImageMeta,
}

/// A record of an image.
pub type ImageRecord = (Bytes, Bytes);

impl ImageReader {
    /// # Errors
    /// `corrupt` when the head is not one, naming the file.
    pub async fn open(disk: &dyn Disk, path: &Path) -> Result<ImageReader> {
        let io = |e: std::io::Error| Error::io("open", path, &e);
        let file = disk.open(path, OpenMode::Read).await.map_err(io)?;
        let fixed = MAGIC.len() + 1 + 4;
        let head = read(&*file, path, 0, fixed).await?;
        let (magic, mut rest) = head.split_at(MAGIC.len());
        let (format, len) = (rest.get_u8(), rest.get_u32_le() as usize);
        if magic != MAGIC || len > META_BYTES_MAX {
            return Err(damaged(path, 0, "it is no image"));
        }
        if format != FORMAT {
            let why = format!("format {format}, this build reads {FORMAT}");
            return Err(damaged(path, 8, &why).hint("use a build that knows this format"));
        }
        let whole = read(&*file, path, 0, fixed + len + 8).await?;
        let chain = check(path, 0, &whole, 0)?;
        let meta = codec::decode(&whole[fixed..fixed + len])?;
        let (at, size) = (whole.len() as u64, ImageSize::default());
        Ok(ImageReader {
            file,
            path: path.to_owned(),
            at,
            chain,
            size,
            meta,
        })
    }

    /// The next records, in key order; `None` at the end, which was checked too.
    pub async fn next(&mut self) -> Result<Option<Vec<ImageRecord>>> {
        let len = read(&*self.file, &self.path, self.at, 4)
            .await?
            .get_u32_le() as usize;
        if len == 0 {
            let mut tail = read(&*self.file, &self.path, self.at + 4, TAIL_BYTES - 4).await?;
            let told = (tail.get_u64_le(), tail.get_u64_le(), tail.get_u64_le());
            if told != (self.size.frames, self.size.records, self.chain) {
                return Err(damaged(&self.path, self.at, "frames are missing"));
            }
            return Ok(None);
        }
        if len > FRAME_BYTES_MAX {
            return Err(damaged(&self.path, self.at, "a frame is too long"));
        }
        let frame = read(&*self.file, &self.path, self.at, 4 + len + 8).await?;
        self.chain = check(&self.path, self.at, &frame, self.chain)?;
        let records = records(frame.slice(4..4 + len))
            .ok_or_else(|| damaged(&self.path, self.at, "a frame is malformed"))?;
        self.size.frames += 1;
        self.size.records += records.len() as u64;
        self.at += frame.len() as u64;
        Ok(Some(records))
    }
}

/// Splits a frame's body; `None` when it does not fit.
fn records(mut body: Bytes) -> Option<Vec<ImageRecord>> {
    let mut found = Vec::new();
    while !body.is_empty() {
        if body.len() < 6 {
            return None;
        }
        let (key, value) = (body.get_u16_le() as usize, body.get_u32_le() as usize);
        if key == 0 || body.len() < key.checked_add(value)? {
            return None;
        }
        found.push((body.split_to(key), body.split_to(value)));
    }
    Some(found)
}

/// Checks the checksum at the end of `bytes` and returns it.
fn check(path: &Path, at: u64, bytes: &[u8], chain: u64) -> Result<u64> {
    let (body, sum) = bytes.split_at(bytes.len() - 8);
    let expected = xxh3_64_with_seed(body, chain);
    if sum != expected.to_le_bytes() {
        return Err(damaged(path, at, "checksum"));
    }
    Ok(expected)
}

async fn read(file: &dyn DiskFile, path: &Path, at: u64, len: usize) -> Result<Bytes> {
    let bytes = file
        .read_at(at, len)
        .await
        .map_err(|e| Error::io("read", path, &e))?;
    if bytes.len() < len {
        return Err(damaged(path, at, "it ends early"));
    }
    Ok(bytes)
}

fn damaged(path: &Path, at: u64, why: &str) -> Error {
    Error::corrupt(format!("the image is damaged at byte {at} ({why})"))
        .at(path.display())
        .hint("have it sent again")
}
