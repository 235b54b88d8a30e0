//! Tests of a whole node, but for identities and the network, on a simulated machine: the real
//! log, metadata store, chunk store, groups and calls over a disk that loses power, fails and
//! fills up. One `Life` is one process.

mod copies;
mod crash;
mod direct;
mod failed_sync;
mod faults;
mod image;
mod lacking;
mod log_end;
mod order;
mod peers;
mod picture;
mod play;
mod replicas;
mod script;
mod scrub;
mod time;
mod view;

use super::Node;
use super::core::{Bases, Core, CoreOptions, FirstStart, Who};
use super::group::{Group, RootGroup};
use super::identity::Identity;
use super::service::Caller;
use crate::cluster::{Authority, Seal, Validity};
use crate::env::sim::{self, SimDisk, SimHandles};
use crate::env::{Env, OpenMode};
use crate::error::{Error, Result};
use crate::limits::SESSION_HORIZON_MS;
use crate::root::CaRecord;
use crate::shard::records::Settings;
use crate::store::chunks::ChunkOptions;
use crate::store::overlay::FoldOptions;
use crate::store::wal::WalOptions;
use crate::types::{ClusterId, Credentials, GroupId, NodeId, Subject, WallTime};
use bytes::Bytes;
use parking_lot::Mutex;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::runtime::Handle;

/// The node's data directory.
const DIR: &str = "/node";
const SEGMENT_BYTES: u64 = 16 << 10;
/// Of the shard, and of every full chunk here.
const CHUNK_BYTES: usize = 4_096;

const CLUSTER: ClusterId = ClusterId([3; 16]);
/// A group of one elects itself after one election timeout.
const LEADER_WITHIN: Duration = Duration::from_secs(30);

/// The only node's certificate, the key that opens the CA, and the CA's record.
fn papers() -> &'static (Credentials, Seal, CaRecord) {
    static PAPERS: OnceLock<(Credentials, Seal, CaRecord)> = OnceLock::new();
    PAPERS.get_or_init(|| {
        let rng = sim::SeededRng::new(1);
        let validity = Validity::days(WallTime(1_790_000_000_000), 3_650);
        let authority = Authority::create(&rng, CLUSTER, validity).unwrap();
        let node = Subject::Node(NodeId(1));
        let credentials = authority.issue(&rng, &node, 1, validity, &[]).unwrap();
        let seal = Seal::create(&rng);
        let ca = CaRecord {
            certificate: authority.certificate().to_vec().into(),
            sealed: seal.seal(&rng, &authority).into(),
        };
        (credentials, seal, ca)
    })
}

/// Runs on a current-thread runtime of its own whose time moves only when all wait. Whatever it
/// started ends with it, as with a process.
fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(test)
}

/// What the process was told before it would have ended.
type Fatal = Arc<Mutex<Vec<String>>>;

/// The stores on a disk, without groups.
struct Stores {
    env: Env,
    handles: SimHandles,
    core: Core,
    fatal: Fatal,
}

/// A running node.
struct Life {
    node: Arc<Node>,
    handles: SimHandles,
    fatal: Fatal,
}

fn small_chunks() -> ChunkOptions {
    ChunkOptions {
        pack_chunk_bytes_max: 2_048,
        chunk_bytes_max: 64 << 10,
        pack_bytes_max: 6 << 10,
        pack_records_max: 12,
        group_bytes: 1_024,
        slice_bytes: 4_096,
        queued_bytes_max: 16 << 10,
        index_changes_max: 16,
        compact_in_background: false,
        ..ChunkOptions::default()
    }
}

/// Sizes so small that a short script switches segments, folds and fills packs. What ends a
/// process in production stops its tasks here.
fn options(fatal: &Fatal, handles: &SimHandles, accept_lost_tail: bool) -> CoreOptions {
    let told = |fatal: &Fatal| {
        let (fatal, handles) = (fatal.clone(), handles.clone());
        move |what: &str, error: &dyn std::fmt::Display| {
            fatal.lock().push(format!("{what}: {error}"));
            // Without power nothing can be done anyway.
            if !handles.disk.is_crashed() {
                handles.spawn.stop();
            }
        }
    };
    let (log, meta, chunks) = (told(fatal), told(fatal), told(fatal));
    CoreOptions {
        wal: WalOptions {
            segment_bytes: SEGMENT_BYTES,
            cache_bytes: 4 << 10,
            segments_kept: 3,
            seal_after: Duration::from_millis(5),
            on_fatal: Arc::new(log),
            ..WalOptions::default()
        },
        chunks: ChunkOptions {
            on_fatal: Arc::new(move |what, error| chunks(what, error)),
            ..small_chunks()
        },
        fold: FoldOptions {
            bytes: 1 << 20,
            after: Duration::from_secs(2),
        },
        on_fatal: Arc::new(meta),
        accept_lost_tail,
    }
}

