//! Scrubbing: every stored chunk and every record is verified from time to time, slowly, so that
//! damage is found while there are other copies. A damaged chunk is out of use at once and fetched
//! again; a replica with damaged records is replaced (`verify`).
//!
//! A restart loses nothing of it: how far a run is, and for how long the node has run since the last
//! one, is noted in the data directory.

use super::Node;
use crate::error::{Code, Result};
use crate::limits::MIB;
use crate::proto::ScrubView;
use crate::store::chunks;
use crate::store::scrubbed::{self, Scrubbed};
use crate::types::ChunkHash;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// From the end of one run to the begin of the next; only time in which the node runs counts.
const EVERY: Duration = Duration::from_secs(30 * 24 * 3_600);
/// How often it is looked whether one is due.
const LOOK: Duration = Duration::from_secs(60);
/// How often it is noted how far it is: a restart takes back no more.
const NOTED_EVERY: Duration = Duration::from_secs(600);
/// A run that broke off goes on after this time.
const GOES_ON_AFTER: Duration = Duration::from_secs(600);
/// Bytes a second that are read for it by itself; one that was asked for takes as much as it gets,
/// with a pause as long as each piece of work.
const BYTES_A_SECOND: u64 = 8 * MIB;
/// Chunks listed at once.
const PAGE: usize = 1_024;

#[derive(Clone, Copy, Default)]
struct Progress {
    verified: u64,
    damaged: u64,
    running: bool,
    hurried: bool,
}

/// The scrub of one node.
#[derive(Default)]
pub struct Scrub {
    progress: Mutex<Progress>,
    wake: Notify,
}

/// How far it is, and when that was noted.
struct Noted {
    now: Scrubbed,
    /// Running time is counted up to here.
    counted: Duration,
    /// When it was written.
    written: Duration,
}

impl Noted {
    async fn open(node: &Node) -> Noted {
        let noted = scrubbed::read(&*node.env.disk, &node.data).await;
        let now = noted.unwrap_or_else(|error| {
            tracing::warn!(%error, "how far scrubbing was cannot be read; it begins anew");
            Scrubbed::default()
        });
        let time = node.env.clock.now();
        Noted {
            now,
            counted: time,
            written: time,
        }
    }

    /// Counts the time, and writes it down now and then.
    async fn count(&mut self, node: &Node) {
        let time = node.env.clock.now();
        let ran = time.saturating_sub(self.counted).as_millis();
        let ran = u64::try_from(ran).unwrap_or(u64::MAX);
        self.now.since_ms = self.now.since_ms.saturating_add(ran);
        self.counted = time;
        if time.saturating_sub(self.written) >= NOTED_EVERY {
            self.write(node).await;
        }
    }

    async fn write(&mut self, node: &Node) {
        self.written = node.env.clock.now();
        if let Err(error) = scrubbed::write(&*node.env.disk, &node.data, self.now).await {
            tracing::warn!(%error, "how far scrubbing is could not be noted");
        }
    }

    fn is_due(&self) -> bool {
        self.now.at.is_some() || Duration::from_millis(self.now.since_ms) >= EVERY
    }
}

/// Scrubs until the process ends. On a new directory the first run by itself begins after a whole
/// interval.
pub(super) async fn run(node: Arc<Node>) {
    let scrub = &node.scrub;
    let mut noted = Noted::open(&node).await;
    let mut not_before = Duration::ZERO;
    loop {
        let _ = tokio::time::timeout(LOOK, scrub.wake.notified()).await;
        noted.count(&node).await;
        let hurried = scrub.progress.lock().hurried;
        if !hurried && (node.env.clock.now() < not_before || !noted.is_due()) {
            continue;
        }
        if hurried {
            // All of it was asked for.
            noted.now.at = None;
        }
        {
            let mut progress = scrub.progress.lock();
            progress.running = true;
            if noted.now.at.is_none() {
                (progress.verified, progress.damaged) = (0, 0);
            }
        }
        match node.scrub_all(&mut noted).await {
            Ok(()) => {
                noted.now = Scrubbed::default();
                noted.write(&node).await;
            }
            Err(error) => {
                tracing::warn!(%error, "scrubbing broke off; it goes on later");
                not_before = node.env.clock.now() + GOES_ON_AFTER;
            }
        }
        let mut progress = scrub.progress.lock();
        progress.running = false;
        progress.hurried = false;
        tracing::info!(
            verified = progress.verified,
            damaged = progress.damaged,
            "scrubbed"
        );
    }
}

impl Node {
    /// How far scrubbing is here; with `now` it begins at once.
    pub(super) fn scrub(&self, now: bool) -> ScrubView {
        let mut progress = self.scrub.progress.lock();
        if now && !progress.hurried {
            progress.hurried = true;
            progress.running = true;
            self.scrub.wake.notify_one();
        }
        ScrubView {
            node: self.id,
            verified: progress.verified,
            chunks: self.chunks.totals().0,
            damaged: progress.damaged,
            running: progress.running,
        }
    }

    async fn scrub_all(self: &Arc<Self>, noted: &mut Noted) -> Result<()> {
        let mut from = Some(noted.now.at.unwrap_or(ChunkHash([0; 32])));
        while let Some(start) = from {
            let page = self.chunks.list(start, None, PAGE).await?;
            let last = page.last().filter(|_| page.len() >= PAGE);
            from = last.and_then(|(hash, _)| chunks::after(*hash));
            for (hash, len) in page {
                noted.now.at = Some(hash);
                noted.count(self).await;
                self.scrub_one(hash, len).await?;
            }
        }
        self.scrub_records().await
    }

    async fn scrub_one(self: &Arc<Self>, hash: ChunkHash, len: u64) -> Result<()> {
        let began = self.env.clock.now();
        let verified = self.chunks.verify(hash).await;
        let hurried = {
            let mut progress = self.scrub.progress.lock();
            progress.verified += 1;
            match verified {
                Ok(_) => {}
                // Removed since it was listed.
                Err(error) if error.code == Code::NotFound => {}
                Err(error) if error.code == Code::Corrupt => {
                    progress.damaged += 1;
                    tracing::error!(chunk = %hash, %error, "scrubbing found damage");
                    self.repairs.urgent(hash);
                }
                Err(error) => return Err(error),
            }
            progress.hurried
        };
        let took = self.env.clock.now().saturating_sub(began);
        let pause = match hurried {
            true => took,
            false => Duration::from_micros(len.saturating_mul(1_000_000) / BYTES_A_SECOND),
        };
        tokio::time::sleep(pause).await;
        Ok(())
    }
}
