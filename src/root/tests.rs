//! The root group's commands, one by one, over records in memory.

use super::*;
use crate::codec;
use crate::error::{Code, Result};
use crate::proto::{Life, NodeInfo, NodeState};
use crate::store::{Change, SlotRead, VisitRecord};
use crate::types::{ClusterId, Epoch, NodeId, ReplicaId, ShardTime, WallTime};
use bytes::Bytes;
use std::collections::BTreeMap;

#[derive(Default)]
struct Records(BTreeMap<Bytes, Bytes>);

impl Records {
    fn founded() -> Records {
        let mut records = Records::default();
        records.write(seed(Seed {
            cluster: ClusterId([1; 16]),
            created: WallTime(5),
            ticket_key: [7; 32],
            ca: CaRecord {
                certificate: Bytes::from_static(b"ca"),
                sealed: Bytes::from_static(b"sealed"),
            },
            node: info(1, 0),
            admin: ("admin".into(), "admin".into()),
            replicas: 1,
        }));
        records
    }

    fn write(&mut self, changes: Vec<Change>) {
        for (key, value) in changes {
            match value {
                Some(value) => self.0.insert(key, value),
                None => self.0.remove(&key),
            };
        }
    }

    fn at(&mut self, time: u64, command: RootCommand) -> RootReply {
        let time = ShardTime(time);
        let entry = codec::encode(&RootEntry { time, command });
        let (changes, answer) = apply(self, &entry).unwrap();
        self.write(changes);
        answer
    }

    fn now(&mut self, command: RootCommand) -> RootReply {
        self.at(0, command)
    }

    fn version(&self) -> u64 {
        view(self).unwrap().version
    }
}

impl SlotRead for Records {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.0.get(key).cloned())
    }

    fn scan(&self, from: &[u8], to: Option<&[u8]>, visit: &mut VisitRecord<'_>) -> Result<()> {
        for (key, value) in self.0.range(Bytes::copy_from_slice(from)..) {
            if to.is_some_and(|to| key[..] >= *to) || !visit(key, value)? {
                break;
            }
        }
        Ok(())
    }
}

fn info(node: u64, start: u64) -> NodeInfo {
    NodeInfo {
        node: NodeId(node),
        address: "127.0.0.1:1".into(),
        zone: String::new(),
        rack: String::new(),
        life: Life {
            start,
            nonce: 100 + start,
        },
        version: "0".into(),
        weight: 1,
        state: NodeState::Member,
    }
}

fn token(id: u64, role: Role) -> RootCommand {
    RootCommand::AddToken {
        id,
        secret: [id as u8; 32],
        role,
        ttl_ms: 1_000,
    }
}

fn spend(id: u64, key: u8, node: Option<NodeInfo>) -> RootCommand {
    RootCommand::SpendToken {
        token: id,
        secret: [id as u8; 32],
        key: [key; 32],
        node,
    }
}

fn ann(admin: bool) -> Role {
    Role::User {
        name: "ann".into(),
        group: "staff".into(),
        admin,
    }
}

#[test]
fn an_old_copy_and_a_clone_of_a_data_directory_are_refused() {
    let mut records = Records::founded();
    records.now(RootCommand::NodeStarted(info(1, 3))).unwrap();
    let version = records.version();
    records.now(RootCommand::NodeStarted(info(1, 3))).unwrap();
    assert_eq!(records.version(), version, "the same life again");
    let old = records.now(RootCommand::NodeStarted(info(1, 2)));
    assert!(old.unwrap_err().message.contains("old copy"));
    let mut clone = info(1, 3);
    clone.life.nonce = 9;
    let refusal = records.now(RootCommand::NodeStarted(clone)).unwrap_err();
    assert!(refusal.message.contains("another copy"), "{refusal}");
    assert_eq!(nodes(&records).unwrap()[0].life, info(1, 3).life);
    let stranger = records.now(RootCommand::NodeStarted(info(9, 1)));
    assert_eq!(stranger.unwrap_err().code, Code::Denied);
}

