//! Background work of a node: folding, compacting the log, the shard's chores, ticket keys.
//! Each is a loop that finds its work in the state, so that a restart loses nothing.

use super::Node;
use super::group::Group;
use crate::env::Env;
use crate::error::{Code, Error, Result};
use crate::limits::{CLEANUP_BATCH_DEFAULT, GIB, MIB, SESSION_HORIZON_MS, SESSION_ROWS_MAX};
use crate::shard::command::Chore;
use crate::shard::records::{Deleted, Header};
use crate::shard::{keys, read, records};
use crate::store::SlotRead;
use crate::store::overlay::View;
use crate::store::reserve::LOW_SPACE_BYTES;
use crate::types::{GroupId, Inode, LogIndex, ShardTime};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How often the fold looks whether there is work. The overlay bounds what comes meanwhile.
const FOLD_LOOK: Duration = Duration::from_millis(200);
/// Pause of work that gives way to users' between two pieces.
const PIECE_PAUSE: Duration = Duration::from_millis(50);
/// How often the free space is looked at. While there is more of it than a fast disk can take
/// until then (`LOW_SPACE_BYTES` in this time), there is one look instead of up to so many.
const SPACE_LOOK: Duration = Duration::from_millis(200);
const SPACE_LOOKS_MAX: u64 = 5;
/// The newest entries that each replica keeps, some 40 bytes each of memory, within the segments
/// that the log keeps: ten seconds of full load. One that was away for a moment needs no image then,
/// whoever leads the group when it is back, and nobody waits for that image.
const KEPT_ENTRIES: u64 = 100_000;
/// Folded entries beyond those at which a group's log is let go.
const COMPACT_ENTRIES: u64 = 10_000;
/// How often chores look for work.
const CHORES_EVERY: Duration = Duration::from_secs(1);
/// How often everything but cleanup is looked at.
const SLOW_CHORES_EVERY: Duration = Duration::from_secs(60);
/// How often old versions are looked through.
const VERSIONS_EVERY: Duration = Duration::from_secs(3_600);
/// Change rows are kept for this long, or up to this many bytes.
const CHANGES_MS: u64 = 24 * 3_600_000;
const CHANGES_BYTES: u64 = GIB;
/// Rows of one chore entry.
const ROWS: u32 = 1_000;

/// Starts all loops. They end with the process.
pub(super) fn start(node: &Arc<Node>) {
    let spawn = &node.env.spawn;
    spawn.spawn("fold", Box::pin(fold_loop(node.clone())));
    spawn.spawn("chores", Box::pin(chores_loop(node.clone())));
    spawn.spawn("log repair", Box::pin(super::mend::run(node.clone())));
    spawn.spawn("heartbeat", Box::pin(super::beat::run(node.clone())));
    spawn.spawn(
        "root group's view",
        Box::pin(super::beat::follow_root(node.clone())),
    );
    spawn.spawn(
        "root group's work",
        Box::pin(super::root_work::run(node.clone())),
    );
    spawn.spawn("members", Box::pin(super::membership::run(node.clone())));
    spawn.spawn("identity", Box::pin(super::identity::run(node.clone())));
    spawn.spawn("repairs", Box::pin(super::repairs::run(node.clone())));
    spawn.spawn("scrub", Box::pin(super::scrub::run(node.clone())));
    spawn.spawn("damage", Box::pin(super::verify::run(node.clone())));
    spawn.spawn("room", Box::pin(super::room::run(node.clone())));
    spawn.spawn("space", Box::pin(space_loop(node.clone())));
    spawn.spawn("slots", Box::pin(slots_loop(node.clone())));
    spawn.spawn("garbage", Box::pin(super::garbage::run(node.clone())));
}

/// Removes slots that no replica uses any more, slice by slice.
async fn slots_loop(node: Arc<Node>) {
    loop {
        match node.store.remove_slice(&node.env).await {
            Ok(true) => tokio::time::sleep(PIECE_PAUSE).await,
            Ok(false) => tokio::time::sleep(SLOW_CHORES_EVERY).await,
            Err(error) => {
                tracing::warn!(%error, "an unused slot could not be removed; again soon");
                tokio::time::sleep(SLOW_CHORES_EVERY).await;
            }
        }
    }
}

async fn space_loop(node: Arc<Node>) {
    let mut looks = 1;
    loop {
        node.env.look_every(SPACE_LOOK * looks).await;
        let times_low = node.look_at_space().await / LOW_SPACE_BYTES;
        let allowed = times_low.saturating_sub(1).clamp(1, SPACE_LOOKS_MAX);
        looks = u32::try_from(allowed).unwrap_or(1);
        if node.wal.is_full()
            && let Err(error) = node.reserve.release().await
        {
            tracing::error!(%error, "the reserved space could not be released");
        }
        if !node.low_space.load(Ordering::Relaxed)
            && let Err(error) = node.reserve.fill().await
        {
            tracing::warn!(%error, "the reserved space could not be filled");
        }
    }
}

