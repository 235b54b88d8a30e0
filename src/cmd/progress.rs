//! Progress of a transfer: a bar on a terminal's standard error, lines of files on standard
//! output, failures as they happen.

use super::context::Context;
use super::failure::{Failure, report, tell};
use super::transfer;
use crate::client::{GetReport, Progress, PutReport};
use crate::error::Error;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// One bar for the whole command. Hidden where nobody looks.
pub struct Bar<'a> {
    cx: &'a Context,
    bar: ProgressBar,
    files: AtomicU64,
    files_done: AtomicU64,
    /// Show each file of a tree when it is done.
    each: bool,
    /// The first failed write to standard output, told at the end.
    broken: Mutex<Option<Failure>>,
}

impl<'a> Bar<'a> {
    /// `each`: show each file when it is done (trees); else the verb shows its one file itself.
    pub fn new(cx: &'a Context, each: bool) -> Self {
        let bar = if cx.shows_progress() {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
            bar.set_style(style());
            // Rate and ETA go on ageing while nothing arrives.
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        } else {
            ProgressBar::hidden()
        };
        Bar {
            cx,
            bar,
            files: AtomicU64::new(0),
            files_done: AtomicU64::new(0),
            each,
            broken: Mutex::new(None),
        }
    }

    /// Takes the bar off the screen; what was broken on the way is the verb's failure.
    pub fn finish(self) -> Result<(), Failure> {
        self.bar.finish_and_clear();
        self.broken.lock().take().map_or(Ok(()), Err)
    }

    fn file_done(&self, show: impl FnOnce() -> Result<(), Failure>) {
        let done = self.files_done.fetch_add(1, Ordering::Relaxed) + 1;
        let files = self.files.load(Ordering::Relaxed);
        if files > 1 {
            self.bar.set_message(format!("{done}/{files} files"));
        }
        if self.each
            && let Err(failure) = self.bar.suspend(show)
        {
            self.broken.lock().get_or_insert(failure);
        }
    }
}

impl Progress for Bar<'_> {
    fn expect(&self, files: u64, bytes: u64) {
        self.files.fetch_add(files, Ordering::Relaxed);
        self.bar.inc_length(bytes);
    }

    fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
        // A pipe announces nothing: its length is what has come so far.
        if self
            .bar
            .length()
            .is_some_and(|length| length < self.bar.position())
        {
            self.bar.set_length(self.bar.position());
        }
    }

    fn put(&self, file: &PutReport) {
        self.file_done(|| transfer::show_put(self.cx, file, self.cx.verbose()));
    }

    fn got(&self, file: &GetReport) {
        self.file_done(|| transfer::show_got(self.cx, file, self.cx.verbose()));
    }

    fn failed(&self, error: &Error) {
        self.bar.suspend(|| report(error, self.cx.json()));
    }

    fn note(&self, text: &str) {
        if self.cx.verbose() {
            self.bar.suspend(|| tell(text));
        }
    }
}

fn style() -> ProgressStyle {
    let template = "{bytes}/{total_bytes} [{wide_bar}] {bytes_per_sec} ETA {eta} {msg}";
    ProgressStyle::with_template(template)
        .expect("the template is a constant that a test has read")
        .progress_chars("=> ")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_template_is_one() {
        super::style();
    }
}
