//! Calls on the namespace: changes and reads of the shard that owns a path.

use super::Node;
use super::group::Group;
use super::service::Caller;
use super::view::View;
use crate::codec;
use crate::error::{Code, Error, Result};
use crate::limits::{
    BATCH_BYTES_MAX, BATCH_ITEMS_MAX, COPIED_CHUNKS_MAX, HAVE_HASHES_MAX, SESSION_LANES_MAX,
    STAT_PATHS_MAX,
};
use crate::proto::{
    Answer, ChunkLocation, EntryView, NodeAddress, Resolved, RouteView, TicketRight, WhoAmI,
};
use crate::shard;
use crate::shard::command::{Chore, Op, Request, is_too_late};
use crate::shard::read::{ListQuery, Listing};
use crate::store::overlay::View as StoreView;
use crate::types::{
    Ack, ChunkHash, Content, DfsPath, DirVersion, FileVersion, GroupId, Inode, Lane, Name, NodeId,
    OpSeq, ReadLevel, SessionId, ShardTime, UploadId,
};
use std::sync::Arc;

/// A ticket serves for this much shard time; its key is forgotten soon after.
const TICKET_MS: u64 = 24 * 3_600_000;

impl Node {
    pub(super) async fn hello(self: &Arc<Self>, caller: &Caller) -> Result<Answer> {
        let settings = self.settings();
        let shard = self.groups.shard(GroupId::FIRST);
        let route = RouteView {
            prefix: "/".into(),
            shard: GroupId::FIRST,
            leader: self.leader_of(GroupId::FIRST),
            time: shard.map_or(ShardTime(0), |shard| shard.known_time()),
        };
        Ok(Answer::Hello(WhoAmI {
            cluster: self.cluster,
            node: self.id,
            user: caller.user.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            routes: vec![route],
            nodes: self.told_nodes(),
            inline_bytes: settings.inline_bytes,
            chunk_bytes: settings.chunk_bytes,
            grace_ms: settings.grace_ms,
        }))
    }

    /// Who leads a group, as far as this node knows.
    fn leader_of(&self, group: GroupId) -> Option<NodeId> {
        match self.groups.raft(group) {
            Some(raft) => {
                let status = raft.status();
                // Of itself it says so only while a majority does.
                let own = status.leader == Some(status.replica);
                if own && !raft.is_leader() {
                    return None;
                }
                let leads = |(replica, node): &(_, NodeId)| {
                    (status.leader == Some(*replica)).then_some(*node)
                };
                status.voters.iter().find_map(leads)
            }
            None => self.views.now().place(group).and_then(|place| place.leader),
        }
    }

    /// Where chunks belong now.
    pub(super) fn owners(&self, hashes: &[ChunkHash]) -> Answer {
        let view = self.views.now();
        let owners: Vec<Vec<NodeId>> = hashes.iter().map(|hash| view.holders(hash)).collect();
        let nodes = addresses_of(&view, owners.iter().flatten());
        Answer::Owners { owners, nodes }
    }

    pub(super) async fn mutate(
        self: &Arc<Self>,
        caller: &Caller,
        shard: u64,
        request: &[u8],
        ack: Ack,
    ) -> Result<Answer> {
        let shard = self.groups.shard(GroupId(shard))?;
        must_lead(&shard)?;
        let mut asked: Request = codec::decode(request)
            .map_err(|e| Error::usage(format!("the change cannot be read ({})", e.message)))?;
        judge(caller, &asked, request.len())?;
        if asked.ops.iter().any(needs_space) {
            self.must_have_space_to_lead(&shard.raft)?;
        }
        asked.session = own_session(caller, asked.session);
        asked.user = caller.user.clone();
        asked.group = caller.group.clone();
        let copied = self.copied_chunks(&shard, &asked.ops).await?;
        let _committing = self.commits.read().await;
        let placed = self.place_contents(&shard, &mut asked, ack).await?;
        let held = self.hold_references(&shard, &asked, ack).await?;
        // The earlier of the two: both must still hold when the request is applied.
        asked.held = placed.into_iter().chain(held).min();
        let uploads: Vec<_> = asked.ops.iter().map(upload_of).collect();
        let bytes = match placed {
            Some(_) => codec::encode(&asked).len(),
            None => request.len(),
        };
        let (outcomes, time) = shard.proposer.propose(asked, bytes, copied).await?;
        // A request that came too late after its chunks were held was not executed.
        if let Some(Err(error)) = outcomes.iter().find(|outcome| is_too_late(outcome)) {
            return Err(error.clone());
        }
        let expires = time.plus_ms(TICKET_MS);
        let tickets = uploads
            .into_iter()
            .zip(&outcomes)
            .filter_map(|(upload, outcome)| upload.filter(|_| outcome.is_ok()))
            .map(|upload| {
                self.tickets
                    .issue(TicketRight::Write { upload }, &caller.user, expires)
            })
            .collect::<Result<_>>()
            .map_err(Error::unknown_outcome)?;
        Ok(Answer::Mutated {
            outcomes: codec::encode(&outcomes).into(),
            time,
            tickets,
        })
    }

