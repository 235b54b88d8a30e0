//! The replicated state of one group on this node: binds `shard` or `root` to the store. Called
//! by `raft` with committed entries; publishes their effects in one step with the applied
//! position. Cuts and takes images of it.

use super::doubts::Doubts;
use super::spool::SpoolFile;
use crate::env::Env;
use crate::error::{Code, Error, Result};
use crate::raft::{
    AppliedMark, Committed, CommittedWhat, CutImage, ReceivedImage, Reply, StagedImage,
    StateMachine,
};
use crate::store::Change;
use crate::store::image::{self, ImageMeta};
use crate::store::overlay::{MetaStore, ReplicaMark, ReplicaRecord, StagedSlot, View};
use crate::types::{GroupId, LogIndex, ReplicaId, Slot};
use crate::{root, shard};
use futures::future::BoxFuture;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// How often it is looked whether records were mended, and how many times: applying waits.
const MEND_LOOK: Duration = Duration::from_millis(50);
const MEND_LOOKS: u32 = 600;

/// Changes of so many bytes are made visible before more entries are applied. Few in tests, so that
/// each of them goes over it.
const APPLIED_BYTES: usize = if cfg!(test) { 4 << 10 } else { 16 << 20 };
/// How often it is looked whether a fold has made room for what is to be applied.
const ROOM_LOOK: Duration = Duration::from_millis(20);

fn no_replica(group: GroupId) -> Error {
    let why = format!("this node has no replica of group {group}");
    Error::new(Code::Redirect, why)
}

/// What a group's records mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    Root,
    Shard,
}

/// One group's state machine.
pub struct Machine {
    /// Applying runs on this one's blocking pool: Raft's, so that no reader is in its way.
    env: Env,
    store: Arc<MetaStore>,
    group: GroupId,
    replica: ReplicaId,
    meaning: Meaning,
    /// Where images are spooled.
    spool: PathBuf,
    /// Its replica runs: damage can be mended under it.
    open: AtomicBool,
    /// Applying found damage.
    damaged: AtomicBool,
    doubts: Arc<Doubts>,
    /// Told when records of the root group have changed.
    root_changed: Arc<Notify>,
}

impl Machine {
    /// # Errors
    /// The node has no replica of the group.
    pub fn new(
        env: Env,
        store: Arc<MetaStore>,
        group: GroupId,
        spool: &Path,
        (doubts, root_changed): (Arc<Doubts>, Arc<Notify>),
    ) -> Result<Arc<Machine>> {
        let record = store.replica(group).map(|(now, _)| now);
        let record = record.ok_or_else(|| no_replica(group))?;
        let meaning = if group == GroupId::ROOT {
            Meaning::Root
        } else {
            Meaning::Shard
        };
        Ok(Arc::new(Machine {
            env,
            store,
            group,
            replica: record.replica,
            meaning,
            spool: spool.to_owned(),
            open: AtomicBool::new(false),
            damaged: AtomicBool::new(false),
            doubts,
            root_changed,
        }))
    }

    /// What is read from here on is newer than before.
    fn changed(&self) {
        if self.meaning == Meaning::Root {
            self.root_changed.notify_one();
        }
    }

    /// A view of the group's records as of the newest applied entry.
    ///
    /// # Errors
    /// `redirect` when the replica was removed.
    pub fn view(&self) -> Result<View> {
        self.store.view(self.slot()?)
    }

    /// The records with the entry that they show.
    ///
    /// # Errors
    /// `redirect` when the replica was removed.
    pub fn state(&self) -> Result<(ReplicaMark, View)> {
        let found = self.store.replica_view(self.group)?;
        let found = found.filter(|(record, _)| record.replica == self.replica);
        let (record, view) = found.ok_or_else(|| no_replica(self.group))?;
        Ok((record.mark, view))
    }

    /// Damage that reading these records met: the replica is seen to. What to tell the reader.
    pub fn damage_met(&self, error: Error) -> Error {
        self.doubts
            .instead_of(self.group, error, self.env.clock.now())
    }

    /// The replica runs from here on.
    pub fn opened(&self) {
        self.open.store(true, Ordering::Relaxed);
    }

