//! `dfs undelete`.

use super::context::Context;
use super::failure::Outcome;
use super::globals::OpFlag;
use super::items::show_changed;
use super::text::Shown;
use crate::config::units::human_duration;
use crate::proto::DeletedView;
use crate::types::{DfsPath, Kind, ReadLevel};
use serde::Serialize;
use std::time::Duration;

/// Bring back what was removed, inside its grace time
#[derive(clap::Args)]
pub struct Args {
    /// Show what of the directory PATH can be brought back
    #[arg(long)]
    list: bool,
    #[command(flatten)]
    op: OpFlag,
    /// What was removed; with --list the directory it was in
    #[arg(value_name = "PATH")]
    path: String,
}

#[derive(Serialize)]
struct ListJson<'a> {
    path: &'a DfsPath,
    deleted: Vec<DeletedJson<'a>>,
}

#[derive(Serialize)]
struct DeletedJson<'a> {
    name: &'a str,
    kind: Kind,
    /// Milliseconds until it is gone for good.
    left_ms: u64,
}

pub async fn run(args: Args, cx: &Context) -> Outcome {
    let path = DfsPath::parse(&args.path)?;
    let client = cx.connect().await?;
    if args.list {
        let deleted = client.deleted(&path, ReadLevel::Linearizable).await;
        return list(cx, &path, &deleted.map_err(|e| e.at(&path))?);
    }
    let changed = client
        .undelete(&path, &args.op.only())
        .await
        .map_err(|e| e.at(&path))?;
    show_changed(cx, &path, None, &changed)
}

fn list(cx: &Context, path: &DfsPath, deleted: &[DeletedView]) -> Outcome {
    if cx.json() {
        let deleted = deleted
            .iter()
            .map(|d| DeletedJson {
                name: d.name.as_str(),
                kind: d.kind,
                left_ms: d.left_ms,
            })
            .collect();
        return cx.out.json(&ListJson { path, deleted });
    }
    for gone in deleted {
        let slash = if gone.kind == Kind::Dir { "/" } else { "" };
        let left = human_duration(Duration::from_millis(gone.left_ms));
        let name = Shown::new(gone.name.as_str(), cx.out.terminal);
        cx.out.line(format_args!("{left:>8} left  {name}{slash}"))?;
    }
    Ok(())
}
