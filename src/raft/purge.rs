//! Letting go of the log: asked for by `node`, bounded by what others need (`compaction`).

use super::compaction::{Follower, Laggards, Log};
use super::kinds::Types;
use super::{RaftGroup, refusal};
use crate::error::{Error, Result};
use crate::types::LogIndex;
use openraft::RaftMetrics;
use openraft::async_runtime::WatchReceiver;
use std::time::Duration;
use tokio::time::timeout;

/// How long openraft may take to note a snapshot of a few bytes.
const COMPACT_TIMEOUT: Duration = Duration::from_secs(10);

impl RaftGroup {
    /// Lets the log go up to `upto`, or what the last synced fold holds; nothing if that is gone
    /// already. A leader keeps what a member that lags, or one that takes an image, will need
    /// (`compaction`), and lets entries that it is just sending go a moment later.
    ///
    /// # Errors
    /// `unavailable` when the replica has stopped.
    pub async fn compact(&self, upto: LogIndex) -> Result<()> {
        let folded = self.state.folded().position.index.0;
        let upto = self.may_go(folded.min(upto.0));
        let mut metrics = self.raft.metrics();
        if upto <= purged(&metrics.borrow_watched()) {
            return Ok(());
        }
        let noted = |m: &RaftMetrics<Types>| m.snapshot.as_ref().map_or(0, |id| id.index) >= upto;
        if !noted(&metrics.borrow_watched()) {
            let asked = self.raft.trigger().snapshot().await;
            asked.map_err(|e| refusal::fatal(&e))?;
            let wait = async {
                while !noted(&metrics.borrow_and_update()) {
                    metrics.changed().await.map_err(|_| refusal::stopped())?;
                }
                Ok(())
            };
            (timeout(COMPACT_TIMEOUT, wait).await).map_err(|_| {
                Error::unavailable(format!(
                    "group {} did not note its fold at entry {folded} within {COMPACT_TIMEOUT:?}",
                    self.group
                ))
            })??;
        }
        let purge = self.raft.trigger().purge_log(upto).await;
        purge.map_err(|e| refusal::fatal(&e))
    }

    /// How much of what is folded, or of less, nobody needs any more, as far as this replica knows.
    fn may_go(&self, folded: u64) -> u64 {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let Some(matched) = &metrics.replication else {
            // Only a leader knows of others and sends to them.
            self.sends.retain(|_, _| false);
            *self.laggards.lock() = Laggards::default();
            return folded;
        };
        let index = |id: u64| matched.get(&id).and_then(|m| m.as_ref().map(|m| m.index));
        // Once it has come beyond its image, its own progress says what it needs.
        (self.sends).retain(|id, sent| matched.contains_key(&id) && index(id) < Some(sent.from));
        let sent = self.sends.all();
        let followers: Vec<Follower> = (matched.keys().copied())
            .filter(|id| *id != self.replica.0)
            .map(|id| Follower {
                replica: id,
                matched: index(id),
                image: sent.get(&id).map(|sent| sent.from),
                receiving: sent.get(&id).is_some_and(|sent| sent.running),
            })
            .collect();
        let log = Log {
            purged: purged(&metrics),
            folded,
            last: metrics.last_log_index.unwrap_or(0),
        };
        let now = self.clock.now();
        (self.laggards.lock()).purge_to(log, &followers, &self.bytes_behind, now)
    }

    /// Entries that the log still holds of this group.
    pub fn log_entries(&self) -> u64 {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let last = metrics.last_log_index.unwrap_or(0);
        last.saturating_sub(purged(&metrics))
    }
}

fn purged(metrics: &RaftMetrics<Types>) -> u64 {
    metrics.purged.as_ref().map_or(0, |id| id.index)
}
