//! `dfs op`: what became of a request whose answer was lost.

use super::context::Context;
use super::failure::Outcome;
use crate::client::OpState;
use crate::error::{Code, Error};
use crate::shard::records::Outcome as Applied;
use crate::types::{FileVersion, Inode, Revision};
use clap::Subcommand;
use serde::Serialize;

/// Look at operations
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: OpVerb,
}

#[derive(Subcommand)]
enum OpVerb {
    /// Did a request of unknown outcome happen?
    ///
    /// Exit status 0: it was executed, and this is what came of it. 3: nothing is known of it; it
    /// did not arrive, or it is longer ago than an hour.
    ///
    /// Trees, several files of put and cp, and more than 512 paths take several requests. Of such a
    /// command, 0 says that it came to its end and nothing failed; 10: it was begun, and that is
    /// all that is known under its ID: it is under way, was interrupted, or some of it failed. The
    /// same command with the same --op-id goes on; what was done is not done twice. Its items can be
    /// asked for as ID.0, ID.1, …, and each request by the op_id that it shows with --json or -v.
    Status {
        /// What was given as --op-id, or shown with -v
        #[arg(value_name = "ID")]
        id: String,
    },
}

#[derive(Serialize)]
struct StatusJson<'a> {
    op_id: &'a str,
    /// `applied` or `begun`.
    state: &'static str,
    /// One for each change of the request, in order; none for a command of several requests.
    outcomes: Vec<OutcomeJson<'a>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum OutcomeJson<'a> {
    Done {
        inode: Inode,
        version: Option<FileVersion>,
        revision: Revision,
    },
    Refused {
        code: &'static str,
        path: Option<&'a str>,
        message: &'a str,
    },
}

impl<'a> OutcomeJson<'a> {
    fn new(outcome: &'a Applied) -> Self {
        match outcome {
            Ok(done) => OutcomeJson::Done {
                inode: done.inode,
                version: (done.version.0 > 0).then_some(done.version),
                revision: done.revision,
            },
            Err(error) => OutcomeJson::Refused {
                code: error.code.name(),
                path: error.path.as_deref(),
                message: &error.message,
            },
        }
    }
}

pub async fn run(args: Args, cx: &Context) -> Outcome {
    let OpVerb::Status { id } = args.verb;
    let outcomes = match cx.connect().await?.op_status(&id).await? {
        OpState::Applied(outcomes) => outcomes,
        OpState::Begun => return begun(&id, cx),
        OpState::Unknown => {
            let why = "nothing is known of it (it did not arrive, or is longer ago than an hour)";
            return Err(Error::not_found(why)
                .at(&id)
                .hint("look at the path itself, then send it again")
                .into());
        }
    };
    if cx.json() {
        let outcomes = outcomes.iter().map(OutcomeJson::new).collect();
        return cx.out.json(&StatusJson {
            op_id: &id,
            state: "applied",
            outcomes,
        });
    }
    if outcomes.is_empty() {
        return cx.out.line("done: all of it");
    }
    for outcome in &outcomes {
        match outcome {
            Ok(done) if done.version.0 > 0 => {
                cx.out
                    .line(format_args!("done: version {}", done.version))?;
            }
            Ok(_) => cx.out.line("done")?,
            Err(error) => cx.out.line(format_args!("refused: {error}"))?,
        }
    }
    Ok(())
}

/// A command of several requests that is not known to have come to its end.
fn begun(id: &str, cx: &Context) -> Outcome {
    if cx.json() {
        cx.out.json(&StatusJson {
            op_id: id,
            state: "begun",
            outcomes: Vec::new(),
        })?;
    } else {
        cx.out.line("begun")?;
    }
    let why = "it was begun, and is not known to have come to its end (it is under way, was \
               interrupted, or some of it failed)";
    let hint =
        format!("run the same command with --op-id {id} again: what was done is not done twice");
    Err(Error::new(Code::Partial, why).at(id).hint(hint).into())
}
