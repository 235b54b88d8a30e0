//! Whether what is put now is what an earlier run has put under the same given id. Called by
//! `put.rs` once it knows that there was one.

use crate::client::local::LocalFile;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::types::ChunkHash;
use bytes::Bytes;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

/// Bytes read at once of a pipe that is only compared.
const READ_BYTES: usize = 256 << 10;

/// What a put is of. Compared whole, whatever its length; a pipe is read to its end for that, or
/// until it is too long, and must begin where it began for the earlier run.
pub(super) enum Mine<'a, 'r> {
    Memory(&'a Bytes),
    File(Arc<LocalFile>),
    Pipe(&'a mut Heard<'r>),
}

impl Mine<'_, '_> {
    /// True if it is a content of so many bytes with this hash.
    ///
    /// # Errors
    /// It cannot be read; `conflict` for a file that changes meanwhile.
    pub(super) async fn is(self, env: &Env, size: u64, hash: ChunkHash) -> Result<bool> {
        match self {
            Mine::Memory(bytes) => Ok(bytes.len() as u64 == size && ChunkHash::of(bytes) == hash),
            Mine::File(file) if file.print.size != size => Ok(false),
            Mine::File(file) => Ok(env.run_blocking(move || file.hash()).await? == hash),
            Mine::Pipe(pipe) => pipe.is(size, hash).await,
        }
    }
}

/// A pipe gives its bytes once: what is read of it is hashed on the way.
pub(super) struct Heard<'r> {
    reader: &'r mut (dyn AsyncRead + Send + Unpin),
    /// `None`: nobody will compare it.
    hasher: Option<blake3::Hasher>,
    /// Bytes that came.
    len: u64,
}

impl<'r> Heard<'r> {
    pub(super) fn new(reader: &'r mut (dyn AsyncRead + Send + Unpin), compared: bool) -> Heard<'r> {
        Heard {
            reader,
            hasher: compared.then(blake3::Hasher::new),
            len: 0,
        }
    }

    async fn is(&mut self, size: u64, hash: ChunkHash) -> Result<bool> {
        let mut buffer = vec![0; READ_BYTES];
        while self.len <= size {
            let read = self.read(&mut buffer).await;
            if read.map_err(|e| Error::failed(format!("cannot read the input ({e})")))? == 0 {
                let found = self
                    .hasher
                    .as_ref()
                    .map(|hasher| *hasher.finalize().as_bytes());
                return Ok(self.len == size && found == Some(hash.0));
            }
        }
        Ok(false)
    }
}

impl AsyncRead for Heard<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = to.filled().len();
        ready!(Pin::new(&mut *self.reader).poll_read(cx, to))?;
        let fresh = &to.filled()[before..];
        if let Some(hasher) = &mut self.hasher {
            hasher.update(fresh);
        }
        self.len += fresh.len() as u64;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_pipe_is_compared_whole_wherever_its_reading_was_left() {
        let data: Vec<u8> = (0..600_000u32).map(|i| (i * 7) as u8).collect();
        let hash = ChunkHash::of(&data);
        for read in [0, 1, 300_000, data.len()] {
            let mut reader = &data[..];
            let mut pipe = Heard::new(&mut reader, true);
            pipe.read_exact(&mut vec![0; read]).await.unwrap();
            assert!(pipe.is(600_000, hash).await.unwrap(), "{read}");
        }
        for (size, hash) in [
            (599_999, hash),
            (600_001, hash),
            (600_000, ChunkHash::of(b"")),
        ] {
            let mut reader = &data[..];
            let mut pipe = Heard::new(&mut reader, true);
            assert!(!pipe.is(size, hash).await.unwrap(), "{size}");
        }
    }
}
