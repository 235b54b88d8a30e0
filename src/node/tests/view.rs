//! What a node that has a replica of the root group knows without a heartbeat.

use super::{LEADER_WITHIN, Life, run};
use crate::env::sim::SimDisk;
use crate::node::beat;
use crate::root::RootCommand;
use crate::types::NodeId;
use std::time::Duration;

/// Shorter than heartbeats are apart, and none is sent here.
const LOOK: Duration = Duration::from_millis(10);

#[test]
fn what_the_root_group_decides_is_known_without_a_heartbeat() {
    run(async {
        let life = Life::start(&SimDisk::new(3)).await.unwrap();
        let (node, root) = (life.node.clone(), life.root());
        let follow = beat::follow_root(node.clone());
        node.env.spawn.spawn("root group's view", Box::pin(follow));
        for weight in [5, 9] {
            let command = RootCommand::SetWeight {
                node: NodeId(1),
                weight,
            };
            root.propose(command).await.unwrap();
            let known = async {
                while node.views.now().cluster.nodes[0].weight != weight {
                    tokio::time::sleep(LOOK).await;
                }
            };
            let known = tokio::time::timeout(LEADER_WITHIN, known).await;
            assert!(known.is_ok(), "weight {weight} is not known");
            let view = root.cluster_view().unwrap().version;
            assert_eq!(node.views.now().cluster.version, view);
        }
        life.checked();
        life.end();
    });
}
