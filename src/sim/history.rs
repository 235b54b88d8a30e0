//! Pure: what clients asked and what they were told, in the order in which it happened. Filled by
//! `workload`, judged by `oracle`.
//!
//! Everything happens in directories of a few names; no operation touches two directories, so
//! each directory's history is judged by itself.

use crate::error::Code;
use std::collections::BTreeMap;

/// A name in a directory: its number.
pub type NameId = u8;
/// Names that a directory may have.
pub const NAMES: [&str; 4] = ["a", "b", "c", "d"];
/// Which content: the number of the operation that made it.
pub type ContentId = u32;

/// What a put demands of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    Absent,
    Version(u64),
    /// Whatever the client finds first must still be there.
    Found,
}

/// What was asked of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    Put {
        name: NameId,
        content: ContentId,
        over: Over,
        /// In chunks: reserved first, committed later.
        chunked: bool,
    },
    /// The bytes of the current version.
    Get {
        name: NameId,
    },
    Stat {
        name: NameId,
    },
    Versions {
        name: NameId,
    },
    /// A file; at this version, if one is given.
    Remove {
        name: NameId,
        version: Option<u64>,
    },
    Rename {
        from: NameId,
        to: NameId,
        /// A file may replace a file.
        replace: bool,
    },
    Mkdir {
        name: NameId,
    },
    Rmdir {
        name: NameId,
    },
    List,
}

impl Ask {
    /// Changes nothing.
    pub fn is_read(self) -> bool {
        matches!(
            self,
            Ask::Get { .. } | Ask::Stat { .. } | Ask::Versions { .. } | Ask::List
        )
    }
}

/// A file as somebody saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// `None`: it was not told.
    pub inode: Option<u64>,
    pub version: u64,
    pub content: ContentId,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thing {
    File(Seen),
    Dir,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// A put's file.
    Wrote {
        inode: u64,
        version: u64,
    },
    /// Done; nothing more is known of it.
    Done,
    /// A get's or stat's.
    Is(Thing),
    /// Newest first.
    Versions(Vec<(u64, ContentId)>),
    Names(BTreeMap<NameId, Thing>),
    /// It was judged and refused.
    Refused(Code),
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Told(Told),
    /// It certainly has no effect, and says nothing about the state.
    NotDone,
    /// It may have happened, or may still happen, or never will: so with whoever got no answer.
    Unknown,
}

/// One operation. Moments are numbers in the order in which things happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub client: usize,
    pub ask: Ask,
    pub invoked: u64,
    /// When the answer came; without a meaning for [`Outcome::Unknown`].
    pub returned: u64,
    pub outcome: Outcome,
}

impl Event {
    /// Before this moment it has had its effect, if it has one.
    pub fn ends(&self) -> Option<u64> {
        match self.outcome {
            Outcome::Told(_) => Some(self.returned),
            Outcome::NotDone | Outcome::Unknown => None,
        }
    }
}
