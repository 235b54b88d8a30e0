//! `dfs rm`.

use super::context::Context;
use super::failure::Outcome;
use super::globals::{OpFlag, parse_version};
use super::items::{Change, parse_paths, send_all};
use crate::error::{Code, Error};
use crate::shard::command::{Op, Removal};
use crate::types::{FileVersion, Precondition};

/// Remove files and directories
///
/// A directory with everything below goes at once, whatever its size; `undelete` brings it back
/// inside its grace time.
#[derive(clap::Args)]
pub struct Args {
    /// Directories with everything below
    #[arg(short, long)]
    recursive: bool,
    /// What does not exist is no error
    #[arg(short, long)]
    force: bool,
    /// Only if the file is at this version
    #[arg(long, value_name = "N", value_parser = parse_version, conflicts_with = "recursive")]
    if_version: Option<FileVersion>,
    #[command(flatten)]
    op: OpFlag,
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<String>,
}

pub async fn run(args: Args, cx: &Context) -> Outcome {
    let what = match (args.recursive, args.if_version) {
        (true, _) => Removal::Tree,
        // A version is a file's.
        (false, Some(_)) => Removal::File,
        (false, None) => Removal::FileOrEmptyDir,
    };
    let precondition = args
        .if_version
        .map_or(Precondition::Any, Precondition::Version);
    let changes = parse_paths(&args.paths)?
        .into_iter()
        .map(|path| Change {
            path: path.clone(),
            from: None,
            op: Op::Remove {
                path,
                what,
                precondition,
            },
        })
        .collect();
    let ignore = if args.force { missing } else { nothing };
    send_all(cx, changes, &args.op, ignore, hint).await
}

fn missing(error: &Error) -> bool {
    error.code == Code::NotFound
}

fn nothing(_: &Error) -> bool {
    false
}

fn hint(error: Error) -> Error {
    match error.code {
        Code::NotEmpty => error.hint("use rm -r to remove it with everything below"),
        _ => error,
    }
}
