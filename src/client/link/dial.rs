//! Connections made when they are needed. One task dials a node, the others wait for it.

use super::Link;
use super::live::Live;
use crate::client::endpoints::{self, Target};
use crate::client::wire::Wire;
use crate::codec;
use crate::error::{Code, Error, Result};
use crate::proto::{Answer, Call, WhoAmI};
use crate::types::NodeId;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// One address may take this long to answer.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// The next address is dialled this long after the one before: a live node nearby answers sooner,
/// and a dead one costs no more.
const DIAL_STAGGER: Duration = Duration::from_millis(50);
/// Other nodes may take this long to be found while a silent one is at hand.
const ELSEWHERE_WITHIN: Duration = Duration::from_secs(1);
/// Nodes dialled when any will do.
const ANY_MAX: usize = 16;

type Failures = Vec<(String, Error)>;

/// How the search for any node goes: what is left of it when time runs out.
#[derive(Default)]
struct Search {
    /// The addresses that are tried.
    tried: Vec<String>,
    heard: Failures,
}

impl Search {
    /// What was heard, and the silence of the others that were tried.
    fn ended(mut self) -> Failures {
        for tried in self.tried {
            if self.heard.iter().all(|(name, _)| *name != tried) {
                let silence = Error::unavailable("no answer in time");
                self.heard.push((tried, silence));
            }
        }
        self.heard
    }
}

impl Link {
    /// A connection to some node, made if there is none; rather not to `but`. `timeout` bounds
    /// the making.
    ///
    /// # Errors
    /// `unavailable` with every address and its reason; `denied` if at least half of them refused
    /// us.
    pub(crate) async fn any(&self, but: Option<NodeId>, timeout: Duration) -> Result<Arc<Live>> {
        if let Some(live) = self.state.lock().peers.usable(but) {
            return Ok(live);
        }
        let open = self.state.lock().peers.open(but);
        let within = match open {
            Some(_) => timeout.min(ELSEWHERE_WITHIN),
            None => timeout,
        };
        let search = Mutex::new(Search::default());
        let finding = self.find_any(but, open.is_none(), &search);
        let found = tokio::time::timeout(within, finding).await;
        match (found, open) {
            (Ok(Ok(live)), _) | (_, Some(live)) => Ok(live),
            (Ok(Err(error)), None) => Err(error),
            (Err(_), None) => Err(unreachable(&search.into_inner().ended())),
        }
    }

    /// What fails on the way is in `search` also when time runs out.
    async fn find_any(
        &self,
        but: Option<NodeId>,
        lost: bool,
        search: &Mutex<Search>,
    ) -> Result<Arc<Live>> {
        search.lock().tried = self.targets.iter().map(Target::to_string).collect();
        let _one = self.dialling.lock().await;
        let now = self.env.clock.now();
        let (nodes, mut failed) = {
            let mut state = self.state.lock();
            if let Some(live) = state.peers.usable(but) {
                return Ok(live);
            }
            (state.peers.closed(but, now), state.peers.just_failed(now))
        };
        // What the user gave comes first, but not while the cluster itself told enough.
        let mut failures = Vec::new();
        let mut ways: Vec<Way> = Vec::new();
        let mut nodes = nodes;
        if lost {
            let given = self.resolve(&self.targets, &mut failures).await;
            nodes.retain(|node| !self.is_at(*node, &given));
            failed.retain(|(node, _)| !self.is_at(*node, &given));
            ways.extend(given.into_iter().map(Way::Address));
        }
        ways.extend(nodes.into_iter().take(ANY_MAX).map(Way::Node));
        let ways: Vec<_> = ways.into_iter().map(|way| (self.name(&way), way)).collect();
        {
            let mut search = search.lock();
            search.tried = ways.iter().map(|(name, _)| name.clone()).collect();
            // They count as well, though they are not dialled again so soon.
            let failed = failed.into_iter();
            search.heard = failed.map(|(node, e)| (self.name_of(node), e)).collect();
            search.heard.extend(failures);
        }
        self.first_of(ways, search).await
    }

    /// True if one of the addresses is the only one we know of a node.
    fn is_at(&self, node: NodeId, given: &[SocketAddr]) -> bool {
        let state = self.state.lock();
        state.peers.get(node).is_some_and(|peer| {
            let told = match &peer.told {
                Some(Target::Address(address)) => Some(*address),
                Some(Target::Name(_)) => return false,
                None => None,
            };
            let mut known = told.into_iter().chain(peer.via);
            known.all(|address| given.contains(&address))
        })
    }

