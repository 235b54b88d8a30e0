//! What an administrator does while the others work: drains nodes, removes them, and tries again
//! until it is done. Given work by `acts` and `run`.

use super::cluster::Connector;
use crate::client::Client;
use crate::error::{Code, Result};
use crate::proto::{AdminAnswer, AdminCall, MemberView};
use crate::types::NodeId;
use parking_lot::Mutex;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Between two looks at the work.
const PAUSE: Duration = Duration::from_millis(200);

/// Something to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Job {
    /// Drain a node, then remove it.
    Retire(NodeId),
    /// It is lost for ever.
    Remove(NodeId),
    /// Every node but these is lost for ever.
    Keep(BTreeSet<NodeId>),
    /// Everything stored is to be looked at.
    Scrub,
}

/// The administrator's list. Clones are the same.
#[derive(Clone, Default)]
pub struct Operator(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    waiting: VecDeque<Job>,
    removed: BTreeSet<NodeId>,
    /// Why the last attempt failed.
    last: String,
}

impl Operator {
    pub fn ask(&self, job: Job) {
        self.0.lock().waiting.push_back(job);
    }

    pub fn is_idle(&self) -> bool {
        self.0.lock().waiting.is_empty()
    }

    /// It was removed for certain.
    pub fn has_removed(&self, node: NodeId) -> bool {
        self.0.lock().removed.contains(&node)
    }

    /// What is not done, and why.
    pub fn complaint(&self) -> String {
        let state = self.0.lock();
        format!("{:?}: {}", state.waiting, state.last)
    }

    /// Works until the process ends.
    pub async fn work(self, connector: Connector) {
        let client = connector.connect().await;
        loop {
            let first = self.0.lock().waiting.front().cloned();
            if let Some(job) = first {
                let done = match self.attempt(&client, &job).await {
                    Ok(done) => done,
                    Err(error) => {
                        self.0.lock().last = error.to_string();
                        false
                    }
                };
                let mut state = self.0.lock();
                state.waiting.pop_front();
                if !done {
                    // Others may be needed first.
                    state.waiting.push_back(job);
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// One step; true if the job is done.
    async fn attempt(&self, client: &Client, job: &Job) -> Result<bool> {
        match job {
            Job::Retire(node) => match state_of(&members(client).await?, *node) {
                None => Ok(self.note_removed(*node)),
                Some("drained") => self.remove(client, *node, false).await,
                Some("draining") => Ok(false),
                Some(_) => {
                    client.admin(AdminCall::Drain(*node)).await?;
                    Ok(false)
                }
            },
            Job::Remove(node) => self.remove(client, *node, true).await,
            Job::Keep(known) => {
                let members = members(client).await?;
                let mut here = members.iter().filter(|one| one.state != "removed");
                let lost = here.find(|one| !known.contains(&one.node));
                match lost {
                    None => Ok(true),
                    Some(lost) => {
                        self.remove(client, lost.node, true).await?;
                        Ok(false)
                    }
                }
            }
            Job::Scrub => {
                client.admin(AdminCall::Scrub { now: true }).await?;
                Ok(true)
            }
        }
    }

    async fn remove(&self, client: &Client, node: NodeId, force: bool) -> Result<bool> {
        match client.admin(AdminCall::Remove { node, force }).await {
            Ok(_) => Ok(self.note_removed(node)),
            Err(error) if error.code == Code::NotFound => Ok(self.note_removed(node)),
            Err(error) => Err(error),
        }
    }

    fn note_removed(&self, node: NodeId) -> bool {
        self.0.lock().removed.insert(node);
        true
    }
}

async fn members(client: &Client) -> Result<Vec<MemberView>> {
    match client.admin(AdminCall::Nodes).await? {
        AdminAnswer::Nodes(members) => Ok(members),
        other => unreachable!("an answer to another question: {other:?}"),
    }
}

/// `None`: it is no member any more.
fn state_of(members: &[MemberView], node: NodeId) -> Option<&str> {
    let found = members.iter().find(|member| member.node == node)?;
    (found.state != "removed").then_some(found.state.as_str())
}
