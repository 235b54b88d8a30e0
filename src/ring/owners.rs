//! Pure: the nodes that hold a chunk, in order of preference. Returned by the ring; no heap,
//! because it is asked for every chunk.

use crate::limits::COPIES_MAX;
use crate::types::NodeId;
use std::fmt;
use std::ops::Deref;

/// At most `COPIES_MAX` distinct nodes, the primary first. Reads as a slice.
#[derive(Clone, Copy)]
pub struct Owners {
    nodes: [NodeId; COPIES_MAX],
    len: usize,
}

impl Owners {
    pub(super) fn of(nodes: impl Iterator<Item = NodeId>) -> Owners {
        let mut owners = Owners {
            nodes: [NodeId(0); COPIES_MAX],
            len: 0,
        };
        for (place, node) in owners.nodes.iter_mut().zip(nodes) {
            *place = node;
            owners.len += 1;
        }
        owners
    }
}

impl Deref for Owners {
    type Target = [NodeId];

    fn deref(&self) -> &[NodeId] {
        &self.nodes[..self.len]
    }
}

impl PartialEq for Owners {
    fn eq(&self, other: &Self) -> bool {
        self[..] == other[..]
    }
}

impl Eq for Owners {}

impl fmt::Debug for Owners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Members picked so far, by their index among the holders.
#[derive(Clone, Copy, Default)]
pub(super) struct Picks {
    members: [u16; COPIES_MAX],
    len: usize,
}

impl Picks {
    /// The caller asks for at most `COPIES_MAX`.
    pub(super) fn push(&mut self, member: u16) {
        self.members[self.len] = member;
        self.len += 1;
    }
}

impl Deref for Picks {
    type Target = [u16];

    fn deref(&self) -> &[u16] {
        &self.members[..self.len]
    }
}
