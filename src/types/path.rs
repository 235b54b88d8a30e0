//! Names and absolute paths, checked once where they enter.

use crate::error::{Error, Result};
use crate::limits::{DEPTH_MAX, NAME_BYTES_MAX, PATH_BYTES_MAX};
use serde::{Deserialize, Serialize};
use std::fmt;

/// One component of a path: 1 to 255 bytes of UTF-8 without `/` and NUL, not `.` or `..`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(Box<str>);

impl Name {
    pub fn parse(text: &str) -> Result<Name> {
        let why = match text {
            "" => "the name is empty",
            "." | ".." => "`.` and `..` are not names here",
            _ if text.len() > NAME_BYTES_MAX => "the name is longer than 255 bytes",
            _ if text.contains('/') => "a name cannot hold `/`",
            _ if text.contains('\0') => "a name cannot hold NUL",
            _ => return Ok(Name(text.into())),
        };
        Err(Error::usage(format!("bad name ({why})")).hint("use another name"))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = Error;
    fn try_from(text: String) -> Result<Name> {
        Name::parse(&text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> String {
        name.0.into()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An absolute path, normalised: `/` or `/` and names with one `/` between, at most 4,096 bytes
/// and 255 names. Ordered as text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DfsPath(Box<str>);

impl DfsPath {
    pub fn root() -> DfsPath {
        DfsPath("/".into())
    }

    /// Takes what a user types: repeated and trailing slashes are dropped, `.` and `..` refused
    /// (a remote path means the same whatever stands in the tree).
    pub fn parse(text: &str) -> Result<DfsPath> {
        let refuse = |why: &str, hint: &str| {
            // A path in an error is cut, so that an endless one does not fill the screen.
            let shown: String = text.chars().take(120).collect();
            Err(Error::usage(format!("bad path ({why})"))
                .at(shown)
                .hint(hint))
        };
        if text.is_empty() {
            return Err(Error::usage("bad path (empty)").hint("remote paths begin with `/`"));
        }
        if !text.starts_with('/') {
            return refuse("not absolute", "remote paths begin with `/`");
        }
        if text.len() > PATH_BYTES_MAX {
            return refuse("longer than 4,096 bytes", "use a shorter path");
        }
        let mut out = String::with_capacity(text.len());
        let mut depth = 0;
        for part in text.split('/').filter(|part| !part.is_empty()) {
            Name::parse(part).map_err(|e| e.at(text.chars().take(120).collect::<String>()))?;
            out.push('/');
            out.push_str(part);
            depth += 1;
        }
        if depth > DEPTH_MAX {
            return refuse("more than 255 directories deep", "use a flatter tree");
        }
        if out.is_empty() {
            out.push('/');
        }
        Ok(DfsPath(out.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn is_root(&self) -> bool {
        &*self.0 == "/"
    }

    pub fn names(&self) -> impl DoubleEndedIterator<Item = Name> + '_ {
        self.0[1..]
            .split('/')
            .filter(|part| !part.is_empty())
            .map(|part| Name(part.into()))
    }

    /// Number of names; 0 for `/`.
    pub fn depth(&self) -> usize {
        self.names().count()
    }

    /// Last name; `None` for `/`.
    pub fn name(&self) -> Option<Name> {
        self.names().next_back()
    }

    /// `None` for `/`.
    pub fn parent(&self) -> Option<DfsPath> {
        if self.is_root() {
            return None;
        }
        let cut = self.0.rfind('/').expect("a path begins with a slash");
        Some(if cut == 0 {
            DfsPath::root()
        } else {
            DfsPath(self.0[..cut].into())
        })
    }

    /// This directory's entry `name`.
    ///
    /// # Errors
    /// `usage` when the result would be too long or too deep.
    pub fn join(&self, name: &Name) -> Result<DfsPath> {
        let head = if self.is_root() { "" } else { &self.0 };
        DfsPath::parse(&format!("{head}/{name}"))
    }

    /// True for the path itself and everything below it.
    pub fn is_at_or_below(&self, ancestor: &DfsPath) -> bool {
        ancestor.is_root()
            || self
                .0
                .strip_prefix(&*ancestor.0)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl TryFrom<String> for DfsPath {
    type Error = Error;
    fn try_from(text: String) -> Result<DfsPath> {
        DfsPath::parse(&text)
    }
}

impl From<DfsPath> for String {
    fn from(path: DfsPath) -> String {
        path.0.into()
    }
}

impl fmt::Display for DfsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn normalises_slashes() {
        assert_eq!(DfsPath::parse("//a///b/").unwrap().as_str(), "/a/b");
        assert_eq!(DfsPath::parse("///").unwrap(), DfsPath::root());
    }

    #[test]
    fn refuses_bad_paths() {
        let long = format!("/{}", "x".repeat(256));
        let deep = "/x".repeat(256);
        for bad in [
            "",
            "a",
            "/a/../b",
            "/.",
            "/a\0b",
            &long,
            &deep,
            &"/x".repeat(2100),
        ] {
            assert_eq!(
                DfsPath::parse(bad).unwrap_err().code,
                crate::error::Code::Usage,
                "{bad}"
            );
        }
        assert!(DfsPath::parse(&format!("/{}", "x".repeat(255))).is_ok());
    }

    #[test]
    fn below_means_whole_names() {
        let path = |text| DfsPath::parse(text).unwrap();
        assert!(path("/a/b").is_at_or_below(&path("/a")));
        assert!(path("/a").is_at_or_below(&path("/a")));
        assert!(!path("/ab").is_at_or_below(&path("/a")));
        assert!(path("/ab").is_at_or_below(&path("/")));
    }

    proptest! {
        #[test]
        fn parent_and_name_join_to_the_path(text in "(/[a-z]{1,3}){1,6}") {
            let path = DfsPath::parse(&text).unwrap();
            let joined = path.parent().unwrap().join(&path.name().unwrap()).unwrap();
            prop_assert_eq!(joined, path);
        }

        #[test]
        fn any_text_is_judged_without_panic(text in ".*") {
            if let Ok(path) = DfsPath::parse(&text) {
                prop_assert_eq!(DfsPath::parse(path.as_str()).unwrap(), path);
            }
        }
    }
}
