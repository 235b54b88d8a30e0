//! Fetches damaged entries from the nodes that may have them, and what lies behind the end of a log.
//! Part of `mend`; the argument is there.

use super::super::peers::odd;
use super::{ASK_TIMEOUT, Mending, Others, WINDOW};
use crate::error::{Code, Error, Result};
use crate::proto::{PeerAnswer, PeerCall};
use crate::store::wal::{DamagedEntry, LogEntry, LogPosition};
use crate::types::{LogIndex, NodeId};
use futures::future::try_join_all;
use std::collections::{BTreeMap, BTreeSet};

impl Mending {
    /// Takes what others have of the damaged entries; who did not answer.
    pub async fn fetch_damaged(&self, others: &Others) -> BTreeSet<NodeId> {
        let group = self.group;
        let mut silent = BTreeSet::new();
        for (_, host) in others {
            let damaged = self.damaged();
            if damaged.is_empty() {
                break;
            }
            if let Err(error) = self.fetch_from(*host, &damaged).await {
                tracing::debug!(%group, %host, %error, "no entries for a damaged log");
                silent.insert(*host);
            }
        }
        silent
    }

    /// From the end to the beginning: what is known of an entry may depend on the one behind it.
    async fn fetch_from(&self, host: NodeId, damaged: &[DamagedEntry]) -> Result<()> {
        let group = self.group;
        let mut rest = damaged;
        while let Some(last) = rest.last() {
            let window = &rest[rest.len() - last_run(rest)..];
            let behind = last.index.next();
            let fetched = self.fetch(host, window[0].index, behind.next()).await?;
            let right = right_ones(window, self.node.wal.position(group, behind), &fetched);
            let count = right.len();
            let repairs = right
                .into_iter()
                .map(|entry| self.node.wal.repair(group, entry));
            match try_join_all(repairs).await {
                Ok(_) if count > 0 => {
                    tracing::info!(%group, %host, count, "damaged entries of the log are repaired");
                }
                Ok(_) => {}
                // It has another entry than the record here says; others may have the right one.
                Err(error) if error.code == Code::Conflict => {
                    tracing::error!(%group, %host, %error, "another node has another entry");
                }
                Err(error) => return Err(error),
            }
            rest = &rest[..rest.len() - window.len()];
        }
        Ok(())
    }

    /// What a node has of a range of entries.
    pub async fn fetch(
        &self,
        host: NodeId,
        from: LogIndex,
        to: LogIndex,
    ) -> Result<BTreeMap<LogIndex, LogEntry>> {
        let mut fetched = BTreeMap::new();
        let mut at = from;
        while at < to {
            let call = PeerCall::Entries {
                group: self.group,
                from: at,
                to,
            };
            let entries = match self.node.peers.call(host, &call, ASK_TIMEOUT).await {
                Ok(PeerAnswer::Entries(entries)) => entries,
                Ok(other) => return Err(odd(&other)),
                // Damaged there as well, or let go.
                Err(error) if matches!(error.code, Code::Corrupt | Code::NotFound) => {
                    at = at.next();
                    continue;
                }
                Err(error) => return Err(error),
            };
            let Some(last) = entries.last().map(|(_, _, index, _)| *index) else {
                break;
            };
            if last < at {
                return Err(Error::failed("the node gave entries that nobody asked for"));
            }
            at = last.next();
            for (term, leader, index, payload) in entries {
                let position = LogPosition {
                    term,
                    leader,
                    index,
                };
                fetched.insert(index, LogEntry { position, payload });
            }
        }
        Ok(fetched)
    }
}

/// How many damaged entries at the end follow each other, at most [`WINDOW`].
fn last_run(damaged: &[DamagedEntry]) -> usize {
    let neighbours = damaged
        .windows(2)
        .rev()
        .take_while(|pair| pair[0].index.next() == pair[1].index);
    (neighbours.count() + 1).min(WINDOW).min(damaged.len())
}

/// Of what a node gave, the entries that stood where `window` (neighbours) is damaged. `behind`: the
/// position of the entry behind them here, if it is known.
fn right_ones(
    window: &[DamagedEntry],
    behind: Option<LogPosition>,
    fetched: &BTreeMap<LogIndex, LogEntry>,
) -> Vec<LogEntry> {
    let Some(last) = window.last() else {
        return Vec::new();
    };
    let given = |index: LogIndex| fetched.get(&index);
    let follower = given(last.index.next()).map(|entry| entry.position);
    // The entry behind the one that is looked at is the same there and here.
    let mut matches = behind.is_some() && behind == follower;
    let mut right = Vec::new();
    for damaged in window.iter().rev() {
        let entry = given(damaged.index).filter(|entry| match damaged.position {
            Some(known) => entry.position == known,
            None => matches,
        });
        matches = entry.is_some();
        right.extend(entry.cloned());
    }
    right
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::GroupId;
    use bytes::Bytes;

    fn at(term: u64, index: u64) -> LogPosition {
        LogPosition {
            term,
            leader: 1,
            index: LogIndex(index),
        }
    }

    fn damaged(index: u64, known: Option<u64>) -> DamagedEntry {
        DamagedEntry {
            group: GroupId(1),
            index: LogIndex(index),
            position: known.map(|term| at(term, index)),
            place: None,
        }
    }

    fn given(entries: &[(u64, u64)]) -> BTreeMap<LogIndex, LogEntry> {
        let entry = |(term, index): &(u64, u64)| LogEntry {
            position: at(*term, *index),
            payload: Bytes::new(),
        };
        let entries = entries.iter().map(entry);
        entries.map(|entry| (entry.position.index, entry)).collect()
    }

    fn right(window: &[DamagedEntry], behind: Option<LogPosition>, has: &[(u64, u64)]) -> Vec<u64> {
        let right = right_ones(window, behind, &given(has));
        right.iter().map(|entry| entry.position.index.0).collect()
    }

    #[test]
    fn an_entry_of_a_known_position_must_have_it() {
        let window = [damaged(4, Some(2))];
        assert_eq!(right(&window, None, &[(2, 4)]), [4]);
        assert_eq!(right(&window, Some(at(3, 5)), &[(3, 4), (3, 5)]), [0u64; 0]);
    }

    #[test]
    fn an_unknown_position_is_told_by_the_entry_behind() {
        let window = [damaged(4, None), damaged(5, None)];
        let has = [(2, 4), (3, 5), (3, 6)];
        assert_eq!(right(&window, Some(at(3, 6)), &has), [5, 4]);
        assert_eq!(right(&window, Some(at(4, 6)), &has), [0u64; 0]);
        assert_eq!(right(&window, None, &has), [0u64; 0]);
        // What is missing there between tells nothing of what is before it.
        assert_eq!(right(&window, Some(at(3, 6)), &[(2, 4), (3, 6)]), [0u64; 0]);
        let window = [damaged(4, None), damaged(5, Some(3))];
        assert_eq!(right(&window, None, &has), [5, 4]);
    }

    #[test]
    fn neighbours_are_asked_for_together_and_not_too_many() {
        let all = |indexes: &[u64]| -> Vec<DamagedEntry> {
            indexes.iter().map(|index| damaged(*index, None)).collect()
        };
        assert_eq!(last_run(&all(&[3])), 1);
        assert_eq!(last_run(&all(&[1, 3, 4, 5])), 3);
        assert_eq!(last_run(&all(&(1..100).collect::<Vec<_>>())), WINDOW);
    }
}
