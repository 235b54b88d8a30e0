//! Contents that came with their request and are too large for a record: they become chunks at
//! their holders before the request is proposed. Called by `meta_calls`.

use super::Node;
use super::group::Group;
use crate::error::{Error, Result};
use crate::limits::DIRECT_BYTES_MAX;
use crate::shard::command::{Op, Request};
use crate::shard::records::ChunkRef;
use crate::types::{Ack, ChunkHash, ShardTime};
use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Contents of one request that are stored at once.
const AT_ONCE: usize = 16;
/// For all of one request: the ring cannot go on meanwhile, and the client tries again.
const PLACED_WITHIN: Duration = Duration::from_secs(5);

impl Node {
    /// Stores what is too large for a record and puts the chunk in its place. The shard time of
    /// just before; `None` where there was nothing to store.
    ///
    /// The request may have been answered before, and then stores in vain: the chunks of an
    /// answered request are there already, or are garbage like those of a refused one. So it is
    /// proposed also where they could not be stored, to be given its answer.
    ///
    /// # Errors
    /// `unavailable` when fewer of a chunk's holders than `ack` wants have it in time; `corrupt`
    /// for a content that does not match its hash. Nothing was executed.
    pub(super) async fn place_contents(
        self: &Arc<Self>,
        shard: &Group,
        request: &mut Request,
        ack: Ack,
    ) -> Result<Option<ShardTime>> {
        let inline = self.settings().inline_bytes;
        let mut contents: BTreeMap<ChunkHash, Bytes> = BTreeMap::new();
        for op in &request.ops {
            if let Some((hash, data)) = too_large(op, inline) {
                // Each is checked where it is stored; here they are taken for one.
                let other = contents.insert(hash, data.clone());
                if other.is_some_and(|other| other != *data) {
                    let why = format!("two contents of one request have the hash {hash}");
                    return Err(Error::corrupt(why));
                }
            }
        }
        if contents.is_empty() {
            return Ok(None);
        }
        let since = shard.proposer.time();
        let stored = stream::iter(contents)
            .map(|(hash, data)| self.place(hash, data, ack))
            .buffer_unordered(AT_ONCE)
            .try_collect::<()>();
        let stored = match tokio::time::timeout(PLACED_WITHIN, stored).await {
            Ok(stored) => stored,
            Err(_) => {
                let why = format!("the content was not stored within {PLACED_WITHIN:?}");
                Err(Error::unavailable(why).hint("try again"))
            }
        };
        if let Err(error) = stored
            && !self.was_answered(shard, request).await?
        {
            return Err(error);
        }
        for op in &mut request.ops {
            if too_large(op, inline).is_some() {
                make_chunk(op);
            }
        }
        Ok(Some(since))
    }
}

/// The content of an operation that is to be a chunk. One that is too large for that too is left
/// to be refused.
fn too_large(op: &Op, inline: u64) -> Option<(ChunkHash, &Bytes)> {
    match op {
        Op::Put { hash, data, .. } => {
            let size = data.len() as u64;
            (size > inline && size <= DIRECT_BYTES_MAX).then_some((*hash, data))
        }
        _ => None,
    }
}

fn make_chunk(op: &mut Op) {
    let Op::Put {
        path,
        precondition,
        mode,
        hash,
        data,
    } = op
    else {
        return;
    };
    let len = u32::try_from(data.len()).expect("at most DIRECT_BYTES_MAX");
    *op = Op::PutChunk {
        path: path.clone(),
        precondition: *precondition,
        mode: *mode,
        chunk: ChunkRef { hash: *hash, len },
    };
}
