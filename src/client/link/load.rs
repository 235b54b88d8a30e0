//! Pure: how busy a node is with our transfers, and which of several to take for the next one.

use crate::types::NodeId;
use std::time::Duration;

/// The throughput is measured over at least this much time with something in flight.
const MEASURED_OVER: Duration = Duration::from_millis(100);
/// Bytes a second assumed of a node that was not measured yet: fast, so that it is tried.
const RATE_ASSUMED: f64 = 1e9;
/// No measurement falls below this, so that a node that stood still is tried again.
const RATE_MIN: f64 = 1e6;
/// The newest measurement's part of the smoothed one.
const NEWEST: f64 = 0.25;
/// Each place further back in the order of preference makes a node seem slower by this part.
const PLACE_COST: f64 = 0.25;

/// What travels between us and one node.
#[derive(Debug)]
pub(crate) struct Load {
    /// Bytes asked for or being sent, and not there yet.
    in_flight: u64,
    /// Bytes a second, smoothed; `None`: not measured yet.
    rate: Option<f64>,
    /// Since when something is in flight without a pause, or since the last measurement.
    busy_since: Duration,
    /// Bytes that came since then.
    moved: u64,
}

/// A node that could do the next transfer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) node: NodeId,
    /// It seems to be dead: taken when nobody else is left.
    pub(super) doubtful: bool,
    /// Seconds that `bytes` more would take there.
    pub(super) seconds: f64,
}

impl Load {
    pub(super) fn new() -> Self {
        Load {
            in_flight: 0,
            rate: None,
            busy_since: Duration::ZERO,
            moved: 0,
        }
    }

    pub(super) fn begin(&mut self, bytes: u64, now: Duration) {
        if self.in_flight == 0 {
            self.busy_since = now;
            self.moved = 0;
        }
        self.in_flight = self.in_flight.saturating_add(bytes);
    }

    /// So many of the bytes in flight are there.
    pub(super) fn moved(&mut self, bytes: u64, now: Duration) {
        self.in_flight = self.in_flight.saturating_sub(bytes);
        self.moved = self.moved.saturating_add(bytes);
        let busy = now.saturating_sub(self.busy_since);
        if busy >= MEASURED_OVER {
            let measured = (self.moved as f64 / busy.as_secs_f64()).max(RATE_MIN);
            let before = self.rate.unwrap_or(measured);
            self.rate = Some(before + (measured - before) * NEWEST);
            self.busy_since = now;
            self.moved = 0;
        }
    }

    /// These bytes will not come.
    pub(super) fn gave_up(&mut self, bytes: u64) {
        self.in_flight = self.in_flight.saturating_sub(bytes);
    }

    /// How long `bytes` more would take, behind what is in flight.
    pub(super) fn seconds(&self, bytes: u64) -> f64 {
        let ahead = self.in_flight.saturating_add(bytes) as f64;
        ahead / self.rate.unwrap_or(RATE_ASSUMED)
    }
}

/// The best first: live ones, then who would be done soonest; a node further back in the order
/// given must be clearly faster.
pub(super) fn order(candidates: Vec<Candidate>) -> Vec<NodeId> {
    let mut placed: Vec<_> = candidates
        .into_iter()
        .enumerate()
        .map(|(place, one)| {
            let cost = one.seconds * (1.0 + PLACE_COST * place as f64);
            (one.doubtful, cost, place, one.node)
        })
        .collect();
    placed.sort_by(|a, b| {
        let (doubt, cost) = (a.0.cmp(&b.0), a.1.total_cmp(&b.1));
        doubt.then(cost).then(a.2.cmp(&b.2))
    });
    placed.into_iter().map(|(.., node)| node).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: u64 = 1 << 24;

    fn ordered(loads: &[(u64, &Load)]) -> Vec<u64> {
        let candidates = loads.iter().map(|(node, load)| Candidate {
            node: NodeId(*node),
            doubtful: false,
            seconds: load.seconds(CHUNK),
        });
        let ordered = order(candidates.collect());
        ordered.into_iter().map(|node| node.0).collect()
    }

    #[test]
    fn idle_nodes_keep_their_order_and_busy_ones_come_later() {
        let (mut a, mut b, c) = (Load::new(), Load::new(), Load::new());
        assert_eq!(ordered(&[(1, &a), (2, &b), (3, &c)]), [1, 2, 3]);
        a.begin(CHUNK, Duration::ZERO);
        assert_eq!(ordered(&[(1, &a), (2, &b), (3, &c)]), [2, 3, 1]);
        b.begin(CHUNK, Duration::ZERO);
        assert_eq!(ordered(&[(1, &a), (2, &b), (3, &c)]), [3, 1, 2]);
        a.gave_up(CHUNK);
        assert_eq!(ordered(&[(1, &a), (2, &b), (3, &c)]), [1, 3, 2]);
    }

    #[test]
    fn a_slow_node_comes_behind_a_fast_one_but_is_not_forgotten() {
        let (mut slow, mut fast) = (Load::new(), Load::new());
        let second = Duration::from_secs(1);
        slow.begin(CHUNK, Duration::ZERO);
        slow.moved(CHUNK, 4 * second);
        fast.begin(20 * CHUNK, Duration::ZERO);
        fast.moved(20 * CHUNK, second);
        assert_eq!(ordered(&[(1, &slow), (2, &fast)]), [2, 1]);
        // Enough under way at the fast one makes the slow one worth it.
        fast.begin(200 * CHUNK, 4 * second);
        assert_eq!(ordered(&[(1, &slow), (2, &fast)]), [1, 2]);
    }

    #[test]
    fn doubtful_nodes_are_last() {
        let one = |node, doubtful, seconds| Candidate {
            node: NodeId(node),
            doubtful,
            seconds,
        };
        let ordered = order(vec![one(1, true, 0.0), one(2, false, 9.0)]);
        assert_eq!(ordered, [NodeId(2), NodeId(1)]);
    }
}
