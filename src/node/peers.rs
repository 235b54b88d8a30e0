//! The other nodes: one connection to each, made when it is needed, and calls over it. Used by
//! everything on a node that speaks to another; knows no call's meaning but the first.
//!
//! A connection begins with `Meet`: both ends tell which life of their node they are, and the
//! newest of the other that they have heard of. A node that hears of a newer life of itself is an
//! old copy of its data directory, or one of two: it stops ([`Peers::on_overtaken`]).
//!
//! Where nodes are is in the view of the cluster. Several that have moved at once cannot elect the
//! root group's leader, who would say where they are now. So a node tells whomever it meets where it
//! is, and while nothing is heard of the root group it is looked for there as well.

use crate::codec;
use crate::config;
use crate::env::Env;
use crate::error::{Code, Error, Result};
use crate::net::{ALPN_NODE, ClientTls, Connection, Endpoint, Peer, Stream};
use crate::proto::{Life, NodeAddress, PeerAnswer, PeerCall, REMOVED};
use crate::types::NodeId;
use futures::future::select_ok;
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::Notify;

/// From the first packet to the answer of `Meet`.
const DIAL_TIMEOUT: Duration = Duration::from_secs(2);
/// After a failed attempt nobody tries again for so long: messages to a dead node fail at once.
const DIAL_PAUSE: Duration = Duration::from_millis(100);

/// Of an address that a node tells: a name in the DNS has 253 at most.
const ADDRESS_BYTES_MAX: usize = 300;

/// What happens when a newer life of this node is heard of.
pub type OnOvertaken = Arc<dyn Fn(&Error) + Send + Sync>;

/// All other nodes, as this one reaches them.
pub struct Peers {
    env: Env,
    me: NodeId,
    life: Life,
    /// Where others reach this node.
    address: String,
    endpoint: OnceLock<Endpoint>,
    tls: RwLock<ClientTls>,
    addresses: RwLock<BTreeMap<NodeId, String>>,
    /// Where nodes said that they are, and which lives of them.
    told: Mutex<BTreeMap<NodeId, (Life, String)>>,
    /// Nothing is heard of the root group.
    lost: AtomicBool,
    lines: Mutex<BTreeMap<NodeId, Arc<Line>>>,
    /// The newest registered life of each node.
    lives: Mutex<BTreeMap<NodeId, Life>>,
    on_overtaken: OnOvertaken,
}

/// The way to one node.
#[derive(Default)]
struct Line {
    connection: Mutex<Option<Connection>>,
    /// Held by the one who dials.
    dialling: tokio::sync::Mutex<Option<Failed>>,
    /// Told when the node itself has connected.
    there: Notify,
}

/// The last attempt, if it failed.
struct Failed {
    at: Duration,
    error: Error,
}

impl Peers {
    pub fn new(
        env: Env,
        me: NodeId,
        life: Life,
        address: String,
        tls: ClientTls,
        on_overtaken: OnOvertaken,
    ) -> Arc<Peers> {
        Arc::new(Peers {
            env,
            me,
            life,
            address,
            endpoint: OnceLock::new(),
            tls: RwLock::new(tls),
            addresses: RwLock::default(),
            told: Mutex::default(),
            lost: AtomicBool::new(false),
            lines: Mutex::default(),
            lives: Mutex::default(),
            on_overtaken,
        })
    }

    /// From here on nodes can be reached.
    pub fn set_endpoint(&self, endpoint: Endpoint) {
        // Set once, at the start.
        let _ = self.endpoint.set(endpoint);
    }

    /// Connections made from here on show another certificate.
    pub fn set_tls(&self, tls: ClientTls) {
        *self.tls.write() = tls;
    }

    pub fn life(&self) -> Life {
        self.life
    }

