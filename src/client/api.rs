//! The client's face: one method for each thing a user can ask for.

use super::options::{ConnectOptions, GetOptions, ListOptions, OpIds, PutOptions};
use super::progress::Progress;
use super::report::{Changed, GetReport, Listing, OpState, Page, PutReport, TreeReport};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::proto::{DeletedView, EntryView, FsckReport, StatusView, VersionView, WhoAmI};
use crate::shard::command::{Op, Removal};
use crate::shard::records::{Outcome, Settings};
use crate::types::{DfsPath, DirVersion, FileVersion, Name, Precondition, ReadLevel, Replacement};
use std::path::Path;
use tokio::io::{AsyncRead, AsyncWrite};

/// A connection to a cluster; cheap to clone, all clones share it.
#[derive(Clone)]
pub struct Client {}

/// A listing read page by page. Nothing is read ahead.
pub struct Pages {}

impl Pages {
    /// The next page; `None` behind the last one.
    pub async fn next_page(&mut self) -> Result<Option<Page>> {
        unimplemented!()
    }
    /// All pages so far had the same version of the directory.
    pub fn one_point_in_time(&self) -> bool {
        unimplemented!()
    }
    /// The name to go on behind, if the limit of [`ListOptions`] cut the listing.
    pub fn next(&self) -> Option<Name> {
        unimplemented!()
    }
}

impl Client {
    /// Connects to the first endpoint that answers.
    ///
    /// # Errors
    /// `unavailable` names each address and why it failed; `denied` when a node refused the
    /// identity; `usage` for no or malformed endpoints.
    pub async fn connect(_env: Env, _options: ConnectOptions) -> Result<Client> {
        unimplemented!()
    }
    /// What the node said last: cluster, node, user, sizes, routes.
    pub fn who_am_i(&self) -> WhoAmI {
        unimplemented!()
    }

    // --- reads ---
    pub async fn stat(&self, _path: &DfsPath, _level: ReadLevel) -> Result<EntryView> {
        unimplemented!()
    }
    /// In the order asked; each its own result.
    pub async fn stat_many(
        &self,
        _paths: &[DfsPath],
        _level: ReadLevel,
    ) -> Result<Vec<Result<EntryView, Error>>> {
        unimplemented!()
    }
    /// One page; `None`: the directory still has version `known`.
    pub async fn list_page(
        &self,
        _path: &DfsPath,
        _after: Option<&Name>,
        _limit: u32,
        _known: Option<DirVersion>,
        _options: &ListOptions,
    ) -> Result<Option<Page>> {
        unimplemented!()
    }
    /// A listing page by page, for directories of any size.
    pub fn list(&self, _path: &DfsPath, _options: ListOptions) -> Pages {
        unimplemented!()
    }
    /// A listing in memory.
    pub async fn list_all(&self, _path: &DfsPath, _options: ListOptions) -> Result<Listing> {
        unimplemented!()
    }
    /// Newest first, the current one included.
    pub async fn versions(&self, _path: &DfsPath, _level: ReadLevel) -> Result<Vec<VersionView>> {
        unimplemented!()
    }
    /// What of this directory can still be brought back.
    pub async fn deleted(&self, _path: &DfsPath, _level: ReadLevel) -> Result<Vec<DeletedView>> {
        unimplemented!()
    }
    pub async fn status(&self) -> Result<StatusView> {
        unimplemented!()
    }
    /// Read-only check of everything below a path; with `chunks` their bytes too.
    pub async fn fsck(&self, _path: &DfsPath, _chunks: bool) -> Result<FsckReport> {
        unimplemented!()
    }
    /// Runs (with `now`) or looks at the clean-up; deletions left.
    pub async fn gc(&self, _now: bool) -> Result<u64> {
        unimplemented!()
    }
    /// The node's counters as Prometheus text.
    pub async fn metrics(&self) -> Result<String> {
        unimplemented!()
    }
    /// What became of a request: `SESSION-LANE-SEQ`, or what was given as `--op-id`.
    pub async fn op_status(&self, _id: &str) -> Result<OpState> {
        unimplemented!()
    }

