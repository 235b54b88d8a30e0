//! Requests that refer to chunks which too few nodes have.

use super::play::{Client, put_chunk, send};
use super::{Life, ann, run, sample};
use crate::env::sim::SimDisk;
use crate::error::Code;
use crate::proto::{Answer, TicketRight};
use crate::shard::command::Op;
use crate::shard::records::ChunkRef;
use crate::types::{Ack, ChunkHash, DfsPath, Inode, Precondition, ShardTime, UploadId};
use std::sync::atomic::Ordering;

const UPLOAD: UploadId = UploadId([4; 16]);
const LEN: usize = 4_000;

#[test]
fn a_commit_is_not_executed_before_its_chunks_are_stored() {
    run(async {
        let life = Life::start(&SimDisk::new(1)).await.unwrap();
        let mut client = Client::default();
        let reserve = Op::Reserve {
            path: DfsPath::parse("/f").unwrap(),
            upload: UPLOAD,
            precondition: Precondition::Absent,
            mode: 0o644,
        };
        let reserved = send(&life, &client.request(3, &[reserve])).await.unwrap();
        let parent: Inode = reserved[0].as_ref().unwrap().parent;
        let data = sample(7, LEN);
        let hash = ChunkHash::of(&data);
        let commit = client.request(
            3,
            &[Op::Commit {
                parent,
                upload: UPLOAD,
                size: LEN as u64,
                hash,
                tail: vec![ChunkRef {
                    hash,
                    len: LEN as u32,
                }],
            }],
        );
        let refused = send(&life, &commit).await.unwrap_err();
        assert_eq!(refused.code, Code::NotStored, "{refused}");
        assert!(!refused.may_have_happened);
        assert_eq!(stored(&life, "ann", hash).await.unwrap(), [false]);

        put_chunk(&life, &data).await.unwrap();
        assert_eq!(stored(&life, "ann", hash).await.unwrap(), [true]);
        let other = stored(&life, "bob", hash).await.unwrap_err();
        assert_eq!(other.code, Code::Denied, "{other}");
        let done = send(&life, &commit).await.unwrap();
        assert!(done[0].is_ok(), "{done:?}");
        life.checked();
        life.end();
    });
}

/// What ann is told with a ticket of `user`.
async fn stored(life: &Life, user: &str, hash: ChunkHash) -> crate::error::Result<Vec<bool>> {
    let right = TicketRight::Write { upload: UPLOAD };
    let ticket = life.node.tickets.issue(right, user, ShardTime(u64::MAX));
    let (caller, ticket) = (ann(), ticket.unwrap());
    let asked = life.node.stored(&caller, &ticket, vec![hash], Ack::Quorum);
    match asked.await? {
        Answer::Pinned(there) => Ok(there),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_full_node_asks_nobody_for_what_it_cannot_take() {
    run(async {
        let life = Life::start(&SimDisk::new(1)).await.unwrap();
        let hash = ChunkHash::of(&sample(7, LEN));
        let fetched = life.node.fetch(hash, LEN as u32).await;
        assert_eq!(fetched.unwrap_err().code, Code::NotFound, "nobody has it");
        life.node.low_space.store(true, Ordering::Relaxed);
        let fetched = life.node.fetch(hash, LEN as u32).await;
        assert_eq!(fetched.unwrap_err().code, Code::NoSpace);
        life.end();
    });
}
