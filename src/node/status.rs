//! What an operator sees: health with its reasons, groups, counters.

use super::Node;
use super::group::Group;
use super::metrics::gauge;
use crate::error::Result;
use crate::proto::EntryView;
use crate::proto::{GroupView, NodeView, StatusView};
use crate::raft::GroupStatus;
use crate::shard;
use crate::store::overlay::View;
use crate::types::{DfsPath, GroupId, ReadLevel};

/// Used share of the disk above which the node is in warning, and critical (percent).
const DISK_WARNING: u64 = 85;
const DISK_CRITICAL: u64 = 95;

impl Node {
    pub(super) fn leads(&self, group: &Group) -> bool {
        let status = group.raft.status();
        status.leader == Some(status.replica)
    }

    pub(super) async fn status(&self) -> Result<StatusView> {
        let space = self.env.disk.space(&self.data).await;
        let (total, available) = space.map_or((0, 0), |space| (space.total, space.available));
        let free = (available * 100).checked_div(total).unwrap_or(0);
        let used = 100 - free.min(100);
        let mut reasons = Vec::new();
        let mut health = "yellow";
        // One node holds one copy of everything: that is never green.
        reasons.push("the cluster has one node: nothing is stored twice".to_owned());
        let mut state = "healthy";
        if used > DISK_CRITICAL {
            (health, state) = ("red", "critical");
            reasons.push(format!("node {}: {used} % of the disk is used", self.id));
        } else if used > DISK_WARNING {
            state = "warning";
            reasons.push(format!("node {}: {used} % of the disk is used", self.id));
        }
        let groups = [self.root_view(), self.shard_view().await?];
        for group in groups.iter().filter(|group| group.leader.is_none()) {
            health = "red";
            reasons.push(format!(
                "group {} ({}) has no leader",
                group.group, group.prefix
            ));
        }
        let lost = self.lost_chunks().await?;
        if !lost.is_empty() {
            health = "red";
            reasons.extend(lost);
        }
        reasons.extend(self.damage_found_at_start());
        let (chunks, chunk_bytes) = self.chunks.totals();
        let node = NodeView {
            node: self.id,
            address: self.address.clone(),
            state: state.into(),
            zone: self.zone.clone(),
            rack: self.rack.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            disk_total: total,
            disk_available: available,
            chunks,
            chunk_bytes,
            leaders: groups
                .iter()
                .filter(|group| group.leader == Some(self.id))
                .count() as u64,
            uptime_ms: self
                .env
                .clock
                .now()
                .saturating_sub(self.started)
                .as_millis() as u64,
        };
        Ok(StatusView {
            cluster: self.cluster,
            health: health.into(),
            reasons,
            nodes: vec![node],
            groups: groups.into(),
        })
    }

    fn group_view(&self, group: GroupId, prefix: &str, status: &GroupStatus) -> GroupView {
        let node_of = |replica| {
            let found = status.voters.iter().find(|(voter, _)| *voter == replica);
            found.map(|(_, node)| *node)
        };
        GroupView {
            group,
            prefix: prefix.into(),
            leader: status.leader.and_then(node_of),
            replicas: status.voters.iter().map(|(_, node)| *node).collect(),
            term: status.term,
            applied: status.applied,
            entries: 0,
            bytes: 0,
            deletions: 0,
        }
    }

    fn root_view(&self) -> GroupView {
        self.group_view(GroupId::ROOT, "(root group)", &self.root.raft.status())
    }

    async fn shard_view(&self) -> Result<GroupView> {
        let mut view = self.group_view(self.shard.id, "/", &self.shard.raft.status());
        let read = |view: &View| {
            Ok((
                shard::read::header(view)?,
                shard::read::stat(view, &DfsPath::root())?,
            ))
        };
        // Status answers without a quorum too: it shows what this node knows.
        let (header, root) = self.shard.read(ReadLevel::Stale, read).await?;
        if let EntryView::Dir(dir) = root {
            (view.entries, view.bytes) = (dir.totals.entries, dir.totals.bytes);
        }
        view.deletions = header.deletions;
        Ok(view)
    }

    pub(super) async fn metrics_text(&self) -> Result<String> {
        let mut out = self.metrics.text();
        let status = self.status().await?;
        let (chunks, bytes) = self.chunks.totals();
        gauge(
            &mut out,
            "dfs_chunks",
            "Chunks stored on this node.",
            chunks,
        );
        gauge(
            &mut out,
            "dfs_chunk_bytes",
            "Bytes of chunks stored on this node.",
            bytes,
        );
        let waiting = self.store.active_bytes() as u64;
        gauge(
            &mut out,
            "dfs_overlay_bytes",
            "Metadata that waits for the next fold.",
            waiting,
        );
        gauge(
            &mut out,
            "dfs_metadata_bytes",
            "Metadata on disk.",
            self.store.used_bytes()?,
        );
        for group in &status.groups {
            let name = format!("dfs_group_{}_applied", group.group);
            gauge(
                &mut out,
                &name,
                "Index of the newest applied entry.",
                group.applied,
            );
        }
        Ok(out)
    }
}
