//! A chunk under an epoch of the ring that is closed is refused: who sends it does not know who
//! must have it now.

use crate::node::testing::Offers;
use crate::sim::run::Run;
use std::time::Duration;

/// All have answered within this time.
const ANSWERED_MAX: Duration = Duration::from_secs(5);

pub fn check(run: &mut Run) {
    let told = Offers::default();
    let used = run.cluster.used();
    for node in &used {
        run.cluster.offer_late(*node, &told);
    }
    let all = used.len() * (used.len() - 1);
    run.cluster
        .run_until(ANSWERED_MAX, |_| told.lock().len() >= all);
    for (node, answer) in told.lock().drain(..) {
        if answer.is_ok() {
            let text = format!("node {node} takes a chunk under an epoch that is closed");
            run.violations.push(text);
        }
    }
}
