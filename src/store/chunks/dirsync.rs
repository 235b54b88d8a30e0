//! Directory syncs in groups: while one caller syncs, others queue; the next turn syncs each
//! directory once for all of them.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::env::Disk;
use tokio::sync::oneshot;

type Waiter = (PathBuf, oneshot::Sender<io::Result<()>>);

pub(super) struct DirSync {
    disk: Arc<dyn Disk>,
    /// Bounded by the callers: each has one entry.
    waiting: Mutex<Vec<Waiter>>,
    turn: tokio::sync::Mutex<()>,
}

impl DirSync {
    pub fn new(disk: Arc<dyn Disk>) -> Self {
        DirSync {
            disk,
            waiting: Mutex::new(Vec::new()),
            turn: tokio::sync::Mutex::new(()),
        }
    }

    /// Makes the names in `dir` durable. The sync begins after this call began.
    pub async fn sync(&self, dir: PathBuf) -> io::Result<()> {
        loop {
            let (send, receive) = oneshot::channel();
            self.waiting.lock().push((dir.clone(), send));
            {
                let _turn = self.turn.lock().await;
                self.sync_all_waiting().await;
            }
            // A caller that was cancelled in its turn took others' answers with it: ask again.
            if let Ok(result) = receive.await {
                return result;
            }
        }
    }

    async fn sync_all_waiting(&self) {
        let waiters = std::mem::take(&mut *self.waiting.lock());
        let mut by_dir: BTreeMap<PathBuf, Vec<oneshot::Sender<io::Result<()>>>> = BTreeMap::new();
        for (dir, send) in waiters {
            by_dir.entry(dir).or_default().push(send);
        }
        for (dir, senders) in by_dir {
            let result = self.disk.sync_dir(&dir).await;
            for send in senders {
                let copy = match &result {
                    Ok(()) => Ok(()),
                    Err(e) => Err(io::Error::new(e.kind(), e.to_string())),
                };
                // A waiter that gave up needs no answer.
                let _ = send.send(copy);
            }
        }
    }
}
