//! The command line: one file a verb. A verb takes its arguments, makes one client call (or a
//! loop of them) and prints; rules of the file system are not decided here.
//!
//! | file | what it is |
//! |---|---|
//! | `globals` | flags all or several verbs share |
//! | `context` | settings, output and connection of one command |
//! | `failure` | how verbs end, how errors look; exit statuses come from `error::Code` |
//! | `signals` | what stops a verb before its end |
//! | `output`, `entry`, `listing`, `transfer`, `table`, `text` | what results look like, on the screen and as JSON |
//! | `items`, `walk`, `operands`, `targets`, `glob`, `progress` | many paths, trees, `cp`'s rules, patterns, bars |
//!
//! Results go to standard output, everything else to standard error.

mod bench;
mod cat;
mod chmod;
mod chown;
mod completions;
mod context;
mod copy;
mod cp;
mod drawing;
mod du;
mod entry;
mod failure;
mod filter;
mod find;
mod fsck;
mod gc;
mod get;
mod glob;
mod globals;
mod items;
mod listing;
mod login;
mod ls;
mod man;
mod mkdir;
mod mv;
mod node;
mod op;
mod operands;
mod orders;
mod output;
mod progress;
mod put;
mod remote;
mod repair;
mod restore;
mod ring;
mod rm;
mod rmdir;
mod screen;
mod scrub;
mod serve;
mod signals;
mod sources;
mod stat;
mod status;
mod table;
mod targets;
mod text;
mod token;
mod transfer;
mod tree;
mod undelete;
mod user;
mod versions;
mod walk;

use crate::client::{OpenChange, ask_later};
use crate::env;
use crate::error::{Code, Error};
use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use context::Context;
use failure::{Failure, Outcome, report, usage_error};
use globals::Globals;
use std::ffi::OsString;
use std::time::Duration;
use tracing_subscriber::EnvFilter;

/// How long work on local files may go on after a verb was stopped.
const LOCAL_END: Duration = Duration::from_millis(300);

/// A strongly consistent, peer-to-peer distributed file system in one binary
///
/// Remote paths are absolute (/a/b); `-` is standard input or output. Sizes are written 64KiB,
/// durations 30s. Results go to standard output, everything else to standard error.
///
/// Exit status: 0 done, 1 failed, 2 usage, 3 not found, 4 conflict, 5 denied, 6 unavailable,
/// 7 locked, 8 corrupt, 9 no space, 10 some of several items failed, 130 interrupted.
#[derive(Parser)]
#[command(
    name = "dfs",
    version,
    max_term_width = 100,
    disable_help_subcommand = true
)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Serve(serve::Args),
    Mkdir(mkdir::Args),
    Ls(ls::Args),
    Put(put::Args),
    Get(get::Args),
    Cat(cat::Args),
    Rm(rm::Args),
    Rmdir(rmdir::Args),
    Mv(mv::Args),
    Cp(cp::Args),
    Stat(stat::Args),
    Tree(tree::Args),
    Du(du::Args),
    Find(find::Args),
    Versions(versions::Args),
    Restore(restore::Args),
    Undelete(undelete::Args),
    Chmod(chmod::Args),
    Chown(chown::Args),
    Status(status::Args),
    Fsck(fsck::Args),
    Bench(bench::Args),
    Gc(gc::Args),
    Token(token::Args),
    Login(login::Args),
    Node(node::Args),
    Ring(ring::Args),
    Scrub(scrub::Args),
    Repair(repair::Args),
    User(user::Args),
    Op(op::Args),
    Completions(completions::Args),
    Man(man::Args),
}

/// Runs the command line and returns the exit status of the process.
pub fn main(args: impl IntoIterator<Item = OsString>) -> u8 {
    let args: Vec<OsString> = args.into_iter().collect();
    match parse(&args) {
        Ok(cli) => {
            let json = cli.globals.json;
            status_of(start(cli), json)
        }
        Err(e) if !e.use_stderr() => {
            // Help and version are results.
            let printed = e.print().map_err(Failure::output);
            status_of(printed, false)
        }
        Err(e) => {
            let json = wants_json(&args);
            let error = match e.kind() {
                ErrorKind::InvalidUtf8 => first_not_utf8(&args),
                _ => usage_error(&e),
            };
            status_of(Err(Failure::Error(error)), json)
        }
    }
}

fn parse(args: &[OsString]) -> Result<Cli, clap::Error> {
    let mut matches = Cli::command().try_get_matches_from(args)?;
    Cli::from_arg_matches_mut(&mut matches)
}

/// The parser does not say which argument it was. A remote path is absolute; a local one may be
/// any bytes.
fn first_not_utf8(args: &[OsString]) -> Error {
    let strange = || args.iter().filter(|arg| arg.to_str().is_none());
    let absolute = strange().find(|arg| arg.as_encoded_bytes().starts_with(b"/"));
    let found = absolute.or_else(|| strange().next());
    operands::not_utf8(found.map_or("".as_ref(), OsString::as_os_str))
}

/// Whether `--json` stands among arguments that could not be read.
fn wants_json(args: &[OsString]) -> bool {
    args.iter()
        .take_while(|arg| *arg != "--")
        .any(|arg| arg == "--json")
}

/// Reports what is not reported yet.
fn status_of(outcome: Outcome, json: bool) -> u8 {
    match outcome {
        Ok(()) => 0,
        Err(failure) => {
            if let Failure::Error(error) = &failure {
                report(error, json);
            }
            failure.exit_status()
        }
    }
}

