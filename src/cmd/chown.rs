//! `dfs chown`.

use super::context::Context;
use super::failure::Outcome;
use super::globals::OpFlag;
use super::items::{Change, parse_paths, send_all};
use crate::error::{Error, Result};
use crate::limits::USER_NAME_BYTES_MAX;
use crate::shard::command::Op;

/// Change owner and group
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    op: OpFlag,
    /// USER, USER:GROUP or :GROUP
    #[arg(value_name = "USER[:GROUP]", value_parser = parse_owner)]
    owner: Owner,
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Owner {
    user: Option<String>,
    group: Option<String>,
}

pub async fn run(args: Args, cx: &Context) -> Outcome {
    let changes = parse_paths(&args.paths)?
        .into_iter()
        .map(|path| Change {
            path: path.clone(),
            from: None,
            op: Op::SetAttrs {
                path,
                mode: None,
                owner: args.owner.user.clone(),
                group: args.owner.group.clone(),
            },
        })
        .collect();
    send_all(cx, changes, &args.op, |_| false, |error| error).await
}

fn parse_owner(text: &str) -> Result<Owner> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let name = |name: &str| {
        let bad = |c: char| c == ':' || c == '/' || c.is_whitespace() || c.is_control();
        if name.is_empty() || name.len() > USER_NAME_BYTES_MAX || name.contains(bad) {
            return Err(
                Error::usage("bad user or group (1 to 32 bytes, no spaces, `:` or `/`)")
                    .hint("write USER, USER:GROUP or :GROUP"),
            );
        }
        Ok(name.to_string())
    };
    let user = match user {
        "" if group.is_some() => None,
        user => Some(name(user)?),
    };
    Ok(Owner {
        user,
        group: group.map(name).transpose()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owner_and_group_as_typed() {
        let owner = |user: Option<&str>, group: Option<&str>| Owner {
            user: user.map(str::to_string),
            group: group.map(str::to_string),
        };
        assert_eq!(parse_owner("ann").unwrap(), owner(Some("ann"), None));
        assert_eq!(
            parse_owner("ann:staff").unwrap(),
            owner(Some("ann"), Some("staff"))
        );
        assert_eq!(parse_owner(":staff").unwrap(), owner(None, Some("staff")));
        for bad in ["", ":", "ann:", "a b", "a:b:c", &"x".repeat(33)] {
            assert!(parse_owner(bad).is_err(), "{bad}");
        }
    }
}