    // --- changes ---
    /// Any operations in order as one request (at most `limits::BATCH_ITEMS_MAX`); one outcome
    /// each: a refused one does not stop the next. What verbs with many paths use.
    pub async fn change_many(&self, _ops: Vec<Op>, _ids: &OpIds) -> Result<(String, Vec<Outcome>)> {
        unimplemented!()
    }
    /// One operation.
    pub async fn change(&self, _op: Op, _ids: &OpIds) -> Result<Changed> {
        unimplemented!()
    }
    pub async fn mkdir(
        &self,
        _path: &DfsPath,
        _mode: u16,
        _parents: bool,
        _ids: &OpIds,
    ) -> Result<Changed> {
        unimplemented!()
    }
    pub async fn remove(
        &self,
        _path: &DfsPath,
        _what: Removal,
        _precondition: Precondition,
        _ids: &OpIds,
    ) -> Result<Changed> {
        unimplemented!()
    }
    pub async fn rename(
        &self,
        _from: &DfsPath,
        _to: &DfsPath,
        _replace: Replacement,
        _ids: &OpIds,
    ) -> Result<Changed> {
        unimplemented!()
    }
    pub async fn copy(
        &self,
        _from: &DfsPath,
        _version: Option<FileVersion>,
        _to: &DfsPath,
        _precondition: Precondition,
        _ids: &OpIds,
    ) -> Result<Changed> {
        unimplemented!()
    }
    pub async fn restore(
        &self,
        _path: &DfsPath,
        _version: FileVersion,
        _ids: &OpIds,
    ) -> Result<Changed> {
        unimplemented!()
    }
    pub async fn set_attrs(
        &self,
        _path: &DfsPath,
        _mode: Option<u16>,
        _owner: Option<String>,
        _group: Option<String>,
        _ids: &OpIds,
    ) -> Result<Changed> {
        unimplemented!()
    }
    pub async fn undelete(&self, _path: &DfsPath, _ids: &OpIds) -> Result<Changed> {
        unimplemented!()
    }
    pub async fn settings(&self, _settings: Settings, _ids: &OpIds) -> Result<Changed> {
        unimplemented!()
    }

    // --- upload ---
    /// A whole content from memory.
    pub async fn put_bytes(
        &self,
        _data: bytes::Bytes,
        _to: &DfsPath,
        _options: &PutOptions,
    ) -> Result<PutReport> {
        unimplemented!()
    }
    /// A local regular file.
    ///
    /// # Errors
    /// `conflict` naming the local file if it changed meanwhile; nothing is committed then.
    pub async fn put_file(
        &self,
        _local: &Path,
        _to: &DfsPath,
        _options: &PutOptions,
        _progress: &dyn Progress,
    ) -> Result<PutReport> {
        unimplemented!()
    }
    /// A stream of unknown length (standard input).
    pub async fn put_reader(
        &self,
        _from: &mut (dyn AsyncRead + Send + Unpin),
        _to: &DfsPath,
        _options: &PutOptions,
        _progress: &dyn Progress,
    ) -> Result<PutReport> {
        unimplemented!()
    }
    /// A local directory as the remote directory `to`, which is made if missing. What cannot be
    /// read or stored (links, devices) is told to `progress` and counted in `failed`.
    pub async fn put_tree(
        &self,
        _local: &Path,
        _to: &DfsPath,
        _options: &PutOptions,
        _progress: &dyn Progress,
    ) -> Result<TreeReport> {
        unimplemented!()
    }

    // --- download ---
    /// A remote file as the local file `local`: beside it first, renamed when whole.
    pub async fn get_file(
        &self,
        _path: &DfsPath,
        _local: &Path,
        _options: &GetOptions,
        _progress: &dyn Progress,
    ) -> Result<GetReport> {
        unimplemented!()
    }
    /// A remote directory as the local directory `local`, which is made if missing.
    pub async fn get_tree(
        &self,
        _path: &DfsPath,
        _local: &Path,
        _options: &GetOptions,
        _progress: &dyn Progress,
    ) -> Result<TreeReport> {
        unimplemented!()
    }
    /// A remote file in order to a writer (standard output), reading ahead within the window.
    pub async fn cat(
        &self,
        _path: &DfsPath,
        _to: &mut (dyn AsyncWrite + Send + Unpin),
        _options: &GetOptions,
        _progress: &dyn Progress,
    ) -> Result<GetReport> {
        unimplemented!()
    }
}
