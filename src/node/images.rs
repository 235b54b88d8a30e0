//! Images of groups between nodes: spooled to a file, carried over a stream of bulk, spooled again,
//! handed to `raft`, which has it installed.
//!
use super::Node;
use super::core::SPOOL;
use super::peers::{Peers, odd};
use super::spool::SpoolFile;
use crate::codec;
use crate::env::{DiskFile, Env, OpenMode};
use crate::error::{Code, Error, Result};
use crate::limits::GIB;
use crate::net::Stream;
use crate::proto::{PeerAnswer, PeerCall};
use crate::raft::{ReceivedImage, Route};
use crate::types::{GroupId, ReplicaId};
use bytes::Bytes;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Bytes read, sent and written in one piece.
const PIECE_BYTES: usize = 512 << 10;
/// One piece may take so long on its way.
const STALL_MAX: Duration = Duration::from_secs(10);
/// A larger image is refused before a byte of it is taken.
const IMAGE_BYTES_MAX: u64 = 16_384 * GIB;
/// How long the receiver may take to write an image into its store, beyond a second for each
/// so many bytes.
const INSTALL_MAX: Duration = Duration::from_secs(60);
const INSTALL_BYTES_A_SECOND: u64 = 4 << 20;

/// Sends an image to a replica on another node, and returns its answer.
pub async fn send(
    env: &Env,
    peers: &Peers,
    route: Route,
    head: Bytes,
    path: &Path,
) -> Result<Bytes> {
    let failed = |e: std::io::Error| Error::io("read", path, &e);
    let file = env.disk.open(path, OpenMode::Read).await.map_err(failed)?;
    let len = file.len().await.map_err(failed)?;
    let mut stream = peers.open(route.node).await?;
    let call = PeerCall::Image {
        group: route.group,
        from: route.from,
        to: route.to,
        head,
        len,
    };
    within(STALL_MAX, stream.send_frame(&codec::encode(&call))).await?;
    let mut at = 0;
    while at < len {
        let piece = file.read_at(at, PIECE_BYTES).await.map_err(failed)?;
        if piece.is_empty() {
            return Err(Error::corrupt("the image ends early").at(path.display()));
        }
        at += piece.len() as u64;
        within(STALL_MAX, stream.send_bytes(piece)).await?;
    }
    let install = INSTALL_MAX + Duration::from_secs(len / INSTALL_BYTES_A_SECOND);
    let frame = within(install, stream.recv_frame()).await?;
    let frame = frame.ok_or_else(|| Error::unavailable("the node closed the stream"))?;
    match codec::decode(&frame)? {
        PeerAnswer::Image(answer) => Ok(answer),
        PeerAnswer::Failed(error) => Err(error),
        other => Err(odd(&other)),
    }
}

async fn within<T>(limit: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(limit, work).await {
        Ok(done) => done,
        Err(_) => Err(Error::unavailable(format!("no progress within {limit:?}"))),
    }
}

impl Node {
    /// Takes an image whose bytes follow, and has it installed.
    pub(super) async fn take_image(
        self: &Arc<Self>,
        (group, to): (GroupId, ReplicaId),
        head: Bytes,
        len: u64,
        stream: &mut Stream,
    ) -> Result<Bytes> {
        let raft = self.groups.raft(group).ok_or_else(|| {
            Error::not_found(format!("no replica {to} of group {group} on this node"))
        })?;
        let space = self.env.disk.space(&self.data).await;
        let available = space.map_or(0, |space| space.available);
        if len > IMAGE_BYTES_MAX || len.saturating_mul(2) > available {
            let why = format!("no space for an image of {len} bytes");
            return Err(Error::new(Code::NoSpace, why));
        }
        let spool = SpoolFile::new(&self.env, &self.data.join(SPOOL), group);
        let path = spool.path().to_owned();
        let failed = |e: std::io::Error| Error::io("write", &path, &e);
        let opened = self.env.disk.open(&path, OpenMode::CreateNew).await;
        let file = opened.map_err(failed)?;
        take(&*file, len, stream).await?;
        let received = ReceivedImage {
            file: path.clone(),
            keep: Box::new(spool),
        };
        raft.receive_image(head, received).await
    }
}

/// Writes exactly the bytes that were announced.
async fn take(file: &dyn DiskFile, len: u64, stream: &mut Stream) -> Result<()> {
    let mut at = 0;
    while at < len {
        let max = usize::try_from(len - at)
            .unwrap_or(PIECE_BYTES)
            .min(PIECE_BYTES);
        let Some(bytes) = within(STALL_MAX, stream.recv_bytes(max)).await? else {
            return Err(Error::unavailable("the image's bytes ended early"));
        };
        let count = bytes.len() as u64;
        let written = file.write_behind(at, vec![bytes]).await;
        written.map_err(|e| Error::failed(format!("an image cannot be written ({e})")))?;
        at += count;
    }
    Ok(())
}
