//! Names: create, stat, list, rename, remove.

use super::measure::{Bounds, Measured, run as measure};
use super::{BenchOptions, subdirectory};
use crate::client::{Client, ListOptions, OpIds, PutOptions};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::limits::KIB;
use crate::shard::command::Removal;
use crate::types::{DfsPath, Name, Precondition, ReadLevel, Replacement};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

const FILES: u64 = 100_000;
const CLIENTS: usize = 128;
/// Creates of the phase with one client.
const LONE_CREATES: u64 = 2_000;
/// How long the clean-up after `rm -r` is waited for.
const CLEANED_WITHIN: Duration = Duration::from_secs(120);

/// The files of a phase: `top/dN/fM`.
struct Files {
    client: Client,
    dirs: Vec<DfsPath>,
    content: Bytes,
}

impl Files {
    fn path(&self, number: u64) -> Result<DfsPath> {
        let dir = &self.dirs[number as usize % self.dirs.len()];
        dir.join(&Name::parse(&format!("f{number:08}"))?)
    }
}

pub async fn run(
    env: &Env,
    client: &Client,
    options: &BenchOptions,
    top: &DfsPath,
) -> Result<Vec<Measured>> {
    let clients = options.clients.unwrap_or(CLIENTS).max(1);
    let size = options.size.unwrap_or(KIB);
    let all = Bounds {
        count: options.files.unwrap_or(FILES),
        clients,
        duration: options.duration,
        bytes: size,
    };
    let names_only = Bounds { bytes: 0, ..all };
    let mut content = vec![0; size as usize];
    env.rng.fill(&mut content);
    let mut dirs = Vec::new();
    for at in 0..if options.one_directory { 1 } else { clients } {
        dirs.push(subdirectory(client, top, &format!("d{at}")).await?);
    }
    let files = Arc::new(Files {
        client: client.clone(),
        dirs,
        content: content.into(),
    });

    let mut measured = Vec::new();
    let lone = lone_files(client, top, &files.content).await?;
    let one = Bounds {
        count: LONE_CREATES.min(all.count),
        clients: 1,
        ..all
    };
    measured.push(measure(env, "create, 1 client", one, creates(lone)).await?);
    let created = measure(env, "create", all, creates(files.clone())).await?;
    let there = created.count;
    measured.push(created);

    let some = Bounds {
        count: there.max(1) * 2,
        ..names_only
    };
    let stats = files.clone();
    let stat = move |_: usize, number: u64| -> futures::future::BoxFuture<'static, Result<()>> {
        let files = stats.clone();
        Box::pin(async move {
            let path = files.path(number % there)?;
            files
                .client
                .stat(&path, ReadLevel::Linearizable)
                .await
                .map(drop)
        })
    };
    measured.push(measure(env, "stat, linearizable", some, stat).await?);
    measured.push(list(env, &files, there).await?);

    let renames = files.clone();
    let rename = move |_: usize, number: u64| -> futures::future::BoxFuture<'static, Result<()>> {
        let files = renames.clone();
        Box::pin(async move {
            let from = files.path(number)?;
            let dir = from.parent().expect("a file has a parent");
            let to = dir.join(&Name::parse(&format!("r{number:08}"))?)?;
            let (client, ids) = (&files.client, OpIds::Automatic);
            client
                .rename(&from, &to, Replacement::Never, &ids)
                .await
                .map(drop)
        })
    };
    let half = Bounds {
        count: there / 2,
        ..names_only
    };
    measured.push(measure(env, "rename", half, rename).await?);
    measured.extend(remove_tree(env, client, top).await?);
    Ok(measured)
}

async fn lone_files(client: &Client, top: &DfsPath, content: &Bytes) -> Result<Arc<Files>> {
    let dirs = vec![subdirectory(client, top, "lone").await?];
    Ok(Arc::new(Files {
        client: client.clone(),
        dirs,
        content: content.clone(),
    }))
}

fn creates(
    files: Arc<Files>,
) -> impl Fn(usize, u64) -> futures::future::BoxFuture<'static, Result<()>> {
    let options = Arc::new(PutOptions {
        resume: false,
        ..PutOptions::default()
    });
    move |_, number| {
        let (files, options) = (files.clone(), options.clone());
        Box::pin(async move {
            let path = files.path(number)?;
            files
                .client
                .put_bytes(files.content.clone(), &path, &options)
                .await
                .map(drop)
        })
    }
}

/// Lists every directory once, complete with attributes.
async fn list(env: &Env, files: &Arc<Files>, there: u64) -> Result<Measured> {
    let started = env.clock.now();
    let mut seen = 0;
    for dir in &files.dirs {
        let options = ListOptions {
            attrs: true,
            ..ListOptions::default()
        };
        let mut pages = files.client.list(dir, options);
        while let Some(page) = pages.next_page().await? {
            seen += page.entries.len() as u64;
        }
    }
    let took = env.clock.now().saturating_sub(started);
    if seen != there {
        return Err(Error::failed(format!(
            "list: {seen} entries were listed of {there} created"
        )));
    }
    Ok(Measured::new("list with attributes", seen, 0, 1, took))
}

/// Removes everything below `top` at once, then waits until it is cleaned up in the background.
async fn remove_tree(env: &Env, client: &Client, top: &DfsPath) -> Result<Vec<Measured>> {
    let started = env.clock.now();
    let ids = OpIds::Automatic;
    client
        .remove(top, Removal::Tree, Precondition::Any, &ids)
        .await?;
    let removed = env.clock.now();
    let mut measured = vec![Measured::new(
        "remove the tree",
        1,
        0,
        1,
        removed.saturating_sub(started),
    )];
    // Only a cluster without grace time cleans up at once.
    if client.who_am_i().grace_ms > 0 {
        return Ok(measured);
    }
    loop {
        let status = client.status().await?;
        if status.groups.iter().all(|group| group.deletions == 0) {
            break;
        }
        if env.clock.now().saturating_sub(removed) > CLEANED_WITHIN {
            let waited = CLEANED_WITHIN.as_secs();
            return Err(Error::failed(format!(
                "clean-up: not finished within {waited} s"
            )));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let took = env.clock.now().saturating_sub(removed);
    measured.push(Measured::new("cleaned up after it", 1, 0, 1, took));
    Ok(measured)
}
