//! Golden bytes of the root group's records and commands: a change of a stored layout shows here.

use super::*;
use crate::codec::golden;
use crate::proto::{Life, NodeInfo, NodeState, RingEpoch, RingMember};
use crate::root::records::Spent;
use crate::types::{ClusterId, Epoch, NodeId, ReplicaId, ShardTime, WallTime};
use bytes::Bytes;

fn info() -> NodeInfo {
    NodeInfo {
        node: NodeId(300),
        address: "10.0.0.1:7440".into(),
        zone: "z".into(),
        rack: "r".into(),
        life: Life {
            start: 2,
            nonce: 0x0102_0304_0506_0708,
        },
        version: "0.1.0".into(),
        weight: 931,
        state: NodeState::Draining,
    }
}

fn role() -> Role {
    Role::User {
        name: "ann".into(),
        group: "staff".into(),
        admin: true,
    }
}

fn members() -> Vec<RingMember> {
    vec![RingMember {
        node: NodeId(3),
        weight: 931,
        zone: "z".into(),
        rack: "r".into(),
    }]
}

fn ticket_key() -> TicketKey {
    TicketKey {
        epoch: 4,
        key: [9; 32],
        made: ShardTime(86_400_000),
    }
}

#[test]
fn records() {
    golden::value(
        "root-cluster",
        &Cluster {
            id: ClusterId([1; 16]),
            created: WallTime(1_700_000_000_000),
            state_machine: 1,
            time: ShardTime(12_345),
            view: 6,
            next_node: NodeId(4),
            next_replica: ReplicaId(9),
        },
    );
    golden::value("root-node", &info());
    golden::value("root-ticket-key", &ticket_key());
    golden::value(
        "root-ca",
        &CaRecord {
            certificate: Bytes::from_static(b"certificate"),
            sealed: Bytes::from_static(b"sealed"),
        },
    );
    golden::value(
        "root-token",
        &TokenRecord {
            id: u64::MAX,
            secret: [2; 32],
            role: Role::Node,
            expires: ShardTime(3_600_000),
            spent: Some(Spent {
                key: [3; 32],
                node: Some(NodeId(2)),
            }),
        },
    );
    golden::value(
        "root-user",
        &UserRecord {
            name: "ann".into(),
            group: "staff".into(),
            admin: false,
            certificates: 2,
            revoked: true,
        },
    );
    golden::value(
        "root-epoch",
        &RingEpoch {
            epoch: Epoch(7),
            base: 931,
            members: members(),
        },
    );
}

#[test]
fn commands() {
    let all = [
        RootCommand::NodeStarted(info()),
        RootCommand::AddTicketKey(ticket_key()),
        RootCommand::AddToken {
            id: 77,
            secret: [2; 32],
            role: role(),
            ttl_ms: 3_600_000,
        },
        RootCommand::SpendToken {
            token: 77,
            secret: [2; 32],
            key: [3; 32],
            node: None,
        },
        RootCommand::SetState {
            node: NodeId(3),
            state: NodeState::Removed,
        },
        RootCommand::SetWeight {
            node: NodeId(3),
            weight: 0,
        },
        RootCommand::RemoveUser("ann".into()),
        RootCommand::NextReplica,
        RootCommand::OpenEpoch {
            after: Epoch(6),
            base: 931,
            members: members(),
        },
        RootCommand::CloseBefore(Epoch(7)),
        RootCommand::SetStateAsSeen {
            node: NodeId(3),
            state: NodeState::Removed,
            seen: 41,
        },
        RootCommand::SetWeightAsSeen {
            node: NodeId(3),
            weight: 0,
            seen: 42,
        },
    ];
    let entries = all.into_iter().map(|command| RootEntry {
        time: ShardTime(5),
        command,
    });
    golden::value("root-entries", &entries.collect::<Vec<_>>());
}