    /// Takes the addresses of the newest view; connections to nodes that are not in it end.
    pub fn set_addresses(&self, nodes: &[NodeAddress]) {
        let new: BTreeMap<NodeId, String> = nodes
            .iter()
            .map(|node| (node.node, node.address.clone()))
            .collect();
        let old = std::mem::replace(&mut *self.addresses.write(), new.clone());
        let mut lines = self.lines.lock();
        for (node, address) in old {
            if new.get(&node) != Some(&address)
                && let Some(line) = lines.remove(&node)
                && let Some(connection) = line.connection.lock().take()
            {
                connection.close();
            }
        }
    }

    /// Where nodes are, as far as it is known.
    pub fn addresses(&self) -> Vec<NodeAddress> {
        let known = self.addresses.read();
        let told = known.iter().map(|(node, address)| NodeAddress {
            node: *node,
            address: address.clone(),
        });
        told.collect()
    }

    /// Whether the root group is silent. Only then nodes are looked for where they say that they are:
    /// it may be a copy that the root group would refuse.
    pub fn set_lost(&self, lost: bool) {
        self.lost.store(lost, Ordering::Relaxed);
    }

    /// A node has connected to this one and says which life of it that is, and where it is reached.
    /// The other end learns of its newest life even where this one is refused.
    pub fn met_by(&self, node: NodeId, life: Life, address: &str) -> PeerAnswer {
        match self.meet(node, life) {
            Ok(()) => self.note_told(node, life, address),
            Err(error) => {
                tracing::warn!(%node, %error, "an overtaken life of a node was here");
            }
        }
        self.is_there(node);
        PeerAnswer::Met {
            life: self.life,
            yours: self.newest_life(node),
        }
    }

    /// Of two lives with one number the first that was here counts until one is registered.
    fn note_told(&self, node: NodeId, life: Life, address: &str) {
        // One that is in no view may have been removed.
        let is_known = self.addresses.read().contains_key(&node);
        if !is_known || address.len() > ADDRESS_BYTES_MAX || config::address(address).is_err() {
            return;
        }
        let registered = self.newest_life(node);
        let mut told = self.told.lock();
        let newer = told.get(&node).is_none_or(|(known, _)| {
            *known == life || known.start < life.start || registered == life
        });
        if newer {
            told.insert(node, (life, address.to_owned()));
        }
    }

    /// Where a node may be besides where the view says.
    fn elsewhere(&self, node: NodeId, known: &str) -> Option<String> {
        if !self.lost.load(Ordering::Relaxed) {
            return None;
        }
        let told = self.told.lock();
        let (_, address) = told.get(&node)?;
        (address != known).then(|| address.clone())
    }

    /// Looks who is at an address that an operator has named, and notes it.
    ///
    /// # Errors
    /// `unavailable` when no node of this cluster answers there.
    pub async fn look_at(&self, address: &str) -> Result<NodeId> {
        let connection = self.connect(address).await?;
        let Peer::Node { id, .. } = connection.peer() else {
            return Err(Error::unavailable(format!("no node is at {address}")));
        };
        let life = self.introduce(id, &connection).await;
        connection.close();
        self.note_told(id, life?, address);
        Ok(id)
    }

    /// Judges what a peer says of itself. A later life than the one that is registered is believed,
    /// and not kept: only the root group decides which of two with one number it is.
    ///
    /// # Errors
    /// `denied` for a life that was overtaken by another.
    fn meet(&self, node: NodeId, life: Life) -> Result<()> {
        let known = self.newest_life(node);
        match life == known || life.start > known.start {
            true => Ok(()),
            false => Err(overtaken(node, life, known)),
        }
    }

    /// The root group has registered this life of a node.
    pub fn registered(&self, node: NodeId, life: Life) {
        let mut lives = self.lives.lock();
        let known = lives.entry(node).or_default();
        if known.start <= life.start {
            *known = life;
        }
    }

    pub fn newest_life(&self, node: NodeId) -> Life {
        self.lives.lock().get(&node).copied().unwrap_or_default()
    }

