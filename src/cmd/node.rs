//! `dfs node`.

use super::context::Context;
use super::failure::{Failure, Outcome};
use super::table::Table;
use crate::config::units::human_size as size;
use crate::error::Error;
use crate::proto::{AdminAnswer, AdminCall, MemberView};
use crate::types::NodeId;
use serde::Serialize;

/// List nodes, drain, remove or weigh them
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// List the nodes of the cluster
    Ls,
    /// Move everything off a node, so that it can be removed
    Drain {
        /// Its number
        node: u64,
    },
    /// Let a draining node take part again
    Undrain {
        /// Its number
        node: u64,
    },
    /// Take a node out for ever
    Remove {
        /// Its number
        node: u64,
        /// Although it was not drained: it is lost, with copies that nobody else has
        #[arg(long)]
        force: bool,
    },
    /// Set a node's share of chunks, in units of capacity (GiB); 0 holds none
    Weight {
        /// Its number
        node: u64,
        /// Relative to the other nodes'
        weight: u32,
    },
}

#[derive(Serialize)]
struct DoneJson<'a> {
    done: &'a str,
}

pub async fn run(args: Args, cx: &Context) -> Outcome {
    let call = match args.verb {
        Verb::Ls => AdminCall::Nodes,
        Verb::Drain { node } => AdminCall::Drain(NodeId(node)),
        Verb::Undrain { node } => AdminCall::Undrain(NodeId(node)),
        Verb::Remove { node, force } => AdminCall::Remove {
            node: NodeId(node),
            force,
        },
        Verb::Weight { node, weight } => AdminCall::Weight {
            node: NodeId(node),
            weight,
        },
    };
    match cx.connect().await?.admin(call).await? {
        AdminAnswer::Nodes(nodes) => show(cx, &nodes),
        AdminAnswer::Done(text) => said(cx, &text),
        _ => Err(Failure::Error(Error::failed(
            "the cluster answered something else than nodes",
        ))),
    }
}

/// What was done, in words.
pub(super) fn said(cx: &Context, text: &str) -> Outcome {
    match cx.json() {
        true => cx.out.json(&DoneJson { done: text }),
        false => cx.out.line(text),
    }
}

fn show(cx: &Context, nodes: &[MemberView]) -> Outcome {
    if cx.json() {
        return cx.out.json(&nodes);
    }
    let mut table = Table::new(&[
        "NODE", "STATE", "ADDRESS", "ZONE", "RACK", "WEIGHT", "REPLICAS", "CHUNKS", "BYTES",
        "FREE", "VERSION",
    ]);
    for node in nodes {
        table.row(vec![
            node.node.to_string(),
            node.state.clone(),
            node.address.clone(),
            node.zone.clone(),
            node.rack.clone(),
            node.weight.to_string(),
            node.groups.len().to_string(),
            node.chunks.to_string(),
            size(node.chunk_bytes),
            size(node.disk_available),
            node.version.clone(),
        ]);
    }
    cx.out.write(|out| write!(out, "{table}"))
}
