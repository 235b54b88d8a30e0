//! Opens a data directory: makes it a new cluster's first node, or finds what it was.
//!
//! # First start
//! `DIR/first-start` is made durable, then everything else (the groups' seeds folded, the log's
//! purge marks, identities), `DIR/node` last; then the mark goes. A first start that was cut off
//! leaves the mark without `DIR/node`: the next one removes what was made and begins anew. A
//! directory with `DIR/node` is never seeded, and one with stores but neither file is refused:
//! missing metadata is an error, not a new file system.

use super::core::{ADMIN, Bases, Core, CoreOptions, FirstStart};
use crate::cluster::{
    ADMIN_DAYS, Authority, CA_DAYS, DirLock, Identity, NODE_DAYS, NodeFiles, NodeMeta, Validity,
};
use crate::config::ServerSettings;
use crate::env::base::LmdbBase;
use crate::env::{Env, OpenMode};
use crate::error::{Code, Error, Result};
use crate::shard::records::Settings;
use crate::store::overlay::FoldOptions;
use crate::store::reserve::Reserve;
use crate::types::{ClusterId, NodeId, Subject};
use std::path::Path;
use std::sync::Arc;

/// Address space of the metadata's and the pack index's maps: sparse, never resized.
const META_MAP_BYTES: usize = 1 << 40;
const INDEX_MAP_BYTES: usize = 1 << 38;
/// There from before the first byte of a first start until `DIR/node` is written.
const FIRST_START: &str = "first-start";
/// What a first start makes before `DIR/node`.
const MADE: [&str; 8] = [
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
    /// The first administrator's identity, on the node that made the cluster.
    pub admin: Option<Identity>,
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
    remove_half_made(env, dir).await?;
    let (files, new) = match NodeFiles::load(dir)? {
        Some(files) => (renewed(env, files, settings), false),
        None => {
            mark_first_start(env, dir).await?;
            (new_node(env, settings)?, true)
        }
    };
    let bases = Bases {
        meta: Arc::new(LmdbBase::open(&dir.join("meta"), META_MAP_BYTES)?),
        index: Arc::new(LmdbBase::open(&dir.join("index"), INDEX_MAP_BYTES)?),
    };
    let first = new.then(|| FirstStart {
        cluster: files.meta.cluster,
        node: files.meta.node,
        settings: shard_settings(settings),
    });
    let options = CoreOptions {
        fold: fold_options(settings),
        accept_lost_tail: settings.accept_lost_tail,
        ..CoreOptions::default()
    };
    let core = Core::open(env, raft_env, dir, bases, options, first.as_ref()).await?;
    if new {
        files.create(dir)?;
    }
    unmark_first_start(env, dir).await?;
    let admin = match Identity::load(&dir.join("admin.dfs")) {
        Ok(identity) => Some(renewed_admin(env, &files, identity)),
        Err(_) if files.authority.is_none() => None,
        Err(_) => Some(new_admin(env, &files)?),
    };
    Ok(Opened {
        files,
        core,
        admin,
        lock,
    })
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

/// Identities of a new cluster's first node.
fn new_node(env: &Env, settings: &ServerSettings) -> Result<NodeFiles> {
    let cluster = ClusterId(env.rng.bytes16());
    let node = NodeId(1);
    let now = env.clock.wall();
    let authority = Authority::create(&*env.rng, cluster, Validity::days(now, CA_DAYS))?;
    let validity = Validity::days(now, NODE_DAYS);
    let serial = serial(env);
    let addresses = settings.advertise.as_slice();
    let credentials =
        authority.issue(&*env.rng, &Subject::Node(node), serial, validity, addresses)?;
    let meta = NodeMeta {
        cluster,
        node,
        zone: settings.zone.clone(),
        rack: settings.rack.clone(),
    };
    Ok(NodeFiles {
        meta,
        credentials,
        authority: Some(authority),
        seal: None,
    })
}

/// A certificate's number: at random, so that no counter has to survive anything.
fn serial(env: &Env) -> u64 {
    (env.rng.u64() >> 1).max(1)
}

/// The identity of the first administrator, made by the node that holds the CA.
fn new_admin(env: &Env, files: &NodeFiles) -> Result<Identity> {
    let authority = files
        .authority
        .as_ref()
        .expect("asked only where the CA is");
    let subject = Subject::user(ADMIN, ADMIN, true)?;
    let validity = Validity::days(env.clock.wall(), ADMIN_DAYS);
    let credentials = authority.issue(&*env.rng, &subject, serial(env), validity, &[])?;
    Ok(Identity {
        addresses: Vec::new(),
        credentials,
    })
}

/// The node's files with a new certificate where the CA is and the old one ends soon. A failure
/// is no reason not to start: what is left of the old one is used.
fn renewed(env: &Env, mut files: NodeFiles, settings: &ServerSettings) -> NodeFiles {
    let Some(authority) = &files.authority else {
        return files;
    };
    let life = (env.clock.wall(), NODE_DAYS);
    let addresses = settings.advertise.as_slice();
    let new = authority.renewed(&*env.rng, &files.credentials, serial(env), life, addresses);
    match new {
        Ok(None) => {}
        Ok(Some(credentials)) => {
            files.credentials = credentials;
            match files.write_credentials(&settings.data) {
                Ok(()) => tracing::info!("the node's certificate was renewed"),
                Err(error) => tracing::warn!(%error, "the node's new certificate is not kept"),
            }
        }
        Err(error) => tracing::warn!(%error, "the node's certificate could not be renewed"),
    }
    files
}

/// The administrator's identity, renewed like the node's; written when it is published.
fn renewed_admin(env: &Env, files: &NodeFiles, identity: Identity) -> Identity {
    let Some(authority) = &files.authority else {
        return identity;
    };
    let life = (env.clock.wall(), ADMIN_DAYS);
    match authority.renewed(&*env.rng, &identity.credentials, serial(env), life, &[]) {
        Ok(None) => identity,
        Ok(Some(credentials)) => Identity {
            credentials,
            ..identity
        },
        Err(error) => {
            tracing::warn!(%error, "the administrator's certificate could not be renewed");
            identity
        }
    }
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
