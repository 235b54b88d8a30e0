//! Pure: how a changing request is named, in bytes and for people.
//!
//! An automatic name is where the request travelled: `SESSION-LANE-SEQ`. A given one (`--op-id`)
//! is hashed into a session of its own for each step of the verb, lane 0, sequence 1, so that
//! whoever sends the same id with the same request gets the first answer.

use crate::types::{Lane, OpSeq, SessionId, UploadId};
use std::fmt;

/// Where a request travels: what the shard remembers it by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct OpId {
    pub(crate) session: SessionId,
    pub(crate) lane: Lane,
    pub(crate) seq: OpSeq,
}

impl OpId {
    /// The name of one step under a given id. The step of a verb's last (or only) change is the
    /// empty text; it is what `dfs op status ID` asks for.
    pub(crate) fn given(id: &str, step: &str) -> OpId {
        OpId {
            session: SessionId(derive("op-id", id, step)),
            lane: Lane(0),
            seq: OpSeq(1),
        }
    }

    /// Reads `SESSION-LANE-SEQ`.
    pub(crate) fn parse(text: &str) -> Option<OpId> {
        let mut parts = text.splitn(3, '-');
        Some(OpId {
            session: SessionId::parse(parts.next()?)?,
            lane: Lane(parts.next()?.parse().ok()?),
            seq: OpSeq(parts.next()?.parse().ok()?),
        })
    }

    /// What a user may type: the automatic form, or any text that was given.
    pub(crate) fn from_user(text: &str) -> OpId {
        Self::parse(text).unwrap_or_else(|| Self::given(text, ""))
    }
}

impl fmt::Display for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.session, self.lane, self.seq)
    }
}

/// The upload of a put under a given id: the same each time, so that its reservation is too.
pub(crate) fn given_upload(id: &str, step: &str) -> UploadId {
    UploadId(derive("upload", id, step))
}

fn derive(purpose: &str, id: &str, step: &str) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    for part in [purpose, id, step] {
        // The length in front: no two different triples give the same bytes.
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    let mut out = [0; 16];
    out.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_goes_both_ways() {
        let id = OpId {
            session: SessionId([0xab; 16]),
            lane: Lane(63),
            seq: OpSeq(1_000),
        };
        assert_eq!(OpId::parse(&id.to_string()), Some(id));
        assert_eq!(OpId::from_user(&id.to_string()), id);
        for bad in ["", "x", "ab-1-2", &format!("{}-1", id.session), "a-b-c"] {
            assert_eq!(OpId::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn given_ids_are_the_same_for_everybody_and_differ_by_step() {
        assert_eq!(OpId::given("x", ""), OpId::from_user("x"));
        assert_ne!(OpId::given("x", ""), OpId::given("x", "/a"));
        assert_ne!(OpId::given("xy", ""), OpId::given("x", "y"));
        assert_ne!(
            OpId::given("x", "").session.0,
            given_upload("x", "").0,
            "purposes are apart"
        );
    }
}
