//! What travels between a client and a node: one request frame, one reply frame, and for chunks
//! raw bytes behind or before them. Frames are `codec` bytes; every decoder is fuzzed.
//!
//! ```text
//! control:    C → N  frame(Call)                     N → C  frame(Answer)
//! put chunk:  C → N  frame(Call::PutChunk) raw bytes N → C  frame(Answer)
//! get chunk:  C → N  frame(Call::GetChunk)           N → C  frame(Answer::Chunk) raw bytes
//! ```
//! Raw bytes of a chunk are exactly as many as the frame announced.

mod admin;
mod call;
mod join;
mod peer;
mod view;

pub use admin::{
    AdminAnswer, AdminCall, FromAll, LocatedChunk, MemberView, PlanView, RepairView, RingView,
    ScrubView, ShareView, TokenRole, UserView,
};
pub use call::{Answer, Call, Ticket, TicketRight};
pub use join::{JoinAnswer, JoinRequest, JoinWhat, Joined, REQUEST_BYTES_MAX};
pub use peer::{
    Beat, BeatAnswer, CheckedChunks, CheckedRecords, ClusterView, GroupPlace, Life, LogEnd, Look,
    NodeInfo, NodeState, PeerAnswer, PeerCall, REMOVED, RaftMessage, ReplicaBeat, RingEpoch,
    RingMember,
};
pub use view::{
    ChunkLocation, DeletedView, DirView, EntryView, FileView, FsckReport, GroupView, NodeAddress,
    NodeView, Overview, Resolved, RingHealth, RouteView, StatusView, VersionView, WhoAmI,
};
