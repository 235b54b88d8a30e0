//! A tree in order, depth first, without holding it: a stack of pages, one for each directory on
//! the way down. Called by `ls -R`, `tree`, `find` and `cp -r`.
//!
//! The walk is not one point in time: each page is read when it is reached. A directory that is
//! removed before the walk gets there counts as empty.

use crate::client::{Client, ListOptions, Page};
use crate::error::{Code, Result};
use crate::limits::DEPTH_MAX;
use crate::proto::EntryView;
use crate::types::{DfsPath, Kind, Name};
use futures::FutureExt;
use futures::future::BoxFuture;

/// Entries fetched at once: with `DEPTH_MAX` pages held, some 100 MB in the worst of trees, and
/// in any usual one a few.
const PAGE: u32 = 1_024;

/// Reads pages; the client, or a model in tests.
pub trait Lister: Send + Sync {
    fn page<'a>(
        &'a self,
        path: &'a DfsPath,
        after: Option<&'a Name>,
    ) -> BoxFuture<'a, Result<Page>>;
}

/// The cluster's listings.
pub struct Listings {
    pub client: Client,
    pub options: ListOptions,
}

impl Lister for Listings {
    fn page<'a>(
        &'a self,
        path: &'a DfsPath,
        after: Option<&'a Name>,
    ) -> BoxFuture<'a, Result<Page>> {
        async move {
            let page = self
                .client
                .list_page(path, after, PAGE, None, &self.options)
                .await?;
            Ok(page.expect("only a question with a known version is answered by none"))
        }
        .boxed()
    }
}

/// What the walk meets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// An entry; if it is a directory, what is in it comes next.
    Entry(Visit),
    /// All of the directory of the last-but-so-many entry has been seen.
    Leave,
}

/// One entry on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visit {
    pub path: DfsPath,
    pub name: Name,
    pub view: EntryView,
    /// 1 for what is in the root of the walk itself.
    pub depth: usize,
    /// Nothing comes behind it in its directory.
    pub last: bool,
}

struct Level {
    path: DfsPath,
    after: Option<Name>,
    /// Read, not yet given out; next one last.
    ready: Vec<(Name, EntryView)>,
    /// There are names behind those in `ready`.
    more: bool,
}

/// A walk. [`next`](Walk::next) until `None`.
pub struct Walk<L> {
    lister: L,
    stack: Vec<Level>,
    /// Directories at this depth are shown, not entered.
    depth_max: usize,
    /// The directory given out last, to be entered at the next step.
    pending: Option<DfsPath>,
}

impl<L: Lister> Walk<L> {
    /// Walks what is below `root`; `depth_max` `None`: all of it.
    pub fn new(lister: L, root: DfsPath, depth_max: Option<usize>) -> Self {
        Walk {
            lister,
            stack: Vec::new(),
            depth_max: depth_max.unwrap_or(DEPTH_MAX),
            pending: Some(root),
        }
    }

    /// The next step; `None` when the root itself has been left.
    ///
    /// # Errors
    /// Those of the listing; a directory below the root that has gone is no error.
    pub async fn next(&mut self) -> Result<Option<Step>> {
        if let Some(path) = self.pending.take() {
            let enter = self.stack.len() < self.depth_max;
            self.stack.push(Level {
                path,
                after: None,
                ready: Vec::new(),
                more: enter,
            });
        }
        self.fill().await?;
        let depth = self.stack.len();
        let Some(level) = self.stack.last_mut() else {
            return Ok(None);
        };
        let Some((name, view)) = level.ready.pop() else {
            self.stack.pop();
            return Ok((!self.stack.is_empty()).then_some(Step::Leave));
        };
        let path = level.path.join(&name)?;
        let last = level.ready.is_empty() && !level.more;
        if view.kind() == Kind::Dir {
            self.pending = Some(path.clone());
        }
        Ok(Some(Step::Entry(Visit {
            path,
            name,
            view,
            depth,
            last,
        })))
    }

    /// Reads the next page if none is ready.
    async fn fill(&mut self) -> Result<()> {
        let below_root = self.stack.len() > 1;
        let Some(level) = self.stack.last_mut() else {
            return Ok(());
        };
        while level.ready.is_empty() && level.more {
            let page = match self.lister.page(&level.path, level.after.as_ref()).await {
                Err(e) if below_root && e.code == Code::NotFound => {
                    level.more = false;
                    return Ok(());
                }
                page => page?,
            };
            // A page that says "more" and holds nothing would be asked for again for ever.
            level.more = page.more && !page.entries.is_empty();
            level.after = page.entries.last().map(|(name, _)| name.clone());
            level.ready = page.entries;
            level.ready.reverse();
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "walk_tests.rs"]
mod tests;
