//! Pure: the paths of verbs that go from several sources to one target. They are one list for the
//! parser: as two, an option between them would end the first and leave the target unexpected.

use crate::error::{Error, Result};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// Splits off the target, which is the last; at least one source comes before it. `target` is
/// its name in the help.
///
/// # Errors
/// `usage` when there is only one path.
pub fn split<T>(mut paths: Vec<T>, target: &str) -> Result<(Vec<T>, T)> {
    match paths.pop() {
        Some(last) if !paths.is_empty() => Ok((paths, last)),
        _ => Err(Error::usage(format!(
            "the following required arguments were not provided: <{target}>"
        ))
        .hint("add --help to see how it is used")),
    }
}

/// A remote path as typed; names in the cluster are UTF-8.
///
/// # Errors
/// `usage` for anything else.
pub fn remote_text(typed: &OsStr) -> Result<&str> {
    typed.to_str().ok_or_else(|| not_utf8(typed))
}

/// What is said of an argument that cannot be a remote path.
pub fn not_utf8(typed: &OsStr) -> Error {
    Error::usage("bad path (not UTF-8)")
        .at(typed.to_string_lossy())
        .hint("names in the cluster are UTF-8; rename it")
}

/// Local paths of what was typed: any bytes.
pub fn local_paths(typed: Vec<OsString>) -> Vec<PathBuf> {
    typed.into_iter().map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn the_last_of_several_paths_is_the_target() {
        assert_eq!(split(vec![1, 2, 3], "DST").unwrap(), (vec![1, 2], 3));
        for few in [vec![], vec![1]] {
            let error = split(few, "DST").unwrap_err();
            assert_eq!(error.code, Code::Usage);
            assert!(error.message.ends_with("<DST>"), "{error}");
        }
    }

    #[test]
    fn a_remote_path_that_is_not_utf8_is_named() {
        let error = remote_text(OsStr::from_bytes(b"/a\xff")).unwrap_err();
        assert_eq!(error.path.as_deref(), Some("/a\u{fffd}"));
        assert_eq!(remote_text(OsStr::new("/a")).unwrap(), "/a");
    }
}
