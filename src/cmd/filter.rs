//! Pure: which entries `find` shows.

use super::glob::Glob;
use crate::config::units::parse_size;
use crate::error::Result;
use crate::proto::EntryView;
use crate::types::{Kind, WallTime};
use std::time::Duration;

/// All conditions must hold; `None` asks nothing.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub name: Option<Glob>,
    /// Modified so long ago at most.
    pub newer: Option<Duration>,
    /// Modified so long ago at least.
    pub older: Option<Duration>,
    /// Of files; a directory never matches.
    pub size: Option<SizeTest>,
    pub owner: Option<String>,
    pub kind: Option<Kind>,
}

/// `+10MiB`: larger; `-10MiB`: smaller; `10MiB`: exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SizeTest {
    Above(u64),
    Below(u64),
    Exactly(u64),
}

impl SizeTest {
    /// # Errors
    /// `usage` for what is no size.
    pub fn parse(text: &str) -> Result<SizeTest> {
        match (text.strip_prefix('+'), text.strip_prefix('-')) {
            (Some(size), _) => Ok(SizeTest::Above(parse_size(size)?)),
            (_, Some(size)) => Ok(SizeTest::Below(parse_size(size)?)),
            _ => Ok(SizeTest::Exactly(parse_size(text)?)),
        }
    }

    fn holds(self, size: u64) -> bool {
        match self {
            SizeTest::Above(than) => size > than,
            SizeTest::Below(than) => size < than,
            SizeTest::Exactly(than) => size == than,
        }
    }
}

impl Filter {
    /// Whether entries must come with their attributes.
    pub fn needs_attributes(&self) -> bool {
        self.newer.is_some() || self.older.is_some() || self.size.is_some() || self.owner.is_some()
    }

    pub fn matches(&self, name: &str, view: &EntryView, now: WallTime) -> bool {
        let (owner, modified, size) = match view {
            EntryView::File(file) => {
                let attrs = &file.attrs;
                (attrs.owner.as_str(), attrs.modified, Some(attrs.size))
            }
            EntryView::Dir(dir) => (dir.owner.as_str(), dir.modified, None),
            EntryView::Bare { .. } => ("", WallTime::default(), None),
        };
        // What was modified in the future (clocks differ) is as new as can be.
        let age_ms = u128::try_from(now.0.saturating_sub(modified.0)).unwrap_or(0);
        self.name.as_ref().is_none_or(|glob| glob.matches(name))
            && self.newer.is_none_or(|most| age_ms <= most.as_millis())
            && self.older.is_none_or(|least| age_ms >= least.as_millis())
            && self
                .size
                .is_none_or(|test| size.is_some_and(|size| test.holds(size)))
            && self.owner.as_ref().is_none_or(|wanted| wanted == owner)
            && self.kind.is_none_or(|kind| kind == view.kind())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::FileView;
    use crate::types::{ChunkHash, Content, FileAttrs, FileVersion, Inode};

    fn file(size: u64, modified: i64) -> EntryView {
        EntryView::File(FileView {
            inode: Inode(9),
            attrs: FileAttrs {
                size,
                version: FileVersion(1),
                created: WallTime(0),
                modified: WallTime(modified),
                owner: "ann".into(),
                group: "ann".into(),
                mode: 0o644,
                hash: ChunkHash([0; 32]),
                content: Content::Empty,
            },
        })
    }

    fn holds(filter: &Filter, view: &EntryView) -> bool {
        filter.matches("a.txt", view, WallTime(10_000))
    }

    #[test]
    fn every_condition_must_hold() {
        let filter = Filter {
            name: Some(Glob::parse("*.txt").unwrap()),
            owner: Some("ann".into()),
            kind: Some(Kind::File),
            ..Filter::default()
        };
        assert!(holds(&filter, &file(1, 0)));
        assert!(!holds(
            &Filter {
                owner: Some("bob".into()),
                ..filter.clone()
            },
            &file(1, 0)
        ));
        assert!(!holds(
            &Filter {
                kind: Some(Kind::Dir),
                ..filter
            },
            &file(1, 0)
        ));
    }

    #[test]
    fn ages_are_counted_from_now() {
        let newer = Filter {
            newer: Some(Duration::from_secs(5)),
            ..Filter::default()
        };
        assert!(holds(&newer, &file(1, 5_000)));
        assert!(!holds(&newer, &file(1, 4_999)));
        assert!(holds(&newer, &file(1, 99_999)), "from the future");
        let older = Filter {
            older: Some(Duration::from_secs(5)),
            ..Filter::default()
        };
        assert!(holds(&older, &file(1, 5_000)));
        assert!(!holds(&older, &file(1, 5_001)));
    }

    #[test]
    fn sizes_are_above_below_or_exact() {
        assert_eq!(
            SizeTest::parse("+10MiB").unwrap(),
            SizeTest::Above(10 << 20)
        );
        assert_eq!(SizeTest::parse("-1K").unwrap(), SizeTest::Below(1_024));
        assert_eq!(SizeTest::parse("7").unwrap(), SizeTest::Exactly(7));
        assert!(SizeTest::parse("+").is_err());
        let above = Filter {
            size: Some(SizeTest::Above(9)),
            ..Filter::default()
        };
        assert!(holds(&above, &file(10, 0)));
        assert!(!holds(&above, &file(9, 0)));
        let dir = EntryView::Bare {
            inode: Inode(1),
            kind: Kind::Dir,
        };
        assert!(!holds(&above, &dir));
    }
}
