//! Votes as the log keeps them, for a replica whose own may be lost. Called by `node` before the group
//! opens.

use super::{kinds, stored};
use crate::error::Result;
use crate::types::ReplicaId;
use bytes::Bytes;

/// The term of a stored vote; 0 without one.
///
/// # Errors
/// `corrupt` for bytes that are no vote.
pub fn term_of_vote(vote: Option<&Bytes>) -> Result<u64> {
    let decoded = vote.map(|bytes| stored::decode_vote(bytes)).transpose()?;
    Ok(decoded.map_or(0, |vote| vote.leader_id.term))
}

/// The vote of a replica that stands for election in a term: it grants nobody anything up to that
/// term, so it contradicts no vote that it may have forgotten.
pub fn candidacy(term: u64, replica: ReplicaId) -> Bytes {
    stored::encode_vote(&kinds::vote(term, replica.0, false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_candidacy_has_its_term_and_is_not_granted() {
        let vote = candidacy(7, ReplicaId(3));
        assert_eq!(term_of_vote(Some(&vote)).unwrap(), 7);
        assert!(!stored::decode_vote(&vote).unwrap().committed);
        assert_eq!(term_of_vote(None).unwrap(), 0);
        assert!(term_of_vote(Some(&Bytes::from_static(b"no vote"))).is_err());
    }
}
