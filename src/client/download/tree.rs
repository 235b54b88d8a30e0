//! Getting a whole remote tree: listed page by page, files fetched side by side.

use super::marker::Marker;
use super::part::local_failure;
use crate::client::core::{Client, is_passing};
use crate::client::list::Pages;
use crate::client::local::has_content;
use crate::client::manifest::Shape;
use crate::client::options::{GetOptions, ListOptions};
use crate::client::progress::Progress;
use crate::client::report::{GetReport, TreeReport};
use crate::client::window::Window;
use crate::error::{Code, Error, Result};
use crate::proto::{EntryView, FileView};
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
        view: FileView,
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
    /// An earlier run has made the local directory and not come to its end.
    goes_on: bool,
    report: Mutex<TreeReport>,
}

impl Client {
    /// A remote directory as the local directory `local`, which is made if missing. Each file is
    /// a whole version; the tree as a whole is not one point in time. Where an earlier run has made
    /// `local` and not come to its end, files that it has fetched are kept.
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
        let mut tree = TreeGet {
            client: self,
            options,
            progress,
            window: Window::new(options.window_bytes),
            goes_on: false,
            report: Mutex::default(),
        };
        let mut root = tree.frame(path.clone(), local.to_owned());
        // The first page is read before anything is made, so that a missing tree leaves nothing.
        if let Some(page) = root.pages.next_page().await? {
            tree.fill(&mut root, page.entries);
        }
        let marker = tree.make_root(path, local).await?;
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
        let report = tree.report.into_inner();
        if let Some(marker) = marker.filter(|_| report.failed == 0) {
            self.core.env.run_blocking(move || marker.remove()).await;
        }
        Ok(report)
    }

    /// True if a get of the directory `path` has made the directory `local` and not come to its
    /// end: the same get goes on in it.
    pub async fn has_begun_get(&self, path: &DfsPath, local: &Path) -> bool {
        let marker = self.marker(path, local).await;
        marker.is_some_and(|(_, is_set)| is_set)
    }

    /// The marker of a directory that exists, and whether it is set.
    async fn marker(&self, path: &DfsPath, local: &Path) -> Option<(Marker, bool)> {
        let (find, local) = (self.marker_of(path)?, local.to_owned());
        let found = self.core.env.run_blocking(move || {
            let marker = find(&local)?;
            let is_set = marker.is_set();
            Some((marker, is_set))
        });
        found.await
    }

    /// Finds the marker of a local directory for the tree `path`. `None`: there is nowhere to
    /// keep one.
    fn marker_of(
        &self,
        path: &DfsPath,
    ) -> Option<impl FnOnce(&Path) -> Option<Marker> + Send + use<>> {
        let state_dir = self.core.state_dir.clone()?;
        let cluster = self.told(|hello| hello.cluster);
        let path = path.clone();
        Some(move |local: &Path| Marker::of(&state_dir, (cluster, &path), local))
    }
}

/// False if it was there.
fn make_dir(path: &Path) -> Result<bool> {
    match std::fs::create_dir(path) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists && path.is_dir() => Ok(false),
        Err(e) => Err(local_failure("make the directory", path, &e)),
        Ok(()) => Ok(true),
    }
}

impl TreeGet<'_> {
    /// Makes the tree's own directory, or goes on in it. Its marker, to be removed at the end.
    async fn make_root(&mut self, path: &DfsPath, local: &Path) -> Result<Option<Marker>> {
        let (find, dir) = (self.client.marker_of(path), local.to_owned());
        let env = &self.client.core.env;
        let now = env.clock.wall();
        // In one go: a directory without its marker is one that nobody has begun with.
        let made = env.run_blocking(move || {
            let is_new = make_dir(&dir)?;
            let Some(marker) = find.and_then(|find| find(&dir)) else {
                return Ok((false, Ok(None)));
            };
            if is_new {
                return Ok((false, marker.set(now).map(|()| Some(marker))));
            }
            let is_set = marker.is_set();
            Ok((is_set, Ok(is_set.then_some(marker))))
        });
        let (goes_on, marker) = made.await?;
        self.report.lock().dirs += 1;
        self.goes_on = goes_on;
        // A get does not fail because it cannot be continued later.
        let marker = marker.inspect_err(|error: &Error| {
            let note = format!("this get cannot be continued later: {error}");
            self.progress.note(&note);
        });
        Ok(marker.ok().flatten())
    }

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
                    Ok(_) => {
                        let frame = self.frame(remote, local);
                        stack.push(frame);
                    }
                    Err(error) => return Some(Found::Failed(error)),
                },
                EntryView::File(view) => {
                    return Some(Found::File {
                        remote,
                        local,
                        view,
                    });
                }
            }
        }
    }

    async fn make_dir(&self, local: &Path) -> Result<()> {
        let path = local.to_owned();
        let env = &self.client.core.env;
        env.run_blocking(move || make_dir(&path)).await?;
        self.report.lock().dirs += 1;
        Ok(())
    }

    /// An error ends the whole tree; what concerns single files is told and counted.
    fn take(&self, found: Found) -> BoxFuture<'_, Result<()>> {
        self.take_one(found).boxed()
    }

    async fn take_one(&self, found: Found) -> Result<()> {
        let (remote, local, view) = match found {
            Found::Ended(error) => return Err(error),
            Found::Failed(error) => {
                self.failed(error);
                return Ok(());
            }
            Found::File {
                remote,
                local,
                view,
            } => (remote, local, view),
        };
        if let Some(report) = self.kept(&remote, &local, &view).await {
            self.progress.advance(report.size);
            self.succeeded(&report);
            return Ok(());
        }
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

    /// The file, if an earlier run has fetched it.
    async fn kept(&self, remote: &DfsPath, local: &Path, view: &FileView) -> Option<GetReport> {
        if !self.goes_on {
            return None;
        }
        let (path, attrs) = (local.to_owned(), &view.attrs);
        let (size, hash) = (attrs.size, attrs.hash);
        let env = &self.client.core.env;
        let kept = env.run_blocking(move || has_content(&path, size, &hash));
        let shape = Shape::of(view).ok()?;
        kept.await.then(|| GetReport {
            path: remote.clone(),
            local: Some(local.to_owned()),
            version: attrs.version,
            size,
            hash,
            chunks: shape.map_or(0, |shape| shape.chunks()),
            fetched_bytes: 0,
            kept_bytes: size,
        })
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
