//! Nodes that were to go are gone, and all others serve.

use crate::sim::operator::Job;
use crate::sim::run::Run;
use std::time::Duration;

/// Draining moves everything, and a node that was lost is replaced after some seconds of silence.
const MOVED_MAX: Duration = Duration::from_secs(180);

pub fn check(run: &mut Run) {
    wait(run, "done by the operator", |run| run.operator.is_idle());
    // Those who were removed were refused until now; nobody else may be.
    run.look();
    for (node, id) in std::mem::take(&mut run.leaving) {
        // It may have been wiped meanwhile, and be another.
        if run.cluster.id_of(node) == Some(id) && run.operator.has_removed(id) {
            run.cluster.set_used(node, false);
        }
    }
    let serving = |run: &Run| {
        let mut used = run.cluster.used().into_iter();
        used.all(|node| run.cluster.is_serving(node))
    };
    wait(run, "serving", serving);
    // An attempt to join that was cut off leaves a node that nobody is.
    let used = run.cluster.used().into_iter();
    let known = used.filter_map(|node| run.cluster.id_of(node)).collect();
    run.operator.ask(Job::Keep(known));
    if run.recorder.had_damage() {
        run.operator.ask(Job::Scrub);
    }
    wait(run, "done by the operator", |run| run.operator.is_idle());
}

fn wait(run: &mut Run, what: &str, done: impl Fn(&Run) -> bool) {
    let end = run.cluster.world.now() + MOVED_MAX;
    while !done(run) {
        if run.cluster.world.now() >= end {
            let why = run.operator.complaint();
            let text = format!("not {what} within {MOVED_MAX:?} ({why})");
            run.violations.push(text);
            return;
        }
        run.cluster.step();
        run.look();
    }
}
