//! What changes and answers from replicated state: commands of a shard and of the root group,
//! and records as they are stored.

use super::wire::{attrs, chunk, name, ops, path, put, request_of, round_trip};
use crate::codec;
use crate::error::Result;
use crate::proto::{Life, NodeInfo, NodeState};
use crate::root::{self, Role, RootCommand, RootEntry, TicketKey};
use crate::shard::command::{Chore, Command, Op, Proposal, Removal, Request};
use crate::shard::records::{
    Change, ChangeRow, Deleted, DirRecord, Entry, Header, LaneRow, ManifestPage, OldVersion,
    Reference, Settings, Upload,
};
use crate::shard::{self, keys, read};
use crate::store::overlay::ReplicaRecord;
use crate::store::{self, SlotRead, VisitRecord, record};
use crate::types::{
    ClusterId, DfsPath, Epoch, GroupId, Inode, Lane, NodeId, Precondition, Revision, SessionId,
    ShardTime, UploadId, WallTime,
};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::OnceLock;

/// Changes of a state at most; an input has few kilobytes.
const CHANGES_MAX: usize = 64;
/// Commands of one input.
const COMMANDS_MAX: usize = 64;

/// A slot in memory.
#[derive(Clone, Default)]
struct Slot(BTreeMap<Bytes, Bytes>);

impl Slot {
    fn write(&mut self, changes: Vec<store::Change>) {
        for (key, value) in changes {
            match value {
                Some(value) => self.0.insert(key, value),
                None => self.0.remove(&key),
            };
        }
    }
}

impl SlotRead for Slot {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.0.get(key).cloned())
    }

    fn scan(&self, from: &[u8], to: Option<&[u8]>, visit: &mut VisitRecord<'_>) -> Result<()> {
        if to.is_some_and(|to| from >= to) {
            return Ok(());
        }
        let to = to.map_or(Bound::Unbounded, Bound::Excluded);
        for (key, value) in self.0.range::<[u8], _>((Bound::Included(from), to)) {
            if !visit(key, value)? {
                break;
            }
        }
        Ok(())
    }
}

fn proposal(time: u64, requests: Vec<Request>, chores: Vec<Chore>) -> Command {
    Command::Propose(Proposal {
        time: ShardTime(time),
        wall: WallTime(5),
        requests,
        chores,
    })
}

/// A shard with a file of two versions, a directory with a file, one that was removed, an open
/// upload and a file in chunks.
fn seeded() -> &'static Slot {
    static SEEDED: OnceLock<Slot> = OnceLock::new();
    SEEDED.get_or_init(|| {
        let settings = Settings {
            chunk_bytes: 4_096,
            ..Settings::default()
        };
        let mut slot = Slot::default();
        slot.write(shard::seed(
            GroupId::FIRST,
            "root",
            "root",
            settings,
            WallTime(1),
        ));
        let upload = UploadId([9; 16]);
        let absent = Precondition::Absent;
        let reserve = |at: &str, upload| Op::Reserve {
            path: path(at),
            upload,
            precondition: absent,
            mode: 0o600,
        };
        let ops = vec![
            put("/f", "one", absent),
            put(
                "/f",
                "two",
                Precondition::Version(crate::types::FileVersion(1)),
            ),
            Op::Mkdir {
                path: path("/d/e"),
                mode: 0o755,
                parents: true,
            },
            put("/d/h", "three", absent),
            put("/gone", "four", absent),
            Op::Remove {
                path: path("/gone"),
                what: Removal::File,
                precondition: Precondition::Any,
            },
            reserve("/open", UploadId([8; 16])),
            reserve("/c", upload),
            Op::Commit {
                parent: Inode::ROOT,
                upload,
                size: 8_192,
                hash: crate::types::ChunkHash([5; 32]),
                tail: vec![chunk(1), chunk(2)],
            },
        ];
        let first = Request {
            lane: Lane(0),
            ..request_of(1, ops)
        };
        let mut batch = shard::Batch::new(&slot).expect("a new shard");
        let applied = shard::apply(&mut batch, &proposal(1, vec![first], Vec::new()));
        let applied = applied.expect("a sound shard");
        assert!(
            applied.requests[0].iter().all(|outcome| outcome.is_ok()),
            "{applied:?}"
        );
        let changes = batch.finish();
        slot.write(changes);
        slot
    })
}

