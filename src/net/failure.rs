//! What QUIC reports, as errors a user can act on; and the codes the two ends tell each other.
//! Called by the other files of `net` only.
//!
//! Errors are made from codes. Reasons that a peer sends as text are its own words: they are shown
//! only where a server says why it refuses this side, whose certificate this side has verified by
//! then; bounded, and without control characters.

use crate::error::{Code, Error};
use quinn::{ConnectionError, ReadError, VarInt, WriteError};
use std::net::SocketAddr;

/// Codes of a closed connection.
pub(super) mod close {
    use super::VarInt;
    /// Nothing more to say.
    pub(crate) const DONE: VarInt = VarInt::from_u32(0);
    /// The certificate may not speak this protocol, or there is none; or the gate said no, which
    /// the reason explains.
    pub(crate) const DENIED: VarInt = VarInt::from_u32(1);
    /// The process ends.
    pub(crate) const STOPPING: VarInt = VarInt::from_u32(2);
    /// The peer did not keep to the framing.
    pub(crate) const MALFORMED: VarInt = VarInt::from_u32(3);
    /// Too many connections of this kind.
    pub(crate) const BUSY: VarInt = VarInt::from_u32(4);
    /// The gate takes nobody new, which the reason explains.
    pub(crate) const NOT_NOW: VarInt = VarInt::from_u32(5);
}

/// Bytes of a reason, sent and shown: a sentence, which fits into a packet.
const REASON_BYTES_MAX: usize = 256;

/// Codes of a reset or stopped stream.
pub(super) mod abort {
    use super::VarInt;
    /// Dropped in the middle: cancelled, or its handler failed.
    pub(crate) const ABANDONED: VarInt = VarInt::from_u32(16);
    /// Never handed to the service: certainly not executed.
    pub(crate) const NOT_SERVED: VarInt = VarInt::from_u32(17);
    /// The peer sent or took nothing for `STALL_MAX`.
    pub(crate) const STALLED: VarInt = VarInt::from_u32(18);
    /// A frame too long or cut off.
    pub(crate) const MALFORMED: VarInt = VarInt::from_u32(19);
}

/// TLS alerts (RFC 8446, 6.2) that tell of identities.
mod alert {
    pub(super) const UNSUPPORTED_CERTIFICATE: u64 = 43;
    pub(super) const CERTIFICATE_EXPIRED: u64 = 45;
    pub(super) const NO_APPLICATION_PROTOCOL: u64 = 120;
    /// All that say "this certificate is not good": bad, unsupported, revoked, expired, unknown,
    /// unknown CA, access denied, bad signature, missing.
    pub(super) const OF_CERTIFICATES: [u64; 9] = [42, 43, 44, 45, 46, 48, 49, 51, 116];
}

/// A connection that did not come about or broke, as an error about `remote`.
pub(super) fn of_connection(error: &ConnectionError, remote: SocketAddr) -> Error {
    let unavailable = |why: &str| Error::unavailable(format!("cannot reach {remote} ({why})"));
    match error {
        ConnectionError::TimedOut => {
            unavailable("no answer").hint("check that the node runs and the address is right")
        }
        ConnectionError::Reset => unavailable("the node has restarted").hint("try again"),
        ConnectionError::LocallyClosed => unavailable("the connection was closed here"),
        ConnectionError::CidsExhausted => unavailable("too many connections from here"),
        ConnectionError::VersionMismatch => unavailable("it speaks another version of QUIC"),
        // What this side found wrong with the other one.
        ConnectionError::TransportError(e) => match crypto_alert(e.code.into()) {
            Some(alert) => of_alert(alert, remote, Side::Theirs),
            None => unavailable("its packets do not keep to QUIC"),
        },
        // What the other side found wrong with this one.
        ConnectionError::ConnectionClosed(closed) => match crypto_alert(closed.error_code.into()) {
            Some(alert) => of_alert(alert, remote, Side::Ours),
            None if closed.error_code == quinn::TransportErrorCode::CONNECTION_REFUSED => {
                unavailable("the node is stopping or has too many connections").hint("try again")
            }
            None => unavailable("the node broke the connection off"),
        },
        ConnectionError::ApplicationClosed(closed) => match closed.error_code {
            close::DENIED => match reason_of(&closed.reason) {
                Some(why) => denied(format!("{remote} refused this identity ({why})")),
                None => denied(format!(
                    "{remote} refused this identity (it may not do this)"
                ))
                .hint("use the identity of a node for nodes, of a user for clients"),
            },
            close::NOT_NOW => match reason_of(&closed.reason) {
                Some(why) => unavailable(&why),
                None => unavailable("the node takes no new connections"),
            }
            .hint("try another node"),
            close::STOPPING => unavailable("the node is stopping").hint("try another node"),
            close::BUSY => unavailable("the node has too many connections").hint("try again"),
            close::MALFORMED => unavailable("the node did not understand this program")
                .hint("use the same version of dfs on both"),
            _ => unavailable("the node closed the connection"),
        },
    }
}

