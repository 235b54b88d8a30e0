//! Groups in trouble: members change while messages get lost, replicas are cut off, stop and come
//! back, logs are compacted. Whatever happens, no two replicas apply different things, and what
//! was acknowledged is there in the end. A seed repeats its run.

use super::model_tests::{Cluster, Replica};
use crate::env::Env;
use crate::types::ReplicaId;
use bytes::Bytes;
use futures::future::join_all;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::time::{sleep, timeout};

const STEPS: usize = 50;
/// Replicas that run at a time.
const RUNNING: usize = 5;
/// How long one thing is tried.
const TRY: Duration = Duration::from_millis(200);

struct Chaos {
    cluster: Cluster,
    env: Env,
    /// Id of the next replica: none is used again.
    next: u64,
    number: usize,
    acknowledged: Vec<String>,
    history: Vec<Bytes>,
}

impl Chaos {
    fn below(&self, n: usize) -> usize {
        (self.env.rng.u64() % n as u64) as usize
    }

    fn one_of(&self, ids: &[u64]) -> Option<u64> {
        (!ids.is_empty()).then(|| ids[self.below(ids.len())])
    }

    fn ids(&self, wanted: impl Fn(&Replica) -> bool) -> Vec<u64> {
        let found = self.cluster.replicas.iter().filter(|(_, r)| wanted(r));
        found.map(|(id, _)| *id).collect()
    }

    fn leaders(&self) -> Vec<u64> {
        self.ids(|r| r.group.as_ref().is_some_and(|g| g.is_leader()))
    }

    async fn write(&mut self) {
        for _ in 0..1 + self.below(20) {
            let Some(leader) = self.one_of(&self.leaders()) else {
                return;
            };
            let text = format!("write {}", self.number);
            self.number += 1;
            let written = timeout(TRY, self.cluster.propose(leader, &text)).await;
            if !written.is_ok_and(|outcome| outcome.is_ok()) {
                return;
            }
            self.acknowledged.push(text);
        }
    }

    /// Whoever says that its state is fresh has all that was acknowledged before it was asked.
    async fn read(&self) {
        let Some(newest) = self.acknowledged.last().cloned() else {
            return;
        };
        let asked = self.leaders().into_iter().map(async |id| {
            let group = self.cluster.group(id);
            if timeout(TRY, group.read_barrier()).await == Ok(Ok(())) {
                // What came first in the log was acknowledged first.
                let state = self.cluster.commands(id);
                let fresh = state.iter().any(|c| c == newest.as_bytes());
                assert!(fresh, "replica {id} answered a read without {newest:?}");
            }
        });
        join_all(asked).await;
    }

    async fn change_members(&mut self) {
        let Some(leader) = self.one_of(&self.leaders()) else {
            return;
        };
        let group = self.cluster.group(leader).clone();
        let now = group.members();
        let voters: Vec<u64> = now.voters.iter().map(|(id, _)| id.0).collect();
        let learners: Vec<u64> = now.learners.iter().map(|(id, _)| id.0).collect();
        // All of these may be refused, and may happen although they were.
        match self.below(4) {
            0 | 1 if self.cluster.replicas.len() < RUNNING => {
                let id = self.next;
                self.next += 1;
                self.cluster.add_empty(id).await;
                let add = group.add_learner(ReplicaId(id), super::model_tests::node(id));
                let _ = timeout(TRY, add).await;
            }
            0 | 1 if !learners.is_empty() => {
                let mut goal: BTreeSet<ReplicaId> =
                    voters.iter().map(|id| ReplicaId(*id)).collect();
                goal.extend(learners.iter().map(|id| ReplicaId(*id)));
                let _ = timeout(TRY, group.change_voters(&goal)).await;
            }
            2 if voters.len() > 1 => {
                let gone = self.one_of(&voters);
                let goal = voters.iter().filter(|id| Some(**id) != gone);
                let goal = goal.map(|id| ReplicaId(*id)).collect();
                let _ = timeout(TRY, group.change_voters(&goal)).await;
            }
            _ => {
                let goal = voters.iter().map(|id| ReplicaId(*id)).collect();
                let _ = timeout(TRY, group.change_voters(&goal)).await;
            }
        }
    }

