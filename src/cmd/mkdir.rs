//! `dfs mkdir`.

use super::context::Context;
use super::failure::Outcome;
use super::globals::OpFlag;
use super::items::{Change, parse_paths, send_all};
use crate::config::units::parse_mode;
use crate::error::{Code, Error};
use crate::shard::command::Op;

/// Make directories
#[derive(clap::Args)]
pub struct Args {
    /// Make missing parents too; an existing directory is fine
    #[arg(short, long)]
    parents: bool,
    /// Permission bits, octal
    #[arg(long, value_name = "MODE", value_parser = parse_mode, default_value = "755")]
    mode: u16,
    #[command(flatten)]
    op: OpFlag,
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<String>,
}

pub async fn run(args: Args, cx: &Context) -> Outcome {
    let (mode, parents) = (args.mode, args.parents);
    let changes = parse_paths(&args.paths)?
        .into_iter()
        .map(|path| Change {
            path: path.clone(),
            from: None,
            op: Op::Mkdir {
                path,
                mode,
                parents,
            },
        })
        .collect();
    send_all(cx, changes, &args.op, |_| false, hint).await
}

fn hint(error: Error) -> Error {
    match error.code {
        Code::NotFound => error.hint("make the missing parents with mkdir -p"),
        _ => error,
    }
}
