//! The reading verbs, and what administrators ask: each one call, retried at other nodes within
//! its deadline.

use super::ask::To;
use super::core::{Client, odd};
use super::options::ListOptions;
use super::report::Page;
use super::under_way::OpenChange;
use crate::error::{Error, Result};
use crate::limits::BATCH_ITEMS_MAX;
use crate::proto::{
    AdminAnswer, AdminCall, Answer, Call, DeletedView, EntryView, FsckReport, Overview, Resolved,
    StatusView, VersionView,
};
use crate::types::{DfsPath, DirVersion, FileVersion, GroupId, Inode, Name, ReadLevel};
use std::time::Duration;

/// A check of a whole tree reads every record and perhaps every chunk.
const FSCK_MAX: Duration = Duration::from_secs(24 * 3_600);
/// A clean-up of everything at once goes through all that is deleted.
const GC_MAX: Duration = Duration::from_secs(3_600);

impl Client {
    pub async fn stat(&self, path: &DfsPath, level: ReadLevel) -> Result<EntryView> {
        let call = Call::Stat {
            path: path.clone(),
            level,
        };
        let asked = self.ask(To::read(path, level), &call).await;
        match asked.map_err(|e| e.at(path))? {
            Answer::Stat(view) => Ok(view),
            _ => Err(odd("attributes").at(path)),
        }
    }

    /// In the order asked; each its own result. Paths beyond one request's worth are asked for
    /// in several, each of which is one point in time.
    pub async fn stat_many(
        &self,
        paths: &[DfsPath],
        level: ReadLevel,
    ) -> Result<Vec<Result<EntryView, Error>>> {
        let mut views = Vec::with_capacity(paths.len());
        for part in paths.chunks(BATCH_ITEMS_MAX) {
            let to = To::read(&part[0], level);
            let call = Call::StatMany {
                paths: part.to_vec(),
                level,
            };
            let asked = self.ask(to, &call).await;
            match asked.map_err(|e| e.at_first_of(&part[0], part.len()))? {
                Answer::StatMany(found) if found.len() == part.len() => {
                    let named = found.into_iter().zip(part);
                    views.extend(named.map(|(view, path)| view.map_err(|e| e.at(path))));
                }
                _ => return Err(odd("as many attributes as paths")),
            }
        }
        Ok(views)
    }

    /// One page of at most `limit` names behind `after`, with attributes and freshness as in
    /// `options`; `None`: the directory still has the version `known`.
    pub async fn list_page(
        &self,
        path: &DfsPath,
        after: Option<&Name>,
        limit: u32,
        known: Option<DirVersion>,
        options: &ListOptions,
    ) -> Result<Option<Page>> {
        let call = Call::List {
            path: path.clone(),
            after: after.cloned(),
            limit,
            attrs: options.attrs,
            known,
            level: options.level,
        };
        let asked = self.ask(To::read(path, options.level), &call).await;
        match asked.map_err(|e| e.at(path))? {
            Answer::NotModified if known.is_some() => Ok(None),
            Answer::List { dir, entries, more } => Ok(Some(Page { dir, entries, more })),
            _ => Err(odd("a listing").at(path)),
        }
    }

    /// Newest first, the current one included.
    pub async fn versions(&self, path: &DfsPath, level: ReadLevel) -> Result<Vec<VersionView>> {
        let call = Call::Versions {
            path: path.clone(),
            level,
        };
        let asked = self.ask(To::read(path, level), &call).await;
        match asked.map_err(|e| e.at(path))? {
            Answer::Versions(mut views) => {
                views.sort_by_key(|view| std::cmp::Reverse(view.attrs.version));
                Ok(views)
            }
            _ => Err(odd("versions").at(path)),
        }
    }

    /// What of this directory can still be brought back.
    pub async fn deleted(&self, path: &DfsPath, level: ReadLevel) -> Result<Vec<DeletedView>> {
        let call = Call::Deleted {
            path: path.clone(),
            level,
        };
        let asked = self.ask(To::read(path, level), &call).await;
        match asked.map_err(|e| e.at(path))? {
            Answer::Deleted(views) => Ok(views),
            _ => Err(odd("deleted names").at(path)),
        }
    }

