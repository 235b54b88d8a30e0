//! Opens a data directory: makes it a new cluster's first node, or finds what it was.
//!
//! # First start
//! `DIR/first-start` is made durable, then everything else (the groups' seeds folded, the log's
//! purge marks, identities), `DIR/node` last; then the mark goes. A first start that was cut off
//! leaves the mark without `DIR/node`: the next one removes what was made and begins anew. A
//! directory with `DIR/node` is never seeded, and one with stores but neither file is refused:
//! missing metadata is an error, not a new file system.

use super::core::{ADMIN, Bases, Core, CoreOptions, FirstStart};
use super::enter::enter;
use super::identity::serial;
use crate::cluster::{
    ADMIN_DAYS, Authority, CA_DAYS, DirLock, Identity, JoinToken, NODE_DAYS, NodeFiles, NodeMeta,
    Seal, Validity,
};
use crate::config::ServerSettings;
use crate::env::base::{LmdbBase, META_MAP_BYTES};
use crate::env::{Env, OpenMode};
use crate::error::{Code, Error, Result};
use crate::net::Endpoint;
use crate::proto::{JoinWhat, NodeAddress};
use crate::ring::weight_of;
use crate::root::CaRecord;
use crate::shard::records::Settings;
use crate::store::overlay::FoldOptions;
use crate::store::reserve::Reserve;
use crate::types::{CaPin, ClusterId, NodeId, Subject};
use std::path::Path;
use std::sync::Arc;

/// Address space of the pack index's map: sparse, never resized.
const INDEX_MAP_BYTES: usize = 1 << 38;
/// There from before the first byte of a first start until `DIR/node` is written.
const FIRST_START: &str = "first-start";
/// What a first start makes before `DIR/node`.
const MADE: [&str; 11] = [
    "cluster.view",
    "cluster.new",
    "images",
    "log",
    "meta",
    "chunks",
    "packs",
    "index",
    "starts",
    "starts.new",
    "reserve",
];

/// An opened data directory.
pub(super) struct Opened {
    pub files: NodeFiles,
    pub core: Core,
    /// Units of capacity.
    pub weight: u32,
    /// Where others are, for a node that has just joined.
    pub nodes: Vec<NodeAddress>,
    /// Held as long as the process runs on the directory.
    pub lock: DirLock,
}

/// Opens `settings.data`, making a new cluster there if it is empty. A disk without space gets
/// the reserved space back, so that a full node can be started and deleted from.
pub(super) async fn open(env: &Env, raft_env: &Env, settings: &ServerSettings) -> Result<Opened> {
    match open_once(env, raft_env, settings).await {
        Err(error) if error.code == Code::NoSpace => {
            tracing::warn!(%error, "no space to start in: the reserved space is given back");
            Reserve::new(env.disk.clone(), &settings.data)
                .release()
                .await?;
            open_once(env, raft_env, settings).await
        }
        opened => opened,
    }
}

async fn open_once(env: &Env, raft_env: &Env, settings: &ServerSettings) -> Result<Opened> {
    let dir = &settings.data;
    crate::cluster::prepare_dir(dir)?;
    let lock = DirLock::acquire(dir)?;
    // Before a token is spent or a segment of the log begun for nothing.
    Endpoint::try_out(settings.listen)?;
    remove_half_made(env, dir).await?;
    let weight = weight(env, settings).await?;
    let known = NodeFiles::load(dir)?;
    let new = known.is_none();
    if new {
        mark_first_start(env, dir).await?;
    }
    let (files, made, nodes) = match known {
        Some(files) => {
            must_be_of(&files, settings)?;
            (files, None, Vec::new())
        }
        None if settings.join.is_empty() => {
            let (files, made) = new_cluster(env, settings)?;
            (files, Some(made), Vec::new())
        }
        None => {
            let (files, nodes) = join(env, settings, weight).await?;
            (files, None, nodes)
        }
    };
    let bases = Bases {
        meta: Arc::new(LmdbBase::open(&dir.join("meta"), META_MAP_BYTES)?),
        index: Arc::new(open_index(&dir.join("index"))?),
    };
    let first = made.as_ref().map(|made| FirstStart {
        cluster: files.meta.cluster,
        node: files.meta.node,
        settings: shard_settings(settings),
        ca: made.ca.clone(),
        zone: settings.zone.clone(),
        rack: settings.rack.clone(),
        weight,
    });
    let options = CoreOptions {
        fold: fold_options(settings),
        accept_lost_tail: settings.accept_lost_tail,
        ..CoreOptions::default()
    };
    let core = Core::open(env, raft_env, dir, bases, options, first.as_ref()).await?;
    if new {
        if let Some(made) = &made {
            // Before `DIR/node`: nobody could make another one if this were lost.
            made.admin.save(&dir.join("admin.dfs"))?;
        }
        files.create(dir)?;
    }
    unmark_first_start(env, dir).await?;
    Ok(Opened {
        files,
        core,
        weight,
        nodes,
        lock,
    })
}

