//! Copies of files that consist of very many chunks.

use super::play::{Client, put_chunk, send};
use super::{CHUNK_BYTES, Life, run, sample};
use crate::env::sim::SimDisk;
use crate::error::Code;
use crate::limits::{COPIED_CHUNKS_MAX, MANIFEST_PAGE_REFS};
use crate::shard::command::Op;
use crate::shard::records::ChunkRef;
use crate::types::{ChunkHash, DfsPath, Precondition, UploadId};

fn path(text: &str) -> DfsPath {
    DfsPath::parse(text).unwrap()
}

fn copy(to: &str) -> Op {
    Op::Copy {
        from: path("/f"),
        version: None,
        to: path(to),
        precondition: Precondition::Absent,
    }
}

/// Each reference is a record, and an entry is applied in one step, on every replica.
#[test]
fn the_copies_of_one_request_may_refer_to_so_many_chunks() {
    run(async {
        let life = Life::start(&SimDisk::new(1)).await.unwrap();
        let mut client = Client::default();
        let upload = UploadId([4; 16]);
        let reserve = Op::Reserve {
            path: path("/f"),
            upload,
            precondition: Precondition::Absent,
            mode: 0o644,
        };
        let reserved = send(&life, &client.request(3, &[reserve])).await.unwrap();
        let parent = reserved[0].as_ref().unwrap().parent;
        // The same chunk again and again.
        let data = sample(7, CHUNK_BYTES);
        put_chunk(&life, &data).await.unwrap();
        let len = CHUNK_BYTES as u32;
        let hash = ChunkHash::of(&data);
        let page = vec![ChunkRef { hash, len }; MANIFEST_PAGE_REFS];
        let pages = (COPIED_CHUNKS_MAX / 2) as u32 / MANIFEST_PAGE_REFS as u32 + 1;
        for number in 0..pages {
            let stage = Op::Stage {
                parent,
                upload,
                page: number,
                chunks: page.clone(),
            };
            let staged = send(&life, &client.request(3, &[stage])).await.unwrap();
            assert!(staged[0].is_ok(), "{staged:?}");
        }
        let commit = Op::Commit {
            parent,
            upload,
            size: u64::from(pages) * (MANIFEST_PAGE_REFS * CHUNK_BYTES) as u64,
            hash,
            tail: Vec::new(),
        };
        let done = send(&life, &client.request(3, &[commit])).await.unwrap();
        assert!(done[0].is_ok(), "{done:?}");

        let both = client.request(3, &[copy("/a"), copy("/b")]);
        let refused = send(&life, &both).await.unwrap_err();
        assert_eq!(refused.code, Code::Usage, "{refused}");
        assert!(!refused.may_have_happened);
        for to in ["/a", "/b"] {
            let copied = send(&life, &client.request(3, &[copy(to)])).await.unwrap();
            assert!(copied[0].is_ok(), "{copied:?}");
        }
        life.checked();
        life.end();
    });
}
