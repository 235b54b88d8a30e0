//! Starts a node and runs it until it is told to stop.

use super::core::Who;
use super::open::{Opened, open};
use super::service::Calls;
use super::{Node, workers};
use crate::cluster::{self, DirLock, Identity};
use crate::config::ServerSettings;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::net::{Endpoint, ServerParts, ServerTls};
use crate::raft::PeerTransport;
use crate::root::{NodeRecord, RootCommand};
use crate::types::{ClusterId, GroupId, NodeId, ReplicaId};
use bytes::Bytes;
use futures::future::BoxFuture;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::runtime::Handle;

/// How long running requests get when the node stops.
const STOP_GRACE: Duration = Duration::from_secs(10);

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
/// runtime of their own.
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
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("raft")
        .enable_all()
        .build()
        .map_err(|e| Error::failed(format!("cannot start threads ({e})")))?;
    let raft_env = crate::env::real::env(runtime.handle().clone());
    let served = async {
        let server = Server::start(env, raft_env, runtime.handle(), &settings).await?;
        ready(&server.ready());
        stop.await;
        server.stop().await
    };
    let result = served.await;
    runtime.shutdown_background();
    result
}

impl Server {
    /// Opens the data directory, starts the groups and serves. `env` is where calls are served,
    /// `raft_env` the runtime that belongs to Raft and the log alone.
    pub async fn start(
        env: Env,
        raft_env: Env,
        raft_runtime: &Handle,
        settings: &ServerSettings,
    ) -> Result<Server> {
        start(env, raft_env, raft_runtime, settings).await
    }
}

async fn start(
    env: Env,
    raft_env: Env,
    raft_runtime: &Handle,
    settings: &ServerSettings,
) -> Result<Server> {
    let opened = open(&env, &raft_env, settings).await?;
    let Opened {
        files,
        core,
        admin,
        lock,
    } = opened;
    let groups = core
        .start_groups(&env, raft_env, raft_runtime, Arc::new(Alone))
        .await?;

    let tls = ServerTls::new(&files.credentials)?;
    let late = Arc::new(Late::default());
    let parts = ServerParts::new(tls, late.clone());
    let endpoint = Endpoint::bind(&env, settings.listen, Some(parts)).await?;
    let listen = endpoint.local_addr();
    let address = settings
        .advertise
        .clone()
        .unwrap_or_else(|| reachable(listen).to_string());
    let who = Who {
        id: files.meta.node,
        cluster: files.meta.cluster,
        address: address.clone(),
        zone: files.meta.zone.clone(),
        rack: files.meta.rack.clone(),
        data: settings.data.clone(),
    };
    let node = core.into_node(&env, groups, who).await?;
    if let Some(admin) = admin {
        let admin = admin.with_addresses(vec![address]);
        if let Err(error) = publish_admin(&settings.data, &admin) {
            // A full disk, say: the node serves all the same, so that it can be deleted from.
            tracing::warn!(%error, "the administrator's identity could not be written");
        }
    }
    workers::start(&node);
    late.set(Arc::new(Calls(node.clone())));
    Ok(Server {
        node,
        endpoint,
        _lock: lock,
    })
}

/// Puts the administrator's identity where the operator and the local user's client look.
fn publish_admin(data: &Path, admin: &Identity) -> Result<()> {
    admin.save(&data.join("admin.dfs"))?;
    match cluster::install_for_user(admin) {
        Ok(cluster::Installed::KeptOther(path)) => {
            tracing::warn!(
                path = %path.display(),
                "another cluster's identity is there and stays; use --identity {}",
                data.join("admin.dfs").display()
            );
        }
        Ok(done) => tracing::info!(?done, "the local user's client finds this cluster"),
        // A node without a home directory, or with a full one, serves all the same.
        Err(error) => tracing::warn!(%error, "no identity for the local user's client"),
    }
    Ok(())
}

/// An address that can be connected to: the unspecified one is this machine.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let mut address = listen;
    if address.ip().is_unspecified() {
        address.set_ip(match listen {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

impl Server {
    pub fn ready(&self) -> Ready {
        Ready {
            node: self.node.id,
            listen: self.endpoint.local_addr(),
            cluster: self.node.cluster,
        }
    }

    /// Finishes what is in flight, folds, and stops.
    pub async fn stop(self) -> Result<()> {
        self.node.stopping.store(true, Ordering::Relaxed);
        self.endpoint.close(STOP_GRACE).await;
        self.node.fold_and_compact().await?;
        self.node.chunks.flush_index().await?;
        self.node.shard.raft.shutdown().await?;
        self.node.root.raft.shutdown().await
    }
}

impl Node {
    /// Tells the root group of this start.
    pub(super) async fn register(&self, start: u64) -> Result<()> {
        let record = NodeRecord {
            node: self.id,
            address: self.address.clone(),
            zone: self.zone.clone(),
            rack: self.rack.clone(),
            start,
            version: env!("CARGO_PKG_VERSION").into(),
        };
        self.root.propose(&RootCommand::NodeStarted(record)).await
    }
}

/// Binds before the node is whole, so that a used port is reported before anything starts; calls
/// that come too early are told so by a closed stream and tried again by the client.
#[derive(Default)]
struct Late {
    service: std::sync::OnceLock<Arc<dyn crate::net::Service>>,
}

impl Late {
    fn set(&self, service: Arc<dyn crate::net::Service>) {
        // Set once, here; a second call would have nothing to change.
        let _ = self.service.set(service);
    }
}

impl crate::net::Service for Late {
    fn serve(&self, incoming: crate::net::Incoming) -> BoxFuture<'static, ()> {
        match self.service.get() {
            Some(service) => service.serve(incoming),
            None => Box::pin(std::future::ready(())),
        }
    }
}

/// A cluster of one node has nobody to talk to.
pub(super) struct Alone;

impl PeerTransport for Alone {
    fn call(
        &self,
        node: NodeId,
        group: GroupId,
        _from: ReplicaId,
        _to: ReplicaId,
        _message: Bytes,
        _timeout: Duration,
    ) -> BoxFuture<'_, Result<Bytes>> {
        let error = Error::unavailable(format!("no route to node {node} (group {group})"));
        Box::pin(std::future::ready(Err(error)))
    }
}