/// A node's capacity in units of weight: as the operator says, else what its file system holds.
async fn weight(env: &Env, settings: &ServerSettings) -> Result<u32> {
    let bytes = match settings.capacity {
        Some(bytes) => bytes,
        None => {
            let space = env.disk.space(&settings.data).await;
            let failed = |e: std::io::Error| Error::io("ask for the space of", &settings.data, &e);
            space.map_err(failed)?.total
        }
    };
    Ok(weight_of(bytes))
}

/// A restart needs no token; one of another cluster is a mistake that is better told.
fn must_be_of(files: &NodeFiles, settings: &ServerSettings) -> Result<()> {
    let Some(token) = &settings.token else {
        return Ok(());
    };
    if JoinToken::parse(token)?.pin() == CaPin::of(&files.credentials.ca) {
        return Ok(());
    }
    Err(Error::usage(format!(
        "the data directory belongs to node {} of another cluster ({}) than the token",
        files.meta.node, files.meta.cluster
    ))
    .at(settings.data.display())
    .hint(
        "name an empty directory with --data, or leave out --join and --token to start it as it is",
    ))
}

/// Removes what a first start left that did not reach its end. Nothing in it was ever
/// acknowledged: `DIR/node` is written before the node serves.
async fn remove_half_made(env: &Env, dir: &Path) -> Result<()> {
    let exists = |name: &'static str| {
        let path = dir.join(name);
        async move {
            env.disk
                .exists(&path)
                .await
                .map_err(|e| Error::io("look for", &path, &e))
        }
    };
    if !exists(FIRST_START).await? || exists("node").await? {
        return Ok(());
    }
    for name in MADE {
        let path = dir.join(name);
        let removed = match path.symlink_metadata() {
            Ok(found) if found.is_dir() => std::fs::remove_dir_all(&path),
            Ok(_) => std::fs::remove_file(&path),
            Err(_) => Ok(()),
        };
        removed.map_err(|e| Error::io("remove", &path, &e))?;
    }
    Ok(())
}

/// The pack index's base. One that is no database any more is only a cache that is lost: the chunk
/// store fills a new one.
fn open_index(path: &Path) -> Result<LmdbBase> {
    match LmdbBase::open(path, INDEX_MAP_BYTES) {
        Err(error) if error.code == Code::Corrupt => {
            tracing::error!(%error, "the pack index is made anew from packs and chunk files");
            std::fs::remove_dir_all(path).map_err(|e| Error::io("remove", path, &e))?;
            LmdbBase::open(path, INDEX_MAP_BYTES)
        }
        opened => opened,
    }
}

async fn mark_first_start(env: &Env, dir: &Path) -> Result<()> {
    let path = dir.join(FIRST_START);
    let failed = |e: std::io::Error| Error::io("create", &path, &e);
    if !env.disk.exists(&path).await.map_err(failed)? {
        env.disk
            .open(&path, OpenMode::CreateNew)
            .await
            .map_err(failed)?;
    }
    env.disk.sync_dir(dir).await.map_err(failed)
}

async fn unmark_first_start(env: &Env, dir: &Path) -> Result<()> {
    let path = dir.join(FIRST_START);
    let failed = |e: std::io::Error| Error::io("remove", &path, &e);
    if env.disk.exists(&path).await.map_err(failed)? {
        env.disk.remove(&path).await.map_err(failed)?;
    }
    Ok(())
}

