//! One reservation: made, filled, kept, committed or given up.
//!
//! Only the commit travels under the identity that a user gave. What comes before it is named by
//! the upload's own number and may be repeated at will, so that a put that failed half way can
//! be sent again under the same identity.

use super::put::Target;
use crate::client::ask::To;
use crate::client::core::{Client, odd};
use crate::client::manifest::{Manifest, check_chunk_bytes};
use crate::client::opid::given_upload;
use crate::client::options::OpIds;
use crate::client::retry::{Pace, Retry};
use crate::client::send::Sent;
use crate::error::{Code, Error, Result};
use crate::proto::{Answer, Call, Ticket};
use crate::shard::command::{Done, Op};
use crate::shard::records::ChunkRef;
use crate::types::{GroupId, Inode, UploadId};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Mutex;

/// How often a reservation is made to last longer; it lasts a day if nobody chose otherwise.
const EXTEND_EVERY: Duration = Duration::from_secs(3_600);
/// How long a request is sent again as it is when too few nodes have a chunk, before all chunks
/// are asked for.
const LACKING_MAX: Duration = Duration::from_secs(1);
/// Uploads tried for a given id when the ones before are of a put that has ended.
const UPLOADS_TRIED_MAX: u32 = 4;

/// What to do when chunks that a request refers to are on too few nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lacking {
    /// The caller sends them again, after a moment's wait.
    SendAgain,
    /// Nobody can: they may only be with nodes that are silent.
    Wait,
}

/// A reservation in the shard, and what is needed to work under it.
pub(super) struct Begun<'a> {
    pub(super) client: &'a Client,
    pub(super) target: &'a Target,
    pub(super) shard: GroupId,
    pub(super) parent: Inode,
    pub(super) upload: UploadId,
    pub(super) chunk_bytes: u64,
    ticket: Mutex<Option<Ticket>>,
    /// The shard holds other manifest pages under it than ours.
    foreign: AtomicBool,
}

