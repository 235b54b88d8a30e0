//! Random operations of several groups, with restarts, against plain maps.

use super::{all, append, at, long, open, run};
use crate::env::sim::SimDisk;
use crate::store::wal::{LogEntry, LogPosition};
use crate::types::{GroupId, LogIndex};
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
enum Op {
    Append {
        group: u64,
        entries: usize,
        len: usize,
        wait: bool,
    },
    Truncate {
        group: u64,
        back: u64,
    },
    Purge {
        group: u64,
        part: u64,
    },
    Vote {
        group: u64,
    },
    Committed {
        group: u64,
    },
    Remove {
        group: u64,
    },
    Close,
    Kill,
    Idle,
}

fn op() -> impl Strategy<Value = Op> {
    let group = 1..4u64;
    prop_oneof![
        12 => (group.clone(), 1..6usize, 0..1_500usize, any::<bool>())
            .prop_map(|(group, entries, len, wait)| Op::Append { group, entries, len, wait }),
        2 => (group.clone(), 0..5u64).prop_map(|(group, back)| Op::Truncate { group, back }),
        4 => (group.clone(), 0..5u64).prop_map(|(group, part)| Op::Purge { group, part }),
        2 => group.clone().prop_map(|group| Op::Vote { group }),
        2 => group.clone().prop_map(|group| Op::Committed { group }),
        1 => group.prop_map(|group| Op::Remove { group }),
        1 => Just(Op::Close),
        1 => Just(Op::Kill),
        1 => Just(Op::Idle),
    ]
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    purged: Option<LogPosition>,
    entries: Vec<LogEntry>,
    vote: Option<Bytes>,
    committed: Option<Bytes>,
}

impl Model {
    fn last(&self) -> LogPosition {
        let last = self.entries.last().map(|e| e.position);
        last.or(self.purged).unwrap_or_default()
    }
}

async fn play(ops: Vec<Op>) {
    let mut disk = SimDisk::new(3);
    let (mut wal, _) = open(&disk).await;
    let mut model: BTreeMap<GroupId, Model> = BTreeMap::new();
    for (term, op) in (1u64..).zip(ops) {
        match op {
            Op::Append {
                group,
                entries,
                len,
                wait,
            } => {
                let group = GroupId(group);
                let target = model.entry(group).or_default();
                let first = target.last().index.0 + 1;
                let new: Vec<LogEntry> = (first..first + entries as u64)
                    .map(|i| long(group, term, i, len))
                    .collect();
                target.entries.extend(new.clone());
                if wait {
                    append(&wal, group, new).await.unwrap();
                    assert_eq!(wal.synced(group), target.last().index);
                } else {
                    wal.append(group, new, Box::new(|done| done.unwrap()))
                        .unwrap();
                }
            }
            Op::Truncate { group, back } => {
                let group = GroupId(group);
                let Some(target) = model.get_mut(&group) else {
                    continue;
                };
                let keep = target.entries.len().saturating_sub(back as usize);
                target.entries.truncate(keep);
                let last = Some(target.last()).filter(|last| last.index > LogIndex(0));
                wal.truncate_after(group, last).await.unwrap();
                assert!(wal.synced(group) <= target.last().index);
            }
            Op::Purge { group, part } => {
                let group = GroupId(group);
                let target = model.entry(group).or_default();
                let upto = match target.entries.get(target.entries.len() * part as usize / 4) {
                    Some(entry) => entry.position,
                    // Behind the end: what a seed or an image does.
                    None => at(term, target.last().index.0 + 3),
                };
                target.entries.retain(|e| e.position.index > upto.index);
                target.purged = Some(upto);
                wal.purge(group, upto).await.unwrap();
            }
            Op::Vote { group } => {
                let vote = Bytes::from(format!("vote {term}"));
                model.entry(GroupId(group)).or_default().vote = Some(vote.clone());
                wal.save_vote(GroupId(group), vote).await.unwrap();
            }
            Op::Committed { group } => {
                let committed = Bytes::from(format!("committed {term}"));
                model.entry(GroupId(group)).or_default().committed = Some(committed.clone());
                wal.save_committed(GroupId(group), committed);
            }
            Op::Remove { group } => {
                model.remove(&GroupId(group));
                wal.remove_group(GroupId(group)).await.unwrap();
            }
            Op::Close => {
                wal.close().await;
                disk = disk.kill();
                wal = open(&disk).await.0;
            }
            Op::Kill => {
                // Long enough that everything is written, committed positions too.
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                disk = disk.kill();
                wal = open(&disk).await.0;
            }
            Op::Idle => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
        }
        compare(&wal, &model).await;
    }
}

async fn compare(wal: &super::Wal, model: &BTreeMap<GroupId, Model>) {
    assert_eq!(wal.damaged(), []);
    assert_eq!(wal.groups(), model.keys().copied().collect::<Vec<_>>());
    for (group, target) in model {
        let state = wal.state(*group);
        assert!(!state.doubtful_tail);
        let found = Model {
            purged: state.purged,
            entries: all(wal, *group).await.unwrap(),
            vote: state.vote,
            committed: state.committed,
        };
        assert_eq!(&found, target, "group {group}");
        assert_eq!(state.last.unwrap_or_default(), target.last());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]
    #[test]
    fn the_log_is_what_a_plain_map_is(ops in proptest::collection::vec(op(), 1..60)) {
        run(play(ops));
    }
}
