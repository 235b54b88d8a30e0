//! What the client's tests need: seeded randomness.

use super::{Client, ConnectOptions, GetOptions, NoProgress, OpIds, Pages, PutOptions};
use crate::env::{Env, Rng};
use crate::types::{DfsPath, ReadLevel};
use parking_lot::Mutex;

/// A small generator (splitmix64), the same for the same seed.
pub(crate) struct SeededRng(Mutex<u64>);

impl SeededRng {
    pub(crate) fn new(seed: u64) -> Self {
        SeededRng(Mutex::new(seed))
    }
}

impl Rng for SeededRng {
    fn fill(&self, out: &mut [u8]) {
        let mut state = self.0.lock();
        for part in out.chunks_mut(8) {
            *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = *state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let bytes = (z ^ (z >> 31)).to_le_bytes();
            part.copy_from_slice(&bytes[..part.len()]);
        }
    }
}

/// A gateway runs these in tasks of its own.
#[allow(dead_code)]
fn futures_of_the_client_may_move_between_threads(
    client: &Client,
    env: Env,
    connect: ConnectOptions,
    path: &DfsPath,
    reader: &mut (dyn tokio::io::AsyncRead + Send + Unpin),
    writer: &mut (dyn tokio::io::AsyncWrite + Send + Unpin),
    mut pages: Pages,
) {
    fn movable<T: Send>(_: T) {}
    let (put, get) = (PutOptions::default(), GetOptions::default());
    let local = std::path::Path::new("x");
    movable(Client::connect(env, connect));
    movable(client.stat(path, ReadLevel::Stale));
    movable(client.mkdir(path, 0, false, &OpIds::Automatic));
    movable(pages.next_page());
    movable(client.put_bytes(bytes::Bytes::new(), path, &put));
    movable(client.put_file(local, path, &put, &NoProgress));
    movable(client.put_reader(reader, path, &put, &NoProgress));
    movable(client.put_tree(local, path, &put, &NoProgress));
    movable(client.get_file(path, local, &get, &NoProgress));
    movable(client.get_tree(path, local, &get, &NoProgress));
    movable(client.cat(path, writer, &get, &NoProgress));
}