    /// True after applying has stopped because of damage that is on the disk: a restart would meet
    /// it again.
    pub fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Relaxed)
    }

    /// False while the replica waits for its first image.
    pub fn has_state(&self) -> bool {
        let records = self.records();
        records.is_ok_and(|(now, _)| now.mark.position.index > LogIndex(0))
    }

    /// As of now, and as of the last synced fold. A replica that was removed, perhaps to make
    /// place for a newer one of the same group, has none.
    fn records(&self) -> Result<(ReplicaRecord, ReplicaRecord)> {
        let records = self.store.replica(self.group);
        let own = records.filter(|(now, _)| now.replica == self.replica);
        own.ok_or_else(|| no_replica(self.group))
    }

    /// Where the records are now: an installed image moves them.
    fn slot(&self) -> Result<Slot> {
        Ok(self.records()?.0.slot)
    }

    /// Of a replica that was removed: nothing.
    fn mark(&self, folded: bool) -> AppliedMark {
        let mark = |(now, last_fold): (ReplicaRecord, ReplicaRecord)| {
            applied_mark(if folded { last_fold.mark } else { now.mark })
        };
        self.records().map(mark).unwrap_or_default()
    }

    /// Applies some of these entries, from one on.
    async fn apply_here(&self, entries: Arc<Vec<Committed>>, from: usize) -> Result<Vec<Reply>> {
        let (store, meaning) = (self.store.clone(), self.meaning);
        let before = self.records().map(|(now, _)| now);
        let work = move || apply_entries(&store, before?, meaning, &entries[from..]);
        self.env.run_blocking(work).await
    }

    /// The same; once more if damage that it met was mended.
    async fn apply_some(&self, entries: &Arc<Vec<Committed>>, from: usize) -> Result<Vec<Reply>> {
        let applied = self.apply_here(entries.clone(), from).await;
        match applied {
            Err(error) if error.code == Code::Corrupt && self.is_mended(&error).await => {
                self.apply_here(entries.clone(), from).await
            }
            applied => applied,
        }
    }

    /// Waits a while for damaged records to be mended. Not while the replica is being started:
    /// who starts it sees to that.
    async fn is_mended(&self, error: &Error) -> bool {
        let told = error.to_string();
        let cared_for = self.doubts.suspect(self.group, told, self.env.clock.now());
        if !cared_for || !self.open.load(Ordering::Relaxed) {
            return false;
        }
        for _ in 0..MEND_LOOKS {
            tokio::time::sleep(MEND_LOOK).await;
            if !self.doubts.is_open(self.group) {
                return true;
            }
        }
        false
    }

    async fn cut(&self) -> Result<CutImage> {
        let file = SpoolFile::new(&self.env, &self.spool, self.group);
        let (mark, view) = self.state()?;
        let group = self.group;
        let meta = ImageMeta { group, mark };
        let cut = image::cut(&self.env, view, &meta, file.path()).await;
        let size = cut.map_err(|error| match error.code {
            Code::Corrupt => self.damage_met(error),
            _ => error,
        })?;
        tracing::info!(group = %self.group, ?size, "cut an image");
        Ok(CutImage {
            mark: applied_mark(meta.mark),
            file: file.path().to_owned(),
            keep: Box::new(file),
        })
    }

    async fn stage(&self, image: ReceivedImage) -> Result<StagedImage> {
        let replica = self.records()?.0.replica;
        let staged = self
            .store
            .stage_image(&self.env, &image.file, replica)
            .await?;
        if staged.record.group != self.group {
            let found = staged.record.group;
            self.store.discard_staged(&self.env, staged).await?;
            return Err(Error::corrupt(format!(
                "an image for group {} is of group {found}",
                self.group
            )));
        }
        Ok(StagedImage {
            mark: applied_mark(staged.record.mark.clone()),
            place: Box::new(staged),
        })
    }
}

impl StateMachine for Machine {
    fn applied(&self) -> AppliedMark {
        self.mark(false)
    }

    fn folded(&self) -> AppliedMark {
        self.mark(true)
    }

