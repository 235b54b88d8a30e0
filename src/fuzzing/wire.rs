//! What travels between processes: calls, answers, requests, messages of replicas.

use crate::codec;
use crate::error::{Code, Error};
use crate::proto::{
    AdminCall, Answer, Call, ChunkLocation, EntryView, FileView, FsckReport, NodeAddress, Resolved,
    RouteView, Ticket, TicketRight, TokenRole, VersionView, WhoAmI,
};
use crate::shard::command::{Done, Op, Removal, Request};
use crate::shard::records::{ChunkRef, Outcome};
use crate::types::{
    Ack, ChunkHash, ClusterId, Content, ContentId, DfsPath, DirVersion, FileAttrs, FileVersion,
    GroupId, Inode, Kind, Lane, Mac, Name, NodeId, OpSeq, Precondition, ReadLevel, Replacement,
    Revision, SessionId, ShardTime, UploadId, WallTime,
};
use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

/// What was decoded comes back from its own bytes.
pub(super) fn round_trip<T>(bytes: &[u8]) -> Option<T>
where
    T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let value: T = codec::decode(bytes).ok()?;
    let again: T = codec::decode(&codec::encode(&value)).expect("these are our own bytes");
    assert_eq!(again, value);
    Some(value)
}

pub(super) fn call(bytes: &[u8]) {
    match round_trip::<Call>(bytes) {
        Some(Call::Mutate { request: inner, .. }) => request(&inner),
        Some(Call::StatMany { paths, .. }) => {
            assert!(paths.len() <= crate::limits::STAT_PATHS_MAX);
        }
        _ => {}
    }
}

pub(super) fn answer(bytes: &[u8]) {
    match round_trip::<Answer>(bytes) {
        Some(Answer::Mutated { outcomes, .. } | Answer::OpStatus(Some(outcomes))) => {
            round_trip::<Vec<Outcome>>(&outcomes);
        }
        // A path of a peer's error reaches the screen: its text is never empty by itself.
        Some(Answer::Failed(error)) => drop(error.to_string()),
        _ => {}
    }
}

pub(super) fn request(bytes: &[u8]) {
    if let Some(request) = round_trip::<Request>(bytes) {
        assert!(request.ops.len() <= crate::limits::BATCH_ITEMS_MAX);
    }
}

pub(super) fn path(text: &str) -> DfsPath {
    DfsPath::parse(text).expect("a path written here")
}

pub(super) fn name(text: &str) -> Name {
    Name::parse(text).expect("a name written here")
}

pub(super) fn chunk(salt: u8) -> ChunkRef {
    ChunkRef {
        hash: ChunkHash([salt; 32]),
        len: 4_096,
    }
}

pub(super) fn put(at: &str, text: &str, precondition: Precondition) -> Op {
    let data = Bytes::copy_from_slice(text.as_bytes());
    Op::Put {
        path: path(at),
        precondition,
        mode: 0o644,
        hash: ChunkHash::of(&data),
        data,
    }
}

/// One of each operation, on the names that the states of `state` hold.
pub(super) fn ops() -> Vec<Op> {
    let upload = UploadId([3; 16]);
    let (root, absent) = (Inode::ROOT, Precondition::Absent);
    vec![
        Op::Mkdir {
            path: path("/d/e/f"),
            mode: 0o755,
            parents: true,
        },
        put("/d/new", "text", absent),
        put("/f", "over", Precondition::Version(FileVersion(1))),
        Op::Reserve {
            path: path("/u"),
            upload,
            precondition: absent,
            mode: 0o600,
        },
        Op::Stage {
            parent: root,
            upload,
            page: 0,
            chunks: vec![chunk(1)],
        },
        Op::Commit {
            parent: root,
            upload,
            size: 4_096,
            hash: ChunkHash([1; 32]),
            tail: vec![chunk(1)],
        },
        Op::Abort {
            parent: root,
            upload,
        },
        Op::PutChunk {
            path: path("/d/one"),
            precondition: absent,
            mode: 0o644,
            chunk: chunk(2),
        },
        Op::Remove {
            path: path("/f"),
            what: Removal::File,
            precondition: Precondition::Any,
        },
        Op::Remove {
            path: path("/d"),
            what: Removal::Tree,
            precondition: Precondition::Any,
        },
        Op::Rename {
            from: path("/f"),
            to: path("/d/g"),
            replace: Replacement::Posix,
        },
        Op::Rename {
            from: path("/d"),
            to: path("/x"),
            replace: Replacement::Never,
        },
        Op::Copy {
            from: path("/f"),
            version: None,
            to: path("/d/c"),
            precondition: absent,
        },
        Op::Restore {
            path: path("/f"),
            version: FileVersion(1),
        },
        Op::SetAttrs {
            path: path("/d"),
            mode: Some(0o700),
            owner: Some("bob".into()),
            group: Some("staff".into()),
        },
        Op::Undelete {
            path: path("/gone"),
        },
        Op::Settings(crate::shard::records::Settings::default()),
    ]
}

