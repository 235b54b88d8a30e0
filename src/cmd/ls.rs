//! `dfs ls`.

use super::context::Context;
use super::entry::LineStyle;
use super::failure::{Failure, Outcome};
use super::globals::ReadFlag;
use super::listing::{Closing, Form, Listing};
use super::orders::{Sort, by_name, recursive, sorted};
use crate::client::{Client, ListOptions};
use crate::error::{Code, Error};
use crate::proto::EntryView;
use crate::types::{DfsPath, Name};
use clap::ArgAction;

/// List a directory
///
/// A name a line, directories end in `/`. Names come sorted and page by page, whatever the
/// directory's size; --sort size and time hold the whole listing in memory.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub struct Args {
    /// Mode, owner, group, size (of a directory: bytes below), version, modified, name
    #[arg(short, long)]
    long: bool,
    /// Everything below too, as paths relative to PATH
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Sizes as 1.5GiB
    #[arg(short = 'h', long)]
    human: bool,
    /// By name, largest first, or newest first
    #[arg(long, value_enum, default_value_t = Sort::Name)]
    sort: Sort,
    /// So many entries at most, 1 or more; with --json `truncated` says if there are others, and
    /// by name without -R `next` is what --after goes on with
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Begin behind this name
    #[arg(long, value_name = "NAME", conflicts_with = "recursive")]
    after: Option<String>,
    /// With --json: one document a line, as entries come
    #[arg(long)]
    stream: bool,
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
    #[command(flatten)]
    read: ReadFlag,
    #[arg(value_name = "PATH")]
    path: String,
}

pub async fn run(args: Args, cx: &Context) -> Outcome {
    let path = DfsPath::parse(&args.path)?;
    let after = args.after.as_deref().map(Name::parse).transpose()?;
    if args.sort != Sort::Name && (args.recursive || after.is_some()) {
        return Err(
            Error::usage("--sort size and time list one whole directory")
                .hint("leave out -R and --after, or sort by name")
                .into(),
        );
    }
    let options = ListOptions {
        after,
        limit: args.limit,
        attrs: args.long || cx.json() || args.sort != Sort::Name,
        level: args.read.level(),
    };
    let client = cx.connect().await?;
    let listing = Listing::new(cx, form(&args, cx));
    let listed = match (args.recursive, args.sort) {
        (true, _) => recursive(&client, &path, options, listing).await,
        (false, Sort::Name) => by_name(&client, &path, options, listing).await,
        (false, sort) => sorted(&client, &path, options, sort, listing).await,
    };
    match listed {
        // What is no directory may be a file, which is shown itself.
        Err(Failure::Error(e)) if e.code == Code::Conflict => {
            file(&client, &path, &args, Listing::new(cx, form(&args, cx)), e).await
        }
        other => other,
    }
}

fn form(args: &Args, cx: &Context) -> Form {
    match (cx.json(), args.stream) {
        (true, true) => Form::Stream,
        (true, false) => Form::Document,
        (false, _) => {
            let (long, human) = (args.long, args.human);
            Form::Lines(LineStyle {
                long,
                human,
                terminal: cx.out.terminal,
            })
        }
    }
}

/// Shows the path itself if it is a file; else `refused` stands.
async fn file(
    client: &Client,
    path: &DfsPath,
    args: &Args,
    mut listing: Listing<'_>,
    refused: Error,
) -> Outcome {
    let view = client
        .stat(path, args.read.level())
        .await
        .map_err(|e| e.at(path))?;
    let EntryView::File(_) = view else {
        return Err(refused.into());
    };
    listing.open(path)?;
    listing.entry(path.as_str(), path, &view)?;
    listing.close(&Closing {
        dir_version: None,
        one_point_in_time: true,
        truncated: false,
        next: None,
    })
}
