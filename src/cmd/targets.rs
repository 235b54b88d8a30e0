//! Pure: where several sources go. The rules of `cp`, for `put`, `get`, `mv` and `cp` alike:
//!
//! | target | one source | several sources |
//! |---|---|---|
//! | exists as a directory | into it, under the source's name | the same |
//! | exists as a file | that name (a precondition decides) | refused |
//! | missing | that name | refused |
//! | missing, ends in `/` | a tree: that name; a file: refused | refused |

use crate::error::{Code, Error, Result};
use crate::types::{DfsPath, Name};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What the target stands for before anything is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    Missing,
    File,
    Dir,
}

/// The target as typed and as found.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// As typed: a slash at its end says that a directory is meant.
    pub typed: &'a str,
    pub found: Found,
    /// Sources so many.
    pub sources: usize,
    /// The (only) source is a tree.
    pub tree: bool,
}

/// True if sources go into the target under their own names, false if the target is the name.
///
/// # Errors
/// `not_found` when a directory is needed and nothing is there; `conflict` when a file is.
pub fn goes_into(target: Target<'_>) -> Result<bool> {
    let slash = target.typed.ends_with('/') || target.typed.ends_with("/.");
    let must = target.sources > 1 || (slash && !target.tree);
    match target.found {
        Found::Dir => Ok(true),
        Found::Missing if !must => Ok(false),
        Found::File if !must && !slash => Ok(false),
        Found::Missing => Err(
            Error::not_found("no such directory (it is where these should go)")
                .at(target.typed)
                .hint("make it first with mkdir -p"),
        ),
        Found::File => Err(Error::new(Code::Conflict, "not a directory (it is a file)")
            .at(target.typed)
            .hint("name a directory, or one source and a free name")),
    }
}

/// The remote paths of sources with these names.
///
/// # Errors
/// Those of [`goes_into`]; `usage` when a source has no name to go by, or two have the same.
pub fn remote(target: Target<'_>, path: &DfsPath, names: &[Option<Name>]) -> Result<Vec<DfsPath>> {
    if !goes_into(target)? {
        return Ok(vec![path.clone()]);
    }
    distinct(target.typed, names)?;
    let under =
        |name: &Option<Name>| path.join(name.as_ref().ok_or_else(|| nameless(target.typed))?);
    names.iter().map(under).collect()
}

/// The local paths of remote sources with these names.
///
/// # Errors
/// As [`remote`].
pub fn local(target: Target<'_>, path: &Path, names: &[Option<Name>]) -> Result<Vec<PathBuf>> {
    if !goes_into(target)? {
        return Ok(vec![path.to_path_buf()]);
    }
    distinct(target.typed, names)?;
    let under = |name: &Option<Name>| match name {
        Some(name) => Ok(path.join(name.as_str())),
        None => Err(nameless(target.typed)),
    };
    names.iter().map(under).collect()
}

/// The name a local source brings along; `None` for standard input and `/`.
///
/// # Errors
/// `usage` for a name that cannot be one in the cluster.
pub fn local_name(source: &Path) -> Result<Option<Name>> {
    if source == Path::new("-") {
        return Ok(None);
    }
    let Some(name) = source.file_name() else {
        return Ok(None);
    };
    let text = name.to_str().ok_or_else(|| {
        Error::usage("bad name (not UTF-8)")
            .at(source.display())
            .hint("rename it, or name the target yourself")
    })?;
    Ok(Some(Name::parse(text).map_err(|e| e.at(source.display()))?))
}

/// Two sources of one name would overwrite each other.
fn distinct(typed: &str, names: &[Option<Name>]) -> Result<()> {
    let mut seen = BTreeSet::new();
    match names.iter().flatten().find(|name| !seen.insert(*name)) {
        None => Ok(()),
        Some(twice) => Err(Error::usage(format!("two sources would become `{twice}`"))
            .at(typed)
            .hint("give them one at a time under different names")),
    }
}

