//! The gate: who of those with a certificate may be here now. `node` implements it; `server` asks.
//! A certificate says who somebody is until it expires; that he was removed since, only the
//! cluster's records know.

use super::Peer;

/// Asked for each connection of a peer once its handshake is done, and for those that are open
/// whenever [`super::Endpoint::recheck`] is called. Must answer at once, from memory.
pub trait Gate: Send + Sync + 'static {
    /// # Errors
    /// Why not, in words for the peer: at most 256 bytes of them are sent.
    fn admits(&self, peer: &Peer) -> Result<(), Refusal>;
}

/// Why a peer is not let in. The text stands in the error that it shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It may not be here; what it has open is closed as well. Shown as `denied`.
    Denied(String),
    /// This node takes nobody new of its kind; what is open stays. Shown as `unavailable`.
    NotNow(String),
}

/// Lets in everyone whose certificate may speak the protocol.
pub(super) struct Everyone;

impl Gate for Everyone {
    fn admits(&self, _: &Peer) -> Result<(), Refusal> {
        Ok(())
    }
}