fn start(cli: Cli) -> Outcome {
    // Two verbs need neither settings nor a cluster.
    match cli.verb {
        Verb::Completions(args) => return completions::run(&args),
        Verb::Man(args) => return man::run(&args),
        _ => {}
    }
    start_log(&cli);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::failed(format!("cannot start threads ({e})")))?;
    let cx = Context::new(cli.globals, env::real::env(runtime.handle().clone()))?;
    let outcome = runtime.block_on(async {
        match cli.verb {
            // A server ends in its own way when it is told to.
            Verb::Serve(args) => serve::run(args, &cx).await,
            // It has much to remove first.
            Verb::Bench(args) => bench::run(args, &cx).await,
            verb => tokio::select! {
                biased;
                () = signals::stopped() => {
                    Err(Failure::Error(cx.again(interrupted(cx.under_way.newest()))))
                }
                outcome = run(verb, &cx) => outcome,
            },
        }
    });
    // Whatever still runs (a blocking read of a terminal, say) must not keep the process; what was
    // stopped may just be at a local file, which it removes then.
    let stopped = matches!(&outcome, Err(Failure::Error(e)) if e.code == Code::Interrupted);
    match stopped {
        true => runtime.shutdown_timeout(LOCAL_END),
        false => runtime.shutdown_background(),
    }
    // What was written before a failure counts, too.
    let flushed = cx.out.flush();
    outcome.and(flushed)
}

async fn run(verb: Verb, cx: &Context) -> Outcome {
    match verb {
        Verb::Mkdir(args) => mkdir::run(args, cx).await,
        Verb::Ls(args) => ls::run(args, cx).await,
        Verb::Put(args) => put::run(args, cx).await,
        Verb::Get(args) => get::run(args, cx).await,
        Verb::Cat(args) => cat::run(args, cx).await,
        Verb::Rm(args) => rm::run(args, cx).await,
        Verb::Rmdir(args) => rmdir::run(args, cx).await,
        Verb::Mv(args) => mv::run(args, cx).await,
        Verb::Cp(args) => cp::run(args, cx).await,
        Verb::Stat(args) => stat::run(args, cx).await,
        Verb::Tree(args) => tree::run(args, cx).await,
        Verb::Du(args) => du::run(args, cx).await,
        Verb::Find(args) => find::run(args, cx).await,
        Verb::Versions(args) => versions::run(args, cx).await,
        Verb::Restore(args) => restore::run(args, cx).await,
        Verb::Undelete(args) => undelete::run(args, cx).await,
        Verb::Chmod(args) => chmod::run(args, cx).await,
        Verb::Chown(args) => chown::run(args, cx).await,
        Verb::Status(args) => status::run(args, cx).await,
        Verb::Fsck(args) => fsck::run(args, cx).await,
        Verb::Bench(args) => bench::run(args, cx).await,
        Verb::Gc(args) => gc::run(args, cx).await,
        Verb::Token(args) => token::run(args, cx).await,
        Verb::Login(args) => login::run(args, cx).await,
        Verb::Node(args) => node::run(args, cx).await,
        Verb::Ring(args) => ring::run(args, cx).await,
        Verb::Scrub(args) => scrub::run(args, cx).await,
        Verb::Repair(args) => repair::run(args, cx).await,
        Verb::User(args) => user::run(args, cx).await,
        Verb::Op(args) => op::run(args, cx).await,
        Verb::Serve(args) => serve::run(args, cx).await,
        Verb::Completions(args) => completions::run(&args),
        Verb::Man(args) => man::run(&args),
    }
}

/// What to say of a verb that was stopped, perhaps in the middle of a change.
fn interrupted(open: Option<OpenChange>) -> Error {
    let again = "run the same command again: transfers go on where they stopped";
    let Some(OpenChange { path, op_id }) = open else {
        return Error::new(Code::Interrupted, "interrupted").hint(again);
    };
    let error = Error::new(Code::Interrupted, "interrupted (it may have happened)");
    let error = error.unknown_outcome().hint(match op_id {
        Some(op_id) => ask_later(&op_id),
        None => "look whether it was done".into(),
    });
    match path {
        Some(path) => error.at(path),
        None => error,
    }
}

/// Messages go to standard error: of a server all that matter, of a client warnings, unless
/// `-q`, `-vv` or `DFS_LOG` say otherwise. With `--json` an error is all that a script finds there.
fn start_log(cli: &Cli) {
    let serving = matches!(cli.verb, Verb::Serve(_));
    let level = match (serving, cli.globals.quiet, cli.globals.verbose) {
        (true, true, _) => "warn",
        // openraft tells at `info` what only its authors want to know, and warns of each heartbeat to
        // a node that is down. That a message came for a replica that has ended is no error.
        (true, _, 0) => "info,openraft=error,openraft::raft::raft_inner=off",
        (true, _, 1) => "dfs=debug,info",
        (false, true, _) => "off",
        (false, _, 0) if cli.globals.json => "off",
        (false, _, 0 | 1) => "dfs=warn,error",
        (false, _, 2) => "dfs=debug,warn",
        (_, _, _) => "dfs=trace,debug",
    };
    let said = context::variable("DFS_LOG").and_then(|text| text.parse::<EnvFilter>().ok());
    let colour = std::io::IsTerminal::is_terminal(&std::io::stderr())
        && context::variable("NO_COLOR").is_none_or(|value| value.is_empty());
    let log = tracing_subscriber::fmt()
        .with_env_filter(said.unwrap_or_else(|| EnvFilter::new(level)))
        .with_ansi(colour)
        .with_target(false)
        .with_writer(std::io::stderr);
    // A second start in one process (tests) keeps the first log.
    let _ = match serving {
        true => log.try_init(),
        false => log.without_time().try_init(),
    };
}

#[cfg(test)]
#[path = "cli_tests.rs"]
mod tests;
