//! The holders of chunks: who they are, and what they have. To say that a chunk is there counts as
//! its arrival (see `garbage`).

use super::Node;
use super::peers::odd;
use super::service::Caller;
use super::view::View;
use crate::error::{Error, Result};
use crate::limits::{COPIES, HAVE_HASHES_MAX};
use crate::proto::{Answer, Look, PeerAnswer, PeerCall, Ticket};
use crate::types::{Ack, ChunkHash, Epoch, Mac, NodeId};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A question about chunks.
const HOLD_TIMEOUT: Duration = Duration::from_secs(2);
/// Nodes that are tried in the place of silent ones.
pub(super) const REPLACEMENTS_MAX: usize = 3;

impl View {
    /// Who should hold a chunk now, the best first: its owners in the newest epoch, without those
    /// that are down.
    pub fn holders(&self, hash: &ChunkHash) -> Vec<NodeId> {
        let ring = self.rings.newest();
        let owners = ring.owners_without(hash, COPIES, &|node| self.is_down(node));
        let mut holders = owners.to_vec();
        if !self.online.is_empty() {
            // Whoever was not heard of for a moment is asked last.
            holders.sort_by_key(|node| !self.online.contains(node));
        }
        holders
    }

    /// Whom to ask for a chunk, the likeliest first.
    pub fn readers(&self, hash: &ChunkHash) -> Vec<NodeId> {
        let down = |node| self.is_down(node);
        self.rings.readers(hash, COPIES, &down).collect()
    }

    /// Who takes the place of holders that are silent: the next ones on the ring.
    pub fn replacements(&self, hash: &ChunkHash, silent: &[NodeId]) -> Vec<NodeId> {
        let holders = self.holders(hash);
        let ring = self.rings.newest();
        let down = |node| self.is_down(node) || silent.contains(&node);
        let owners = ring.owners_without(hash, COPIES + REPLACEMENTS_MAX, &down);
        let others = owners.iter().filter(|node| !holders.contains(node));
        others.copied().collect()
    }

    /// True if an owner of the chunk is down: it may have the only copy.
    pub fn misses_owner(&self, hash: &ChunkHash) -> bool {
        let owners = self.rings.newest().owners(hash, COPIES);
        owners.iter().any(|node| self.is_down(*node))
    }

    pub fn newest_epoch(&self) -> Epoch {
        self.rings.newest().epoch()
    }
}

/// How well a chunk is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    /// Holders that have it.
    pub copies: usize,
    /// Nodes that should.
    pub holders: usize,
    /// Holders that did not answer: they may have it.
    pub silent: usize,
}

impl Held {
    pub fn is_enough(self, ack: Ack) -> bool {
        self.copies >= ack.needed(self.holders)
    }
}

impl Node {
    /// Who should hold a chunk, as far as this node may judge it: while it does not hear of the
    /// root group, nobody counts as down for it. Else a node that was cut off would be content
    /// with fewer copies the longer it is alone.
    pub(super) fn holders(&self, view: &View, hash: &ChunkHash) -> Vec<NodeId> {
        match self.is_trusted() {
            true => view.holders(hash),
            false => view.rings.newest().owners(hash, COPIES).to_vec(),
        }
    }

    /// Which of these chunks are here, for a node that is about to have them referred to: counts
    /// as their arrival (see `garbage`).
    pub(super) async fn hold_here(
        &self,
        hashes: Vec<ChunkHash>,
        look: Look,
    ) -> Result<Vec<Option<u64>>> {
        let mut held = Vec::with_capacity(hashes.len());
        for hash in &hashes {
            held.push(self.garbage.pins.hold(*hash).await);
        }
        let mut stored = Vec::with_capacity(hashes.len());
        match look {
            Look::Known => stored = self.chunks.have_many(hashes).await?,
            Look::Present => {
                for hash in hashes {
                    stored.push(self.chunks.present(hash).await?);
                }
            }
            Look::Read => {
                for hash in hashes {
                    stored.push(self.chunks.confirm(hash).await?);
                }
            }
        }
        drop(held);
        Ok(stored)
    }

