//! Pure: what replicas of a group say to each other, as bytes: a question and its answer.
//! Called by `network` (asks), `RaftGroup::receive` and `RaftGroup::receive_image` (answer).
//!
//! An entry travels as the log keeps it. Messages are behind the version byte of `codec`; a new
//! kind is added at the end of its enum.

use super::kinds::{LogId, Types, Vote, log_id, position};
use super::stored::{self, StoredVote};
use crate::codec;
use crate::error::{Error, Result};
use crate::store::wal::{LogEntry, LogPosition};
use crate::types::{GroupId, ReplicaId};
use bytes::Bytes;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderError, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use serde::{Deserialize, Serialize};

/// A question with its address. The address is checked by the receiver: a message for a replica
/// that this node no longer has must not be answered by its successor.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Envelope {
    pub(super) group: GroupId,
    pub(super) from: ReplicaId,
    pub(super) to: ReplicaId,
    pub(super) ask: Ask,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Ask {
    Append(Append),
    Vote(Candidacy),
    PreVote(Candidacy),
    Transfer(Transfer),
    /// Would you take an image from this leader?
    Offer(StoredVote),
    /// Head of an image; its file comes behind it.
    Image(ImageHead),
}

/// What an image is, and who sends it.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct ImageHead {
    /// The leader's.
    pub(super) vote: StoredVote,
    /// The image holds the state as of this entry.
    pub(super) position: LogPosition,
    /// Encoded members as of there.
    pub(super) members: Bytes,
}

/// Take these entries (none: a heartbeat).
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Append {
    vote: StoredVote,
    /// The entry before the first of `entries`.
    previous: Option<LogPosition>,
    entries: Vec<(LogPosition, Bytes)>,
    /// What the leader knows to be committed.
    committed: Option<LogPosition>,
}

impl Append {
    /// A sign of life, no more.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// Vote for me.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Candidacy {
    vote: StoredVote,
    last: Option<LogPosition>,
    /// The old leader asked for it: its lease does not count.
    pub(super) transfer: bool,
}

