//! `dfs cat`: content to standard output, and nothing else there, `--json` or not.

use super::context::Context;
use super::failure::{Failure, Outcome};
use super::globals::{PartFlags, ReadFlag};
use super::items::{Items, parse_paths};
use crate::client::{Client, GetOptions, NoProgress};
use crate::types::DfsPath;
use std::io;
use std::pin::Pin;
use std::task::{Context as Poller, Poll};
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// Write the content of files to standard output
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    part: PartFlags,
    #[command(flatten)]
    read: ReadFlag,
    #[arg(value_name = "REMOTE", required = true)]
    paths: Vec<String>,
}

pub async fn run(args: Args, cx: &Context) -> Outcome {
    let paths = parse_paths(&args.paths)?;
    let client = cx.connect().await?;
    let options = GetOptions {
        version: args.part.version,
        range: args.part.half_open(),
        level: args.read.level(),
        window_bytes: cx.window_bytes(),
        ..GetOptions::default()
    };
    all(cx, &client, &paths, &options).await
}

/// Writes one file behind the other.
///
/// # Errors
/// As `items` says; a reader that has gone ends it quietly.
pub async fn all(
    cx: &Context,
    client: &Client,
    paths: &[DfsPath],
    options: &GetOptions,
) -> Outcome {
    let mut out = Watched {
        inner: tokio::io::stdout(),
        closed: false,
    };
    let mut items = Items::new(paths.len(), cx);
    for path in paths {
        let written = client.cat(path, &mut out, options, &NoProgress).await;
        let written = match written {
            Err(_) if out.closed => return Err(Failure::PipeClosed),
            written => written.map_err(|e| Failure::Error(e.at(path))),
        };
        items.take(written)?;
    }
    out.flush().await.map_err(Failure::output)?;
    items.finish()
}

/// Remembers that its reader has gone, which is no error worth words.
struct Watched<W> {
    inner: W,
    closed: bool,
}

impl<W> Watched<W> {
    fn note<T>(&mut self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &polled {
            self.closed |= error.kind() == io::ErrorKind::BrokenPipe;
        }
        polled
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Watched<W> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Poller<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.note(polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Poller<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_flush(cx);
        self.note(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Poller<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.note(polled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn a_reader_that_has_gone_is_remembered() {
        let (ours, theirs) = tokio::io::duplex(16);
        let mut out = Watched {
            inner: ours,
            closed: false,
        };
        out.write_all(b"x").now_or_never().unwrap().unwrap();
        assert!(!out.closed);
        drop(theirs);
        assert!(out.write_all(b"x").now_or_never().unwrap().is_err());
        assert!(out.closed);
    }
}
