//! `dfs tree`.

use super::context::Context;
use super::drawing::Drawing;
use super::failure::Outcome;
use super::globals::ReadFlag;
use super::walk::{Listings, Step, Walk};
use crate::client::ListOptions;
use crate::types::DfsPath;

/// Draw the tree below a directory
#[derive(clap::Args)]
pub struct Args {
    /// So many levels at most
    #[arg(short = 'L', long = "level", value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    levels: Option<u8>,
    #[command(flatten)]
    read: ReadFlag,
    #[arg(value_name = "PATH")]
    path: String,
}

pub async fn run(args: Args, cx: &Context) -> Outcome {
    let path = DfsPath::parse(&args.path)?;
    let options = ListOptions {
        level: args.read.level(),
        ..ListOptions::default()
    };
    let listings = Listings {
        client: cx.connect().await?,
        options,
    };
    let mut walk = Walk::new(listings, path.clone(), args.levels.map(usize::from));
    let mut drawing = Drawing::new(cx.json(), cx.out.terminal);
    let mut step = walk.next().await.map_err(|e| e.at(&path))?;
    cx.out.write(|out| drawing.begin(out, &path))?;
    while let Some(met) = step {
        cx.out.write(|out| match &met {
            Step::Entry(visit) => drawing.entry(out, visit),
            Step::Leave => drawing.leave(out),
        })?;
        step = walk.next().await?;
    }
    cx.out.write(|out| drawing.end(out))
}
