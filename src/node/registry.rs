//! The replicas of this node: started at its start or when a group's leader asks for one, ended
//! when the group has no use for them any more.
//!
//! 1. A node has at most one replica of a group.
//! 2. A replica is in the store, durably, before it takes its first message; its tombstone is
//!    before it is forgotten.
//! 3. A replica is made only under an id above every one that the node ever had for the group.

use super::doubts::Doubts;
use super::group::{Group, GroupContext, RootGroup};
use super::machine::Machine;
use crate::error::{Code, Error, Result};
use crate::raft::RaftGroup;
use crate::store::overlay::{ReplicaMark, ReplicaRecord};
use crate::types::{GroupId, ReplicaId};
use parking_lot::RwLock;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::{MutexGuard, Notify};

/// One replica, as it runs.
#[derive(Clone)]
pub enum Running {
    Root(Arc<RootGroup>),
    Shard(Arc<Group>),
}

impl Running {
    pub fn raft(&self) -> &Arc<RaftGroup> {
        match self {
            Running::Root(group) => &group.raft,
            Running::Shard(group) => &group.raft,
        }
    }

    pub fn machine(&self) -> &Arc<Machine> {
        match self {
            Running::Root(group) => &group.machine,
            Running::Shard(group) => &group.machine,
        }
    }
}

/// A replica that does not run, and why.
pub type Held = (GroupId, ReplicaId, String);

/// All replicas of a node.
pub struct Groups {
    context: GroupContext,
    running: RwLock<BTreeMap<GroupId, Running>>,
    /// Replicas that cannot be used any more, and why.
    broken: RwLock<BTreeMap<GroupId, (ReplicaId, String)>>,
    /// Replicas that are not opened before their log is mended, and what for (see `mend`).
    waiting: RwLock<BTreeMap<GroupId, (ReplicaId, String)>>,
    /// Held while a replica is made or removed.
    changing: tokio::sync::Mutex<()>,
}

impl Groups {
    pub fn new(context: GroupContext) -> Arc<Groups> {
        Arc::new(Groups {
            context,
            running: RwLock::default(),
            broken: RwLock::default(),
            waiting: RwLock::default(),
            changing: tokio::sync::Mutex::default(),
        })
    }

    /// Starts every replica that the store has. Of the `shared` groups, which have other replicas,
    /// one whose records turn out to be damaged waits to be mended.
    ///
    /// # Errors
    /// `corrupt` when log and state do not fit together.
    pub async fn start_all(self: &Arc<Self>, shared: &BTreeSet<GroupId>) -> Result<()> {
        for record in self.context.store.replicas() {
            let held = |held: &RwLock<BTreeMap<_, _>>| held.read().contains_key(&record.group);
            if held(&self.broken) || held(&self.waiting) {
                continue;
            }
            let (group, replica) = (record.group, record.replica);
            match self.start(group, replica).await {
                Err(error) if shared.contains(&group) && self.doubts().is_open(group) => {
                    self.set_aside(Vec::new(), vec![(group, replica, error.to_string())]);
                }
                started => started?,
            }
        }
        Ok(())
    }

    /// Groups whose records a read found damaged here.
    pub fn doubts(&self) -> &Arc<Doubts> {
        &self.context.doubts
    }

    /// Told when the records of the root group's replica here, if there is one, have changed.
    pub fn root_changed(&self) -> &Notify {
        &self.context.root_changed
    }

    /// The replica of a group that runs here.
    pub fn running(&self, group: GroupId) -> Option<Running> {
        self.running.read().get(&group).cloned()
    }

    /// Marks a replica as one that must be replaced: one that was not started, has stopped, or
    /// goes on voting until it is.
    pub fn must_be_replaced(&self, group: GroupId, replica: ReplicaId, why: String) {
        tracing::error!(%group, %replica, %why, "a replica must be replaced");
        self.waiting.write().remove(&group);
        self.broken.write().insert(group, (replica, why));
    }

