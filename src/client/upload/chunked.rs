//! Putting what is too large for one operation: reserved, moved in chunks, committed; continued
//! where an earlier run of the same put was interrupted.

use super::begun::{Begun, Lacking};
use super::ledger::Ledger;
use super::put::{Target, report};
use super::resume::{Header, ResumeState};
use super::stream::{Moved, Source, Transfer};
use crate::client::core::{Client, is_passing};
use crate::client::local::LocalFile;
use crate::client::manifest::size_max;
use crate::client::options::PutOptions;
use crate::client::progress::Progress;
use crate::client::report::PutReport;
use crate::client::retry::{Pace, Retry};
use crate::client::window::Window;
use crate::error::{Code, Error, Result};
use crate::limits::MIB;
use crate::types::ChunkHash;
use std::sync::Arc;

/// Files up to this size are read for it, and read again (from memory) to be sent.
const FORESEEN_BYTES_MAX: u64 = MIB;
/// Runs through a content, each because chunks of it were lacking.
const ROUNDS_MAX: u32 = 32;

/// An open state file, and what an earlier run left in it.
pub(super) struct Resume {
    state: Arc<ResumeState>,
    found: Option<Header>,
}

impl Client {
    pub(super) async fn put_chunked(
        &self,
        target: &Target,
        source: Source<'_>,
        window: &Window,
        progress: &dyn Progress,
        resume: Option<Resume>,
    ) -> Result<PutReport> {
        let state = resume.as_ref().map(|resume| Arc::clone(&resume.state));
        let begin = self.begin(target, resume, progress);
        let ((), begun) = tokio::join!(self.foresee(source.again()), begin);
        let (mut begun, mut resume) = self.or_forget(begun, &state).await?;
        let again = source.again();
        let parts = (window, progress);
        let ledger = Ledger::default();
        let filled = self.fill(&begun, source, parts, resume.as_ref(), &ledger);
        let mut done = filled.await;
        if begun.is_foreign()
            && let Some(source) = again
        {
            // Another run has used this reservation for another content.
            begun.abort().await;
            progress.note(&format!("{}: begins anew", target.path));
            let anew = self.begin_anew(target, resume, 1, progress).await;
            (begun, resume) = self.or_forget(anew, &state).await?;
            let filled = self.fill(&begun, source, parts, resume.as_ref(), &ledger);
            done = filled.await;
        }
        let goes_on = resume.is_some();
        self.end(&begun, resume, &done).await;
        done.map_err(|error| {
            if goes_on && is_passing(&error) && !error.may_have_happened {
                return error.hint("run the same command again: what was stored is not sent twice");
            }
            error
        })
    }

    /// Asks where the only chunk of a small file belongs, while its name is being reserved. What
    /// goes wrong with it shows later.
    async fn foresee(&self, source: Option<Source<'_>>) {
        let Some(source) = source else {
            return;
        };
        let most = self.told(|hello| hello.chunk_bytes).min(FORESEEN_BYTES_MAX);
        if source.len().is_none_or(|len| len > most) || self.core.link.only_node().is_some() {
            return;
        }
        let hash = match source {
            Source::Memory(bytes) => Some(ChunkHash::of(&bytes)),
            Source::File(file) => {
                let hash = move || Some(ChunkHash::of(&file.read_whole().ok()?));
                self.core.env.run_blocking(hash).await
            }
            Source::Pipe(..) => None,
        };
        if let Some(hash) = hash {
            let _ = self.owners_of(hash, false).await;
        }
    }

    /// Moves the content under a reservation and commits it. What too few nodes have when it is to
    /// be referred to, because some were lost or had too few beside them, goes there again.
    async fn fill(
        &self,
        begun: &Begun<'_>,
        mut source: Source<'_>,
        (window, progress): (&Window, &dyn Progress),
        resume: Option<&Arc<ResumeState>>,
        ledger: &Ledger,
    ) -> Result<PutReport> {
        let timeout = self.core.timeout;
        let mut retry: Option<Retry> = None;
        let mut sent_before = 0;
        loop {
            let again = source.again();
            let transfer = Transfer {
                begun,
                window,
                progress,
                resume,
                ledger,
                lacking: match again {
                    Some(_) => Lacking::SendAgain,
                    None => Lacking::Wait,
                },
            };
            let cause = match self.fill_once(&transfer, source).await {
                Err(error) if error.code == Code::NotStored => error,
                done => return done,
            };
            source = again.ok_or_else(|| lasted(cause.clone()).hint("put it again"))?;
            let retry = retry.get_or_insert_with(|| Retry::within(timeout));
            let sent = ledger.sent_bytes();
            if sent > std::mem::replace(&mut sent_before, sent) {
                retry.progressed(timeout);
            }
            if retry.failures >= ROUNDS_MAX {
                return Err(lasted(cause));
            }
            let paused = retry.pause(&*self.core.env.rng, cause, Pace::Usual);
            paused.await.map_err(lasted)?;
        }
    }

