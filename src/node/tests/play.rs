//! Plays a script on a node and keeps what a client knows: what was answered, what is in doubt.
//! Goes on on another `Life` where it was cut off, with the same requests.

use super::picture::{Picture, next_numbers};
use super::script::{RESERVED, Step};
use super::{Life, ann};
use crate::codec;
use crate::error::Result;
use crate::proto::Answer;
use crate::shard::command::{Chore, Op, Request};
use crate::shard::records::Outcome;
use crate::types::{
    Ack, ChunkHash, ContentId, GroupId, Inode, Lane, LogIndex, OpSeq, Precondition, Revision,
    SessionId, ShardTime, UploadId,
};
use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt};
use std::collections::BTreeMap;
use std::time::Duration;

/// Where a number was first given out: (step, lane, operation).
type Given = (usize, u16, usize);

/// What the client knows.
#[derive(Clone, Default)]
pub struct Client {
    /// Steps that were answered wholly.
    pub done: usize,
    /// Sends no chunk that is there already, as clients do.
    pub asks_first: bool,
    seqs: BTreeMap<u16, u64>,
    /// Requests of the step under way, and what was answered of them.
    asked: BTreeMap<u16, Request>,
    answered: BTreeMap<u16, Vec<Outcome>>,
    /// The last answered request of each lane.
    last: BTreeMap<u16, (Request, Vec<Outcome>)>,
    /// Where uploads were reserved.
    reserved: BTreeMap<UploadId, Inode>,
    /// Inodes told to the client when they were made.
    made: BTreeMap<Inode, Given>,
    /// Next numbers as of the last look.
    next: Option<(Inode, ContentId)>,
}