#[test]
fn a_token_is_spent_on_one_key_which_may_ask_again_until_it_expires() {
    let mut records = Records::founded();
    records.now(token(5, Role::Node)).unwrap();
    records.now(token(5, Role::Node)).unwrap();
    let joined = Ok(RootDone::Joined(NodeId(2)));
    assert_eq!(records.now(spend(5, 1, Some(info(0, 0)))), joined);
    assert_eq!(records.now(spend(5, 1, Some(info(0, 0)))), joined);
    assert_eq!(nodes(&records).unwrap().len(), 2);
    let other = records.now(spend(5, 2, Some(info(0, 0)))).unwrap_err();
    assert!(other.message.contains("used already"), "{other}");
    let late = records.at(1_000, spend(5, 1, Some(info(0, 0))));
    assert!(late.unwrap_err().message.contains("expired"));
    let unknown = records.at(0, spend(6, 1, None)).unwrap_err();
    assert_eq!(unknown.code, Code::Denied);
}

#[test]
fn a_wrong_secret_is_not_told_from_an_unknown_token() {
    let mut records = Records::founded();
    records.now(token(5, Role::Node)).unwrap();
    let wrong = RootCommand::SpendToken {
        token: 5,
        secret: [0; 32],
        key: [1; 32],
        node: Some(info(0, 0)),
    };
    assert_eq!(records.now(wrong), records.now(spend(77, 1, None)));
    assert_eq!(nodes(&records).unwrap().len(), 1);
}

#[test]
fn a_nodes_token_lets_no_user_in_and_the_other_way_round() {
    let mut records = Records::founded();
    records.now(token(1, Role::Node)).unwrap();
    records.now(token(2, ann(false))).unwrap();
    assert!(records.now(spend(1, 1, None)).is_err());
    assert!(records.now(spend(2, 1, Some(info(0, 0)))).is_err());
    assert_eq!(
        records.now(spend(2, 1, None)),
        Ok(RootDone::User(ann(false)))
    );
    assert_eq!(users(&records).unwrap().len(), 2);
}

#[test]
fn a_removed_node_stays_removed() {
    let mut records = Records::founded();
    records.now(token(1, Role::Node)).unwrap();
    records.now(spend(1, 1, Some(info(0, 0)))).unwrap();
    let set = |state| RootCommand::SetState {
        node: NodeId(2),
        state,
    };
    records.now(set(NodeState::Draining)).unwrap();
    records.now(set(NodeState::Member)).unwrap();
    records.now(set(NodeState::Removed)).unwrap();
    assert!(records.now(set(NodeState::Member)).is_err());
    let back = records.now(RootCommand::NodeStarted(info(2, 7)));
    assert!(back.unwrap_err().message.contains("removed"));
}

#[test]
fn of_two_changes_decided_by_one_view_the_second_is_refused() {
    let mut records = Records::founded();
    for node in 2..=3 {
        records.now(token(node, Role::Node)).unwrap();
        records.now(spend(node, 1, Some(info(0, 0)))).unwrap();
    }
    let seen = records.version();
    let remove = |node, seen| RootCommand::SetStateAsSeen {
        node: NodeId(node),
        state: NodeState::Removed,
        seen,
    };
    records.now(remove(2, seen)).unwrap();
    let second = records.now(remove(3, seen)).unwrap_err();
    assert_eq!(second.code, Code::Conflict);
    assert!(second.message.contains("changed meanwhile"), "{second}");
    // Sent again, as it was not known to be done.
    records.now(remove(2, seen)).unwrap();
    let seen = records.version();
    let weigh = |node, seen| RootCommand::SetWeightAsSeen {
        node: NodeId(node),
        weight: 0,
        seen,
    };
    records.now(weigh(1, seen)).unwrap();
    let second = records.now(weigh(3, seen)).unwrap_err();
    assert!(second.message.contains("changed meanwhile"), "{second}");
    records.now(weigh(1, seen)).unwrap();
    let of_removed = records.now(weigh(2, records.version())).unwrap_err();
    assert!(of_removed.message.contains("removed"), "{of_removed}");
    records.now(remove(3, records.version())).unwrap();
}