    /// A node has connected to this one: it can be reached now, also where it was dialled in vain
    /// just before.
    fn is_there(&self, node: NodeId) {
        self.line(node).there.notify_waiters();
    }

    /// What others say of this node's own lives.
    pub fn judge_own(&self, heard: Life) {
        let newer = heard.start > self.life.start
            || (heard.start == self.life.start && heard.nonce != self.life.nonce);
        if newer && heard.start > 0 {
            (self.on_overtaken)(&overtaken(self.me, self.life, heard));
        }
    }

    /// One question, one answer.
    ///
    /// # Errors
    /// What the other node answered; `unavailable` when it cannot be reached or stays silent,
    /// with `may_have_happened` when the question may have reached it.
    pub async fn call(
        &self,
        node: NodeId,
        call: &PeerCall,
        timeout: Duration,
    ) -> Result<PeerAnswer> {
        let asked = async {
            let connection = self.connection(node).await?;
            let answer = connection.call(&codec::encode(call), timeout).await;
            if answer
                .as_ref()
                .is_err_and(|error| error.code == Code::Unavailable && connection.is_closed())
            {
                self.forget(node, &connection);
            }
            codec::decode::<PeerAnswer>(&answer?).map_err(Error::unknown_outcome)
        };
        match tokio::time::timeout(timeout, asked).await {
            Ok(Ok(PeerAnswer::Failed(error))) => Err(error),
            Ok(answer) => answer,
            Err(_) => Err(Error::unavailable(format!(
                "node {node} did not answer within {timeout:?}"
            ))
            .unknown_outcome()),
        }
    }

    /// A stream for bulk.
    pub async fn open(&self, node: NodeId) -> Result<Stream> {
        self.connection(node).await?.open().await
    }

    fn line(&self, node: NodeId) -> Arc<Line> {
        self.lines.lock().entry(node).or_default().clone()
    }

    fn forget(&self, node: NodeId, connection: &Connection) {
        let line = self.line(node);
        let mut held = line.connection.lock();
        if held
            .as_ref()
            .is_some_and(|held| held.is_closed() || std::ptr::eq(held, connection))
        {
            *held = None;
        }
    }

    async fn connection(&self, node: NodeId) -> Result<Connection> {
        let line = self.line(node);
        let open = || {
            let held = line.connection.lock();
            held.clone().filter(|held| !held.is_closed())
        };
        if let Some(connection) = open() {
            return Ok(connection);
        }
        let mut last = line.dialling.lock().await;
        if let Some(connection) = open() {
            return Ok(connection);
        }
        let now = self.env.clock.now();
        if let Some(failed) = &*last
            && now.saturating_sub(failed.at) < DIAL_PAUSE
        {
            return Err(failed.error.clone());
        }
        match self.dial_twice(node, &line).await {
            Ok(connection) => {
                *last = None;
                *line.connection.lock() = Some(connection.clone());
                Ok(connection)
            }
            Err(error) => {
                *last = Some(Failed {
                    at: self.env.clock.now(),
                    error: error.clone(),
                });
                Err(error)
            }
        }
    }

    /// Dials, and once more from the beginning if the node itself connects meanwhile: what was sent
    /// while it was down is not sent again before a second has passed. Not more often than once:
    /// two that dial each other would stop each other for ever.
    async fn dial_twice(&self, node: NodeId, line: &Line) -> Result<Connection> {
        tokio::select! {
            biased;
            dialled = self.dial(node) => dialled,
            () = line.there.notified() => self.dial(node).await,
        }
    }

    async fn dial(&self, node: NodeId) -> Result<Connection> {
        let address = self.addresses.read().get(&node).cloned();
        let address = address
            .ok_or_else(|| Error::unavailable(format!("the address of node {node} is unknown")))?;
        let Some(elsewhere) = self.elsewhere(node, &address) else {
            return self.dial_at(node, &address).await;
        };
        let both = [&address, &elsewhere].map(|at| Box::pin(self.dial_at(node, at)));
        let (connection, _) = select_ok(both).await?;
        Ok(connection)
    }

