//! `dfs rmdir`.

use super::context::Context;
use super::failure::Outcome;
use super::globals::OpFlag;
use super::items::{Change, parse_paths, send_all};
use crate::error::{Code, Error};
use crate::shard::command::{Op, Removal};
use crate::types::Precondition;

/// Remove empty directories
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    op: OpFlag,
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<String>,
}

pub async fn run(args: Args, cx: &Context) -> Outcome {
    let (what, precondition) = (Removal::EmptyDir, Precondition::Any);
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
    send_all(cx, changes, &args.op, |_| false, hint).await
}

fn hint(error: Error) -> Error {
    match error.code {
        Code::NotEmpty => error.hint("use rm -r to remove it with everything below"),
        _ => error,
    }
}
