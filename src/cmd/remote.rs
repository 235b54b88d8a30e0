//! What stands at a remote path before a verb begins. Called by verbs whose target may be a
//! directory.

use super::targets::Found;
use crate::client::{Client, OpIds};
use crate::error::{Code, Error, NO_SUCH_ENTRY, Result};
use crate::proto::EntryView;
use crate::types::{DfsPath, ReadLevel};

/// # Errors
/// Those of the question, except that nothing is there.
pub async fn look(client: &Client, path: &DfsPath) -> Result<Found> {
    match client.stat(path, ReadLevel::Linearizable).await {
        Ok(EntryView::File(_)) => Ok(Found::File),
        Ok(EntryView::Dir(_) | EntryView::Bare { .. }) => Ok(Found::Dir),
        Err(e) if e.code == Code::NotFound => Ok(Found::Missing),
        Err(e) => Err(e.at(path)),
    }
}

/// What was at `path`, where `found` is now, when an operation began that makes or moves a directory
/// there in one of its steps: what an earlier run under the same given id brought there was not, and
/// this run is to do the same as that one.
pub async fn before(
    client: &Client,
    (path, found): (&DfsPath, Found),
    ids: &OpIds,
    step: &str,
) -> Result<Found> {
    if found == Found::Dir && client.is_made_by(path, ids, step).await? {
        return Ok(Found::Missing);
    }
    Ok(found)
}

/// # Errors
/// `not_found` too.
pub async fn must_look(client: &Client, path: &DfsPath) -> Result<Found> {
    match look(client, path).await? {
        Found::Missing => Err(Error::not_found(NO_SUCH_ENTRY).at(path)),
        found => Ok(found),
    }
}
