//! `dfs login`.

use super::context::Context;
use super::failure::Outcome;
use crate::client::OpenChange;
use crate::cluster::{Identity, IdentityPlace, JoinToken, default_identity_path};
use crate::config::address;
use crate::node;
use crate::proto::JoinWhat;
use serde::Serialize;
use std::path::PathBuf;

/// Get an identity of a cluster with a token
///
/// It is put where the client looks (or where --identity says), so that what follows goes to this
/// cluster. An identity of another cluster or user that is there is kept beside it, as
/// identity-CLUSTER-USER.dfs.
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
    /// Where the identity that was there before is now, if it was another's.
    kept: Option<String>,
}

pub async fn run(args: Args, cx: &Context) -> Outcome {
    let token = JoinToken::parse(&args.token)?;
    let path: PathBuf = match &cx.config.client.identity {
        Some(path) => path.clone(),
        None => default_identity_path()?,
    };
    // Before the token is spent: an identity that cannot be written would make it worthless.
    let place = IdentityPlace::prepare(&path)?;
    let spending = cx.under_way.began(OpenChange::default());
    let what = JoinWhat::User;
    let entered = node::enter(&cx.env, &args.nodes, &token, what, Some(cx.timeout())).await;
    cx.under_way.ended(spending);
    let (credentials, joined) = entered?;
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
    let kept = place.take(&identity)?;
    let user = identity.user()?;
    if cx.json() {
        return cx.out.json(&LoginJson {
            user: &user,
            cluster: joined.cluster.to_string(),
            identity: path.display().to_string(),
            kept: kept.map(|kept| kept.display().to_string()),
        });
    }
    let how = kept.map(|kept| {
        let kept = kept.display();
        format!("; what was there is now {kept}, for --identity")
    });
    cx.out.line(format_args!(
        "{user} of cluster {}: {}{}",
        joined.cluster,
        path.display(),
        how.unwrap_or_default()
    ))
}
