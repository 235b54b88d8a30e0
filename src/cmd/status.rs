//! `dfs status`: one screen.

use super::context::Context;
use super::failure::Outcome;
use super::screen::screen;
use crate::proto::{GroupView, NodeView, RingHealth};
use crate::types::{ClusterId, GroupId, NodeId};
use serde::Serialize;

/// Show the health of the cluster, its nodes and shards
#[derive(clap::Args)]
pub struct Args {}

#[derive(Serialize)]
struct StatusJson<'a> {
    #[serde(serialize_with = "super::entry::text")]
    cluster: ClusterId,
    health: &'a str,
    reasons: &'a [String],
    nodes: Vec<NodeJson<'a>>,
    shards: Vec<ShardJson<'a>>,
    ring: RingJson,
}

/// Copies of chunks, as the nodes counted them last.
#[derive(Serialize)]
struct RingJson {
    /// Missing where they belong, and being made, or without a node to be on.
    under_replicated: u64,
    /// Of these, the ones without a node to be on.
    without_node: u64,
    /// Still where they do not belong any more.
    moving: u64,
    /// Missing where they belong, and nobody has one.
    lost: u64,
    /// Of the oldest count; `null` while a node has not counted.
    counted_ms_ago: Option<u64>,
}

#[derive(Serialize)]
struct NodeJson<'a> {
    node: NodeId,
    address: &'a str,
    state: &'a str,
    zone: &'a str,
    rack: &'a str,
    version: &'a str,
    /// Bytes of the file system that holds the data.
    disk_total: u64,
    disk_available: u64,
    /// Of these, by the data and by everything else there.
    used: u64,
    chunks: u64,
    chunk_bytes: u64,
    /// Shards this node leads.
    leaders: u64,
    uptime_ms: u64,
}

#[derive(Serialize)]
struct ShardJson<'a> {
    shard: GroupId,
    prefix: &'a str,
    leader: Option<NodeId>,
    replicas: &'a [NodeId],
    term: u64,
    applied: u64,
    entries: u64,
    bytes: u64,
    /// Deletions still to be cleaned up.
    deletions: u64,
}

pub async fn run(_: Args, cx: &Context) -> Outcome {
    let overview = cx.connect().await?.overview().await?;
    let status = &overview.status;
    if cx.json() {
        return cx.out.json(&StatusJson {
            cluster: status.cluster,
            health: &status.health,
            reasons: &status.reasons,
            nodes: status.nodes.iter().map(node_json).collect(),
            shards: status.groups.iter().map(shard_json).collect(),
            ring: ring_json(overview.ring),
        });
    }
    cx.out
        .write(|out| out.write_all(screen(&overview).as_bytes()))
}

fn node_json(node: &NodeView) -> NodeJson<'_> {
    NodeJson {
        node: node.node,
        address: &node.address,
        state: &node.state,
        zone: &node.zone,
        rack: &node.rack,
        version: &node.version,
        disk_total: node.disk_total,
        disk_available: node.disk_available,
        used: node.disk_total.saturating_sub(node.disk_available),
        chunks: node.chunks,
        chunk_bytes: node.chunk_bytes,
        leaders: node.leaders,
        uptime_ms: node.uptime_ms,
    }
}

fn ring_json(ring: RingHealth) -> RingJson {
    RingJson {
        under_replicated: ring.under_replicated,
        without_node: ring.without_node,
        moving: ring.moving,
        lost: ring.lost,
        counted_ms_ago: ring.counted_ms_ago,
    }
}

fn shard_json(group: &GroupView) -> ShardJson<'_> {
    ShardJson {
        shard: group.group,
        prefix: &group.prefix,
        leader: group.leader,
        replicas: &group.replicas,
        term: group.term,
        applied: group.applied,
        entries: group.entries,
        bytes: group.bytes,
        deletions: group.deletions,
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
