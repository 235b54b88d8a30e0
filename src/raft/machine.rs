//! The state machine as openraft sees it: applies in batches, installs images, and hands out
//! "snapshots" that are nothing but a position and its members. Called by openraft only; built by
//! `RaftGroup::start`.
//!
//! A snapshot in openraft's sense says up to where the log may go. It stands for the last synced
//! fold, never for what is merely applied: an entry that leaves the log must be in the store.
//! Only one that comes in carries something: the staged image (`image`).

use super::image::Parcel;
use super::kinds::{Answer, Entry, LogId, StoredMembership, Types, log_id_if_any, position};
use super::{AppliedMark, Committed, CommittedWhat, StateMachine, stored};
use crate::error::Result;
use futures::{FutureExt, Stream, StreamExt};
use openraft::storage::{
    ApplyResponder, EntryResponder, RaftSnapshotBuilder, RaftStateMachine, Snapshot, SnapshotMeta,
};
use openraft::type_config::alias::{SnapshotMetaOf, SnapshotOf};
use openraft::{EntryPayload, OptionalSend};
use std::io;
use std::sync::Arc;

/// Entries handed to the state machine at once: enough to spread its fixed costs, few enough
/// that the first caller of a batch does not wait for long.
const BATCH_ENTRIES_MAX: usize = 512;
/// Bytes of commands handed to the state machine at once.
const BATCH_BYTES_MAX: usize = 8 << 20;

/// The adapter; clones share the state machine.
#[derive(Clone)]
pub(super) struct Machine {
    state: Arc<dyn StateMachine>,
}

impl Machine {
    pub(super) fn new(state: Arc<dyn StateMachine>) -> Self {
        Machine { state }
    }

    fn folded_snapshot(&self) -> io::Result<SnapshotOf<Types, Parcel>> {
        let meta = snapshot_meta(&self.state.folded()).map_err(io::Error::other)?;
        Ok(Snapshot {
            meta,
            snapshot: Parcel::default(),
        })
    }

    async fn apply_batch(&self, batch: Batch) -> io::Result<()> {
        let Batch {
            entries,
            responders,
            ..
        } = batch;
        let replies = self.state.apply(entries).await.map_err(io::Error::other)?;
        if replies.len() != responders.len() {
            return Err(io::Error::other(format!(
                "the state machine answered {} of {} entries",
                replies.len(),
                responders.len()
            )));
        }
        for (responder, reply) in responders.into_iter().zip(replies) {
            if let Some(responder) = responder {
                responder.send(Answer(reply));
            }
        }
        Ok(())
    }
}

fn decode_mark(mark: &AppliedMark) -> Result<(Option<LogId>, StoredMembership)> {
    let members = stored::decode_members(&mark.members)?;
    Ok((log_id_if_any(mark.position), members))
}

/// A mark in openraft's words.
///
/// # Errors
/// `corrupt` for members that make no group.
pub(super) fn snapshot_meta(mark: &AppliedMark) -> Result<SnapshotMetaOf<Types>> {
    let (last_log_id, last_membership) = decode_mark(mark)?;
    Ok(SnapshotMeta {
        last_log_id,
        last_membership,
    })
}

/// Entries taken from openraft's stream, and who waits for each of them.
#[derive(Default)]
struct Batch {
    entries: Vec<Committed>,
    responders: Vec<Option<ApplyResponder<Types>>>,
    bytes: usize,
}

impl Batch {
    fn push(&mut self, (entry, responder): EntryResponder<Types>) {
        let entry = committed(entry);
        if let CommittedWhat::Command(command) = &entry.what {
            self.bytes = self.bytes.saturating_add(command.len());
        }
        self.entries.push(entry);
        self.responders.push(responder);
    }

    fn is_full(&self) -> bool {
        self.entries.len() >= BATCH_ENTRIES_MAX || self.bytes >= BATCH_BYTES_MAX
    }
}

fn committed(entry: Entry) -> Committed {
    let position = position(&entry.log_id);
    let what = match entry.payload {
        EntryPayload::Blank => CommittedWhat::Blank,
        EntryPayload::Normal(command) => CommittedWhat::Command(command.0),
        EntryPayload::Membership(members) => {
            CommittedWhat::Members(stored::encode_members(Some(position), &members))
        }
    };
    Committed { position, what }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = Parcel;
    type SnapshotBuilder = Machine;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        decode_mark(&self.state.applied()).map_err(io::Error::other)
    }

    /// Applies batch by batch: whatever is ready goes together, so that a lone entry never waits
    /// for company.
    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
    {
        while let Some(first) = entries.next().await {
            let mut batch = Batch::default();
            batch.push(first?);
            while !batch.is_full() {
                match entries.next().now_or_never() {
                    Some(Some(entry)) => batch.push(entry?),
                    Some(None) | None => break,
                }
            }
            self.apply_batch(batch).await?;
        }
        Ok(())
    }

    /// Never declines: openraft only asks for what the last fold holds, and there always is one.
    async fn try_create_snapshot_builder(&mut self, _force: bool) -> Option<Machine> {
        Some(self.clone())
    }

    async fn get_snapshot_builder(&mut self) -> Machine {
        self.clone()
    }

    /// Makes a staged image the state; between two batches of entries, because openraft does all
    /// of this in one task.
    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMetaOf<Types>,
        image: Parcel,
    ) -> io::Result<()> {
        let staged = image.take();
        let staged = staged.ok_or_else(|| io::Error::other("an image without its bytes"))?;
        let installed = self.state.install_image(staged).await;
        let installed = installed.map_err(io::Error::other)?;
        let at = log_id_if_any(installed.position);
        if at != meta.last_log_id {
            let expected = &meta.last_log_id;
            return Err(io::Error::other(format!(
                "the installed image is as of {at:?}, not {expected:?}"
            )));
        }
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf<Types, Parcel>>> {
        let snapshot = self.folded_snapshot()?;
        Ok(snapshot.meta.last_log_id.is_some().then_some(snapshot))
    }
}

impl RaftSnapshotBuilder<Types> for Machine {
    type SnapshotData = Parcel;

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf<Types, Parcel>> {
        self.folded_snapshot()
    }
}
