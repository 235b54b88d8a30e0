//! Pure: openraft's errors in the words of ours. Called by `group` and `barrier`.

use super::kinds::Types;
use crate::error::{Code, Error};
use openraft::errors::{
    ChangeMembershipError, ClientWriteError, Fatal, ForwardReason, ForwardToLeader,
    QuorumNotEnough, RaftError,
};

/// Not the leader, or one that may not lead now; nothing was done.
pub(super) fn not_leader(forward: &ForwardToLeader<Types>) -> Error {
    match (forward.reason, forward.leader_id, forward.leader_node) {
        (ForwardReason::LeaseExpired, ..) => {
            let why = "the leader has not heard from a majority of the group for a while";
            Error::unavailable(format!("no quorum ({why})"))
        }
        (_, Some(replica), Some(host)) => Error::new(
            Code::Redirect,
            format!("not the leader (replica {replica} on node {} is)", host.0.0),
        ),
        (_, Some(replica), None) => Error::new(
            Code::Redirect,
            format!("not the leader (replica {replica} is)"),
        ),
        (_, None, _) => Error::new(Code::Redirect, "not the leader (none is known)"),
    }
}

/// A read was not confirmed by a majority; it was not answered.
pub(super) fn no_quorum(found: &QuorumNotEnough<Types>) -> Error {
    let answered = match found.got.len() {
        0 => "no voter of the group answers".to_owned(),
        1 => "only 1 voter of the group answers".to_owned(),
        n => format!("only {n} voters of the group answer"),
    };
    Error::unavailable(format!("no quorum ({answered})"))
}

/// A leader refused because no majority has confirmed it of late; nothing was done.
pub(super) fn is_lease_expired(error: &RaftError<Types, ClientWriteError<Types>>) -> bool {
    let RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) = error else {
        return false;
    };
    forward.reason == ForwardReason::LeaseExpired
}

/// What came of a proposal that was not applied here.
pub(super) fn write(error: &RaftError<Types, ClientWriteError<Types>>) -> Error {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => not_leader(forward),
        RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) => {
            Error::unavailable("the leader changed before the entry was applied").unknown_outcome()
        }
        RaftError::APIError(ClientWriteError::ChangeMembershipError(change)) => match change {
            ChangeMembershipError::InProgress(_) => in_progress(),
            ChangeMembershipError::LearnerNotFound(unknown) => Error::not_found(format!(
                "replica {} is no member of the group",
                unknown.node_id
            )),
            e => Error::failed(format!("the change of the members was refused ({e})")),
        },
        RaftError::APIError(e @ ClientWriteError::PreconditionFailed(_)) => {
            Error::failed(format!("the proposal was refused ({e})"))
        }
        RaftError::Fatal(error) => fatal(error).unknown_outcome(),
    }
}

/// The replica has stopped, and why.
pub(super) fn fatal(error: &Fatal<Types>) -> Error {
    match error {
        Fatal::Stopped => stopped(),
        Fatal::StorageError(e) => Error::unavailable(format!("the replica has stopped ({e})")),
        Fatal::Panicked => Error::unavailable("the replica has stopped (its task panicked)"),
    }
}

pub(super) fn in_progress() -> Error {
    Error::new(Code::Busy, "another change of the members is under way")
}

pub(super) fn stopped() -> Error {
    Error::unavailable("the replica has stopped")
}