    /// Marks the replicas that must be replaced, and those whose log must be mended before they
    /// open: none of them is started.
    pub fn set_aside(&self, broken: Vec<Held>, mend: Vec<Held>) {
        for (group, replica, why) in broken {
            self.must_be_replaced(group, replica, why);
        }
        for (group, replica, why) in mend {
            tracing::error!(%group, %replica, %why, "a replica must be mended before it opens");
            self.waiting.write().insert(group, (replica, why));
        }
    }

    /// Says why a replica still waits.
    pub fn waits_for(&self, group: GroupId, why: String) {
        if let Some((_, known)) = self.waiting.write().get_mut(&group) {
            *known = why;
        }
    }

    /// Keeps a replica that waits from being replaced or removed while the guard is held: its log
    /// would be another's. `None`: it waits no more.
    pub async fn keep(&self, group: GroupId, replica: ReplicaId) -> Option<MutexGuard<'_, ()>> {
        let kept = self.changing.lock().await;
        let here = |(waiting, _): &(ReplicaId, String)| *waiting == replica;
        let waits = self.waiting.read().get(&group).is_some_and(here);
        waits.then_some(kept)
    }

    /// Starts a replica that was kept and whose log is mended.
    ///
    /// # Errors
    /// As `start_all`.
    pub async fn open_mended(self: &Arc<Self>, group: GroupId, replica: ReplicaId) -> Result<()> {
        self.start(group, replica).await?;
        self.waiting.write().remove(&group);
        tracing::info!(%group, %replica, "a replica was mended and is open");
        Ok(())
    }

    async fn start(self: &Arc<Self>, group: GroupId, replica: ReplicaId) -> Result<()> {
        let running = match group {
            GroupId::ROOT => Running::Root(RootGroup::start(&self.context, replica).await?),
            _ => Running::Shard(Group::start(&self.context, group, replica).await?),
        };
        self.running.write().insert(group, running.clone());
        let groups = self.clone();
        let watch = async move { groups.watch(group, running).await };
        self.context.env.spawn.spawn("group watch", Box::pin(watch));
        Ok(())
    }

    /// A replica that has stopped must not look alive: one that is damaged and that others can
    /// replace is given up; anything else ends the process, and its next start goes on.
    async fn watch(&self, group: GroupId, running: Running) {
        let raft = running.raft();
        let error = raft.ended().await;
        let here = self.raft(group).is_some_and(|now| Arc::ptr_eq(&now, raft));
        if !here {
            return;
        }
        let status = raft.status();
        if status.voters.len() > 1 && running.machine().is_damaged() {
            self.running.write().remove(&group);
            self.must_be_replaced(group, status.replica, error.to_string());
            return;
        }
        let hint = "see the log for the cause, and `dfs fsck` after a restart for damage";
        let why = format!("group {group} has stopped ({})", error.message);
        (self.context.on_end)(&Error::new(error.code, why).hint(hint));
    }

    /// Every running replica, by group.
    pub fn all(&self) -> Vec<(GroupId, Running)> {
        let running = self.running.read();
        running.iter().map(|(id, one)| (*id, one.clone())).collect()
    }

    /// Replicas that must be replaced.
    pub fn broken(&self) -> Vec<Held> {
        listed(&self.broken)
    }

    /// Replicas that must be mended.
    pub fn waiting(&self) -> Vec<Held> {
        listed(&self.waiting)
    }

    pub fn raft(&self, group: GroupId) -> Option<Arc<RaftGroup>> {
        let running = self.running.read();
        running.get(&group).map(|one| one.raft().clone())
    }

    pub fn root(&self) -> Option<Arc<RootGroup>> {
        match self.running.read().get(&GroupId::ROOT) {
            Some(Running::Root(group)) => Some(group.clone()),
            _ => None,
        }
    }

    /// The replica of a shard.
    ///
    /// # Errors
    /// `redirect` when this node has none.
    pub fn shard(&self, id: GroupId) -> Result<Arc<Group>> {
        match self.running.read().get(&id) {
            Some(Running::Shard(group)) => Ok(group.clone()),
            _ => Err(Error::new(
                Code::Redirect,
                format!("this node has no replica of shard {id}"),
            )),
        }
    }

    /// The replica of a group that this node has, running or not.
    pub fn held(&self, group: GroupId) -> Option<ReplicaId> {
        let known = self.context.store.replica(group);
        known.map(|(now, _)| now.replica)
    }

    /// Whether this node had a replica and has forgotten it.
    pub fn has_forgotten(&self, group: GroupId, replica: ReplicaId) -> bool {
        let tombstone = self.context.store.tombstone(group);
        self.held(group) != Some(replica) && tombstone.is_ok_and(|highest| highest >= Some(replica))
    }

    /// Makes an empty replica, which an image is to fill, in the place of `replaces` if that is
    /// here. Durable when it returns; repeating it does nothing.
    ///
    /// # Errors
    /// `conflict` for an id that is not above those that were here (rule 3), and while yet
    /// another replica is here.
    pub async fn create(
        self: &Arc<Self>,
        group: GroupId,
        replica: ReplicaId,
        replaces: Option<ReplicaId>,
    ) -> Result<()> {
        let _one = self.changing.lock().await;
        let store = &self.context.store;
        let known = self.held(group);
        if known == Some(replica) {
            return Ok(());
        }
        let highest = known.max(store.tombstone(group)?);
        if highest.is_some_and(|highest| highest >= replica) {
            let why = format!("replica {replica} of group {group} is no newer than those before");
            return Err(Error::new(Code::Conflict, why));
        }
        match known {
            Some(here) if Some(here) != replaces => {
                let why = format!("replica {here} of group {group} is here and not to be replaced");
                return Err(Error::new(Code::Conflict, why));
            }
            Some(_) => self.forget(group).await?,
            None => {}
        }
        let slot = store.fresh_slot(&self.context.env).await?;
        let record = ReplicaRecord {
            group,
            replica,
            slot,
            mark: ReplicaMark::default(),
        };
        store.add_empty(&self.context.env, record).await?;
        self.start(group, replica).await
    }

    /// Ends a replica and forgets it: its group has said that it is no member.
    ///
    /// # Errors
    /// What the disk says. Another replica than the one that is here is left alone.
    pub async fn remove(&self, group: GroupId, replica: ReplicaId) -> Result<()> {
        let _one = self.changing.lock().await;
        let known = self.context.store.replica(group);
        if known.is_none_or(|(now, _)| now.replica != replica) {
            return Ok(());
        }
        self.forget(group).await
    }

    /// Rule 2. The log is forgotten last: what is left of it without a replica does no harm.
    async fn forget(&self, group: GroupId) -> Result<()> {
        let running = self.running.write().remove(&group);
        if let Some(running) = running {
            running.raft().shutdown().await?;
        }
        let env = &self.context.env;
        self.context.store.remove_replica(env, group).await?;
        self.context.wal.remove_group(group).await?;
        self.broken.write().remove(&group);
        self.context.doubts.end(group);
        self.waiting.write().remove(&group);
        tracing::info!(%group, "a replica was removed from this node");
        Ok(())
    }

    /// Ends all replicas in order.
    pub async fn shutdown(&self) -> Result<()> {
        let all = std::mem::take(&mut *self.running.write());
        for one in all.values() {
            one.raft().shutdown().await?;
        }
        Ok(())
    }
}

fn listed(held: &RwLock<BTreeMap<GroupId, (ReplicaId, String)>>) -> Vec<Held> {
    let held = held.read();
    let one =
        |(group, (replica, why)): (&GroupId, &(ReplicaId, String))| (*group, *replica, why.clone());
    held.iter().map(one).collect()
}
