//! `dfs scrub`.

use super::context::Context;
use super::failure::{Failure, Outcome};
use super::items::report_silent;
use super::table::Table;
use crate::error::Error;
use crate::proto::{AdminAnswer, AdminCall, ScrubView};

/// Show how far the verification of stored chunks is
///
/// Exit status 10 when a node did not answer.
#[derive(clap::Args)]
pub struct Args {
    /// Verify everything now
    #[arg(long)]
    now: bool,
}

pub async fn run(args: Args, cx: &Context) -> Outcome {
    let call = AdminCall::Scrub { now: args.now };
    let AdminAnswer::Scrub(nodes) = cx.connect().await?.admin(call).await? else {
        return Err(Failure::Error(Error::failed(
            "the cluster answered something else than a scrub",
        )));
    };
    show(cx, nodes.told)?;
    report_silent(cx, nodes.silent)
}

fn show(cx: &Context, nodes: Vec<ScrubView>) -> Outcome {
    if cx.json() {
        return cx.out.json(&nodes);
    }
    let mut table = Table::new(&["NODE", "STATE", "VERIFIED", "OF", "DAMAGED"]);
    for node in nodes {
        let state = if node.running { "running" } else { "idle" };
        table.row(vec![
            node.node.to_string(),
            state.into(),
            node.verified.to_string(),
            node.chunks.to_string(),
            node.damaged.to_string(),
        ]);
    }
    cx.out.write(|out| write!(out, "{table}"))
}
