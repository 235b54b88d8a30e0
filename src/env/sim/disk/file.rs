//! One open file of the simulated disk.

use super::content::PAGE_BYTES;
use super::fault::{Verdict, crashed};
use super::inode::Change;
use super::tree::InodeRef;
use super::{OpKind, SimDisk};
use crate::env::DiskFile;
use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Offsets end here, so that sums of offsets and lengths cannot overflow: 8 EiB less a page.
const OFFSET_MAX: u64 = i64::MAX as u64 - PAGE_BYTES;

pub struct SimFile {
    disk: SimDisk,
    /// The name it was opened by; faults are planned by it.
    path: PathBuf,
    inode: InodeRef,
    writable: bool,
}

impl SimFile {
    pub fn new(disk: SimDisk, path: &Path, inode: InodeRef, writable: bool) -> Self {
        SimFile {
            disk,
            path: path.to_owned(),
            inode,
            writable,
        }
    }

    /// Checks a range and that the file may be written.
    fn check(&self, offset: u64, len: u64) -> io::Result<()> {
        if !self.writable {
            return Err(rustix::io::Errno::BADF.into());
        }
        match offset.checked_add(len) {
            Some(end) if end <= OFFSET_MAX => Ok(()),
            _ => Err(ErrorKind::InvalidInput.into()),
        }
    }

    fn change(&self, op: OpKind, change: Change) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        state.change(op, &self.path, &self.inode, change)
    }

    fn write_now(&self, offset: u64, parts: &[Bytes]) -> io::Result<()> {
        let data = match parts {
            [part] => part.clone(),
            parts => {
                let mut all = BytesMut::new();
                parts.iter().for_each(|part| all.extend_from_slice(part));
                all.freeze()
            }
        };
        self.check(offset, data.len() as u64)?;
        self.change(OpKind::Write, Change::Write { offset, data })
    }

    async fn sync_now(&self) -> io::Result<()> {
        // Only what was written before the call is made durable by it.
        let upto = self.inode.lock().changes();
        let latency = self.disk.state.lock().latency;
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        let mut state = self.disk.state.lock();
        let state = &mut *state;
        let mut inode = self.inode.lock();
        match state.plan.admit(OpKind::Sync, &self.path)? {
            Verdict::Go => {
                inode.sync(upto);
                Ok(())
            }
            Verdict::Fail(error) => {
                inode.fail_sync(upto, &mut state.rng);
                Err(error.into())
            }
            Verdict::PowerCut => Err(crashed()),
        }
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, offset: u64, len: usize) -> BoxFuture<'_, io::Result<Bytes>> {
        async move {
            let mut state = self.disk.state.lock();
            state.plan.admit(OpKind::Read, &self.path)?.into_result()?;
            Ok(Bytes::from(self.inode.lock().live().read(offset, len)))
        }
        .boxed()
    }

    fn write_at(&self, offset: u64, parts: Vec<Bytes>) -> BoxFuture<'_, io::Result<()>> {
        async move { self.write_now(offset, &parts) }.boxed()
    }

    fn write_sync(&self, offset: u64, parts: Vec<Bytes>) -> BoxFuture<'_, io::Result<()>> {
        async move {
            self.write_now(offset, &parts)?;
            self.sync_now().await
        }
        .boxed()
    }

    fn sync(&self) -> BoxFuture<'_, io::Result<()>> {
        self.sync_now().boxed()
    }

    fn len(&self) -> BoxFuture<'_, io::Result<u64>> {
        async move {
            let mut state = self.disk.state.lock();
            state.plan.admit(OpKind::Len, &self.path)?.into_result()?;
            Ok(self.inode.lock().live().len())
        }
        .boxed()
    }

    fn set_len(&self, len: u64) -> BoxFuture<'_, io::Result<()>> {
        async move {
            self.check(0, len)?;
            self.change(OpKind::SetLen, Change::SetLen(len))
        }
        .boxed()
    }

    fn zero(&self, offset: u64, len: u64) -> BoxFuture<'_, io::Result<()>> {
        async move {
            self.check(offset, len)?;
            self.change(OpKind::Zero, Change::Zero { offset, len })
        }
        .boxed()
    }
}
