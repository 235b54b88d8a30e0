//! What is checked on the nodes themselves: the records of each replica, the bytes of each stored
//! chunk. Called by `fsck` (of all nodes), by scrubbing (of the own one), and when a read met
//! damaged records.
//!
//! # Damaged records
//! A replica with damaged records goes on voting and taking entries, as its log is whole; but it
//! cannot answer all reads, nor give an image. So it gives the lead away and asks the other
//! replicas for what is damaged: a record's own checksum tells whether theirs is the same one. So
//! damage at different places of all replicas is mended too. What cannot be mended record by
//! record makes the replica one that must be replaced; the group does that by an image, one
//! replica at a time (`members`), if the leader's own records are whole. Else nothing is given up:
//! what one replica has lost another may still have, and an operator has to look.

use super::Node;
use super::doubts::RECHECK_AFTER;
use super::peers::odd;
use super::registry::Running;
use crate::codec;
use crate::error::{Code, Error, Result};
use crate::limits::MIB;
use crate::proto::{CheckedChunks, CheckedRecords, FsckReport, PeerAnswer, PeerCall};
use crate::shard::{self, keys, read};
use crate::store::SlotRead;
use crate::store::chunks::ChunkPart;
use crate::store::overlay::DamagedRecord;
use crate::types::{ChunkHash, GroupId, NodeId, ReplicaId};
use bytes::Bytes;
use futures::future::join_all;
use std::sync::Arc;
use std::time::Duration;

/// Bytes of chunks verified for one question: seconds of a slow disk.
const CHUNK_BYTES: u64 = 256 * MIB;
/// Those are answered within this.
const CHUNKS_TIMEOUT: Duration = Duration::from_secs(60);
/// All records of a replica are read within this: a hundred million at a few microseconds.
const RECORDS_TIMEOUT: Duration = Duration::from_secs(900);
/// How long another replica may take to take the lead over.
const HAND_OVER_MAX: Duration = Duration::from_secs(2);
/// One record is told within this.
const RECORD_TIMEOUT: Duration = Duration::from_secs(5);
/// Records mended one by one; a replica with more damage is better replaced.
const MENDED_MAX: usize = 10_000;
/// How often the new leader is looked for, and how many times.
const LEADER_LOOK: Duration = Duration::from_millis(200);
const LEADER_LOOKS: u32 = 25;

/// What came of damaged records.
#[derive(Default)]
pub(super) struct Mended {
    /// So many were put right.
    pub mended: usize,
    /// Of so many no other replica gave what fits.
    pub left: usize,
}

/// Heals replicas whose records turn out to be damaged, until the process ends.
pub(super) async fn run(node: Arc<Node>) {
    let doubts = node.groups.doubts().clone();
    loop {
        let (group, why) = doubts.next().await;
        tracing::error!(%group, %why, "records of a replica here are damaged");
        if let Err(error) = node.heal(group, &why).await {
            tracing::error!(%group, %error, "the damaged replica stays as it is");
            doubts.stays(group, node.env.clock.now() + RECHECK_AFTER);
        }
    }
}

impl Node {
    /// Checks all records of a replica here.
    ///
    /// # Errors
    /// `redirect` when there is none, or it waits for its first image; what stands in the way of
    /// checking. Damage is in the answer.
    pub(super) async fn check_records(self: &Arc<Self>, group: GroupId) -> Result<CheckedRecords> {
        let running = self.groups.running(group).ok_or_else(|| {
            let why = format!("this node has no replica of group {group}");
            Error::new(Code::Redirect, why)
        })?;
        if !running.machine().has_state() {
            let why = format!("the replica of group {group} waits for its first image");
            return Err(Error::new(Code::Redirect, why));
        }
        self.env.run_blocking(move || check_one(&running)).await
    }

    /// Checks the records of all replicas here; what is damaged is replaced.
    pub(super) async fn scrub_records(self: &Arc<Self>) -> Result<()> {
        for (group, running) in self.groups.all() {
            let checked = match self.check_records(group).await {
                Ok(checked) => checked,
                Err(error) if error.code == Code::Redirect => continue,
                Err(error) => return Err(error),
            };
            if let Some(first) = checked.report.problems.first() {
                let doubts = self.groups.doubts();
                doubts.suspect(group, first.clone(), self.env.clock.now());
                let problems = checked.report.problems.len();
                tracing::error!(%group, replica = %running.raft().status().replica, problems,
                    %first, "scrubbing found damaged records");
            }
        }
        Ok(())
    }

    /// Verifies stored chunks here from one on.
    pub(super) async fn check_chunks(&self, from: ChunkHash) -> Result<CheckedChunks> {
        let ChunkPart {
            chunks,
            bytes,
            problems,
            next,
        } = self.chunks.check_from(from, CHUNK_BYTES).await?;
        Ok(CheckedChunks {
            chunks,
            bytes,
            problems,
            next,
        })
    }

