//! `dfs restore`.

use super::context::Context;
use super::failure::Outcome;
use super::globals::{OpFlag, parse_version};
use super::items::show_changed;
use super::text::Shown;
use crate::types::{DfsPath, FileVersion};

/// Make an old version's content the newest version
#[derive(clap::Args)]
pub struct Args {
    /// The version to bring back
    #[arg(long, value_name = "N", value_parser = parse_version)]
    version: FileVersion,
    #[command(flatten)]
    op: OpFlag,
    #[arg(value_name = "PATH")]
    path: String,
}

pub async fn run(args: Args, cx: &Context) -> Outcome {
    let path = DfsPath::parse(&args.path)?;
    let client = cx.connect().await?;
    let restored = client.restore(&path, args.version, &args.op.only()).await;
    let changed = restored.map_err(|e| e.at(&path))?;
    show_changed(cx, &path, None, &changed)?;
    if cx.json() || cx.quiet() {
        return Ok(());
    }
    let shown = Shown::new(path.as_str(), cx.out.terminal);
    cx.out
        .line(format_args!("{shown} version {}", changed.done.version))
}
