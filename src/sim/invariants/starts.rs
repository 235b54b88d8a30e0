//! No node refuses to start: not on a disk that is whole, as it would have lost something, and not
//! on one that was damaged, as others have what is missing.

use crate::error::Code;
use crate::sim::cluster::Refusal;
use crate::sim::run::Run;
use std::time::Duration;

/// Until the operator has put a new disk in.
const NEW_DISK_AFTER: Duration = Duration::from_secs(1);

pub fn check(run: &mut Run) {
    for refusal in run.cluster.take_refusals() {
        let Refusal { node, error, made } = &refusal;
        let corrupt = error.code == Code::Corrupt;
        if corrupt && run.rotten.contains(node) && *made {
            // Only one node is ever damaged, and the others have everything it needs; but it can
            // read nothing of a log whose salt is damaged at all three places.
            let unsalted = error
                .message
                .contains("and the copy of the salt are damaged");
            if !unsalted {
                let text = format!("node {node} is not mended: {error}");
                run.violations.push(text);
            }
            run.wipe(*node, NEW_DISK_AFTER);
            continue;
        }
        // Joining needs others, who may be ill themselves.
        let joining = !made && !corrupt;
        let ill = run.ill.contains(node) && (!corrupt || run.recorder.had_damage());
        if !joining && !ill && !is_leaving(run, *node) {
            let text = format!("node {node} refuses to start: {:?} {error}", error.code);
            run.violations.push(text);
        }
    }
}

/// The operator was asked to remove it, and may have done so.
fn is_leaving(run: &Run, node: usize) -> bool {
    run.leaving.contains_key(&node)
}
