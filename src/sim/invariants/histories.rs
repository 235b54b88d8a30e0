//! What clients were told of each directory fits one order of events: nothing acknowledged is lost
//! or undone, nothing happens twice, listings show exactly what was there.

use crate::sim::history::{Event, Outcome};
use crate::sim::oracle::{self, Verdict};
use crate::sim::run::Run;

/// Directories that could not be judged, and requests of unknown outcome.
pub fn check(run: &mut Run) -> (usize, usize) {
    let (mut undecided, mut unknown) = (0, 0);
    for (directory, events) in (0..).zip(run.recorder.directories()) {
        let open = |event: &&Event| event.outcome == Outcome::Unknown;
        unknown += events.iter().filter(open).count();
        match oracle::search(&events) {
            Verdict::Linearizable => {}
            Verdict::Undecided => undecided += 1,
            Verdict::Impossible { longest } => {
                let text = oracle::report(directory, &events, &longest);
                run.violations.push(text);
            }
        }
    }
    (undecided, unknown)
}