    /// Adds what the other replicas of a group and their nodes' chunks are like to a report of
    /// this node, which leads.
    pub(super) async fn check_others(
        self: &Arc<Self>,
        own: &CheckedRecords,
        group: GroupId,
        report: &mut FsckReport,
    ) {
        let members = self.groups.raft(group).map(|raft| raft.members());
        let voters = members.into_iter().flat_map(|members| members.voters);
        let nodes = voters.map(|(_, node)| node).filter(|id| *id != self.id);
        let asked = nodes.map(|node| async move {
            let call = PeerCall::CheckRecords(group);
            let answer = self.peers.call(node, &call, RECORDS_TIMEOUT).await;
            let checked = answer.and_then(|answer| match answer {
                PeerAnswer::CheckedRecords(checked) => Ok(*checked),
                other => Err(odd(&other)),
            });
            (node, checked)
        });
        for (node, checked) in join_all(asked).await {
            let problems = match checked {
                Ok(checked) if checked.differs(own) => {
                    let at = own.applied;
                    vec![format!("its state at entry {at} is not the leader's")]
                }
                Ok(checked) => checked.report.problems,
                Err(error) => vec![format!("its records could not be checked ({error})")],
            };
            let told = problems.into_iter();
            let told = told.map(|problem| format!("node {node}, group {group}: {problem}"));
            report.problems.extend(told);
        }
    }

    /// Verifies the bytes of every chunk on every node that is not offline.
    pub(super) async fn check_all_chunks(self: &Arc<Self>, report: &mut FsckReport) {
        let view = self.views.now();
        // What a node had that has been silent for long is made anew elsewhere; `status` tells of it.
        let nodes = view.members().map(|info| info.node);
        let nodes: Vec<NodeId> = nodes.filter(|node| !view.offline.contains(node)).collect();
        for checked in join_all(nodes.into_iter().map(|node| self.check_chunks_of(node))).await {
            report.chunks += checked.chunks;
            report.chunk_bytes += checked.bytes;
            report.problems.extend(checked.problems);
        }
    }

    async fn check_chunks_of(self: &Arc<Self>, node: NodeId) -> CheckedChunks {
        let mut found = CheckedChunks::default();
        let mut from = Some(ChunkHash([0; 32]));
        while let Some(start) = from {
            let checked = match node == self.id {
                true => self.check_chunks(start).await,
                false => {
                    let call = PeerCall::CheckChunks { from: start };
                    let answer = self.peers.call(node, &call, CHUNKS_TIMEOUT).await;
                    answer.and_then(|answer| match answer {
                        PeerAnswer::CheckedChunks(checked) => Ok(checked),
                        other => Err(odd(&other)),
                    })
                }
            };
            match checked {
                Ok(checked) => {
                    found.chunks += checked.chunks;
                    found.bytes += checked.bytes;
                    let problems = checked.problems.into_iter();
                    let told = problems.map(|problem| format!("node {node}: {problem}"));
                    found.problems.extend(told);
                    from = checked.next;
                }
                Err(error) => {
                    found.problems.push(format!(
                        "node {node}: its chunks were not all checked ({error})"
                    ));
                    return found;
                }
            }
        }
        found
    }

    /// Mends a damaged replica, or has it replaced.
    async fn heal(self: &Arc<Self>, group: GroupId, why: &str) -> Result<()> {
        let Some(raft) = self.groups.raft(group) else {
            return Ok(());
        };
        let status = raft.status();
        if status.voters.len() < 2 {
            return Err(Error::corrupt("there is no other replica"));
        }
        if let Err(error) = raft.hand_over(HAND_OVER_MAX).await {
            tracing::warn!(%group, %error, "the lead stays with damaged records for now");
        }
        let others = status.voters.iter().map(|(_, node)| *node);
        let others: Vec<NodeId> = others.filter(|id| *id != self.id).collect();
        let mended = self.mend(group, status.replica, &others).await?.mended;
        if self.check_records(group).await?.report.problems.is_empty() {
            if mended == 0 {
                return Err(Error::corrupt("no check finds the damage"));
            }
            tracing::warn!(%group, mended, "damaged records were mended");
            self.groups.doubts().end(group);
            return Ok(());
        }
        let leader = self.leaders_check(group).await?;
        if let Some(problem) = leader.report.problems.first() {
            let why = format!("the leader's records are damaged too ({problem})");
            return Err(Error::corrupt(why));
        }
        let why = format!("damaged records: {why}");
        self.groups.must_be_replaced(group, status.replica, why);
        self.beat_now.notify_one();
        Ok(())
    }

