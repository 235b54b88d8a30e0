//! The orders in which `ls` lists a directory. Nothing is written before the first page is there,
//! so that a listing that is refused leaves standard output empty.

use super::failure::Outcome;
use super::listing::{Closing, Listing};
use super::walk::{Listings, Step, Walk};
use crate::client::{Client, ListOptions};
use crate::proto::EntryView;
use crate::types::{DfsPath, WallTime};
use clap::ValueEnum;
use std::cmp::Reverse;

/// What `--sort` takes.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Sort {
    Name,
    Size,
    Time,
}

/// In name order, page by page.
pub async fn by_name(
    client: &Client,
    path: &DfsPath,
    options: ListOptions,
    mut listing: Listing<'_>,
) -> Outcome {
    let mut pages = client.list(path, options);
    let mut dir_version = None;
    while let Some(page) = pages.next_page().await.map_err(|e| e.at(path))? {
        dir_version = Some(page.dir);
        listing.open(path)?;
        listing.page(path, &page.entries)?;
    }
    listing.open(path)?;
    let one_point_in_time = pages.one_point_in_time();
    let next = pages.next();
    listing.close(&Closing {
        dir_version,
        one_point_in_time,
        truncated: next.is_some(),
        next,
    })
}

/// Largest or newest first, held in memory.
pub async fn sorted(
    client: &Client,
    path: &DfsPath,
    mut options: ListOptions,
    sort: Sort,
    mut listing: Listing<'_>,
) -> Outcome {
    let limit = options
        .limit
        .take()
        .map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
    let mut all = client
        .list_all(path, options)
        .await
        .map_err(|e| e.at(path))?;
    let key = |view: &EntryView| match sort {
        Sort::Time => i128::from(modified(view).0),
        Sort::Size | Sort::Name => i128::from(size(view)),
    };
    // Stable: what is equal stays in name order.
    all.entries.sort_by_key(|(_, view)| Reverse(key(view)));
    let truncated = all.entries.len() > limit;
    all.entries.truncate(limit);
    listing.open(path)?;
    listing.page(path, &all.entries)?;
    let one_point_in_time = all.one_point_in_time;
    listing.close(&Closing {
        dir_version: Some(all.dir),
        one_point_in_time,
        truncated,
        next: None,
    })
}

/// Everything below, depth first in name order.
pub async fn recursive(
    client: &Client,
    path: &DfsPath,
    mut options: ListOptions,
    mut listing: Listing<'_>,
) -> Outcome {
    let mut left = options.limit.take().unwrap_or(u64::MAX);
    let listings = Listings {
        client: client.clone(),
        options,
    };
    let mut walk = Walk::new(listings, path.clone(), None);
    let truncated = loop {
        let step = walk.next().await.map_err(|e| e.at(path))?;
        listing.open(path)?;
        match step {
            None => break false,
            Some(Step::Leave) => {}
            Some(Step::Entry(_)) if left == 0 => break true,
            Some(Step::Entry(visit)) => {
                listing.entry(relative(path, &visit.path), &visit.path, &visit.view)?;
                left -= 1;
            }
        }
    };
    listing.close(&Closing {
        dir_version: None,
        one_point_in_time: false,
        truncated,
        next: None,
    })
}

/// `path` as seen from `root`.
fn relative<'a>(root: &DfsPath, path: &'a DfsPath) -> &'a str {
    let below = path
        .as_str()
        .strip_prefix(root.as_str())
        .unwrap_or(path.as_str());
    below.trim_start_matches('/')
}

fn size(view: &EntryView) -> u64 {
    match view {
        EntryView::File(file) => file.attrs.size,
        EntryView::Dir(dir) => dir.totals.bytes,
        EntryView::Bare { .. } => 0,
    }
}

fn modified(view: &EntryView) -> WallTime {
    match view {
        EntryView::File(file) => file.attrs.modified,
        EntryView::Dir(dir) => dir.modified,
        EntryView::Bare { .. } => WallTime::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recursive_listings_show_relative_paths() {
        let path = |text| DfsPath::parse(text).unwrap();
        assert_eq!(relative(&path("/"), &path("/a/b")), "a/b");
        assert_eq!(relative(&path("/a"), &path("/a/b/c")), "b/c");
    }
}
