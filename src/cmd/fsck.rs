//! `dfs fsck`.

use super::context::Context;
use super::failure::Outcome;
use super::text::{Count, Shown};
use crate::config::units::human_size;
use crate::error::Error;
use crate::proto::FsckReport;
use crate::types::DfsPath;
use serde::Serialize;

/// Check metadata, references and stored bytes; changes nothing
///
/// Exit status 8 when something is wrong.
#[derive(clap::Args)]
pub struct Args {
    /// Leave out reading the stored bytes
    #[arg(long)]
    quick: bool,
    /// Any path of the shard to check
    #[arg(value_name = "PATH", default_value = "/")]
    path: String,
}

#[derive(Serialize)]
struct FsckJson<'a> {
    path: &'a DfsPath,
    dirs: u64,
    files: u64,
    versions: u64,
    references: u64,
    chunks: u64,
    chunk_bytes: u64,
    problems: &'a [String],
}

pub async fn run(args: Args, cx: &Context) -> Outcome {
    let path = DfsPath::parse(&args.path)?;
    let client = cx.connect().await?;
    let report = client
        .fsck(&path, !args.quick)
        .await
        .map_err(|e| e.at(&path))?;
    show(cx, &path, &report)?;
    let problems = u64::try_from(report.problems.len()).unwrap_or(u64::MAX);
    if problems == 0 {
        return Ok(());
    }
    let count = Count(problems, "problem", "problems");
    Err(Error::corrupt(format!("{count} found"))
        .at(&path)
        .hint(
            "`dfs scrub --now` mends what other nodes still have; keep the data directories as \
             they are, and restore from a backup what is still named after it",
        )
        .into())
}

fn show(cx: &Context, path: &DfsPath, report: &FsckReport) -> Outcome {
    if cx.json() {
        return cx.out.json(&FsckJson {
            path,
            dirs: report.dirs,
            files: report.files,
            versions: report.versions,
            references: report.references,
            chunks: report.chunks,
            chunk_bytes: report.chunk_bytes,
            problems: &report.problems,
        });
    }
    for problem in &report.problems {
        cx.out.line(Shown::new(problem, cx.out.terminal))?;
    }
    let dirs = Count(report.dirs, "directory", "directories");
    let files = Count(report.files, "file", "files");
    let versions = Count(report.versions, "old version", "old versions");
    let references = Count(report.references, "reference", "references");
    let chunks = Count(report.chunks, "chunk", "chunks");
    let size = human_size(report.chunk_bytes);
    cx.out.line(format_args!(
        "checked {dirs}, {files}, {versions}, {references}, {chunks} ({size})"
    ))
}
