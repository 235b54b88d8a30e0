//! `dfs ring`.

use super::context::Context;
use super::failure::{Failure, Outcome};
use super::table::Table;
use crate::config::units::parse_size;
use crate::error::Error;
use crate::proto::{AdminAnswer, AdminCall, LocatedChunk, PlanView, RingView, ShareView};
use crate::ring::weight_of;
use crate::types::DfsPath;
use serde::Serialize;

/// Show the ring of chunks, where a file's chunks are, what new nodes would move
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Who holds how much of all chunks
    Show,
    /// The nodes that hold a file's chunks (of its first manifest page)
    Locate {
        /// The file
        #[arg(value_name = "PATH")]
        path: String,
    },
    /// What would move if nodes joined
    Plan {
        /// Capacity of each
        #[arg(long, value_name = "CAPACITY", required = true, num_args = 1.., value_parser = parse_size)]
        add: Vec<u64>,
    },
}

#[derive(Serialize)]
struct LocatedJson {
    hash: String,
    len: u32,
    owners: Vec<u64>,
    present: Vec<u64>,
}

pub async fn run(args: Args, cx: &Context) -> Outcome {
    let call = match args.verb {
        Verb::Show => AdminCall::Ring,
        Verb::Locate { path } => AdminCall::Locate(DfsPath::parse(&path)?),
        Verb::Plan { add } => AdminCall::Plan(add.into_iter().map(weight_of).collect()),
    };
    match cx.connect().await?.admin(call).await? {
        AdminAnswer::Ring(ring) => show(cx, &ring),
        AdminAnswer::Located(chunks) => located(cx, &chunks),
        AdminAnswer::Plan(plan) => planned(cx, &plan),
        _ => Err(Failure::Error(Error::failed(
            "the cluster answered something else than a ring",
        ))),
    }
}

fn percent(millionths: u32) -> String {
    format!("{:.2} %", f64::from(millionths) / 10_000.0)
}

fn shares(shares: &[ShareView]) -> Table {
    let mut table = Table::new(&["NODE", "WEIGHT", "HOLDS", "FAIR"]);
    for share in shares {
        table.row(vec![
            share.node.to_string(),
            share.weight.to_string(),
            percent(share.share),
            percent(share.fair),
        ]);
    }
    table
}

fn show(cx: &Context, ring: &RingView) -> Outcome {
    if cx.json() {
        return cx.out.json(ring);
    }
    let epochs: Vec<String> = ring.epochs.iter().map(u64::to_string).collect();
    cx.out
        .line(format_args!("open epochs: {}", epochs.join(", ")))?;
    cx.out.write(|out| write!(out, "{}", shares(&ring.shares)))
}

fn located(cx: &Context, chunks: &[LocatedChunk]) -> Outcome {
    let numbers = |nodes: &[crate::types::NodeId]| nodes.iter().map(|node| node.0).collect();
    if cx.json() {
        let chunks: Vec<LocatedJson> = chunks
            .iter()
            .map(|chunk| LocatedJson {
                hash: chunk.hash.to_string(),
                len: chunk.len,
                owners: numbers(&chunk.owners),
                present: numbers(&chunk.present),
            })
            .collect();
        return cx.out.json(&chunks);
    }
    let mut table = Table::new(&["CHUNK", "BYTES", "BELONGS ON", "IS ON"]);
    let text = |nodes: &[crate::types::NodeId]| {
        let nodes: Vec<String> = nodes.iter().map(ToString::to_string).collect();
        nodes.join(",")
    };
    for chunk in chunks {
        let hash: String = chunk.hash.to_string().chars().take(16).collect();
        table.row(vec![
            hash,
            chunk.len.to_string(),
            text(&chunk.owners),
            text(&chunk.present),
        ]);
    }
    cx.out.write(|out| write!(out, "{table}"))
}

fn planned(cx: &Context, plan: &PlanView) -> Outcome {
    if cx.json() {
        return cx.out.json(plan);
    }
    let moved = percent(plan.moved);
    cx.out
        .line(format_args!("{moved} of all copies would be made anew"))?;
    cx.out.write(|out| write!(out, "{}", shares(&plan.shares)))
}
