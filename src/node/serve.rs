//! Starts a node and runs it until it is told to stop.

use super::advertise::advertised;
use super::core::{OnEnd, Who};
use super::identity::Identity as NodeIdentity;
use super::open::{Opened, open};
use super::service::Calls;
use super::{Node, workers};
use crate::cluster::DirLock;
use crate::config::ServerSettings;
use crate::env::Env;
use crate::error::{Code, Error, Result};
use crate::net::{Endpoint, Gate, Incoming, Peer, Refusal, ServerParts, ServerTls, Service};
use crate::proto::{NodeInfo, NodeState, REMOVED};
use crate::root::RootCommand;
use crate::store::starts;
use crate::types::{ClusterId, NodeId};
use futures::future::BoxFuture;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::runtime::{Handle, Runtime};

/// How long running requests get when the node stops.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// How long another replica may take to take the lead over.
const HAND_OVER_MAX: Duration = Duration::from_secs(2);
/// Between attempts to tell the root group of a start.
const REGISTER_PAUSE: Duration = Duration::from_millis(100);
/// How often an operator who waits is told why.
const REGISTER_TOLD_EVERY: Duration = Duration::from_secs(5);

/// What is printed once the node serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    pub node: NodeId,
    pub listen: SocketAddr,
    pub cluster: ClusterId,
}

/// A running node.
pub struct Server {
    node: Arc<Node>,
    endpoint: Endpoint,
    _lock: DirLock,
}

/// Runs a node until `stop` is done: `ready` is called once it serves. Raft and the log get a
/// runtime of their own. A node that is told to stop while it starts has nothing in flight to
/// finish, and may wait for others for long.
///
/// # Errors
/// What is wrong with the data directory, the address, or the state in it; nothing was served
/// then. Or what went wrong while stopping.
pub async fn serve(
    env: Env,
    settings: ServerSettings,
    ready: impl FnOnce(&Ready),
    stop: impl Future<Output = ()>,
) -> Result<()> {
    let raft = RaftRuntime::new()?;
    let raft_env = crate::env::real::env(raft.handle.clone());
    tokio::pin!(stop);
    let server = tokio::select! {
        started = Server::start(env, raft_env, &raft.handle, &settings, raft.on_end()) => started?,
        () = &mut stop => return Ok(()),
    };
    ready(&server.ready());
    stop.await;
    server.stop().await
}

/// The threads of Raft and the log.
struct RaftRuntime {
    handle: Handle,
    /// Taken when this is dropped.
    runtime: Option<Runtime>,
    /// Set before the groups end with it.
    ended: Arc<AtomicBool>,
}

impl RaftRuntime {
    fn new() -> Result<RaftRuntime> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("raft")
            .enable_all()
            .build()
            .map_err(|e| Error::failed(format!("cannot start threads ({e})")))?;
        Ok(RaftRuntime {
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
            ended: Arc::default(),
        })
    }

    /// Ends the process, unless the node has ended already: then that has its own cause.
    fn on_end(&self) -> OnEnd {
        let ended = self.ended.clone();
        Arc::new(move |error| {
            if !ended.load(Ordering::SeqCst) {
                end_process(error);
            }
        })
    }
}

impl Drop for RaftRuntime {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Server {
    /// Opens the data directory, starts the groups and serves. `env` is where calls are served,
    /// `raft_env` the runtime that belongs to Raft and the log alone; `on_end` gets what must end
    /// the process.
    pub async fn start(
        env: Env,
        raft_env: Env,
        raft_runtime: &Handle,
        settings: &ServerSettings,
        on_end: OnEnd,
    ) -> Result<Server> {
        start(env, raft_env, raft_runtime, settings, on_end).await
    }
}

async fn start(
    env: Env,
    raft_env: Env,
    raft_runtime: &Handle,
    settings: &ServerSettings,
    on_end: OnEnd,
) -> Result<Server> {
    let opened = open(&env, &raft_env, settings).await?;
    let Opened {
        files,
        core,
        weight,
        nodes,
        lock,
    } = opened;
    let tls = ServerTls::new(&files.credentials)?;
    let late = Arc::new(Late::default());
    let parts = ServerParts::new(tls, late.clone()).gate(late.clone());
    let endpoint = Endpoint::bind(&env, settings.listen, Some(parts)).await?;
    let listen = endpoint.local_addr();
    let address = advertised(&env, settings, listen, files.meta.node, &nodes).await?;
    let who = Who {
        id: files.meta.node,
        cluster: files.meta.cluster,
        address,
        // What the operator says now counts.
        zone: said(&settings.zone, &files.meta.zone),
        rack: said(&settings.rack, &files.meta.rack),
        weight,
        data: settings.data.clone(),
        identity: NodeIdentity::in_files(files, settings.data.clone()),
        nodes,
        named: settings.join.clone(),
        offline_after: settings.offline_after,
        lease_reads: settings.lease_reads,
        on_end,
    };
    let node = core.into_node(&env, raft_env, raft_runtime, who).await?;
    node.peers.set_endpoint(endpoint.clone());
    // Set once, here.
    let _ = node.endpoint.set(endpoint.clone());
    late.set(node.clone());
    workers::start(&node);
    node.register().await?;
    if settings.capacity.is_some() {
        node.tell_of_another_weight();
    }
    if let Err(error) = node.keep_admin(true) {
        // A full disk, say: the node serves all the same, so that it can be deleted from.
        tracing::warn!(%error, "the administrator's identity could not be kept");
    }
    Ok(Server {
        node,
        endpoint,
        _lock: lock,
    })
}

fn said(now: &str, before: &str) -> String {
    match now.is_empty() {
        true => before.to_owned(),
        false => now.to_owned(),
    }
}

/// What must not go on ends here.
fn end_process(error: &Error) {
    tracing::error!(%error, "the node stops");
    eprintln!("dfs: {error}");
    std::process::exit(i32::from(error.code.exit_status()));
}

impl Server {
    pub fn ready(&self) -> Ready {
        Ready {
            node: self.node.id,
            listen: self.endpoint.local_addr(),
            cluster: self.node.cluster,
        }
    }