    async fn dial_at(&self, node: NodeId, address: &str) -> Result<Connection> {
        let connection = self.connect(address).await?;
        match connection.peer() {
            Peer::Node { id, .. } if id == node => {}
            other => {
                connection.close();
                return Err(Error::unavailable(format!(
                    "at {address} is not node {node} ({other:?})"
                ))
                .hint("two nodes may have been given one address"));
            }
        }
        self.introduce(node, &connection).await?;
        Ok(connection)
    }

    /// A connection to whoever is at an address.
    pub async fn connect(&self, address: &str) -> Result<Connection> {
        let to = resolve(&self.env, address).await?;
        let endpoint = self
            .endpoint
            .get()
            .ok_or_else(|| Error::unavailable("this node is just starting"))?;
        let tls = self.tls.read().clone();
        let connected = endpoint.connect(to, ALPN_NODE, &tls, DIAL_TIMEOUT).await;
        connected.map_err(|error| match error.code {
            // A clock that is wrong on either side makes certificates invalid: that passes. That
            // this node was removed does not.
            Code::Denied if !error.message.contains(REMOVED) => Error {
                code: Code::Unavailable,
                ..error
            },
            Code::Denied => {
                error.hint("to use the machine again, join with an empty directory and a new token")
            }
            _ => error,
        })
    }

    /// What this node says to others of an error that it got from other nodes. That they refuse it,
    /// since it was removed, concerns nobody who asks it something: another node is to be asked. A
    /// removed node lives on for a few heartbeats.
    pub fn told(&self, error: Error) -> Error {
        let own = format!("node {} {REMOVED}", self.me);
        match error.code {
            Code::Denied if error.message.contains(&own) => Error {
                code: Code::Unavailable,
                hint: None,
                ..error
            }
            .hint("ask another node"),
            _ => error,
        }
    }

    async fn introduce(&self, node: NodeId, connection: &Connection) -> Result<Life> {
        let meet = codec::encode(&PeerCall::Meet {
            life: self.life,
            address: self.address.clone(),
        });
        let answer = connection.call(&meet, DIAL_TIMEOUT).await?;
        match codec::decode(&answer)? {
            PeerAnswer::Met { life, yours } => {
                self.judge_own(yours);
                self.meet(node, life)?;
                Ok(life)
            }
            PeerAnswer::Failed(error) => Err(error),
            other => Err(odd(&other)),
        }
    }
}

/// An answer to another question.
pub fn odd(answer: &PeerAnswer) -> Error {
    let text = format!("{answer:?}");
    let kind: String = text.chars().take_while(|c| c.is_alphanumeric()).collect();
    Error::failed(format!("the node answered another question ({kind})"))
}

fn overtaken(node: NodeId, life: Life, newest: Life) -> Error {
    let why = match life.start == newest.start {
        true => format!(
            "node {node} runs from another copy of its data directory as well (both were started \
             {} times)",
            life.start
        ),
        false => format!(
            "node {node} was started {} times, this start is number {}: its data directory is an \
             old copy",
            newest.start, life.start
        ),
    };
    Error::new(Code::Denied, why).hint("use the newest copy, or an empty directory and join again")
}

/// The first address that a `HOST:PORT` stands for.
pub async fn resolve(env: &Env, address: &str) -> Result<SocketAddr> {
    if let Ok(found) = address.parse() {
        return Ok(found);
    }
    let name = address.to_owned();
    env.run_blocking(move || {
        let found = name.to_socket_addrs();
        let mut found: Vec<SocketAddr> = found
            .map_err(|e| Error::unavailable(format!("the name was not found ({e})")).at(&name))?
            .collect();
        found.sort_by_key(SocketAddr::is_ipv6);
        found
            .first()
            .copied()
            .ok_or_else(|| Error::unavailable("the name has no addresses").at(&name))
    })
    .await
}