fn nameless(typed: &str) -> Error {
    Error::usage("the source has no name to go by")
        .at(typed)
        .hint("name the target file itself")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(typed: &str, found: Found, sources: usize, tree: bool) -> Target<'_> {
        Target {
            typed,
            found,
            sources,
            tree,
        }
    }

    fn names(names: &[&str]) -> Vec<Option<Name>> {
        names
            .iter()
            .map(|name| Some(Name::parse(name).unwrap()))
            .collect()
    }

    fn paths(target: Target<'_>, sources: &[&str]) -> Result<Vec<String>> {
        let path = DfsPath::parse(target.typed).unwrap();
        let paths = remote(target, &path, &names(sources))?;
        Ok(paths.iter().map(DfsPath::to_string).collect())
    }

    #[test]
    fn one_source_goes_to_a_free_or_taken_name() {
        assert_eq!(
            paths(target("/x", Found::Missing, 1, false), &["a"]).unwrap(),
            ["/x"]
        );
        assert_eq!(
            paths(target("/x", Found::File, 1, false), &["a"]).unwrap(),
            ["/x"]
        );
    }

    #[test]
    fn a_directory_takes_sources_under_their_names() {
        assert_eq!(
            paths(target("/x", Found::Dir, 1, false), &["a"]).unwrap(),
            ["/x/a"]
        );
        assert_eq!(
            paths(target("/x/", Found::Dir, 2, false), &["a", "b"]).unwrap(),
            ["/x/a", "/x/b"]
        );
        assert_eq!(
            paths(target("/", Found::Dir, 1, true), &["a"]).unwrap(),
            ["/a"]
        );
    }

    #[test]
    fn several_sources_need_a_directory() {
        let missing = paths(target("/x", Found::Missing, 2, false), &["a", "b"]).unwrap_err();
        assert_eq!(missing.code, Code::NotFound);
        let file = paths(target("/x", Found::File, 2, false), &["a", "b"]).unwrap_err();
        assert_eq!(file.code, Code::Conflict);
    }

    #[test]
    fn a_slash_at_the_end_means_a_directory() {
        let file = paths(target("/x/", Found::Missing, 1, false), &["a"]).unwrap_err();
        assert_eq!(file.code, Code::NotFound);
        assert_eq!(
            file.to_string(),
            "/x/: no such directory (it is where these should go); make it first with mkdir -p"
        );
        let file = paths(target("/x/", Found::File, 1, false), &["a"]).unwrap_err();
        assert_eq!(file.code, Code::Conflict);
        // A tree becomes the missing directory, as with cp -r.
        assert_eq!(
            paths(target("/x/", Found::Missing, 1, true), &["a"]).unwrap(),
            ["/x"]
        );
        assert_eq!(
            paths(target("/x", Found::Dir, 1, true), &["a"]).unwrap(),
            ["/x/a"]
        );
    }

    #[test]
    fn two_sources_of_one_name_are_refused() {
        let error = paths(target("/x", Found::Dir, 2, false), &["a", "a"]).unwrap_err();
        assert_eq!(error.code, Code::Usage);
    }

    #[test]
    fn standard_input_needs_a_named_target() {
        let path = DfsPath::parse("/x").unwrap();
        let into = remote(target("/x", Found::Dir, 1, false), &path, &[None]).unwrap_err();
        assert_eq!(into.code, Code::Usage);
        let named = remote(target("/x", Found::Missing, 1, false), &path, &[None]).unwrap();
        assert_eq!(named, [path]);
    }

    #[test]
    fn local_names_are_checked_before_anything_is_sent() {
        assert_eq!(local_name(Path::new("-")).unwrap(), None);
        assert_eq!(local_name(Path::new("/")).unwrap(), None);
        assert_eq!(
            local_name(Path::new("d/a/")).unwrap(),
            Some(Name::parse("a").unwrap())
        );
        let long = "x".repeat(256);
        assert_eq!(local_name(Path::new(&long)).unwrap_err().code, Code::Usage);
    }

    #[test]
    fn local_targets_follow_the_same_rules() {
        let at = |found| {
            local(
                target("out", found, 1, false),
                Path::new("out"),
                &names(&["a"]),
            )
        };
        assert_eq!(at(Found::Missing).unwrap(), [PathBuf::from("out")]);
        assert_eq!(at(Found::Dir).unwrap(), [PathBuf::from("out/a")]);
    }
}
