//! Contents that go with their request and become chunks.

use super::play::{Client, send};
use super::{Life, ann, run, sample, settings};
use crate::codec;
use crate::env::sim::SimDisk;
use crate::error::Code;
use crate::limits::DIRECT_BYTES_MAX;
use crate::proto::{Answer, EntryView};
use crate::shard::command::{Op, Removal, Request};
use crate::shard::records::ChunkRef;
use crate::types::{Ack, ChunkHash, Content, DfsPath, GroupId, Precondition, ReadLevel};
use bytes::Bytes;

fn put(hash: ChunkHash, data: &Bytes) -> Op {
    Op::Put {
        path: DfsPath::parse("/f").unwrap(),
        precondition: Precondition::Absent,
        mode: 0o644,
        hash,
        data: data.clone(),
    }
}

fn request(client: &mut Client, op: Op) -> Request {
    client.request(3, &[op])
}

async fn entry(life: &Life) -> Option<crate::proto::FileView> {
    let path = DfsPath::parse("/f").unwrap();
    match life.node.stat(path, ReadLevel::Linearizable).await {
        Ok(Answer::Stat(EntryView::File(file))) => Some(file),
        Ok(other) => panic!("{other:?}"),
        Err(error) => {
            assert_eq!(error.code, Code::NotFound, "{error}");
            None
        }
    }
}

#[test]
fn a_content_over_the_inline_limit_becomes_a_chunk_of_its_file() {
    run(async {
        let life = Life::start(&SimDisk::new(1)).await.unwrap();
        let mut client = Client::default();
        for (len, chunked) in [(4_096, false), (4_097, true)] {
            let data = sample(len, len as usize);
            let hash = ChunkHash::of(&data);
            let asked = request(&mut client, put(hash, &data));
            let first = send(&life, &asked).await.unwrap();
            assert_eq!(send(&life, &asked).await.unwrap(), first, "exactly once");
            let file = entry(&life).await.unwrap();
            assert_eq!((file.attrs.size, file.attrs.hash), (len, hash));
            let is_chunked = matches!(file.attrs.content, Content::Chunks { pages: 1, .. });
            assert_eq!(is_chunked, chunked, "{:?}", file.attrs.content);
            let held = life.node.chunks.confirm(hash).await.unwrap();
            assert_eq!(held, chunked.then_some(len));
            let gone = crate::shard::testing::remove("/f", Removal::File);
            send(&life, &request(&mut client, gone)).await.unwrap();
        }
        life.checked();
        life.end();
    });
}

#[test]
fn what_is_damaged_too_large_or_a_bare_name_makes_no_file() {
    run(async {
        let life = Life::start(&SimDisk::new(1)).await.unwrap();
        let mut client = Client::default();
        let data = sample(1, settings().inline_bytes as usize + 1);
        let wrong = put(ChunkHash::of(b"other"), &data);
        let error = send(&life, &request(&mut client, wrong)).await.unwrap_err();
        assert_eq!(error.code, Code::Corrupt, "{error}");

        // One of the two would be a file that cannot be read.
        let (other, hash) = (sample(2, data.len() + 1), ChunkHash::of(&data));
        let twice = client.request(3, &[put(hash, &other), put(hash, &data)]);
        let error = send(&life, &twice).await.unwrap_err();
        assert_eq!(error.code, Code::Corrupt, "{error}");

        let large = sample(1, DIRECT_BYTES_MAX as usize + 1);
        let too_large = put(ChunkHash::of(&large), &large);
        let asked = request(&mut client, too_large);
        let outcome = send(&life, &asked).await.unwrap().remove(0);
        assert_eq!(outcome.unwrap_err().code, Code::Usage);

        // Somebody else's chunk, which is there.
        let hash = ChunkHash::of(&data);
        super::play::put_chunk(&life, &data).await.unwrap();
        let named = Op::PutChunk {
            path: DfsPath::parse("/f").unwrap(),
            precondition: Precondition::Absent,
            mode: 0o644,
            chunk: ChunkRef {
                hash,
                len: data.len() as u32,
            },
        };
        let asked = codec::encode(&request(&mut client, named));
        let told = life
            .node
            .mutate(&ann(), GroupId::FIRST.0, &asked, Ack::One)
            .await;
        assert_eq!(told.unwrap_err().code, Code::Usage);
        assert!(entry(&life).await.is_none());
        life.checked();
        life.end();
    });
}
