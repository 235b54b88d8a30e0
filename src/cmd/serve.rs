//! `dfs serve`: settings to a running node, its ready line, and the signals that stop it.

use super::context::{Context, variable};
use super::failure::Outcome;
use crate::config::{ServerConfig, address, capacity, listen, place};
use crate::error::{Code, Error, Result};
use crate::node::{self, Ready};
use crate::types::{ClusterId, NodeId};
use serde::Serialize;
use std::net::SocketAddr;
use std::path::PathBuf;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Start a node on its data directory
///
/// An empty directory becomes a new cluster, or with --join and --token a new node of a cluster that
/// is there; a restart needs neither. Once ready it prints one line on standard output:
/// `ready node=ID listen=ADDR:PORT cluster=ID`. SIGTERM or Ctrl-C stops it in order. More
/// settings (chunk size, retention, …) are in the settings file.
#[derive(clap::Args)]
pub struct Args {
    /// The node's directory
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Where to listen (UDP), 0.0.0.0:7440 if not given; port 0 takes a free one
    #[arg(long, value_name = "ADDR:PORT", value_parser = listen)]
    listen: Option<SocketAddr>,
    /// How others reach this node; if not given the address it listens on, or where it listens on all
    /// of them, this machine's address towards the other nodes (of the first node: on the default
    /// route)
    #[arg(long, value_name = "HOST:PORT", value_parser = address)]
    advertise: Option<String>,
    /// Zone the node stands in
    #[arg(long, value_name = "Z", value_parser = place)]
    zone: Option<String>,
    /// Rack the node stands in
    #[arg(long, value_name = "R", value_parser = place)]
    rack: Option<String>,
    /// Bytes of chunks the node offers, if not given what its file system holds; counts when the node
    /// enters the cluster, later `dfs node weight` changes it
    #[arg(long, value_name = "SIZE", value_parser = capacity)]
    capacity: Option<u64>,
    /// Start although the end of the log is damaged: changes in it are given up
    #[arg(long)]
    accept_lost_tail: bool,
    /// Nodes of the cluster to join; at a restart, where some of them are now if all have moved
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',', value_parser = address)]
    join: Vec<String>,
    /// What lets this node in: of `dfs token create`
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
}

#[derive(Serialize)]
struct ReadyJson {
    ready: bool,
    node: NodeId,
    listen: SocketAddr,
    #[serde(serialize_with = "super::entry::text")]
    cluster: ClusterId,
}

pub async fn run(args: Args, cx: &Context) -> Outcome {
    if args.token.is_some() && args.join.is_empty() {
        return Err(
            Error::usage("a token is for joining, and no node to join was named")
                .hint("name one with --join HOST:PORT")
                .into(),
        );
    }
    let settings = overlay(args, cx.config.server.clone()).settings(&variable)?;
    // Before anything else: a signal must not end the process in its own way from here on.
    let mut signals = Signals::new()?;
    let (tell, told) = tokio::sync::oneshot::channel::<()>();
    let stop = async {
        // A sender that is dropped belongs to a verb that has ended.
        let _ = told.await;
    };
    let ready = |ready: &Ready| show_ready(cx, ready);
    let serving = node::serve(cx.env.clone(), settings, ready, stop);
    tokio::pin!(serving);
    tokio::select! {
        ended = &mut serving => return Ok(ended?),
        () = signals.next() => {}
    }
    let _ = tell.send(());
    tokio::select! {
        ended = &mut serving => Ok(ended?),
        () = signals.next() => Err(Error::new(Code::Interrupted, "stopped before it had finished")
            .hint("nothing acknowledged is lost; the next start takes a little longer")
            .into()),
    }
}

/// Flags over settings.
fn overlay(args: Args, settings: ServerConfig) -> ServerConfig {
    ServerConfig {
        data: args.data.or(settings.data),
        listen: args.listen.or(settings.listen),
        advertise: args.advertise.or(settings.advertise),
        zone: args.zone.or(settings.zone),
        rack: args.rack.or(settings.rack),
        capacity: args.capacity.or(settings.capacity),
        join: args.join,
        token: args.token,
        accept_lost_tail: args.accept_lost_tail,
        ..settings
    }
}

/// Whoever started us waits for this line. A closed standard output is no reason to stop.
fn show_ready(cx: &Context, ready: &Ready) {
    let Ready {
        node,
        listen,
        cluster,
    } = *ready;
    let written = if cx.json() {
        cx.out.json(&ReadyJson {
            ready: true,
            node,
            listen,
            cluster,
        })
    } else {
        cx.out.line(format_args!(
            "ready node={node} listen={listen} cluster={cluster}"
        ))
    };
    if written.and_then(|()| cx.out.flush()).is_err() {
        tracing::warn!("nobody reads standard output: the ready line is lost");
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Signals> {
        let listen = |kind| {
            signal(kind).map_err(|e| Error::failed(format!("cannot listen for signals ({e})")))
        };
        Ok(Signals {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
