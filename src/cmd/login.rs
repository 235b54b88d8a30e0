//! `dfs login`.

use super::context::Context;
use super::failure::{Failure, Outcome};
use crate::cluster::{Identity, Installed, JoinToken, default_identity_path, install_at};
use crate::config::address;
use crate::error::{Code, Error};
use crate::node;
use crate::proto::JoinWhat;
use serde::Serialize;
use std::path::PathBuf;

/// Get an identity of a cluster with a token
///
/// It is put where the client looks (or where --identity says); an identity of another cluster or
/// user there is kept, and refused to be replaced.
#[derive(clap::Args)]
pub struct Args {
    /// A node of the cluster
    #[arg(value_name = "HOST:PORT", value_parser = address, required = true, num_args = 1..)]
    nodes: Vec<String>,
    /// Of `dfs token create --client --user NAME`
    #[arg(long, value_name = "TOKEN")]
    token: String,
}

#[derive(Serialize)]
struct LoginJson<'a> {
    user: &'a str,
    cluster: String,
    identity: String,
}

pub async fn run(args: Args, cx: &Context) -> Outcome {
    let token = JoinToken::parse(&args.token)?;
    let path: PathBuf = match &cx.config.client.identity {
        Some(path) => path.clone(),
        None => default_identity_path()?,
    };
    // Before the token is spent: an identity that has to stay would make it worthless.
    if path.exists() && Identity::load(&path).is_err() {
        return Err(Failure::Error(
            Error::new(Code::Exists, "the file is there and is no identity")
                .at(path.display())
                .hint("name another place with --identity FILE"),
        ));
    }
    let (credentials, joined) = node::enter(&cx.env, &args.nodes, &token, JoinWhat::User).await?;
    let mut addresses = args.nodes.clone();
    for told in joined.nodes {
        if !addresses.contains(&told.address) {
            addresses.push(told.address);
        }
    }
    let identity = Identity {
        addresses,
        credentials,
    };
    let mut place = path.clone();
    if let Installed::KeptOther(_) = install_at(&path, &identity)? {
        place = path.with_file_name(format!("identity-{}.dfs", joined.cluster));
        identity.save(&place)?;
    }
    let user = identity.user()?;
    if cx.json() {
        return cx.out.json(&LoginJson {
            user: &user,
            cluster: joined.cluster.to_string(),
            identity: place.display().to_string(),
        });
    }
    let how = match place == path {
        true => String::new(),
        false => "; another one was there and stays: use --identity".to_owned(),
    };
    cx.out.line(format_args!(
        "{user} of cluster {}: {}{how}",
        joined.cluster,
        place.display()
    ))
}
