//! A file in order to a writer, with chunks ahead of it fetched within the window.

use super::content::Content;

use super::get::report_of;
use super::sink::{Proof, Sink};
use super::whole::check;
use crate::client::core::Client;
use crate::client::manifest::{Want, WholeHash};
use crate::client::options::GetOptions;
use crate::client::progress::Progress;
use crate::client::report::GetReport;
use crate::client::tree_hash::PartHash;
use crate::client::window::Window;
use crate::error::{Error, Result};
use crate::proto::Ticket;
use crate::types::DfsPath;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use std::sync::Arc;
use tokio::io::{AsyncWrite, AsyncWriteExt};

impl Client {
    /// A remote file (or a range of it) in order to a writer. A chunk is written only after it
    /// was verified; memory is bounded by the window.
    ///
    /// # Errors
    /// `corrupt`, after the last byte, when the chunks of a whole file are not those it has.
    pub async fn cat(
        &self,
        path: &DfsPath,
        to: &mut (dyn AsyncWrite + Send + Unpin),
        options: &GetOptions,
        progress: &dyn Progress,
    ) -> Result<GetReport> {
        let content = Content::open(self, path, options).await?;
        let range = content.range(options.range)?;
        let bytes = range.end - range.start;
        progress.expect(1, bytes);
        let report = report_of(&content, None, bytes);
        if let Some(inline) = content.inline() {
            // An inline content fits memory, so its offsets fit `usize`.
            let part = inline.slice(range.start as usize..range.end as usize);
            to.write_all(&part).await.map_err(|e| output(&e))?;
            progress.advance(bytes);
        } else {
            let chunk_bytes = content.shape.map_or(1, |shape| shape.chunk_bytes);
            let whole = bytes == content.size();
            let tree_of = whole.then_some(chunk_bytes);
            let mut hash = WholeHash::new(chunk_bytes);
            let mut chunks = content
                .wants(range)
                .map(|want| self.chunk_in_memory(want, tree_of, progress))
                .buffered(Window::new(options.window_bytes).pieces(chunk_bytes))
                .boxed();
            while let Some((part, chunk)) = chunks.try_next().await.map_err(|e| e.at(path))? {
                to.write_all(&chunk).await.map_err(|e| output(&e))?;
                if whole {
                    hash.add(&part, &chunk);
                }
            }
            drop(chunks);
            if whole {
                check(hash.finish(), content.file.attrs.hash).map_err(|e| e.at(path))?;
            }
        }
        to.flush().await.map_err(|e| output(&e))?;
        progress.got(&report);
        Ok(report)
    }

    fn chunk_in_memory<'a>(
        &'a self,
        want: Result<(Want, Arc<Ticket>)>,
        tree_of: Option<u64>,
        progress: &'a dyn Progress,
    ) -> BoxFuture<'a, Result<(PartHash, Bytes)>> {
        async move {
            let (want, ticket) = want?;
            let proof = tree_of.map_or(Proof::Own, |part_bytes| Proof::Both {
                offset: want.offset,
                len: u64::from(want.len),
                part_bytes,
            });
            let mut sink = Sink::memory(want.len, proof);
            let moved = |bytes| progress.advance(bytes);
            let hashed = self.fetch(&ticket, &want, &mut sink, &moved).await?;
            let part = PartHash {
                hash: hashed.own.expect("asked for"),
                subtree: hashed.subtree,
            };
            Ok((part, sink.into_bytes()))
        }
        .boxed()
    }
}

fn output(source: &std::io::Error) -> Error {
    Error::failed(format!("cannot write the output ({source})"))
}