    async fn resolve(&self, targets: &[Target], failures: &mut Failures) -> Vec<SocketAddr> {
        let mut addresses = Vec::new();
        for target in targets {
            match endpoints::resolve(&self.env, target).await {
                Ok(found) => addresses.extend(found),
                Err(error) => failures.push((error.path.clone().unwrap_or_default(), error)),
            }
        }
        let mut seen = BTreeSet::new();
        addresses.retain(|address| seen.insert(*address));
        addresses
    }

    async fn first_of(
        &self,
        ways: Vec<(String, Way)>,
        search: &Mutex<Search>,
    ) -> Result<Arc<Live>> {
        let mut attempts: FuturesUnordered<_> = ways
            .into_iter()
            .zip(0u32..)
            .map(|((name, way), place)| async move {
                tokio::time::sleep(DIAL_STAGGER * place).await;
                let attempt = match way {
                    Way::Address(address) => self.dial(address).await,
                    Way::Node(node) => self.reach(node).await,
                };
                (name, attempt)
            })
            .collect();
        while let Some((name, attempt)) = attempts.next().await {
            match attempt {
                Ok(live) => return Ok(live),
                Err(error) => search.lock().heard.push((name, error)),
            }
        }
        Err(unreachable(&search.lock().heard))
    }

    /// A connection to this node.
    ///
    /// # Errors
    /// `unavailable` if there is no way to it.
    pub(crate) async fn node(&self, node: NodeId, timeout: Duration) -> Result<Arc<Live>> {
        if let Some(live) = self.state.lock().peers.live_of(node) {
            return Ok(live);
        }
        match tokio::time::timeout(timeout, self.reach(node)).await {
            // One that refuses us may be of another cluster by now: the others decide.
            Ok(Err(error)) => Err(Error {
                code: Code::Unavailable,
                ..error
            }),
            Ok(Ok(live)) => Ok(live),
            Err(_) => {
                let name = self.name_of(node);
                Err(unreachable(&[(
                    name,
                    Error::unavailable("no answer in time"),
                )]))
            }
        }
    }

    /// Boxed: dialling a node may find it by dialling, and so on.
    fn reach(&self, node: NodeId) -> BoxFuture<'_, Result<Arc<Live>>> {
        Box::pin(async move {
            let turn = {
                let state = self.state.lock();
                let peer = state.peers.get(node);
                Arc::clone(&peer.ok_or_else(|| unknown(node))?.turn)
            };
            let _mine = turn.lock().await;
            let now = self.env.clock.now();
            let (told, via) = {
                let state = self.state.lock();
                let peer = state.peers.get(node).ok_or_else(|| unknown(node))?;
                if let Some(live) = peer.live() {
                    return Ok(Arc::clone(live));
                }
                if let Some(error) = peer.failed_lately(now) {
                    return Err(error.clone());
                }
                (peer.told.clone(), peer.via)
            };
            let found = self.dial_node(node, told, via).await;
            found.inspect_err(|error| {
                let now = self.env.clock.now();
                self.state.lock().peers.failed(node, now, error.clone());
            })
        })
    }

    async fn dial_node(
        &self,
        node: NodeId,
        told: Option<Target>,
        via: Option<SocketAddr>,
    ) -> Result<Arc<Live>> {
        let mut failures = Vec::new();
        let mut addresses: Vec<_> = via.into_iter().collect();
        let told: Vec<_> = told.into_iter().collect();
        addresses.extend(self.resolve(&told, &mut failures).await);
        let mut seen = BTreeSet::new();
        addresses.retain(|address| seen.insert(*address));
        let mut attempts: FuturesUnordered<_> = addresses
            .into_iter()
            .zip(0u32..)
            .map(|(address, place)| async move {
                tokio::time::sleep(DIAL_STAGGER * place).await;
                (address, self.dial(address).await)
            })
            .collect();
        while let Some((address, attempt)) = attempts.next().await {
            match attempt {
                Ok(live) if live.node == node => return Ok(live),
                Ok(live) => {
                    let why = format!("node {} is there, not {node}", live.node);
                    failures.push((address.to_string(), Error::unavailable(why)));
                }
                Err(error) => failures.push((address.to_string(), error)),
            }
        }
        match failures.len() {
            1 => Err(failures.remove(0).1),
            _ => Err(unreachable(&failures)),
        }
    }

    /// Dials one address and says hello.
    async fn dial(&self, address: SocketAddr) -> Result<Arc<Live>> {
        let wire = self.dialer.dial(address, DIAL_TIMEOUT).await?;
        let hello = say_hello(&*wire, DIAL_TIMEOUT).await?;
        self.learn(&hello, address);
        let live = {
            let mut state = self.state.lock();
            let load = state.peers.load_of(hello.node);
            let clock = Arc::clone(&self.env.clock);
            let live = Live::new((hello.node, address), wire, clock, load);
            state.peers.adopt(Arc::new(live))
        };
        self.save(&hello.nodes).await;
        Ok(live)
    }

    fn name(&self, way: &Way) -> String {
        match way {
            Way::Address(address) => address.to_string(),
            Way::Node(node) => self.name_of(*node),
        }
    }

    fn name_of(&self, node: NodeId) -> String {
        let state = self.state.lock();
        let peer = state.peers.get(node);
        let address = peer.and_then(|peer| match (&peer.told, peer.via) {
            (Some(told), _) => Some(told.to_string()),
            (None, via) => via.map(|at| at.to_string()),
        });
        address.unwrap_or_else(|| format!("node {node}"))
    }
}

