//! Pure: what `raft` keeps in the log and beside the state machine, as bytes.
//!
//! | where | bytes (behind the version byte of `codec`) |
//! |---|---|
//! | payload of a log entry | [`Payload`] |
//! | vote of a group | [`StoredVote`] |
//! | committed position of a group | [`LogPosition`] |
//! | members beside the applied position | [`MembersForm`] |
//!
//! Called by `log`, `machine` and `message`. Golden bytes below hold the formats.

use super::kinds::{self, Command, Entry, Host, Membership, StoredMembership, Vote};
use crate::codec;
use crate::error::{Error, Result};
use crate::store::wal::{LogEntry, LogPosition};
use crate::types::NodeId;
use bytes::Bytes;
use openraft::EntryPayload;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Payload {
    /// A new leader's empty entry.
    Blank,
    /// A command of the state machine.
    Command(Bytes),
    /// The members from here on.
    Members(MembersRecord),
}

/// Members of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MembersRecord {
    /// Sets of voters (replica ids); two while a change is under way, and both must agree.
    configs: Vec<Vec<u64>>,
    /// Replica id and node of every member; one that is in no set of voters learns only.
    nodes: Vec<(u64, NodeId)>,
}

/// Members and the entry that made them so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum MembersForm {
    V1 {
        /// The entry; the seed's position for the first members.
        at: Option<LogPosition>,
        members: MembersRecord,
    },
}

/// A vote given, or a leader known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredVote {
    term: u64,
    /// Replica id of the candidate or leader.
    replica: u64,
    /// A quorum has granted it: it is the leader.
    committed: bool,
}

impl From<&Vote> for StoredVote {
    fn from(vote: &Vote) -> Self {
        StoredVote {
            term: vote.leader_id.term,
            replica: vote.leader_id.node_id,
            committed: vote.committed,
        }
    }
}

impl From<StoredVote> for Vote {
    fn from(vote: StoredVote) -> Self {
        kinds::vote(vote.term, vote.replica, vote.committed)
    }
}

impl From<&Membership> for MembersRecord {
    fn from(membership: &Membership) -> Self {
        MembersRecord {
            configs: (membership.get_joint_config().iter())
                .map(|config| config.iter().copied().collect())
                .collect(),
            nodes: (membership.nodes().map(|(id, host)| (*id, host.0))).collect(),
        }
    }
}

impl TryFrom<MembersRecord> for Membership {
    type Error = Error;

    fn try_from(members: MembersRecord) -> Result<Self> {
        let configs = (members.configs.into_iter())
            .map(|config| config.into_iter().collect::<BTreeSet<u64>>())
            .collect();
        let nodes: BTreeMap<u64, Host> = (members.nodes.into_iter())
            .map(|(id, node)| (id, Host(node)))
            .collect();
        Membership::new(configs, nodes)
            .map_err(|e| Error::corrupt(format!("stored members make no group ({e})")))
    }
}

/// The log's form of an entry.
pub(super) fn entry_to_log(entry: Entry) -> LogEntry {
    let position = kinds::position(&entry.log_id);
    let payload = match entry.payload {
        EntryPayload::Blank => Payload::Blank,
        EntryPayload::Normal(command) => Payload::Command(command.0),
        EntryPayload::Membership(membership) => Payload::Members(MembersRecord::from(&membership)),
    };
    LogEntry {
        position,
        payload: codec::encode(&payload).into(),
    }
}

/// The entry of a log's form.
///
/// # Errors
/// `corrupt`, with the position, for bytes that are no entry.
pub(super) fn entry_from_log(entry: LogEntry) -> Result<Entry> {
    let LogEntry { position, payload } = entry;
    let named = |e: Error| Error {
        message: format!("log entry {}: {}", position.index, e.message),
        ..e
    };
    let payload = match codec::decode(&payload).map_err(named)? {
        Payload::Blank => EntryPayload::Blank,
        Payload::Command(command) => EntryPayload::Normal(Command(command)),
        Payload::Members(members) => EntryPayload::Membership(members.try_into().map_err(named)?),
    };
    Ok(Entry {
        log_id: kinds::log_id(position),
        payload,
    })
}