    /// Hands leadership over, finishes what is in flight, folds, and stops.
    pub async fn stop(self) -> Result<()> {
        self.node.stopping.store(true, Ordering::Relaxed);
        for (group, running) in self.node.groups.all() {
            if let Err(error) = running.raft().hand_over(HAND_OVER_MAX).await {
                tracing::warn!(%group, %error, "nobody took the lead over");
            }
        }
        self.endpoint.close(STOP_GRACE).await;
        self.node.fold_and_compact().await?;
        self.node.chunks.flush_index().await?;
        self.node.groups.shutdown().await
    }
}

impl Node {
    /// Tells the root group of this start, however long it takes to find its leader.
    ///
    /// # Errors
    /// The root group's refusal of this start.
    pub(super) async fn register(self: &Arc<Self>) -> Result<()> {
        let info = NodeInfo {
            node: self.id,
            address: self.address.clone(),
            zone: self.zone.clone(),
            rack: self.rack.clone(),
            life: self.peers.life(),
            version: env!("CARGO_PKG_VERSION").into(),
            weight: self.weight,
            state: NodeState::Member,
        };
        let mut told = self.env.clock.now();
        loop {
            match self
                .root_command(RootCommand::NodeStarted(info.clone()))
                .await
            {
                Ok(_) => break,
                Err(error) if error.code == Code::Unavailable || error.code.is_retryable() => {
                    let now = self.env.clock.now();
                    if now.saturating_sub(told) > REGISTER_TOLD_EVERY {
                        told = now;
                        tracing::warn!(%error, "waiting for the root group");
                    }
                }
                Err(error) => return Err(error),
            }
            tokio::time::sleep(REGISTER_PAUSE).await;
        }
        if let Err(error) = starts::confirm(&*self.env.disk, &self.data).await {
            // A full disk, say. Until it is noted the next start goes on under the same number.
            tracing::warn!(%error, "that this start is known to the cluster could not be noted");
        }
        // The first answer brings the newest view.
        while self.beat().await.is_err() || self.views.now().cluster.version == 0 {
            tokio::time::sleep(REGISTER_PAUSE).await;
        }
        Ok(())
    }
}

impl Node {
    /// The cluster keeps the weight it knows: a restart would undo what `dfs node weight` said
    /// later. So whoever names another capacity is told what does change it.
    fn tell_of_another_weight(&self) {
        let (id, given) = (self.id, self.weight);
        match self.views.now().node(id).map(|info| info.weight) {
            Some(known) if known != given => tracing::warn!(
                "the capacity given makes a weight of {given}; the cluster knows node {id} with \
                 {known}, and that stays: `dfs node weight {id} {given}` changes it"
            ),
            _ => {}
        }
    }
}

/// Bound before the node is whole, so that a used port is reported before anything starts; calls
/// that come too early are told so by a closed stream and tried again by the client.
#[derive(Default)]
pub(super) struct Late {
    node: OnceLock<Arc<Node>>,
}

impl Late {
    pub(super) fn set(&self, node: Arc<Node>) {
        // Set once; a second call would have nothing to change.
        let _ = self.node.set(node);
    }
}

impl Service for Late {
    fn serve(&self, incoming: Incoming) -> BoxFuture<'static, ()> {
        match self.node.get() {
            Some(node) => Calls(node.clone()).serve(incoming),
            None => Box::pin(std::future::ready(())),
        }
    }
}

impl Gate for Late {
    fn admits(&self, peer: &Peer) -> std::result::Result<(), Refusal> {
        match self.node.get() {
            Some(node) => node.admits(peer),
            // Asked once for a connection: who came now would not be looked at again.
            None => match peer {
                Peer::Nobody => Ok(()),
                Peer::Node { .. } | Peer::User { .. } => {
                    Err(Refusal::NotNow("this node is starting".to_owned()))
                }
            },
        }
    }
}

impl Node {
    /// Who may be connected: nodes of the cluster, users who were not removed. While this node does
    /// not hear what was revoked it lets no user in.
    fn admits(&self, peer: &Peer) -> std::result::Result<(), Refusal> {
        let view = self.views.now();
        match peer {
            Peer::Nobody => Ok(()),
            Peer::Node { id, .. } => match view.node(*id) {
                Some(info) if info.state == NodeState::Removed => {
                    let why = format!("node {id} {REMOVED}");
                    Err(Refusal::Denied(why))
                }
                // One that has just joined is not in every view yet.
                _ => Ok(()),
            },
            Peer::User { name, .. } => {
                if view.cluster.revoked_users.binary_search(name).is_ok() {
                    let why = format!("user {name} {REMOVED}");
                    return Err(Refusal::Denied(why));
                }
                if !self.is_trusted() {
                    let why =
                        "no quorum: this node hears nothing of the cluster's root group just now";
                    return Err(Refusal::NotNow(why.into()));
                }
                Ok(())
            }
        }
    }
}