    /// How many chunks the copies of a request refer to, as far as the state here tells.
    ///
    /// # Errors
    /// `usage` for more than one request may: each is a record, and all are written in one step.
    async fn copied_chunks(&self, shard: &Group, ops: &[Op]) -> Result<u64> {
        let copies = ops.iter().filter_map(|op| match op {
            Op::Copy { from, .. } => Some(from.clone()),
            _ => None,
        });
        let copies: Vec<DfsPath> = copies.collect();
        if copies.len() < 2 {
            return Ok(0);
        }
        let machine = shard.machine.clone();
        let count = move || {
            let view = machine.view()?;
            let mut chunks = 0u64;
            for path in &copies {
                match shard::read::stat(&view, path) {
                    Ok(EntryView::File(file)) => chunks += file.attrs.chunks(),
                    // Refused when it is applied.
                    Ok(_) => {}
                    Err(error) if error.code == Code::Corrupt => return Err(error),
                    Err(_) => {}
                }
            }
            Ok(chunks)
        };
        let chunks = self.env.run_blocking(count).await;
        let chunks = chunks.map_err(|error| shard.damage_met(error))?;
        if chunks > COPIED_CHUNKS_MAX {
            let why = format!(
                "the copies in one request refer to {chunks} chunks (at most {COPIED_CHUNKS_MAX})"
            );
            return Err(Error::usage(why).hint("copy fewer files in one request"));
        }
        Ok(chunks)
    }

    pub(super) async fn stat(&self, path: DfsPath, level: ReadLevel) -> Result<Answer> {
        let entry = self
            .groups
            .shard(GroupId::FIRST)?
            .read(level, move |view| shard::read::stat(view, &path))
            .await?;
        Ok(Answer::Stat(entry))
    }

    pub(super) async fn stat_many(&self, paths: Vec<DfsPath>, level: ReadLevel) -> Result<Answer> {
        if paths.len() > STAT_PATHS_MAX {
            return Err(Error::usage(format!(
                "more than {STAT_PATHS_MAX} paths in one request"
            )));
        }
        let read = move |view: &StoreView| {
            paths
                .iter()
                .map(|path| match shard::read::stat(view, path) {
                    Err(error) if error.code == Code::Corrupt => Err(error),
                    answer => Ok(answer),
                })
                .collect()
        };
        Ok(Answer::StatMany(
            self.groups.shard(GroupId::FIRST)?.read(level, read).await?,
        ))
    }

    pub(super) async fn list(
        &self,
        path: DfsPath,
        after: Option<Name>,
        limit: u32,
        attrs: bool,
        known: Option<DirVersion>,
        level: ReadLevel,
    ) -> Result<Answer> {
        let read = move |view: &StoreView| {
            let query = ListQuery {
                after: after.as_ref(),
                limit: limit as usize,
                attrs,
                known,
            };
            shard::read::list(view, &path, &query)
        };
        Ok(
            match self.groups.shard(GroupId::FIRST)?.read(level, read).await? {
                Listing::NotModified => Answer::NotModified,
                Listing::Page { dir, entries, more } => Answer::List { dir, entries, more },
            },
        )
    }

