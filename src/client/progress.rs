//! What a transfer tells while it runs. Implemented by the command line with progress bars.

use super::report::{GetReport, PutReport};
use crate::error::Error;

/// Called from the transfer's task, often: must return at once. Every method does nothing by
/// default.
pub trait Progress: Send + Sync {
    /// So many more files and bytes are known to have to travel (totals grow while a tree is
    /// walked; a pipe announces nothing).
    fn expect(&self, _files: u64, _bytes: u64) {}
    /// So many bytes of content are done: sent, fetched, or found to be there already.
    fn advance(&self, _bytes: u64) {}
    /// One file is committed.
    fn put(&self, _report: &PutReport) {}
    /// One file is whole and in its place.
    fn got(&self, _report: &GetReport) {}
    /// One item of a tree failed; the rest goes on. Names its path.
    fn failed(&self, _error: &Error) {}
    /// Something worth a line on stderr with `-v` (an upload is continued, a node was lost).
    fn note(&self, _text: &str) {}
}

/// Tells nobody.
pub struct NoProgress;

impl Progress for NoProgress {}
