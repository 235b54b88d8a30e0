//! Scrubbing: every stored chunk and every record is verified from time to time, slowly, so that
//! damage is found while there are other copies. A damaged chunk is out of use at once and fetched
//! again; a replica with damaged records is replaced (`verify`).

use super::Node;
use crate::error::{Code, Result};
use crate::limits::MIB;
use crate::proto::ScrubView;
use crate::store::chunks;
use crate::types::ChunkHash;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// From the end of one run to the begin of the next.
const EVERY: Duration = Duration::from_secs(30 * 24 * 3_600);
/// How often it is looked whether one is due.
const LOOK: Duration = Duration::from_secs(60);
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
    ended: Option<Duration>,
}

/// The scrub of one node.
#[derive(Default)]
pub struct Scrub {
    progress: Mutex<Progress>,
    wake: Notify,
}

/// Scrubs until the process ends. The first run by itself begins a whole interval after the start.
pub(super) async fn run(node: Arc<Node>) {
    let scrub = &node.scrub;
    scrub.progress.lock().ended = Some(node.env.clock.now());
    loop {
        let _ = tokio::time::timeout(LOOK, scrub.wake.notified()).await;
        let now = node.env.clock.now();
        let due = {
            let progress = scrub.progress.lock();
            let age = progress.ended.map_or(EVERY, |at| now.saturating_sub(at));
            progress.hurried || age >= EVERY
        };
        if !due {
            continue;
        }
        {
            let mut progress = scrub.progress.lock();
            (progress.running, progress.verified, progress.damaged) = (true, 0, 0);
        }
        if let Err(error) = node.scrub_all().await {
            tracing::warn!(%error, "scrubbing broke off; it begins anew later");
        }
        let mut progress = scrub.progress.lock();
        progress.running = false;
        progress.hurried = false;
        progress.ended = Some(node.env.clock.now());
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

    async fn scrub_all(self: &Arc<Self>) -> Result<()> {
        let mut from = Some(ChunkHash([0; 32]));
        while let Some(start) = from {
            let page = self.chunks.list(start, None, PAGE).await?;
            let last = page.last().filter(|_| page.len() >= PAGE);
            from = last.and_then(|(hash, _)| chunks::after(*hash));
            for (hash, len) in page {
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
