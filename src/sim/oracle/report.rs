//! Pure: a history that cannot be right, for people. Called by `run`.

use crate::sim::history::{Event, Outcome};
use std::fmt::Write;

/// All operations in the order of their calls; `+` marks those of the longest order that fits:
/// what keeps the others out is mostly the first without.
pub fn report(directory: u32, events: &[Event], longest: &[usize]) -> String {
    let mut lines: Vec<(u64, usize)> = (events.iter().enumerate())
        .map(|(at, event)| (event.invoked, at))
        .collect();
    lines.sort_unstable();
    let mut text = format!("directory {directory} is not linearizable:\n");
    for (_, at) in lines {
        let event = &events[at];
        let place = longest.iter().position(|taken| *taken == at);
        let mark = match (place, &event.outcome) {
            (Some(place), _) => format!("+{place}"),
            (None, Outcome::Told(_)) => "-".to_owned(),
            (None, _) => String::new(),
        };
        let end = event.ends().map_or("...".to_owned(), |end| end.to_string());
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{mark:>4} {:>6}..{end:<6} client {}: {:?} => {:?}",
            event.invoked, event.client, event.ask, event.outcome
        );
    }
    text
}
