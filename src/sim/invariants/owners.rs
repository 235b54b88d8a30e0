//! The id of a replica is one node's and never becomes another's: what a replica has voted and
//! acknowledged is kept under it.

use crate::sim::run::Run;

pub fn check(run: &mut Run) {
    for number in run.cluster.used() {
        let Some(node) = run.cluster.id_of(number) else {
            continue;
        };
        for standing in run.cluster.standings(number) {
            let (group, replica) = (standing.status.group, standing.status.replica);
            let owner = *run.owners.entry((group, replica)).or_insert(node);
            if owner != node {
                let text = format!(
                    "replica {replica} of group {group} was node {owner}'s and is node {node}'s"
                );
                run.violations.push(text);
                // Told once.
                run.owners.insert((group, replica), node);
            }
        }
    }
}
