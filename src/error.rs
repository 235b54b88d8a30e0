//! The one error that crosses layers, processes and the screen, and the table that ties its
//! codes to exit statuses and JSON names.
//!
//! Layers may have richer errors of their own (the log names file and offset); they become an
//! [`Error`] where they leave the layer. It is cheap to build, serialisable, and says what
//! failed, on which path, why, and what to do.

use serde::{Deserialize, Serialize};

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What is said of a path with nothing at its end.
pub const NO_SUCH_ENTRY: &str = "no such file or directory";
/// How it begins what is said of a directory where a file is needed.
pub const IS_DIRECTORY: &str = "it is a directory";

/// What kind of failure this is, as a user's script tells them apart.
///
/// Stored in session replies and sent over the wire by position: append only, never reorder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Code {
    /// Anything not below.
    Failed,
    /// Bad arguments or a bad path.
    Usage,
    /// No such file, directory, version, lock, node or shard.
    NotFound,
    /// A precondition failed: the version moved on, the kind differs.
    Conflict,
    /// The name is taken.
    Exists,
    /// The directory has entries.
    NotEmpty,
    /// Not authenticated, or not allowed.
    Denied,
    /// No quorum, no node reachable, or timed out.
    Unavailable,
    /// Another holder has the lock.
    Locked,
    /// No replica gave bytes that match their hash.
    Corrupt,
    /// Quota or disk.
    NoSpace,
    /// Of several items some failed; each failure was reported.
    Partial,
    /// Stopped by the user.
    Interrupted,
    /// The server has more work than it may queue; the request was not executed. Retried by the
    /// client; shown as `unavailable` if it lasts.
    Busy,
    /// Not the leader of that shard, or the route is old; not executed. Never shown.
    Redirect,
    /// Too few nodes have a chunk that the request refers to; not executed. The client sends what
    /// is missing again; shown as `unavailable` if it lasts.
    NotStored,
}

impl Code {
    /// Exit status of the process, JSON name. The only place where they are tied together.
    const TABLE: [(Code, u8, &'static str); 16] = [
        (Code::Failed, 1, "failed"),
        (Code::Usage, 2, "usage"),
        (Code::NotFound, 3, "not_found"),
        (Code::Conflict, 4, "conflict"),
        (Code::Exists, 4, "exists"),
        (Code::NotEmpty, 4, "not_empty"),
        (Code::Denied, 5, "denied"),
        (Code::Unavailable, 6, "unavailable"),
        (Code::Locked, 7, "locked"),
        (Code::Corrupt, 8, "corrupt"),
        (Code::NoSpace, 9, "no_space"),
        (Code::Partial, 10, "partial"),
        (Code::Interrupted, 130, "interrupted"),
        (Code::Busy, 6, "unavailable"),
        (Code::Redirect, 6, "unavailable"),
        (Code::NotStored, 6, "unavailable"),
    ];

    fn row(self) -> (Code, u8, &'static str) {
        Self::TABLE[self as usize]
    }

    /// The process's exit status for an error of this kind.
    pub fn exit_status(self) -> u8 {
        self.row().1
    }

    /// The name under `error.code` in JSON.
    pub fn name(self) -> &'static str {
        self.row().2
    }

    /// True where the request was certainly not executed and may be sent again as it is.
    pub fn is_retryable(self) -> bool {
        matches!(self, Code::Busy | Code::Redirect)
    }
}

/// A failure, with everything a user needs to act on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error {
    pub code: Code,
    /// The remote or local path it is about, if it is about one.
    pub path: Option<String>,
    /// What is wrong and why: `what is wrong (cause)`.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// For conflicts on a file: its version now.
    pub current_version: Option<u64>,
    /// The request may have been executed although this error came back.
    pub may_have_happened: bool,
}

impl Error {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Error {
            code,
            path: None,
            message: message.into(),
            hint: None,
            current_version: None,
            may_have_happened: false,
        }
    }

    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Code::Failed, message)
    }

    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Code::Usage, message)
    }

    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Code::NotFound, message)
    }

    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Code::Unavailable, message)
    }

    pub fn corrupt(message: impl Into<String>) -> Self {
        Self::new(Code::Corrupt, message)
    }

    /// Names the path, unless a lower layer already named one.
    pub fn at(mut self, path: impl ToString) -> Self {
        self.path.get_or_insert_with(|| path.to_string());
        self
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint.get_or_insert_with(|| hint.into());
        self
    }

    pub fn version(mut self, current: u64) -> Self {
        self.current_version = Some(current);
        self
    }

    pub fn unknown_outcome(mut self) -> Self {
        self.may_have_happened = true;
        self
    }

    /// What is said of a request about several paths, of which this is the first.
    pub fn at_first_of(mut self, path: impl ToString, count: usize) -> Self {
        if count > 1 && self.path.is_none() {
            self.message = format!("{} (the same for {} more)", self.message, count - 1);
        }
        self.at(path)
    }

    /// True for a directory where a file was needed.
    pub fn is_of_directory(&self) -> bool {
        self.code == Code::Conflict && self.message.starts_with(IS_DIRECTORY)
    }

    /// An I/O error with what was being done to which file.
    pub fn io(verb: &str, path: impl AsRef<std::path::Path>, source: &std::io::Error) -> Self {
        use std::io::ErrorKind as K;
        let code = match source.kind() {
            K::NotFound => Code::NotFound,
            K::PermissionDenied => Code::Denied,
            K::AlreadyExists => Code::Exists,
            K::StorageFull | K::QuotaExceeded => Code::NoSpace,
            _ => Code::Failed,
        };
        Self::new(code, format!("cannot {verb} ({source})")).at(path.as_ref().display())
    }
}

impl std::fmt::Display for Error {
    /// `PATH: what is wrong (cause); what to do`, without the program's name.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(path) = &self.path {
            write!(f, "{path}: ")?;
        }
        f.write_str(&self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, "; {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_rows_stand_at_their_code() {
        for (index, (code, _, _)) in Code::TABLE.iter().enumerate() {
            assert_eq!(*code as usize, index);
        }
    }

    #[test]
    fn a_request_about_many_paths_names_the_first() {
        let error = |count| Error::unavailable("no quorum").at_first_of("/a", count);
        assert_eq!(error(1).to_string(), "/a: no quorum");
        assert_eq!(error(3).to_string(), "/a: no quorum (the same for 2 more)");
        let named = Error::unavailable("no quorum").at("/b");
        assert_eq!(named.clone().at_first_of("/a", 3), named);
    }

    #[test]
    fn text_names_path_cause_and_next_step() {
        let error = Error::new(Code::Exists, "the name is taken (version 3)")
            .at("/a")
            .hint("use --overwrite");
        assert_eq!(
            error.to_string(),
            "/a: the name is taken (version 3); use --overwrite"
        );
    }
}
