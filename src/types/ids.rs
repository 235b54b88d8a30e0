//! Newtypes for everything that is counted or named.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl $name {
            /// The number after this one; the ranges are wide enough never to run out.
            pub fn next(self) -> Self {
                Self(self.0.checked_add(1).expect("the range of this id cannot run out"))
            }
        }
    };
}

number! {
    /// A node, given by the root group when it joins, never used again. The first is 1.
    NodeId(u64)
}
number! {
    /// A Raft group. 0 is the root group, 1 the shard of `/`.
    GroupId(u64)
}
number! {
    /// One replica of one group: openraft's node id. Never used again within its group.
    ReplicaId(u64)
}
number! {
    /// Index of an entry in one group's log. 0 means none.
    LogIndex(u64)
}
number! {
    /// Where a replica's records live in this node's store. Local to the node, never travels.
    Slot(u32)
}
number! {
    /// A file or directory, for ever. 1 is `/`.
    Inode(u64)
}
number! {
    /// Version of a file's content; the first is 1.
    FileVersion(u64)
}
number! {
    /// One stored content of a file (inline data or manifest), given by the shard. Versions may
    /// share it (a restored version does). Unique within its inode.
    ContentId(u64)
}
number! {
    /// Grows with each change of a directory's own list of names. It is the shard's revision of
    /// that change, so that a directory made anew under a path does not begin where another was.
    DirVersion(u64)
}
number! {
    /// Counts a shard's changes; each change row has one. 0 is before the first.
    Revision(u64)
}
number! {
    /// Milliseconds counted by a shard's leaders; no wall clock. See `shard/mod.rs`.
    ShardTime(u64)
}
number! {
    /// Ring epoch, chain epoch.
    Epoch(u64)
}
number! {
    /// Sequence of a request within a lane of a session; the first is 1.
    OpSeq(u64)
}
number! {
    /// One request in flight of a session. Below `SESSION_LANES_MAX`.
    Lane(u16)
}
number! {
    /// Wall clock, milliseconds since 1970 UTC: shown to people, compared nowhere.
    WallTime(i64)
}

impl GroupId {
    pub const ROOT: GroupId = GroupId(0);
    /// The shard of `/`.
    pub const FIRST: GroupId = GroupId(1);
    /// Those that every cluster has.
    pub const ALWAYS: [GroupId; 2] = [GroupId::ROOT, GroupId::FIRST];
}

impl Inode {
    pub const ROOT: Inode = Inode(1);
}

impl ShardTime {
    /// Milliseconds from `earlier` to this, 0 if it is later.
    pub fn since(self, earlier: ShardTime) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    pub fn plus_ms(self, ms: u64) -> ShardTime {
        ShardTime(self.0.saturating_add(ms))
    }
}

macro_rules! bytes_id {
    ($(#[$doc:meta])* $name:ident($len:literal)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Reads the hexadecimal form that `Display` writes.
            pub fn parse(text: &str) -> Option<Self> {
                let mut out = [0u8; $len];
                if text.len() != 2 * $len || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                    return None;
                }
                for (byte, pair) in out.iter_mut().zip(text.as_bytes().chunks(2)) {
                    let pair = std::str::from_utf8(pair).ok()?;
                    *byte = u8::from_str_radix(pair, 16).ok()?;
                }
                Some(Self(out))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self}")
            }
        }
    };
}

bytes_id! {
    /// BLAKE3 of a chunk's bytes: its name and its proof.
    ChunkHash(32)
}
bytes_id! {
    /// A cluster, drawn at random at its first start.
    ClusterId(16)
}
bytes_id! {
    /// A client session, drawn at random by the client.
    SessionId(16)
}
bytes_id! {
    /// An upload: drawn at random by the client so that a retried reservation is the same one.
    UploadId(16)
}
bytes_id! {
    /// Keyed BLAKE3, truncated: what a ticket proves itself with.
    Mac(16)
}

bytes_id! {
    /// The beginning of the BLAKE3 of a CA's certificate: how one who has a token knows the
    /// cluster before he has its CA.
    CaPin(16)
}

impl CaPin {
    /// Of a CA's certificate: DER.
    pub fn of(ca: &[u8]) -> Self {
        let hash = blake3::hash(ca);
        CaPin(*hash.as_bytes().first_chunk().expect("a hash has 32 bytes"))
    }
}

impl ChunkHash {
    pub fn of(bytes: &[u8]) -> Self {
        ChunkHash(*blake3::hash(bytes).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_goes_both_ways() {
        let id = ClusterId([0xab; 16]);
        assert_eq!(ClusterId::parse(&id.to_string()), Some(id));
        assert_eq!(ClusterId::parse("xyz"), None);
        assert_eq!(ClusterId::parse(&"+a".repeat(16)), None);
        assert_eq!(ClusterId::parse(&"é".repeat(16)), None);
    }

    #[test]
    fn shard_time_never_runs_backwards() {
        assert_eq!(ShardTime(5).since(ShardTime(9)), 0);
    }
}