/// Applies commands to a sound shard: it stays sound, whatever they ask for. Only a state machine
/// of the future may stop it.
pub(super) fn commands(bytes: &[u8]) {
    let Ok(commands) = codec::decode::<Vec<Command>>(bytes) else {
        return;
    };
    let mut slot = seeded().clone();
    for command in commands.iter().take(COMMANDS_MAX) {
        let mut batch = shard::Batch::new(&slot).expect("the header is sound");
        match (shard::apply(&mut batch, command), command) {
            (Ok(_), _) => {}
            (Err(_), Command::StateMachine(version)) => {
                assert!(*version > shard::STATE_MACHINE);
                continue;
            }
            (Err(error), _) => panic!("{command:?} stops the replica: {error}"),
        }
        let changes = batch.finish();
        slot.write(changes);
    }
    let report = shard::check::check(&slot).expect("the header is sound");
    assert_eq!(report.problems, Vec::<String>::new(), "after {commands:?}");
    read_everything(&slot);
}

fn chores() -> Vec<Chore> {
    vec![
        Chore::Cleanup {
            records: 3,
            now: true,
        },
        Chore::ExpireUploads { uploads: 2 },
        Chore::ExpireLanes { lanes: 2 },
        Chore::TrimChanges {
            upto: Revision(3),
            rows: 2,
        },
        Chore::ExpireVersions {
            behind: Inode(0),
            rows: 2,
        },
    ]
}

pub(super) fn command_lists() -> Vec<Vec<u8>> {
    let alone = ops().into_iter().enumerate().map(|(at, op)| {
        vec![proposal(
            2,
            vec![request_of(at as u64 + 1, vec![op])],
            Vec::new(),
        )]
    });
    let day = 24 * 3_600_000;
    let long = vec![
        proposal(2, vec![request_of(1, ops())], chores()),
        Command::StateMachine(1),
        proposal(40 * day, Vec::new(), chores()),
        proposal(41 * day, vec![request_of(2, ops())], chores()),
    ];
    alone
        .chain([long])
        .map(|list| codec::encode(&list))
        .collect()
}

/// Every stored type, chosen by the first byte; and what keys say.
pub(super) fn records(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else {
        return;
    };
    match kind % 16 {
        0 => drop(round_trip::<Header>(bytes)),
        1 => drop(round_trip::<Entry>(bytes)),
        2 => drop(round_trip::<DirRecord>(bytes)),
        3 => drop(round_trip::<OldVersion>(bytes)),
        4 => drop(round_trip::<ManifestPage>(bytes)),
        5 => drop(round_trip::<Reference>(bytes)),
        6 => drop(round_trip::<Upload>(bytes)),
        7 => drop(round_trip::<Deleted>(bytes)),
        8 => drop(round_trip::<LaneRow>(bytes)),
        9 => drop(round_trip::<ChangeRow>(bytes)),
        10 => drop(round_trip::<root::Cluster>(bytes)),
        11 => drop(round_trip::<NodeInfo>(bytes)),
        12 => drop(round_trip::<TicketKey>(bytes)),
        13 => drop(round_trip::<ReplicaRecord>(bytes)),
        14 => {
            let _ = record::open(b"key", bytes);
            let sealed = record::seal(b"key", bytes);
            assert_eq!(record::open(b"key", &sealed).expect("just sealed"), bytes);
        }
        _ => {
            let _ = (keys::entry_name(bytes), keys::number_at(bytes, 1));
            if let Some(after) = keys::after(bytes) {
                assert!(after[..] > *bytes);
            }
        }
    }
}

pub(super) fn record_samples() -> Vec<Vec<u8>> {
    let entry = Entry::File {
        inode: Inode(7),
        born: Revision(8),
        attrs: attrs(),
    };
    let mut samples: Vec<(u8, Vec<u8>)> = Vec::new();
    for (key, value) in &seeded().0 {
        let kind = match key[0] {
            keys::HEADER => 0,
            keys::ENTRIES => 1,
            keys::DIRS => 2,
            keys::VERSIONS => 3,
            keys::MANIFESTS => 4,
            keys::REFERENCES => 5,
            keys::UPLOADS => 6,
            keys::DELETED => 7,
            keys::LANES => 8,
            keys::CHANGES => 9,
            _ => 14,
        };
        samples.push((kind, value.to_vec()));
    }
    let change = Change::Renamed {
        from: name("a"),
        from_ancestors: vec![Inode(1)],
        to: name("b"),
        inode: Inode(2),
        replaced: None,
    };
    let row = ChangeRow {
        time: ShardTime(1),
        wall: WallTime(2),
        user: "ann".into(),
        change,
        ancestors: vec![Inode(1)],
    };
    samples.push((1, codec::encode(&entry)));
    samples.push((9, codec::encode(&row)));
    for (_, value) in root_slot().0 {
        samples.push((10, value.to_vec()));
        samples.push((12, value.to_vec()));
    }
    samples.push((15, keys::entry(Inode(1), &name("x")).to_vec()));
    samples
        .into_iter()
        .map(|(kind, value)| [&[kind][..], &value].concat())
        .collect()
}

