//! The vocabulary: ids, names, paths, times, attributes. Values are valid by construction.
//! Used by everyone; uses only `error` and `limits`.

mod attrs;
mod ids;
mod path;

pub use attrs::{Content, DirTotals, FileAttrs, Kind, Precondition, ReadLevel, Replacement};
pub use ids::{
    ChunkHash, ClusterId, ContentId, DirVersion, Epoch, FileVersion, GroupId, Inode, Lane,
    LogIndex, Mac, NodeId, OpSeq, ReplicaId, Revision, SessionId, ShardTime, Slot, UploadId,
    WallTime,
};
pub use path::{DfsPath, Name};
