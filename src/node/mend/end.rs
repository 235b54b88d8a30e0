//! Settles the doubt about the end of a log. Part of `mend`; the argument is there.

use super::super::peers::odd;
use super::{ASK_TIMEOUT, Mending, WINDOW};
use crate::error::{Error, Result};
use crate::proto::{LogEnd, PeerAnswer, PeerCall};
use crate::raft::{candidacy, term_of_vote};
use crate::store::overlay::ReplicaMark;
use crate::store::wal::{LogEntry, LogPosition};
use crate::types::{LogIndex, NodeId, ReplicaId};
use tokio::sync::oneshot;

impl Mending {
    /// Sees that nothing is missing that this replica may have promised, and ends the doubt. `mark`:
    /// what its state holds.
    ///
    /// # Errors
    /// `unavailable`: somebody must be asked again. Others: it cannot be done.
    pub async fn settle_end(&self, members: &ReplicaMark) -> Result<()> {
        let (group, mark) = (self.group, members.position);
        let others = self.others(members).await?;
        let mut ends = Vec::new();
        for (replica, host) in &others {
            ends.push((*host, self.ask_end(*replica, *host).await?));
        }
        if self.node.wal.state(group).last.unwrap_or_default().index < mark.index {
            // The state holds more than what is left of the log.
            self.node.wal.purge(group, mark).await?;
        }
        let log = self.node.wal.state(group);
        let last = log.last.unwrap_or_default();
        let longest = ends
            .iter()
            .map(|(host, end)| (position(end.last), *host))
            .max_by_key(|(end, _)| (end.term, end.index));
        if let Some((end, host)) = longest
            && (end.term, end.index) > (last.term, last.index)
        {
            if end.index <= last.index {
                let why = format!("node {host} has other entries up to {}", end.index);
                return Err(Error::failed(why));
            }
            self.follow(host, last, end.index, mark.index).await?;
        }
        if self.others(members).await? != others {
            let why = "the members have changed in what was missing";
            return Err(Error::unavailable(why));
        }
        if log.doubt.is_some_and(|doubt| doubt.vote) {
            let heard = ends.iter().map(|(_, end)| end.vote_term.max(end.last.0));
            let known = term_of_vote(log.vote.as_ref())?.max(last.term);
            let term = heard.fold(known, u64::max).saturating_add(1);
            self.node
                .wal
                .save_vote(group, candidacy(term, self.replica))
                .await?;
        }
        self.node.wal.clear_doubt(group).await?;
        tracing::info!(%group, "the end of the log is as long as any other");
        Ok(())
    }

    async fn ask_end(&self, replica: ReplicaId, host: NodeId) -> Result<LogEnd> {
        let call = PeerCall::LogEnd(self.group);
        match self.node.peers.call(host, &call, ASK_TIMEOUT).await {
            Ok(PeerAnswer::LogEnd(Some(end))) if end.replica == replica && end.certain => Ok(end),
            Ok(PeerAnswer::LogEnd(Some(end))) if end.replica == replica => {
                let why = format!("node {host} does not know the end of its own log");
                Err(Error::unavailable(why))
            }
            Ok(PeerAnswer::LogEnd(_)) => {
                let why = format!("node {host} has no replica {replica} of the group any more");
                Err(Error::failed(why))
            }
            Ok(other) => Err(odd(&other)),
            Err(error) => {
                let why = format!("node {host} does not answer ({})", error.message);
                Err(Error::unavailable(why))
            }
        }
    }

    /// Appends what another log has behind the end of this one, up to `end`. Entries up to
    /// `committed` are the same in all logs.
    async fn follow(
        &self,
        host: NodeId,
        mut last: LogPosition,
        end: LogIndex,
        committed: LogIndex,
    ) -> Result<()> {
        while last.index < end {
            let to = LogIndex(end.0.min(last.index.0.saturating_add(WINDOW as u64))).next();
            let fetched = self.fetch(host, last.index, to).await?;
            let same = fetched.get(&last.index).map(|entry| entry.position) == Some(last);
            if !same && last.index > committed {
                let why = format!(
                    "node {host} has no entry {} like this one (it was let go, or differs)",
                    last.index
                );
                return Err(Error::failed(why));
            }
            let mut new: Vec<LogEntry> = Vec::new();
            for (index, entry) in fetched.range(last.index.next()..) {
                let before = new.last().map_or(last, |entry| entry.position);
                if *index != before.index.next() || entry.position.term < before.term {
                    break;
                }
                new.push(entry.clone());
            }
            let Some(newest) = new.last().map(|entry| entry.position) else {
                let why = format!("node {host} does not give entry {}", last.index.next());
                return Err(Error::unavailable(why));
            };
            let (send, durable) = oneshot::channel();
            // Whoever waits for it is below.
            let done = Box::new(move |done: std::io::Result<()>| drop(send.send(done)));
            self.node.wal.append(self.group, new, done)?;
            let stopped = |why: String| Error::unavailable(format!("the log has stopped ({why})"));
            let durable = durable.await.map_err(|e| stopped(e.to_string()))?;
            durable.map_err(|e| stopped(e.to_string()))?;
            last = newest;
        }
        Ok(())
    }
}

fn position((term, leader, index): (u64, u64, LogIndex)) -> LogPosition {
    LogPosition {
        term,
        leader,
        index,
    }
}
