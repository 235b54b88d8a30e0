//! Tests of the whole log, on simulated disks.

mod crash;
mod damage;
mod model;
mod segments;

use super::{Flushed, LogEntry, LogPosition, Wal, WalOptions};
use crate::env::sim::{self, SimDisk, SimHandles};
use crate::error::Result;
use crate::types::{GroupId, LogIndex};
use bytes::Bytes;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub const DIR: &str = "/log";
pub const G1: GroupId = GroupId(1);
pub const G2: GroupId = GroupId(2);

pub fn at(term: u64, index: u64) -> LogPosition {
    LogPosition {
        term,
        leader: 7,
        index: LogIndex(index),
    }
}

/// A payload that names its entry.
pub fn payload(group: GroupId, term: u64, index: u64, len: usize) -> Bytes {
    let mut text = format!("{group}/{term}/{index}/").into_bytes();
    text.resize(len.max(text.len()), b'a' + (index % 26) as u8);
    text.into()
}

pub fn entry(group: GroupId, term: u64, index: u64) -> LogEntry {
    long(group, term, index, 0)
}

pub fn long(group: GroupId, term: u64, index: u64, len: usize) -> LogEntry {
    LogEntry {
        position: at(term, index),
        payload: payload(group, term, index, len),
    }
}

pub fn options() -> WalOptions {
    WalOptions {
        segment_bytes: 8 << 10,
        cache_bytes: 2 << 10,
        seal_after: Duration::from_millis(5),
        on_fatal: Arc::new(|_, _| {}),
        ..WalOptions::default()
    }
}

/// Runs on a current-thread runtime whose time moves only when all wait.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(test)
}

pub async fn open(disk: &SimDisk) -> (Arc<Wal>, SimHandles) {
    try_open(disk).await.unwrap()
}

pub async fn try_open(disk: &SimDisk) -> Result<(Arc<Wal>, SimHandles)> {
    let (env, handles) = sim::env_on(1, disk.clone());
    let wal = Wal::open_with(env, Path::new(DIR), options()).await?;
    Ok((wal, handles))
}

/// Appends and waits until it is durable.
pub async fn append(wal: &Wal, group: GroupId, entries: Vec<LogEntry>) -> std::io::Result<()> {
    let (send, receive) = tokio::sync::oneshot::channel();
    let done: Flushed = Box::new(move |outcome| drop(send.send(outcome)));
    wal.append(group, entries, done)
        .map_err(std::io::Error::other)?;
    receive
        .await
        .unwrap_or_else(|_| Err(std::io::Error::other("never called back")))
}

/// Everything a group holds.
pub async fn all(wal: &Wal, group: GroupId) -> Result<Vec<LogEntry>> {
    let state = wal.state(group);
    let mut next = state.purged.map_or(LogIndex(1), |p| p.index.next());
    let last = state.last.map_or(LogIndex(0), |p| p.index);
    let mut out = Vec::new();
    while next <= last {
        let part = wal.read(group, next, last.next(), 1_000).await?;
        next = part.last().unwrap().position.index.next();
        out.extend(part);
    }
    Ok(out)
}
