//! `dfs mv`.

use super::context::Context;
use super::failure::{Outcome, advise};
use super::globals::OpFlag;
use super::items::{Change, parse_paths, send_all};
use super::operands;
use super::remote::{before, look, must_look};
use super::targets::{self, Found, Target};
use crate::error::{Code, Error};
use crate::shard::command::Op;
use crate::types::{DfsPath, Replacement};

/// Move and rename files and directories
///
/// Atomic, and as quick for a large directory as for a file. DST is a directory if it exists as
/// one or ends in `/`.
#[derive(clap::Args)]
#[command(override_usage = "dfs mv [OPTIONS] <SRC>... <DST>")]
pub struct Args {
    /// The new name must be free (the default)
    #[arg(long, conflicts_with = "overwrite")]
    if_absent: bool,
    /// A file may replace a file, a directory an empty directory
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    op: OpFlag,
    /// Remote paths. Last where they go
    #[arg(value_name = "SRC… DST", required = true)]
    paths: Vec<String>,
}

pub async fn run(args: Args, cx: &Context) -> Outcome {
    let (sources, typed) = operands::split(args.paths, "DST")?;
    let sources = parse_paths(&sources)?;
    let to = DfsPath::parse(&typed)?;
    let client = cx.connect().await?;
    let names: Vec<_> = sources.iter().map(DfsPath::name).collect();
    let there = look(&client, &to).await?;
    let found = match &sources[..] {
        [_] => before(&client, (&to, there), &args.op.only(), "").await?,
        _ => there,
    };
    // A directory may be renamed to a missing `new/`, a file may not.
    let tree = match &sources[..] {
        [only] if there == Found::Missing && typed.ends_with('/') => {
            must_look(&client, only).await? == Found::Dir
        }
        _ => there != found,
    };
    let target = Target {
        typed: &typed,
        found,
        sources: sources.len(),
        tree,
    };
    let targets = targets::remote(target, &to, &names)?;
    let replace = if args.overwrite {
        Replacement::Posix
    } else {
        Replacement::Never
    };
    let changes = sources
        .into_iter()
        .zip(targets)
        .map(|(from, to)| Change {
            path: to.clone(),
            from: Some(from.clone()),
            op: Op::Rename { from, to, replace },
        })
        .collect();
    send_all(cx, changes, &args.op, |_| false, hint).await
}

fn hint(error: Error) -> Error {
    match error.code {
        Code::Exists => advise(
            error,
            "use --overwrite to replace a file or an empty directory",
        ),
        _ => error,
    }
}