    /// On how many of their holders these chunks are durable with their lengths; they stay there
    /// for the grace time. In the order asked. With `enough` it is not waited for those that are
    /// slow to answer once as many have as that wants.
    pub(super) async fn hold_everywhere(
        self: &Arc<Self>,
        wanted: &[(ChunkHash, Option<u64>)],
        look: Look,
        enough: Option<Ack>,
    ) -> Result<Vec<Held>> {
        let view = self.views.now();
        let mut asked: BTreeMap<NodeId, Vec<usize>> = BTreeMap::new();
        let mut counts = Vec::with_capacity(wanted.len());
        for (at, (hash, _)) in wanted.iter().enumerate() {
            let holders = self.holders(&view, hash);
            counts.push(Held {
                copies: 0,
                holders: holders.len(),
                silent: 0,
            });
            for node in holders {
                asked.entry(node).or_default().push(at);
            }
        }
        let mut questions: FuturesUnordered<_> = asked
            .into_iter()
            .map(|(node, places)| async move {
                let hashes = places.iter().map(|at| wanted[*at].0).collect();
                let held = self.hold_at(node, hashes, look).await;
                (node, places, held)
            })
            .collect();
        let (mut first_error, mut lacking) = (None, Vec::new());
        while let Some((node, places, held)) = questions.next().await {
            match held {
                Ok(held) => {
                    for (at, len) in places.into_iter().zip(held) {
                        let expected = wanted[at].1;
                        let fits = len.is_some() && (expected.is_none() || len == expected);
                        counts[at].copies += usize::from(fits);
                        lacking.extend((!fits).then_some((at, node)));
                    }
                }
                Err(error) => {
                    tracing::debug!(%node, %error, "a holder could not be asked");
                    for at in places {
                        counts[at].silent += 1;
                    }
                    first_error.get_or_insert(error);
                }
            }
            if enough.is_some_and(|ack| counts.iter().all(|held| held.is_enough(ack))) {
                break;
            }
        }
        // What others have and these have not is missing there.
        let missing = lacking.into_iter().filter(|(at, _)| counts[*at].copies > 0);
        self.repairs.missed(missing.map(|(_, node)| node));
        match first_error {
            Some(error) if counts.iter().all(|held| held.silent == held.holders) => Err(error),
            _ => Ok(counts),
        }
    }

    /// True if one of the nodes that take the place of silent holders has a chunk: it was put
    /// while they were silent, and has not come to them yet.
    pub(super) async fn is_with_replacements(&self, hash: ChunkHash) -> bool {
        let others = self.views.now().replacements(&hash, &[]);
        let asked = others
            .into_iter()
            .map(|node| self.hold_at(node, vec![hash], Look::Known));
        // Who does not answer is none that a chunk should be with.
        let told = futures::future::join_all(asked).await;
        told.into_iter()
            .flatten()
            .flatten()
            .any(|len| len.is_some())
    }

    pub(super) async fn hold_at(
        &self,
        node: NodeId,
        hashes: Vec<ChunkHash>,
        look: Look,
    ) -> Result<Vec<Option<u64>>> {
        if node == self.id {
            return self.hold_here(hashes, look).await;
        }
        let count = hashes.len();
        let mut all = Vec::with_capacity(count);
        for part in hashes.chunks(HAVE_HASHES_MAX) {
            let call = PeerCall::Hold {
                hashes: part.to_vec(),
                look,
            };
            match self.peers.call(node, &call, HOLD_TIMEOUT).await? {
                PeerAnswer::Held(held) if held.len() == part.len() => all.extend(held),
                other => return Err(odd(&other)),
            }
        }
        Ok(all)
    }

    /// Which of these chunks are on as many of their holders as `ack` wants, for a user who proved
    /// that he references them. To say so counts as their arrival.
    pub(super) async fn pin(
        self: &Arc<Self>,
        caller: &Caller,
        ticket: &Ticket,
        hashes: Vec<(ChunkHash, Mac)>,
        ack: Ack,
    ) -> Result<Answer> {
        if hashes.len() > HAVE_HASHES_MAX {
            return Err(Error::usage(format!(
                "more than {HAVE_HASHES_MAX} hashes in one request"
            )));
        }
        let now = self.ticket_time();
        for (hash, mac) in &hashes {
            self.tickets
                .check_chunk(ticket, &caller.user, hash, *mac, now)?;
        }
        let hashes = hashes.into_iter().map(|(hash, _)| hash);
        self.held_enough(hashes, ack).await
    }

    /// The same for a user who was to send them for an upload. It tells no more than a commit that
    /// refers to them would.
    pub(super) async fn stored(
        self: &Arc<Self>,
        caller: &Caller,
        ticket: &Ticket,
        hashes: Vec<ChunkHash>,
        ack: Ack,
    ) -> Result<Answer> {
        self.must_be_for_writing(caller, ticket)?;
        self.held_enough(hashes, ack).await
    }

    async fn held_enough(
        self: &Arc<Self>,
        hashes: impl IntoIterator<Item = ChunkHash>,
        ack: Ack,
    ) -> Result<Answer> {
        let wanted: Vec<_> = hashes.into_iter().map(|hash| (hash, None)).collect();
        let held = self.hold_everywhere(&wanted, Look::Read, Some(ack)).await?;
        let enough = held.into_iter().map(|held| held.is_enough(ack));
        Ok(Answer::Pinned(enough.collect()))
    }
}
