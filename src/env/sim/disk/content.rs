//! Pure: the bytes of a simulated file, in pages that copies share. Called by the simulated disk.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Unit of allocation, in bytes.
pub const PAGE_BYTES: u64 = 4_096;
const PAGE: usize = PAGE_BYTES as usize;

/// Bytes up to a length. A page that is missing is a hole; `None` is an allocated page of zeros.
#[derive(Clone, Debug, Default)]
pub struct Content {
    len: u64,
    pages: BTreeMap<u64, Option<Arc<[u8; PAGE]>>>,
}

impl Content {
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Bytes of the pages that are there.
    pub fn allocated(&self) -> u64 {
        self.pages.len() as u64 * PAGE_BYTES
    }

    /// Bytes that writing this range would allocate.
    pub fn would_allocate(&self, offset: u64, len: u64) -> u64 {
        if len == 0 {
            return 0;
        }
        let (first, last) = (offset / PAGE_BYTES, (offset + len - 1) / PAGE_BYTES);
        let there = self.pages.range(first..=last).count() as u64;
        (last - first + 1 - there) * PAGE_BYTES
    }

    /// Up to `len` bytes; fewer at the end.
    pub fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let left = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut out = vec![0; len.min(left)];
        for (page, at, range) in pieces(offset, out.len()) {
            if let Some(Some(bytes)) = self.pages.get(&page) {
                let size = range.len();
                out[range].copy_from_slice(&bytes[at..at + size]);
            }
        }
        out
    }

    pub fn write(&mut self, offset: u64, data: &[u8]) {
        for (page, at, range) in pieces(offset, data.len()) {
            let size = range.len();
            let bytes = self
                .pages
                .entry(page)
                .or_default()
                .get_or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(bytes)[at..at + size].copy_from_slice(&data[range]);
        }
        if !data.is_empty() {
            self.len = self.len.max(offset + data.len() as u64);
        }
    }

    /// Allocated zeros; extends the file.
    pub fn zero(&mut self, offset: u64, len: u64) {
        self.clear(offset, len, true);
        if len > 0 {
            self.len = self.len.max(offset + len);
        }
    }

    pub fn set_len(&mut self, len: u64) {
        if len < self.len {
            let end = len.next_multiple_of(PAGE_BYTES);
            self.clear(len, end - len, false);
            self.pages.split_off(&(end / PAGE_BYTES));
        }
        self.len = len;
    }

    /// Takes over all pages of another content that touch `from..to` (its holes too).
    pub fn take_pages(&mut self, other: &Content, from: u64, to: u64) {
        if from >= to {
            return;
        }
        let range = from / PAGE_BYTES..=(to - 1) / PAGE_BYTES;
        self.pages.retain(|page, _| !range.contains(page));
        let taken = other.pages.range(range);
        self.pages
            .extend(taken.map(|(page, bytes)| (*page, bytes.clone())));
    }

    pub fn flip_bit(&mut self, offset: u64, bit: u8) -> bool {
        let mut byte = self.read(offset, 1);
        let Some(value) = byte.first_mut() else {
            return false;
        };
        *value ^= 1 << (bit % 8);
        self.write(offset, &byte);
        true
    }

    fn clear(&mut self, offset: u64, len: u64, allocate: bool) {
        let end = offset + len;
        let mut at = offset;
        while at < end {
            let page = at / PAGE_BYTES;
            let next = ((page + 1) * PAGE_BYTES).min(end);
            let whole = next - at == PAGE_BYTES;
            match self.pages.get_mut(&page) {
                Some(bytes) if whole && allocate => *bytes = None,
                Some(_) if whole => {
                    self.pages.remove(&page);
                }
                Some(Some(bytes)) => {
                    let range = (at % PAGE_BYTES) as usize..((next - 1) % PAGE_BYTES) as usize + 1;
                    Arc::make_mut(bytes)[range].fill(0);
                }
                None if allocate => {
                    self.pages.insert(page, None);
                }
                Some(None) | None => {}
            }
            at = next;
        }
    }
}

/// The parts of a range that lie in one page each: page, offset in it, range in the buffer.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done >= len {
            return None;
        }
        let at = offset + done as u64;
        let in_page = (at % PAGE_BYTES) as usize;
        let size = (PAGE - in_page).min(len - done);
        let range = done..done + size;
        done += size;
        Some((at / PAGE_BYTES, in_page, range))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{Strategy, any, prop_oneof, proptest};

    #[derive(Clone, Debug)]
    enum Step {
        Write(u64, Vec<u8>),
        Zero(u64, u64),
        SetLen(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let offset = 0..20_000u64;
        prop_oneof![
            (
                offset.clone(),
                proptest::collection::vec(any::<u8>(), 0..9_000)
            )
                .prop_map(|(offset, data)| Step::Write(offset, data)),
            (offset.clone(), 0..9_000u64).prop_map(|(offset, len)| Step::Zero(offset, len)),
            offset.prop_map(Step::SetLen),
        ]
    }

    fn apply_to_model(model: &mut Vec<u8>, step: &Step) {
        let fill = |model: &mut Vec<u8>, from: u64, data: &[u8]| {
            let (from, end) = (from as usize, from as usize + data.len());
            if !data.is_empty() {
                model.resize(model.len().max(end), 0);
                model[from..end].copy_from_slice(data);
            }
        };
        match step {
            Step::Write(offset, data) => fill(model, *offset, data),
            Step::Zero(offset, len) => fill(model, *offset, &vec![0; *len as usize]),
            Step::SetLen(len) => model.resize(*len as usize, 0),
        }
    }

    proptest! {
        #[test]
        fn any_steps_read_like_an_array_of_bytes(
            steps in proptest::collection::vec(step(), 0..20),
        ) {
            let (mut content, mut model) = (Content::default(), Vec::new());
            for step in steps {
                apply_to_model(&mut model, &step);
                match step {
                    Step::Write(offset, data) => content.write(offset, &data),
                    Step::Zero(offset, len) => content.zero(offset, len),
                    Step::SetLen(len) => content.set_len(len),
                }
                assert_eq!(content.len(), model.len() as u64);
                assert_eq!(content.read(0, usize::MAX), model);
            }
        }
    }

    #[test]
    fn zeroed_ranges_are_allocated_and_cut_ones_given_back() {
        let mut content = Content::default();
        content.zero(0, 4 * PAGE_BYTES);
        assert_eq!(content.allocated(), 4 * PAGE_BYTES);
        assert_eq!(content.would_allocate(100, 4 * PAGE_BYTES), PAGE_BYTES);
        content.set_len(2 * PAGE_BYTES);
        assert_eq!(content.allocated(), 2 * PAGE_BYTES);
    }
}
