//! Memory that a chunk's bytes are gathered in on their way to the disk and to other holders.

use crate::env::WRITE_ALIGN;
use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;

/// Bytes gathered before they go on, all at once: what one hash, one write and one send take well.
pub(super) const SLICE_BYTES: usize = 1 << 20;
/// Slices kept to be used again: what a slow holder may be behind by.
const KEPT_MAX: usize = 8;

/// Slices of one chunk, one after the other. Memory that nobody holds any more is filled again: a
/// fresh page costs more than the bytes that are copied into it.
pub(super) struct Slices {
    /// Bytes that one takes.
    room: usize,
    now: BytesMut,
    given: VecDeque<Bytes>,
}

impl Slices {
    /// Of something of `len` bytes.
    pub fn of(len: usize) -> Slices {
        Slices {
            room: len.min(SLICE_BYTES),
            now: BytesMut::new(),
            given: VecDeque::new(),
        }
    }

    /// Where the bytes of the slice at work are put, with room for all of it.
    pub fn now(&mut self) -> &mut BytesMut {
        if self.now.capacity() < self.room && self.now.is_empty() {
            self.now = self.unused();
        }
        &mut self.now
    }

    /// The slice is as full as it gets.
    pub fn take(&mut self) -> Bytes {
        let slice = std::mem::take(&mut self.now).freeze();
        if self.given.len() == KEPT_MAX {
            self.given.pop_front();
        }
        self.given.push_back(slice.clone());
        slice
    }

    fn unused(&mut self) -> BytesMut {
        // The oldest is the first to be let go by everybody else.
        if let Some(oldest) = self.given.pop_front() {
            match oldest.try_into_mut() {
                Ok(mut memory) => {
                    memory.clear();
                    return memory;
                }
                Err(oldest) => self.given.push_front(oldest),
            }
        }
        aligned(self.room)
    }
}

/// Memory that begins at a block's border, so that the disk can take it as it is.
fn aligned(room: usize) -> BytesMut {
    let mut memory = BytesMut::with_capacity(room + WRITE_ALIGN);
    let before = memory.as_ptr().align_offset(WRITE_ALIGN);
    memory.resize(before, 0);
    memory.advance(before);
    memory
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again_once_nobody_holds_it() {
        let mut slices = Slices::of(100);
        slices.now().extend_from_slice(b"one");
        let one = slices.take();
        slices.now().extend_from_slice(b"two");
        let two = slices.take();
        assert_eq!((&one[..], &two[..]), (&b"one"[..], &b"two"[..]));
        let first = one.as_ptr();
        assert_eq!(first.align_offset(WRITE_ALIGN), 0);
        drop(one);
        slices.now().extend_from_slice(b"three");
        assert_eq!(slices.now().as_ptr(), first);
        assert_eq!(slices.take(), "three");
        assert_eq!(two, "two");
    }

    #[test]
    fn memory_stays_bounded_while_everybody_holds_on() {
        let mut slices = Slices::of(100);
        for _ in 0..3 * KEPT_MAX {
            slices.now().extend_from_slice(b"x");
            std::mem::forget(slices.take());
            assert!(slices.given.len() <= KEPT_MAX);
        }
    }
}
