//! One reservation: made, filled, committed or given up.

use super::put::Target;
use crate::client::core::{Client, odd};
use crate::client::manifest::{Manifest, check_chunk_bytes};
use crate::client::opid::given_upload;
use crate::client::options::OpIds;
use crate::client::send::Sent;
use crate::error::Result;
use crate::proto::{Answer, Call, Ticket};
use crate::shard::command::Op;
use crate::shard::records::ChunkRef;
use crate::types::{GroupId, Inode, UploadId};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::OnceCell;

/// A reservation in the shard, and what is needed to work under it.
pub(super) struct Begun<'a> {
    pub(super) client: &'a Client,
    pub(super) target: &'a Target,
    pub(super) shard: GroupId,
    pub(super) parent: Inode,
    pub(super) upload: UploadId,
    pub(super) chunk_bytes: u64,
    ticket: OnceCell<Ticket>,
}

impl<'a> Begun<'a> {
    /// Reserves the name.
    pub(super) async fn reserve(client: &'a Client, target: &'a Target) -> Result<Begun<'a>> {
        let upload = match &target.ids {
            OpIds::Automatic => UploadId(client.core.env.rng.bytes16()),
            OpIds::Given(id) => given_upload(id, &target.step),
        };
        let shard = client.shard_of(&target.path);
        let op = Op::Reserve {
            path: target.path.clone(),
            upload,
            precondition: target.precondition,
            mode: target.mode,
        };
        let step = target.step("reserve");
        let mut sent = client.send(shard, vec![op], &target.ids, &step).await?;
        let ticket = OnceCell::new_with(sent.tickets.pop());
        let (_, done) = sent.one()?;
        Ok(Begun {
            client,
            target,
            shard,
            parent: done.parent,
            upload,
            chunk_bytes: check_chunk_bytes(done.chunk_bytes)?,
            ticket,
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
            ticket: OnceCell::new(),
        };
        begun.ticket().await?;
        Ok(begun)
    }

    /// The right to write chunks for this upload: it came with the reservation, or is asked for
    /// once.
    pub(super) async fn ticket(&self) -> Result<&Ticket> {
        self.ticket.get_or_try_init(|| self.ask_ticket()).await
    }

    fn ask_ticket(&self) -> BoxFuture<'_, Result<Ticket>> {
        async {
            let call = Call::UploadTicket {
                parent: self.parent,
                upload: self.upload,
            };
            match self.client.ask(&call).await? {
                Answer::Ticket(ticket) => Ok(ticket),
                _ => Err(odd("a ticket")),
            }
        }
        .boxed()
    }

    /// Hands over one full manifest page.
    pub(super) async fn stage(&self, page: u32, chunks: Vec<ChunkRef>) -> Result<()> {
        let op = Op::Stage {
            parent: self.parent,
            upload: self.upload,
            page,
            chunks,
        };
        let step = self.target.step(&format!("stage-{page}"));
        let sent = self
            .client
            .send(self.shard, vec![op], &self.target.ids, &step);
        sent.await?.one()?;
        Ok(())
    }

    /// Makes the content the next version.
    pub(super) async fn commit(&self, manifest: &Manifest) -> Result<Sent> {
        let op = Op::Commit {
            parent: self.parent,
            upload: self.upload,
            size: manifest.size,
            hash: manifest.hash,
            tail: manifest.tail.clone(),
        };
        let (ids, step) = (&self.target.ids, &self.target.step);
        self.client.send(self.shard, vec![op], ids, step).await
    }

    /// Gives the reservation up. If that fails too, it expires by itself.
    pub(super) async fn abort(&self) {
        let op = Op::Abort {
            parent: self.parent,
            upload: self.upload,
        };
        let sent = self
            .client
            .send(self.shard, vec![op], &OpIds::Automatic, "");
        if let Err(error) = sent.await.and_then(Sent::one) {
            tracing::debug!(%error, upload = %self.upload, "an upload is left to expire");
        }
    }
}