async fn fold_loop(node: Arc<Node>) {
    let mut last = node.env.clock.now();
    loop {
        node.env.look_every(FOLD_LOOK).await;
        let waited = node.env.clock.now().saturating_sub(last);
        let due = waited >= node.store.options().after && node.store.active_bytes() > 0;
        if !due && !node.store.wants_fold() {
            continue;
        }
        if let Err(error) = node.fold_and_compact().await {
            tracing::error!(%error, "folding metadata failed; changes are refused until it works");
            if error.code == Code::NoSpace
                && let Err(error) = node.reserve.release().await
            {
                tracing::error!(%error, "the reserved space could not be released");
            }
        }
        last = node.env.clock.now();
    }
}

impl Node {
    /// Sees whether there is space for new data, and tells the bytes of it: none if that is not
    /// known.
    pub(super) async fn look_at_space(&self) -> u64 {
        let space = match self.env.disk.space(&self.data).await {
            Ok(space) => space,
            Err(error) => {
                tracing::warn!(%error, "the free space cannot be asked for");
                return 0;
            }
        };
        let low = space.available < LOW_SPACE_BYTES;
        if self.low_space.swap(low, Ordering::Relaxed) != low {
            tracing::warn!(
                available = space.available,
                low,
                "space for new data has changed"
            );
        }
        space.available
    }

    /// # Errors
    /// `no_space` while there is too little space for new data.
    pub(super) fn must_have_space(&self) -> Result<()> {
        if !self.low_space.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err(Error::new(
            Code::NoSpace,
            format!(
                "the disk of node {} is full (the last {} MiB are kept for its own work)",
                self.id,
                LOW_SPACE_BYTES / MIB
            ),
        )
        .hint("delete something, or give the node a larger disk"))
    }

    /// Folds, then lets the logs go up to what is folded where that frees something.
    pub(super) async fn fold_and_compact(&self) -> Result<()> {
        let started = self.env.clock.now();
        let folded = self.store.fold(&self.raft_env, &self.wal).await?;
        let took = self.env.clock.now().saturating_sub(started);
        tracing::debug!(
            records = folded.records,
            bytes = folded.bytes,
            ?took,
            "folded"
        );
        // What is let go is noted in the log. With room for that it is done after the next fold.
        if self.wal.is_full() {
            return Ok(());
        }
        for (group, running) in self.groups.all() {
            let raft = running.raft();
            let Some((_, folded)) = self.store.replica(group) else {
                continue;
            };
            let purged = self
                .wal
                .state(group)
                .purged
                .map_or(0, |purged| purged.index.0);
            let folded = folded.mark.position.index.0;
            // Letting go of these frees segments.
            let old = self.wal.last_in_old(group).map_or(0, |old| old.0);
            let old = old.min(folded);
            let many = folded.saturating_sub(KEPT_ENTRIES);
            if old > purged || many.saturating_sub(purged) >= COMPACT_ENTRIES {
                raft.compact(LogIndex(old.max(many))).await?;
            }
        }
        Ok(())
    }
}

async fn chores_loop(node: Arc<Node>) {
    let mut chores = Chores {
        next_due: None,
        slow_at: Duration::ZERO,
        versions_at: Duration::ZERO,
    };
    loop {
        tokio::time::sleep(CHORES_EVERY).await;
        let Ok(shard) = node.groups.shard(GroupId::FIRST) else {
            continue;
        };
        if !shard.raft.is_leader() {
            continue;
        }
        match chores.run(&node.env, &shard).await {
            Ok(()) => {}
            // The queue is full of users' work: chores wait.
            Err(error) if error.code.is_retryable() => {}
            Err(error) => tracing::warn!(%error, "background work of the shard failed; again soon"),
        }
    }
}

struct Chores {
    /// Shard time at which the next deletion is due; `None`: not known.
    next_due: Option<ShardTime>,
    slow_at: Duration,
    versions_at: Duration,
}

impl Chores {
    async fn run(&mut self, env: &Env, shard: &Arc<Group>) -> Result<()> {
        let header = look(shard, |view| read::header(view)).await?;
        self.cleanup(env, shard, &header).await?;
        let now = env.clock.now();
        if now >= self.slow_at {
            self.slow_at = now + SLOW_CHORES_EVERY;
            self.expire(env, shard, &header).await?;
            // Settings may have changed what is due.
            self.next_due = None;
        }
        if now >= self.versions_at {
            self.versions_at = now + VERSIONS_EVERY;
            expire_versions(shard).await?;
        }
        Ok(())
    }

