//! The replicated state of one group on this node: binds `shard` or `root` to the store. Called
//! by `raft` with committed entries; publishes their effects in one step with the applied
//! position.

use crate::env::Env;
use crate::error::{Error, Result};
use crate::raft::{AppliedMark, Committed, CommittedWhat, Reply, StateMachine};
use crate::store::Change;
use crate::store::overlay::{MetaStore, ReplicaMark, View};
use crate::types::{GroupId, Slot};
use crate::{root, shard};
use bytes::Bytes;
use futures::future::BoxFuture;
use std::sync::Arc;

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
    meaning: Meaning,
}

impl Machine {
    /// # Errors
    /// The node has no replica of the group.
    pub fn new(env: Env, store: Arc<MetaStore>, group: GroupId) -> Result<Arc<Machine>> {
        if store.replica(group).is_none() {
            return Err(Error::failed(format!(
                "this node has no replica of group {group}"
            )));
        }
        let meaning = if group == GroupId::ROOT {
            Meaning::Root
        } else {
            Meaning::Shard
        };
        Ok(Arc::new(Machine {
            env,
            store,
            group,
            meaning,
        }))
    }

    /// A view of the group's records as of the newest applied entry.
    pub fn view(&self) -> Result<View> {
        self.store.view(self.slot())
    }

    /// Where the records are now: an installed image moves them.
    fn slot(&self) -> Slot {
        let (now, _) = self
            .store
            .replica(self.group)
            .expect("a replica is never lost");
        now.slot
    }

    fn mark(&self, folded: bool) -> AppliedMark {
        let (now, last_fold) = self
            .store
            .replica(self.group)
            .expect("a replica is never lost");
        let mark = if folded { last_fold.mark } else { now.mark };
        AppliedMark {
            position: mark.position,
            members: mark.members,
        }
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
        let (store, group, slot) = (self.store.clone(), self.group, self.slot());
        let (meaning, before) = (self.meaning, self.mark(false));
        let work = move || {
            let before = ReplicaMark {
                position: before.position,
                members: before.members,
            };
            apply_entries(&store, group, slot, meaning, before, &entries)
        };
        Box::pin(async move {
            let applied = self.env.run_blocking(work).await;
            if let Err(error) = &applied {
                tracing::error!(%group, %error, "committed entries cannot be applied");
            }
            applied
        })
    }
}

/// Applies entries on top of `before` and publishes what they change.
fn apply_entries(
    store: &Arc<MetaStore>,
    group: GroupId,
    slot: Slot,
    meaning: Meaning,
    before: ReplicaMark,
    entries: &[Committed],
) -> Result<Vec<Reply>> {
    let mut mark = before;
    let mut commands = Vec::new();
    for entry in entries {
        mark.position = entry.position;
        match &entry.what {
            CommittedWhat::Blank => {}
            CommittedWhat::Members(members) => mark.members = members.clone(),
            CommittedWhat::Command(command) => commands.push(command.clone()),
        }
    }
    let view = store.view(slot)?;
    let (changes, replies) = match meaning {
        Meaning::Root => apply_root(&view, &commands)?,
        Meaning::Shard => apply_shard(&view, &commands)?,
    };
    // The view ends first, so that what it saw need not be kept beside the new values.
    drop(view);
    store.publish(group, mark, changes);
    let mut replies = replies.into_iter();
    Ok(entries
        .iter()
        .map(|entry| match entry.what {
            CommittedWhat::Command(_) => replies.next().expect("one reply a command"),
            _ => Box::new(()) as Reply,
        })
        .collect())
}

fn apply_shard(view: &View, commands: &[Bytes]) -> Result<(Vec<Change>, Vec<Reply>)> {
    if commands.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    let mut batch = shard::Batch::new(view)?;
    let mut replies = Vec::with_capacity(commands.len());
    for command in commands {
        replies.push(Box::new(shard::apply_bytes(&mut batch, command)?) as Reply);
    }
    Ok((batch.finish(), replies))
}

fn apply_root(view: &View, commands: &[Bytes]) -> Result<(Vec<Change>, Vec<Reply>)> {
    let mut staged = root::Staged::new(view);
    let mut replies = Vec::with_capacity(commands.len());
    for command in commands {
        let (changes, answer) = root::apply(&staged, command)?;
        staged.write(changes);
        replies.push(Box::new(answer) as Reply);
    }
    Ok((staged.finish(), replies))
}