    /// Ends replicas that are no members any more, as a node would that is told.
    async fn end_removed(&mut self) {
        let Some(leader) = self.one_of(&self.leaders()) else {
            return;
        };
        if timeout(TRY, self.cluster.group(leader).read_barrier()).await != Ok(Ok(())) {
            return;
        }
        let now = self.cluster.group(leader).members();
        if now.joint {
            return;
        }
        let members: Vec<u64> = (now.voters.iter().chain(&now.learners))
            .map(|(id, _)| id.0)
            .collect();
        let applied = self.cluster.group(leader).status().applied;
        if applied < now.at.index.0 {
            return;
        }
        for id in self.ids(|_| true) {
            // One that was just added is not a member yet.
            if !members.contains(&id) && id + 1 < self.next {
                if self.cluster.replicas[&id].group.is_some() {
                    self.cluster.stop(id).await;
                }
                self.cluster.replicas.remove(&id);
            }
        }
    }

    async fn step(&mut self) {
        let running = self.ids(|r| r.group.is_some());
        match self.below(11) {
            0..=3 => self.write().await,
            4 | 5 | 9 => self.change_members().await,
            6 => {
                for id in running {
                    self.cluster.compact(id).await;
                }
                self.end_removed().await;
                if self.below(4) == 0 {
                    self.cluster.clock.advance(Duration::from_secs(700));
                }
            }
            7 => {
                let stopped = self.ids(|r| r.group.is_none());
                match self.one_of(&stopped) {
                    Some(id) => self.cluster.run(id).await,
                    None => {
                        if let Some(id) = self.one_of(&running) {
                            self.cluster.stop(id).await;
                        }
                    }
                }
            }
            8 => match self.below(3) {
                0 => self.cluster.board.heal(),
                _ => {
                    if let Some(id) = self.one_of(&running) {
                        self.cluster.board.cut(id);
                    }
                }
            },
            _ => {
                let lost = [0, 0, 20, 150][self.below(4)];
                self.cluster.board.lost_permille.store(lost, Relaxed);
                self.end_removed().await;
            }
        }
        for _ in 0..4 {
            self.read().await;
            sleep(Duration::from_millis(self.below(50) as u64)).await;
        }
        self.check();
    }

    /// Everyone has applied a prefix of the same history.
    fn check(&mut self) {
        for id in self.ids(|_| true) {
            let commands = self.cluster.commands(id);
            let common = commands.len().min(self.history.len());
            assert_eq!(commands[..common], self.history[..common], "replica {id}");
            if commands.len() > common {
                self.history = commands;
            }
        }
    }
}

/// Images installed, replicas there ever were, terms.
async fn run(seed: u64) -> (u64, u64, u64) {
    let cluster = Cluster::start(3, seed).await;
    cluster.board.image_ms.store(50, Relaxed);
    let mut chaos = Chaos {
        env: cluster.env.clone(),
        cluster,
        next: 4,
        number: 0,
        acknowledged: Vec::new(),
        history: Vec::new(),
    };
    for _ in 0..STEPS {
        chaos.step().await;
    }
    chaos.cluster.board.heal();
    chaos.cluster.board.lost_permille.store(0, Relaxed);
    for id in chaos.ids(|r| r.group.is_none()) {
        chaos.cluster.run(id).await;
    }
    let leader = chaos.cluster.leader().await;
    chaos
        .cluster
        .on_leader("a read", |group| async move { group.read_barrier().await })
        .await;
    let leader = chaos.leaders().first().copied().unwrap_or(leader);
    let members = chaos.cluster.group(leader).members();
    let all: Vec<u64> = (members.voters.iter().chain(&members.learners))
        .map(|(id, _)| id.0)
        .collect();
    chaos.cluster.agree(&all, chaos.acknowledged.len()).await;
    chaos.check();
    for text in &chaos.acknowledged {
        let times = (chaos.history.iter()).filter(|c| *c == text.as_bytes());
        assert_eq!(times.count(), 1, "{text}");
    }
    (
        chaos.cluster.board.images.load(Relaxed),
        chaos.next - 1,
        chaos.cluster.group(leader).status().term,
    )
}

#[test]
fn whatever_happens_replicas_agree_and_nothing_acknowledged_is_lost() {
    let seeds = match std::env::var("DFS_RAFT_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (1..=30).collect::<Vec<u64>>(),
    };
    let mut seen_all = Vec::new();
    for seed in seeds {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        let outcome =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| runtime.block_on(run(seed))));
        match outcome {
            Ok(seen) => seen_all.push((seed, seen)),
            Err(panic) => {
                println!("repeat with DFS_RAFT_SEED={seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!("seed, (images, replicas, term): {seen_all:?}");
}
