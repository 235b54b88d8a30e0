//! Pure: whether a node still says anything.

use std::time::Duration;

/// A node that was asked something and has said nothing for this long is asked last. A live one
/// answers within a round trip, or a disk's flush or two.
const SILENT_AFTER: Duration = Duration::from_millis(500);
/// Then it gets another chance: it may have been stopped for a while only.
const FORGIVEN_AFTER: Duration = Duration::from_secs(10);

/// What was asked and not answered by anything yet.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    /// When the first request went out that no sign of life came after.
    asked: Option<Duration>,
}

impl Pulse {
    pub(super) fn asked(&mut self, now: Duration) {
        let waits = |at: Duration| now.saturating_sub(at) <= FORGIVEN_AFTER;
        if !self.asked.is_some_and(waits) {
            self.asked = Some(now);
        }
    }

    /// Whatever came from the node, it lives.
    pub(super) fn heard(&mut self) {
        self.asked = None;
    }

    pub(super) fn is_silent(&self, now: Duration) -> bool {
        self.asked.is_some_and(|at| {
            let silence = now.saturating_sub(at);
            (SILENT_AFTER..=FORGIVEN_AFTER).contains(&silence)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_begins_with_the_first_open_question_and_is_forgiven() {
        let mut pulse = Pulse::default();
        let at = Duration::from_millis;
        assert!(!pulse.is_silent(at(9_000)), "nothing was asked");
        pulse.asked(at(1_000));
        pulse.asked(at(1_400));
        assert!(!pulse.is_silent(at(1_499)));
        assert!(pulse.is_silent(at(1_500)));
        pulse.heard();
        assert!(!pulse.is_silent(at(1_500)));
        pulse.asked(at(2_000));
        assert!(pulse.is_silent(at(12_000)));
        assert!(!pulse.is_silent(at(12_001)), "another chance");
        pulse.asked(at(12_001));
        assert!(!pulse.is_silent(at(12_500)));
        assert!(pulse.is_silent(at(12_501)));
    }
}
