//! What a verb is run with: the global flags and settings, standard output, and the way to the
//! cluster.

use super::failure::{Outcome, advise, tell};
use super::globals::{Globals, OpFlag};
use super::output::Output;
use crate::client::{Client, ConnectOptions, UnderWay};
use crate::cluster::{Identity, default_identity_path};
use crate::config::{Config, state_dir};
use crate::env::Env;
use crate::error::{Code, Error, Result};
use crate::limits::{REQUEST_TIMEOUT, WINDOW_BYTES_DEFAULT};
use crate::net::ClientTls;
use crate::types::{DfsPath, SessionId, Subject};
use std::io::IsTerminal;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

/// Shared by everything one command does.
pub struct Context {
    pub globals: Globals,
    /// Files, environment and flags, laid over each other.
    pub config: Config,
    pub out: Output,
    /// The world: clock, randomness, tasks, disk.
    pub env: Env,
    /// The changes that are sent and not answered.
    pub under_way: UnderWay,
    /// Under which operation id the command goes on when it is run again, if it needs one.
    again: OnceLock<String>,
}

/// Looks up an environment variable; one that is not UTF-8 counts as not set.
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

impl Context {
    /// # Errors
    /// `usage` for settings or flags that are none.
    pub fn new(globals: Globals, env: Env) -> Result<Context> {
        let mut config = Config::load(globals.config.as_deref(), &variable)?;
        globals.apply(&mut config)?;
        Ok(Context {
            globals,
            config,
            out: Output::stdout(),
            env,
            under_way: UnderWay::default(),
            again: OnceLock::new(),
        })
    }

    /// An operation id for a command of many changes, which a second run needs to go on: the one
    /// given, or a new one. What ends the command half way names it.
    pub fn named(&self, op: &OpFlag) -> OpFlag {
        let given = op.op_id.clone();
        let id = given.unwrap_or_else(|| SessionId(self.env.rng.bytes16()).to_string());
        let id = self.again.get_or_init(|| id).clone();
        OpFlag { op_id: Some(id) }
    }

    /// Says of an error that ends the command half way what to do to go on.
    pub fn again(&self, error: Error) -> Error {
        match self.again.get() {
            Some(id) => going_on(error, id),
            None => error,
        }
    }

    pub fn json(&self) -> bool {
        self.globals.json
    }

    pub fn quiet(&self) -> bool {
        self.globals.quiet
    }

    pub fn verbose(&self) -> bool {
        self.globals.verbose > 0
    }

    /// A bar is for a person who looks at standard error and did not ask for silence.
    pub fn shows_progress(&self) -> bool {
        let unwanted = self.globals.quiet || self.globals.no_progress || self.globals.json;
        !unwanted && std::io::stderr().is_terminal()
    }

    /// A line on standard error with `-v`.
    pub fn note(&self, text: impl std::fmt::Display) {
        if self.verbose() {
            tell(text);
        }
    }

    /// The id an operation was sent under, with `-v`.
    pub fn note_op(&self, path: &DfsPath, op_id: &str) {
        self.note(format_args!("{path}: operation {op_id}"));
    }

    /// Bytes in flight of one transfer.
    pub fn window_bytes(&self) -> u64 {
        self.config.client.window.unwrap_or(WINDOW_BYTES_DEFAULT)
    }

    /// How long one request may take with its retries.
    pub fn timeout(&self) -> Duration {
        self.config.client.timeout.unwrap_or(REQUEST_TIMEOUT)
    }

    /// As whom the settings say that we connect.
    pub fn subject(&self) -> Result<Subject> {
        let identity = load_identity(self.config.client.identity.as_deref())?;
        Ok(identity.credentials.facts()?.subject)
    }

    /// Connects as whom and where the settings say.
    ///
    /// # Errors
    /// `denied` without an identity, with what to do; those of [`Client::connect`].
    pub async fn connect(&self) -> Outcome<Client> {
        let identity = load_identity(self.config.client.identity.as_deref())?;
        let mut endpoints = self.config.client.cluster.clone();
        if endpoints.is_empty() {
            endpoints = identity.addresses.clone();
        }
        let tls = ClientTls::new(&identity.credentials)?;
        let mut options = ConnectOptions::new(endpoints, tls);
        options.timeout = self.timeout();
        options.state_dir = state_dir(&variable);
        options.cluster = Some(identity.cluster()?);
        options.under_way = self.under_way.clone();
        Ok(Client::connect(self.env.clone(), options).await?)
    }
}

fn going_on(error: Error, id: &str) -> Error {
    match error.code {
        Code::Interrupted | Code::Unavailable => {
            let hint = format!("run it again with --op-id {id} within the hour to go on");
            advise(error, &hint)
        }
        _ => error,
    }
}

/// Reads the identity named, or the one in the default place.
///
/// # Errors
/// `denied` when there is none: with what to do if none was named.
fn load_identity(named: Option<&Path>) -> Result<Identity> {
    if let Some(path) = named {
        return Identity::load(path);
    }
    let path = default_identity_path()?;
    if !path.exists() {
        return Err(no_identity(&path));
    }
    Identity::load(&path)
}

fn no_identity(path: &Path) -> Error {
    let why = format!(
        "no identity to connect with (nothing at {})",
        path.display()
    );
    Error::new(Code::Denied, why).hint(
        "start a cluster with `dfs serve`, which writes DIR/admin.dfs, or name one with \
         --identity FILE",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_an_identity_the_error_says_how_to_get_one() {
        let error = no_identity(Path::new("/x"));
        assert_eq!(error.code, Code::Denied);
        assert_eq!(
            error.to_string(),
            "no identity to connect with (nothing at /x); start a cluster with `dfs serve`, \
             which writes DIR/admin.dfs, or name one with --identity FILE"
        );
    }

    #[test]
    fn what_ends_half_way_names_the_id_to_go_on_under() {
        let stopped = Error::new(Code::Interrupted, "interrupted").hint("run it again");
        assert_eq!(
            going_on(stopped, "job").to_string(),
            "interrupted; run it again with --op-id job within the hour to go on"
        );
        let other = Error::new(Code::Exists, "it exists").hint("remove it");
        assert_eq!(going_on(other.clone(), "job"), other);
    }

    #[test]
    fn a_named_identity_that_is_missing_is_named() {
        let error = load_identity(Some(Path::new("/nonexistent/me.dfs"))).unwrap_err();
        assert_eq!(error.code, Code::Denied);
        assert_eq!(error.path.as_deref(), Some("/nonexistent/me.dfs"));
    }
}
