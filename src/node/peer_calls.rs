//! Serves what other nodes ask. Who asks is known by its certificate; that it is a member of the
//! cluster was checked when it connected.

use super::Node;
use super::group::Group;
use super::service::reply_frame;
use crate::codec;
use crate::error::{Code, Error, Result};
use crate::net::Stream;
use crate::proto::{Beat, PeerAnswer, PeerCall, RaftMessage};
use crate::shard::{keys, read};
use crate::store::overlay::View as StoreView;
use crate::types::{ChunkHash, Epoch, GroupId, LogIndex, NodeId, ReadLevel, ReplicaId};
use bytes::Bytes;
use futures::StreamExt;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// References looked at in one question.
const WANTED_MAX: u32 = 20_000;
/// Bytes of log entries in one answer.
const ENTRIES_BYTES_MAX: usize = 1 << 20;
/// A heartbeat that is not answered by then is not: less than the three quarters of their interval
/// (75 ms) for which a leader waits.
const HEARTBEAT_WITHIN: Duration = Duration::from_millis(35);

/// One stream of another node. An error here is the stream's own.
pub(super) async fn serve(node: Arc<Node>, from: NodeId, stream: &mut Stream) -> Result<()> {
    let Some(frame) = stream.recv_frame().await? else {
        return Ok(());
    };
    let call = match codec::decode::<PeerCall>(&frame) {
        Ok(call) => call,
        Err(error) => {
            let error = Error::usage(format!("the call cannot be read ({})", error.message));
            return answer(stream, &PeerAnswer::Failed(error)).await;
        }
    };
    drop(frame);
    match call {
        PeerCall::PutChunk { hash, len, epoch } => {
            let put = Box::pin(node.take_copy(hash, len, epoch, stream)).await;
            let done = put.map_or_else(PeerAnswer::Failed, |()| PeerAnswer::Done);
            answer(stream, &done).await
        }
        PeerCall::GetChunk { hash, offset, len } => {
            let range = (u64::from(offset), u64::from(len));
            Box::pin(node.give_copy(hash, range, stream)).await
        }
        PeerCall::Image {
            group,
            from: _,
            to,
            head,
            len,
        } => {
            let taken = Box::pin(node.take_image((group, to), head, len, stream)).await;
            let done = taken.map_or_else(PeerAnswer::Failed, PeerAnswer::Image);
            answer(stream, &done).await
        }
        call => {
            let done = Box::pin(node.answer_peer(from, call)).await;
            answer(stream, &done.unwrap_or_else(PeerAnswer::Failed)).await
        }
    }
}

async fn answer(stream: &mut Stream, answer: &PeerAnswer) -> Result<()> {
    let too_long = |error| codec::encode(&PeerAnswer::Failed(error));
    reply_frame(stream, codec::encode(answer), too_long).await
}

