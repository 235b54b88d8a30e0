//! Pure: a ring epoch as it is stored and sent: who is a member, with what weight, and where it
//! stands. Made by the root group, read by everybody who builds a [`super::Ring`]. May not know
//! tokens or walks.

use crate::codec;
use crate::error::{Code, Error, Result};
use crate::limits::{GIB, PLACE_BYTES_MAX, RING_MEMBERS_MAX};
use crate::types::{self, NodeId};
use serde::{Deserialize, Serialize};

/// Bytes of one unit of weight. A weight is a u32, so that nodes may have up to 4 EiB.
pub const UNIT_BYTES: u64 = GIB;

/// Tokens of a node that has the epoch's [`Epoch::base`] as its weight. The share of a node with n
/// tokens varies by 1/√n of itself where there are as many zones as copies, because each token then
/// stands for one copy of one stretch; without zones by 1/√(3n) with three copies. So the fullest
/// of 1,000 equal nodes has 4 to 5 % more than its part, or 2 to 3 %. 4,000 tokens were measured to
/// give 5.4 % with zones.
pub const TOKENS_PER_NODE: u64 = 6_000;

/// How far the mean weight may leave the base before a new epoch takes another base: members then
/// have 3,000 to 12,000 tokens on average.
const BASE_DRIFT: u64 = 2;

/// One node of an epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub node: NodeId,
    /// Capacity in units of [`UNIT_BYTES`], as it was declared: free space, which changes all the
    /// time, would move data all the time. 0 holds nothing.
    pub weight: u32,
    /// What fails together as a whole, a data centre for example. Empty: not known.
    pub zone: String,
    /// What fails together within a zone. The same name in two zones is two racks. Empty: not
    /// known.
    pub rack: String,
}

/// Weight of a capacity in bytes, rounded up, so that a node with any capacity holds something.
pub fn weight_of(capacity_bytes: u64) -> u32 {
    u32::try_from(capacity_bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX)
}

/// The members at one time, and all that a ring is built from.
///
/// Invariants, held by [`Epoch::check`]:
/// 1. Members stand in the order of their node ids, none twice.
/// 2. There are at most `RING_MEMBERS_MAX`.
/// 3. Zone and rack have at most `PLACE_BYTES_MAX` bytes.
/// 4. The base is at least 1, and the mean weight at most twice the base: this
///    bounds the memory of the ring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epoch {
    /// Its number; each change of the members makes the next.
    pub epoch: types::Epoch,
    /// The weight, in units, that gets [`TOKENS_PER_NODE`] tokens. Stored and handed on from epoch
    /// to epoch, because tokens that followed the mean weight of the day would move chunks between
    /// nodes that have not changed.
    pub base: u32,
    #[serde(deserialize_with = "codec::at_most::<_, _, RING_MEMBERS_MAX>")]
    pub members: Vec<Member>,
}

impl Epoch {
    /// The first epoch of a cluster: its number is 1, its base the mean weight.
    pub fn first(members: Vec<Member>) -> Result<Epoch> {
        Self::new(types::Epoch(1), mean_weight(&members), members)
    }

    /// The epoch after this one, with these members in any order. The base stays while members
    /// have 3,000 to 12,000 tokens on average; beyond that it becomes the mean weight, and about
    /// half of all chunks move (none in a cluster of no more nodes than copies). This happens
    /// where the mean capacity of all nodes has doubled or halved since the last time.
    pub fn next(&self, members: Vec<Member>) -> Result<Epoch> {
        let (sum, count) = weights(&members);
        let usual = u64::from(self.base) * count;
        let fits = sum <= usual * BASE_DRIFT && sum * BASE_DRIFT >= usual;
        let base = if fits {
            self.base
        } else {
            mean_weight(&members)
        };
        Self::new(self.epoch.next(), base, members)
    }

    fn new(epoch: types::Epoch, base: u32, mut members: Vec<Member>) -> Result<Epoch> {
        members.sort_by_key(|member| member.node);
        let made = Epoch {
            epoch,
            base,
            members,
        };
        match made.problem() {
            None => Ok(made),
            Some(problem) => Err(Error::failed(format!("no ring of these nodes ({problem})"))),
        }
    }

    /// Whether the invariants hold; for epochs that come from the disk or the network.
    pub fn check(&self) -> Result<()> {
        match self.problem() {
            None => Ok(()),
            Some(problem) => Err(Error::new(
                Code::Corrupt,
                format!("damaged ring epoch {} ({problem})", self.epoch),
            )),
        }
    }

    fn problem(&self) -> Option<String> {
        if self.members.len() > RING_MEMBERS_MAX {
            return Some(format!(
                "{} members, at most {RING_MEMBERS_MAX}",
                self.members.len()
            ));
        }
        if let Some(pair) = self
            .members
            .windows(2)
            .find(|pair| pair[0].node >= pair[1].node)
        {
            let (before, node) = (pair[0].node, pair[1].node);
            return Some(format!("node {node} stands behind node {before}"));
        }
        let long = |name: &str| name.len() > PLACE_BYTES_MAX;
        if let Some(member) = self
            .members
            .iter()
            .find(|member| long(&member.zone) || long(&member.rack))
        {
            return Some(format!(
                "zone or rack of node {} is longer than {PLACE_BYTES_MAX} bytes",
                member.node
            ));
        }
        let (sum, count) = weights(&self.members);
        let most = u64::from(self.base) * count * BASE_DRIFT;
        if self.base == 0 || sum > most {
            return Some(format!(
                "base {} for {count} members of together {sum}",
                self.base
            ));
        }
        None
    }

    /// Tokens of a member of this weight: in proportion, but at least one.
    pub(super) fn tokens(&self, weight: u32) -> u32 {
        if weight == 0 {
            return 0;
        }
        let base = u64::from(self.base);
        let tokens = (u64::from(weight) * TOKENS_PER_NODE + base / 2) / base;
        u32::try_from(tokens.max(1)).expect("at most 12,000 times 20,000 by invariants 2 and 4")
    }
}

/// Sum of the weights, and how many members have one. Fits: 2^32 × 2^32.
fn weights(members: &[Member]) -> (u64, u64) {
    let held = members.iter().map(|member| u64::from(member.weight));
    held.filter(|weight| *weight > 0)
        .fold((0u64, 0u64), |(sum, count), weight| {
            (sum.saturating_add(weight), count + 1)
        })
}

/// Of the members that hold something, rounded; 1 if there are none.
fn mean_weight(members: &[Member]) -> u32 {
    let (sum, count) = weights(members);
    let mean = (sum + count / 2).checked_div(count).unwrap_or(1);
    u32::try_from(mean.max(1)).expect("a mean is not above the largest")
}
