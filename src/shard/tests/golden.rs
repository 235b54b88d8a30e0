//! Golden bytes of every stored record and of commands: a change of a stored layout shows here.

use crate::codec::golden;
use crate::error::{Code, Error};
use crate::shard::command::{Chore, Command, Done, Op, Proposal, Removal, Request};
use crate::shard::records::{
    Change, ChangeRow, ChunkRef, Deleted, DirRecord, Entry, Header, LaneRow, ManifestPage,
    OldVersion, Reference, Settings, Upload,
};
use crate::shard::{keys, records};
use crate::types::{
    ChunkHash, Content, ContentId, DfsPath, DirTotals, DirVersion, FileAttrs, FileVersion, GroupId,
    Inode, Lane, Name, OpSeq, Precondition, Replacement, Revision, SessionId, ShardTime, UploadId,
    WallTime,
};
use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use std::fmt::Debug;

fn golden_bytes(name: &str, bytes: &[u8]) {
    golden::bytes(&format!("shard-{name}"), bytes);
}

fn golden<T: Serialize + DeserializeOwned + PartialEq + Debug>(name: &str, value: &T) {
    golden::value(&format!("shard-{name}"), value);
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn path(text: &str) -> DfsPath {
    DfsPath::parse(text).unwrap()
}

fn settings() -> Settings {
    Settings {
        inline_bytes: 1,
        chunk_bytes: 2,
        keep_versions: 3,
        keep_for_ms: 4,
        grace_ms: 5,
        upload_ttl_ms: 6,
    }
}

fn attrs(content: Content) -> FileAttrs {
    FileAttrs {
        size: 300,
        version: FileVersion(2),
        created: WallTime(-5),
        modified: WallTime(1_700_000_000_000),
        owner: "ann".into(),
        group: "staff".into(),
        mode: 0o644,
        hash: ChunkHash([0xab; 32]),
        content,
    }
}

fn file() -> Entry {
    Entry::File {
        inode: Inode(7),
        born: Revision(8),
        attrs: attrs(Content::Chunks {
            id: ContentId(9),
            pages: 2,
            chunk_bytes: 1 << 24,
        }),
    }
}

fn done() -> Done {
    Done {
        revision: Revision(1),
        inode: Inode(2),
        version: FileVersion(3),
        parent: Inode(4),
        chunk_bytes: 5,
    }
}

#[test]
fn records_are_stored_as_they_were() {
    golden(
        "header",
        &Header {
            group: GroupId(1),
            state_machine: 1,
            root: Inode(1),
            time: ShardTime(1_000),
            revision: Revision(20),
            next_inode: Inode(30),
            end_inode: Inode(1 << 24),
            next_content: ContentId(40),
            lanes_horizon: ShardTime(50),
            lanes: 60,
            changes_trimmed: Revision(7),
            changes_bytes: 80,
            deletions: 90,
            contents: u64::MAX,
            cleanup_behind: (Inode(1), Revision(2)),
            uploads_behind: (Inode(3), UploadId([4; 16])),
            settings: settings(),
        },
    );
    golden(
        "dir",
        &DirRecord {
            born: Revision(1),
            snapshot: Revision(0),
            parent: Inode(1),
            name: Some(name("é")),
            owner: "root".into(),
            group: "root".into(),
            mode: 0o755,
            created: WallTime(1),
            modified: WallTime(2),
            version: DirVersion(3),
            totals: DirTotals {
                entries: 4,
                bytes: 5,
                mounts: 6,
            },
            sum: 1 << 63,
        },
    );
    golden(
        "old-version",
        &OldVersion {
            attrs: attrs(Content::Inline { id: ContentId(1) }),
            superseded: ShardTime(2),
            shared: true,
            dropping: false,
        },
    );
    golden(
        "manifest-page",
        &ManifestPage {
            chunks: vec![ChunkRef {
                hash: ChunkHash([1; 32]),
                len: 77,
            }],
        },
    );
    golden(
        "reference",
        &Reference {
            user: "ann".into(),
            len: 7,
        },
    );
    golden(
        "upload",
        &Upload {
            name: name("up"),
            inode: Inode(1),
            content: ContentId(2),
            precondition: Precondition::Version(FileVersion(3)),
            mode: 0o600,
            user: "ann".into(),
            chunk_bytes: 4,
            pages: 5,
            expires: ShardTime(6),
        },
    );
    let exactly = Precondition::Exactly {
        inode: Inode(300),
        version: FileVersion(3),
    };
    golden("precondition-exactly", &exactly);
    golden(
        "deleted",
        &Deleted {
            name: name("gone"),
            entry: file(),
            at: ShardTime(1),
            due: ShardTime(2),
            user: "ann".into(),
        },
    );
    golden(
        "lane",
        &LaneRow {
            seq: OpSeq(1),
            digest: 2,
            used: ShardTime(3),
            outcomes: vec![
                Ok(done()),
                Err(Error::new(Code::Exists, "taken").version(4).hint("other")),
            ],
            user: "ann".into(),
        },
    );
}

#[test]
fn entries_are_stored_as_they_were() {
    golden("entry-file", &file());
    golden(
        "entry-dir",
        &Entry::Dir {
            inode: Inode(1),
            born: Revision(2),
        },
    );
    golden(
        "entry-mount",
        &Entry::Mount {
            inode: Inode(1),
            born: Revision(2),
            shard: GroupId(3),
        },
    );
    let longest = Entry::File {
        inode: Inode(u64::MAX),
        born: Revision(u64::MAX),
        attrs: FileAttrs {
            size: u64::MAX,
            version: FileVersion(u64::MAX),
            created: WallTime(i64::MIN),
            modified: WallTime(i64::MIN),
            owner: "x".repeat(32),
            group: "x".repeat(32),
            mode: 0o7777,
            hash: ChunkHash([0; 32]),
            content: Content::Chunks {
                id: ContentId(u64::MAX),
                pages: u32::MAX,
                chunk_bytes: u64::MAX,
            },
        },
    };
    assert!(records::encode(&longest).len() < 512);
}

#[test]
fn change_rows_are_stored_as_they_were() {
    let changes = [
        Change::MadeDir {
            name: name("d"),
            inode: Inode(1),
        },
        Change::Wrote {
            name: name("f"),
            inode: Inode(1),
            version: FileVersion(2),
            size: 3,
        },
        Change::Removed {
            name: name("f"),
            inode: Inode(1),
        },
        Change::Renamed {
            from: name("f"),
            from_ancestors: vec![Inode(3), Inode(1)],
            to: name("g"),
            inode: Inode(4),
            replaced: Some(Inode(5)),
        },
        Change::Attributes {
            name: None,
            inode: Inode(1),
        },
        Change::Moved {
            inode: Inode(1),
            shard: GroupId(2),
        },
    ];
    let rows: Vec<ChangeRow> = changes
        .into_iter()
        .map(|change| ChangeRow {
            time: ShardTime(1),
            wall: WallTime(2),
            user: "ann".into(),
            change,
            ancestors: vec![Inode(2), Inode(1)],
        })
        .collect();
    golden("changes", &rows);
}

fn all_ops() -> Vec<Op> {
    let chunk = ChunkRef {
        hash: ChunkHash([2; 32]),
        len: 3,
    };
    let chunks = vec![chunk];
    let upload = UploadId([5; 16]);
    vec![
        Op::Mkdir {
            path: path("/a"),
            mode: 0o755,
            parents: true,
        },
        Op::Put {
            path: path("/f"),
            precondition: Precondition::Absent,
            mode: 0o644,
            hash: ChunkHash([1; 32]),
            data: Bytes::from_static(b"data"),
        },
        Op::Reserve {
            path: path("/f"),
            upload,
            precondition: Precondition::Any,
            mode: 0o644,
        },
        Op::Stage {
            parent: Inode(1),
            upload,
            page: 2,
            chunks: chunks.clone(),
        },
        Op::Commit {
            parent: Inode(1),
            upload,
            size: 2,
            hash: ChunkHash([3; 32]),
            tail: chunks,
        },
        Op::Abort {
            parent: Inode(1),
            upload,
        },
        Op::Remove {
            path: path("/f"),
            what: Removal::Tree,
            precondition: Precondition::Version(FileVersion(1)),
        },
        Op::Rename {
            from: path("/a"),
            to: path("/b"),
            replace: Replacement::Posix,
        },
        Op::Copy {
            from: path("/a"),
            version: Some(FileVersion(2)),
            to: path("/b"),
            precondition: Precondition::Absent,
        },
        Op::Restore {
            path: path("/f"),
            version: FileVersion(2),
        },
        Op::SetAttrs {
            path: path("/f"),
            mode: Some(0o600),
            owner: None,
            group: Some("staff".into()),
        },
        Op::Undelete { path: path("/f") },
        Op::Settings(settings()),
        Op::PutChunk {
            path: path("/f"),
            precondition: Precondition::Absent,
            mode: 0o644,
            chunk,
        },
    ]
}

#[test]
fn commands_are_logged_as_they_were() {
    golden(
        "command-propose",
        &Command::Propose(Proposal {
            time: ShardTime(1),
            wall: WallTime(2),
            requests: vec![Request {
                session: SessionId([1; 16]),
                lane: Lane(2),
                seq: OpSeq(3),
                met: ShardTime(4),
                user: "ann".into(),
                group: "staff".into(),
                held: None,
                ops: all_ops(),
            }],
            chores: vec![
                Chore::Cleanup {
                    records: 1,
                    now: true,
                },
                Chore::ExpireUploads { uploads: 2 },
                Chore::ExpireLanes { lanes: 3 },
                Chore::TrimChanges {
                    upto: Revision(4),
                    rows: 5,
                },
                Chore::ExpireVersions {
                    behind: Inode(6),
                    rows: 7,
                },
            ],
        }),
    );
    golden("command-state-machine", &Command::StateMachine(7));
    let digest = crate::shard::sessions::digest(&all_ops()).unwrap();
    golden_bytes("ops-digest", &digest.to_be_bytes());
}

#[test]
fn keys_are_laid_out_as_they_were() {
    let chunk = ChunkHash([0xcc; 32]);
    let keys = [
        keys::header(),
        keys::entry(Inode(1), &name("n")),
        keys::dir(Inode(1)),
        keys::inline(Inode(1), ContentId(2)),
        keys::version(Inode(1), FileVersion(2)),
        keys::manifest(Inode(1), ContentId(2), 3),
        keys::reference(&chunk, Inode(1), ContentId(2)),
        keys::upload(Inode(1), UploadId([2; 16])),
        keys::deleted(Inode(1), Revision(2)),
        keys::lane(SessionId([1; 16]), Lane(2)),
        keys::lane_by_age(3, SessionId([1; 16]), Lane(2)),
        keys::change(Revision(1)),
    ];
    let shown: Vec<Vec<u8>> = keys.iter().map(|key| key.to_vec()).collect();
    golden("keys", &shown);
}
