//! Tests of the walk against a tree in memory, paged.

use super::{Lister, Step, Walk};
use crate::client::Page;
use crate::error::{Error, Result};
use crate::proto::EntryView;
use crate::types::{DfsPath, DirVersion, Inode, Kind, Name};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::collections::{BTreeMap, BTreeSet};

/// Paths of a tree; directories end in `/`. Answers pages of two.
struct Model(BTreeSet<String>);

impl Model {
    fn of(paths: &[&str]) -> Self {
        Model(paths.iter().map(|path| path.to_string()).collect())
    }

    fn children(&self, dir: &DfsPath) -> Option<BTreeMap<Name, Kind>> {
        let prefix = if dir.is_root() {
            "/".to_string()
        } else {
            format!("{dir}/")
        };
        let exists = dir.is_root() || self.0.contains(&prefix);
        exists.then(|| {
            let below = self.0.iter().filter_map(|path| path.strip_prefix(&prefix));
            below
                .filter_map(|rest| {
                    let (name, kind) = match rest.strip_suffix('/') {
                        Some(name) => (name, Kind::Dir),
                        None => (rest, Kind::File),
                    };
                    let direct = !name.is_empty() && !name.contains('/');
                    direct.then(|| (Name::parse(name).unwrap(), kind))
                })
                .collect()
        })
    }
}

impl Lister for Model {
    fn page<'a>(
        &'a self,
        path: &'a DfsPath,
        after: Option<&'a Name>,
    ) -> BoxFuture<'a, Result<Page>> {
        let page = self.children(path).map(|children| {
            let mut rest = children
                .into_iter()
                .filter(|(name, _)| after.is_none_or(|a| name > a));
            let view = |kind| EntryView::Bare {
                inode: Inode(9),
                kind,
            };
            let entries: Vec<_> = rest
                .by_ref()
                .take(2)
                .map(|(n, kind)| (n, view(kind)))
                .collect();
            Page {
                dir: DirVersion(1),
                entries,
                more: rest.next().is_some(),
            }
        });
        std::future::ready(page.ok_or_else(|| Error::not_found("gone"))).boxed()
    }
}

/// The walk as text: names with depth, `<` where a directory is left.
fn walked(model: Model, root: &str, depth: Option<usize>) -> Result<String> {
    let mut walk = Walk::new(model, DfsPath::parse(root).unwrap(), depth);
    let mut out = Vec::new();
    while let Some(step) = walk.next().now_or_never().expect("the model never waits")? {
        match step {
            Step::Entry(visit) => {
                let end = if visit.last { "." } else { "" };
                out.push(format!("{}{}{end}", visit.depth, visit.path));
            }
            Step::Leave => out.push("<".into()),
        }
    }
    Ok(out.join(" "))
}

const TREE: [&str; 7] = ["/a/", "/a/b/", "/a/b/c", "/a/d", "/a/e", "/a/f", "/g"];

#[test]
fn a_walk_is_depth_first_in_name_order_and_pairs_directories() {
    assert_eq!(
        walked(Model::of(&TREE), "/", None).unwrap(),
        "1/a 2/a/b 3/a/b/c. < 2/a/d 2/a/e 2/a/f. < 1/g."
    );
}

#[test]
fn a_depth_limit_shows_directories_and_does_not_enter_them() {
    assert_eq!(
        walked(Model::of(&TREE), "/", Some(1)).unwrap(),
        "1/a < 1/g."
    );
    assert_eq!(
        walked(Model::of(&TREE), "/", Some(2)).unwrap(),
        "1/a 2/a/b < 2/a/d 2/a/e 2/a/f. < 1/g."
    );
}

#[test]
fn a_walk_may_begin_anywhere() {
    assert_eq!(walked(Model::of(&TREE), "/a/b", None).unwrap(), "1/a/b/c.");
    assert!(walked(Model::of(&TREE), "/none", None).is_err());
}

/// `/a` is listed in `/` but cannot be listed itself: removed in between.
#[test]
fn a_directory_that_went_away_counts_as_empty() {
    struct Vanishing(Model);
    impl Lister for Vanishing {
        fn page<'a>(
            &'a self,
            path: &'a DfsPath,
            after: Option<&'a Name>,
        ) -> BoxFuture<'a, Result<Page>> {
            if path.as_str() == "/a" {
                return std::future::ready(Err(Error::not_found("gone"))).boxed();
            }
            self.0.page(path, after)
        }
    }
    let mut walk = Walk::new(Vanishing(Model::of(&TREE)), DfsPath::root(), None);
    let mut steps = 0;
    while walk.next().now_or_never().unwrap().unwrap().is_some() {
        steps += 1;
    }
    assert_eq!(steps, 3);
}
