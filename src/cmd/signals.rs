//! The signals that stop a verb other than `serve`: it ends as after Ctrl-C, and what cannot be
//! continued is cleaned up.

use tokio::signal::unix::{SignalKind, signal};

/// Ends at the first SIGINT, SIGTERM or SIGHUP. Without signals from the system it never ends.
pub async fn stopped() {
    tokio::select! {
        () = first(SignalKind::interrupt()) => {}
        () = first(SignalKind::terminate()) => {}
        () = first(SignalKind::hangup()) => {}
    }
}

async fn first(kind: SignalKind) {
    // Whoever runs a command with `nohup` wants it to outlive the terminal.
    let ignored = kind == SignalKind::hangup() && is_ignored(&own_status(), kind);
    match signal(kind) {
        Ok(mut arrivals) if !ignored => {
            arrivals.recv().await;
        }
        _ => std::future::pending().await,
    }
}

/// What Linux tells of this process; nothing where it does not.
fn own_status() -> String {
    std::fs::read_to_string("/proc/self/status").unwrap_or_default()
}

/// Whether we were started with this signal ignored: `SigIgn:` is a mask in hexadecimal digits,
/// signal 1 its lowest bit (proc(5)).
fn is_ignored(status: &str, kind: SignalKind) -> bool {
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok())
        .unwrap_or(0);
    mask >> (kind.as_raw_value() - 1) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_stand_in_the_mask() {
        let status = "Name:\tdfs\nSigBlk:\tffffffffffffffff\nSigIgn:\t0000000000001001\n";
        assert!(is_ignored(status, SignalKind::hangup()));
        assert!(!is_ignored(status, SignalKind::terminate()));
        assert!(!is_ignored("", SignalKind::hangup()));
    }
}