/// `to` shall become the leader as soon as it has `last`.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Transfer {
    from: StoredVote,
    to: u64,
    last: Option<LogPosition>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Answer {
    Append(AppendAnswer),
    Vote(VoteAnswer),
    Transfer(TransferAnswer),
    Offer(OfferAnswer),
    /// The image is installed, or not needed, if the vote is not above the sender's.
    Image(StoredVote),
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct OfferAnswer {
    /// The answerer's own vote; an image of a leader below it would be refused.
    pub(super) vote: StoredVote,
    /// What is durable in the answerer's state; index 0 for nothing.
    pub(super) folded: LogPosition,
    /// Another image is being taken.
    pub(super) busy: bool,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum AppendAnswer {
    /// All entries are durable here.
    Success,
    /// Entries up to here are.
    Partial(Option<LogPosition>),
    /// `previous` is not here.
    Conflict,
    /// There is a newer leader or candidate.
    HigherVote(StoredVote),
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct VoteAnswer {
    /// The answerer's own vote after the question.
    vote: StoredVote,
    granted: bool,
    last: Option<LogPosition>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum TransferAnswer {
    Accepted,
    VoteChanged {
        expected: StoredVote,
        actual: StoredVote,
    },
    NotFlushed {
        expected: Option<LogPosition>,
        actual: Option<LogPosition>,
    },
}

fn positions(id: &Option<LogId>) -> Option<LogPosition> {
    id.as_ref().map(position)
}

fn log_ids(position: Option<LogPosition>) -> Option<LogId> {
    position.map(log_id)
}

impl From<AppendEntriesRequest<Types>> for Append {
    fn from(request: AppendEntriesRequest<Types>) -> Self {
        Append {
            vote: (&request.vote).into(),
            previous: positions(&request.prev_log_id),
            entries: (request.entries.into_iter())
                .map(stored::entry_to_log)
                .map(|entry| (entry.position, entry.payload))
                .collect(),
            committed: positions(&request.leader_commit),
        }
    }
}

impl TryFrom<Append> for AppendEntriesRequest<Types> {
    type Error = Error;

    /// Refuses entries that do not follow each other: openraft takes that for granted.
    fn try_from(append: Append) -> Result<Self> {
        let mut index = append.previous.map_or(0, |p| p.index.0);
        let mut first = append.previous.is_none();
        for (position, _) in &append.entries {
            let follows = index.checked_add(1) == Some(position.index.0) || first;
            if !follows {
                return Err(Error::corrupt(format!(
                    "entry {} of an append message follows {index}",
                    position.index
                )));
            }
            (index, first) = (position.index.0, false);
        }
        Ok(AppendEntriesRequest {
            vote: append.vote.into(),
            prev_log_id: log_ids(append.previous),
            entries: (append.entries.into_iter())
                .map(|(position, payload)| LogEntry { position, payload })
                .map(stored::entry_from_log)
                .collect::<Result<_>>()?,
            leader_commit: log_ids(append.committed),
        })
    }
}

impl From<AppendEntriesResponse<Types>> for AppendAnswer {
    fn from(response: AppendEntriesResponse<Types>) -> Self {
        use AppendEntriesResponse as R;
        match response {
            R::Success => AppendAnswer::Success,
            R::PartialSuccess(upto) => AppendAnswer::Partial(positions(&upto)),
            R::Conflict => AppendAnswer::Conflict,
            R::HigherVote(vote) => AppendAnswer::HigherVote((&vote).into()),
        }
    }
}

impl From<AppendAnswer> for AppendEntriesResponse<Types> {
    fn from(answer: AppendAnswer) -> Self {
        match answer {
            AppendAnswer::Success => AppendEntriesResponse::Success,
            AppendAnswer::Partial(upto) => AppendEntriesResponse::PartialSuccess(log_ids(upto)),
            AppendAnswer::Conflict => AppendEntriesResponse::Conflict,
            AppendAnswer::HigherVote(vote) => AppendEntriesResponse::HigherVote(vote.into()),
        }
    }
}

impl From<VoteRequest<Types>> for Candidacy {
    fn from(request: VoteRequest<Types>) -> Self {
        Candidacy {
            vote: (&request.vote).into(),
            last: positions(&request.last_log_id),
            transfer: request.leadership_transfer,
        }
    }
}

impl From<Candidacy> for VoteRequest<Types> {
    fn from(candidacy: Candidacy) -> Self {
        VoteRequest {
            vote: candidacy.vote.into(),
            last_log_id: log_ids(candidacy.last),
            leadership_transfer: candidacy.transfer,
        }
    }
}

impl From<VoteResponse<Types>> for VoteAnswer {
    fn from(response: VoteResponse<Types>) -> Self {
        VoteAnswer {
            vote: (&response.vote).into(),
            granted: response.vote_granted,
            last: positions(&response.last_log_id),
        }
    }
}

impl From<VoteAnswer> for VoteResponse<Types> {
    fn from(answer: VoteAnswer) -> Self {
        VoteResponse {
            vote: answer.vote.into(),
            vote_granted: answer.granted,
            last_log_id: log_ids(answer.last),
        }
    }
}

impl From<TransferLeaderRequest<Types>> for Transfer {
    fn from(request: TransferLeaderRequest<Types>) -> Self {
        Transfer {
            from: request.from_leader().into(),
            to: *request.to_node_id(),
            last: request.last_log_id().map(position),
        }
    }
}

impl From<Transfer> for TransferLeaderRequest<Types> {
    fn from(transfer: Transfer) -> Self {
        let from: Vote = transfer.from.into();
        TransferLeaderRequest::new(from, transfer.to, log_ids(transfer.last))
    }
}

impl From<TransferLeaderResponse<Types>> for TransferAnswer {
    fn from(response: TransferLeaderResponse<Types>) -> Self {
        use TransferLeaderError as E;
        match response {
            Ok(()) => TransferAnswer::Accepted,
            Err(E::VoteChanged { expected, actual }) => TransferAnswer::VoteChanged {
                expected: (&expected).into(),
                actual: (&actual).into(),
            },
            Err(E::LogNotFlushed { expected, actual }) => TransferAnswer::NotFlushed {
                expected: positions(&expected),
                actual: positions(&actual),
            },
        }
    }
}

impl From<TransferAnswer> for TransferLeaderResponse<Types> {
    fn from(answer: TransferAnswer) -> Self {
        use TransferLeaderError as E;
        match answer {
            TransferAnswer::Accepted => Ok(()),
            TransferAnswer::VoteChanged { expected, actual } => Err(E::VoteChanged {
                expected: expected.into(),
                actual: actual.into(),
            }),
            TransferAnswer::NotFlushed { expected, actual } => Err(E::LogNotFlushed {
                expected: log_ids(expected),
                actual: log_ids(actual),
            }),
        }
    }
}

/// Takes any bytes as everything that a peer or the log may hand to this layer: for `fuzzing`,
/// which cannot name the types.
///
/// # Panics
/// When what was taken does not come back from its own bytes.
pub fn takes_message(bytes: &[u8]) {
    if let Ok(envelope) = codec::decode::<Envelope>(bytes) {
        let again: Envelope = codec::decode(&codec::encode(&envelope)).expect("our own bytes");
        assert_eq!(again.ask, envelope.ask);
        match envelope.ask {
            Ask::Append(append) => drop(AppendEntriesRequest::<Types>::try_from(append)),
            Ask::Vote(candidacy) | Ask::PreVote(candidacy) => {
                drop(VoteRequest::<Types>::from(candidacy));
            }
            Ask::Transfer(transfer) => drop(TransferLeaderRequest::<Types>::from(transfer)),
            Ask::Offer(vote) => drop(Vote::from(vote)),
            Ask::Image(head) => drop(stored::decode_members(&head.members)),
        }
    }
    match codec::decode::<Answer>(bytes) {
        Ok(Answer::Append(answer)) => drop(AppendEntriesResponse::<Types>::from(answer)),
        Ok(Answer::Vote(answer)) => drop(VoteResponse::<Types>::from(answer)),
        Ok(Answer::Transfer(answer)) => drop(TransferLeaderResponse::<Types>::from(answer)),
        Ok(Answer::Offer(OfferAnswer { vote, .. }) | Answer::Image(vote)) => drop(Vote::from(vote)),
        Err(_) => {}
    }
    let _ = (stored::decode_members(bytes), stored::decode_vote(bytes));
    let payload = Bytes::copy_from_slice(bytes);
    let _ = stored::entry_from_log(LogEntry {
        position: LogPosition::default(),
        payload,
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::kinds::{self, Command, Entry};
    use crate::types::LogIndex;
    use openraft::EntryPayload;
    use proptest::prelude::*;

    fn at(index: u64) -> LogId {
        log_id(LogPosition {
            term: 2,
            leader: 1,
            index: LogIndex(index),
        })
    }

    fn entry(index: u64) -> Entry {
        Entry {
            log_id: at(index),
            payload: EntryPayload::Normal(Command(Bytes::from_static(b"x"))),
        }
    }

    fn append(previous: u64, entries: &[u64]) -> AppendEntriesRequest<Types> {
        AppendEntriesRequest {
            vote: kinds::vote(2, 1, true),
            prev_log_id: Some(at(previous)),
            entries: entries.iter().copied().map(entry).collect(),
            leader_commit: Some(at(previous)),
        }
    }

    #[test]
    fn golden_bytes_of_an_append() {
        let bytes = codec::encode(&Envelope {
            group: GroupId(9),
            from: ReplicaId(1),
            to: ReplicaId(3),
            ask: Ask::Append(append(4, &[5]).into()),
        });
        let expected = [
            1, 9, 1, 3, 0, // format, group, from, to, kind
            2, 1, 1, // vote
            1, 2, 1, 4, // previous
            1, 2, 1, 5, 4, 1, 1, 1, b'x', // one entry
            1, 2, 1, 4, // committed
        ];
        assert_eq!(bytes, expected);
    }

    #[test]
    fn golden_bytes_of_an_image_and_what_goes_before_it() {
        let vote: StoredVote = (&kinds::vote(2, 1, true)).into();
        let asked = |ask| {
            codec::encode(&Envelope {
                group: GroupId(9),
                from: ReplicaId(1),
                to: ReplicaId(3),
                ask,
            })
        };
        // Format, group, from, to, kind; the vote.
        assert_eq!(asked(Ask::Offer(vote)), [1, 9, 1, 3, 4, 2, 1, 1]);
        let head = ImageHead {
            vote,
            position: position(&at(7)),
            members: Bytes::from_static(b"m"),
        };
        let expected = [
            1, 9, 1, 3, 5, // format, group, from, to, kind
            2, 1, 1, // vote
            2, 1, 7, // position
            1, b'm', // members
        ];
        assert_eq!(asked(Ask::Image(head)), expected);
        let offer = OfferAnswer {
            vote,
            folded: position(&at(5)),
            busy: true,
        };
        let bytes = codec::encode(&Answer::Offer(offer));
        assert_eq!(bytes, [1, 3, 2, 1, 1, 2, 1, 5, 1]);
        assert_eq!(codec::encode(&Answer::Image(vote)), [1, 4, 2, 1, 1]);
    }

    #[test]
    fn an_append_comes_back_as_it_was() {
        let sent = append(4, &[5, 6, 7]);
        let received: AppendEntriesRequest<Types> = Append::from(sent.clone()).try_into().unwrap();
        assert_eq!(format!("{received:?}"), format!("{sent:?}"));
        assert_eq!(received.entries, sent.entries);
    }

    #[test]
    fn a_gap_between_entries_is_refused() {
        for broken in [append(4, &[6]), append(4, &[5, 7]), append(4, &[5, 5])] {
            let outcome: Result<AppendEntriesRequest<Types>> = Append::from(broken).try_into();
            assert!(outcome.unwrap_err().message.contains("follows"));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(bytes: Vec<u8>) {
            if let Ok(Envelope { ask: Ask::Append(append), .. }) = codec::decode(&bytes) {
                let _ = AppendEntriesRequest::<Types>::try_from(append);
            }
            let _ = codec::decode::<Answer>(&bytes);
        }
    }
}
