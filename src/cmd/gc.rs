//! `dfs gc`.

use super::context::Context;
use super::failure::Outcome;
use super::text::Count;
use serde::Serialize;

/// Show how many deletions still have to be cleaned up
#[derive(clap::Args)]
pub struct Args {
    /// Clean up now instead of after the grace time; nothing can be brought back then
    #[arg(long)]
    now: bool,
}

#[derive(Serialize)]
struct GcJson {
    /// Deletions whose records are still there.
    left: u64,
}

pub async fn run(args: Args, cx: &Context) -> Outcome {
    let left = cx.connect().await?.gc(args.now).await?;
    if cx.json() {
        return cx.out.json(&GcJson { left });
    }
    cx.out.line(format_args!(
        "{} left to clean up",
        Count(left, "deletion", "deletions")
    ))
}
