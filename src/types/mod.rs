//! The vocabulary: ids, names, paths, times, attributes. Values are valid by construction.
//! Used by everyone; uses only `error` and `limits`.

mod attrs;
mod credentials;
mod ids;
mod path;
mod subject;

pub use attrs::{Ack, Content, DirTotals, FileAttrs, Kind, Precondition, ReadLevel, Replacement};
pub use credentials::{CertificateFacts, Credentials, cluster_of};
pub use ids::{
    CaPin, ChunkHash, ClusterId, ContentId, DirVersion, Epoch, FileVersion, GroupId, Inode, Lane,
    LogIndex, Mac, NodeId, OpSeq, ReplicaId, Revision, SessionId, ShardTime, Slot, UploadId,
    WallTime,
};
pub use path::{DfsPath, Name};
pub use subject::{Subject, SubjectKind};
