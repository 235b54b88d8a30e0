//! A node on a simulated machine: the composition of `serve` without identity files, locks and
//! the operating system's sockets. Called by `sim`.

use super::core::{Bases, Core, CoreOptions, FirstStart, Who};
use super::serve::Alone;
use super::service::Calls;
use super::{Node, workers};
use crate::env::Env;
use crate::env::base::MetaBase;
use crate::error::{Error, Result};
use crate::net::{Endpoint, Incoming, ServerTls, Service};
use crate::shard::records::Settings;
use crate::store::SlotRead;
use crate::store::chunks::ChunkOptions;
use crate::store::overlay::{FoldOptions, View};
use crate::store::wal::WalOptions;
use crate::types::{ClusterId, GroupId, NodeId};
use futures::future::BoxFuture;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use tokio::runtime::Handle;

/// Told why the process would have ended.
pub(crate) type OnEnd = Arc<dyn Fn(&str) + Send + Sync>;

/// Sizes of the stores; small ones, so that a short run switches segments, folds and fills packs.
#[derive(Clone)]
pub(crate) struct Sizes {
    pub wal: WalOptions,
    pub chunks: ChunkOptions,
    pub fold: FoldOptions,
}

/// What a simulated node is started with.
pub(crate) struct Start {
    pub env: Env,
    pub dir: PathBuf,
    pub meta: Arc<dyn MetaBase>,
    pub index: Arc<dyn MetaBase>,
    pub node: NodeId,
    pub cluster: ClusterId,
    /// HOST:PORT others use.
    pub address: String,
    /// The first start of the first node: the settings of the shard of `/`.
    pub first: Option<Settings>,
    pub sizes: Sizes,
    pub on_end: OnEnd,
}

/// A node whose stores are open.
pub(crate) struct Opened {
    start: Start,
    core: Core,
}

/// A node that serves; lives as long as its runtime.
pub(crate) struct SimNode {
    node: Arc<Node>,
}

impl Start {
    fn options(&self) -> CoreOptions {
        let sizes = self.sizes.clone();
        let (log, chunks, meta) = (
            self.on_end.clone(),
            self.on_end.clone(),
            self.on_end.clone(),
        );
        let exit = self.on_end.clone();
        CoreOptions {
            wal: WalOptions {
                on_fatal: Arc::new(move |what, error| log(&format!("{what}: {error}"))),
                ..sizes.wal
            },
            chunks: ChunkOptions {
                on_fatal: Arc::new(move |what, error| chunks(&format!("{what}: {error}"))),
                ..sizes.chunks
            },
            fold: sizes.fold,
            on_fatal: Arc::new(move |what, error| meta(&format!("{what}: {error}"))),
            accept_lost_tail: false,
            exit: Arc::new(move |status| exit(&format!("exit with status {status}"))),
        }
    }
}

/// Opens the stores; with `first` makes them.
///
/// # Errors
/// What production would refuse to start with.
pub(crate) async fn open(start: Start) -> Result<Opened> {
    let first = start.first.clone().map(|settings| FirstStart {
        cluster: start.cluster,
        node: start.node,
        settings,
    });
    let bases = Bases {
        meta: start.meta.clone(),
        index: start.index.clone(),
    };
    let (env, options) = (&start.env, start.options());
    let core = Core::open(env, env, &start.dir, bases, options, first.as_ref()).await?;
    Ok(Opened { start, core })
}

impl Opened {
    /// Serves on the endpoint that `bind` makes, in the order of `serve`.
    pub(crate) async fn serve(
        self,
        tls: ServerTls,
        bind: impl FnOnce(&Env, ServerTls, Arc<dyn Service>) -> Result<Endpoint>,
    ) -> Result<SimNode> {
        let Opened { start, core } = self;
        let env = start.env;
        let groups = core
            .start_groups(&env, env.clone(), &Handle::current(), Arc::new(Alone))
            .await?;
        let late = Arc::new(Late::default());
        // The endpoint lives on without its handle.
        let _endpoint = bind(&env, tls, late.clone())?;
        let who = Who {
            id: start.node,
            cluster: start.cluster,
            address: start.address,
            zone: String::new(),
            rack: String::new(),
            data: start.dir,
        };
        let node = core.into_node(&env, groups, who).await?;
        workers::start(&node);
        // Set once, here.
        let _ = late.0.set(Arc::new(Calls(node.clone())));
        Ok(SimNode { node })
    }
}

impl SimNode {
    /// Of each group: the applied index, and a hash of all records. Two replicas that applied the
    /// same have the same.
    pub(crate) fn states(&self) -> Result<Vec<(GroupId, u64, u64)>> {
        let root = (GroupId::ROOT, self.node.root.machine.view()?);
        let shard = (GroupId::FIRST, self.node.shard.machine.view()?);
        let state = |(group, view): (GroupId, View)| {
            let mut hasher = blake3::Hasher::new();
            view.scan(&[], None, &mut |key, value| {
                for part in [key, value] {
                    hasher.update(&(part.len() as u64).to_le_bytes());
                    hasher.update(part);
                }
                Ok(true)
            })?;
            let head: [u8; 8] = std::array::from_fn(|at| hasher.finalize().as_bytes()[at]);
            let (now, _) = (self.node.store.replica(group))
                .ok_or_else(|| Error::failed(format!("no replica of group {group}")))?;
            let index = now.mark.position.index.0;
            Ok((group, index, u64::from_le_bytes(head)))
        };
        [root, shard].into_iter().map(state).collect()
    }
}

/// As in `serve`: binds before the node is whole.
#[derive(Default)]
struct Late(OnceLock<Arc<dyn Service>>);

impl Service for Late {
    fn serve(&self, incoming: Incoming) -> BoxFuture<'static, ()> {
        match self.0.get() {
            Some(service) => service.serve(incoming),
            None => Box::pin(std::future::ready(())),
        }
    }
}