    /// Takes damaged records of a replica here, running or not, from those on other nodes.
    pub(super) async fn mend(
        self: &Arc<Self>,
        group: GroupId,
        replica: ReplicaId,
        others: &[NodeId],
    ) -> Result<Mended> {
        let store = self.store.clone();
        let find = move || store.damaged_records(group, MENDED_MAX);
        let mut done = Mended::default();
        for damaged in self.env.run_blocking(find).await? {
            match self.mend_one(group, replica, others, &damaged).await? {
                true => done.mended += 1,
                false => done.left += 1,
            }
        }
        Ok(done)
    }

    async fn mend_one(
        self: &Arc<Self>,
        group: GroupId,
        replica: ReplicaId,
        others: &[NodeId],
        damaged: &DamagedRecord,
    ) -> Result<bool> {
        let key = damaged.key.clone();
        let call = PeerCall::Record { group, key };
        for node in others {
            match self.peers.call(*node, &call, RECORD_TIMEOUT).await {
                Ok(PeerAnswer::Record(Some(value))) => {
                    if self.store.mend((group, replica), damaged, &value)? {
                        return Ok(true);
                    }
                }
                // Changed there since, which this replica will hear of.
                Ok(PeerAnswer::Record(None)) => {}
                Ok(other) => return Err(odd(&other)),
                Err(error) => tracing::warn!(%group, %node, %error, "no record to mend with"),
            }
        }
        Ok(false)
    }

    /// A record of a replica here, for one where it is damaged. The replica need not run: it may
    /// wait for the same from the other.
    pub(super) async fn record_of(
        self: &Arc<Self>,
        group: GroupId,
        key: Bytes,
    ) -> Result<Option<Bytes>> {
        let store = self.store.clone();
        let read = move || match store.replica_view(group)? {
            Some((_, view)) => view.get(&key),
            None => {
                let why = format!("this node has no replica of group {group}");
                Err(Error::new(Code::Redirect, why))
            }
        };
        self.env.run_blocking(read).await
    }

    /// What the group's leader, which is another node, finds in its records.
    async fn leaders_check(self: &Arc<Self>, group: GroupId) -> Result<CheckedRecords> {
        let call = PeerCall::LeadersRecords(group);
        let mut looks = 0;
        loop {
            match self.ask_leader(group, &call, RECORDS_TIMEOUT).await {
                Ok(PeerAnswer::CheckedRecords(checked)) => return Ok(*checked),
                Ok(other) => return Err(odd(&other)),
                // The lead has just changed hands.
                Err(_) if looks < LEADER_LOOKS => looks += 1,
                Err(error) => return Err(error),
            }
            tokio::time::sleep(LEADER_LOOK).await;
        }
    }

    /// The same, on that leader.
    pub(super) async fn check_as_leader(
        self: &Arc<Self>,
        group: GroupId,
    ) -> Result<CheckedRecords> {
        let raft = self.groups.raft(group).filter(|raft| raft.is_leader());
        let raft = raft.ok_or_else(|| Error::new(Code::Redirect, "not the leader"))?;
        raft.read_barrier().await?;
        self.check_records(group).await
    }
}

fn check_one(running: &Running) -> Result<CheckedRecords> {
    let (mark, view) = running.machine().state()?;
    let (report, state) = match running {
        Running::Root(_) => check_root(&view),
        Running::Shard(_) => check_shard(&view),
    }
    .or_else(as_problem)?;
    Ok(CheckedRecords {
        applied: mark.position.index,
        state,
        report,
    })
}

/// Damage that keeps the check from going on is what it found.
fn as_problem(error: Error) -> Result<(FsckReport, u64)> {
    if error.code != Code::Corrupt {
        return Err(error);
    }
    let report = FsckReport {
        problems: vec![error.to_string()],
        ..FsckReport::default()
    };
    Ok((report, 0))
}

/// Every record of the root group is read. Its state is what they hash to.
fn check_root(view: &dyn SlotRead) -> Result<(FsckReport, u64)> {
    let mut state = blake3::Hasher::new();
    view.scan(&[], None, &mut |key, value| {
        state.update(key).update(value);
        Ok(true)
    })?;
    Ok((FsckReport::default(), short(&state)))
}

/// The header and the root directory's record hold counts and sums of all others.
fn check_shard(view: &dyn SlotRead) -> Result<(FsckReport, u64)> {
    let report = shard::check::check(view)?;
    let header = read::header(view)?;
    let mut state = blake3::Hasher::new();
    state.update(&codec::encode(&header));
    if let Some(root) = view.get(&keys::dir(header.root))? {
        state.update(&root);
    }
    Ok((report, short(&state)))
}

fn short(state: &blake3::Hasher) -> u64 {
    let hash = state.finalize();
    let first = hash.as_bytes().first_chunk::<8>();
    u64::from_le_bytes(*first.expect("a hash has 32 bytes"))
}
