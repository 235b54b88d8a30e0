//! Verbs over several items: each failure is reported when it happens, the rest goes on, and the
//! exit status says `partial`. What no node answers to ends the verb: the rest would wait as long.
//! Also the batches in which such verbs send their changes, the marks around several of them,
//! and nodes as items.

use super::context::Context;
use super::failure::{Failure, Outcome, report};
use super::globals::OpFlag;
use super::text::Count;
use crate::client::{Changed, Client, OpIds};
use crate::error::{Code, Error, Result};
use crate::limits::BATCH_ITEMS_MAX;
use crate::shard::command::{Done, Op};
use crate::types::{DfsPath, FileVersion, Inode, NodeId, Revision};
use serde::Serialize;

/// Counts what failed of so many items.
pub struct Items {
    count: usize,
    tried: usize,
    failed: usize,
    json: bool,
}

impl Items {
    pub fn new(count: usize, cx: &Context) -> Self {
        Items {
            count,
            tried: 0,
            failed: 0,
            json: cx.json(),
        }
    }

    /// Passes a result on; of several items a failure is reported here, the only item's is the
    /// verb's own.
    ///
    /// # Errors
    /// The failure of the only item; `unavailable`, with how many items were not tried; a closed
    /// standard output.
    pub fn take<T>(&mut self, result: Outcome<T>) -> Outcome<Option<T>> {
        self.tried += 1;
        match result {
            Ok(value) => Ok(Some(value)),
            Err(Failure::Error(error)) if error.code == Code::Unavailable => {
                Err(Failure::Error(self.ended(error)))
            }
            Err(Failure::Error(error)) if self.count > 1 => {
                report(&error, self.json);
                self.failed += 1;
                Ok(None)
            }
            Err(Failure::Reported(_)) if self.count > 1 => {
                self.failed += 1;
                Ok(None)
            }
            Err(failure) => Err(failure),
        }
    }

    /// An error behind which nothing is tried any more.
    fn ended(&self, mut error: Error) -> Error {
        let left = self.count.saturating_sub(self.tried);
        if left > 0 {
            let left = Count(left as u64, "item was", "items were");
            error.message = format!("{}; {left} not tried", error.message);
        }
        error
    }

    /// The verb's end.
    pub fn finish(self) -> Outcome {
        if self.failed > 0 {
            Err(Failure::Reported(Code::Partial))
        } else {
            Ok(())
        }
    }
}

/// Remote paths as typed, all checked before anything is sent.
///
/// # Errors
/// `usage` for the first that is none.
pub fn parse_paths(typed: &[String]) -> Result<Vec<DfsPath>> {
    typed.iter().map(|text| DfsPath::parse(text)).collect()
}

/// A change that was made, as JSON.
#[derive(Serialize)]
pub struct ChangedJson<'a> {
    path: &'a DfsPath,
    /// Where it came from, for renames and copies.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<&'a DfsPath>,
    inode: Inode,
    /// A file's version.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<FileVersion>,
    /// The change's place in the shard's order. 0: nothing had to be changed.
    revision: Revision,
    op_id: &'a str,
}

impl<'a> ChangedJson<'a> {
    pub fn new(path: &'a DfsPath, done: &Done, op_id: &'a str) -> Self {
        ChangedJson {
            path,
            from: None,
            inode: done.inode,
            version: (done.version.0 > 0).then_some(done.version),
            revision: done.revision,
            op_id,
        }
    }

    pub fn from(mut self, from: Option<&'a DfsPath>) -> Self {
        self.from = from;
        self
    }
}

/// Shows a change: its JSON, or with `-v` its operation id.
pub fn show_changed(
    cx: &Context,
    path: &DfsPath,
    from: Option<&DfsPath>,
    changed: &Changed,
) -> Outcome {
    cx.note_op(path, &changed.op_id);
    if cx.json() {
        cx.out
            .json(&ChangedJson::new(path, &changed.done, &changed.op_id).from(from))?;
    }
    Ok(())
}

/// One change of a verb with many paths.
pub struct Change {
    /// What it is about; where its result shows.
    pub path: DfsPath,
    /// For renames and copies.
    pub from: Option<DfsPath>,
    pub op: Op,
}

/// Which refusals do not count as such.
type Ignore = fn(&Error) -> bool;
/// Adds what to do about a refusal.
type Advise = fn(Error) -> Error;

/// Sends changes in as few requests as possible, in order, and shows each. `ignore` says which
/// refusals do not count as such; `hint` adds what to do about a refusal.
///
/// # Errors
/// As [`Items`] says; a request that failed as a whole ends the verb, for the next would too.
pub async fn send_all(
    cx: &Context,
    changes: Vec<Change>,
    op: &OpFlag,
    ignore: Ignore,
    hint: Advise,
) -> Outcome {
    if changes.is_empty() {
        return Ok(());
    }
    let client = cx.connect().await?;
    let requests = changes.len().div_ceil(BATCH_ITEMS_MAX);
    let sent = send_parts(cx, &client, &changes, op, (ignore, hint));
    match requests > 1 {
        true => in_steps(cx, &client, (op, op), sent).await,
        false => sent.await,
    }
}

