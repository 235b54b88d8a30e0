//! What a node of the tests answers.

use super::{CHUNK, CLUSTER, INLINE, State, USER, address};
use crate::codec;
use crate::error::{Code, Error, Result};
use crate::proto::{
    AdminAnswer, Answer, Call, ChunkLocation, FsckReport, NodeAddress, Resolved, RouteView, Ticket,
    TicketRight, WhoAmI,
};
use crate::shard::command::{Op, Request};
use crate::shard::read::{self, ListQuery, Listing};
use crate::shard::records::Outcome;
use crate::shard::{Batch, apply};
use crate::types::{
    ChunkHash, ContentId, GroupId, Inode, Mac, NodeId, ReadLevel, ShardTime, UploadId,
};

impl State {
    pub(super) fn answer(&mut self, node: NodeId, call: Call) -> Result<Answer> {
        let kind = format!("{call:?}");
        let kind = kind.split([' ', '(']).next().unwrap_or_default();
        *self.counts.calls.entry(kind.to_owned()).or_insert(0) += 1;
        self.check_place(node, &call)?;
        let slot = &self.shard.slot;
        Ok(match call {
            Call::Hello { .. } => Answer::Hello(self.hello(node)),
            Call::Mutate { request, ack, .. } => {
                self.counts.acks.push(ack);
                self.mutate(&request)?
            }
            Call::Stat { path, .. } => Answer::Stat(read::stat(slot, &path)?),
            Call::StatMany { paths, .. } => {
                Answer::StatMany(paths.iter().map(|path| read::stat(slot, path)).collect())
            }
            Call::List {
                path,
                after,
                limit,
                attrs,
                known,
                ..
            } => {
                let query = ListQuery {
                    after: after.as_ref(),
                    limit: limit as usize,
                    attrs,
                    known,
                };
                match read::list(slot, &path, &query)? {
                    Listing::NotModified => Answer::NotModified,
                    Listing::Page { dir, entries, more } => Answer::List { dir, entries, more },
                }
            }
            Call::Resolve {
                path,
                version,
                page,
                pinned,
                ..
            } => {
                let mut found = read::resolve(slot, &path, version, page, pinned)?;
                if self.faults.swapped {
                    found.chunks.swap(0, 1);
                }
                let location = |chunk: &crate::shard::records::ChunkRef| ChunkLocation {
                    hash: chunk.hash,
                    len: chunk.len,
                    mac: Mac([1; 16]),
                    owners: self.told_owners(&chunk.hash),
                };
                Answer::Resolved(Resolved {
                    chunks: found.chunks.iter().map(location).collect(),
                    ticket: Some(self.ticket(TicketRight::Read {
                        inode: found.file.inode,
                        content: ContentId(0),
                    })),
                    file: found.file,
                    inline: found.inline,
                    nodes: self.addresses(),
                })
            }
            Call::Versions { path, .. } => Answer::Versions(read::versions(slot, &path)?),
            Call::UploadTicket { parent, upload } => self.upload_ticket(parent, upload)?,
            Call::Known { hashes, .. } => {
                let known = read::knows(slot, USER, &hashes)?;
                let proof = |known: bool| known.then_some(Mac([2; 16]));
                Answer::Known(known.into_iter().map(proof).collect())
            }
            Call::Pin { hashes, ack, .. } => {
                self.counts.acks.push(ack);
                let here = hashes.iter().map(|(hash, _)| self.is_stored(hash));
                Answer::Pinned(here.collect())
            }
            Call::Stored { hashes, .. } => {
                let here = hashes.iter().map(|hash| self.is_stored(hash));
                Answer::Pinned(here.collect())
            }
            Call::Owners { hashes } => Answer::Owners {
                owners: hashes.iter().map(|hash| self.owners(hash)).collect(),
                nodes: self.addresses(),
            },
            Call::Fsck { .. } => Answer::Fsck(FsckReport::default()),
            Call::Gc { .. } => Answer::Gc { left: 0 },
            Call::Admin(_) => Answer::Admin(AdminAnswer::Done("it is done".into())),
            Call::OpStatus { session, lane, seq } => {
                let row = read::lane(slot, session, crate::types::Lane(lane))?;
                let row = row.filter(|row| row.seq.0 == seq);
                Answer::OpStatus(row.map(|row| codec::encode(&row.outcomes).into()))
            }
            _ => return Err(Error::failed("not known here")),
        })
    }

