//! One file version as a node told it: what has to be fetched, page by page.

use crate::client::core::Client;
use crate::client::manifest::{Shape, Want};
use crate::client::options::GetOptions;
use crate::error::{Code, Error, Result};
use crate::proto::{FileView, Resolved, Ticket};
use crate::types::{ChunkHash, DfsPath, ReadLevel};
use bytes::Bytes;
use futures::stream::{self, Stream, TryStreamExt};
use std::ops::Range;
use std::sync::Arc;

/// A resolved file, pinned to its version.
pub(super) struct Content<'a> {
    pub(super) client: &'a Client,
    pub(super) path: &'a DfsPath,
    pub(super) file: FileView,
    /// `None`: inline or empty.
    pub(super) shape: Option<Shape>,
    level: ReadLevel,
    first: Resolved,
}

impl<'a> Content<'a> {
    pub(super) async fn open(
        client: &'a Client,
        path: &'a DfsPath,
        options: &GetOptions,
    ) -> Result<Content<'a>> {
        let first = client
            .resolve(path, options.version, 0, None, options.level)
            .await?;
        let content = Content {
            client,
            path,
            file: first.file.clone(),
            shape: Shape::of(&first.file).map_err(|e| e.at(path))?,
            level: options.level,
            first,
        };
        if content.shape.is_none() {
            content.check_inline()?;
        }
        Ok(content)
    }

    pub(super) fn size(&self) -> u64 {
        self.file.attrs.size
    }

    /// The content itself, if it is not in chunks.
    pub(super) fn inline(&self) -> Option<Bytes> {
        let here = self.first.inline.clone().unwrap_or_default();
        self.shape.is_none().then_some(here)
    }

    fn check_inline(&self) -> Result<()> {
        let bytes = self.first.inline.as_deref().unwrap_or_default();
        let fits =
            bytes.len() as u64 == self.size() && ChunkHash::of(bytes) == self.file.attrs.hash;
        if fits {
            return Ok(());
        }
        Err(Error::new(
            Code::Corrupt,
            "the content from the node does not match its hash",
        )
        .at(self.path)
        .hint("run `dfs fsck` on it"))
    }

    /// The bytes asked for, within the file.
    ///
    /// # Errors
    /// `usage` naming the size when the range is not inside the file.
    pub(super) fn range(&self, range: Option<(u64, Option<u64>)>) -> Result<Range<u64>> {
        range_within(range, self.size()).map_err(|e| e.at(self.path))
    }

    /// Everything to fetch for a range, in order, with the ticket for it.
    pub(super) fn wants(
        &'a self,
        range: Range<u64>,
    ) -> impl Stream<Item = Result<(Want, Arc<Ticket>)>> + Send + 'a {
        let pages = match &self.shape {
            Some(shape) => shape.pages_of(range.start, range.end),
            None => 0..0,
        };
        let pages = stream::iter(pages.map(Ok));
        let pages = pages.and_then(move |page| {
            let range = range.clone();
            async move {
                let wants = self.page(page, range).await.map_err(|e| e.at(self.path))?;
                Ok(stream::iter(wants.into_iter().map(Ok)))
            }
        });
        pages.try_flatten()
    }

    async fn page(&self, page: u32, range: Range<u64>) -> Result<Vec<(Want, Arc<Ticket>)>> {
        let Some(shape) = &self.shape else {
            return Ok(Vec::new());
        };
        let later;
        let resolved = match page {
            0 => &self.first,
            _ => {
                let attrs = &self.file.attrs;
                let pinned = Some((self.file.inode, attrs.version));
                let version = Some(attrs.version);
                later = self
                    .client
                    .resolve(self.path, version, page, pinned, self.level)
                    .await?;
                let same = later.file.inode == self.file.inode
                    && later.file.attrs.version == attrs.version
                    && later.file.attrs.hash == attrs.hash;
                if !same {
                    return Err(Error::new(Code::Conflict, "another file took its place")
                        .hint("get it again"));
                }
                &later
            }
        };
        let wants = shape.wants(page, &resolved.chunks, range.start, range.end)?;
        let ticket = resolved
            .ticket
            .clone()
            .ok_or_else(|| Error::failed("the node gave no ticket for the file's chunks"))?;
        let ticket = Arc::new(ticket);
        Ok(wants
            .into_iter()
            .map(|want| (want, Arc::clone(&ticket)))
            .collect())
    }
}

fn range_within(range: Option<(u64, Option<u64>)>, size: u64) -> Result<Range<u64>> {
    let (start, end) = range.unwrap_or((0, None));
    let end = end.unwrap_or(size);
    if start > end && end <= size && start <= size {
        return Err(Error::usage("the range ends before it begins"));
    }
    if start > size || end > size {
        return Err(Error::usage(format!(
            "the range is beyond the end of the file (it has {size} bytes)"
        )));
    }
    Ok(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_stay_within_the_file() {
        assert_eq!(range_within(None, 10).unwrap(), 0..10);
        assert_eq!(range_within(Some((3, None)), 10).unwrap(), 3..10);
        assert_eq!(range_within(Some((3, Some(10))), 10).unwrap(), 3..10);
        assert_eq!(range_within(Some((0, None)), 0).unwrap(), 0..0);
        for bad in [(0, Some(11)), (11, None), (11, Some(12))] {
            let error = range_within(Some(bad), 10).unwrap_err();
            assert!(error.message.contains("10 bytes"), "{bad:?} {error}");
        }
        let error = range_within(Some((5, Some(4))), 10).unwrap_err();
        assert_eq!(error.code, Code::Usage);
    }
}
