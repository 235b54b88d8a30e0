//! What no program of ours would send: bytes from nowhere to a node's port, and nonsense on
//! connections that were let in. A node must neither panic nor lose anything by it. Called by
//! `acts`.

use super::cluster::{Connector, PORT};
use super::network::{HostId, Network, address_of};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::time::Duration;

/// The longest piece of nonsense.
const BYTES_MAX: usize = 1_500;
/// How long an answer to nonsense is waited for.
const PATIENCE: Duration = Duration::from_millis(300);

/// Datagrams from a port where nobody is: noise, and noise with the first bytes of QUIC.
pub fn datagrams(network: &Network, from: HostId, to: HostId, count: usize, rng: &mut StdRng) {
    for _ in 0..count {
        let bytes = match rng.random() {
            true => noise(rng),
            false => quic(rng),
        };
        network.send(address_of(from, 666), address_of(to, PORT), &bytes);
    }
}

/// So many frames on connections of a client that may speak: the first bytes of a call with noise
/// behind them, noise alone, or a length that nothing follows.
pub async fn frames(connector: Connector, to: HostId, count: usize, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let Ok(endpoint) = connector.endpoint() else {
        return;
    };
    let mut left = count;
    while left > 0 {
        left -= 1;
        // Nodes may be down, or not let anybody in.
        let Ok(connection) = connector.connection(&endpoint, to).await else {
            continue;
        };
        for _ in 0..rng.random_range(1..8) {
            let mut bytes = noise(&mut rng);
            if rng.random()
                && let Some(first) = bytes.first_mut()
            {
                // The number of a call.
                *first %= 40;
            }
            // An answer is as good as none.
            let _ = connection.call(&bytes, PATIENCE).await;
            left = left.saturating_sub(1);
        }
        connection.close();
    }
}

fn noise(rng: &mut StdRng) -> Vec<u8> {
    let len = rng.random_range(0..BYTES_MAX);
    (0..len).map(|_| rng.random()).collect()
}

/// A long header of version 1, or a short one, and noise.
fn quic(rng: &mut StdRng) -> Vec<u8> {
    let mut bytes = noise(rng);
    bytes.resize(bytes.len().max(1_200), 0);
    bytes[0] = rng.random_range(0x40..=0xff);
    if bytes[0] >= 0xc0 {
        bytes[1..5].copy_from_slice(&1u32.to_be_bytes());
        bytes[5] = rng.random_range(0..=20);
    }
    bytes
}
