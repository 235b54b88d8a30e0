//! Copies a tree inside the cluster: a walk that makes directories and copies files by
//! reference, many in one request. Called by `cp -r`.

use super::context::Context;
use super::failure::{Failure, Outcome, report};
use super::items::{Change, show_changed};
use super::walk::{Listings, Step, Walk};
use crate::client::{Changed, Client, ListOptions, OpIds};
use crate::error::{Code, Error, Result};
use crate::limits::{BATCH_ITEMS_MAX, COPIED_CHUNKS_MAX};
use crate::proto::EntryView;
use crate::shard::command::Op;
use crate::types::{DfsPath, Kind, Precondition, ReadLevel};

/// Copies the directory `from` as the new directory `to`.
///
/// # Errors
/// `usage` for a directory into itself; those of the first directory; `partial` when something
/// below failed, which was reported.
pub async fn copy_tree(
    cx: &Context,
    client: &Client,
    from: &DfsPath,
    to: &DfsPath,
    ids: &OpIds,
) -> Outcome {
    if to.is_at_or_below(from) {
        return Err(Error::usage("a directory cannot be copied into itself")
            .at(to)
            .hint("choose a target outside of it")
            .into());
    }
    let mut requests = Requests {
        cx,
        client,
        ids,
        sent: 0,
        failed: false,
    };
    let root = client
        .stat(from, ReadLevel::Linearizable)
        .await
        .map_err(|e| e.at(from))?;
    let made = client
        .mkdir(to, mode(&root), false, &requests.next_ids())
        .await;
    show_changed(cx, to, Some(from), &made.map_err(|e| e.at(to))?)?;

    let options = ListOptions {
        attrs: true,
        ..ListOptions::default()
    };
    let listings = Listings {
        client: client.clone(),
        options,
    };
    let mut walk = Walk::new(listings, from.clone(), None);
    let mut changes = Vec::new();
    let mut chunks = 0;
    while let Some(step) = walk.next().await.map_err(|e| e.at(from))? {
        let Step::Entry(visit) = step else { continue };
        let path = moved(&visit.path, from, to)?;
        let op = match visit.view.kind() {
            Kind::Dir => Op::Mkdir {
                path: path.clone(),
                mode: mode(&visit.view),
                parents: false,
            },
            Kind::File => Op::Copy {
                from: visit.path.clone(),
                version: None,
                to: path.clone(),
                precondition: Precondition::Absent,
            },
        };
        let more = match &visit.view {
            EntryView::File(file) => file.attrs.chunks(),
            EntryView::Dir(_) | EntryView::Bare { .. } => 0,
        };
        if changes.len() == BATCH_ITEMS_MAX || chunks + more > COPIED_CHUNKS_MAX {
            requests.send(std::mem::take(&mut changes)).await?;
            chunks = 0;
        }
        chunks += more;
        changes.push(Change {
            path,
            from: Some(visit.path),
            op,
        });
    }
    requests.send(changes).await?;
    if requests.failed {
        Err(Failure::Reported(Code::Partial))
    } else {
        Ok(())
    }
}

/// The requests of one tree, in order.
struct Requests<'a> {
    cx: &'a Context,
    client: &'a Client,
    ids: &'a OpIds,
    /// Requests so far: the same walk gives the same ids again.
    sent: u64,
    failed: bool,
}

impl Requests<'_> {
    fn next_ids(&mut self) -> OpIds {
        let index = self.sent;
        self.sent += 1;
        ids_of(self.ids, index)
    }

    async fn send(&mut self, changes: Vec<Change>) -> Outcome {
        if changes.is_empty() {
            return Ok(());
        }
        let ids = self.next_ids();
        let ops = changes.iter().map(|change| change.op.clone()).collect();
        let (op_id, outcomes) = self.client.change_many(ops, &ids).await?;
        for (change, outcome) in changes.iter().zip(outcomes) {
            match outcome {
                Ok(done) => {
                    let changed = Changed {
                        done,
                        op_id: op_id.clone(),
                    };
                    show_changed(self.cx, &change.path, change.from.as_ref(), &changed)?;
                }
                Err(error) => {
                    self.failed = true;
                    report(&error.at(&change.path), self.cx.json());
                }
            }
        }
        Ok(())
    }
}

/// Where `path`, below `from`, comes to lie below `to`.
fn moved(path: &DfsPath, from: &DfsPath, to: &DfsPath) -> Result<DfsPath> {
    let below = path
        .as_str()
        .strip_prefix(from.as_str())
        .unwrap_or(path.as_str());
    DfsPath::parse(&format!("{to}/{below}"))
}

fn mode(view: &EntryView) -> u16 {
    match view {
        EntryView::Dir(dir) => dir.mode,
        EntryView::File(_) | EntryView::Bare { .. } => 0o755,
    }
}

/// The request that makes the copy's own directory.
pub fn first_ids(ids: &OpIds) -> OpIds {
    ids_of(ids, 0)
}

fn ids_of(ids: &OpIds, index: u64) -> OpIds {
    match ids {
        OpIds::Given(id) => OpIds::Given(format!("{id}.{index}")),
        OpIds::Automatic => OpIds::Automatic,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_move_with_their_tree() {
        let path = |text| DfsPath::parse(text).unwrap();
        assert_eq!(
            moved(&path("/a/b/c"), &path("/a"), &path("/x")).unwrap(),
            path("/x/b/c")
        );
        assert_eq!(
            moved(&path("/a/b"), &path("/a"), &path("/")).unwrap(),
            path("/b")
        );
    }
}
