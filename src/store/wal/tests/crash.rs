//! A scripted run whose power goes at every disk operation, with several outcomes each: whatever
//! was acknowledged is there, or its group says that its tail is doubtful.

use super::{G1, G2, all, append, at, entry, long, open, options, run, try_open};
use crate::env::sim::SimDisk;
use crate::store::wal::{LogEntry, LogPosition, Wal};
use crate::types::{GroupId, LogIndex};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a group was told is durable.
#[derive(Clone, Debug, Default)]
struct Acknowledged {
    entries: BTreeMap<LogIndex, LogEntry>,
    purged: LogPosition,
    vote: u64,
}

/// Plays a script; every step that was acknowledged is noted, and what was tried last.
struct Script {
    wal: Arc<Wal>,
    done: BTreeMap<GroupId, Acknowledged>,
    /// Votes and truncations that were asked for; they may have happened.
    tried_vote: BTreeMap<GroupId, u64>,
    tried_purge: BTreeMap<GroupId, LogIndex>,
    tried_cut: BTreeMap<GroupId, LogIndex>,
}

type Step = Result<(), ()>;

impl Script {
    async fn append(
        &mut self,
        group: GroupId,
        term: u64,
        first: u64,
        count: u64,
        len: usize,
    ) -> Step {
        let entries: Vec<LogEntry> = (first..first + count)
            .map(|i| long(group, term, i, len))
            .collect();
        append(&self.wal, group, entries.clone())
            .await
            .map_err(drop)?;
        let done = &mut self.done.entry(group).or_default().entries;
        done.extend(entries.into_iter().map(|e| (e.position.index, e)));
        Ok(())
    }

    async fn vote(&mut self, group: GroupId, vote: u64) -> Step {
        self.tried_vote.insert(group, vote);
        self.wal
            .save_vote(group, Bytes::from(vote.to_string()))
            .await
            .map_err(drop)?;
        self.done.entry(group).or_default().vote = vote;
        Ok(())
    }

    async fn truncate(&mut self, group: GroupId, last: LogPosition) -> Step {
        self.tried_cut.insert(group, last.index);
        self.wal
            .truncate_after(group, Some(last))
            .await
            .map_err(drop)?;
        self.tried_cut.remove(&group);
        self.done
            .entry(group)
            .or_default()
            .entries
            .retain(|index, _| *index <= last.index);
        Ok(())
    }

    async fn purge(&mut self, group: GroupId, upto: LogPosition) -> Step {
        self.tried_purge.insert(group, upto.index);
        self.wal.purge(group, upto).await.map_err(drop)?;
        let done = self.done.entry(group).or_default();
        done.purged = upto;
        done.entries.retain(|index, _| *index > upto.index);
        Ok(())
    }

    async fn play(&mut self) -> Step {
        self.purge(G1, at(0, 1)).await?;
        self.vote(G1, 1).await?;
        self.append(G1, 1, 2, 3, 100).await?;
        self.append(G2, 1, 1, 2, 700).await?;
        self.vote(G2, 1).await?;
        self.wal.save_committed(G1, Bytes::from_static(b"4"));
        self.append(G1, 1, 5, 4, 900).await?;
        tokio::time::sleep(options().seal_after * 3).await;
        self.truncate(G1, at(1, 6)).await?;
        self.append(G1, 2, 7, 2, 900).await?;
        for round in 0..8 {
            let first = 9 + 5 * round;
            self.append(G1, 2, first, 5, 800).await?;
            self.purge(G1, at(2, first)).await?;
            self.vote(G1, 2 + round).await?;
        }
        tokio::time::sleep(options().seal_after * 3).await;
        self.append(G2, 3, 3, 1, 10).await?;
        Ok(())
    }
}

async fn check(script: &Script, wal: &Wal, what: &str) {
    assert_eq!(wal.damaged(), [], "{what}: a crash is no damage");
    for (group, done) in &script.done {
        let state = wal.state(*group);
        let vote: u64 = state
            .vote
            .as_deref()
            .map_or(0, |v| std::str::from_utf8(v).unwrap().parse().unwrap());
        let tried = script.tried_vote.get(group).copied().unwrap_or_default();
        assert!(
            vote == done.vote || vote == tried,
            "{what}: vote {vote} of {group}: {done:?}"
        );
        let purged = state.purged.unwrap_or_default().index;
        let tried = script.tried_purge.get(group).copied().unwrap_or_default();
        assert!(
            purged == done.purged.index || purged == tried,
            "{what}: {state:?}"
        );
        let found = all(wal, *group).await.unwrap();
        let found: BTreeMap<LogIndex, LogEntry> =
            found.into_iter().map(|e| (e.position.index, e)).collect();
        let cut = script
            .tried_cut
            .get(group)
            .copied()
            .unwrap_or(LogIndex(u64::MAX));
        for (index, entry) in &done.entries {
            if *index > purged && *index <= cut {
                assert_eq!(found.get(index), Some(entry), "{what}: {group}: {state:?}");
            }
        }
    }
}

