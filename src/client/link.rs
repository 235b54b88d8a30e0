//! The connection to some node of the cluster: found, kept, replaced.
//!
//! One connection at a time serves all requests of a client. When it fails, whoever notices
//! reports it ([`Link::suspect`]) and the next request finds another: all addresses are dialled,
//! each a moment after the one before, and the first that says hello wins. Only one task dials.

use super::endpoints::{self, Target};
use super::routes::Routes;
use super::wire::{Dial, Wire};
use crate::codec;
use crate::env::Env;
use crate::error::{Code, Error, Result};
use crate::proto::{Answer, Call, WhoAmI};
use crate::types::NodeId;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// One address may take this long to answer.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// The next address is dialled this long after the one before: a live node answers sooner.
const DIAL_STAGGER: Duration = Duration::from_millis(250);

/// A connection that said hello.
pub(crate) struct Live {
    pub(crate) wire: Arc<dyn Wire>,
    pub(crate) hello: WhoAmI,
    pub(crate) address: SocketAddr,
}

#[derive(Default)]
struct State {
    live: Option<Arc<Live>>,
    /// What the last node said; stays when the connection is lost.
    hello: Option<WhoAmI>,
    /// Which node answered at which address.
    nodes: BTreeMap<NodeId, SocketAddr>,
    /// The address to try first, and one to try last.
    prefer: Option<SocketAddr>,
    avoid: Option<SocketAddr>,
    routes: Routes,
}

pub(crate) struct Link {
    env: Env,
    dialer: Box<dyn Dial>,
    targets: Vec<Target>,
    state: Mutex<State>,
    /// Held by the one task that dials.
    dialling: tokio::sync::Mutex<()>,
}

impl Link {
    pub(crate) fn new(env: Env, dialer: Box<dyn Dial>, targets: Vec<Target>) -> Self {
        Link {
            env,
            dialer,
            targets,
            state: Mutex::default(),
            dialling: tokio::sync::Mutex::default(),
        }
    }

    /// What a node said last; `None` before the first connection.
    pub(crate) fn hello(&self) -> Option<WhoAmI> {
        self.state.lock().hello.clone()
    }

    /// Asks the routes.
    pub(crate) fn routes<T>(&self, ask: impl FnOnce(&mut Routes) -> T) -> T {
        ask(&mut self.state.lock().routes)
    }

    /// A connection, made if there is none; `timeout` bounds the making.
    ///
    /// # Errors
    /// `unavailable` with every address and its reason; `denied` if all that answered refused us.
    pub(crate) async fn live(&self, timeout: Duration) -> Result<Arc<Live>> {
        if let Some(live) = self.current() {
            return Ok(live);
        }
        let found = tokio::time::timeout(timeout, async {
            let _one = self.dialling.lock().await;
            match self.current() {
                Some(live) => Ok(live),
                None => self.dial_all().await,
            }
        });
        match found.await {
            Ok(found) => found,
            Err(_) => Err(unreachable(&self.named(|_| "no answer in time".into()))),
        }
    }

    fn current(&self) -> Option<Arc<Live>> {
        let mut state = self.state.lock();
        if state.live.as_ref().is_some_and(|l| l.wire.is_closed()) {
            state.avoid = state.live.take().map(|live| live.address);
        }
        state.live.clone()
    }

    /// This connection did not do its work: the next request looks for another, here last.
    pub(crate) fn suspect(&self, live: &Arc<Live>) {
        let mut state = self.state.lock();
        if state.live.as_ref().is_some_and(|l| Arc::ptr_eq(l, live)) {
            state.live = None;
            state.avoid = Some(live.address);
            state.prefer = None;
        }
    }

    /// The node works but cannot serve this now: another one may, if there is one.
    pub(crate) fn elsewhere(&self, live: &Arc<Live>) {
        if self.targets.len() > 1 {
            self.suspect(live);
        }
    }

    /// The node is not the right one for a shard: asks it for the routes of now and goes to the
    /// leader if we know where it is, else to any other.
    pub(crate) async fn redirected(&self, live: &Arc<Live>, shard: crate::types::GroupId) {
        if let Ok(hello) = self.say_hello(&live.wire, DIAL_TIMEOUT).await {
            self.learn(&hello, live.address);
        }
        let leader = {
            let state = self.state.lock();
            let leader = state.routes.leader_of(shard);
            if leader == Some(live.hello.node) || self.targets.len() < 2 {
                return;
            }
            leader.and_then(|node| state.nodes.get(&node).copied())
        };
        self.suspect(live);
        self.state.lock().prefer = leader;
    }