    pub(super) async fn resolve(
        &self,
        caller: &Caller,
        path: DfsPath,
        version: Option<FileVersion>,
        page: u32,
        pinned: Option<(Inode, FileVersion)>,
        level: ReadLevel,
    ) -> Result<Answer> {
        let read = move |view: &StoreView| shard::read::resolve(view, &path, version, page, pinned);
        let shard = self.groups.shard(GroupId::FIRST)?;
        let found = shard.read(level, read).await?;
        let view = self.views.now();
        let mut answer = Resolved {
            inline: found.inline,
            chunks: Vec::with_capacity(found.chunks.len()),
            ticket: None,
            nodes: Vec::new(),
            file: found.file,
        };
        if let Content::Chunks { id, .. } = answer.file.attrs.content {
            let right = TicketRight::Read {
                inode: answer.file.inode,
                content: id,
            };
            let expires = shard.known_time().plus_ms(TICKET_MS);
            let ticket = self.tickets.issue(right, &caller.user, expires)?;
            for chunk in found.chunks {
                let mac = self
                    .tickets
                    .prove(&ticket.right, &caller.user, &chunk.hash)?;
                answer.chunks.push(ChunkLocation {
                    hash: chunk.hash,
                    len: chunk.len,
                    mac,
                    owners: view.readers(&chunk.hash),
                });
            }
            let owners = answer.chunks.iter().flat_map(|chunk| &chunk.owners);
            answer.nodes = addresses_of(&view, owners);
            answer.ticket = Some(ticket);
        }
        Ok(Answer::Resolved(answer))
    }

    pub(super) async fn versions(&self, path: DfsPath, level: ReadLevel) -> Result<Answer> {
        let read = move |view: &StoreView| shard::read::versions(view, &path);
        Ok(Answer::Versions(
            self.groups.shard(GroupId::FIRST)?.read(level, read).await?,
        ))
    }

    pub(super) async fn deleted(&self, path: DfsPath, level: ReadLevel) -> Result<Answer> {
        let read = move |view: &StoreView| shard::read::deleted(view, &path);
        Ok(Answer::Deleted(
            self.groups.shard(GroupId::FIRST)?.read(level, read).await?,
        ))
    }

    pub(super) async fn upload_ticket(
        &self,
        caller: &Caller,
        parent: Inode,
        upload: UploadId,
    ) -> Result<Answer> {
        self.must_own_upload(caller, parent, upload).await?;
        let shard = self.groups.shard(GroupId::FIRST)?;
        let expires = shard.known_time().plus_ms(TICKET_MS);
        let right = TicketRight::Write { upload };
        Ok(Answer::Ticket(self.tickets.issue(
            right,
            &caller.user,
            expires,
        )?))
    }

    /// Tells of chunks only to those who reference them already: a hash alone opens nothing.
    pub(super) async fn known(
        &self,
        caller: &Caller,
        parent: Inode,
        upload: UploadId,
        hashes: Vec<ChunkHash>,
    ) -> Result<Answer> {
        if hashes.len() > HAVE_HASHES_MAX {
            return Err(Error::usage(format!(
                "more than {HAVE_HASHES_MAX} hashes in one request"
            )));
        }
        self.must_own_upload(caller, parent, upload).await?;
        let user = caller.user.clone();
        let asked = hashes.clone();
        let known = self
            .groups
            .shard(GroupId::FIRST)?
            .read(ReadLevel::Linearizable, move |view| {
                shard::read::knows(view, &user, &asked)
            })
            .await?;
        let right = TicketRight::Write { upload };
        let macs = hashes.iter().zip(known).map(|(hash, known)| {
            known
                .then(|| self.tickets.prove(&right, &caller.user, hash))
                .transpose()
        });
        Ok(Answer::Known(macs.collect::<Result<_>>()?))
    }

    async fn must_own_upload(
        &self,
        caller: &Caller,
        parent: Inode,
        upload: UploadId,
    ) -> Result<()> {
        let read = move |view: &StoreView| shard::read::upload(view, parent, upload);
        match self
            .groups
            .shard(GroupId::FIRST)?
            .read(ReadLevel::Linearizable, read)
            .await?
        {
            Some(found) if found.user == caller.user => Ok(()),
            // A foreign upload is not told from none.
            _ => Err(Error::not_found(format!("there is no upload {upload}"))
                .hint("it was committed or has expired; put the file again")),
        }
    }

    /// What became of a request of this user. Another user's session is not told from none.
    pub(super) async fn op_status(
        &self,
        caller: &Caller,
        session: SessionId,
        lane: u16,
        seq: u64,
    ) -> Result<Answer> {
        let session = own_session(caller, session);
        let read = move |view: &StoreView| shard::read::lane(view, session, Lane(lane));
        let row = self
            .groups
            .shard(GroupId::FIRST)?
            .read(ReadLevel::Linearizable, read)
            .await?;
        let row = row.filter(|row| row.user == caller.user && row.seq == OpSeq(seq));
        Ok(Answer::OpStatus(
            row.map(|row| codec::encode(&row.outcomes).into()),
        ))
    }

