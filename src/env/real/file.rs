//! System calls on one open file, for `RealDisk`. They block: only the disk's threads call them.
//! The hints are for the client's local files, too.

use crate::env::WRITE_ALIGN;
use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::fs::Advice;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, IoSlice};
use std::num::NonZeroU64;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

/// Parts of one `pwritev` (Linux `IOV_MAX`).
const PARTS_MAX: usize = 1_024;
/// Above this a read asks for the file's length first, so that a wrong length allocates nothing.
const UNCHECKED_READ_MAX: usize = 1 << 20;
/// What `zero` writes from.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
/// Zeros in one system call: 1 MiB.
const ZERO_PARTS: usize = 16;

/// Up to `len` bytes at `offset`; fewer only at the end of the file.
pub fn read(file: &File, offset: u64, len: usize) -> io::Result<Bytes> {
    let len = if len > UNCHECKED_READ_MAX {
        let left = file.metadata()?.len().saturating_sub(offset);
        len.min(usize::try_from(left).unwrap_or(usize::MAX))
    } else {
        len
    };
    let mut out = Vec::with_capacity(len);
    while out.len() < len {
        let at = offset_after(offset, out.len())?;
        match rustix::io::pread(file, spare_capacity(&mut out), at) {
            Ok(0) => break,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // The allocator may have given more room than was asked for.
    out.truncate(len);
    Ok(Bytes::from(out))
}

/// Writes all parts one behind the other; the offset behind them.
pub fn write(file: &File, offset: u64, parts: &[Bytes]) -> io::Result<u64> {
    let mut at = offset;
    for parts in parts.chunks(PARTS_MAX) {
        let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        at = write_slices(file, at, &mut slices)?;
    }
    Ok(at)
}

/// True for what may be written past the page cache.
pub fn is_aligned(offset: u64, parts: &[Bytes]) -> bool {
    let part = |part: &Bytes| {
        (part.as_ptr() as usize).is_multiple_of(WRITE_ALIGN)
            && part.len().is_multiple_of(WRITE_ALIGN)
    };
    offset.is_multiple_of(WRITE_ALIGN as u64) && parts.iter().all(part)
}

/// The same file again, for writes past the page cache; `None` where that does not exist. Such
/// writes and others may follow each other, in different pages.
pub fn reopen_direct(file: &File) -> Option<File> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let mut options = OpenOptions::new();
    options.write(true).custom_flags(libc::O_DIRECT);
    options.open(path).ok()
}

/// Lets the system begin to bring a range to disk, which otherwise waits for the sync. Only a
/// hint: what goes wrong with it shows at the sync.
pub fn begin_writeback(file: &File, from: u64, to: u64) {
    let range = (i64::try_from(from), i64::try_from(to.saturating_sub(from)));
    let (Ok(from), Ok(len)) = range else {
        return;
    };
    // SAFETY: the descriptor is open as long as `file` is borrowed, and the call touches no
    // memory. Without one of its waiting flags it takes no error away from a later fdatasync.
    let _ =
        unsafe { libc::sync_file_range(file.as_raw_fd(), from, len, libc::SYNC_FILE_RANGE_WRITE) };
}

/// Lets the system drop what it holds in memory of a range, as far as that is on disk. Only a
/// hint.
///
/// Long streams through the page cache take fresh memory page by page, and push out what others
/// need. Where the host of a virtual machine gives that memory, it costs up to eight times as much
/// as to use the same pages again (docs/benchmarks.md).
pub fn forget(file: &File, from: u64, to: u64) {
    if let Some(len) = NonZeroU64::new(to.saturating_sub(from)) {
        let _ = rustix::fs::fadvise(file, from, Some(len), Advice::DontNeed);
    }
}

/// Writes zeros over a range.
pub fn zero(file: &File, offset: u64, len: u64) -> io::Result<()> {
    let end = end_of(offset, len)?;
    let mut at = offset;
    while at < end {
        let mut slices = Vec::with_capacity(ZERO_PARTS);
        let mut left = end - at;
        while left > 0 && slices.len() < ZERO_PARTS {
            let size = left.min(ZEROS.len() as u64);
            // At most `ZEROS.len()`, so it fits.
            slices.push(IoSlice::new(&ZEROS[..size as usize]));
            left -= size;
        }
        at = write_slices(file, at, &mut slices)?;
    }
    Ok(())
}

/// Writes all slices; the offset behind them.
fn write_slices(file: &File, offset: u64, mut slices: &mut [IoSlice<'_>]) -> io::Result<u64> {
    let mut at = offset;
    // Skips empty slices, which would look like a write of nothing.
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        match rustix::io::pwritev(file, slices, at) {
            Ok(0) => return Err(io::Error::new(ErrorKind::WriteZero, "wrote nothing")),
            Ok(count) => {
                at = offset_after(at, count)?;
                IoSlice::advance_slices(&mut slices, count);
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(at)
}

fn offset_after(offset: u64, count: usize) -> io::Result<u64> {
    end_of(offset, count as u64)
}

fn end_of(offset: u64, len: u64) -> io::Result<u64> {
    offset.checked_add(len).ok_or_else(|| {
        io::Error::new(
            ErrorKind::InvalidInput,
            format!("offset {offset} and length {len} are out of range"),
        )
    })
}