    fn apply(&self, entries: Vec<Committed>) -> BoxFuture<'_, Result<Vec<Reply>>> {
        let entries = Arc::new(entries);
        Box::pin(async move {
            let mut replies = Vec::with_capacity(entries.len());
            while replies.len() < entries.len() {
                // At a start nothing folds yet, and what is applied was in memory before.
                while self.open.load(Ordering::Relaxed) && self.store.is_overfull() {
                    tokio::time::sleep(ROOM_LOOK).await;
                }
                match self.apply_some(&entries, replies.len()).await {
                    Ok(some) => {
                        self.changed();
                        replies.extend(some);
                    }
                    Err(error) => {
                        let group = self.group;
                        tracing::error!(%group, %error, "committed entries cannot be applied");
                        let damaged = error.code == Code::Corrupt;
                        self.damaged.fetch_or(damaged, Ordering::Relaxed);
                        return Err(error);
                    }
                }
            }
            Ok(replies)
        })
    }

    fn cut_image(&self) -> BoxFuture<'_, Result<CutImage>> {
        Box::pin(self.cut())
    }

    fn stage_image(&self, image: ReceivedImage) -> BoxFuture<'_, Result<StagedImage>> {
        Box::pin(self.stage(image))
    }

    fn install_image(&self, image: StagedImage) -> BoxFuture<'_, Result<AppliedMark>> {
        let staged = staged_slot(image);
        Box::pin(async move {
            let record = self.store.adopt_staged(&self.env, staged).await?;
            tracing::info!(group = %self.group, at = %record.mark.position.index, "installed an image");
            self.changed();
            Ok(applied_mark(record.mark))
        })
    }

    fn discard_image(&self, image: StagedImage) -> BoxFuture<'_, Result<()>> {
        let staged = staged_slot(image);
        Box::pin(self.store.discard_staged(&self.env, staged))
    }
}

fn applied_mark(mark: ReplicaMark) -> AppliedMark {
    AppliedMark {
        position: mark.position,
        members: mark.members,
    }
}

fn staged_slot(image: StagedImage) -> StagedSlot {
    let place = image.place.downcast::<StagedSlot>();
    *place.expect("a staged image comes from this state machine")
}

/// Applies entries on top of `before` and publishes what they change: all of them, or as many as
/// fit into memory well. One reply for each that was applied.
fn apply_entries(
    store: &Arc<MetaStore>,
    before: ReplicaRecord,
    meaning: Meaning,
    entries: &[Committed],
) -> Result<Vec<Reply>> {
    let view = store.view(before.slot)?;
    let (changes, replies) = match meaning {
        Meaning::Root => apply_root(&view, entries)?,
        Meaning::Shard => apply_shard(&view, entries)?,
    };
    // The view ends first, so that what it saw need not be kept beside the new values.
    drop(view);
    let mut mark = before.mark;
    for entry in &entries[..replies.len()] {
        mark.position = entry.position;
        if let CommittedWhat::Members(members) = &entry.what {
            mark.members = members.clone();
        }
    }
    store.publish((before.group, before.replica), mark, changes)?;
    Ok(replies)
}

fn apply_shard(view: &View, entries: &[Committed]) -> Result<(Vec<Change>, Vec<Reply>)> {
    let is_command = |entry: &Committed| matches!(entry.what, CommittedWhat::Command(_));
    if !entries.iter().any(is_command) {
        return Ok((
            Vec::new(),
            entries.iter().map(|_| Box::new(()) as Reply).collect(),
        ));
    }
    let mut batch = shard::Batch::new(view)?;
    let mut replies = Vec::with_capacity(entries.len());
    for entry in entries {
        if batch.bytes() >= APPLIED_BYTES {
            break;
        }
        replies.push(match &entry.what {
            CommittedWhat::Command(command) => {
                Box::new(shard::apply_bytes(&mut batch, command)?) as Reply
            }
            CommittedWhat::Blank | CommittedWhat::Members(_) => Box::new(()) as Reply,
        });
    }
    Ok((batch.finish(), replies))
}

fn apply_root(view: &View, entries: &[Committed]) -> Result<(Vec<Change>, Vec<Reply>)> {
    let mut staged = root::Staged::new(view);
    let mut replies = Vec::with_capacity(entries.len());
    for entry in entries {
        replies.push(match &entry.what {
            CommittedWhat::Command(command) => {
                let (changes, answer) = root::apply(&staged, command)?;
                staged.write(changes);
                Box::new(answer) as Reply
            }
            CommittedWhat::Blank | CommittedWhat::Members(_) => Box::new(()) as Reply,
        });
    }
    Ok((staged.finish(), replies))
}
