//! Getting a whole remote tree: listed page by page, files fetched side by side.

use super::part::local_failure;
use crate::client::core::{Client, is_passing};
use crate::client::list::Pages;
use crate::client::options::{GetOptions, ListOptions};
use crate::client::progress::Progress;
use crate::client::report::{GetReport, TreeReport};
use crate::client::window::Window;
use crate::error::{Code, Error, Result};
use crate::proto::EntryView;
use crate::types::{DfsPath, Name};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};

/// One directory being walked: at most one page of it is in memory.
struct Frame {
    remote: DfsPath,
    local: PathBuf,
    pages: Pages,
    page: VecDeque<(Name, EntryView)>,
}

/// What the walk comes across.
enum Found {
    File {
        remote: DfsPath,
        local: PathBuf,
    },
    Failed(Error),
    /// The walk cannot go on.
    Ended(Error),
}

struct TreeGet<'a> {
    client: &'a Client,
    options: &'a GetOptions,
    progress: &'a dyn Progress,
    window: Window,
    report: Mutex<TreeReport>,
}

impl Client {
    /// A remote directory as the local directory `local`, which is made if missing. Each file is
    /// a whole version; the tree as a whole is not one point in time.
    ///
    /// # Errors
    /// The tree as a whole cannot be fetched: no node is reachable, the root is missing.
    pub async fn get_tree(
        &self,
        path: &DfsPath,
        local: &Path,
        options: &GetOptions,
        progress: &dyn Progress,
    ) -> Result<TreeReport> {
        if options.version.is_some() || options.range.is_some() {
            return Err(Error::usage(
                "a version or range can be asked of single files only",
            ));
        }
        let tree = TreeGet {
            client: self,
            options,
            progress,
            window: Window::new(options.window_bytes),
            report: Mutex::default(),
        };
        let mut root = tree.frame(path.clone(), local.to_owned());
        // The first page is read before anything is made, so that a missing tree leaves nothing.
        if let Some(page) = root.pages.next_page().await? {
            tree.fill(&mut root, page.entries);
        }
        tree.make_dir(&root.local).await?;
        let walk = stream::unfold(vec![root], |mut stack| async {
            let found = tree.next(&mut stack).await?;
            Some((found, stack))
        });
        let mut done = walk
            .map(|found| tree.take(found))
            .buffer_unordered(options.jobs.max(1))
            .boxed();
        while let Some(result) = done.next().await {
            result?;
        }
        drop(done);
        Ok(tree.report.into_inner())
    }
}

impl TreeGet<'_> {
    fn frame(&self, remote: DfsPath, local: PathBuf) -> Frame {
        let options = ListOptions {
            attrs: true,
            level: self.options.level,
            ..ListOptions::default()
        };
        Frame {
            pages: self.client.list(&remote, options),
            page: VecDeque::new(),
            remote,
            local,
        }
    }

    fn fill(&self, frame: &mut Frame, entries: Vec<(Name, EntryView)>) {
        let sizes = entries.iter().filter_map(|(_, entry)| match entry {
            EntryView::File(file) => Some(file.attrs.size),
            _ => None,
        });
        let (files, bytes) = sizes.fold((0, 0u64), |(files, bytes), size| {
            (files + 1, bytes.saturating_add(size))
        });
        self.progress.expect(files, bytes);
        frame.page = entries.into();
    }

    /// The next file; directories are made on the way, before anything in them.
    async fn next(&self, stack: &mut Vec<Frame>) -> Option<Found> {
        loop {
            let frame = stack.last_mut()?;
            let Some((name, entry)) = frame.page.pop_front() else {
                match frame.pages.next_page().await {
                    Ok(Some(page)) => self.fill(frame, page.entries),
                    Ok(None) => {
                        stack.pop();
                    }
                    Err(error) => {
                        let passing = is_passing(&error);
                        stack.pop();
                        return Some(match passing {
                            true => Found::Ended(error),
                            // Removed or closed to us while we walked.
                            false => Found::Failed(error),
                        });
                    }
                }
                continue;
            };
            let local = frame.local.join(name.as_str());
            let remote = match frame.remote.join(&name) {
                Ok(remote) => remote,
                Err(error) => return Some(Found::Failed(error)),
            };
            match entry {
                EntryView::Dir(_) | EntryView::Bare { .. } => match self.make_dir(&local).await {
                    Ok(()) => {
                        let frame = self.frame(remote, local);
                        stack.push(frame);
                    }
                    Err(error) => return Some(Found::Failed(error)),
                },
                EntryView::File(_) => return Some(Found::File { remote, local }),
            }
        }
    }

    async fn make_dir(&self, local: &Path) -> Result<()> {
        let path = local.to_owned();
        let made = self
            .client
            .core
            .env
            .run_blocking(move || match std::fs::create_dir(&path) {
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
                Err(e) => Err(local_failure("make the directory", &path, &e)),
                Ok(()) => Ok(()),
            });
        made.await?;
        self.report.lock().dirs += 1;
        Ok(())
    }

    /// An error ends the whole tree; what concerns single files is told and counted.
    fn take(&self, found: Found) -> BoxFuture<'_, Result<()>> {
        self.take_one(found).boxed()
    }

    async fn take_one(&self, found: Found) -> Result<()> {
        let (remote, local) = match found {
            Found::Ended(error) => return Err(error),
            Found::Failed(error) => {
                self.failed(error);
                return Ok(());
            }
            Found::File { remote, local } => (remote, local),
        };
        let got = self.client.get_within(
            &remote,
            &local,
            self.options,
            &self.window,
            self.progress,
            false,
        );
        match got.await {
            Ok(report) => self.succeeded(&report),
            Err(error) if is_passing(&error) || error.code == Code::NoSpace => return Err(error),
            Err(error) => self.failed(error),
        }
        Ok(())
    }

    fn succeeded(&self, report: &GetReport) {
        self.progress.got(report);
        let mut tree = self.report.lock();
        tree.files += 1;
        tree.bytes += report.size;
        tree.moved_bytes += report.fetched_bytes;
        tree.reused_bytes += report.kept_bytes;
    }

    fn failed(&self, error: Error) {
        self.progress.failed(&error);
        self.report.lock().failed += 1;
    }
}
