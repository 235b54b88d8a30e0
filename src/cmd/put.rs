//! `dfs put`.

use super::context::Context;
use super::failure::{Failure, Outcome, advise};
use super::globals::{OpFlag, parse_version};
use super::items::{Items, in_steps};
use super::operands;
use super::progress::Bar;
use super::remote::{before, look};
use super::sources::{is_tree, named};
use super::targets::{self, Target};
use super::transfer::{show_put, show_tree};
use crate::client::{Client, Overwrite, PutOptions};
use crate::error::{Code, Error};
use crate::types::{Ack, DfsPath, FileVersion};
use std::ffi::OsString;
use std::path::Path;

/// Store files
///
/// REMOTE is a directory if it exists as one or ends in `/`; else it is the new name. A name that
/// exists is refused unless one of the conditions says otherwise. An interrupted put of a file
/// goes on where it stopped when it is run again, that of a tree when it is run again with the
/// --op-id that its message names.
#[derive(clap::Args)]
#[command(override_usage = "dfs put [OPTIONS] <LOCAL>... <REMOTE>")]
pub struct Args {
    /// Directories with everything below
    #[arg(short, long)]
    recursive: bool,
    /// The name must be free (the default)
    #[arg(long, group = "condition")]
    if_absent: bool,
    /// The file must be at this version
    #[arg(long, value_name = "N", value_parser = parse_version, group = "condition")]
    if_version: Option<FileVersion>,
    /// Replace the version that is there now; fails if another is committed meanwhile
    #[arg(long, group = "condition")]
    overwrite: bool,
    /// Copies of each chunk on disk before it counts as stored: one, more than half of those that
    /// can be made now, or all of them. The others follow
    #[arg(long, value_name = "one|quorum|all", value_parser = parse_ack, default_value = "quorum")]
    ack: Ack,
    /// Files at once in a tree
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: Option<u16>,
    #[command(flatten)]
    op: OpFlag,
    /// Files, or directories with -r; `-` is standard input. Last where they go
    #[arg(value_name = "LOCAL… REMOTE", required = true)]
    paths: Vec<OsString>,
}

pub async fn run(args: Args, cx: &Context) -> Outcome {
    let (sources, target) = operands::split(args.paths.clone(), "REMOTE")?;
    let sources = operands::local_paths(sources);
    let typed = operands::remote_text(&target)?;
    let to = DfsPath::parse(typed)?;
    let count = sources.len();
    let tree = count == 1 && args.recursive && sources[0].is_dir();
    if args.if_version.is_some() && (count > 1 || tree) {
        return Err(Error::usage("--if-version is about one file")
            .hint("put one file")
            .into());
    }
    if let [only] = &sources[..] {
        is_tree(only, args.recursive)?;
    }
    let client = cx.connect().await?;
    let mut found = look(&client, &to).await?;
    if tree {
        let step = PutOptions::root_step(&to);
        found = before(&client, (&to, found), &args.op.only(), &step).await?;
    }
    let target = Target {
        typed,
        found,
        sources: count,
        tree,
    };
    // A source's own name counts only where the target is a directory.
    let names = match targets::goes_into(target)? {
        true => sources
            .iter()
            .map(|s| targets::local_name(&named(s)))
            .collect(),
        false => Ok(vec![None]),
    };
    let paths = targets::remote(target, &to, &names?)?;
    // Files of a tree travel many at once, which they cannot under an id.
    let root = match args.recursive {
        true => cx.named(&args.op),
        false => OpFlag::default(),
    };
    let steps = async {
        let mut items = Items::new(count, cx);
        for (index, (local, path)) in sources.iter().zip(&paths).enumerate() {
            let options = options((&args, &root), cx, (index, count));
            items.take(put(cx, &client, local, path, args.recursive, &options).await)?;
        }
        items.finish()
    };
    let named = if args.recursive { &root } else { &args.op };
    match tree || count > 1 {
        true => in_steps(cx, &client, (named, &args.op), steps).await,
        false => steps.await,
    }
}

async fn put(
    cx: &Context,
    client: &Client,
    local: &Path,
    to: &DfsPath,
    recursive: bool,
    options: &PutOptions,
) -> Outcome {
    let tree = is_tree(local, recursive)?;
    let bar = Bar::new(cx, tree);
    if tree {
        let tree = client.put_tree(local, to, options, &bar).await;
        bar.finish()?;
        let tree = tree.map_err(|e| cx.again(e))?;
        show_tree(cx, to.as_str(), &tree)?;
        return if tree.failed > 0 {
            Err(Failure::Reported(Code::Partial))
        } else {
            Ok(())
        };
    }
    let file = if local == Path::new("-") {
        client
            .put_reader(&mut tokio::io::stdin(), to, options, &bar)
            .await
    } else {
        client.put_file(local, to, options, &bar).await
    };
    bar.finish()?;
    show_put(cx, &file.map_err(|e| hint(e).at(to))?, !cx.quiet())
}

fn options(
    (args, root): (&Args, &OpFlag),
    cx: &Context,
    (index, count): (usize, usize),
) -> PutOptions {
    let defaults = PutOptions::default();
    PutOptions {
        overwrite: match (args.overwrite, args.if_version) {
            (true, _) => Overwrite::Current,
            (_, Some(version)) => Overwrite::IfVersion(version),
            _ => Overwrite::IfAbsent,
        },
        op: args.op.nth(index, count),
        root_op: root.nth(index, count),
        ack: args.ack,
        window_bytes: cx.window_bytes(),
        jobs: args.jobs.map_or(defaults.jobs, usize::from),
        ..defaults
    }
}

fn parse_ack(text: &str) -> Result<Ack, String> {
    match text {
        "one" => Ok(Ack::One),
        "quorum" => Ok(Ack::Quorum),
        "all" => Ok(Ack::All),
        _ => Err("one, quorum or all".into()),
    }
}

fn hint(error: Error) -> Error {
    match error.code {
        Code::Exists => advise(
            error,
            "use --overwrite, or --if-version N for version N only",
        ),
        _ => error,
    }
}
