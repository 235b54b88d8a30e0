//! Listings of any size, page by page.

use super::core::Client;
use super::options::ListOptions;
use super::report::{Listing, Page};
use crate::error::Result;
use crate::limits::PAGE_ENTRIES_MAX;
use crate::types::{DfsPath, DirVersion, Name};

/// A listing read page by page, when asked; nothing is read ahead.
pub struct Pages {
    client: Client,
    path: DfsPath,
    options: ListOptions,
    after: Option<Name>,
    /// Entries that may still be given.
    left: u64,
    /// Version of the directory at the first page.
    first: Option<DirVersion>,
    changed: bool,
    ended: bool,
    /// The limit cut the listing behind this name.
    cut: Option<Name>,
}

impl Pages {
    /// The next page; `None` behind the last one. A directory always gives at least one page,
    /// which tells its version.
    pub async fn next_page(&mut self) -> Result<Option<Page>> {
        if self.ended {
            return Ok(None);
        }
        let limit = self.left.min(PAGE_ENTRIES_MAX as u64);
        let asked = self.client.list_page(
            &self.path,
            self.after.as_ref(),
            u32::try_from(limit).unwrap_or(u32::MAX),
            None,
            &self.options,
        );
        let page = asked
            .await?
            .ok_or_else(|| super::core::odd("a listing").at(&self.path))?;
        self.take(&page)?;
        Ok(Some(page))
    }

    fn take(&mut self, page: &Page) -> Result<()> {
        let first = *self.first.get_or_insert(page.dir);
        self.changed |= first != page.dir;
        self.left = self.left.saturating_sub(page.entries.len() as u64);
        let last = page.entries.last().map(|(name, _)| name.clone());
        if page.more && (last.is_none() || last <= self.after) {
            // Asked again it would say the same for ever.
            return Err(super::core::odd("names behind the last one").at(&self.path));
        }
        self.after = last.or(self.after.take());
        if !page.more {
            self.ended = true;
        } else if self.left == 0 {
            self.ended = true;
            self.cut = self.after.clone();
        }
        Ok(())
    }

    /// All pages so far had the same version of the directory.
    pub fn one_point_in_time(&self) -> bool {
        !self.changed
    }

    /// The name to go on behind, if the limit cut the listing.
    pub fn next(&self) -> Option<Name> {
        self.cut.clone()
    }
}

impl Client {
    /// A listing page by page, for directories of any size. Asks nothing yet.
    pub fn list(&self, path: &DfsPath, options: ListOptions) -> Pages {
        Pages {
            client: self.clone(),
            path: path.clone(),
            after: options.after.clone(),
            left: options.limit.unwrap_or(u64::MAX).max(1),
            options,
            first: None,
            changed: false,
            ended: false,
            cut: None,
        }
    }

    /// A listing in memory.
    pub async fn list_all(&self, path: &DfsPath, options: ListOptions) -> Result<Listing> {
        let mut pages = self.list(path, options);
        let mut listing = Listing {
            dir: DirVersion(0),
            one_point_in_time: true,
            entries: Vec::new(),
            next: None,
        };
        while let Some(page) = pages.next_page().await? {
            listing.dir = page.dir;
            listing.entries.extend(page.entries);
        }
        listing.one_point_in_time = pages.one_point_in_time();
        listing.next = pages.next();
        Ok(listing)
    }
}
