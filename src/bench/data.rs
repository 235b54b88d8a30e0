//! Contents: one large file, many middle-sized ones, a tree of small ones.

use super::measure::{Bounds, Measured, run as measure};
use super::{BenchOptions, Places, subdirectory};
use crate::client::{Client, GetOptions, NoProgress, PutOptions};
use crate::env::{Env, Rng};
use crate::error::{Error, Result};
use crate::limits::{GIB, KIB, MIB};
use crate::types::{DfsPath, Name};
use bytes::Bytes;
use futures::future::BoxFuture;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::AsyncWriteExt;

const LARGE_BYTES: u64 = GIB;
const MIDDLE_BYTES: u64 = 128 * KIB;
const MIDDLE_FILES: u64 = 2_000;
const SMALL_BYTES: usize = 4 << 10;
const SMALL_FILES: u64 = 20_000;
const SMALL_DIRS: u64 = 100;
const CLIENTS: usize = 16;
/// The large local file is written in pieces of this size.
const PIECE: u64 = MIB;

pub(super) async fn run(
    env: &Env,
    client: &Client,
    options: &BenchOptions,
    places: &Places,
) -> Result<Vec<Measured>> {
    let Places { top, scratch } = places;
    let io = |e: std::io::Error| Error::io("create", scratch, &e);
    tokio::fs::create_dir_all(scratch).await.map_err(io)?;
    let mut measured = large(env, client, options, top, scratch).await?;
    let middle = subdirectory(client, top, "middle").await?;
    let bounds = Bounds {
        count: MIDDLE_FILES,
        clients: options.clients.unwrap_or(CLIENTS).max(1),
        duration: options.duration,
        bytes: MIDDLE_BYTES,
    };
    let put = middle_puts(env, client, middle);
    measured.push(measure(env, "put files of 128 KiB", bounds, put).await?);
    measured.extend(small(env, client, options, top, scratch).await?);
    Ok(measured)
}

/// One large file: put and get, each as `dfs put` and `dfs get` do it.
async fn large(
    env: &Env,
    client: &Client,
    options: &BenchOptions,
    top: &DfsPath,
    scratch: &Path,
) -> Result<Vec<Measured>> {
    let size = options.size.unwrap_or(LARGE_BYTES);
    let local = scratch.join("large");
    write_random(env, &local, size).await?;
    let remote = top.join(&Name::parse("large")?)?;
    let put = PutOptions {
        resume: false,
        ..PutOptions::default()
    };
    let started = env.clock.now();
    client.put_file(&local, &remote, &put, &NoProgress).await?;
    let stored = env.clock.now();
    let back = scratch.join("back");
    client
        .get_file(&remote, &back, &GetOptions::default(), &NoProgress)
        .await?;
    let fetched = env.clock.now();
    client
        .cat(
            &remote,
            &mut tokio::io::sink(),
            &GetOptions::default(),
            &NoProgress,
        )
        .await?;
    let read = env.clock.now();
    let phase = |name: &str, from: std::time::Duration, to: std::time::Duration| {
        Measured::new(name, 1, size, 1, to.saturating_sub(from))
    };
    Ok(vec![
        phase("put a large file", started, stored),
        phase("get a large file", stored, fetched),
        phase("read a large file", fetched, read),
    ])
}

fn middle_puts(
    env: &Env,
    client: &Client,
    dir: DfsPath,
) -> impl Fn(usize, u64) -> BoxFuture<'static, Result<()>> + use<> {
    let mut content = vec![0; MIDDLE_BYTES as usize];
    env.rng.fill(&mut content);
    let shared = Arc::new((client.clone(), dir, content));
    move |_, number| {
        let shared = shared.clone();
        Box::pin(async move {
            let (client, dir, content) = &*shared;
            // Each content is another one, so that none is there already.
            let mut content = content.clone();
            content[..8].copy_from_slice(&number.to_le_bytes());
            let path = dir.join(&Name::parse(&format!("m{number}"))?)?;
            let options = PutOptions {
                resume: false,
                ..PutOptions::default()
            };
            client
                .put_bytes(Bytes::from(content), &path, &options)
                .await
                .map(drop)
        })
    }
}

/// A tree of small files, as `dfs put -r` and `dfs get -r` move it.
async fn small(
    env: &Env,
    client: &Client,
    options: &BenchOptions,
    top: &DfsPath,
    scratch: &Path,
) -> Result<Vec<Measured>> {
    let files = options.files.unwrap_or(SMALL_FILES);
    let tree = scratch.join("tree");
    write_tree(env, &tree, files).await?;
    let remote = top.join(&Name::parse("tree")?)?;
    let started = env.clock.now();
    let put = client
        .put_tree(&tree, &remote, &PutOptions::default(), &NoProgress)
        .await?;
    let stored = env.clock.now();
    let back = scratch.join("tree-back");
    let get = client
        .get_tree(&remote, &back, &GetOptions::default(), &NoProgress)
        .await?;
    let fetched = env.clock.now();
    for (what, report) in [("put", &put), ("get", &get)] {
        if report.failed > 0 || report.files != files {
            let (done, failed) = (report.files, report.failed);
            let message = format!("{what} of the small tree: {done} of {files}, {failed} failed");
            return Err(Error::failed(message));
        }
    }
    let bytes = files * SMALL_BYTES as u64;
    let jobs = PutOptions::default().jobs;
    Ok(vec![
        Measured::new(
            "put -r files of 4 KiB",
            files,
            bytes,
            jobs,
            stored.saturating_sub(started),
        ),
        Measured::new(
            "get -r files of 4 KiB",
            files,
            bytes,
            jobs,
            fetched.saturating_sub(stored),
        ),
    ])
}

async fn write_random(env: &Env, path: &PathBuf, size: u64) -> Result<()> {
    let io = |e: std::io::Error| Error::io("write", path, &e);
    let mut file = tokio::fs::File::create(path).await.map_err(io)?;
    let mut piece = vec![0; PIECE as usize];
    let mut left = size;
    while left > 0 {
        env.rng.fill(&mut piece);
        let now = left.min(PIECE);
        file.write_all(&piece[..now as usize]).await.map_err(io)?;
        left -= now;
    }
    file.sync_all().await.map_err(io)
}

/// A step for the files of all directories: who is stopped writes no more than one of these.
async fn write_tree(env: &Env, dir: &Path, files: u64) -> Result<()> {
    tokio::fs::create_dir(dir)
        .await
        .map_err(|e| Error::io("create", dir, &e))?;
    let mut first = 0;
    while first < files {
        let (rng, dir) = (env.rng.clone(), dir.to_owned());
        let numbers = first..files.min(first + SMALL_DIRS);
        let written = env.run_blocking(move || write_some(&*rng, &dir, numbers));
        written.await?;
        first += SMALL_DIRS;
    }
    Ok(())
}

fn write_some(rng: &dyn Rng, dir: &Path, numbers: Range<u64>) -> Result<()> {
    let io = |e: std::io::Error| Error::io("write", dir, &e);
    let mut content = vec![0; SMALL_BYTES];
    for number in numbers {
        let sub = dir.join(format!("d{}", number % SMALL_DIRS));
        if number < SMALL_DIRS {
            // Never more than this: its parent may have been removed.
            std::fs::create_dir(&sub).map_err(io)?;
        }
        rng.fill(&mut content);
        std::fs::write(sub.join(format!("f{number}")), &content).map_err(io)?;
    }
    Ok(())
}
