//! What a node's process does on a simulated machine: as `node::serve`. Started by `cluster`.

use super::cluster::{CHUNK_BYTES, DIR, INLINE_BYTES, Shape};
use super::machine::Birth;
use super::socket::Sockets;
use crate::client::{Client, ConnectOptions};
use crate::env::OpenMode;
use crate::error::{Error, Result};
use crate::net::ClientTls;
use crate::node::testing::{self, Papers, SimNode, Sizes, Start};
use crate::proto::{AdminAnswer, AdminCall, TokenRole};
use crate::root::CaRecord;
use crate::shard::records::Settings;
use crate::store::chunks::ChunkOptions;
use crate::store::overlay::FoldOptions;
use crate::store::wal::WalOptions;
use crate::types::ClusterId;
use parking_lot::Mutex;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Made when a first start has reached its end.
const MARKER: &str = "/node/node";

/// Where a new node asks to be let in, and as whom it asks for its token.
pub struct Door {
    pub tls: ClientTls,
    pub addresses: Vec<String>,
}

impl Door {
    /// What an operator does: a token from one who may make it, spent by the new node.
    async fn enter(&self, birth: &Birth, sockets: &Sockets) -> Result<Papers> {
        let at = |port| Sockets {
            at: std::net::SocketAddr::new(sockets.at.ip(), port),
            ..sockets.clone()
        };
        let options = ConnectOptions::new(self.addresses.clone(), self.tls.clone());
        let client = Client::connect_over(birth.env.clone(), options, Box::new(at(20_001))).await?;
        let call = AdminCall::CreateToken {
            role: TokenRole::Node,
            ttl_ms: 60_000,
        };
        let AdminAnswer::Token { token, .. } = client.admin(call).await? else {
            return Err(Error::failed("no token"));
        };
        let endpoint = at(20_002).endpoint(&birth.env, None)?;
        testing::join(&birth.env, &endpoint, &self.addresses, &token).await
    }
}

/// What a node's process does: as `node::serve`, on this machine.
pub async fn run_node(
    birth: &Birth,
    start: impl FnOnce(Papers) -> Start,
    papers: Arc<Mutex<Option<Papers>>>,
    door: Door,
    sockets: &Sockets,
    made: Arc<Mutex<bool>>,
) -> Result<SimNode> {
    let first = !*made.lock();
    let disk = &birth.env.disk;
    let (dir, marker) = (Path::new(DIR), Path::new(MARKER));
    let failed = |e: std::io::Error| Error::io("make", marker, &e);
    if first {
        disk.create_dir(dir).await.map_err(failed)?;
    } else if !disk.exists(marker).await.map_err(failed)? {
        return Err(Error::corrupt("the directory of a node that served is gone").at(DIR));
    }
    let known = papers.lock().clone();
    let own = match known {
        Some(own) => own,
        None => door.enter(birth, sockets).await?,
    };
    let opened = testing::open(start(own.clone())).await?;
    if first {
        disk.open(marker, OpenMode::CreateNew)
            .await
            .map_err(failed)?;
        disk.sync_dir(dir).await.map_err(failed)?;
        *papers.lock() = Some(own);
        *made.lock() = true;
    }
    let bind = |env: &crate::env::Env, parts| sockets.endpoint(env, Some(parts));
    opened.serve(bind).await
}

/// What a node is started with.
pub fn start_of(
    birth: &Birth,
    shape: &Shape,
    cluster: ClusterId,
    papers: Papers,
    address: String,
    first: Option<(Settings, CaRecord)>,
) -> Start {
    let dir = Path::new(DIR);
    Start {
        env: birth.env.clone(),
        dir: dir.to_owned(),
        meta: birth.handles.base(&dir.join("meta")),
        index: birth.handles.base(&dir.join("index")),
        cluster,
        papers,
        address,
        first,
        sizes: sizes(shape),
        on_end: birth.on_end(),
    }
}

/// Settings of the shard of `/`.
pub fn settings(shape: &Shape) -> Settings {
    Settings {
        inline_bytes: INLINE_BYTES,
        chunk_bytes: CHUNK_BYTES,
        keep_versions: 1_000,
        keep_for_ms: 24 * 3_600_000,
        grace_ms: shape.grace_ms,
        upload_ttl_ms: shape.upload_ttl_ms,
    }
}

fn sizes(shape: &Shape) -> Sizes {
    Sizes {
        wal: WalOptions {
            segment_bytes: shape.segment_bytes,
            cache_bytes: 16 << 10,
            segments_kept: 3,
            seal_after: Duration::from_millis(20),
            ..WalOptions::default()
        },
        chunks: ChunkOptions {
            pack_chunk_bytes_max: 3_000,
            chunk_bytes_max: 64 << 10,
            pack_bytes_max: 64 << 10,
            pack_records_max: 64,
            group_bytes: 1_024,
            slice_bytes: 4_096,
            queued_bytes_max: 64 << 10,
            index_changes_max: 64,
            ..ChunkOptions::default()
        },
        fold: FoldOptions {
            bytes: 1 << 20,
            after: shape.fold_after,
        },
    }
}
