//! The simulation's own tests, and the seeds that every build runs.

use super::cluster::{Cluster, Shape};
use std::time::Duration;

fn shape(seed: u64) -> Shape {
    Shape { seed, nodes: 1, clients: 1, segment_bytes: 64 << 10, fold_after: Duration::from_millis(500) }
}

#[test]
fn a_node_starts_and_answers() {
    let mut cluster = Cluster::new(&shape(1));
    cluster.start_node(0);
    assert!(cluster.run_until(Duration::from_secs(10), |c| c.is_serving(0)), "{:?}", cluster.take_refusals());
    println!("serving at {:?}", cluster.world.now());
    let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let told = done.clone();
    cluster.start_client(0, Duration::from_secs(5), |connector| async move {
        let client = connector.connect().await;
        let path = crate::types::DfsPath::parse("/a").unwrap();
        client.put_bytes(bytes::Bytes::from(vec![7; 20_000]), &path, &Default::default()).await.unwrap();
        told.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert!(cluster.run_until(Duration::from_secs(10), |_| done.load(std::sync::atomic::Ordering::Relaxed)));
    println!("done at {:?} {:?} {:?}", cluster.world.now(), cluster.trace.sum(), cluster.states(0));
}
