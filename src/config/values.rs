//! Pure: texts to values with their bounds: addresses, places, sizes between. Called by the
//! settings' table of keys and by `cmd` for arguments of the same kind.

use super::units::{exact_size, parse_duration, parse_size};
use crate::error::{Error, Result};
use crate::limits::PLACE_BYTES_MAX;
use std::net::SocketAddr;
use std::time::Duration;

/// Reads `HOST:PORT[,HOST:PORT…]`.
///
/// # Errors
/// `usage` when one of them is not an address, or there is none.
pub fn addresses(text: &str) -> Result<Vec<String>> {
    text.split(',').map(|one| address(one.trim())).collect()
}

/// Checks `HOST:PORT`; the name is looked up when it is used.
pub fn address(text: &str) -> Result<String> {
    let refuse = |why: &str| {
        Err(Error::usage(format!("bad address `{text}` ({why})"))
            .hint("write it as HOST:PORT, an IPv6 address as [::1]:7440"))
    };
    let Some((host, port)) = text.rsplit_once(':') else {
        return refuse("no port");
    };
    if host.is_empty() || host.contains(char::is_whitespace) {
        return refuse("no host");
    }
    if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) {
        return refuse("an IPv6 address stands in brackets");
    }
    match port.parse::<u16>() {
        Ok(port) if port > 0 => Ok(text.into()),
        _ => refuse("the port is not a number from 1 to 65535"),
    }
}

/// Reads the address to listen on: a number, not a name, so that a start needs no resolver.
///
/// # Errors
/// `usage` when it is not `ADDR:PORT`.
pub fn listen(text: &str) -> Result<SocketAddr> {
    text.parse().map_err(|_| {
        Error::usage(format!("bad listen address `{text}` (not ADDR:PORT)"))
            .hint("write it as 0.0.0.0:7440, [::]:7440 or 127.0.0.1:0 for a free port")
    })
}

/// A TOML value as the text an argument would have; a list as its items with commas between.
pub fn value_text(value: &toml::Value) -> Result<String> {
    match value {
        toml::Value::String(text) => Ok(text.clone()),
        toml::Value::Integer(number) => Ok(number.to_string()),
        toml::Value::Array(items) => {
            let items: Result<Vec<String>> = items.iter().map(value_text).collect();
            Ok(items?.join(","))
        }
        other => Err(Error::usage(format!("bad value ({})", other.type_str()))
            .hint("write a text or a whole number")),
    }
}

/// A size inside bounds, both included.
pub fn size_between(text: &str, min: u64, max: u64) -> Result<u64> {
    let size = parse_size(text)?;
    if (min..=max).contains(&size) {
        return Ok(size);
    }
    let (min, max) = (exact_size(min), exact_size(max));
    Err(
        Error::usage(format!("bad size `{text}` (not from {min} to {max})"))
            .hint("choose a size inside these bounds"),
    )
}

/// A node's capacity in bytes. One that is to hold no chunks is weighed so, which can be changed
/// again.
///
/// # Errors
/// `usage` for what is no size, and for nothing.
pub fn capacity(text: &str) -> Result<u64> {
    match parse_size(text)? {
        0 => Err(Error::usage(format!("bad capacity `{text}` (zero)")).hint(
            "leave it out for what the file system holds; for a node without chunks run \
                 `dfs node weight N 0` once it is there",
        )),
        bytes => Ok(bytes),
    }
}

/// A duration that is not zero.
pub fn positive(text: &str) -> Result<Duration> {
    let duration = parse_duration(text)?;
    if duration.is_zero() {
        return Err(Error::usage(format!("bad duration `{text}` (zero)"))
            .hint("choose a longer one, such as 30s"));
    }
    Ok(duration)
}

/// A whole number.
pub fn count(text: &str) -> Result<u32> {
    text.parse().map_err(|_| {
        Error::usage(format!("bad number `{text}` (not a whole number)")).hint("write digits only")
    })
}

/// `yes` or `no`.
pub fn yes_or_no(text: &str) -> Result<bool> {
    match text {
        "yes" | "true" | "1" => Ok(true),
        "no" | "false" | "0" => Ok(false),
        _ => Err(
            Error::usage(format!("bad value `{text}` (neither yes nor no)"))
                .hint("write \"yes\" or \"no\""),
        ),
    }
}

/// Zones and racks are compared and shown: short, without control characters.
pub fn place(text: &str) -> Result<String> {
    if text.is_empty()
        || text.len() > PLACE_BYTES_MAX
        || text.contains(|c: char| c.is_control() || c == '/')
    {
        return Err(Error::usage(
            "bad zone or rack (1 to 64 bytes, no `/`, no control characters)",
        )
        .hint("use a short name such as `rack-12`"));
    }
    Ok(text.into())
}
