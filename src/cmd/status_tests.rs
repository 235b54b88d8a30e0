//! Tests of the status screen: the exact text.

use super::{node_json, ring_json, screen, shard_json};
use crate::proto::{GroupView, NodeView, Overview, RingHealth, StatusView};
use crate::types::{ClusterId, GroupId, NodeId};

fn status() -> StatusView {
    StatusView {
        cluster: ClusterId([0xab; 16]),
        health: "yellow".into(),
        reasons: vec!["one node: no copy survives its loss".into()],
        nodes: vec![NodeView {
            node: NodeId(1),
            address: "127.0.0.1:7440".into(),
            state: "healthy".into(),
            zone: String::new(),
            rack: "r1".into(),
            version: "0.1.0".into(),
            disk_total: 10 << 30,
            disk_available: 4 << 30,
            chunks: 12,
            chunk_bytes: 3 << 20,
            leaders: 2,
            uptime_ms: 3_661_000,
        }],
        groups: vec![GroupView {
            group: GroupId(1),
            prefix: "/".into(),
            leader: Some(NodeId(1)),
            replicas: vec![NodeId(1)],
            term: 2,
            applied: 100,
            entries: 40,
            bytes: 2_048,
            deletions: 0,
        }],
    }
}

const RING: RingHealth = RingHealth {
    under_replicated: 3,
    without_node: 2,
    moving: 2,
    lost: 1,
    counted_ms_ago: Some(12_000),
};

#[test]
fn one_screen_says_health_reasons_nodes_and_shards() {
    let expected = "\
cluster abababababababababababababababab is yellow
  one node: no copy survives its loss

NODE  ADDRESS         STATE    ZONE  RACK  DISK               CHUNKS       LEADS  UP
1     127.0.0.1:7440  healthy  -     r1    6.0GiB of 10.0GiB  12 (3.0MiB)  2      1h1m

SHARD  PREFIX  LEADER  REPLICAS  ENTRIES  BYTES   TO CLEAN UP
1      /       1       1         40       2.0KiB  0

ring: copies under-replicated 3, moving 2, lost 1 (counted 12s ago)
";
    let overview = Overview {
        status: status(),
        ring: RING,
    };
    assert_eq!(screen(&overview), expected);
}

#[test]
fn a_shard_is_this_json() {
    assert_eq!(
        serde_json::to_string(&shard_json(&status().groups[0])).unwrap(),
        "{\"shard\":1,\"prefix\":\"/\",\"leader\":1,\"replicas\":[1],\"term\":2,\"applied\":100,\
         \"entries\":40,\"bytes\":2048,\"deletions\":0}"
    );
}

#[test]
fn the_ring_and_what_a_node_uses_are_in_the_json() {
    assert_eq!(
        serde_json::to_string(&ring_json(RING)).unwrap(),
        "{\"under_replicated\":3,\"without_node\":2,\"moving\":2,\"lost\":1,\
         \"counted_ms_ago\":12000}"
    );
    let node = serde_json::to_value(node_json(&status().nodes[0])).unwrap();
    assert_eq!(node["used"], 6u64 << 30);
}
