//! Lanes: the numbers under which changes travel (`shard/mod.rs`, "Exactly once"). No I/O.
//!
//! Invariants of [`Sessions`]:
//! 1. A (session, lane) is held by at most one request at a time.
//! 2. Its sequences grow by one from 1 and none is given twice.
//! 3. A lane whose request did not end with an answer is never given again.
//! 4. A lane is given only while its session met the shard less than half the horizon ago by
//!    our clock, so that a request is never sent for which the shard might have forgotten rows.

use super::opid::OpId;
use crate::env::Rng;
use crate::limits::{SESSION_HORIZON_MS, SESSION_LANES_MAX};
use crate::types::{GroupId, Lane, OpSeq, SessionId, ShardTime};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a session is used, by our clock.
const SESSION_LIFE: Duration = Duration::from_millis(SESSION_HORIZON_MS / 2);

/// The right to send one request. Give it back with [`Sessions::done`] once it was answered;
/// dropped otherwise, its lane is not used again.
#[derive(Debug)]
#[must_use]
pub(crate) struct LaneLease {
    shard: GroupId,
    session: SessionId,
    lane: Lane,
    seq: OpSeq,
    met: ShardTime,
    /// When the session was made, by our clock.
    born: Duration,
}

impl LaneLease {
    pub(crate) fn id(&self) -> OpId {
        OpId {
            session: self.session,
            lane: self.lane,
            seq: self.seq,
        }
    }

    /// Shard time at which the session first met the shard.
    pub(crate) fn met(&self) -> ShardTime {
        self.met
    }
}

#[derive(Debug, Default)]
struct ShardLanes {
    idle: Vec<LaneLease>,
    /// The session that has lanes never given yet, and the first of these.
    newest: Option<(SessionId, ShardTime, Duration, u16)>,
}

/// All lanes of a client.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    shards: Mutex<BTreeMap<GroupId, ShardLanes>>,
}

impl Sessions {
    /// A lane for one request to `shard`. `time` is the shard's time (or earlier), if it was
    /// heard lately; it is needed for a new session only.
    ///
    /// `None`: a new session is needed and `time` is not known.
    pub(crate) fn lease(
        &self,
        shard: GroupId,
        time: Option<ShardTime>,
        now: Duration,
        rng: &dyn Rng,
    ) -> Option<LaneLease> {
        let young = |born: Duration| now.saturating_sub(born) < SESSION_LIFE;
        let mut shards = self.shards.lock();
        let lanes = shards.entry(shard).or_default();
        while let Some(lane) = lanes.idle.pop() {
            if young(lane.born) {
                return Some(lane);
            }
        }
        let (session, met, born, lane) = match lanes.newest {
            Some(newest) if young(newest.2) && newest.3 < SESSION_LANES_MAX => newest,
            _ => (SessionId(rng.bytes16()), time?, now, 0),
        };
        lanes.newest = Some((session, met, born, lane + 1));
        Some(LaneLease {
            shard,
            session,
            lane: Lane(lane),
            seq: OpSeq(1),
            met,
            born,
        })
    }

    /// The request was answered: the lane may carry the next one.
    pub(crate) fn done(&self, mut lease: LaneLease) {
        lease.seq = lease.seq.next();
        let mut shards = self.shards.lock();
        shards.entry(lease.shard).or_default().idle.push(lease);
    }

    /// The shard says that our sessions are older than what it remembers: none is used again.
    pub(crate) fn forget(&self, shard: GroupId) {
        self.shards.lock().remove(&shard);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::sim::SeededRng;
    use proptest::prelude::*;
    use std::collections::{BTreeSet, HashMap};

    const SHARD: GroupId = GroupId(1);

    #[derive(Clone, Debug)]
    enum Step {
        Lease,
        Done(usize),
        Lose(usize),
        Wait(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => Just(Step::Lease),
            3 => (0usize..100).prop_map(Step::Done),
            1 => (0usize..100).prop_map(Step::Lose),
            1 => (0u64..20).prop_map(Step::Wait),
        ];
        prop::collection::vec(step, 1..400)
    }

    proptest! {
        /// Invariants 1 to 4 against a list of everything ever given.
        #[test]
        fn lanes_are_never_shared_reused_or_stale(steps in steps()) {
            let (rng, sessions) = (SeededRng::new(3), Sessions::default());
            let mut now = Duration::ZERO;
            let mut held: Vec<LaneLease> = Vec::new();
            let mut given = BTreeSet::new();
            let mut next: HashMap<(SessionId, Lane), u64> = HashMap::new();
            let mut lost = BTreeSet::new();
            for step in steps {
                match step {
                    Step::Lease => {
                        let time = ShardTime(now.as_millis() as u64);
                        let lease = sessions.lease(SHARD, Some(time), now, &rng).unwrap();
                        let key = (lease.session, lease.lane);
                        prop_assert!(lease.lane.0 < SESSION_LANES_MAX);
                        prop_assert!(held.iter().all(|l| (l.session, l.lane) != key), "1");
                        let seq = next.entry(key).or_insert(1);
                        prop_assert_eq!(lease.seq.0, *seq, "2");
                        *seq += 1;
                        prop_assert!(given.insert((key, lease.seq)), "2");
                        prop_assert!(!lost.contains(&key), "3");
                        prop_assert!(now - Duration::from_millis(lease.met.0) < SESSION_LIFE, "4");
                        held.push(lease);
                    }
                    Step::Done(at) if !held.is_empty() => {
                        let lease = held.swap_remove(at % held.len());
                        sessions.done(lease);
                    }
                    Step::Lose(at) if !held.is_empty() => {
                        let lease = held.swap_remove(at % held.len());
                        lost.insert((lease.session, lease.lane));
                    }
                    Step::Wait(minutes) => now += Duration::from_secs(60 * minutes),
                    Step::Done(_) | Step::Lose(_) => {}
                }
            }
        }
    }

    #[test]
    fn more_requests_at_once_than_lanes_take_a_second_session() {
        let (rng, sessions) = (SeededRng::new(1), Sessions::default());
        let leases: Vec<_> = (0..SESSION_LANES_MAX + 1)
            .map(|_| {
                let time = Some(ShardTime(7));
                sessions.lease(SHARD, time, Duration::ZERO, &rng).unwrap()
            })
            .collect();
        let names: BTreeSet<_> = leases.iter().map(|lease| lease.session).collect();
        assert_eq!(names.len(), 2);
    }

    #[test]
    fn a_new_session_needs_the_shards_time() {
        let (rng, sessions) = (SeededRng::new(1), Sessions::default());
        assert!(sessions.lease(SHARD, None, Duration::ZERO, &rng).is_none());
        let time = Some(ShardTime(7));
        let lease = sessions.lease(SHARD, time, Duration::ZERO, &rng).unwrap();
        sessions.done(lease);
        let again = sessions.lease(SHARD, None, Duration::ZERO, &rng).unwrap();
        assert_eq!((again.seq, again.met), (OpSeq(2), ShardTime(7)));
    }
}
