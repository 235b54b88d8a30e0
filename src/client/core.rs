//! What every part of the client shares: the connection, and asking with retries.

use super::endpoints;
use super::link::{Link, Live};
use super::options::ConnectOptions;
use super::retry::Retry;
use super::sessions::Sessions;
use super::wire::{Bind, NetDial, OsSockets};
use crate::codec;
use crate::env::Env;
use crate::error::{Code, Error, Result};
use crate::proto::{Answer, Call, WhoAmI};
use crate::types::GroupId;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// One attempt at a read; then another node is asked.
const READ_ATTEMPT: Duration = Duration::from_secs(5);

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
        let core = Core {
            link: Link::new(env.clone(), dialer, targets),
            env,
            timeout: options.timeout,
            state_dir: options.state_dir,
            sessions: Sessions::default(),
        };
        core.connect().await
    }

    /// What the node said last: cluster, node, user, sizes, routes.
    pub fn who_am_i(&self) -> WhoAmI {
        let hello = self.core.link.hello();
        hello.expect("a client exists only after its first greeting was answered")
    }
}

impl Core {
    pub(crate) async fn connect(self) -> Result<Client> {
        let core = self;
        let mut retry = Retry::within(core.timeout);
        loop {
            match core.link.live(retry.attempt(Duration::MAX)).await {
                Ok(_) => {
                    let core = Arc::new(core);
                    return Ok(Client { core });
                }
                Err(error) if error.code == Code::Unavailable => {
                    retry.pause(&*core.env.rng, error).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl Client {
    /// Asks something that changes nothing, at any node, until the deadline.
    pub(crate) async fn ask(&self, call: &Call) -> Result<Answer> {
        self.ask_for(call, self.core.timeout, READ_ATTEMPT).await
    }

    /// The same with its own deadline; one attempt takes `most` at most.
    pub(crate) async fn ask_for(
        &self,
        call: &Call,
        timeout: Duration,
        most: Duration,
    ) -> Result<Answer> {
        let frame = codec::encode(call);
        let mut retry = Retry::within(timeout);
        loop {
            let cause = match self.attempt(&frame, &retry, most).await {
                Ok((live, Answer::Failed(error))) if is_passing(&error) => {
                    self.step_aside(&live, &error, GroupId::FIRST).await;
                    error
                }
                Ok((_, Answer::Failed(error))) => return Err(error),
                Ok((_, answer)) => return Ok(answer),
                Err(error) => error,
            };
            // Nothing can have happened: a read changes nothing.
            let cause = Error {
                may_have_happened: false,
                ..cause
            };
            if !is_passing(&cause) {
                return Err(cause);
            }
            let ended = retry.pause(&*self.core.env.rng, cause).await;
            ended.map_err(shown)?;
        }
    }

    /// Sends one frame to the node we are connected to, or to another if there is none. An
    /// error has `may_have_happened` when the frame may have reached a node.
    pub(crate) async fn attempt(
        &self,
        frame: &[u8],
        retry: &Retry,
        most: Duration,
    ) -> Result<(Arc<Live>, Answer)> {
        let link = &self.core.link;
        let live = link.live(retry.attempt(Duration::MAX)).await?;
        let reply = live.wire.call(frame, retry.attempt(most)).await;
        let decoded = match &reply {
            Ok(reply) => codec::decode(reply).map_err(Error::unknown_outcome),
            Err(error) => Err(error.clone()),
        };
        decoded
            .map(|answer| (Arc::clone(&live), answer))
            .inspect_err(|error| {
                // A node that is only busy keeps its connection.
                if !error.code.is_retryable() {
                    link.suspect(&live);
                }
            })
    }

    /// After an answer that may be another one elsewhere or later.
    pub(crate) async fn step_aside(&self, live: &Arc<Live>, cause: &Error, shard: GroupId) {
        match cause.code {
            Code::Redirect => self.core.link.redirected(live, shard).await,
            Code::Unavailable => self.core.link.elsewhere(live),
            _ => {}
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
