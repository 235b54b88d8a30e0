//! `dfs repair`.

use super::context::Context;
use super::failure::{Failure, Outcome};
use super::items::report_silent;
use super::table::Table;
use crate::config::units::human_size as size;
use crate::error::Error;
use crate::proto::{AdminAnswer, AdminCall, RepairView};

/// Show what is missing, being copied, or lost
///
/// Counted from what should exist: each node compares the chunks that belong on it with those it
/// has. Exit status 10 when a node did not answer.
#[derive(clap::Args)]
pub struct Args {
    /// Show the state (there is nothing else to do: repair runs by itself)
    #[arg(long)]
    status: bool,
}

pub async fn run(args: Args, cx: &Context) -> Outcome {
    // The flag is there for what reads better in a script.
    let Args { status: _ } = args;
    let AdminAnswer::Repair(nodes) = cx.connect().await?.admin(AdminCall::Repair).await? else {
        return Err(Failure::Error(Error::failed(
            "the cluster answered something else than the state of repair",
        )));
    };
    show(cx, nodes.told)?;
    report_silent(cx, nodes.silent)
}

fn show(cx: &Context, nodes: Vec<RepairView>) -> Outcome {
    if cx.json() {
        return cx.out.json(&nodes);
    }
    let mut table = Table::new(&[
        "NODE",
        "BELONG HERE",
        "MISSING",
        "LOST",
        "SURPLUS",
        "COPIED",
        "BYTES",
        "COUNTED",
    ]);
    for node in nodes {
        let counted = match (node.running, node.counted_ms_ago) {
            (true, _) => "running".to_owned(),
            (false, None) => "not yet".to_owned(),
            (false, Some(ms)) => format!("{} s ago", ms / 1_000),
        };
        table.row(vec![
            node.node.to_string(),
            node.wanted.to_string(),
            node.missing.to_string(),
            node.lost.to_string(),
            node.surplus.to_string(),
            node.copied.to_string(),
            size(node.copied_bytes),
            counted,
        ]);
    }
    cx.out.write(|out| write!(out, "{table}"))
}
