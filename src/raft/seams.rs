//! What this layer asks of `node`: the replicated state of a group, and the way to other nodes.
//! Implemented by `node` over `shard`, `store` and `net`.

use crate::error::Result;
use crate::store::wal::LogPosition;
use crate::types::{GroupId, NodeId, ReplicaId};
use bytes::Bytes;
use futures::future::BoxFuture;
use std::any::Any;
use std::path::PathBuf;
use std::time::Duration;

/// What a state machine answers to one command; handed to the proposer as it is.
pub type Reply = Box<dyn Any + Send + Sync>;

/// An entry that a majority holds, to be applied.
pub struct Committed {
    pub position: LogPosition,
    pub what: CommittedWhat,
}

/// What a committed entry says.
pub enum CommittedWhat {
    /// A new leader's empty entry: only moves the applied position.
    Blank,
    Command(Bytes),
    /// The group's members from here on, encoded; stored with the applied position.
    Members(Bytes),
}

/// Applied position and the members it knows, as stored with a fold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppliedMark {
    /// Index 0: nothing at all, a replica that waits for an image.
    pub position: LogPosition,
    /// Encoded membership; empty if none is known.
    pub members: Bytes,
}

/// An image that was cut to be sent: the whole state, spooled to a file.
pub struct CutImage {
    /// The state is exactly as of here.
    pub mark: AppliedMark,
    pub file: PathBuf,
    /// Dropped when the image is not needed any more: lets the file go.
    pub keep: Box<dyn Any + Send + Sync>,
}

/// An image that came from another node, spooled to a file; not looked into yet.
pub struct ReceivedImage {
    pub file: PathBuf,
    /// Dropped when the image is not needed any more: lets the file go.
    pub keep: Box<dyn Any + Send + Sync>,
}

/// An image that was checked from front to end and lies where the state can be put on it in one
/// step.
pub struct StagedImage {
    /// What the image itself says it is as of.
    pub mark: AppliedMark,
    /// The state machine's own knowledge of where it lies.
    pub place: Box<dyn Any + Send>,
}

/// The replicated state of one group, implemented by `node` over `shard` and `store`.
pub trait StateMachine: Send + Sync + 'static {
    /// What is applied (in memory; the log makes it durable).
    fn applied(&self) -> AppliedMark;
    /// What the last synced fold holds: entries up to here may leave the log.
    fn folded(&self) -> AppliedMark;
    /// Applies entries in order and answers one reply for each. An error stops the replica.
    fn apply(&self, entries: Vec<Committed>) -> BoxFuture<'_, Result<Vec<Reply>>>;

    /// Spools the state as of now. Entries are applied meanwhile.
    fn cut_image(&self) -> BoxFuture<'_, Result<CutImage>>;
    /// The long part of taking an image: checks it and copies it to a place of its own. Entries
    /// are applied meanwhile; the replica's state is as before, also after a crash.
    ///
    /// # Errors
    /// `corrupt` for an image that is damaged or of another group; nothing is left of it then.
    fn stage_image(&self, image: ReceivedImage) -> BoxFuture<'_, Result<StagedImage>>;
    /// The short part: one synced step that makes a staged image the state. Durable when it
    /// returns; from then on `applied` and `folded` are the image's mark. Nothing is applied
    /// meanwhile. An error stops the replica: what its state is would not be known.
    fn install_image(&self, image: StagedImage) -> BoxFuture<'_, Result<AppliedMark>>;
    /// Lets a staged image go that is not needed after all.
    fn discard_image(&self, image: StagedImage) -> BoxFuture<'_, Result<()>>;
}

/// From which replica to which, and where that one lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where `to` lives.
    pub node: NodeId,
    pub group: GroupId,
    pub from: ReplicaId,
    pub to: ReplicaId,
}

/// Whether somebody waits for a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// To be sent at once: entries, votes, a reader's question to the quorum.
    Now,
    /// A sign of life that may wait a little for those of other groups to the same node. It must
    /// arrive, and its answer come back, well within the heartbeat interval.
    Heartbeat,
}

/// Carries encoded Raft messages to another node.
pub trait PeerTransport: Send + Sync + 'static {
    /// One message and its answer, that of `RaftGroup::receive`; both below a frame's size. Any
    /// error is taken as "not reachable": the caller tries again by itself, after a pause.
    fn call(
        &self,
        route: Route,
        urgency: Urgency,
        message: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<Bytes>>;

    /// A head and an image's file, and the answer, that of `RaftGroup::receive_image`; it comes
    /// when the image is installed there. How long is too long, and what counts as stalled, the
    /// transport decides; dropping the future gives up. Any error: the same again later, with an
    /// image cut anew.
    fn send_image<'a>(
        &'a self,
        route: Route,
        head: Bytes,
        image: &'a CutImage,
    ) -> BoxFuture<'a, Result<Bytes>>;
}