impl Node {
    pub(super) async fn answer_peer(
        self: &Arc<Self>,
        from: NodeId,
        call: PeerCall,
    ) -> Result<PeerAnswer> {
        match call {
            PeerCall::Meet { life, address } => Ok(self.peers.met_by(from, life, &address)),
            PeerCall::Raft(messages) => {
                let taken = messages.into_iter().map(|message| self.take_raft(message));
                Ok(PeerAnswer::Raft(join_all(taken).await))
            }
            PeerCall::Heartbeats(messages) => self.take_heartbeats(messages).await,
            PeerCall::Beat(beat) => self.serve_beat(from, *beat).await,
            PeerCall::View { known } => {
                let view = match self.groups.root() {
                    Some(root) => root.cluster_view()?,
                    None => self.views.now().cluster.clone(),
                };
                let newer = view.version > known;
                Ok(PeerAnswer::View(newer.then(|| Box::new(view))))
            }
            PeerCall::Root(command) => {
                let reply = self.root_command_of(from, &command).await?;
                Ok(PeerAnswer::Root(codec::encode(&reply).into()))
            }
            PeerCall::CreateReplica {
                group,
                replica,
                replaces,
                term,
            } => {
                self.create_replica(group, replica, replaces, term).await?;
                Ok(PeerAnswer::Done)
            }
            PeerCall::RemoveReplica { group, replica } => {
                self.remove_replica(group, replica).await?;
                Ok(PeerAnswer::Done)
            }
            PeerCall::IsMember { group, replica } => {
                Ok(PeerAnswer::IsMember(self.is_member(group, replica).await?))
            }
            PeerCall::Hold { hashes, look } => {
                Ok(PeerAnswer::Held(self.hold_here(hashes, look).await?))
            }
            PeerCall::Referenced { group, hashes } => self.referenced(group, hashes).await,
            PeerCall::Wanted {
                group,
                from: first,
                limit,
                epoch,
            } => self.wanted_of(group, from, first, limit, epoch).await,
            PeerCall::Seal => Ok(PeerAnswer::Seal(self.give_seal(from)?)),
            PeerCall::Join(request) => Ok(PeerAnswer::Join(self.join_here(request).await)),
            PeerCall::Renew { request } => Ok(PeerAnswer::Renewed(self.renew_for(from, &request)?)),
            PeerCall::Repairs => {
                let now = self.env.clock.now();
                Ok(PeerAnswer::Repairs(self.repairs.view(self.id, now)))
            }
            PeerCall::RepairNow => {
                self.repairs.now();
                Ok(PeerAnswer::Done)
            }
            PeerCall::Scrub { now } => Ok(PeerAnswer::Scrub(self.scrub(now))),
            PeerCall::Gc => {
                let node = self.clone();
                let census = async move {
                    if let Err(error) = node.census_now().await {
                        tracing::warn!(%error, "the census of chunks failed");
                    }
                };
                self.env.spawn.spawn("census asked for", Box::pin(census));
                Ok(PeerAnswer::Done)
            }
            PeerCall::Beats => {
                let root = self.must_lead_root()?;
                root.raft.read_barrier().await?;
                Ok(PeerAnswer::Beats(self.heard_here(&root)))
            }
            PeerCall::Users => {
                let root = self.must_lead_root()?;
                Ok(PeerAnswer::Users(self.users_here(&root).await?))
            }
            PeerCall::CheckRecords(group) => {
                let checked = self.check_records(group).await?;
                Ok(PeerAnswer::CheckedRecords(Box::new(checked)))
            }
            PeerCall::LeadersRecords(group) => {
                let checked = self.check_as_leader(group).await?;
                Ok(PeerAnswer::CheckedRecords(Box::new(checked)))
            }
            PeerCall::Record { group, key } => {
                Ok(PeerAnswer::Record(self.record_of(group, key).await?))
            }
            PeerCall::CheckChunks { from } => {
                Ok(PeerAnswer::CheckedChunks(self.check_chunks(from).await?))
            }
            PeerCall::Entries { group, from, to } => self.entries(group, from, to).await,
            PeerCall::HasRoom => Ok(PeerAnswer::HasRoom(self.must_have_space().is_ok())),
            PeerCall::LogEnd(group) => Ok(PeerAnswer::LogEnd(self.log_end(group)?)),
            PeerCall::PutChunk { .. } | PeerCall::GetChunk { .. } | PeerCall::Image { .. } => {
                unreachable!("calls with raw bytes are served above")
            }
        }
    }

    /// A message of another node to a replica here.
    async fn take_raft(&self, message: RaftMessage) -> Option<Bytes> {
        let raft = self.groups.raft(message.group)?;
        let answered = raft.receive(message.bytes).await;
        answered
            .inspect_err(|error| tracing::debug!(group = %message.group, %error, "a message"))
            .ok()
    }

    /// Heartbeats of one other node to replicas here, all at once. The answers are one message too:
    /// those that take longer than [`HEARTBEAT_WITHIN`] are left out. They are taken beside Raft's
    /// own tasks: however many there are, they wake its thread once, and this one once.
    async fn take_heartbeats(self: &Arc<Self>, messages: Vec<RaftMessage>) -> Result<PeerAnswer> {
        let (answered, answers) = oneshot::channel();
        let node = self.clone();
        let taking = async move {
            let mut answers = vec![None; messages.len()];
            let mut taken: FuturesUnordered<_> = (messages.into_iter().enumerate())
                .map(async |(place, message)| (place, node.take_raft(message).await))
                .collect();
            let all = async {
                while let Some((place, answer)) = taken.next().await {
                    answers[place] = answer;
                }
            };
            // Given up, a message still has its effect.
            let _ = tokio::time::timeout(HEARTBEAT_WITHIN, all).await;
            // Whoever gave up waiting needs no answer.
            let _ = answered.send(answers);
        };
        (self.raft_env.spawn).spawn("heartbeats", Box::pin(taking));
        let stopping = |_| Error::unavailable("the node is stopping");
        Ok(PeerAnswer::Raft(answers.await.map_err(stopping)?))
    }

    async fn serve_beat(&self, from: NodeId, beat: Beat) -> Result<PeerAnswer> {
        let root = self.must_lead_root()?;
        let answer = self.take_beat(&root, from, beat).await?;
        Ok(PeerAnswer::Beat(answer))
    }

