//! The address that a node tells others to reach it at: what the operator says, else where it
//! listens. A node that listens on all addresses of its machine tells the one that others see.
//! Called by `serve`, once at each start; sends nothing.

use super::peers::resolve;
use super::view;
use crate::config::ServerSettings;
use crate::env::Env;
use crate::error::Result;
use crate::net::Endpoint;
use crate::proto::{NodeAddress, NodeState};
use crate::types::NodeId;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// Nobody is there, by RFC 5737 and RFC 3849: the way to them is the default route.
const ANYWHERE_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
const ANYWHERE_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
/// Any port does, since nothing is sent.
const ANY_PORT: u16 = 9;
/// Other nodes to which the way is looked at; a large cluster has more than a choice needs.
const OTHERS_MAX: usize = 16;
/// Names that are looked up where no node is known by a number, and how long each may take: a start
/// does not wait for a broken resolver.
const NAMES_MAX: usize = 3;
const NAME_WITHIN: Duration = Duration::from_secs(2);

/// HOST:PORT for others, of node `me` that listens on `listen`. `told`: where others are, for a node
/// that has just joined.
///
/// # Errors
/// The kept view cannot be read.
pub(super) async fn advertised(
    env: &Env,
    settings: &ServerSettings,
    listen: SocketAddr,
    me: NodeId,
    told: &[NodeAddress],
) -> Result<String> {
    let address = match &settings.advertise {
        Some(said) => said.clone(),
        None if !listen.ip().is_unspecified() => listen.to_string(),
        None => {
            let others = others(env, settings, me, told).await?;
            let places = places(env, &others).await;
            let ip = seen(listen, &places, Endpoint::own_ip_towards);
            if ip.is_loopback() {
                tracing::warn!(
                    %ip,
                    "no way to other machines was found, and they cannot reach this node at a \
                     loopback address; name one that they can reach with --advertise HOST:PORT"
                );
            }
            SocketAddr::new(ip, listen.port()).to_string()
        }
    };
    tracing::info!(%address, %listen, "what others are told to reach this node at");
    Ok(address)
}

/// Where other nodes are, as far as this one knows. Those that the operator names come first: what
/// others say of themselves may not hold here.
async fn others(
    env: &Env,
    settings: &ServerSettings,
    me: NodeId,
    told: &[NodeAddress],
) -> Result<Vec<String>> {
    let kept = view::load(env, &settings.data).await?;
    let kept = kept.into_iter().flat_map(|view| view.nodes);
    let kept = kept.filter(|node| node.node != me && node.state != NodeState::Removed);
    let told = told.iter().map(|node| node.address.clone());
    let all = settings.join.iter().cloned().chain(told);
    let all = all.chain(kept.map(|node| node.address));
    Ok(all.filter(|address| !address.is_empty()).collect())
}

/// The numbers among the addresses; where all are names, what some of them stand for.
async fn places(env: &Env, others: &[String]) -> Vec<SocketAddr> {
    let numbers = others.iter().filter_map(|other| other.parse().ok());
    let mut places: Vec<SocketAddr> = numbers.take(OTHERS_MAX).collect();
    if places.is_empty() {
        for name in others.iter().take(NAMES_MAX) {
            let found = tokio::time::timeout(NAME_WITHIN, resolve(env, name)).await;
            // A name that is not found now says nothing of the way.
            places.extend(found.into_iter().flatten());
        }
    }
    places
}

/// What stands for the unspecified address of `listen`: this machine's address on the way to one of
/// `others`, one that leads off the machine before one that does not; where there are none, on the
/// default route; else loopback. `way` tells the address on the way to a place, if there is a way.
fn seen(
    listen: SocketAddr,
    others: &[SocketAddr],
    way: impl Fn(SocketAddr) -> Option<IpAddr>,
) -> IpAddr {
    let own = |to: &SocketAddr| {
        // An IPv4 socket is reached by nobody at an IPv6 address; the other way round it is.
        let usable = listen.is_ipv6() || to.is_ipv4();
        let ip = way(*to).filter(|_| usable)?;
        is_the_same_for_all(ip).then_some(ip)
    };
    let ways: Vec<IpAddr> = others.iter().filter_map(own).collect();
    let off = ways.iter().find(|ip| !ip.is_loopback());
    if let Some(ip) = off.or(ways.first()) {
        return *ip;
    }
    let anywhere = [ANYWHERE_V6, ANYWHERE_V4].map(|ip| SocketAddr::new(ip, ANY_PORT));
    let default = anywhere.iter().find_map(own);
    default.unwrap_or(loopback(listen))
}

