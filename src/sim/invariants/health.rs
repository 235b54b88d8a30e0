//! When there was time to repair everything, a check of all records and all copies of all chunks
//! finds nothing, and `status` is green.

use crate::client::Client;
use crate::sim::cluster::Connector;
use crate::sim::run::Run;
use crate::types::DfsPath;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// Everything that is missing somewhere is made again within this time.
const CONVERGED_MAX: Duration = Duration::from_secs(120);
/// How long one request is tried.
const TIMEOUT: Duration = Duration::from_secs(30);

pub fn check(run: &mut Run) {
    let found = Arc::new(Mutex::new(vec!["nothing was asked".to_owned()]));
    let told = found.clone();
    let look = move |connector: Connector| async move {
        let client = connector.connect().await;
        loop {
            let problems = problems(&client).await;
            *told.lock() = problems;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let reader = run.hosts.reader_client();
    run.cluster.start_client(reader, TIMEOUT, look);
    run.cluster
        .run_until(CONVERGED_MAX, |_| found.lock().is_empty());
    for problem in found.lock().drain(..) {
        run.violations
            .push(format!("{CONVERGED_MAX:?} after healing: {problem}"));
    }
    run.look();
}

async fn problems(client: &Client) -> Vec<String> {
    let mut problems = match client.fsck(&DfsPath::root(), true).await {
        Ok(report) => report.problems,
        Err(error) => vec![format!("no fsck: {error}")],
    };
    match client.status().await {
        Ok(status) if status.health == "green" => {}
        Ok(status) => problems.push(format!("{}: {}", status.health, status.reasons.join("; "))),
        Err(error) => problems.push(format!("no status: {error}")),
    }
    problems
}
