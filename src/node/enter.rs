//! Joining a cluster as a new node: with a token and no certificate, before anything else of the
//! node exists. Called by `open` on an empty directory; and the same for a user, by `cmd`.

use crate::cluster::{JoinToken, KeyRequest};
use crate::codec;
use crate::env::Env;
use crate::error::{Code, Error, Result};
use crate::net::{ALPN_JOIN, ClientTls, Endpoint};
use crate::proto::{JoinAnswer, JoinRequest, JoinWhat, Joined};
use crate::types::{CaPin, Credentials, SubjectKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// One attempt at one address.
const ATTEMPT: Duration = Duration::from_secs(10);
/// Attempts at all addresses where nobody set a time: a root group that elects its leader is back
/// within a second.
const ROUNDS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(300);

/// Spends a token at one of the addresses, `within` so long; the credentials, and what the cluster
/// said. `None`: so many times.
///
/// # Errors
/// `denied` for a token that is wrong, used or expired, or addresses of another cluster than the
/// token's; `unavailable` when none answers, which says whether the token may be spent.
pub async fn enter(
    env: &Env,
    addresses: &[String],
    token: &JoinToken,
    what: JoinWhat,
    within: Option<Duration>,
) -> Result<(Credentials, Joined)> {
    let v6 = |address: &String| address.starts_with('[');
    let listen: SocketAddr = match addresses.iter().all(v6) {
        true => (Ipv6Addr::UNSPECIFIED, 0).into(),
        false => (Ipv4Addr::UNSPECIFIED, 0).into(),
    };
    let endpoint = Endpoint::bind(env, listen, None).await?;
    let entered = enter_over(env, &endpoint, addresses, token, (what, within)).await;
    endpoint.close(Duration::ZERO).await;
    entered
}

/// [`enter`] over an endpoint that is there.
pub(super) async fn enter_over(
    env: &Env,
    endpoint: &Endpoint,
    addresses: &[String],
    token: &JoinToken,
    (what, within): (JoinWhat, Option<Duration>),
) -> Result<(Credentials, Joined)> {
    let kind = match &what {
        JoinWhat::Node { .. } => SubjectKind::Node,
        JoinWhat::User => SubjectKind::User,
    };
    // One key for all attempts: the token is spent on it, and an answer may be lost.
    let key = KeyRequest::new(&*env.rng)?;
    let request = JoinRequest {
        token: token.id(),
        secret: *token.secret(),
        request: key.request_der().to_vec(),
        what,
    };
    let frame = codec::encode(&request);
    let began = env.clock.now();
    let left = || match within {
        Some(within) => (began + within).saturating_sub(env.clock.now()),
        None => ATTEMPT,
    };
    let (mut failures, mut open, mut rounds) = (Vec::new(), false, 0);
    while rounds == 0 || (!left().is_zero() && (within.is_some() || rounds < ROUNDS)) {
        if rounds > 0 {
            tokio::time::sleep(PAUSE.min(left())).await;
        }
        rounds += 1;
        failures.clear();
        for (tried, address) in addresses.iter().enumerate() {
            let within = match within {
                // None takes the time of those behind it.
                Some(_) => ATTEMPT.min(left().div_f64((addresses.len() - tried) as f64)),
                None => ATTEMPT,
            };
            match ask(env, endpoint, address, token.pin(), (&frame, within)).await {
                Ok(joined) => {
                    if CaPin::of(&joined.ca) != token.pin() {
                        return Err(Error::new(
                            Code::Denied,
                            "the cluster answered with another CA than the token's",
                        ));
                    }
                    let credentials =
                        key.into_credentials(&joined.certificate, &joined.ca, kind)?;
                    return Ok((credentials, joined));
                }
                Err(error) if error.code == Code::Unavailable || error.code.is_retryable() => {
                    open |= error.may_have_happened;
                    failures.push(format!("{address}: {}", error.message));
                }
                Err(error) => return Err(error),
            }
        }
    }
    let error = Error::unavailable(format!("no node lets us in ({})", failures.join("; ")));
    let check = "check the address, and that `dfs serve` runs there and UDP reaches it";
    Err(match open {
        true => error
            .unknown_outcome()
            .hint(format!("{check}; if the token is used up, get another")),
        false => error.hint(check),
    })
}

async fn ask(
    env: &Env,
    endpoint: &Endpoint,
    address: &str,
    pin: CaPin,
    (frame, within): (&[u8], Duration),
) -> Result<Joined> {
    let unnamed = || Error::unavailable("the name was not found in time");
    let to = tokio::time::timeout(within, super::peers::resolve(env, address));
    let to = to.await.map_err(|_| unnamed())??;
    let tls = ClientTls::pinned(pin)?;
    let connection = endpoint.connect(to, ALPN_JOIN, &tls, within).await?;
    let answer = connection.call(frame, within).await;
    connection.close();
    match codec::decode(&answer?)? {
        JoinAnswer::Joined(joined) => Ok(joined),
        JoinAnswer::Failed(error) => Err(error),
    }
}
