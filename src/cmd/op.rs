//! `dfs op`: what became of a request whose answer was lost.

use super::context::Context;
use super::failure::Outcome;
use crate::client::OpState;
use crate::error::Error;
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
    Status {
        /// What was given as --op-id, or shown with -v
        #[arg(value_name = "ID")]
        id: String,
    },
}

#[derive(Serialize)]
struct StatusJson<'a> {
    op_id: &'a str,
    state: &'static str,
    /// One for each change of the request, in order.
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