    /// Cleans up deletions; with `now` also those that could still be brought back, and the chunks
    /// that nothing refers to any more.
    pub(super) async fn gc(self: &Arc<Self>, now: bool) -> Result<Answer> {
        let shard = self.groups.shard(GroupId::FIRST)?;
        must_lead(&shard)?;
        let records = crate::limits::CLEANUP_BATCH_DEFAULT as u32;
        loop {
            let done = shard
                .proposer
                .chore(Chore::Cleanup { records, now })
                .await?;
            if !done.more {
                if now {
                    self.census_everywhere().await?;
                }
                let header = shard
                    .read(ReadLevel::Linearizable, |view| shard::read::header(view))
                    .await?;
                return Ok(Answer::Gc {
                    left: header.deletions,
                });
            }
        }
    }
}

/// # Errors
/// `redirect` unless this replica leads its shard: before anything of this node's own, such as a
/// full disk, refuses what another node may take.
fn must_lead(shard: &Group) -> Result<()> {
    if shard.raft.is_leader() {
        return Ok(());
    }
    let why = format!("this node does not lead shard {}", shard.id);
    Err(Error::new(Code::Redirect, why))
}

/// Each of these nodes once, with its address.
fn addresses_of<'a>(view: &View, nodes: impl Iterator<Item = &'a NodeId>) -> Vec<NodeAddress> {
    let distinct: std::collections::BTreeSet<NodeId> = nodes.copied().collect();
    let told = distinct.into_iter().filter_map(|node| view.address(node));
    told.collect()
}

/// A session as the shard knows it: one user's. Ids that people give to operations become
/// sessions by a hash that anybody can make, so two users may ask for the same one, by chance or
/// to be in each other's way.
fn own_session(caller: &Caller, session: SessionId) -> SessionId {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"dfs session 1");
    hasher.update(&(caller.user.len() as u64).to_le_bytes());
    hasher.update(caller.user.as_bytes());
    hasher.update(&session.0);
    let mut own = [0; 16];
    own.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    SessionId(own)
}

/// The upload that an operation begins.
fn upload_of(op: &Op) -> Option<UploadId> {
    match op {
        Op::Reserve { upload, .. } => Some(*upload),
        _ => None,
    }
}

/// True for operations that bring new data; everything else must work on a full disk.
fn needs_space(op: &Op) -> bool {
    matches!(
        op,
        Op::Mkdir { .. } | Op::Put { .. } | Op::Reserve { .. } | Op::Stage { .. } | Op::Copy { .. }
    )
}

/// Bounds of one request, checked before it costs anything.
fn judge(caller: &Caller, request: &Request, bytes: usize) -> Result<()> {
    let refuse = |why: String| Err(Error::usage(why));
    if request.ops.is_empty() || request.ops.len() > BATCH_ITEMS_MAX {
        return refuse(format!("a request has 1 to {BATCH_ITEMS_MAX} operations"));
    }
    if bytes > 2 * BATCH_BYTES_MAX {
        return refuse(format!(
            "a request has at most {BATCH_BYTES_MAX} bytes of content"
        ));
    }
    if request.lane.0 >= SESSION_LANES_MAX {
        return refuse(format!("a session has {SESSION_LANES_MAX} lanes"));
    }
    if request
        .ops
        .iter()
        .any(|op| matches!(op, Op::PutChunk { .. }))
    {
        return refuse("a file cannot be made of a chunk's name alone".into());
    }
    if request.ops.iter().any(|op| matches!(op, Op::Settings(_))) {
        caller.must_be_admin("change settings")?;
    }
    if request
        .ops
        .iter()
        .any(|op| matches!(op, Op::SetAttrs { owner: Some(_), .. }))
    {
        caller.must_be_admin("give files to another owner")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_users_with_one_session_id_have_two_sessions() {
        let of = |user: &str| {
            let caller = Caller {
                user: user.into(),
                group: "staff".into(),
                admin: false,
            };
            own_session(&caller, SessionId([7; 16]))
        };
        assert_eq!(of("ann"), of("ann"));
        assert_ne!(of("ann"), of("bob"));
        assert_ne!(of("ann"), SessionId([7; 16]));
    }
}