async fn send_parts(
    cx: &Context,
    client: &Client,
    changes: &[Change],
    op: &OpFlag,
    (ignore, hint): (Ignore, Advise),
) -> Outcome {
    let mut items = Items::new(changes.len(), cx);
    let requests = changes.len().div_ceil(BATCH_ITEMS_MAX);
    for (index, part) in changes.chunks(BATCH_ITEMS_MAX).enumerate() {
        let ops = part.iter().map(|change| change.op.clone()).collect();
        let ids: OpIds = op.nth(index, requests);
        let (op_id, outcomes) = client.change_many(ops, &ids).await?;
        for (change, outcome) in part.iter().zip(outcomes) {
            let outcome = match outcome {
                Err(error) if ignore(&error) => continue,
                // It is about the whole request: nothing is known of any of its changes.
                Err(error) if error.code == Code::Unavailable => {
                    return Err(Failure::Error(error.at(&change.path)));
                }
                Err(error) => Err(Failure::Error(hint(error).at(&change.path))),
                Ok(done) => Ok(Changed {
                    done,
                    op_id: op_id.clone(),
                }),
            };
            if let Some(changed) = items.take(outcome)? {
                show_changed(cx, &change.path, change.from.as_ref(), &changed)?;
            }
        }
    }
    items.finish()
}

/// Reports the nodes that did not answer a question to all of them.
///
/// # Errors
/// `partial`, reported, if there are any.
pub fn report_silent(cx: &Context, silent: Vec<(NodeId, Error)>) -> Outcome {
    if silent.is_empty() {
        return Ok(());
    }
    for (node, error) in silent {
        let error = Error {
            path: Some(format!("node {node}")),
            may_have_happened: false,
            ..error
        };
        report(&error.hint("`dfs node ls` says how it is"), cx.json());
    }
    Err(Failure::Reported(Code::Partial))
}

/// Does the several requests of a command between two marks of its operation id, by which
/// `dfs op status` tells that it was begun, and that all of it was done. The id may be one that was
/// made for the command: `begun`. The end is marked under the one that was `given`.
pub async fn in_steps(
    cx: &Context,
    client: &Client,
    (begun, given): (&OpFlag, &OpFlag),
    steps: impl Future<Output = Outcome>,
) -> Outcome {
    client.begin_steps(&begun.only()).await?;
    steps.await?;
    if let Err(error) = client.end_steps(&given.only()).await {
        // It was done all the same.
        cx.note(format_args!("`dfs op status` will say less: {error}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(count: usize) -> Items {
        Items {
            count,
            tried: 0,
            failed: 0,
            json: false,
        }
    }

    fn refused() -> Outcome {
        Err(Failure::Error(Error::new(Code::Exists, "taken").at("/x")))
    }

    #[test]
    fn the_only_items_error_is_the_verbs_own() {
        assert_eq!(items(1).take(refused()).unwrap_err().exit_status(), 4);
    }

    #[test]
    fn of_several_some_failed_is_partial() {
        let mut items = items(3);
        assert_eq!(items.take(Ok(1)).unwrap(), Some(1));
        assert_eq!(items.take(refused()).unwrap(), None);
        assert_eq!(items.take(Ok(2)).unwrap(), Some(2));
        assert_eq!(items.finish().unwrap_err().exit_status(), 10);
    }

    #[test]
    fn what_no_node_answers_to_ends_the_verb() {
        let mut items = items(4);
        assert_eq!(items.take(refused()).unwrap(), None);
        let silent = || -> Outcome { Err(Error::unavailable("no node answers").into()) };
        let failure = items.take(silent()).unwrap_err();
        assert_eq!(failure.exit_status(), 6);
        let Failure::Error(error) = failure else {
            panic!("reported: {failure:?}");
        };
        assert_eq!(error.message, "no node answers; 2 items were not tried");
        // Of the last one there is nothing to add.
        items.tried = 3;
        let last = Err(Error::unavailable("no node answers").into());
        assert_eq!(items.take(silent()), last);
    }

    #[test]
    fn all_done_is_done() {
        let mut items = items(2);
        items.take(Ok(())).unwrap();
        items.take(Ok(())).unwrap();
        assert_eq!(items.finish(), Ok(()));
    }

    #[test]
    fn a_closed_output_ends_the_verb_at_once() {
        let closed: Outcome = Err(Failure::PipeClosed);
        assert_eq!(items(3).take(closed), Err(Failure::PipeClosed));
    }

    #[test]
    fn paths_are_all_checked_before_anything_is_sent() {
        let typed = ["/a".to_string(), "b".to_string()];
        assert_eq!(parse_paths(&typed).unwrap_err().path.as_deref(), Some("b"));
    }

    #[test]
    fn a_change_is_this_json() {
        let path = DfsPath::parse("/b").unwrap();
        let from = DfsPath::parse("/a").unwrap();
        let mut done = Done {
            revision: Revision(9),
            inode: Inode(4),
            version: FileVersion(2),
            parent: Inode::ROOT,
            chunk_bytes: 0,
        };
        let json = |done: &Done, from| {
            serde_json::to_string(&ChangedJson::new(&path, done, "op").from(from)).unwrap()
        };
        assert_eq!(
            json(&done, Some(&from)),
            "{\"path\":\"/b\",\"from\":\"/a\",\"inode\":4,\"version\":2,\"revision\":9,\
             \"op_id\":\"op\"}"
        );
        done.version = FileVersion(0);
        assert_eq!(
            json(&done, None),
            "{\"path\":\"/b\",\"inode\":4,\"revision\":9,\"op_id\":\"op\"}"
        );
    }
}
