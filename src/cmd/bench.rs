//! `dfs bench`.

use super::context::Context;
use super::failure::Outcome;
use super::interrupted;
use super::signals::stopped;
use crate::bench::{self, BenchOptions, Measured, Workload};
use crate::config::units::{parse_duration, parse_size};
use clap::ValueEnum;
use std::path::PathBuf;
use std::time::Duration;

/// Measure the cluster; removes what it made
///
/// Everything happens in a directory of its own, `/dfs-bench-…`, which is removed at the end;
/// its space returns after the cluster's grace time, or with `dfs gc --now`.
#[derive(clap::Args)]
pub struct Args {
    /// What to measure: contents, names, or both
    #[arg(value_enum, default_value = "mixed")]
    workload: What,
    /// Bytes of the large file of `data` [default: 1GiB], of each file of `meta` [default: 1KiB]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    size: Option<u64>,
    /// Files of `meta` [default: 100000], of the tree of `data` [default: 20000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    files: Option<u64>,
    /// Requests in flight [default: 128 for `meta`, 16 for `data`]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    clients: Option<u32>,
    /// End each phase after this
    #[arg(long, value_name = "D", value_parser = parse_duration)]
    duration: Option<Duration>,
    /// All files of `meta` in one directory, not one for each client
    #[arg(long)]
    one_directory: bool,
    /// Where local files are made [default: the system's directory for temporary files]
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum What {
    Data,
    Meta,
    Mixed,
}

pub async fn run(args: Args, cx: &Context) -> Outcome {
    let options = BenchOptions {
        workload: match args.workload {
            What::Data => Workload::Data,
            What::Meta => Workload::Meta,
            What::Mixed => Workload::Mixed,
        },
        size: args.size,
        files: args.files,
        clients: args.clients.map(|clients| clients as usize),
        duration: args.duration,
        one_directory: args.one_directory,
        scratch: args.scratch.unwrap_or_else(std::env::temp_dir),
    };
    let stop = stopped();
    tokio::pin!(stop);
    let client = tokio::select! {
        biased;
        () = &mut stop => return Err(interrupted(None).into()),
        client = cx.connect() => client?,
    };
    let measured = bench::run(&cx.env, &client, &options, stop).await?;
    if cx.json() {
        return cx.out.json(&measured);
    }
    cx.out.line(format_args!(
        "{:<24} {:>9} {:>9} {:>11} {:>9} {:>9} {:>9} {:>9}",
        "PHASE", "COUNT", "SECONDS", "PER SECOND", "MiB/S", "P50 MS", "P99 MS", "MAX MS"
    ))?;
    for phase in &measured {
        show(cx, phase)?;
    }
    Ok(())
}

fn show(cx: &Context, phase: &Measured) -> Outcome {
    let Measured {
        phase: name,
        count,
        seconds,
        per_second,
        mib_per_second,
        latency,
        ..
    } = phase;
    let head = format!("{name:<24} {count:>9} {seconds:>9.3} {per_second:>11.1}");
    match latency {
        Some(l) => cx.out.line(format_args!(
            "{head} {mib_per_second:>9.1} {:>9.3} {:>9.3} {:>9.3}",
            l.p50_ms, l.p99_ms, l.max_ms
        )),
        None => cx.out.line(format_args!("{head} {mib_per_second:>9.1}")),
    }
}
