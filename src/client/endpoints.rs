//! The addresses a client was given: reading `HOST:PORT` lists and looking names up.

use crate::env::Env;
use crate::error::{Error, Result};
use std::net::{SocketAddr, ToSocketAddrs};

/// Addresses tried for one `HOST:PORT` at most: a name may stand for many.
const ADDRESSES_PER_NAME_MAX: usize = 8;

/// One `HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Address(SocketAddr),
    Name(String),
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Target::Address(address) => address.fmt(f),
            Target::Name(name) => name.fmt(f),
        }
    }
}

impl Target {
    /// One `HOST:PORT`.
    ///
    /// # Errors
    /// `usage` saying what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Target> {
        if let Ok(address) = text.parse() {
            return Ok(Target::Address(address));
        }
        let refuse = |why: &str| {
            Err(Error::usage(format!("bad address ({why})"))
                .at(text)
                .hint("write HOST:PORT, [IPV6]:PORT or 192.0.2.1:PORT"))
        };
        match text.rsplit_once(':') {
            Some(("", _)) => refuse("the host is missing"),
            Some((host, _)) if host.contains([':', '[', ']', '/', ' ']) => refuse("not an address"),
            Some((_, port)) if port.parse::<u16>().is_err() => refuse("the port is not a number"),
            Some(_) => Ok(Target::Name(text.to_owned())),
            None => refuse("the port is missing"),
        }
    }
}

/// Reads a list of `HOST:PORT`; addresses come before names, so that a broken resolver delays
/// nobody who does not need it.
///
/// # Errors
/// `usage` for an empty list or a malformed item.
pub(crate) fn parse_all(endpoints: &[String]) -> Result<Vec<Target>> {
    let mut targets = Vec::new();
    for text in endpoints {
        let target = Target::parse(text.trim())?;
        if !targets.contains(&target) {
            targets.push(target);
        }
    }
    if targets.is_empty() {
        return Err(Error::usage("no address of a cluster is known")
            .hint("name one with --cluster HOST:PORT"));
    }
    targets.sort_by_key(|target| matches!(target, Target::Name(_)));
    Ok(targets)
}

/// The addresses behind a target; names are looked up on the blocking pool, IPv4 first as
/// clusters are mostly reached by it.
pub(crate) async fn resolve(env: &Env, target: &Target) -> Result<Vec<SocketAddr>> {
    let name = match target {
        Target::Address(address) => return Ok(vec![*address]),
        Target::Name(name) => name.clone(),
    };
    env.run_blocking(move || {
        let found = name
            .to_socket_addrs()
            .map_err(|e| Error::unavailable(format!("the name was not found ({e})")).at(&name))?;
        let mut found: Vec<_> = found.take(ADDRESSES_PER_NAME_MAX).collect();
        found.sort_by_key(SocketAddr::is_ipv6);
        if found.is_empty() {
            return Err(Error::unavailable("the name has no addresses").at(&name));
        }
        Ok(found)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(list: &[&str]) -> Result<Vec<Target>> {
        parse_all(&list.iter().map(|text| text.to_string()).collect::<Vec<_>>())
    }

    #[test]
    fn addresses_come_before_names_and_once() {
        let targets = all(&[
            "node-1:7400",
            "127.0.0.1:7400",
            "[::1]:7400",
            "127.0.0.1:7400",
        ]);
        let targets = targets.unwrap();
        assert_eq!(targets.len(), 3);
        assert_eq!(targets[2], Target::Name("node-1:7400".into()));
    }

    #[test]
    fn malformed_addresses_are_named() {
        for bad in [
            "",
            "node",
            ":7400",
            "node:x",
            "node:70000",
            "::1:7400",
            "a b:1",
        ] {
            let error = all(&[bad]).unwrap_err();
            assert_eq!(error.code, crate::error::Code::Usage, "{bad}");
        }
        assert!(all(&[]).unwrap_err().hint.unwrap().contains("--cluster"));
    }
}
