//! One connection to one node, with what its silence and its speed tell of the node.

use super::load::Load;
use super::pulse::Pulse;
use crate::client::wire::{Bulk, Wire};
use crate::env::Clock;
use crate::error::{Error, Result};
use crate::types::NodeId;
use bytes::Bytes;
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// A connection that said hello.
pub(crate) struct Live {
    pub(crate) node: NodeId,
    pub(crate) address: SocketAddr,
    wire: Arc<dyn Wire>,
    clock: Arc<dyn Clock>,
    pulse: Mutex<Pulse>,
    pub(super) load: Arc<Mutex<Load>>,
    /// When it was last used, by our clock.
    pub(super) used: Mutex<Duration>,
    /// When it was last asked what is new, and how that ended. Held by who asks.
    pub(super) news: tokio::sync::Mutex<Option<(Duration, Result<(), Error>)>>,
}

impl Live {
    pub(super) fn new(
        (node, address): (NodeId, SocketAddr),
        wire: Arc<dyn Wire>,
        clock: Arc<dyn Clock>,
        load: Arc<Mutex<Load>>,
    ) -> Live {
        Live {
            node,
            address,
            wire,
            pulse: Mutex::default(),
            load,
            used: Mutex::new(clock.now()),
            clock,
            news: tokio::sync::Mutex::default(),
        }
    }

    /// One request frame, one reply frame.
    pub(crate) async fn call(&self, frame: &[u8], timeout: Duration) -> Result<Bytes> {
        self.asked();
        let reply = self.wire.call(frame, timeout).await;
        if reply.is_ok() {
            self.heard();
        }
        reply
    }

    /// A stream for bulk. Who uses it says [`Live::heard`] when something comes.
    pub(crate) async fn open(&self) -> Result<Box<dyn Bulk>> {
        self.asked();
        self.wire.open().await
    }

    fn asked(&self) {
        let now = self.clock.now();
        *self.used.lock() = now;
        self.pulse.lock().asked(now);
    }

    /// Something came from the node.
    pub(crate) fn heard(&self) {
        self.pulse.lock().heard();
    }

    /// It was asked something some time ago and nothing came since.
    pub(crate) fn is_silent(&self) -> bool {
        self.pulse.lock().is_silent(self.clock.now())
    }

    /// Said of a node that should have said something.
    pub(crate) fn silence(&self) -> Error {
        Error::unavailable(format!("no answer from {}", self.address))
    }

    /// Changes whenever anything comes over the connection, if only an acknowledgement.
    pub(super) fn received(&self) -> u64 {
        self.wire.received()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.wire.is_closed()
    }

    /// Counts a transfer of `bytes` with the node until it is dropped.
    pub(crate) fn carry(&self, bytes: u64) -> Carried {
        self.load.lock().begin(bytes, self.clock.now());
        Carried {
            load: Arc::clone(&self.load),
            clock: Arc::clone(&self.clock),
            left: bytes,
        }
    }
}

/// A transfer under way, as part of its node's load.
pub(crate) struct Carried {
    load: Arc<Mutex<Load>>,
    clock: Arc<dyn Clock>,
    left: u64,
}

impl Carried {
    pub(crate) fn moved(&mut self, bytes: u64) {
        let bytes = bytes.min(self.left);
        self.left -= bytes;
        self.load.lock().moved(bytes, self.clock.now());
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        self.load.lock().gave_up(self.left);
    }
}