    /// Asks the current node again, so that routes and shard times are of now.
    pub(crate) async fn refresh(&self, timeout: Duration) -> Result<()> {
        let live = self.live(timeout).await?;
        let hello = self.say_hello(&live.wire, timeout).await.inspect_err(|_| {
            self.suspect(&live);
        })?;
        self.learn(&hello, live.address);
        Ok(())
    }

    async fn dial_all(&self) -> Result<Arc<Live>> {
        let mut failures = Vec::new();
        let mut addresses = Vec::new();
        for target in &self.targets {
            match endpoints::resolve(&self.env, target).await {
                Ok(found) => addresses.extend(found),
                Err(error) => failures.push((error.path.clone().unwrap_or_default(), error)),
            }
        }
        self.order(&mut addresses);
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
                Ok(live) => return Ok(self.adopt(live)),
                Err(error) => failures.push((address.to_string(), error)),
            }
        }
        Err(unreachable(&failures))
    }

    /// The preferred address first, the one that failed last; others as given.
    fn order(&self, addresses: &mut Vec<SocketAddr>) {
        let mut seen = std::collections::BTreeSet::new();
        addresses.retain(|address| seen.insert(*address));
        let state = self.state.lock();
        addresses.sort_by_key(|address| {
            if Some(*address) == state.prefer {
                0
            } else if Some(*address) == state.avoid {
                2
            } else {
                1
            }
        });
    }

    async fn dial(&self, address: SocketAddr) -> Result<Live> {
        let dial = self.dialer.dial(address, DIAL_TIMEOUT);
        let wire = tokio::time::timeout(DIAL_TIMEOUT, dial)
            .await
            .map_err(|_| Error::unavailable("no answer in 5 s"))??;
        let hello = self.say_hello(&wire, DIAL_TIMEOUT).await?;
        Ok(Live {
            wire,
            hello,
            address,
        })
    }

    async fn say_hello(&self, wire: &Arc<dyn Wire>, timeout: Duration) -> Result<WhoAmI> {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let frame = codec::encode(&Call::Hello { version });
        let reply = wire.call(&frame, timeout).await?;
        match codec::decode(&reply)? {
            Answer::Hello(hello) => Ok(hello),
            Answer::Failed(error) => Err(error),
            _ => Err(Error::failed(
                "the node answered a greeting with something else",
            )),
        }
    }

    fn adopt(&self, live: Live) -> Arc<Live> {
        self.learn(&live.hello, live.address);
        let live = Arc::new(live);
        let mut state = self.state.lock();
        state.prefer = None;
        state.avoid = None;
        state.live = Some(Arc::clone(&live));
        live
    }

    fn learn(&self, hello: &WhoAmI, address: SocketAddr) {
        let now = self.env.clock.now();
        let mut state = self.state.lock();
        state.routes.learn(&hello.routes, now);
        state.nodes.retain(|_, at| *at != address);
        state.nodes.insert(hello.node, address);
        state.hello = Some(hello.clone());
    }

    fn named(&self, why: impl Fn(&Target) -> String) -> Vec<(String, Error)> {
        let text = |target: &Target| match target {
            Target::Address(address) => address.to_string(),
            Target::Name(name) => name.clone(),
        };
        self.targets
            .iter()
            .map(|target| (text(target), Error::unavailable(why(target))))
            .collect()
    }
}

/// One error from those of all addresses.
fn unreachable(failures: &[(String, Error)]) -> Error {
    let listed: Vec<String> = failures
        .iter()
        .map(|(address, error)| format!("{address}: {}", error.message))
        .collect();
    let denied = failures.iter().find(|(_, e)| e.code == Code::Denied);
    let unreached = failures.iter().all(|(_, e)| e.code == Code::Denied);
    match denied {
        Some((_, first)) if unreached => {
            let error = Error::new(
                Code::Denied,
                format!("refused by every node ({})", listed.join("; ")),
            );
            error.hint(
                first
                    .hint
                    .clone()
                    .unwrap_or_else(|| "check --identity, or log in again".into()),
            )
        }
        _ => Error::unavailable(format!("no node answers ({})", listed.join("; ")))
            .hint("check that `dfs serve` runs there and that UDP reaches it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_names_every_address_and_why() {
        let error = unreachable(&[
            (
                "10.0.0.1:7400".into(),
                Error::unavailable("no answer in 5 s"),
            ),
            ("10.0.0.2:7400".into(), Error::new(Code::Denied, "revoked")),
        ]);
        assert_eq!(error.code, Code::Unavailable);
        assert!(error.message.contains("10.0.0.1:7400: no answer in 5 s"));
        assert!(error.message.contains("10.0.0.2:7400: revoked"));
    }

    #[test]
    fn refused_everywhere_is_denied() {
        let refused = ("a:1".to_string(), Error::new(Code::Denied, "revoked"));
        assert_eq!(unreachable(&[refused]).code, Code::Denied);
    }
}
