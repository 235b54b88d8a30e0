//! Replicas of a group reach the same index, and at the same index they hold the same records.

use crate::sim::run::Run;
use crate::types::GroupId;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Followers have everything within this time.
const SAME_MAX: Duration = Duration::from_secs(20);
/// Between two looks: each reads all records.
const LOOK: Duration = Duration::from_millis(200);

pub fn check(run: &mut Run) {
    let end = run.cluster.world.now() + SAME_MAX;
    while !look(run) {
        if run.cluster.world.now() >= end {
            let text =
                format!("replicas are at different indexes {SAME_MAX:?} after the last change");
            run.violations.push(text);
            return;
        }
        run.cluster.run_until(LOOK, |_| false);
    }
}

/// True if all replicas of each group are at one index.
fn look(run: &mut Run) -> bool {
    let mut known = BTreeMap::new();
    let mut indexes: BTreeMap<GroupId, BTreeSet<u64>> = BTreeMap::new();
    for node in run.cluster.used() {
        let states = match run.cluster.states(node) {
            Some(Ok(states)) => states,
            Some(Err(error)) => {
                let text = format!("node {node} cannot read its records: {error}");
                run.violations.push(text);
                continue;
            }
            None => continue,
        };
        let now = run.cluster.world.now();
        let trace = &run.cluster.trace;
        trace.note(now, format_args!("node {node} holds {states:?}"));
        for (group, index, hash) in states {
            indexes.entry(group).or_default().insert(index);
            let first = *known.entry((group, index)).or_insert((node, hash));
            if first.1 != hash {
                let (a, b) = (first.0, node);
                let text = format!("group {group} at {index} differs on nodes {a} and {b}");
                run.violations.push(text);
            }
        }
    }
    indexes.values().all(|indexes| indexes.len() == 1)
}