#[test]
fn the_last_administrator_stays_and_a_removed_user_is_let_in_no_more() {
    let mut records = Records::founded();
    let remove = |name: &str| RootCommand::RemoveUser(name.into());
    assert_eq!(
        records.now(remove("admin")).unwrap_err().code,
        Code::Conflict
    );
    records.now(token(2, ann(true))).unwrap();
    records.now(spend(2, 1, None)).unwrap();
    records.now(remove("admin")).unwrap();
    assert_eq!(view(&records).unwrap().revoked_users, ["admin"]);
    assert!(records.now(remove("ann")).is_err());
    assert_eq!(records.now(remove("bob")).unwrap_err().code, Code::NotFound);
}

#[test]
fn an_administrator_with_a_lesser_certificate_beside_is_one_still() {
    let mut records = Records::founded();
    for (id, admin) in [(1, true), (2, false)] {
        records.now(token(id, ann(admin))).unwrap();
        records.now(spend(id, id as u8, None)).unwrap();
    }
    let users = crate::root::read::users(&records).unwrap();
    let ann = users.iter().find(|user| user.name == "ann").unwrap();
    assert_eq!((ann.admin, ann.certificates), (true, 2));
}

#[test]
fn three_ticket_keys_are_kept_and_a_repeated_one_changes_nothing() {
    let mut records = Records::founded();
    for epoch in 2..=5 {
        let add = || {
            RootCommand::AddTicketKey(TicketKey {
                epoch,
                key: [epoch as u8; 32],
                made: ShardTime(epoch),
            })
        };
        records.now(add()).unwrap();
        records.now(add()).unwrap();
    }
    let kept: Vec<_> = ticket_keys(&records).unwrap();
    let kept: Vec<_> = kept.iter().map(|key| key.epoch).collect();
    assert_eq!(kept, [3, 4, 5]);
}

#[test]
fn replica_ids_are_given_once() {
    let mut records = Records::founded();
    let mut next = || records.now(RootCommand::NextReplica).unwrap();
    assert_eq!(next(), RootDone::Replica(ReplicaId(2)));
    assert_eq!(next(), RootDone::Replica(ReplicaId(3)));
}

#[test]
fn eight_epochs_are_open_at_most_and_the_newest_always() {
    let mut records = Records::founded();
    let open = |after| RootCommand::OpenEpoch {
        after: Epoch(after),
        base: 1,
        members: Vec::new(),
    };
    for after in 1..EPOCHS_OPEN_MAX as u64 {
        records.now(open(after)).unwrap();
        // Another leader asked the same: it is told where the ring is.
        assert_eq!(records.now(open(after)).unwrap_err().code, Code::Conflict);
    }
    let full = records.now(open(EPOCHS_OPEN_MAX as u64)).unwrap_err();
    assert_eq!(full.code, Code::Busy);
    records.now(RootCommand::CloseBefore(Epoch(99))).unwrap();
    let left = ring_epochs(&records).unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].epoch, Epoch(EPOCHS_OPEN_MAX as u64));
}

#[test]
fn a_refused_command_changes_nothing_but_the_time() {
    let mut records = Records::founded();
    let before = view(&records).unwrap();
    records
        .at(50, RootCommand::RemoveUser("bob".into()))
        .unwrap_err();
    let after = view(&records).unwrap();
    assert_eq!(after.time, ShardTime(50));
    assert_eq!(after.version, before.version);
    records.at(20, RootCommand::NextReplica).unwrap();
    assert_eq!(view(&records).unwrap().time, ShardTime(50), "never back");
}

#[test]
fn staged_commands_see_each_other() {
    let records = Records::founded();
    let mut staged = Staged::new(&records);
    for _ in 0..3 {
        let entry = codec::encode(&RootEntry {
            time: ShardTime(1),
            command: RootCommand::NextReplica,
        });
        let (changes, answer) = apply(&staged, &entry).unwrap();
        answer.unwrap();
        staged.write(changes);
    }
    assert_eq!(cluster(&staged).unwrap().next_replica, ReplicaId(5));
    let mut after = Records::founded();
    after.write(staged.finish());
    assert_eq!(cluster(&after).unwrap().next_replica, ReplicaId(5));
}

#[test]
fn an_unknown_command_stops_the_replica() {
    assert!(apply(&Records::founded(), &[1, 0, 99]).is_err());
}