pub(super) fn request_of(seq: u64, ops: Vec<Op>) -> Request {
    Request {
        session: SessionId([7; 16]),
        lane: Lane(1),
        seq: OpSeq(seq),
        met: ShardTime(1),
        user: "ann".into(),
        group: "staff".into(),
        held: None,
        ops,
    }
}

fn address() -> NodeAddress {
    NodeAddress {
        node: NodeId(2),
        address: "127.0.0.1:7400".into(),
    }
}

fn ticket() -> Ticket {
    Ticket {
        right: TicketRight::Read {
            inode: Inode(5),
            content: ContentId(6),
        },
        user: "ann".into(),
        expires: ShardTime(9),
        key_epoch: 1,
        mac: Mac([4; 16]),
    }
}

pub(super) fn calls() -> Vec<Vec<u8>> {
    let level = ReadLevel::Linearizable;
    let (parent, upload, hash) = (Inode(1), UploadId([3; 16]), ChunkHash([8; 32]));
    let request = codec::encode(&request_of(1, ops())).into();
    let known = Some(DirVersion(3));
    let calls = [
        Call::Hello {
            version: "0.1.0".into(),
        },
        Call::Mutate {
            shard: 1,
            request,
            ack: Ack::Quorum,
        },
        Call::Stat {
            path: path("/d"),
            level,
        },
        Call::StatMany {
            paths: vec![path("/"), path("/a/b")],
            level: ReadLevel::Bounded(5),
        },
        Call::List {
            path: path("/"),
            after: Some(name("b")),
            limit: 10,
            attrs: true,
            known,
            level,
        },
        Call::Resolve {
            path: path("/f"),
            version: Some(FileVersion(2)),
            page: 1,
            pinned: Some((Inode(5), FileVersion(2))),
            level,
        },
        Call::Versions {
            path: path("/f"),
            level: ReadLevel::Stale,
        },
        Call::Deleted {
            path: path("/"),
            level,
        },
        Call::UploadTicket { parent, upload },
        Call::Known {
            parent,
            upload,
            hashes: vec![hash, hash],
        },
        Call::Pin {
            ticket: ticket(),
            hashes: vec![(hash, Mac([1; 16]))],
            ack: Ack::All,
        },
        Call::Stored {
            ticket: ticket(),
            hashes: vec![hash],
            ack: Ack::One,
        },
        Call::PutChunk {
            ticket: ticket(),
            hash,
            len: 5,
            ack: Ack::One,
        },
        Call::GetChunk {
            ticket: ticket(),
            hash,
            mac: Mac([1; 16]),
            offset: 1,
            len: 2,
        },
        Call::Status,
        Call::Fsck {
            path: path("/"),
            chunks: true,
        },
        Call::Gc { now: true },
        Call::OpStatus {
            session: SessionId([7; 16]),
            lane: 1,
            seq: 2,
        },
        Call::Metrics,
        Call::Owners { hashes: vec![hash] },
        Call::Admin(AdminCall::CreateToken {
            role: TokenRole::User {
                name: "ann".into(),
                group: "staff".into(),
                admin: false,
            },
            ttl_ms: 5,
        }),
        Call::Admin(AdminCall::Plan(vec![1, 2])),
    ];
    calls.iter().map(codec::encode).collect()
}

