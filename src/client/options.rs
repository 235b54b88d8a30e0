//! What a caller chooses: where to connect, how long to wait, which preconditions.

use super::under_way::UnderWay;
use crate::limits::{REQUEST_TIMEOUT, WINDOW_BYTES_DEFAULT};
use crate::net::ClientTls;
use crate::types::{Ack, ClusterId, DfsPath, FileVersion, Name, ReadLevel};
use std::path::PathBuf;
use std::time::Duration;

/// Where and as whom to connect.
#[derive(Clone)]
pub struct ConnectOptions {
    /// `HOST:PORT` of any nodes of the cluster; tried in order, addresses before names. The
    /// others are told by whoever answers.
    pub endpoints: Vec<String>,
    /// Which cluster it is, by the identity: its nodes' addresses are kept in `state_dir` for the
    /// next time. `None`: they are not.
    pub cluster: Option<ClusterId>,
    /// Who we are and whom we trust, made by `cluster` from the identity file.
    pub tls: ClientTls,
    /// How long one request may take with all its retries; for transfers: how long one chunk
    /// may stand still.
    pub timeout: Duration,
    /// Where interrupted uploads remember what they did, and the nodes' addresses are kept
    /// (`~/.local/state/dfs`); `None`: uploads are not resumable.
    pub state_dir: Option<PathBuf>,
    /// Where the client writes down which changes are under way: what a caller that drops it in
    /// the middle of one still wants to know.
    pub under_way: UnderWay,
}

impl ConnectOptions {
    /// The defaults: 30 s, no resumable uploads.
    pub fn new(endpoints: Vec<String>, tls: ClientTls) -> Self {
        ConnectOptions {
            endpoints,
            cluster: None,
            tls,
            timeout: REQUEST_TIMEOUT,
            state_dir: None,
            under_way: UnderWay::default(),
        }
    }
}

/// Under which identity a change is sent: its own new one, or one the user gave (`--op-id`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OpIds {
    /// A new operation, named by the session and lane it happens to get.
    #[default]
    Automatic,
    /// The same text is applied once, whoever sends it again within the sessions' horizon.
    Given(String),
}

impl OpIds {
    /// From the command line: an identity if one was given.
    pub fn from_flag(given: Option<String>) -> Self {
        given.map_or(OpIds::Automatic, OpIds::Given)
    }
}

/// What a put demands of the name it writes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overwrite {
    /// The name must be free. The default.
    #[default]
    IfAbsent,
    /// The file must be at this version.
    IfVersion(FileVersion),
    /// Whatever version is there when the put begins (or none) must still be there when it
    /// commits: read once, never again. A file put anew under the name is another one, whatever
    /// its version.
    Current,
}

/// How files are put.
#[derive(Clone, Debug)]
pub struct PutOptions {
    pub overwrite: Overwrite,
    /// Permission bits; `None`: those of the local file, or 0644.
    pub mode: Option<u16>,
    pub op: OpIds,
    /// Under what a tree's own directory is made if `op` is automatic: the tree put again with this
    /// as its `op` goes on in that directory.
    pub root_op: OpIds,
    /// Copies of each chunk that must be durable before the file is there.
    pub ack: Ack,
    /// Bytes in flight, at least one chunk.
    pub window_bytes: u64,
    /// Files (or batches of small files) at once in `put_tree`.
    pub jobs: usize,
    /// Remember progress in the state directory and continue what was interrupted.
    pub resume: bool,
}

impl PutOptions {
    /// The same for a file with these permission bits.
    pub(crate) fn for_mode(&self, mode: u16) -> PutOptions {
        PutOptions {
            mode: self.mode.or(Some(mode)),
            ..self.clone()
        }
    }

    /// The step of a put of a tree that makes its own directory, under a given id.
    pub fn root_step(to: &DfsPath) -> String {
        format!("{to}#root")
    }
}

impl Default for PutOptions {
    fn default() -> Self {
        PutOptions {
            overwrite: Overwrite::IfAbsent,
            mode: None,
            op: OpIds::Automatic,
            root_op: OpIds::Automatic,
            ack: Ack::default(),
            window_bytes: WINDOW_BYTES_DEFAULT,
            jobs: 8,
            resume: true,
        }
    }
}

/// How files are fetched.
#[derive(Clone, Debug)]
pub struct GetOptions {
    /// `None`: the current one.
    pub version: Option<FileVersion>,
    /// Bytes `start..end` only; `end` `None`: to the end of the file.
    pub range: Option<(u64, Option<u64>)>,
    /// Replace an existing local file.
    pub force: bool,
    pub level: ReadLevel,
    /// Bytes in flight, at least one chunk.
    pub window_bytes: u64,
    /// Files at once in `get_tree`.
    pub jobs: usize,
}

impl Default for GetOptions {
    fn default() -> Self {
        GetOptions {
            version: None,
            range: None,
            force: false,
            level: ReadLevel::Linearizable,
            window_bytes: WINDOW_BYTES_DEFAULT,
            jobs: 32,
        }
    }
}

/// How a directory is listed.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// Begin behind this name.
    pub after: Option<Name>,
    /// At most so many entries in all, 1 or more; `None`: all.
    pub limit: Option<u64>,
    /// With the attributes of each entry; else only inode and kind.
    pub attrs: bool,
    pub level: ReadLevel,
}
