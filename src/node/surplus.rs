//! Surplus copies: those that are here and do not belong here. Called by `repairs` at the end of a
//! pass.
//!
//! A copy goes only after every holder has confirmed its own, which keeps that for the grace time;
//! and only if nobody has used it here for that long. That is judged for each chunk by itself: other
//! chunks that are missing here say nothing about it, and a full disk gets space only so.

use super::Node;
use super::passes::Pass;
use super::repairs::Terms;
use crate::error::Result;
use crate::proto::Look;
use crate::store::chunks;
use crate::types::ChunkHash;
use std::sync::Arc;
use std::time::Duration;

/// Stored chunks looked at at once.
const PAGE: usize = 1_024;
/// A copy stays so long after its last use.
const GRACE: Duration = Duration::from_secs(60);

impl Node {
    /// Lets go of copies that belong elsewhere and are there. Some are left: they were used not
    /// long ago, or are not yet where they belong.
    pub(super) async fn drop_surplus(
        self: &Arc<Self>,
        terms: &Terms,
        pass: &mut Pass,
    ) -> Result<()> {
        let mut from = Some(ChunkHash([0; 32]));
        while let Some(start) = from {
            let view = self.views.now();
            if Terms::of(&view) != *terms {
                return Ok(());
            }
            let as_of = self.env.clock.now();
            let page = self.chunks.list(start, None, PAGE).await?;
            let last = page.last().filter(|_| page.len() >= PAGE);
            from = last.and_then(|(hash, _)| chunks::after(*hash));
            let foreign: Vec<(ChunkHash, Option<u64>)> = page
                .into_iter()
                .filter(|(hash, _)| !view.holders(hash).contains(&self.id))
                .map(|(hash, len)| (hash, Some(len)))
                .collect();
            pass.surplus += foreign.len() as u64;
            if !foreign.is_empty() {
                let dropped = self.drop_foreign(foreign, as_of, terms).await?;
                pass.surplus -= dropped;
                pass.moved += dropped;
            }
            tokio::time::sleep(self.env.clock.now().saturating_sub(as_of)).await;
        }
        self.repairs.left_over(pass.surplus);
        Ok(())
    }

    async fn drop_foreign(
        self: &Arc<Self>,
        foreign: Vec<(ChunkHash, Option<u64>)>,
        as_of: Duration,
        terms: &Terms,
    ) -> Result<u64> {
        let old: Vec<_> = foreign
            .into_iter()
            .filter(|(hash, _)| self.garbage.pins.is_old(hash, as_of, GRACE))
            .collect();
        if old.is_empty() {
            return Ok(0);
        }
        let held = match self.hold_everywhere(&old, Look::Present, None).await {
            Ok(held) => held,
            Err(error) => {
                tracing::debug!(%error, "no holder of surplus copies can be asked");
                return Ok(0);
            }
        };
        let mut dropped = 0;
        for ((hash, _), held) in old.into_iter().zip(held) {
            // Every holder has it, with the right length: see `hold_everywhere`. If the ring has
            // changed since this node was found to be none, it may have asked itself.
            let changed = Terms::of(&self.views.now()) != *terms;
            if changed || held.holders == 0 || held.copies < held.holders {
                continue;
            }
            let Some(claim) = self.garbage.pins.claim(hash, as_of, GRACE) else {
                continue;
            };
            self.chunks.remove(hash).await?;
            drop(claim);
            dropped += 1;
        }
        Ok(dropped)
    }
}