/// [`of_connection`] for who believes by a token's pin: nothing that he does not trust is the
/// cluster that the token is for.
pub(super) fn of_joining(error: &ConnectionError, remote: SocketAddr) -> Error {
    if let ConnectionError::TransportError(e) = error
        && let Some(alert) = crypto_alert(e.code.into())
        && alert::OF_CERTIFICATES.contains(&alert)
        && ![alert::CERTIFICATE_EXPIRED, alert::UNSUPPORTED_CERTIFICATE].contains(&alert)
    {
        return denied(format!(
            "{remote} is not trusted (wrong CA pin: this is not the cluster the token is for)"
        ))
        .hint("check the address, or create a token in the cluster that is to be joined");
    }
    of_connection(error, remote)
}

/// A reason as it is sent: no more than [`REASON_BYTES_MAX`] of it.
pub(super) fn reason_bytes(reason: &str) -> &[u8] {
    let end = reason.floor_char_boundary(REASON_BYTES_MAX.min(reason.len()));
    &reason.as_bytes()[..end]
}

/// A peer's reason as it may be shown; `None` if it gave none.
fn reason_of(bytes: &[u8]) -> Option<String> {
    let bytes = &bytes[..bytes.len().min(REASON_BYTES_MAX)];
    let text = String::from_utf8_lossy(bytes);
    let shown: String = text.chars().filter(|c| !c.is_control()).collect();
    let shown = shown.trim();
    (!shown.is_empty()).then(|| shown.to_owned())
}

enum Side {
    Ours,
    Theirs,
}

fn crypto_alert(code: u64) -> Option<u64> {
    (0x100..0x200).contains(&code).then_some(code & 0xff)
}

fn of_alert(alert: u64, remote: SocketAddr, whose: Side) -> Error {
    match (alert, whose) {
        (alert::CERTIFICATE_EXPIRED, Side::Ours) => denied(format!(
            "{remote} refused this identity (the identity has expired)"
        ))
        .hint(
            "take a new `admin.dfs` from the data directory of the first node, or `dfs login` with a \
             new token; check both machines' clocks",
        ),
        (alert::CERTIFICATE_EXPIRED, Side::Theirs) => denied(format!(
            "{remote} cannot be trusted (the node's certificate has expired)"
        ))
        .hint(
            "check both machines' clocks; a running node renews its certificate by itself, one that \
             was off for longer than it lasts has to be removed and joined anew",
        ),
        (alert::UNSUPPORTED_CERTIFICATE, Side::Theirs) => denied(format!(
            "{remote} cannot be trusted (its certificate is not a node's)"
        )),
        (alert::NO_APPLICATION_PROTOCOL, _) => Error::unavailable(format!(
            "cannot reach {remote} (the node speaks another version of the protocol)"
        ))
        .hint("use the same version of dfs on both"),
        (alert, _) if alert::OF_CERTIFICATES.contains(&alert) => denied(format!(
            "{remote} is not trusted, or does not trust this identity (the node belongs to \
             another cluster or the identity is not of this cluster)"
        ))
        .hint("check the address, or name the right identity with --identity"),
        _ => Error::unavailable(format!("cannot reach {remote} (TLS failed, alert {alert})")),
    }
}