    /// Cleans up deletions that are due, giving way to users' work between batches.
    async fn cleanup(&mut self, env: &Env, shard: &Arc<Group>, header: &Header) -> Result<()> {
        if header.deletions == 0 {
            return Ok(());
        }
        if self.next_due.is_none() {
            self.next_due = look(shard, next_due).await?;
        }
        if self.next_due.is_none_or(|due| due > shard.proposer.time()) {
            return Ok(());
        }
        let records = CLEANUP_BATCH_DEFAULT as u32;
        repeat(env, shard, || Chore::Cleanup {
            records,
            now: false,
        })
        .await?;
        self.next_due = None;
        Ok(())
    }

    /// Everything that ends by shard time and is looked at once a minute. Nothing is logged
    /// where nothing can expire.
    async fn expire(&self, env: &Env, shard: &Arc<Group>, header: &Header) -> Result<()> {
        if look(shard, |view| any_in(view, keys::UPLOADS)).await? {
            repeat(env, shard, || Chore::ExpireUploads { uploads: ROWS }).await?;
        }
        let now = shard.proposer.time();
        let oldest = look(shard, oldest_lane).await?;
        let old = oldest.is_some_and(|minute| minute * 60_000 + SESSION_HORIZON_MS < now.0);
        if old || header.lanes > SESSION_ROWS_MAX {
            repeat(env, shard, || Chore::ExpireLanes { lanes: ROWS }).await?;
        }
        trim_changes(shard).await
    }
}

/// Proposes a chore until there is no more of it, at a third of the speed it could have, so that
/// users' requests find room between.
async fn repeat(env: &Env, shard: &Arc<Group>, chore: impl Fn() -> Chore) -> Result<()> {
    loop {
        let started = env.clock.now();
        let done = shard.proposer.chore(chore()).await?;
        if !done.more {
            return Ok(());
        }
        tokio::time::sleep(2 * env.clock.now().saturating_sub(started)).await;
    }
}

async fn expire_versions(shard: &Arc<Group>) -> Result<()> {
    if !look(shard, |view| any_in(view, keys::VERSIONS)).await? {
        return Ok(());
    }
    let mut behind = Inode(0);
    loop {
        let chore = Chore::ExpireVersions { behind, rows: ROWS };
        let done = shard.proposer.chore(chore).await?;
        if !done.more || done.next == Inode(0) {
            return Ok(());
        }
        behind = done.next;
        tokio::time::sleep(PIECE_PAUSE).await;
    }
}

/// Keeps the change rows of the last day, and at most their bound in bytes.
async fn trim_changes(shard: &Arc<Group>) -> Result<()> {
    loop {
        let now = shard.proposer.time();
        let due = move |view: &View| read::changes_due(view, now, CHANGES_MS, CHANGES_BYTES, ROWS);
        let Some(upto) = look(shard, due).await? else {
            return Ok(());
        };
        shard
            .proposer
            .chore(Chore::TrimChanges { upto, rows: ROWS })
            .await?;
        tokio::time::sleep(PIECE_PAUSE).await;
    }
}

/// Looks at the applied state as it is, without a barrier: chores decide nothing by it that the
/// state machine does not judge again.
async fn look<T: Send + 'static>(
    shard: &Arc<Group>,
    read: impl FnOnce(&View) -> Result<T> + Send + 'static,
) -> Result<T> {
    shard.read(crate::types::ReadLevel::Stale, read).await
}

pub(super) fn any_in(view: &View, table: u8) -> Result<bool> {
    let mut any = false;
    let start = keys::table(table);
    view.scan(&start, keys::after(&start).as_deref(), &mut |_, _| {
        any = true;
        Ok(false)
    })?;
    Ok(any)
}

/// When the first deletion is due; `None` without deletions.
fn next_due(view: &View) -> Result<Option<ShardTime>> {
    let mut due: Option<ShardTime> = None;
    let start = keys::table(keys::DELETED);
    view.scan(&start, keys::after(&start).as_deref(), &mut |_, row| {
        let row: Deleted = records::decode(row)?;
        due = Some(due.map_or(row.due, |due| due.min(row.due)));
        Ok(true)
    })?;
    Ok(due)
}

/// The minute of the lane that was used longest ago.
fn oldest_lane(view: &View) -> Result<Option<u64>> {
    let mut oldest = None;
    let start = keys::table(keys::LANES_BY_AGE);
    view.scan(&start, keys::after(&start).as_deref(), &mut |key, _| {
        oldest = keys::number_at(key, 1);
        Ok(false)
    })?;
    Ok(oldest)
}