impl<'a> Begun<'a> {
    /// Reserves the name. `given_up`: how many uploads of this put were given up before.
    pub(super) async fn reserve(
        client: &'a Client,
        target: &'a Target,
        given_up: u32,
    ) -> Result<Begun<'a>> {
        let OpIds::Given(id) = &target.ids else {
            let upload = UploadId(client.core.env.rng.bytes16());
            return Begun::reserve_as(client, target, upload).await;
        };
        let mut tried = 0;
        loop {
            let upload = given_upload(id, &target.step, given_up.saturating_add(tried));
            tried += 1;
            match Begun::reserve_as(client, target, upload).await {
                // What was reserved under this number has expired, or for another state of the
                // target.
                Err(error)
                    if matches!(error.code, Code::NotFound | Code::Usage)
                        && tried < UPLOADS_TRIED_MAX =>
                {
                    tracing::debug!(%error, %upload, "another upload is begun");
                }
                reserved => return reserved,
            }
        }
    }

    async fn reserve_as(
        client: &'a Client,
        target: &'a Target,
        upload: UploadId,
    ) -> Result<Begun<'a>> {
        let shard = client.shard_of(&target.path);
        let (done, ticket) = reserve_once(client, target, shard, upload).await?;
        Ok(Begun {
            client,
            target,
            shard,
            parent: done.parent,
            upload,
            chunk_bytes: check_chunk_bytes(done.chunk_bytes)?,
            ticket: Mutex::new(ticket),
            foreign: AtomicBool::new(false),
        })
    }

    /// Takes up a reservation made before.
    ///
    /// # Errors
    /// `not_found` when it has expired, was committed or given up.
    pub(super) async fn take_up(
        client: &'a Client,
        target: &'a Target,
        (shard, parent, upload): (GroupId, Inode, UploadId),
        chunk_bytes: u64,
    ) -> Result<Begun<'a>> {
        let begun = Begun {
            client,
            target,
            shard,
            parent,
            upload,
            chunk_bytes: check_chunk_bytes(chunk_bytes)?,
            ticket: Mutex::new(None),
            foreign: AtomicBool::new(false),
        };
        begun.ticket().await?;
        Ok(begun)
    }

    /// The right to write chunks for this upload: it came with the reservation, or is asked for
    /// once.
    pub(super) async fn ticket(&self) -> Result<Ticket> {
        let mut held = self.ticket.lock().await;
        if let Some(ticket) = &*held {
            return Ok(ticket.clone());
        }
        let ticket = self.ask_ticket().await?;
        *held = Some(ticket.clone());
        Ok(ticket)
    }

    /// Another ticket than this one, which a node has refused: its key was replaced.
    pub(super) async fn ticket_after(&self, refused: &Ticket) -> Result<Ticket> {
        {
            let mut held = self.ticket.lock().await;
            if held.as_ref() == Some(refused) {
                *held = None;
            }
        }
        self.ticket().await
    }

    fn ask_ticket(&self) -> BoxFuture<'_, Result<Ticket>> {
        async {
            let call = Call::UploadTicket {
                parent: self.parent,
                upload: self.upload,
            };
            match self.client.ask(To::Shard(self.shard), &call).await? {
                Answer::Ticket(ticket) => Ok(ticket),
                _ => Err(odd("a ticket")),
            }
        }
        .boxed()
    }

    /// Makes the reservation last longer, again and again. Ends never.
    pub(super) async fn keep(&self) -> Infallible {
        loop {
            tokio::time::sleep(EXTEND_EVERY).await;
            if let Err(error) = self.extend().await {
                tracing::debug!(%error, upload = %self.upload, "a reservation was not extended");
            }
        }
    }

    async fn extend(&self) -> Result<()> {
        let (client, target) = (self.client, self.target);
        let (done, ticket) = reserve_once(client, target, self.shard, self.upload).await?;
        if done.parent != self.parent {
            // Another directory has the path now: that one is to hold nothing of ours.
            self.abort_in(done.parent).await;
        } else if ticket.is_some() {
            *self.ticket.lock().await = ticket;
        }
        Ok(())
    }

    /// Hands over one full manifest page. Handing it over twice does no harm.
    pub(super) async fn stage(
        &self,
        page: u32,
        chunks: Vec<ChunkRef>,
        lacking: Lacking,
    ) -> Result<()> {
        let op = Op::Stage {
            parent: self.parent,
            upload: self.upload,
            page,
            chunks,
        };
        let staged = self.refer(op, &OpIds::Automatic, "", lacking).await;
        let staged = staged.and_then(Sent::one);
        if staged.as_ref().is_err_and(|e| e.code == Code::Conflict) {
            self.foreign.store(true, Ordering::Relaxed);
        }
        staged.map(drop)
    }

    /// True after a page was refused because another run has handed over another content under
    /// this reservation: it can only be given up.
    pub(super) fn is_foreign(&self) -> bool {
        self.foreign.load(Ordering::Relaxed)
    }

    /// Makes the content the next version.
    pub(super) async fn commit(&self, manifest: &Manifest, lacking: Lacking) -> Result<Sent> {
        let op = Op::Commit {
            parent: self.parent,
            upload: self.upload,
            size: manifest.size,
            hash: manifest.hash,
            tail: manifest.tail.clone(),
        };
        let (ids, step) = (&self.target.ids, &self.target.step);
        self.refer(op, ids, step, lacking).await
    }

    /// Sends what refers to chunks. Some may be lacking for a moment only, while an owner of
    /// theirs is silent or still takes them.
    async fn refer(&self, op: Op, ids: &OpIds, step: &str, lacking: Lacking) -> Result<Sent> {
        let (client, ack) = (self.client, self.target.ack);
        let patience = match lacking {
            Lacking::SendAgain => LACKING_MAX.min(client.core.timeout),
            Lacking::Wait => client.core.timeout,
        };
        let mut retry = Retry::within(patience);
        loop {
            let ops = vec![op.clone()];
            match client.send_acked(self.shard, ops, ids, step, ack).await {
                Err(error) if error.code == Code::NotStored => {
                    let rng = &*client.core.env.rng;
                    retry.pause(rng, error, Pace::Usual).await?;
                }
                sent => return sent,
            }
        }
    }

    /// Gives the reservation up. If that fails too, it expires by itself.
    pub(super) async fn abort(&self) {
        self.abort_in(self.parent).await;
    }

    async fn abort_in(&self, parent: Inode) {
        let upload = self.upload;
        let op = Op::Abort { parent, upload };
        if let Err(error) = send_one(self.client, self.shard, op).await {
            tracing::debug!(%error, %upload, "an upload is left to expire");
        }
    }
}

/// Reserves, or makes what is reserved last longer.
async fn reserve_once(
    client: &Client,
    target: &Target,
    shard: GroupId,
    upload: UploadId,
) -> Result<(Done, Option<Ticket>)> {
    let op = Op::Reserve {
        path: target.path.clone(),
        upload,
        precondition: target.precondition,
        mode: target.mode,
    };
    let mut sent = client.send(shard, vec![op], &OpIds::Automatic, "").await?;
    let ticket = sent.tickets.pop();
    let (_, done) = sent.one()?;
    Ok((done, ticket))
}

async fn send_one(client: &Client, shard: GroupId, op: Op) -> Result<Done, Error> {
    let sent = client.send(shard, vec![op], &OpIds::Automatic, "").await?;
    let (_, done) = sent.one()?;
    Ok(done)
}