/// Runs until the power goes at the given operation; checks what each outcome finds.
async fn crash_at(operation: u64, variants: u64) -> bool {
    let disk = SimDisk::new(operation);
    disk.crash_at(operation);
    let Ok((wal, handles)) = try_open(&disk).await else {
        assert!(disk.is_crashed());
        for variant in 0..variants {
            let (wal, _) = open(&disk.crash_variant(variant)).await;
            assert!(wal.groups().is_empty());
        }
        return true;
    };
    let mut script = Script {
        wal,
        done: BTreeMap::new(),
        tried_vote: BTreeMap::new(),
        tried_purge: BTreeMap::new(),
        tried_cut: BTreeMap::new(),
    };
    let ended = script.play().await.is_ok();
    assert_eq!(handles.spawn.panics(), Vec::<String>::new());
    let crashed = disk.is_crashed();
    assert!(ended || crashed);
    handles.spawn.stop();
    for variant in 0..variants {
        let what = format!("power cut at operation {operation}, outcome {variant}");
        let after = disk.crash_variant(variant);
        let (wal, handles) = open(&after).await;
        check(&script, &wal, &what).await;
        // Goes on, and survives another cut.
        let last = wal.state(G1).last.unwrap_or_default().index.0;
        wal.clear_doubt(G1).await.unwrap();
        append(&wal, G1, vec![entry(G1, 9, last + 1)])
            .await
            .unwrap();
        handles.spawn.stop();
        let (wal, _) = open(&after.crash()).await;
        check(&script, &wal, &format!("{what}, again")).await;
        assert!(!wal.state(G1).doubtful_tail, "{what}");
        let new = wal
            .read(G1, LogIndex(last + 1), LogIndex(last + 2), 1)
            .await
            .unwrap();
        assert_eq!(new, [entry(G1, 9, last + 1)], "{what}");
    }
    crashed
}

#[test]
fn whatever_was_acknowledged_survives_a_power_cut_at_every_operation() {
    let mut operation = 1;
    while run(crash_at(operation, 4)) {
        operation += 1;
    }
    assert!(operation > 100, "only {operation} operations");
}

/// A cut while opening after a cut: the second start finds the same as the first would have.
#[test]
fn a_power_cut_while_opening_loses_nothing() {
    run(async {
        for operation in 1..12 {
            let disk = SimDisk::new(operation);
            let (wal, handles) = open(&disk).await;
            append(&wal, G1, vec![entry(G1, 1, 1), entry(G1, 1, 2)])
                .await
                .unwrap();
            wal.save_vote(G1, Bytes::from_static(b"v")).await.unwrap();
            handles.spawn.stop();
            let disk = disk.crash();
            disk.crash_at(operation);
            let _ = try_open(&disk).await;
            let (wal, _) = open(&disk.crash()).await;
            assert_eq!(all(&wal, G1).await.unwrap().len(), 2);
            assert_eq!(wal.state(G1).vote.as_deref(), Some(&b"v"[..]));
            assert!(wal.damaged().is_empty());
        }
    });
}

/// Entries of group 1 are synced; a write for group 2 is cut off, whatever of it remains.
#[test]
fn a_torn_last_write_puts_only_its_own_groups_in_doubt_and_says_it_was_not_written() {
    run(async {
        let mut doubted = 0;
        let mut blank = 0;
        for seed in 0..60 {
            let disk = SimDisk::new(seed);
            let (wal, handles) = open(&disk).await;
            append(&wal, G1, vec![entry(G1, 1, 1)]).await.unwrap();
            append(&wal, G2, vec![entry(G2, 1, 1)]).await.unwrap();
            tokio::time::sleep(options().seal_after * 3).await;
            // The write of the batch, not its sync.
            disk.crash_at(disk.mutations() + 1);
            append(&wal, G2, vec![long(G2, 1, 2, 3_000)])
                .await
                .unwrap_err();
            handles.spawn.stop();
            let (wal, _) = open(&disk.crash()).await;
            assert_eq!(wal.damaged(), []);
            assert_eq!(all(&wal, G1).await.unwrap(), [entry(G1, 1, 1)]);
            let found = all(&wal, G2).await.unwrap();
            assert_eq!(found[0], entry(G2, 1, 1));
            let Some(doubt) = wal.state(G2).doubt else {
                continue;
            };
            doubted += 1;
            blank += u64::from(doubt.unwritten);
            // Where the directory is whole it says whose write it was.
            if let Some(lost_to) = doubt.lost_to {
                assert_eq!(lost_to, LogIndex(2));
                assert!(!doubt.vote && !wal.state(G1).doubtful_tail);
            }
        }
        assert!(
            doubted > 4 && blank == doubted,
            "{doubted} in doubt, {blank} blank"
        );
    });
}

/// A cut while the segment that an earlier start began is replaced by an equal one.
#[test]
fn a_power_cut_while_an_empty_segment_is_replaced_loses_nothing() {
    run(async {
        for operation in 1.. {
            let disk = SimDisk::new(operation);
            let (wal, handles) = open(&disk).await;
            append(&wal, G1, vec![entry(G1, 1, 1), entry(G1, 1, 2)])
                .await
                .unwrap();
            wal.save_vote(G1, Bytes::from_static(b"v")).await.unwrap();
            handles.spawn.stop();
            let disk = disk.crash();
            let (_, handles) = open(&disk).await;
            handles.spawn.stop();
            let disk = disk.kill();
            disk.crash_at(operation);
            let whole = try_open(&disk).await.is_ok() && !disk.is_crashed();
            for variant in 0..4 {
                let (wal, _) = open(&disk.crash_variant(variant)).await;
                let what = format!("cut at {operation}, outcome {variant}");
                assert_eq!(all(&wal, G1).await.unwrap().len(), 2, "{what}");
                let state = wal.state(G1);
                assert_eq!(state.vote.as_deref(), Some(&b"v"[..]), "{what}");
                assert!(!state.doubtful_tail && wal.damaged().is_empty(), "{what}");
                let old = wal.segments().len();
                assert!(old <= 2, "{what}: {old} segments");
            }
            if whole {
                assert!(operation > 4, "it was cut in the middle");
                break;
            }
        }
    });
}