pub(super) fn attrs() -> FileAttrs {
    FileAttrs {
        size: 10,
        version: FileVersion(2),
        created: WallTime(1),
        modified: WallTime(2),
        owner: "ann".into(),
        group: "staff".into(),
        mode: 0o644,
        hash: ChunkHash([8; 32]),
        content: Content::Chunks {
            id: ContentId(6),
            pages: 1,
            chunk_bytes: 1 << 24,
        },
    }
}

pub(super) fn answers() -> Vec<Vec<u8>> {
    let error = || {
        Error::new(Code::Exists, "taken")
            .at("/f")
            .version(3)
            .hint("other")
    };
    let done = Done {
        revision: Revision(1),
        inode: Inode(2),
        version: FileVersion(3),
        parent: Inode(1),
        chunk_bytes: 0,
    };
    let outcomes: Vec<Outcome> = vec![Ok(done), Err(error())];
    let outcomes: Bytes = codec::encode(&outcomes).into();
    let file = || FileView {
        inode: Inode(5),
        attrs: attrs(),
    };
    let bare = EntryView::Bare {
        inode: Inode(7),
        kind: Kind::Dir,
    };
    let location = ChunkLocation {
        hash: ChunkHash([8; 32]),
        len: 10,
        mac: Mac([1; 16]),
        owners: vec![NodeId(1), NodeId(3)],
    };
    let route = RouteView {
        prefix: "/".into(),
        shard: GroupId(1),
        leader: Some(NodeId(1)),
        time: ShardTime(5),
    };
    let answers = [
        Answer::Failed(error().unknown_outcome()),
        Answer::Hello(WhoAmI {
            cluster: ClusterId([1; 16]),
            node: NodeId(1),
            user: "ann".into(),
            version: "0.1.0".into(),
            routes: vec![route],
            nodes: vec![address()],
            inline_bytes: 1,
            chunk_bytes: 2,
            grace_ms: 3,
        }),
        Answer::Mutated {
            outcomes: outcomes.clone(),
            time: ShardTime(9),
            tickets: vec![ticket()],
        },
        Answer::StatMany(vec![Ok(EntryView::File(file())), Err(error())]),
        Answer::List {
            dir: DirVersion(2),
            entries: vec![(name("a"), bare)],
            more: true,
        },
        Answer::Resolved(Resolved {
            file: file(),
            inline: Some(Bytes::from_static(b"x")),
            chunks: vec![location],
            ticket: Some(ticket()),
            nodes: vec![address()],
        }),
        Answer::Versions(vec![VersionView {
            attrs: attrs(),
            current: true,
        }]),
        Answer::Ticket(ticket()),
        Answer::Known(vec![None, Some(Mac([1; 16]))]),
        Answer::Pinned(vec![true, false]),
        Answer::Chunk { len: 5 },
        Answer::PutChunk { copies: 2 },
        Answer::Owners {
            owners: vec![vec![NodeId(1)], vec![]],
            nodes: vec![address()],
        },
        Answer::Fsck(FsckReport {
            problems: vec!["p".into()],
            ..FsckReport::default()
        }),
        Answer::OpStatus(Some(outcomes)),
        Answer::Metrics("m 1\n".into()),
    ];
    answers.iter().map(codec::encode).collect()
}

pub(super) fn requests() -> Vec<Vec<u8>> {
    ops()
        .into_iter()
        .map(|op| codec::encode(&request_of(1, vec![op])))
        .collect()
}

/// Written out as bytes: their types do not leave `raft`.
pub(super) fn raft_messages() -> Vec<Vec<u8>> {
    let append: &[u8] = &[
        1, 9, 1, 3, 0, 2, 1, 1, 1, 2, 1, 4, 1, 2, 1, 5, 4, 1, 1, 1, b'x', 1, 2, 1, 4,
    ];
    let vote: &[u8] = &[1, 9, 1, 3, 1, 2, 1, 0, 1, 2, 1, 4, 0];
    let members: &[u8] = &[
        1, 0, 1, 3, 2, 7, 2, 2, 1, 2, 2, 1, 3, 3, 1, 11, 2, 12, 3, 13,
    ];
    let entry: &[u8] = &[1, 2, 2, 2, 1, 2, 2, 1, 3, 3, 1, 11, 2, 12, 3, 13];
    [append, vote, members, entry, &[1, 3, 2, 1], &[1, 0, 0]]
        .map(<[u8]>::to_vec)
        .into()
}
