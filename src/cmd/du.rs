//! `dfs du`.

use super::context::Context;
use super::failure::Outcome;
use super::globals::ReadFlag;
use super::stat::each_entry;
use super::text::Shown;
use crate::config::units::human_size;
use crate::proto::EntryView;
use crate::types::DfsPath;
use clap::ArgAction;
use serde::Serialize;

/// Show how many bytes lie below directories
///
/// Every directory keeps its totals: this takes the same time whatever its size.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub struct Args {
    /// Sizes as 1.5GiB
    #[arg(short = 'h', long)]
    human: bool,
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
    #[command(flatten)]
    read: ReadFlag,
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<String>,
}

#[derive(Serialize)]
struct DuJson<'a> {
    path: &'a DfsPath,
    /// Files and directories below; 0 for a file.
    entries: u64,
    bytes: u64,
}

pub async fn run(args: Args, cx: &Context) -> Outcome {
    let show = |path: &DfsPath, view: &EntryView| {
        let (entries, bytes) = match view {
            EntryView::File(file) => (0, file.attrs.size),
            EntryView::Dir(dir) => (dir.totals.entries, dir.totals.bytes),
            EntryView::Bare { .. } => (0, 0),
        };
        if cx.json() {
            return cx.out.json(&DuJson {
                path,
                entries,
                bytes,
            });
        }
        let shown = Shown::new(path.as_str(), cx.out.terminal);
        if args.human {
            cx.out.line(format_args!("{}\t{shown}", human_size(bytes)))
        } else {
            cx.out.line(format_args!("{bytes}\t{shown}"))
        }
    };
    each_entry(cx, &args.paths, args.read, show).await
}
