//! Every name of every directory is read, every version of every file; it is what somebody put,
//! whole. What is read joins the histories. No chunk that is referenced may be gone.

use crate::sim::cluster::Connector;
use crate::sim::history::{Ask, NAMES, NameId, Thing};
use crate::sim::run::Run;
use crate::sim::workload::{Worker, path_in};
use crate::types::ReadLevel;
use bytes::Bytes;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// Reading everything takes no longer.
const READING_MAX: Duration = Duration::from_secs(600);
/// How long one request is tried.
const TIMEOUT: Duration = Duration::from_secs(30);

pub fn check(run: &mut Run) {
    let recorder = run.recorder.clone();
    let directories = recorder.directories().len() as u32;
    let done = Arc::new(Mutex::new(false));
    let told = done.clone();
    let reader = run.hosts.reader_client();
    let read = move |connector: Connector| async move {
        let client = connector.connect().await;
        let mut worker = Worker::new(reader, client, recorder, 0);
        for directory in 0..directories {
            if worker.recorder.is_made(directory) {
                read_directory(&mut worker, directory).await;
            }
        }
        *told.lock() = true;
    };
    run.cluster.start_client(reader, TIMEOUT, read);
    if !run.cluster.run_until(READING_MAX, |_| *done.lock()) {
        run.violations
            .push(format!("not all was read within {READING_MAX:?}"));
    }
    run.look();
}

async fn read_directory(worker: &mut Worker, directory: u32) {
    worker.ask(directory, Ask::List, Bytes::new()).await;
    for name in 0..NAMES.len() as NameId {
        worker.ask(directory, Ask::Get { name }, Bytes::new()).await;
        let path = path_in(directory, name);
        let Ok(versions) = worker.client.versions(&path, ReadLevel::Linearizable).await else {
            continue;
        };
        for view in versions {
            let version = view.attrs.version.0;
            match worker.get(&path, Some(version)).await {
                Ok(Thing::File(seen)) if seen.version == version => {}
                other => {
                    let text = format!("{path}: version {version} is read as {other:?}");
                    worker.recorder.violation(text);
                }
            }
        }
    }
}
