//! Large buffers of a transfer, used again: the system clears each fresh page of memory, which
//! costs as much as to hash it. Owned by `window`.

use bytes::Bytes;
use parking_lot::Mutex;
use std::sync::Arc;

/// Smaller ones the allocator keeps at hand by itself.
const KEPT_BYTES_MIN: usize = 256 << 10;
/// Buffers that wait for their next use.
const KEPT_MAX: usize = 8;

/// What is not in use now.
#[derive(Default)]
pub(crate) struct Buffers {
    free: Mutex<Vec<Vec<u8>>>,
}

/// A buffer in use; goes back when the last `Bytes` of it is gone.
struct Lent {
    bytes: Vec<u8>,
    home: Arc<Buffers>,
}

impl Buffers {
    /// A buffer of `len` bytes of any content, filled by `fill`; nothing if that fails.
    pub(crate) fn filled<E>(
        self: &Arc<Self>,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<Bytes, E> {
        if len < KEPT_BYTES_MIN {
            let mut bytes = vec![0; len];
            fill(&mut bytes)?;
            return Ok(bytes.into());
        }
        let mut bytes = self.free.lock().pop().unwrap_or_default();
        bytes.resize(len, 0);
        let mut lent = Lent {
            bytes,
            home: Arc::clone(self),
        };
        fill(&mut lent.bytes)?;
        Ok(Bytes::from_owner(lent))
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut free = self.home.free.lock();
        if free.len() < KEPT_MAX {
            free.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again_only_when_nobody_has_it() {
        let buffers = Arc::new(Buffers::default());
        let fill = |with: u8| {
            let filled = buffers.filled(KEPT_BYTES_MIN, |out| {
                out.fill(with);
                Ok::<_, ()>(())
            });
            filled.unwrap()
        };
        let first = fill(1);
        let part = first.slice(5..10);
        drop(first);
        let second = fill(2);
        assert_ne!(second.as_ptr(), part.as_ptr().wrapping_sub(5));
        assert_eq!(&part[..], [1; 5], "a part keeps the whole");
        let place = part.as_ptr().wrapping_sub(5);
        drop(part);
        assert_eq!(fill(3).as_ptr(), place);
    }

    #[test]
    fn a_buffer_has_the_length_asked_for() {
        let buffers = Arc::new(Buffers::default());
        for len in [KEPT_BYTES_MIN * 3, KEPT_BYTES_MIN, KEPT_BYTES_MIN * 2, 7, 0] {
            let filled = buffers.filled(len, |out| {
                assert_eq!(out.len(), len);
                Ok::<_, ()>(())
            });
            assert_eq!(filled.unwrap().len(), len);
        }
        let failed = buffers.filled(KEPT_BYTES_MIN, |_| Err("broken"));
        assert_eq!(failed.unwrap_err(), "broken");
    }
}
