//! A leader is elected by most voters of its group, and each has synced its vote before it told:
//! whatever ends and starts again, too few for another election go back behind that term.

use crate::sim::run::Run;
use crate::types::{GroupId, NodeId, ReplicaId};
use std::collections::BTreeMap;

/// For so many looks, a millisecond each: a replica that was just opened says nothing yet, and an
/// election takes longer.
const LOOKS: u32 = 30;

/// The last election of a group.
pub struct Elected {
    term: u64,
    voters: Vec<(ReplicaId, NodeId)>,
    /// Looks in a row at which too many had forgotten it.
    forgotten: u32,
}

pub fn check(run: &mut Run) {
    if run.recorder.had_damage() {
        // One node may have lost anything, and another may have slept through the election.
        return;
    }
    let mut terms: BTreeMap<(GroupId, ReplicaId), u64> = BTreeMap::new();
    for number in run.cluster.used() {
        for standing in run.cluster.standings(number) {
            let status = standing.status;
            terms.insert((status.group, status.replica), status.term);
            let known = run.elected.get(&status.group);
            let newer = known.is_none_or(|known| known.term < status.term);
            if standing.leads && !standing.joint && newer {
                let elected = Elected {
                    term: status.term,
                    voters: status.voters,
                    forgotten: 0,
                };
                run.elected.insert(status.group, elected);
            }
        }
    }
    for (group, elected) in &mut run.elected {
        let voters = elected.voters.iter();
        let terms = voters.filter_map(|(replica, _)| terms.get(&(*group, *replica)));
        let forgotten = terms.filter(|term| **term < elected.term).count();
        let most = elected.voters.len() / 2 + 1;
        if forgotten + most <= elected.voters.len() {
            elected.forgotten = 0;
            continue;
        }
        elected.forgotten += 1;
        if elected.forgotten == LOOKS {
            let text = format!(
                "{forgotten} of {} voters of group {group} do not know the term {} any more",
                elected.voters.len(),
                elected.term
            );
            run.violations.push(text);
        }
    }
}
