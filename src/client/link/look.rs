//! Who leads now: asked of other nodes while one is silent. See `mod.rs`.

use super::Link;
use super::dial::{hello_frame, read_hello};
use super::live::Live;
use crate::error::Result;
use crate::types::{GroupId, NodeId};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use std::time::Duration;

/// A request that was not answered for this long makes us ask others: three heartbeats and more,
/// many times a round trip and a flush.
const SUSPECT_AFTER: Duration = Duration::from_millis(250);
/// Between two looks: while a new leader is expected, and later.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const LOOK_LATER_EVERY: Duration = Duration::from_millis(500);
/// A new leader is there by then if there are enough nodes for one.
const ELECTED_WITHIN: Duration = Duration::from_secs(2);
/// The next node is asked if the one before has not answered for this long.
const LOOK_STAGGER: Duration = Duration::from_millis(100);
/// Nodes asked in one look.
const LOOK_NODES_MAX: usize = 5;
/// A living node answers a greeting sooner.
const HELLO_WITHIN: Duration = Duration::from_millis(500);
/// How often it is looked whether anything came from a node.
const CHECK_EVERY: Duration = Duration::from_millis(250);
/// A node that works at something long is asked at least so often whether it lives.
const PATIENCE_MAX: Duration = Duration::from_secs(8);

impl Link {
    /// Asks a node for the routes of now. Who comes while it is being asked shares the next
    /// answer, not this one, which may be older than what made him ask.
    ///
    /// # Errors
    /// It does not answer in time; shared too.
    pub(crate) async fn news(&self, live: &Live, within: Duration) -> Result<()> {
        let wanted = self.env.clock.now();
        let mut last = live.news.lock().await;
        if let Some((asked, result)) = &*last
            && *asked >= wanted
        {
            return result.clone();
        }
        let asked = self.env.clock.now();
        let result = self.ask_news(live, within).await;
        *last = Some((asked, result.clone()));
        result
    }

    async fn ask_news(&self, live: &Live, within: Duration) -> Result<()> {
        let frame = hello_frame();
        let asked = tokio::time::timeout(within, live.call(&frame, within)).await;
        let reply = asked.map_err(|_| live.silence())??;
        let hello = read_hello(&reply)?;
        self.learn(&hello, live.address);
        self.save(&hello.nodes).await;
        Ok(())
    }

    /// What a node says that has just sent us away.
    pub(crate) async fn sent_away(&self, node: NodeId, shard: Option<GroupId>) {
        let live = {
            let mut state = self.state.lock();
            if let Some(shard) = shard {
                state.routes.not_leader(shard, node);
            }
            state.peers.live_of(node)
        };
        if let Some(live) = live
            && let Err(error) = self.news(&live, HELLO_WITHIN).await
        {
            tracing::debug!(%error, "a node that sent us away does not say where to");
        }
        let Some(shard) = shard else {
            return;
        };
        if self.routes(|routes| routes.leader_of(shard)) == Some(node) {
            // It says that it leads, and does not: it was stopped for a while perhaps.
            self.routes(|routes| routes.not_leader(shard, node));
            self.look(Some(node)).await;
        }
        self.confirm(shard, Some(node)).await;
    }

    /// Asks around for the routes, once for all who want to know at this time. `but`: this one
    /// is not asked.
    pub(crate) async fn look(&self, but: Option<NodeId>) {
        let mut last = self.looking.lock().await;
        let now = self.env.clock.now();
        if let Some((whom, at)) = *last
            && whom == but
            && now.saturating_sub(at) < LOOK_EVERY
        {
            return;
        }
        self.ask_around(but).await;
        *last = Some((but, self.env.clock.now()));
    }

    async fn ask_around(&self, but: Option<NodeId>) {
        let now = self.env.clock.now();
        let others = self.state.lock().peers.others(but, now);
        let mut asked: FuturesUnordered<_> = others
            .into_iter()
            .take(LOOK_NODES_MAX)
            .zip(0u32..)
            .map(|(node, place)| async move {
                tokio::time::sleep(LOOK_STAGGER * place).await;
                let live = self.node(node, HELLO_WITHIN).await?;
                self.news(&live, HELLO_WITHIN).await
            })
            .collect();
        while let Some(answer) = asked.next().await {
            match answer {
                Ok(()) => return,
                Err(error) => tracing::debug!(%error, "a node does not say who leads"),
            }
        }
    }

    /// Hears from the node itself that is said to lead a shard, unless it has said so already or
    /// it is `but`.
    pub(crate) async fn confirm(&self, shard: GroupId, but: Option<NodeId>) {
        let Some(said) = self.routes(|routes| routes.said_to_lead(shard)) else {
            return;
        };
        if Some(said) == but {
            return;
        }
        let heard = async {
            let live = self.node(said, HELLO_WITHIN).await?;
            match self.routes(|routes| routes.own_word(shard)) == Some(said) {
                true => Ok(()),
                false => self.news(&live, HELLO_WITHIN).await,
            }
        };
        if let Err(error) = heard.await {
            tracing::debug!(%error, %shard, "a leader that we were told of does not answer");
        }
    }

    /// Ends when another node than this one says that it leads the shard: a request that waits
    /// for this one waits in vain. Never ends otherwise.
    pub(crate) async fn moved_from(&self, shard: GroupId, node: NodeId) {
        let began = self.env.clock.now();
        let another = || {
            let own = self.routes(|routes| routes.own_word(shard));
            own.is_some_and(|leader| leader != node)
        };
        tokio::time::sleep(SUSPECT_AFTER).await;
        loop {
            if !another() && self.state.lock().peers.has_others(node) {
                self.look(Some(node)).await;
                self.confirm(shard, Some(node)).await;
            }
            if another() {
                return;
            }
            let waited = self.env.clock.now().saturating_sub(began);
            let pause = match waited < ELECTED_WITHIN {
                true => LOOK_EVERY,
                false => LOOK_LATER_EVERY,
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Ends when nothing at all came from the node for about `patience`, not even the answer to a
    /// greeting, and there are others. One that works at something long or takes much over a
    /// slow line is not silent.
    pub(crate) async fn fell_silent(&self, live: &Live, patience: Duration) {
        let mut patience = patience;
        let mut came = live.received();
        let mut since = self.env.clock.now();
        loop {
            tokio::time::sleep(CHECK_EVERY).await;
            let now = self.env.clock.now();
            if live.received() != came || !self.state.lock().peers.has_others(live.node) {
                (came, since) = (live.received(), now);
                continue;
            }
            if now.saturating_sub(since) + HELLO_WITHIN < patience {
                continue;
            }
            if self.news(live, HELLO_WITHIN).await.is_err() && live.received() == came {
                return;
            }
            (came, since) = (live.received(), self.env.clock.now());
            patience = (patience * 2).min(PATIENCE_MAX);
        }
    }

    /// Routes and shard times of now, by the shard's leader if it can be asked.
    ///
    /// # Errors
    /// No node answers.
    pub(crate) async fn refresh(&self, shard: GroupId, timeout: Duration) -> Result<()> {
        let leader = self.leader_in_reach(shard);
        if let Some(node) = leader {
            let asked = async {
                let live = self.node(node, HELLO_WITHIN).await?;
                self.news(&live, HELLO_WITHIN).await
            };
            if asked.await.is_ok() {
                return Ok(());
            }
        }
        let live = self.any(leader, timeout).await?;
        self.news(&live, timeout).await
    }
}
