//! `dfs get`.

use super::cat;
use super::context::Context;
use super::failure::{Failure, Outcome, advise};
use super::globals::{PartFlags, ReadFlag};
use super::items::Items;
use super::operands;
use super::progress::Bar;
use super::remote::must_look;
use super::targets::{self, Found, Target};
use super::transfer::{show_got, show_tree};
use crate::client::{Client, GetOptions};
use crate::error::{Code, Error, Result};
use crate::types::DfsPath;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Fetch files
///
/// LOCAL is a directory if it exists as one or ends in `/`; else it is the new name; `-` is
/// standard output. A file appears under its name when it is whole and verified. An interrupted
/// get goes on where it stopped when it is run again, also that of a tree.
#[derive(clap::Args)]
#[command(override_usage = "dfs get [OPTIONS] <REMOTE>... <LOCAL>")]
pub struct Args {
    /// Directories with everything below
    #[arg(short, long, conflicts_with_all = ["version", "range"])]
    recursive: bool,
    #[command(flatten)]
    part: PartFlags,
    /// Files at once in a tree
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: Option<u16>,
    /// Replace local files that exist
    #[arg(short, long)]
    force: bool,
    #[command(flatten)]
    read: ReadFlag,
    /// Files, or directories with -r. Last where they go; `-` is standard output
    #[arg(value_name = "REMOTE… LOCAL", required = true)]
    paths: Vec<OsString>,
}

pub async fn run(args: Args, cx: &Context) -> Outcome {
    let (sources, target) = operands::split(args.paths.clone(), "LOCAL")?;
    let sources: Result<Vec<_>> = sources
        .iter()
        .map(|typed| DfsPath::parse(operands::remote_text(typed)?))
        .collect();
    let (sources, local) = (sources?, PathBuf::from(target));
    let client = cx.connect().await?;
    let options = options(&args, cx);
    if local == Path::new("-") {
        return cat::all(cx, &client, &sources, &options).await;
    }
    let tree = match &sources[..] {
        [only] if args.recursive => must_look(&client, only).await? == Found::Dir,
        _ => false,
    };
    let typed = local.to_string_lossy();
    let found = match std::fs::metadata(&local) {
        // What an earlier run of this command has made was not there when that one began.
        Ok(_) if tree && client.has_begun_get(&sources[0], &local).await => Found::Missing,
        Ok(meta) if meta.is_dir() => Found::Dir,
        Ok(_) => Found::File,
        Err(_) => Found::Missing,
    };
    let target = Target {
        typed: &typed,
        found,
        sources: sources.len(),
        tree,
    };
    let names: Vec<_> = sources.iter().map(DfsPath::name).collect();
    let locals = targets::local(target, &local, &names)?;
    let mut items = Items::new(sources.len(), cx);
    for (path, local) in sources.iter().zip(&locals) {
        items.take(get(cx, &client, path, local, args.recursive, &options).await)?;
    }
    items.finish()
}

async fn get(
    cx: &Context,
    client: &Client,
    path: &DfsPath,
    local: &Path,
    recursive: bool,
    options: &GetOptions,
) -> Outcome {
    let is_tree = recursive && must_look(client, path).await? == Found::Dir;
    let bar = Bar::new(cx, is_tree);
    if is_tree {
        let tree = client.get_tree(path, local, options, &bar).await;
        bar.finish()?;
        let tree = tree?;
        show_tree(cx, &local.display().to_string(), &tree)?;
        return if tree.failed > 0 {
            Err(Failure::Reported(Code::Partial))
        } else {
            Ok(())
        };
    }
    let file = client.get_file(path, local, options, &bar).await;
    bar.finish()?;
    show_got(cx, &file.map_err(|e| hint(e).at(path))?, !cx.quiet())
}

fn options(args: &Args, cx: &Context) -> GetOptions {
    let defaults = GetOptions::default();
    GetOptions {
        version: args.part.version,
        range: args.part.half_open(),
        force: args.force,
        level: args.read.level(),
        window_bytes: cx.window_bytes(),
        jobs: args.jobs.map_or(defaults.jobs, usize::from),
    }
}

fn hint(error: Error) -> Error {
    match error.code {
        Code::Exists => error.hint("use -f to replace it"),
        _ if error.is_of_directory() => advise(error, "a directory needs get -r"),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_directory_is_sent_to_get_r() {
        let conflict = |message: &str| Error::new(Code::Conflict, message);
        let directory = hint(conflict("it is a directory (not a file)"));
        assert_eq!(directory.hint.as_deref(), Some("a directory needs get -r"));
        let busy = conflict("another get is writing this file").hint("wait until it has ended");
        assert_eq!(hint(busy.clone()), busy);
    }
}
