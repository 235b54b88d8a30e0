//! `dfs bench`: measures a cluster through the client library, as a user's programs would load
//! it. Called by `cmd`. Works in a directory of its own, `/dfs-bench-…`, and removes it at the
//! end, whatever happened.
//!
//! Clients are tasks of one process on one connection. Every request is timed from the call to
//! its answer, retries included; a failed request ends the measurement with its error. What is
//! removed at the end keeps its space until the cluster's grace time is over (`dfs gc --now`
//! returns it at once).

mod data;
mod measure;
mod meta;

pub use measure::{Measured, Percentiles};

use crate::client::{Client, OpIds};
use crate::env::Env;
use crate::error::Result;
use crate::shard::command::Removal;
use crate::types::{DfsPath, Name, Precondition};
use std::time::Duration;

/// Which requests are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// Contents: one large file, many middle-sized, a tree of small ones.
    Data,
    /// Names: create, stat, list, rename, remove.
    Meta,
    /// Both, one after the other.
    Mixed,
}

/// What is measured, and how much of it.
#[derive(Clone, Debug)]
pub struct BenchOptions {
    pub workload: Workload,
    /// Bytes of the large file of `data`; bytes of each file of `meta`. `None`: 1 GiB, 1 KiB.
    pub size: Option<u64>,
    /// Files created by `meta`, and files of the small tree of `data`. `None`: 100,000; 20,000.
    pub files: Option<u64>,
    /// Requests in flight. `None`: 128 for `meta`, 16 for `data`.
    pub clients: Option<usize>,
    /// Each phase that can ends after this. `None`: after all files.
    pub duration: Option<Duration>,
    /// All files of `meta` in one directory instead of one for each client.
    pub one_directory: bool,
    /// Where local files of `data` are made.
    pub scratch: std::path::PathBuf,
}

/// Runs a workload; phases come one after the other, in the order they ran.
///
/// # Errors
/// The first failed request, with the phase it was in.
pub async fn run(env: &Env, client: &Client, options: &BenchOptions) -> Result<Vec<Measured>> {
    let name = format!("dfs-bench-{:016x}", env.rng.u64());
    let top = DfsPath::root().join(&Name::parse(&name)?)?;
    client.mkdir(&top, 0o755, false, &OpIds::Automatic).await?;
    let measured = phases(env, client, options, &top).await;
    // The measurement's error says more than that of the clean-up.
    let removed = client
        .remove(&top, Removal::Tree, Precondition::Any, &OpIds::Automatic)
        .await;
    let measured = measured?;
    removed?;
    Ok(measured)
}

async fn phases(
    env: &Env,
    client: &Client,
    options: &BenchOptions,
    top: &DfsPath,
) -> Result<Vec<Measured>> {
    let mut measured = Vec::new();
    if options.workload != Workload::Data {
        measured.extend(meta::run(env, client, options, top).await?);
    }
    if options.workload != Workload::Meta {
        measured.extend(data::run(env, client, options, top).await?);
    }
    Ok(measured)
}

/// A directory of a phase.
async fn subdirectory(client: &Client, top: &DfsPath, name: &str) -> Result<DfsPath> {
    let dir = top.join(&Name::parse(name)?)?;
    client.mkdir(&dir, 0o755, false, &OpIds::Automatic).await?;
    Ok(dir)
}