pub async fn send(life: &Life, request: &Request) -> Result<Vec<Outcome>> {
    loop {
        let answer = life
            .node
            .mutate(&ann(), GroupId::FIRST.0, &codec::encode(request), Ack::All)
            .await;
        match answer {
            Ok(Answer::Mutated { outcomes, .. }) => return codec::decode(&outcomes),
            Ok(other) => panic!("{other:?}"),
            Err(error) if error.code.is_retryable() => {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Err(error) => return Err(error),
        }
    }
}

pub async fn put_chunk(life: &Life, bytes: &Bytes) -> Result<()> {
    let mut writer = life
        .node
        .chunks
        .begin(ChunkHash::of(bytes), bytes.len() as u64)
        .await?;
    for part in bytes.chunks(1_500) {
        writer.write(Bytes::copy_from_slice(part)).await?;
    }
    writer.finish().await
}

impl Client {
    /// Plays up to step `to`, from where it was cut off; calls `seen` after each step.
    pub async fn play(
        &mut self,
        life: &Life,
        steps: &[Step],
        to: usize,
        mut seen: impl FnMut(&Life),
    ) -> Result<()> {
        while self.done < to {
            life.answers(self.step(life, &steps[self.done])).await?;
            self.done += 1;
            self.asked.clear();
            self.answered.clear();
            self.numbers_grow(life);
            seen(life);
        }
        Ok(())
    }

    async fn step(&mut self, life: &Life, step: &Step) -> Result<()> {
        match step {
            Step::Ask { asks, fold } => {
                if self.asked.is_empty() {
                    self.asked = asks
                        .iter()
                        .map(|(lane, ops)| (*lane, self.request(*lane, ops)))
                        .collect();
                }
                let (asked, folded) = tokio::join!(self.ask(life), async {
                    if *fold {
                        life.node.fold_and_compact().await
                    } else {
                        Ok(())
                    }
                });
                asked.and(folded)
            }
            Step::Chunks(chunks) => {
                let mut here = vec![None; chunks.len()];
                if self.asks_first {
                    let hashes = chunks.iter().map(|bytes| ChunkHash::of(bytes)).collect();
                    here = life.node.chunks.have_many(hashes).await?;
                }
                let missing = chunks.iter().zip(here).filter(|(_, here)| here.is_none());
                let puts = missing.map(|(bytes, _)| put_chunk(life, bytes));
                futures::future::join_all(puts).await.into_iter().collect()
            }
            Step::Drop(chunks) => {
                for bytes in chunks {
                    life.node.chunks.remove(ChunkHash::of(bytes)).await?;
                }
                life.node.chunks.roll().await?;
                life.node.chunks.compact().await?;
                life.node.chunks.flush_index().await
            }
            Step::Fold => life.node.fold_and_compact().await,
            Step::Compact => {
                life.root().raft.compact(LogIndex(u64::MAX)).await?;
                life.shard().raft.compact(LogIndex(u64::MAX)).await
            }
            Step::Clean(now) => clean(life, *now).await,
        }
    }

    /// A request that was never sent before.
    pub fn request(&mut self, lane: u16, ops: &[Op]) -> Request {
        let seq = self.seqs.entry(lane).or_default();
        *seq += 1;
        let mut ops = ops.to_vec();
        for op in &mut ops {
            if let Op::Stage { parent, upload, .. }
            | Op::Commit { parent, upload, .. }
            | Op::Abort { parent, upload } = op
                && *parent == RESERVED
            {
                *parent = self.reserved[upload];
            }
        }
        Request {
            session: SessionId([7; 16]),
            lane: Lane(lane),
            seq: OpSeq(*seq),
            met: ShardTime(0),
            user: "ann".into(),
            group: "staff".into(),
            held: None,
            ops,
        }
    }

    /// Sends what is not answered yet, all at once.
    async fn ask(&mut self, life: &Life) -> Result<()> {
        let open: Vec<Request> = self
            .asked
            .iter()
            .filter(|(lane, _)| !self.answered.contains_key(lane))
            .map(|(_, request)| request.clone())
            .collect();
        let mut answers: FuturesUnordered<_> = open
            .into_iter()
            .map(|request| async move {
                let answer = send(life, &request).await;
                (request, answer)
            })
            .collect();
        let mut failed = None;
        while let Some((request, answer)) = answers.next().await {
            match answer {
                Ok(outcomes) => self.note(request, outcomes),
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// An answer came. No number that was given for something new was ever given before.
    fn note(&mut self, request: Request, outcomes: Vec<Outcome>) {
        for (number, (op, outcome)) in request.ops.iter().zip(&outcomes).enumerate() {
            let Ok(done) = outcome else { continue };
            let makes = match op {
                Op::Mkdir { .. } => true,
                Op::Put { precondition, .. } | Op::Copy { precondition, .. } => {
                    *precondition == Precondition::Absent
                }
                Op::Reserve {
                    upload,
                    precondition,
                    ..
                } => {
                    self.reserved.insert(*upload, done.parent);
                    *precondition == Precondition::Absent
                }
                _ => false,
            };
            let given = (self.done, request.lane.0, number);
            if makes && let Some(before) = self.made.insert(done.inode, given) {
                assert_eq!(before, given, "inode {} was given twice", done.inode);
            }
        }
        self.answered.insert(request.lane.0, outcomes.clone());
        self.last.insert(request.lane.0, (request, outcomes));
    }

    /// Sees that the next numbers have not gone back.
    pub fn numbers_grow(&mut self, life: &Life) {
        let view = life.shard().machine.view();
        // The power may have gone behind the last answer.
        let Ok(now) = view.and_then(|view| next_numbers(&view)) else {
            return;
        };
        if let Some(before) = self.next {
            assert!(
                now.0 >= before.0 && now.1 >= before.1,
                "{before:?} went back to {now:?}"
            );
        }
        self.next = Some(now);
    }

    /// Every answered request that is its lane's last, sent again, gets the same answer and
    /// changes nothing.
    pub async fn repeat_answered(&self, life: &Life, what: &str) {
        let before = Picture::of(&life.shard().machine.view().unwrap());
        for (lane, (request, outcomes)) in &self.last {
            let in_doubt = self.asked.contains_key(lane) && !self.answered.contains_key(lane);
            if !in_doubt {
                let again = send(life, request).await.unwrap();
                assert_eq!(again, *outcomes, "{what}: lane {lane}");
            }
        }
        let after = Picture::of(&life.shard().machine.view().unwrap());
        assert_eq!(
            after, before,
            "{what}: an answered request was executed again"
        );
    }
}

async fn clean(life: &Life, now: bool) -> Result<()> {
    life.node.gc(now).await?;
    let view = life.shard().machine.view()?;
    let old = Revision(crate::shard::read::header(&view)?.revision.0 / 2);
    drop(view);
    for chore in [
        Chore::ExpireUploads { uploads: 10 },
        Chore::ExpireVersions {
            behind: Inode(0),
            rows: 100,
        },
        Chore::ExpireLanes { lanes: 10 },
        Chore::TrimChanges { upto: old, rows: 5 },
    ] {
        life.shard().proposer.chore(chore).await?;
    }
    while life.node.store.remove_slice(&life.node.env).await? {}
    Ok(())
}
