//! Pure: the screen of `dfs status`. Names of nodes and shards are other people's: all escaped.

use super::table::Table;
use super::text::Shown;
use crate::config::units::{human_duration, human_size};
use crate::proto::Overview;
use crate::types::NodeId;
use std::time::Duration;

/// Health and its reasons, the nodes, the shards, the ring.
pub fn screen(overview: &Overview) -> String {
    let Overview { status, ring } = overview;
    let safe = |text: &str| Shown::safe(text).to_string();
    let mut text = format!("cluster {} is {}\n", status.cluster, safe(&status.health));
    for reason in &status.reasons {
        text.push_str(&format!("  {}\n", safe(reason)));
    }
    let head = [
        "NODE", "ADDRESS", "STATE", "ZONE", "RACK", "DISK", "CHUNKS", "LEADS", "UP",
    ];
    let mut nodes = Table::new(&head);
    for node in &status.nodes {
        let used = node.disk_total.saturating_sub(node.disk_available);
        nodes.row(vec![
            node.node.to_string(),
            safe(&node.address),
            safe(&node.state),
            or_dash(safe(&node.zone)),
            or_dash(safe(&node.rack)),
            format!("{} of {}", human_size(used), human_size(node.disk_total)),
            format!("{} ({})", node.chunks, human_size(node.chunk_bytes)),
            node.leaders.to_string(),
            human_duration(Duration::from_millis(node.uptime_ms)),
        ]);
    }
    let head = [
        "SHARD",
        "PREFIX",
        "LEADER",
        "REPLICAS",
        "ENTRIES",
        "BYTES",
        "TO CLEAN UP",
    ];
    let mut shards = Table::new(&head);
    for group in &status.groups {
        let replicas: Vec<String> = group.replicas.iter().map(NodeId::to_string).collect();
        shards.row(vec![
            group.group.to_string(),
            safe(&group.prefix),
            group
                .leader
                .map_or("none".into(), |leader| leader.to_string()),
            replicas.join(","),
            group.entries.to_string(),
            human_size(group.bytes),
            group.deletions.to_string(),
        ]);
    }
    let (missing, moving, lost) = (ring.under_replicated, ring.moving, ring.lost);
    let counted = match ring.counted_ms_ago {
        Some(ago) => format!("counted {} ago", human_duration(Duration::from_millis(ago))),
        None => "not counted by all yet".into(),
    };
    let ring = format!(
        "ring: copies under-replicated {missing}, moving {moving}, lost {lost} ({counted})\n"
    );
    format!("{text}\n{nodes}\n{shards}\n{ring}")
}

fn or_dash(text: String) -> String {
    if text.is_empty() { "-".into() } else { text }
}