    /// Makes a replica. One that is here already goes only if the asker leads the group, as far as
    /// that one knows, and means to replace it, or if the group says that it is no member: the
    /// asker may have been deposed without knowing it, and a later leader rely on that replica.
    async fn create_replica(
        self: &Arc<Self>,
        group: GroupId,
        replica: ReplicaId,
        replaces: Option<ReplicaId>,
        term: u64,
    ) -> Result<()> {
        if let Some(here) = self.groups.held(group).filter(|here| *here != replica) {
            let deposed = (self.groups.raft(group)).is_some_and(|raft| raft.status().term > term);
            if deposed {
                let why = format!("group {group} has had another leader since term {term}");
                return Err(Error::new(Code::Conflict, why));
            }
            if replaces != Some(here) {
                self.remove_replica(group, here).await?;
            }
        }
        self.groups.create(group, replica, replaces).await
    }

    /// Removes a replica that its group says is no member: asked again, so that nobody's word
    /// alone takes a copy away.
    async fn remove_replica(self: &Arc<Self>, group: GroupId, replica: ReplicaId) -> Result<()> {
        let call = PeerCall::IsMember { group, replica };
        let timeout = crate::limits::REQUEST_TIMEOUT;
        match self.ask_leader(group, &call, timeout).await? {
            PeerAnswer::IsMember(false) => self.groups.remove(group, replica).await,
            PeerAnswer::IsMember(true) => Err(Error::new(
                Code::Conflict,
                format!("replica {replica} is a member of group {group}"),
            )),
            other => Err(super::peers::odd(&other)),
        }
    }

    /// Which chunks are referenced, as of an entry of the log that was proposed for this question.
    ///
    /// Not a read index: an entry that refers to a chunk may be in the leader's log, proposed long
    /// ago, and not yet committed. It is before this question's entry in every log, so this
    /// answer sees it, or it is never committed.
    pub(super) async fn referenced(
        &self,
        group: GroupId,
        hashes: Vec<ChunkHash>,
    ) -> Result<PeerAnswer> {
        let shard = self.groups.shard(group)?;
        shard.proposer.barrier().await?;
        let read = move |view: &StoreView| {
            let referenced = hashes.iter().map(|hash| read::is_referenced(view, hash));
            Ok(PeerAnswer::Referenced {
                referenced: referenced.collect::<Result<_>>()?,
                uploads: super::workers::any_in(view, keys::UPLOADS)?,
            })
        };
        shard.read(ReadLevel::Linearizable, read).await
    }

    /// Referenced chunks that a node should hold under an epoch.
    pub(super) async fn wanted_of(
        &self,
        group: GroupId,
        who: NodeId,
        from: ChunkHash,
        limit: u32,
        epoch: Epoch,
    ) -> Result<PeerAnswer> {
        let view = self.views.now();
        if view.newest_epoch() != epoch {
            return Err(Error::new(Code::Busy, "the ring is at another epoch here"));
        }
        if view.offline.contains(&who) {
            // It would be told that it needs nothing, and believe that it has all it should.
            let why = format!("node {who} counts as gone here");
            return Err(Error::new(Code::Busy, why));
        }
        let limit = limit.min(WANTED_MAX) as usize;
        let shard = self.groups.shard(group)?;
        self.fence(&shard, epoch).await?;
        let read = move |records: &StoreView| {
            let page = read::references(records, from, limit)?;
            let next = page.next;
            let holds = |hash: &ChunkHash| view.holders(hash).contains(&who);
            let chunks = page.chunks.into_iter().filter(|(hash, _)| holds(hash));
            Ok(PeerAnswer::Wanted {
                chunks: chunks.collect(),
                next,
            })
        };
        shard.read(ReadLevel::Linearizable, read).await
    }

    /// Sees that no commit under way was judged by the holders of an older epoch. What is committed
    /// from here on is on holders of this one; what was before, the caller's pass will see. So an
    /// older epoch can be closed when everybody's pass has ended, and nothing is left behind where
    /// no reader looks.
    async fn fence(&self, shard: &Group, epoch: Epoch) -> Result<()> {
        let term = shard.raft.status().term;
        if *self.fenced.lock() == (epoch, term) {
            return Ok(());
        }
        drop(self.commits.write().await);
        // One that was given up by its client may be in the log and not applied yet.
        shard.proposer.barrier().await?;
        if self.views.now().newest_epoch() != epoch || shard.raft.status().term != term {
            return Err(Error::new(Code::Busy, "the ring or the leader has changed"));
        }
        *self.fenced.lock() = (epoch, term);
        Ok(())
    }

    /// Entries of this node's log, for a peer whose own are damaged. The group need not run here: it
    /// may wait for the same, and both would wait for ever.
    async fn entries(&self, group: GroupId, from: LogIndex, to: LogIndex) -> Result<PeerAnswer> {
        let read = self.wal.read(group, from, to, ENTRIES_BYTES_MAX).await?;
        let entries = read.into_iter().map(|entry| {
            let at = entry.position;
            (at.term, at.leader, at.index, entry.payload)
        });
        Ok(PeerAnswer::Entries(entries.collect()))
    }
}