/// One way to find some node.
enum Way {
    Address(SocketAddr),
    Node(NodeId),
}

pub(super) async fn say_hello(wire: &dyn Wire, timeout: Duration) -> Result<WhoAmI> {
    let reply = wire.call(&hello_frame(), timeout).await?;
    read_hello(&reply)
}

pub(super) fn hello_frame() -> Vec<u8> {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    codec::encode(&Call::Hello { version })
}

pub(super) fn read_hello(reply: &[u8]) -> Result<WhoAmI> {
    match codec::decode(reply)? {
        Answer::Hello(hello) => Ok(hello),
        Answer::Failed(error) => Err(error),
        _ => Err(Error::failed(
            "the node answered a greeting with something else",
        )),
    }
}

fn unknown(node: NodeId) -> Error {
    Error::unavailable(format!("the address of node {node} is not known"))
}

/// One error from those of all addresses. It is a refusal if at least half of them refused us: what
/// is down has no say in that, and one node with a wrong clock must not end everything.
fn unreachable(failures: &[(String, Error)]) -> Error {
    let listed: Vec<String> = failures
        .iter()
        .map(|(address, error)| format!("{address}: {}", error.message))
        .collect();
    let listed = listed.join("; ");
    let refusals = failures.iter().filter(|(_, e)| e.code == Code::Denied);
    let (refused, tried) = (refusals.clone().count(), failures.len());
    match refusals.map(|(_, error)| error).next() {
        Some(first) if refused * 2 >= tried => {
            let by = match refused == tried {
                true => "by every node".to_owned(),
                false => format!("at {refused} of {tried} addresses"),
            };
            let error = Error::new(Code::Denied, format!("refused {by} ({listed})"));
            error.hint(
                first
                    .hint
                    .clone()
                    .unwrap_or_else(|| "check --identity, or log in again".into()),
            )
        }
        _ => Error::unavailable(format!("no node answers ({listed})"))
            .hint("check that `dfs serve` runs there and that UDP reaches it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn silent(address: &str) -> (String, Error) {
        (address.into(), Error::unavailable("no answer in 5 s"))
    }

    fn refused(address: &str) -> (String, Error) {
        (address.into(), Error::new(Code::Denied, "revoked"))
    }

    #[test]
    fn the_error_names_every_address_and_why() {
        for others in [&[][..], &[silent("10.0.0.3:7400")]] {
            let pair = [silent("10.0.0.1:7400"), refused("10.0.0.2:7400")];
            let error = unreachable(&[&pair, others].concat());
            assert!(error.message.contains("10.0.0.1:7400: no answer in 5 s"));
            assert!(error.message.contains("10.0.0.2:7400: revoked"));
        }
    }

    #[test]
    fn refused_by_half_of_them_or_more_is_denied() {
        let code = |failures: &[(String, Error)]| unreachable(failures).code;
        assert_eq!(code(&[refused("a:1")]), Code::Denied);
        assert_eq!(code(&[silent("a:1"), refused("b:1")]), Code::Denied);
        let one = [silent("a:1"), refused("b:1"), silent("c:1")];
        assert_eq!(code(&one), Code::Unavailable);
        assert_eq!(code(&[silent("a:1")]), Code::Unavailable);
        assert_eq!(code(&[]), Code::Unavailable);
    }

    #[test]
    fn what_has_not_answered_in_time_counts_too() {
        let search = Search {
            tried: ["a:1", "b:1", "c:1"].map(str::to_owned).to_vec(),
            heard: vec![refused("b:1")],
        };
        let error = unreachable(&search.ended());
        assert_eq!(error.code, Code::Unavailable);
        assert!(error.message.contains("a:1: no answer in time"), "{error}");
    }
}