/// What a new cluster has beside its first node's files.
struct Made {
    ca: CaRecord,
    admin: Identity,
}

/// Identities of a new cluster: its CA, sealed; its first node, its first administrator.
fn new_cluster(env: &Env, settings: &ServerSettings) -> Result<(NodeFiles, Made)> {
    let cluster = ClusterId(env.rng.bytes16());
    let node = NodeId(1);
    let now = env.clock.wall();
    let authority = Authority::create(&*env.rng, cluster, Validity::days(now, CA_DAYS))?;
    let addresses = settings.advertise.as_slice();
    let issue = |subject: &Subject, days, addresses: &[String]| {
        let validity = Validity::days(now, days);
        authority.issue(&*env.rng, subject, serial(env), validity, addresses)
    };
    let seal = Seal::create(&*env.rng);
    let made = Made {
        ca: CaRecord {
            certificate: authority.certificate().to_vec().into(),
            sealed: seal.seal(&*env.rng, &authority).into(),
        },
        admin: Identity {
            addresses: Vec::new(),
            credentials: issue(&Subject::user(ADMIN, ADMIN, true)?, ADMIN_DAYS, &[])?,
        },
    };
    let files = NodeFiles {
        meta: NodeMeta {
            cluster,
            node,
            zone: settings.zone.clone(),
            rack: settings.rack.clone(),
        },
        credentials: issue(&Subject::Node(node), NODE_DAYS, addresses)?,
        seal: Some(seal),
    };
    Ok((files, made))
}

/// Joins the cluster that the settings name, as a new node.
async fn join(
    env: &Env,
    settings: &ServerSettings,
    weight: u32,
) -> Result<(NodeFiles, Vec<NodeAddress>)> {
    let token = settings.token.as_deref().ok_or_else(|| {
        Error::usage("joining needs a token")
            .hint("make one with `dfs token create` and give it with --token")
    })?;
    let token = JoinToken::parse(token)?;
    let what = JoinWhat::Node {
        // Known when the node listens; it tells then.
        address: settings.advertise.clone().unwrap_or_default(),
        zone: settings.zone.clone(),
        rack: settings.rack.clone(),
        weight,
        version: env!("CARGO_PKG_VERSION").into(),
    };
    let (credentials, joined) = enter(env, &settings.join, &token, what, None).await?;
    let node = joined
        .node
        .ok_or_else(|| Error::failed("the cluster gave no node id"))?;
    let files = NodeFiles {
        meta: NodeMeta {
            cluster: joined.cluster,
            node,
            zone: settings.zone.clone(),
            rack: settings.rack.clone(),
        },
        credentials,
        seal: None,
    };
    Ok((files, joined.nodes))
}

fn fold_options(settings: &ServerSettings) -> FoldOptions {
    // A machine whose memory is smaller than the number holds a smaller layer.
    let bytes = usize::try_from(settings.fold_bytes).unwrap_or(usize::MAX);
    FoldOptions {
        bytes,
        after: settings.fold_after,
    }
}

/// The settings a new cluster's first shard begins with.
fn shard_settings(settings: &ServerSettings) -> Settings {
    let millis =
        |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Settings {
        inline_bytes: settings.inline_bytes,
        chunk_bytes: settings.chunk_bytes,
        keep_versions: settings.keep_versions,
        keep_for_ms: millis(settings.keep_for),
        grace_ms: millis(settings.grace),
        upload_ttl_ms: millis(settings.upload_ttl),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::base::{BaseOp, MetaBase};
    use bytes::Bytes;

    #[test]
    fn a_pack_index_that_is_no_database_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        let put = BaseOp::Put(Bytes::from("key"), Bytes::from("value"));
        open_index(&path).unwrap().commit(vec![put]).unwrap();
        let found = |base: LmdbBase| base.begin_read().unwrap().get(b"key").unwrap();
        assert!(found(open_index(&path).unwrap()).is_some());
        std::fs::write(path.join("data.mdb"), vec![7; 64 << 10]).unwrap();
        assert!(found(open_index(&path).unwrap()).is_none());
    }
}
