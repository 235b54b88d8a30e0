//! `dfs find`.

use super::context::Context;
use super::entry::{LineStyle, last_part};
use super::failure::Outcome;
use super::filter::{Filter, SizeTest};
use super::glob::Glob;
use super::globals::ReadFlag;
use super::listing::{Form, Listing};
use super::walk::{Listings, Step, Walk};
use crate::client::ListOptions;
use crate::config::units::parse_duration;
use crate::proto::EntryView;
use crate::types::{DfsPath, Kind};
use clap::ValueEnum;
use serde::Serialize;
use std::time::Duration;

/// Find entries below a directory
///
/// Prints the paths of what meets all conditions. The directory PATH itself is not among them; a
/// file PATH is judged itself.
#[derive(clap::Args)]
pub struct Args {
    /// The name matches a pattern of *, ? and [a-z]
    #[arg(long, value_name = "GLOB", value_parser = Glob::parse)]
    name: Option<Glob>,
    /// Modified so long ago at most
    #[arg(long, value_name = "DUR", value_parser = parse_duration)]
    newer: Option<Duration>,
    /// Modified so long ago at least
    #[arg(long, value_name = "DUR", value_parser = parse_duration)]
    older: Option<Duration>,
    /// Files above +SIZE, below -SIZE, or of exactly SIZE
    #[arg(long, value_name = "SIZE", value_parser = SizeTest::parse, allow_hyphen_values = true)]
    size: Option<SizeTest>,
    /// Owned by this user
    #[arg(long, value_name = "USER")]
    owner: Option<String>,
    /// Files or directories only
    #[arg(long = "type", value_enum)]
    kind: Option<FindKind>,
    /// With --json: one document a line, as entries are found
    #[arg(long)]
    stream: bool,
    #[command(flatten)]
    read: ReadFlag,
    #[arg(value_name = "PATH")]
    path: String,
}

#[derive(Clone, Copy, ValueEnum)]
enum FindKind {
    F,
    D,
}

/// Nothing stands behind the entries of what was found.
#[derive(Serialize)]
struct Closing {}

pub async fn run(args: Args, cx: &Context) -> Outcome {
    let path = DfsPath::parse(&args.path)?;
    let form = match (cx.json(), args.stream) {
        (true, true) => Form::Stream,
        (true, false) => Form::Document,
        (false, _) => Form::Lines(LineStyle {
            long: false,
            human: false,
            terminal: cx.out.terminal,
        }),
    };
    let level = args.read.level();
    let filter = filter(args);
    let now = cx.env.clock.wall();
    let client = cx.connect().await?;
    let root = client.stat(&path, level).await.map_err(|e| e.at(&path))?;
    let mut listing = Listing::new(cx, form);
    listing.open(&path)?;
    if let EntryView::File(_) = root {
        if filter.matches(last_part(&path), &root, now) {
            listing.entry(path.as_str(), &path, &root)?;
        }
        return listing.close(&Closing {});
    }
    let attrs = cx.json() || filter.needs_attributes();
    let options = ListOptions {
        attrs,
        level,
        ..ListOptions::default()
    };
    let mut walk = Walk::new(Listings { client, options }, path.clone(), None);
    while let Some(step) = walk.next().await.map_err(|e| e.at(&path))? {
        if let Step::Entry(visit) = step
            && filter.matches(visit.name.as_str(), &visit.view, now)
        {
            listing.entry(visit.path.as_str(), &visit.path, &visit.view)?;
        }
    }
    listing.close(&Closing {})
}

fn filter(args: Args) -> Filter {
    Filter {
        name: args.name,
        newer: args.newer,
        older: args.older,
        size: args.size,
        owner: args.owner,
        kind: args.kind.map(|kind| match kind {
            FindKind::F => Kind::File,
            FindKind::D => Kind::Dir,
        }),
    }
}
