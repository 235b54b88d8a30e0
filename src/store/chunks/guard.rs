//! Fail-stop of the chunk store: every failed write or sync passes here. No space is an ordinary
//! error; anything else means that nothing is known about the disk and ends the process.

use super::options::OnFatal;
use crate::error::{Code, Error, Result};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

pub(super) struct Guard {
    on_fatal: OnFatal,
    stopped: AtomicBool,
}

impl Guard {
    pub fn new(on_fatal: OnFatal) -> Self {
        Guard {
            on_fatal,
            stopped: AtomicBool::new(false),
        }
    }

    /// # Errors
    /// `unavailable` after a write or sync failed.
    pub fn check(&self) -> Result<()> {
        if self.stopped.load(Ordering::Acquire) {
            return Err(
                Error::unavailable("the chunk store has stopped (a sync failed)")
                    .hint("check the disk, then start the node again"),
            );
        }
        Ok(())
    }

    /// What the caller of a failed write, sync or rename gets.
    pub fn failed_write(&self, verb: &str, path: &Path, source: &io::Error) -> Error {
        let mut error = Error::io(verb, path, source);
        if error.code == Code::NoSpace {
            return error.hint("free space on this disk or add nodes");
        }
        error.code = Code::Failed;
        self.fatal(verb, error)
    }

    /// Stops the store; hands the error back where the hook returns.
    pub fn fatal(&self, verb: &str, error: Error) -> Error {
        if !self.stopped.swap(true, Ordering::AcqRel) {
            (self.on_fatal)(&format!("chunk store, {verb}"), &error);
        }
        error
    }
}