    /// One run of it; the reservation is kept meanwhile.
    async fn fill_once(&self, transfer: &Transfer<'_>, source: Source<'_>) -> Result<PutReport> {
        let begun = transfer.begun;
        let file = match &source {
            Source::File(file) => Some(Arc::clone(file)),
            _ => None,
        };
        if let Some(file) = &file
            && file.print.size > size_max(begun.chunk_bytes)
        {
            return Err(Error::usage("the file is too large for its chunk size"));
        }
        let manifest = tokio::select! {
            biased;
            done = transfer.run(source) => done?,
            never = begun.keep() => match never {},
        };
        if let Some(file) = file {
            let checked = self.core.env.run_blocking(move || file.check_unchanged());
            checked.await?;
        }
        let sent = begun.commit(&manifest, transfer.lacking).await?;
        let moved = Moved {
            sent_bytes: transfer.ledger.sent_bytes(),
            reused_bytes: transfer.ledger.reused_bytes(manifest.size),
        };
        report(begun.target, sent, &manifest, &moved)
    }

    /// Takes an interrupted upload up again, or begins a new one.
    async fn begin<'a>(
        &'a self,
        target: &'a Target,
        resume: Option<Resume>,
        progress: &dyn Progress,
    ) -> Result<(Begun<'a>, Option<Arc<ResumeState>>)> {
        let Some(Resume { state, found }) = resume else {
            return Ok((Begun::reserve(self, target, 0).await?, None));
        };
        let fits = found.filter(|header| {
            header.precondition == target.precondition && header.mode == target.mode
        });
        if let Some(header) = fits {
            let reservation = (header.shard, header.parent, header.upload);
            match Begun::take_up(self, target, reservation, header.chunk_bytes).await {
                Ok(begun) => {
                    progress.note(&format!("{}: continues an interrupted put", target.path));
                    return Ok((begun, Some(state)));
                }
                Err(error) if is_passing(&error) => return Err(error),
                Err(error) => tracing::debug!(%error, "an interrupted put cannot be continued"),
            }
        }
        self.begin_anew(target, Some(state), 0, progress).await
    }

    async fn begin_anew<'a>(
        &'a self,
        target: &'a Target,
        state: Option<Arc<ResumeState>>,
        given_up: u32,
        progress: &dyn Progress,
    ) -> Result<(Begun<'a>, Option<Arc<ResumeState>>)> {
        let begun = Begun::reserve(self, target, given_up).await?;
        let Some(state) = state else {
            return Ok((begun, None));
        };
        let header = Header {
            cluster: self.told(|hello| hello.cluster),
            path: target.path.clone(),
            precondition: target.precondition,
            mode: target.mode,
            shard: begun.shard,
            parent: begun.parent,
            upload: begun.upload,
            chunk_bytes: begun.chunk_bytes,
        };
        let (kept, env) = (Arc::clone(&state), &self.core.env);
        let written = env.run_blocking(move || kept.begin(&header)).await;
        let state = noted(written.map(|()| state), progress);
        Ok((begun, state))
    }

    /// After the end: what can be continued stays, everything else is cleaned up.
    async fn end(
        &self,
        begun: &Begun<'_>,
        resume: Option<Arc<ResumeState>>,
        done: &Result<PutReport>,
    ) {
        if done.as_ref().is_err_and(is_passing) {
            return;
        }
        if done.is_err() {
            begun.abort().await;
        }
        self.forget(resume).await;
    }

    /// What was begun. Where that was refused there is nothing to continue.
    async fn or_forget<T>(&self, begun: Result<T>, state: &Option<Arc<ResumeState>>) -> Result<T> {
        if begun.as_ref().is_err_and(|error| !is_passing(error)) {
            self.forget(state.clone()).await;
        }
        begun
    }

    async fn forget(&self, resume: Option<Arc<ResumeState>>) {
        if let Some(state) = resume {
            let removed = self.core.env.run_blocking(move || state.remove()).await;
            if let Err(error) = removed {
                tracing::debug!(%error, "the state of an ended upload stays");
            }
        }
    }

    /// The state file of this put, if it is worth one and there is a place for it.
    pub(super) async fn resume_of(
        &self,
        file: &Arc<LocalFile>,
        target: &Target,
        options: &PutOptions,
        progress: &dyn Progress,
    ) -> Option<Resume> {
        let hello = self.who_am_i();
        let dir = self.core.state_dir.as_ref()?.join("uploads");
        if !options.resume || file.print.size <= hello.chunk_bytes {
            return None;
        }
        let now = self.core.env.clock.wall();
        let (file, path) = (Arc::clone(file), target.path.clone());
        let opened = self.core.env.run_blocking(move || {
            let local = std::fs::canonicalize(&file.path).unwrap_or_else(|_| file.path.clone());
            let cluster = hello.cluster.to_string();
            let key = file
                .print
                .key(&local, &[&cluster, &hello.user, path.as_str()]);
            let state = ResumeState::open(&dir, &key, now)?;
            let resume = state.map(|state| Resume {
                found: state.header(),
                state: Arc::new(state),
            });
            Ok(resume)
        });
        noted(opened.await, progress).flatten()
    }
}

/// What a user sees of chunks that stayed on too few nodes.
fn lasted(error: Error) -> Error {
    Error {
        code: Code::Unavailable,
        ..error
    }
}

/// A put does not fail because it cannot be continued later.
fn noted<T>(result: Result<T>, progress: &dyn Progress) -> Option<T> {
    result
        .inspect_err(|error| progress.note(&format!("this put cannot be continued later: {error}")))
        .ok()
}
