//! `dfs bench`: measures a cluster through the client library, as a user's programs would load
//! it. Called by `cmd`. Works in a directory of its own, `/dfs-bench-…`, and removes it at the
//! end, whatever happened; the same with its local files.
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
use crate::error::{Code, Error, Result};
use crate::shard::command::Removal;
use crate::types::{DfsPath, Name, Precondition};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Times a local directory is tried to be removed, and the pause between them.
const REMOVALS_MAX: u32 = 20;
const REMOVALS_EVERY: Duration = Duration::from_millis(50);

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
    pub scratch: PathBuf,
}

/// Runs a workload until its end or until `stop` ends; phases come one after the other, in the
/// order they ran. What was made, here and in the cluster, is removed before it returns.
///
/// # Errors
/// The first failed request, with the phase it was in; `interrupted` after `stop`. What could not
/// be removed is named, with what to do.
pub async fn run(
    env: &Env,
    client: &Client,
    options: &BenchOptions,
    stop: impl Future<Output = ()>,
) -> Result<Vec<Measured>> {
    let name = format!("dfs-bench-{:016x}", env.rng.u64());
    let places = Places {
        top: DfsPath::root().join(&Name::parse(&name)?)?,
        scratch: options.scratch.join(&name),
    };
    // Not to be stopped in the middle: it would be made behind its removal.
    let ids = OpIds::Automatic;
    client.mkdir(&places.top, 0o755, false, &ids).await?;
    let measured = tokio::select! {
        biased;
        () = stop => Err(Error::new(Code::Interrupted, "interrupted")
            .hint("what was measured is lost; start it again")),
        measured = phases(env, client, options, &places) => measured,
    };
    let left = clean_up(client, &places).await;
    judged(measured, &left)
}

/// Where a benchmark works.
struct Places {
    /// Its directory in the cluster.
    top: DfsPath,
    /// Its directory for local files; made by who needs it.
    scratch: PathBuf,
}

async fn phases(
    env: &Env,
    client: &Client,
    options: &BenchOptions,
    places: &Places,
) -> Result<Vec<Measured>> {
    let mut measured = Vec::new();
    if options.workload != Workload::Data {
        let names = subdirectory(client, &places.top, "names").await?;
        measured.extend(meta::run(env, client, options, &names).await?);
    }
    if options.workload != Workload::Meta {
        measured.extend(data::run(env, client, options, places).await?);
    }
    Ok(measured)
}

/// Something that could not be removed.
#[derive(Debug)]
struct Left {
    what: String,
    why: Error,
    /// A command that removes it.
    how: String,
}

/// Removes what a benchmark made, and tells what of it stays. The cluster may take as long as the
/// client's timeout.
async fn clean_up(client: &Client, places: &Places) -> Vec<Left> {
    let Places { top, scratch } = places;
    let mut left = Vec::new();
    let ids = OpIds::Automatic;
    let removed = client.remove(top, Removal::Tree, Precondition::Any, &ids);
    match removed.await {
        Ok(_) => {}
        Err(why) if why.code == Code::NotFound => {}
        Err(why) => left.push(Left {
            what: top.to_string(),
            why,
            how: format!("dfs rm -r {top}"),
        }),
    }
    if let Err(e) = remove_local(scratch).await {
        left.push(Left {
            what: scratch.display().to_string(),
            why: Error::io("remove", scratch, &e),
            how: format!("rm -r {}", scratch.display()),
        });
    }
    left
}

/// What was being written when a phase was stopped may come to lie there while it is removed.
async fn remove_local(dir: &Path) -> std::io::Result<()> {
    let mut tries = 0;
    loop {
        tries += 1;
        match tokio::fs::remove_dir_all(dir).await {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(_) if tries < REMOVALS_MAX => tokio::time::sleep(REMOVALS_EVERY).await,
            ended => return ended,
        }
    }
}

/// The outcome with what is left behind.
fn judged(measured: Result<Vec<Measured>>, left: &[Left]) -> Result<Vec<Measured>> {
    let Some(first) = left.first() else {
        return measured;
    };
    let said = left
        .iter()
        .map(|left| format!("{} stays ({})", left.what, left.why.message));
    let said = said.collect::<Vec<_>>().join(", ");
    let how: Vec<_> = left.iter().map(|left| format!("`{}`", left.how)).collect();
    let message = match &measured {
        Ok(_) => format!("measured, but {said}"),
        Err(error) => format!("{}; {said}", error.message),
    };
    let error = measured.map_or_else(|error| error, |_| Error::new(first.why.code, ""));
    Err(Error {
        message,
        hint: Some(format!("remove it with {}", how.join(" and "))),
        ..error
    })
}

/// A directory of a phase.
async fn subdirectory(client: &Client, top: &DfsPath, name: &str) -> Result<DfsPath> {
    let dir = top.join(&Name::parse(name)?)?;
    client.mkdir(&dir, 0o755, false, &OpIds::Automatic).await?;
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left() -> Vec<Left> {
        vec![Left {
            what: "/dfs-bench-1".into(),
            why: Error::unavailable("no quorum"),
            how: "dfs rm -r /dfs-bench-1".into(),
        }]
    }

    #[test]
    fn what_is_left_behind_is_named_whatever_else_failed() {
        let done = judged(Ok(Vec::new()), &left()).unwrap_err();
        assert_eq!(done.code, Code::Unavailable);
        assert_eq!(
            done.to_string(),
            "measured, but /dfs-bench-1 stays (no quorum); remove it with `dfs rm -r /dfs-bench-1`"
        );
        let stopped = Err(Error::new(Code::Interrupted, "interrupted").hint("again"));
        let stopped = judged(stopped, &left()).unwrap_err();
        assert_eq!(stopped.code, Code::Interrupted);
        assert_eq!(
            stopped.to_string(),
            "interrupted; /dfs-bench-1 stays (no quorum); remove it with `dfs rm -r /dfs-bench-1`"
        );
        assert!(judged(Ok(Vec::new()), &[]).is_ok());
    }
}
