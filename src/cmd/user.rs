//! `dfs user`.

use super::context::Context;
use super::failure::{Failure, Outcome};
use super::node::said;
use super::table::Table;
use crate::error::Error;
use crate::proto::{AdminAnswer, AdminCall};

/// List the users that were let in, or take one out
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// List them
    Ls,
    /// Revoke everything a user was given; his connections end
    Rm {
        /// His name
        name: String,
    },
}

pub async fn run(args: Args, cx: &Context) -> Outcome {
    let call = match args.verb {
        Verb::Ls => AdminCall::Users,
        Verb::Rm { name } => AdminCall::RemoveUser(name),
    };
    match cx.connect().await?.admin(call).await? {
        AdminAnswer::Done(text) => said(cx, &text),
        AdminAnswer::Users(users) if cx.json() => cx.out.json(&users),
        AdminAnswer::Users(users) => {
            let mut table = Table::new(&["USER", "GROUP", "ADMIN", "CERTIFICATES", "STATE"]);
            for user in users {
                table.row(vec![
                    user.name,
                    user.group,
                    if user.admin { "yes" } else { "no" }.into(),
                    user.certificates.to_string(),
                    if user.revoked { "removed" } else { "in" }.into(),
                ]);
            }
            cx.out.write(|out| write!(out, "{table}"))
        }
        _ => Err(Failure::Error(Error::failed(
            "the cluster answered something else than users",
        ))),
    }
}