fn denied(message: String) -> Error {
    Error::new(Code::Denied, message)
}

/// A stream that broke while it was read.
pub(super) fn of_read(error: &ReadError, remote: SocketAddr) -> Error {
    match error {
        ReadError::Reset(code) => of_abort(*code, remote),
        ReadError::ConnectionLost(e) => of_connection(e, remote),
        _ => Error::failed(format!("the stream of {remote} is closed already")),
    }
}

/// A stream that broke while it was written.
pub(super) fn of_write(error: &WriteError, remote: SocketAddr) -> Error {
    match error {
        WriteError::Stopped(code) => of_abort(*code, remote),
        WriteError::ConnectionLost(e) => of_connection(e, remote),
        _ => Error::failed(format!("the stream to {remote} is closed already")),
    }
}

fn of_abort(code: VarInt, remote: SocketAddr) -> Error {
    let unavailable = |why: &str| Error::unavailable(format!("{remote} broke off ({why})"));
    match code {
        abort::NOT_SERVED => Error::new(
            Code::Busy,
            format!("{remote} did not take the request (the node is stopping or overloaded)"),
        ),
        abort::STALLED => unavailable("this side was too slow"),
        abort::MALFORMED => unavailable("it did not understand what was sent"),
        _ => unavailable("it gave the request up"),
    }
}

/// A peer that did not keep to the framing.
pub(super) fn malformed(remote: SocketAddr, why: &str) -> Error {
    Error::unavailable(format!("{remote} sent malformed bytes ({why})"))
}

/// A peer that sent or took nothing for too long.
pub(super) fn stalled(remote: SocketAddr) -> Error {
    Error::unavailable(format!(
        "{remote} broke off (nothing moved for {} seconds)",
        super::settings::STALL_MAX.as_secs()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reasons_are_cut_at_a_character_and_shown_without_control_characters() {
        assert_eq!(reason_bytes("node 4 was removed"), b"node 4 was removed");
        let long = format!("a{}", "é".repeat(300));
        let sent = reason_bytes(&long);
        assert_eq!(sent.len(), 255);
        assert!(long.starts_with(&reason_of(sent).unwrap()));
        assert_eq!(reason_of(b"a\x1b[31m\nb").unwrap(), "a[31mb");
        assert_eq!(reason_of(b""), None);
        assert_eq!(reason_of(b" \n"), None);
        assert_eq!(reason_of(&[b'x'; 9_999]).unwrap().len(), REASON_BYTES_MAX);
    }

    proptest! {
        #[test]
        fn any_reason_is_shown_plainly(bytes: Vec<u8>) {
            if let Some(text) = reason_of(&bytes) {
                prop_assert!(!text.chars().any(char::is_control));
                prop_assert!(text.chars().count() <= REASON_BYTES_MAX);
            }
        }

        #[test]
        fn any_code_of_a_peer_becomes_an_error(code in 0u64..1 << 62) {
            let remote = "127.0.0.1:1".parse().unwrap();
            let code = VarInt::from_u64(code).unwrap();
            of_abort(code, remote);
            let error = of_connection(&ConnectionError::ApplicationClosed(quinn::ApplicationClose {
                error_code: code,
                reason: bytes::Bytes::from_static(b"\x1b[31m"),
            }), remote);
            prop_assert!(!error.to_string().contains('\x1b'));
            of_alert(code.into_inner(), remote, Side::Ours);
        }
    }
}