/// Members as stored beside the applied position.
pub(super) fn encode_members(at: Option<LogPosition>, membership: &Membership) -> Bytes {
    let members = MembersRecord::from(membership);
    codec::encode(&MembersForm::V1 { at, members }).into()
}

/// Members that [`encode_members`] wrote; no bytes at all are a replica that knows none yet.
pub(super) fn decode_members(bytes: &[u8]) -> Result<StoredMembership> {
    if bytes.is_empty() {
        return Ok(StoredMembership::default());
    }
    let MembersForm::V1 { at, members } = codec::decode(bytes)?;
    Ok(StoredMembership::new(
        at.map(kinds::log_id),
        members.try_into()?,
    ))
}

pub(super) fn encode_vote(vote: &Vote) -> Bytes {
    codec::encode(&StoredVote::from(vote)).into()
}

pub(super) fn decode_vote(bytes: &[u8]) -> Result<Vote> {
    codec::decode::<StoredVote>(bytes).map(Vote::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::LogIndex;
    use proptest::prelude::*;

    fn at(index: u64) -> LogPosition {
        LogPosition {
            term: 3,
            leader: 2,
            index: LogIndex(index),
        }
    }

    fn three() -> Membership {
        let nodes: BTreeMap<u64, Host> = (1..=3).map(|id| (id, Host(NodeId(10 + id)))).collect();
        Membership::new(vec![[1, 2].into(), [1, 3].into()], nodes).unwrap()
    }

    #[test]
    fn golden_bytes_of_every_stored_form() {
        let command = Payload::Command(Bytes::from_static(b"ab"));
        assert_eq!(codec::encode(&Payload::Blank), [1, 0]);
        assert_eq!(codec::encode(&command), [1, 1, 2, b'a', b'b']);
        let members = [2, 2, 1, 2, 2, 1, 3, 3, 1, 11, 2, 12, 3, 13];
        let entry = codec::encode(&Payload::Members((&three()).into()));
        assert_eq!(entry, [&[1, 2], &members[..]].concat());
        let beside = encode_members(Some(at(7)), &three());
        assert_eq!(beside, [&[1, 0, 1, 3, 2, 7], &members[..]].concat());
        assert_eq!(&encode_vote(&kinds::vote(3, 2, true))[..], [1, 3, 2, 1]);
        assert_eq!(codec::encode(&at(7)), [1, 3, 2, 7]);
    }

    #[test]
    fn members_and_votes_come_back() {
        let stored = decode_members(&encode_members(Some(at(7)), &three())).unwrap();
        assert_eq!(stored.membership(), &three());
        assert_eq!(stored.log_id(), &Some(kinds::log_id(at(7))));
        assert_eq!(decode_members(b"").unwrap(), StoredMembership::default());
        let vote = kinds::vote(9, 1, false);
        assert_eq!(decode_vote(&encode_vote(&vote)).unwrap(), vote);
    }

    #[test]
    fn voters_without_a_node_are_refused() {
        let members = MembersRecord {
            configs: vec![vec![1, 2]],
            nodes: vec![(1, NodeId(1))],
        };
        let bytes = codec::encode(&MembersForm::V1 { at: None, members });
        assert_eq!(
            decode_members(&bytes).unwrap_err().code,
            crate::error::Code::Corrupt
        );
    }

    #[test]
    fn a_damaged_entry_is_named_by_its_index() {
        let entry = LogEntry {
            position: at(42),
            payload: Bytes::from_static(&[1, 77]),
        };
        let error = entry_from_log(entry).unwrap_err();
        assert!(error.message.contains("log entry 42"), "{error}");
    }

    proptest! {
        #[test]
        fn commands_come_back(bytes: Vec<u8>, index in 1u64..) {
            let entry = Entry {
                log_id: kinds::log_id(at(index)),
                payload: EntryPayload::Normal(Command(bytes.into())),
            };
            prop_assert_eq!(entry_from_log(entry_to_log(entry.clone())).unwrap(), entry);
        }

        #[test]
        fn takes_any_bytes(bytes: Vec<u8>) {
            let _ = decode_members(&bytes);
            let _ = decode_vote(&bytes);
            let _ = entry_from_log(LogEntry { position: at(1), payload: bytes.into() });
        }
    }
}
