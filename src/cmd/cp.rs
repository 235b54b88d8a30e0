//! `dfs cp`: by reference, on the servers; no content travels.

use super::context::Context;
use super::copy::{copy_tree, first_ids};
use super::failure::{Failure, Outcome, advise};
use super::globals::OpFlag;
use super::items::{Items, in_steps, parse_paths, show_changed};
use super::operands;
use super::remote::{before, look, must_look};
use super::targets::{self, Found, Target};
use crate::client::{Client, OpIds};
use crate::error::{Code, Error};
use crate::types::{DfsPath, Precondition};

/// Copy files and directories inside the cluster
///
/// The copies share their content with the originals. DST is a directory if it exists as one or
/// ends in `/`; names that exist are refused. A tree that changes meanwhile is copied as it is
/// met. One that was interrupted goes on when it is run again with the --op-id that its message
/// names.
#[derive(clap::Args)]
#[command(override_usage = "dfs cp [OPTIONS] <SRC>... <DST>")]
pub struct Args {
    /// Directories with everything below
    #[arg(short, long)]
    recursive: bool,
    #[command(flatten)]
    op: OpFlag,
    /// Remote paths. Last where they go
    #[arg(value_name = "SRC… DST", required = true)]
    paths: Vec<String>,
}

pub async fn run(args: Args, cx: &Context) -> Outcome {
    let (sources, typed) = operands::split(args.paths, "DST")?;
    let sources = parse_paths(&sources)?;
    let to = DfsPath::parse(&typed)?;
    let op = match args.recursive {
        true => cx.named(&args.op),
        false => args.op.clone(),
    };
    let client = cx.connect().await?;
    let tree = match &sources[..] {
        [only] if args.recursive => must_look(&client, only).await? == Found::Dir,
        _ => false,
    };
    let names: Vec<_> = sources.iter().map(DfsPath::name).collect();
    let mut found = look(&client, &to).await?;
    if tree {
        let ids = first_ids(&op.only());
        found = before(&client, (&to, found), &ids, "").await?;
    }
    let target = Target {
        typed: &typed,
        found,
        sources: sources.len(),
        tree,
    };
    let targets = targets::remote(target, &to, &names)?;
    let steps = async {
        let mut items = Items::new(sources.len(), cx);
        for (index, (from, to)) in sources.iter().zip(&targets).enumerate() {
            let ids = op.nth(index, sources.len());
            items.take(copy(cx, &client, from, to, args.recursive, &ids).await)?;
        }
        items.finish()
    };
    match tree || sources.len() > 1 {
        true => in_steps(cx, &client, (&op, &args.op), steps).await,
        false => steps.await,
    }
}

async fn copy(
    cx: &Context,
    client: &Client,
    from: &DfsPath,
    to: &DfsPath,
    recursive: bool,
    ids: &OpIds,
) -> Outcome {
    if recursive && must_look(client, from).await? == Found::Dir {
        let copied = copy_tree(cx, client, from, to, ids).await;
        return copied.map_err(|failure| match failure {
            Failure::Error(error) => cx.again(error).into(),
            other => other,
        });
    }
    let copied = client.copy(from, None, to, Precondition::Absent, ids).await;
    let changed = copied.map_err(|e| hint(e, from))?;
    show_changed(cx, to, Some(from), &changed)
}

fn hint(error: Error, from: &DfsPath) -> Error {
    let error = error.at(from);
    let of_source = error.path.as_deref() == Some(from.as_str());
    match error.code {
        Code::Exists => advise(error, "remove it first, or choose another name"),
        _ if of_source && error.is_of_directory() => advise(error, "a directory needs cp -r"),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_directory_as_source_is_sent_to_cp_r() {
        let from = DfsPath::parse("/from").unwrap();
        let conflict = |message: &str| Error::new(Code::Conflict, message);
        let directory = conflict("it is a directory (a file was expected)");
        let of_source = hint(directory.clone(), &from);
        assert_eq!(of_source.hint.as_deref(), Some("a directory needs cp -r"));
        let of_target = directory.at("/to").hint("name a file in it");
        let moved_on = conflict("the file is at version 2")
            .hint("read it")
            .at(&from);
        for other in [of_target, moved_on] {
            assert_eq!(hint(other.clone(), &from), other);
        }
    }
}
