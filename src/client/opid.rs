//! Pure: how a changing request is named, in bytes and for people.
//!
//! An automatic name is where the request travelled: `SESSION-LANE-SEQ`. A given one (`--op-id`)
//! is hashed into a session of its own for each step of the verb, lane 0, sequence 1, so that
//! whoever sends the same id with the same request gets the first answer. An automatic name may
//! be given too: it is the same request again, where it travelled before.

use crate::error::{Error, Result};
use crate::types::{Lane, OpSeq, SessionId, UploadId};
use std::fmt;

/// Where a request travels: what the shard remembers it by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct OpId {
    pub(crate) session: SessionId,
    pub(crate) lane: Lane,
    pub(crate) seq: OpSeq,
}

/// The step of the mark that a command of several requests leaves before the first of them. No path
/// is like it.
pub(crate) const BEGUN: &str = "#begun";

impl OpId {
    /// The name of one step under a given id. The step of a verb's only change is the empty text,
    /// and that of the mark that all of several requests were executed.
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

    /// Where one step under a given id travels: an automatic name is a place already.
    ///
    /// # Errors
    /// `usage` for a step of an automatic name, which stands for one request only.
    pub(crate) fn named(text: &str, step: &str) -> Result<OpId> {
        // Several items of one command are told apart by a number behind a point.
        let (whole, part) = match text.rsplit_once('.') {
            Some((whole, number)) if number.bytes().all(|b| b.is_ascii_digit()) => (whole, true),
            _ => (text, false),
        };
        match Self::parse(whole) {
            None => Ok(Self::given(text, step)),
            Some(id) if step.is_empty() && !part => Ok(id),
            Some(_) => Err(Error::usage(format!(
                "the operation id {whole} stands for one request (several are needed)"
            ))
            .hint("give an id of your own")),
        }
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
/// `given_up`: how many uploads of that put were given up before.
pub(crate) fn given_upload(id: &str, step: &str, given_up: u32) -> UploadId {
    match given_up {
        0 => UploadId(derive("upload", id, step)),
        again => UploadId(derive(&format!("upload {again}"), id, step)),
    }
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
    use crate::error::Code;

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
            given_upload("x", "", 0).0,
            "purposes are apart"
        );
        assert_ne!(given_upload("x", "", 0), given_upload("x", "", 1));
    }

    #[test]
    fn an_automatic_name_is_the_place_where_it_travelled() {
        let id = OpId {
            session: SessionId([0xab; 16]),
            lane: Lane(6),
            seq: OpSeq(9),
        };
        assert_eq!(OpId::named(&id.to_string(), "").unwrap(), id);
        assert_eq!(OpId::named("x.1", "/a").unwrap(), OpId::given("x.1", "/a"));
        for (text, step) in [(id.to_string(), "/a"), (format!("{id}.0"), "")] {
            assert_eq!(OpId::named(&text, step).unwrap_err().code, Code::Usage);
        }
    }
}
