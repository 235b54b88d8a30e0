//! The healed cluster serves a new client at once.

use crate::sim::run::{HEALED_MAX, Run};
use crate::types::DfsPath;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// How long the client tries one request.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How long it took.
pub fn check(run: &mut Run) -> Duration {
    let begin = run.cluster.world.now();
    let served = Arc::new(Mutex::new(false));
    let told = served.clone();
    let client = run.hosts.reader_client();
    run.cluster
        .start_client(client, TIMEOUT, |connector| async move {
            let client = connector.connect().await;
            let path = DfsPath::parse("/probe").unwrap();
            while client
                .mkdir(&path, 0o755, true, &Default::default())
                .await
                .is_err()
            {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            *told.lock() = true;
        });
    if !run.cluster.run_until(HEALED_MAX, |_| *served.lock()) {
        run.violations
            .push(format!("not served {HEALED_MAX:?} after healing"));
    }
    run.look();
    run.cluster.world.now() - begin
}
