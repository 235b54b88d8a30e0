//! `dfs token create`.

use super::context::Context;
use super::failure::{Failure, Outcome, tell};
use crate::config::units::parse_duration;
use crate::error::{Error, Result};
use crate::proto::{AdminAnswer, AdminCall, TokenRole};
use crate::types::Subject;
use serde::Serialize;
use std::time::Duration;

/// Make a token that lets a node or a user in
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    Create(Create),
}

/// Print a token for one new node, or with --client or --user for one user
#[derive(clap::Args)]
#[command(group(clap::ArgGroup::new("for_user").args(["client", "user"]).multiple(true)))]
struct Create {
    /// For a node (the default)
    #[arg(long, conflicts_with_all = ["client", "user", "admin", "group"])]
    node: bool,
    /// For a user, as --user says too; `dfs login` takes it
    #[arg(long)]
    client: bool,
    /// The user's name; without it you, with your group and your rights, on another machine
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// The user's group; if not given his name, or your own group
    #[arg(long, value_name = "NAME", requires = "for_user")]
    group: Option<String>,
    /// The user may manage the cluster
    #[arg(long, requires = "for_user")]
    admin: bool,
    /// How long it may be used
    #[arg(long, value_name = "DUR", default_value = "1h", value_parser = parse_duration)]
    ttl: Duration,
}

#[derive(Serialize)]
struct TokenJson<'a> {
    token: &'a str,
    addresses: &'a [String],
    /// What to run with it.
    command: &'a str,
}

pub async fn run(args: Args, cx: &Context) -> Outcome {
    let Verb::Create(args) = args.verb;
    let role = match (args.user, args.client) {
        (Some(name), _) => TokenRole::User {
            group: args.group.unwrap_or_else(|| name.clone()),
            name,
            admin: args.admin,
        },
        (None, true) => same_as(cx.subject()?, args.group)?,
        (None, false) => TokenRole::Node,
    };
    let for_node = role == TokenRole::Node;
    let ttl_ms = u64::try_from(args.ttl.as_millis()).unwrap_or(u64::MAX);
    let call = AdminCall::CreateToken { role, ttl_ms };
    let AdminAnswer::Token { token, addresses } = cx.connect().await?.admin(call).await? else {
        return Err(Failure::Error(Error::failed("the cluster gave no token")));
    };
    let places = addresses.join(",");
    let command = match for_node {
        true => format!("dfs serve --data DIR --join {places} --token {token}"),
        false => {
            let place = addresses.first().map_or("HOST:PORT", String::as_str);
            format!("dfs login {place} --token {token}")
        }
    };
    if cx.json() {
        return cx.out.json(&TokenJson {
            token: &token,
            addresses: &addresses,
            command: &command,
        });
    }
    cx.out.line(&token)?;
    cx.out.flush()?;
    if !cx.quiet() {
        tell(format_args!(
            "use it once, within {:?}: {command}",
            args.ttl
        ));
    }
    Ok(())
}

/// The caller himself.
fn same_as(caller: Subject, group: Option<String>) -> Result<TokenRole> {
    let Subject::User {
        name,
        group: own,
        admin,
    } = caller
    else {
        return Err(Error::usage("your identity is a node's").hint("name a user with --user"));
    };
    Ok(TokenRole::User {
        name,
        group: group.unwrap_or(own),
        admin,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::NodeId;

    #[test]
    fn without_a_name_it_is_for_the_caller_as_he_is() {
        let caller = || Subject::user("ann", "staff", true).unwrap();
        let role = |group: &str| TokenRole::User {
            name: "ann".into(),
            group: group.into(),
            admin: true,
        };
        assert_eq!(same_as(caller(), None).unwrap(), role("staff"));
        assert_eq!(same_as(caller(), Some("dev".into())).unwrap(), role("dev"));
        assert!(same_as(Subject::Node(NodeId(1)), None).is_err());
    }
}