fn settings() -> Settings {
    Settings {
        inline_bytes: 4_096,
        chunk_bytes: CHUNK_BYTES as u64,
        keep_versions: 3,
        keep_for_ms: 30 * SESSION_HORIZON_MS,
        grace_ms: SESSION_HORIZON_MS,
        upload_ttl_ms: SESSION_HORIZON_MS,
    }
}

impl Stores {
    /// Opens the directory, making it if the disk is new.
    async fn open(disk: &SimDisk) -> Result<Stores> {
        Self::open_with(disk, false).await
    }

    async fn open_with(disk: &SimDisk, accept_lost_tail: bool) -> Result<Stores> {
        let (env, handles) = sim::env_on(11, disk.clone());
        let (dir, marker) = (Path::new(DIR), Path::new("/node/node"));
        let failed = |e: std::io::Error| Error::io("make", marker, &e);
        let first = !env.disk.exists(dir).await.map_err(failed)?
            || !env.disk.exists(marker).await.map_err(failed)?;
        if first {
            env.disk.create_dir(dir).await.map_err(failed)?;
        }
        let made = first.then(|| FirstStart {
            cluster: CLUSTER,
            node: NodeId(1),
            settings: settings(),
            ca: papers().2.clone(),
            zone: String::new(),
            rack: String::new(),
            weight: 1,
        });
        let bases = Bases {
            meta: handles.base(&dir.join("meta")),
            index: handles.base(&dir.join("index")),
        };
        let fatal = Fatal::default();
        let options = options(&fatal, &handles, accept_lost_tail);
        let core = Core::open(&env, &env, dir, bases, options, made.as_ref()).await?;
        if first {
            env.disk
                .open(marker, OpenMode::CreateNew)
                .await
                .map_err(failed)?;
            env.disk.sync_dir(dir).await.map_err(failed)?;
        }
        Ok(Stores {
            env,
            handles,
            core,
            fatal,
        })
    }
}

impl Life {
    async fn start(disk: &SimDisk) -> Result<Life> {
        Self::on(Stores::open(disk).await?).await
    }

    async fn on(stores: Stores) -> Result<Life> {
        let Stores {
            env,
            handles,
            core,
            fatal,
        } = stores;
        let (credentials, seal, _) = papers();
        let told = fatal.clone();
        let who = Who {
            id: NodeId(1),
            cluster: CLUSTER,
            address: "node:1".into(),
            zone: String::new(),
            rack: String::new(),
            weight: 1,
            data: DIR.into(),
            identity: Identity::in_memory(
                credentials.clone(),
                Arc::new(Mutex::new(Some(seal.clone()))),
            ),
            nodes: Vec::new(),
            named: Vec::new(),
            offline_after: Duration::from_secs(30),
            lease_reads: true,
            on_end: Arc::new(move |error| told.lock().push(error.to_string())),
        };
        let runtime = Handle::current();
        let node = core.into_node(&env, env.clone(), &runtime, who).await?;
        let life = Life {
            node,
            handles,
            fatal,
        };
        for raft in [&life.root().raft, &life.shard().raft] {
            raft.wait_leader(LEADER_WITHIN).await?;
        }
        life.shard().learn_time().await?;
        life.node.register().await?;
        Ok(life)
    }

    fn root(&self) -> Arc<RootGroup> {
        self.node.groups.root().unwrap()
    }

    fn shard(&self) -> Arc<Group> {
        self.node.groups.shard(GroupId::FIRST).unwrap()
    }

    /// No task panicked, and nothing that should end the process happened.
    fn checked(&self) {
        assert_eq!(self.handles.spawn.panics(), Vec::<String>::new());
        assert_eq!(*self.fatal.lock(), Vec::<String>::new());
    }

    /// Waits for `work`, or until the power goes or the process should have ended.
    async fn answers<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let ended = || self.handles.disk.is_crashed() || !self.fatal.lock().is_empty();
        until(ended, work).await
    }

    /// The process ends.
    fn end(self) {
        assert_eq!(self.handles.spawn.panics(), Vec::<String>::new());
        self.handles.spawn.stop();
    }
}

fn ann() -> Caller {
    Caller {
        user: "ann".into(),
        group: "staff".into(),
        admin: true,
    }
}

/// Waits for `work`, or until the disk has lost power: nobody answers then.
async fn powered<T>(disk: &SimDisk, work: impl Future<Output = Result<T>>) -> Result<T> {
    until(|| disk.is_crashed(), work).await
}

async fn until<T>(ended: impl Fn() -> bool, work: impl Future<Output = Result<T>>) -> Result<T> {
    let end = async {
        while !ended() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        biased;
        done = work => done,
        () = end => Err(Error::unavailable("the process has ended").unknown_outcome()),
    }
}

/// Bytes that differ for each `salt`.
fn sample(salt: u64, len: usize) -> Bytes {
    let mut out = vec![0; len];
    blake3::Hasher::new()
        .update(&salt.to_le_bytes())
        .finalize_xof()
        .fill(&mut out);
    out.into()
}