    /// Sends away what this node is not to be asked.
    fn check_place(&self, node: NodeId, call: &Call) -> Result<()> {
        let level = match call {
            Call::Hello { .. }
            | Call::Owners { .. }
            | Call::Pin { .. }
            | Call::Stored { .. }
            | Call::Admin(_) => return Ok(()),
            Call::Stat { level, .. }
            | Call::StatMany { level, .. }
            | Call::List { level, .. }
            | Call::Resolve { level, .. } => *level,
            _ => ReadLevel::Linearizable,
        };
        let replica = level != ReadLevel::Linearizable && !self.without_replica.contains(&node);
        match replica || self.leader == Some(node) {
            true => Ok(()),
            false => Err(Error::new(Code::Redirect, "another node leads")),
        }
    }

    fn told_owners(&self, hash: &ChunkHash) -> Vec<NodeId> {
        let owners = self.owners(hash);
        if !self.faults.stale_owners {
            return owners;
        }
        let nodes = self.nodes.keys().copied();
        nodes.filter(|node| !owners.contains(node)).collect()
    }

    fn addresses(&self) -> Vec<NodeAddress> {
        let nodes = self.nodes.keys();
        nodes
            .map(|node| NodeAddress {
                node: *node,
                address: address(*node),
            })
            .collect()
    }

    fn ticket(&self, right: TicketRight) -> Ticket {
        Ticket {
            right,
            user: USER.into(),
            expires: ShardTime(u64::MAX),
            key_epoch: self.key_epoch,
            mac: Mac([0; 16]),
        }
    }

    fn upload_ticket(&self, parent: Inode, upload: UploadId) -> Result<Answer> {
        match read::upload(&self.shard.slot, parent, upload)? {
            Some(_) => Ok(Answer::Ticket(self.ticket(TicketRight::Write { upload }))),
            None => Err(Error::not_found("no such upload")),
        }
    }

    fn mutate(&mut self, request: &[u8]) -> Result<Answer> {
        self.counts.requests += 1;
        if self.faults.busy > 0 {
            self.faults.busy -= 1;
            return Err(Error::new(Code::Busy, "too much to do"));
        }
        let mut request: Request = codec::decode(request)?;
        request.user = USER.into();
        request.group = "staff".into();
        self.hold_references(&request.ops)?;
        self.shard.time += 1;
        let outcomes = self.apply(request);
        if self.faults.lost_replies > 0 {
            self.faults.lost_replies -= 1;
            return Err(Error::unavailable("the connection was lost").unknown_outcome());
        }
        Ok(Answer::Mutated {
            outcomes: codec::encode(&outcomes).into(),
            time: ShardTime(self.shard.time),
            tickets: Vec::new(),
        })
    }

    fn hold_references(&mut self, ops: &[Op]) -> Result<()> {
        for op in ops {
            let (Op::Stage { chunks, .. } | Op::Commit { tail: chunks, .. }) = op else {
                continue;
            };
            let last = chunks.last().filter(|chunk| self.is_stored(&chunk.hash));
            if let Some(chunk) = last.filter(|_| self.faults.chunks_lost > 0) {
                self.faults.chunks_lost -= 1;
                for node in self.nodes.values_mut() {
                    node.chunks.remove(&chunk.hash);
                }
            }
            if !chunks.iter().all(|chunk| self.is_stored(&chunk.hash)) {
                return Err(Error::new(Code::NotStored, "a chunk is on 0 of 1 nodes"));
            }
        }
        Ok(())
    }

    fn is_stored(&self, hash: &ChunkHash) -> bool {
        let has = |node: &NodeId| self.nodes[node].chunks.contains_key(hash);
        self.owners(hash).iter().any(has)
    }

    /// Without the check of all records, which the shard's own tests do after each command.
    fn apply(&mut self, request: Request) -> Vec<Outcome> {
        let command = self.shard.proposal(vec![request], Vec::new());
        let mut batch = Batch::new(&self.shard.slot).unwrap();
        let mut applied = apply(&mut batch, &command).unwrap();
        let changes = batch.finish();
        self.shard.slot.write(changes);
        applied.requests.remove(0)
    }

    fn hello(&self, node: NodeId) -> WhoAmI {
        WhoAmI {
            cluster: CLUSTER,
            node,
            user: USER.into(),
            version: "0".into(),
            routes: vec![RouteView {
                prefix: "/".into(),
                shard: GroupId::FIRST,
                leader: self.nodes[&node].believes,
                time: ShardTime(self.shard.time),
            }],
            nodes: self.addresses(),
            inline_bytes: INLINE,
            chunk_bytes: CHUNK,
            grace_ms: 0,
        }
    }
}
