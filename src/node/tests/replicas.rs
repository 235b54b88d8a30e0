//! Replicas that are made, replaced and gone, as other nodes ask for it.

use super::{Life, run};
use crate::env::sim::SimDisk;
use crate::error::{Code, Result};
use crate::proto::{GroupPlace, PeerCall};
use crate::types::{GroupId, LogIndex, NodeId, ReplicaId};
use std::time::Duration;

const GROUP: GroupId = GroupId::FIRST;
const NEW: ReplicaId = ReplicaId(900);
const PEER: NodeId = NodeId(2);

async fn create(life: &Life, replaces: Option<ReplicaId>, term: u64) -> Result<()> {
    let call = PeerCall::CreateReplica {
        group: GROUP,
        replica: NEW,
        replaces,
        term,
    };
    life.node.answer_peer(PEER, call).await.map(drop)
}

#[test]
fn only_a_leader_of_now_replaces_a_replica_and_only_the_one_it_means() {
    run(async {
        let life = Life::start(&SimDisk::new(41)).await.unwrap();
        let status = life.shard().raft.status();
        let here = status.replica;
        // Nobody else says that it is no member.
        for other in [None, Some(ReplicaId(here.0 + 1))] {
            let refused = create(&life, other, status.term).await.unwrap_err();
            assert_eq!(refused.code, Code::Unavailable, "{refused}");
        }
        // One that was deposed means this one, but another may rely on it by now.
        let refused = create(&life, Some(here), status.term - 1)
            .await
            .unwrap_err();
        assert_eq!(refused.code, Code::Conflict, "{refused}");
        assert_eq!(life.node.groups.held(GROUP), Some(here));
        create(&life, Some(here), status.term).await.unwrap();
        assert_eq!(life.node.groups.held(GROUP), Some(NEW));
        life.end();
    });
}

/// Another replica may need them, whatever is folded here.
#[test]
fn the_newest_entries_stay_in_the_log() {
    run(async {
        let mut disk = SimDisk::new(43);
        let life = Life::start(&disk).await.unwrap();
        let held = life.root().raft.log_entries();
        assert!(held > 0);
        life.end();
        // Each start begins a segment of the log.
        for start in 2..8 {
            disk = disk.kill();
            let life = Life::start(&disk).await.unwrap();
            life.node.fold_and_compact().await.unwrap();
            let now = life.root().raft.log_entries();
            assert!(now > 0, "start {start}");
            assert!(start > 3 || now > held, "start {start}: {now} of {held}");
            // What is let go of frees its segment a little later.
            for _ in 0..500 {
                if life.node.wal.segments().len() <= 4 {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
                life.node.fold_and_compact().await.unwrap();
            }
            let segments = life.node.wal.segments().len();
            assert!(segments <= 4, "start {start}: {segments}");
            life.end();
        }
    });
}

#[test]
fn a_node_tells_of_a_member_that_it_has_no_more() {
    run(async {
        let life = Life::start(&SimDisk::new(42)).await.unwrap();
        let status = life.shard().raft.status();
        let here = status.replica;
        let broken = async || {
            let beat = life.node.own_beat().await;
            let broken = beat.replicas.into_iter().filter(|one| one.broken);
            broken
                .map(|one| (one.group, one.replica))
                .collect::<Vec<_>>()
        };
        let place = GroupPlace {
            group: GROUP,
            prefix: "/".into(),
            leader: Some(PEER),
            term: status.term,
            voters: vec![(here, NodeId(1)), (ReplicaId(899), PEER)],
            settled: vec![here, ReplicaId(899)],
            learners: Vec::new(),
            broken: Vec::new(),
            applied: LogIndex(1),
            entries: 0,
            bytes: 0,
            deletions: 0,
        };
        let now = life.node.env.clock.now();
        life.node
            .views
            .beat(now, vec![PEER], Vec::new(), vec![place]);
        assert_eq!(broken().await, [], "it has it still");
        create(&life, Some(here), status.term).await.unwrap();
        assert_eq!(broken().await, [(GROUP, here)]);
        life.end();
    });
}
