//! `dfs versions`.

use super::context::Context;
use super::failure::Outcome;
use super::globals::ReadFlag;
use super::text::{Shown, Time};
use crate::proto::VersionView;
use crate::types::{ChunkHash, DfsPath, FileVersion, WallTime};
use serde::Serialize;

/// Show the versions of a file, newest first
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    read: ReadFlag,
    #[arg(value_name = "PATH")]
    path: String,
}

#[derive(Serialize)]
struct VersionsJson<'a> {
    path: &'a DfsPath,
    versions: Vec<VersionJson<'a>>,
}

#[derive(Serialize)]
struct VersionJson<'a> {
    version: FileVersion,
    /// `current` or `archived`.
    state: &'static str,
    size: u64,
    #[serde(serialize_with = "super::entry::time")]
    modified: WallTime,
    owner: &'a str,
    group: &'a str,
    #[serde(serialize_with = "super::entry::octal")]
    mode: u16,
    #[serde(serialize_with = "super::entry::text")]
    hash: ChunkHash,
}

impl<'a> VersionJson<'a> {
    fn new(view: &'a VersionView) -> Self {
        VersionJson {
            version: view.attrs.version,
            state: state(view),
            size: view.attrs.size,
            modified: view.attrs.modified,
            owner: &view.attrs.owner,
            group: &view.attrs.group,
            mode: view.attrs.mode,
            hash: view.attrs.hash,
        }
    }
}

fn state(view: &VersionView) -> &'static str {
    if view.current { "current" } else { "archived" }
}

pub async fn run(args: Args, cx: &Context) -> Outcome {
    let path = DfsPath::parse(&args.path)?;
    let client = cx.connect().await?;
    let versions = client
        .versions(&path, args.read.level())
        .await
        .map_err(|e| e.at(&path))?;
    if cx.json() {
        let versions = versions.iter().map(VersionJson::new).collect();
        return cx.out.json(&VersionsJson {
            path: &path,
            versions,
        });
    }
    cx.out.write(|out| {
        for view in &versions {
            let (version, size) = (view.attrs.version.0, view.attrs.size);
            let modified = Time::human(view.attrs.modified);
            let owner = Shown::new(&view.attrs.owner, cx.out.terminal);
            writeln!(
                out,
                "{version:>6} {:<8} {size:>14} {modified} {owner}",
                state(view)
            )?;
        }
        Ok(())
    })
}
