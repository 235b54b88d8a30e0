//! `dfs chmod`.

use super::context::Context;
use super::failure::Outcome;
use super::globals::OpFlag;
use super::items::{Change, parse_paths, send_all};
use crate::config::units::parse_mode;
use crate::shard::command::Op;

/// Change permission bits
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    op: OpFlag,
    /// Permission bits, octal: 755
    #[arg(value_name = "MODE", value_parser = parse_mode)]
    mode: u16,
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<String>,
}

pub async fn run(args: Args, cx: &Context) -> Outcome {
    let mode = Some(args.mode);
    let changes = parse_paths(&args.paths)?
        .into_iter()
        .map(|path| Change {
            path: path.clone(),
            from: None,
            op: Op::SetAttrs {
                path,
                mode,
                owner: None,
                group: None,
            },
        })
        .collect();
    send_all(cx, changes, &args.op, |_| false, |error| error).await
}
