//! What every part of the client shares: the ways to the nodes, sessions, and what errors mean.

use super::endpoints;
use super::link::{Link, ToldFile};
use super::options::ConnectOptions;
use super::owners::OwnersDesk;
use super::retry::{Pace, Retry};
use super::sessions::Sessions;
use super::under_way::UnderWay;
use super::wire::{Bind, NetDial, OsSockets};
use crate::env::Env;
use crate::error::{Code, Error, Result};
use crate::proto::WhoAmI;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A connection to a cluster; cheap to clone, all clones share it.
#[derive(Clone)]
pub struct Client {
    pub(crate) core: Arc<Core>,
}

pub(crate) struct Core {
    pub(crate) env: Env,
    pub(crate) link: Link,
    pub(crate) timeout: Duration,
    pub(crate) state_dir: Option<PathBuf>,
    pub(crate) sessions: Sessions,
    pub(crate) under_way: UnderWay,
    pub(crate) owners: OwnersDesk,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    /// Connects to the first endpoint that answers.
    ///
    /// # Errors
    /// `unavailable` names each address and why it failed; `denied` when every node refused the
    /// identity; `usage` for no or malformed endpoints.
    pub async fn connect(env: Env, options: ConnectOptions) -> Result<Client> {
        Self::connect_over(env, options, Box::new(OsSockets)).await
    }

    /// [`Client::connect`] over any sockets.
    pub(crate) async fn connect_over(
        env: Env,
        options: ConnectOptions,
        sockets: Box<dyn Bind>,
    ) -> Result<Client> {
        let targets = endpoints::parse_all(&options.endpoints)?;
        let dialer = Box::new(NetDial::new(env.clone(), options.tls, sockets));
        let told = options.state_dir.as_deref().zip(options.cluster);
        let told = told.map(|(dir, cluster)| ToldFile::new(dir, cluster));
        let core = Core {
            link: Link::new(env.clone(), dialer, targets, told),
            env,
            timeout: options.timeout,
            state_dir: options.state_dir,
            sessions: Sessions::default(),
            under_way: options.under_way,
            owners: OwnersDesk::default(),
        };
        core.connect().await
    }

    /// What the node said last: cluster, node, user, sizes, routes.
    pub fn who_am_i(&self) -> WhoAmI {
        self.told(WhoAmI::clone)
    }

    /// Something of what the node said last.
    pub(crate) fn told<T>(&self, ask: impl FnOnce(&WhoAmI) -> T) -> T {
        let told = self.core.link.hello(ask);
        told.expect("a client exists only after its first greeting was answered")
    }
}

impl Core {
    pub(crate) async fn connect(self) -> Result<Client> {
        let core = self;
        core.link.recall().await;
        let mut retry = Retry::within(core.timeout).telling();
        loop {
            match core.link.any(None, retry.attempt(Duration::MAX)).await {
                Ok(_) => {
                    let core = Arc::new(core);
                    return Ok(Client { core });
                }
                Err(error) if error.code == Code::Unavailable => {
                    retry.pause(&*core.env.rng, error, Pace::Usual).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// True for failures that may be gone at the next attempt.
pub(crate) fn is_passing(error: &Error) -> bool {
    error.code == Code::Unavailable || error.code.is_retryable()
}

/// What a user sees of a failure that lasted: `busy` and `redirect` are ours alone.
pub(crate) fn shown(error: Error) -> Error {
    match error.code {
        Code::Busy | Code::Redirect => Error {
            code: Code::Unavailable,
            ..error
        }
        .hint("try again later, or with a longer --timeout"),
        _ => error,
    }
}

/// An answer of another kind than asked for.
pub(crate) fn odd(what: &str) -> Error {
    Error::failed(format!("the node answered something else than {what}"))
        .hint("its program may be of another version")
}