    /// Where the bytes of a file version are: one manifest page.
    pub(crate) async fn resolve(
        &self,
        path: &DfsPath,
        version: Option<FileVersion>,
        page: u32,
        pinned: Option<(Inode, FileVersion)>,
        level: ReadLevel,
    ) -> Result<Resolved> {
        let call = Call::Resolve {
            path: path.clone(),
            version,
            page,
            pinned,
            level,
        };
        let asked = self.ask(To::read(path, level), &call).await;
        match asked.map_err(|e| e.at(path))? {
            Answer::Resolved(resolved) => {
                self.core.link.learn_nodes(&resolved.nodes);
                Ok(resolved)
            }
            _ => Err(odd("a file's content").at(path)),
        }
    }

    pub async fn status(&self) -> Result<StatusView> {
        match self.ask(To::Any, &Call::Status).await? {
            Answer::Status(view) => Ok(view),
            _ => Err(odd("a status")),
        }
    }

    /// [`Client::status`] with the state of the ring.
    pub async fn overview(&self) -> Result<Overview> {
        match self.ask(To::Any, &Call::Overview).await? {
            Answer::Overview(overview) => Ok(overview),
            _ => Err(odd("a status")),
        }
    }

    /// Read-only check of everything below a path; with `chunks` their bytes too. Takes as long
    /// as it takes, while the node lives that does it.
    pub async fn fsck(&self, path: &DfsPath, chunks: bool) -> Result<FsckReport> {
        let call = Call::Fsck {
            path: path.clone(),
            chunks,
        };
        let asked = self.ask_for(To::Path(path), &call, FSCK_MAX).await;
        match asked.map_err(|e| e.at(path))? {
            Answer::Fsck(report) => Ok(report),
            _ => Err(odd("a report").at(path)),
        }
    }

    /// Runs (with `now`) or looks at the clean-up of deletions; how many are left.
    ///
    /// # Errors
    /// `unavailable` says whether it may have happened.
    pub async fn gc(&self, now: bool) -> Result<u64> {
        let to = To::Shard(GroupId::FIRST);
        match self.manage(to, &Call::Gc { now }, now, GC_MAX).await? {
            Answer::Gc { left } => Ok(left),
            _ => Err(odd("a count of deletions")),
        }
    }

    /// The node's counters as Prometheus text.
    pub async fn metrics(&self) -> Result<String> {
        match self.ask(To::Any, &Call::Metrics).await? {
            Answer::Metrics(text) => Ok(text),
            _ => Err(odd("metrics")),
        }
    }

    /// What only administrators may ask for. Any node takes it. If the answer gets lost it is
    /// asked for again: each of these calls may be done twice (of two tokens one stays unused).
    ///
    /// # Errors
    /// `denied` for other users; `unavailable` says whether it may have happened.
    pub async fn admin(&self, call: AdminCall) -> Result<AdminAnswer> {
        let changes = is_change(&call);
        let (call, most) = (Call::Admin(call), self.core.timeout);
        match self.manage(To::Any, &call, changes, most).await? {
            Answer::Admin(answer) => Ok(answer),
            _ => Err(odd("an administrator's call")),
        }
    }

    /// Asks for something without an identity of its own, which is done again if its answer gets
    /// lost. `changes`: it is more than a question.
    async fn manage(
        &self,
        to: To<'_>,
        call: &Call,
        changes: bool,
        most: Duration,
    ) -> Result<Answer> {
        if !changes {
            return self.ask_for(to, call, most).await;
        }
        let change = self.core.under_way.began(OpenChange::default());
        let asked = self.ask_openly(to, call, most).await;
        self.core.under_way.ended(change);
        asked
    }
}

fn is_change(call: &AdminCall) -> bool {
    match call {
        AdminCall::CreateToken { .. }
        | AdminCall::Drain(_)
        | AdminCall::Undrain(_)
        | AdminCall::Remove { .. }
        | AdminCall::Weight { .. }
        | AdminCall::RemoveUser(_) => true,
        AdminCall::Nodes
        | AdminCall::Ring
        | AdminCall::Locate(_)
        | AdminCall::Plan(_)
        | AdminCall::Scrub { .. }
        | AdminCall::Repair
        | AdminCall::Users => false,
    }
}