/// A state with damaged or foreign records: reads and checks answer or say what is damaged.
pub(super) fn shard_state(bytes: &[u8]) {
    let Ok(changes) = codec::decode::<Vec<(Vec<u8>, Option<Vec<u8>>)>>(bytes) else {
        return;
    };
    let mut slot = seeded().clone();
    let changes = changes.into_iter().take(CHANGES_MAX);
    slot.write(
        changes
            .map(|(key, value)| (key.into(), value.map(Bytes::from)))
            .collect(),
    );
    slot.0.retain(|key, _| !key.is_empty());
    let _ = shard::check::check(&slot);
    read_everything(&slot);
}

fn read_everything(slot: &Slot) {
    let paths: Vec<DfsPath> = ["/", "/f", "/d", "/d/e", "/d/h", "/c", "/open"]
        .iter()
        .map(|text| path(text))
        .collect();
    for path in &paths {
        let _ = read::stat(slot, path);
        let _ = read::resolve(slot, path, None, 0, None);
        let _ = read::versions(slot, path);
        let _ = read::deleted(slot, path);
        let query = read::ListQuery {
            after: None,
            limit: 0,
            attrs: true,
            known: None,
        };
        let _ = read::list(slot, path, &query);
    }
    let _ = read::lane(slot, SessionId([7; 16]), Lane(0));
    let _ = read::upload(slot, Inode::ROOT, UploadId([8; 16]));
    let _ = read::knows(slot, "ann", &[chunk(1).hash]);
}

pub(super) fn state_changes() -> Vec<Vec<u8>> {
    let records = seeded().0.iter();
    let lost = records.clone().map(|(key, _)| vec![(key.to_vec(), None)]);
    let doubled = records.map(|(key, value)| vec![(key.to_vec(), Some(value.to_vec()))]);
    lost.chain(doubled)
        .map(|changes| codec::encode(&changes))
        .collect()
}

fn root_slot() -> Slot {
    let mut slot = Slot::default();
    slot.write(root::seed(root::Seed {
        cluster: ClusterId([1; 16]),
        created: WallTime(5),
        ticket_key: [7; 32],
        ca: root::CaRecord {
            certificate: Bytes::from_static(b"ca"),
            sealed: Bytes::from_static(b"sealed"),
        },
        node: root_node(0),
        admin: ("admin".into(), "admin".into()),
        replicas: 1,
    }));
    slot
}

/// Node 1 at its start of this number.
fn root_node(start: u64) -> NodeInfo {
    NodeInfo {
        node: NodeId(1),
        address: "127.0.0.1:1".into(),
        zone: "z".into(),
        rack: "r".into(),
        life: Life {
            start,
            nonce: start,
        },
        version: "0".into(),
        weight: 1,
        state: NodeState::Member,
    }
}

/// Applies a command to a sound root group, twice: it is read or it is not a command.
pub(super) fn root_command(bytes: &[u8]) {
    let mut slot = root_slot();
    for _ in 0..2 {
        match (root::apply(&slot, bytes), codec::decode::<RootEntry>(bytes)) {
            (Ok((changes, _)), Ok(_)) => slot.write(changes),
            (Err(_), Err(_)) => return,
            (outcome, _) => panic!("a sound group gave {outcome:?}"),
        }
    }
    root::cluster(&slot).expect("still sound");
    root::nodes(&slot).expect("still sound");
    assert!(root::ticket_keys(&slot).expect("still sound").len() as u64 <= root::TICKET_KEYS_KEPT);
}

pub(super) fn root_commands() -> Vec<Vec<u8>> {
    let user = Role::User {
        name: "ann".into(),
        group: "staff".into(),
        admin: false,
    };
    let commands = [
        RootCommand::NodeStarted(root_node(3)),
        RootCommand::AddTicketKey(TicketKey {
            epoch: 2,
            key: [8; 32],
            made: ShardTime(4),
        }),
        RootCommand::AddToken {
            id: 5,
            secret: [6; 32],
            role: user,
            ttl_ms: 7,
        },
        RootCommand::SpendToken {
            token: 5,
            secret: [6; 32],
            key: [1; 32],
            node: None,
        },
        RootCommand::SetState {
            node: NodeId(1),
            state: NodeState::Draining,
        },
        RootCommand::SetStateAsSeen {
            node: NodeId(1),
            state: NodeState::Removed,
            seen: 3,
        },
        RootCommand::SetWeightAsSeen {
            node: NodeId(1),
            weight: 0,
            seen: 3,
        },
        RootCommand::NextReplica,
        RootCommand::OpenEpoch {
            after: Epoch(1),
            base: 1,
            members: Vec::new(),
        },
        RootCommand::CloseBefore(Epoch(2)),
    ];
    let entry = |command| RootEntry {
        time: ShardTime(9),
        command,
    };
    let entries = commands.map(entry);
    entries.iter().map(codec::encode).collect()
}
