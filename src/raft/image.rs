//! Taking an image: what a replica does with one that its leader has sent. Called by `node`
//! through `RaftGroup::receive_image`; the sending half is in `network`.
//!
//! 1. One image at a time, and none from a deposed leader.
//! 2. The long part, checking and copying, goes on beside everything else and changes nothing.
//! 3. openraft then decides: an image that is not newer than what is committed here is let go.
//!    Else it has the state put on the image between two batches of entries; only when that is
//!    durable does it let the log begin behind the image, and the answer goes back.

use super::kinds::{Vote, log_id};
use super::message::{Answer, Ask, Envelope, ImageHead, OfferAnswer};
use super::stored::{self, StoredVote};
use super::{AppliedMark, RaftGroup, ReceivedImage, StagedImage, machine, refusal};
use crate::codec;
use crate::error::{Code, Error, Result};
use bytes::Bytes;
use openraft::async_runtime::WatchReceiver;
use openraft::storage::Snapshot;
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::oneshot;

/// A staged image on its way through openraft, which may lose it: whoever gave it in looks
/// whether it is still there.
#[derive(Clone, Default)]
pub(super) struct Parcel(Arc<Mutex<Option<StagedImage>>>);

impl Parcel {
    pub(super) fn new(image: StagedImage) -> Parcel {
        Parcel(Arc::new(Mutex::new(Some(image))))
    }

    pub(super) fn take(&self) -> Option<StagedImage> {
        self.0.lock().take()
    }
}

impl RaftGroup {
    /// Takes an image of a leader: its head, and its file. Answers once it is installed, or found
    /// not to be needed. Goes on to its end even if the caller does not wait for it.
    ///
    /// # Errors
    /// `corrupt` for a head that is none or an image that does not fit it, `not_found` for one
    /// that is addressed to another replica, `busy` while another image is being taken,
    /// `unavailable` when this replica has stopped. Its state is as before.
    pub async fn receive_image(
        self: &Arc<Self>,
        head: Bytes,
        file: ReceivedImage,
    ) -> Result<Bytes> {
        let envelope: Envelope = codec::decode(&head)?;
        self.must_be_addressed(&envelope)?;
        let Ask::Image(head) = envelope.ask else {
            return Err(Error::corrupt("a message with an image's file is no image"));
        };
        let (done, answered) = oneshot::channel();
        let group = self.clone();
        let task = async move {
            // Whoever asked may be gone; what was done is done.
            let _ = done.send(group.take_image(head, file).await);
        };
        self.spawn.spawn("raft-image", Box::pin(task));
        let answer = answered.await.map_err(|_| refusal::stopped())??;
        Ok(codec::encode(&Answer::Image(answer)).into())
    }

    async fn take_image(&self, head: ImageHead, file: ReceivedImage) -> Result<StoredVote> {
        let _only = self.images.try_lock().map_err(|_| {
            Error::new(
                Code::Busy,
                format!("replica {} is taking an image already", self.replica),
            )
        })?;
        let vote = Vote::from(head.vote);
        let mine = self.raft.metrics().borrow_watched().vote;
        if mine > vote {
            return Ok((&mine).into());
        }
        let mark = self.checked(&head)?;
        let meta = machine::snapshot_meta(&mark)?;
        let needed = self.state.folded().position.index < mark.position.index;
        let parcel = if needed {
            Parcel::new(self.stage(file, &mark).await?)
        } else {
            Parcel::default()
        };
        let snapshot = Snapshot {
            meta,
            snapshot: parcel.clone(),
        };
        let _installing = needed.then(|| self.installing.begin(mark.position.index));
        let answer = self.raft.install_full_snapshot(vote, snapshot).await;
        if let Some(staged) = parcel.take() {
            self.state.discard_image(staged).await?;
        }
        let answer = answer.map_err(|e| refusal::fatal(&e))?;
        Ok((&answer.vote).into())
    }

    /// The head's mark, if openraft may see it: it takes for granted that no leader has entries
    /// of a later one, and that what is committed here is committed everywhere.
    fn checked(&self, head: &ImageHead) -> Result<AppliedMark> {
        let at = head.position;
        let refuse = |why: &str| {
            Err(Error::corrupt(format!(
                "an image of group {} as of entry {} {why}",
                self.group, at.index
            )))
        };
        if at.index.0 == 0 || stored::decode_members(&head.members)?.voter_ids().count() == 0 {
            return refuse("is of nothing");
        }
        if log_id(at).leader_id > Vote::from(head.vote).leader_id {
            return refuse("is newer than the leader that sends it");
        }
        let applied = self.state.applied().position;
        if at > applied && at.index <= applied.index {
            return refuse("contradicts what is applied here");
        }
        Ok(AppliedMark {
            position: at,
            members: head.members.clone(),
        })
    }

    async fn stage(&self, file: ReceivedImage, mark: &AppliedMark) -> Result<StagedImage> {
        let staged = self.state.stage_image(file).await?;
        if staged.mark == *mark {
            return Ok(staged);
        }
        let found = staged.mark.position.index;
        self.state.discard_image(staged).await?;
        Err(Error::corrupt(format!(
            "an image of group {} is as of entry {found}, its head says {}",
            self.group, mark.position.index
        )))
    }

    /// Whether an image of this leader would be taken, and what there is already.
    pub(super) fn answer_offer(&self) -> OfferAnswer {
        let vote = self.raft.metrics().borrow_watched().vote;
        OfferAnswer {
            vote: (&vote).into(),
            folded: self.state.folded().position,
            busy: self.images.try_lock().is_err(),
        }
    }
}