/// Loopback in the family of `like`.
pub(super) fn loopback(like: SocketAddr) -> IpAddr {
    match like {
        SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    }
}

/// A link-local IPv6 address means something only with the name of an interface, each machine's own.
fn is_the_same_for_all(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(_) => true,
        IpAddr::V6(ip) => !ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL_V4: &str = "0.0.0.0:7440";
    const ALL_V6: &str = "[::]:7440";

    fn own(listen: &str, others: &[&str], ways: &[(&str, &str)]) -> String {
        let others: Vec<SocketAddr> = others.iter().map(|to| to.parse().unwrap()).collect();
        let way = |to: SocketAddr| {
            let found = ways.iter().find(|(net, _)| to.to_string().starts_with(net));
            found.map(|(_, ip)| ip.parse().unwrap())
        };
        seen(listen.parse().unwrap(), &others, way).to_string()
    }

    /// A machine in two networks, the default route in the first.
    const WAYS: [(&str, &str); 5] = [
        ("127.", "127.0.0.1"),
        ("10.", "10.0.0.7"),
        ("192.168.", "192.168.3.7"),
        ("192.0.2.1:", "10.0.0.7"),
        ("[2001:db8:5:", "2001:db8:5::7"),
    ];

    #[test]
    fn the_first_node_is_seen_on_the_default_route() {
        assert_eq!(own(ALL_V4, &[], &WAYS), "10.0.0.7");
        assert_eq!(own(ALL_V6, &[], &WAYS), "10.0.0.7");
        let v6 = [("[2001:db8::1]:", "2001:db8:9::7"), WAYS[3]];
        assert_eq!(own(ALL_V6, &[], &v6), "2001:db8:9::7");
        // Nobody reaches an IPv4 socket there.
        assert_eq!(own(ALL_V4, &[], &v6), "10.0.0.7");
    }

    #[test]
    fn with_others_it_is_seen_on_the_way_to_them() {
        assert_eq!(own(ALL_V4, &["192.168.3.1:7440"], &WAYS), "192.168.3.7");
        assert_eq!(
            own(ALL_V6, &["[2001:db8:5::1]:7440"], &WAYS),
            "2001:db8:5::7"
        );
        // No way there, or none that an IPv4 socket goes: the next.
        let others = [
            "172.16.0.1:7440",
            "[2001:db8:5::1]:7440",
            "192.168.3.1:7440",
        ];
        assert_eq!(own(ALL_V4, &others, &WAYS), "192.168.3.7");
        assert_eq!(own(ALL_V4, &others[..2], &WAYS), "10.0.0.7");
    }

    #[test]
    fn others_on_loopback_do_not_hide_those_on_other_machines() {
        let others = ["127.0.0.1:7440", "192.168.3.1:7440"];
        assert_eq!(own(ALL_V4, &others, &WAYS), "192.168.3.7");
        // A node that listens on loopback is reached, and reaches others, there alone.
        assert_eq!(own(ALL_V4, &others[..1], &WAYS), "127.0.0.1");
    }

    #[test]
    fn without_any_way_it_is_loopback() {
        assert_eq!(own(ALL_V4, &["10.0.0.1:7440"], &[]), "127.0.0.1");
        assert_eq!(own(ALL_V6, &[], &[]), "::1");
        // Of use only on the link of that name.
        assert_eq!(own(ALL_V6, &[], &[("[2001:", "fe80::7")]), "::1");
    }
}
