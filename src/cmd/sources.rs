//! Local sources of `put`, looked at before anything is sent.

use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// True for a directory, false for a file or standard input.
///
/// # Errors
/// What is wrong with it, before anything is sent.
pub fn is_tree(local: &Path, recursive: bool) -> Result<bool> {
    if local == Path::new("-") {
        return Ok(false);
    }
    let failed = |e| Error::io("read", local, &e).hint("name a file that can be read");
    let meta = std::fs::metadata(local).map_err(failed)?;
    if meta.is_dir() && !recursive {
        return Err(Error::usage("it is a directory")
            .at(local.display())
            .hint("use put -r"));
    }
    Ok(meta.is_dir())
}

/// A source whose own text ends without a name (`.`, `..`) goes by what it stands for.
pub fn named(local: &Path) -> PathBuf {
    match local.file_name() {
        Some(_) => local.into(),
        None => local.canonicalize().unwrap_or_else(|_| local.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn directories_need_r_and_missing_files_are_named() {
        let dir = tempfile::tempdir().unwrap();
        assert!(is_tree(dir.path(), true).unwrap());
        let refused = is_tree(dir.path(), false).unwrap_err();
        assert_eq!(refused.code, Code::Usage);
        assert_eq!(refused.hint.as_deref(), Some("use put -r"));
        let missing = is_tree(&dir.path().join("none"), true).unwrap_err();
        assert_eq!(missing.code, Code::NotFound);
        assert!(!is_tree(Path::new("-"), false).unwrap());
    }

    #[test]
    fn a_dot_goes_by_what_it_stands_for() {
        assert!(named(Path::new(".")).file_name().is_some());
        assert_eq!(named(Path::new("a/b")), PathBuf::from("a/b"));
    }
}
