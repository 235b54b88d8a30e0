//! The cluster's CA, certificates, and the files that hold identities.
//!
//! Called by `node` at its start and by `cmd` before it connects. Knows certificates and local
//! files; opens no connection, and nothing here is on the path of a request.
//!
//! A cluster is an Ed25519 CA made at its first start. Whoever speaks in it shows a certificate
//! that this CA signed; the certificate's common name says who it is ([`crate::types::Subject`]),
//! its organisation is the cluster's id. Ed25519 throughout: handshakes have one size whatever
//! the keys are, and keys are made from 32 bytes of any source of randomness.
//!
//! Files (all text, TOML, with `format = 1`, mode 0600, replaced by rename after an fsync):
//!
//! | file | what | type |
//! |---|---|---|
//! | `DIR/node` | which node of which cluster the data directory is; written last | [`NodeMeta`] |
//! | `DIR/node.dfs` | the node's certificate and key, the CA's certificate | [`NodeFiles`] |
//! | `DIR/ca.dfs` | the CA with its key; only on the node that made the cluster | [`Authority`] |
//! | `DIR/lock` | held by the process that uses the directory | [`DirLock`] |
//! | `DIR/admin.dfs`, `~/.config/dfs/identity.dfs` | a client's identity | [`Identity`] |
//!
//! These are read once, before anything else runs, with plain file calls; a simulated node is
//! handed the values instead.

mod authority;
mod files;
mod identity;
mod lock;
mod node_files;

pub use authority::{ADMIN_DAYS, Authority, CA_DAYS, NODE_DAYS, Validity};
pub use identity::{Identity, Installed, default_identity_path, install_at, install_for_user};
pub use lock::DirLock;
pub use node_files::{NodeFiles, NodeMeta, prepare_dir};

/// Repeatable randomness for tests (splitmix64).
#[cfg(test)]
fn test_rng(seed: u64) -> std::sync::Arc<dyn crate::env::Rng> {
    struct Seeded(std::sync::atomic::AtomicU64);
    impl crate::env::Rng for Seeded {
        fn fill(&self, out: &mut [u8]) {
            for part in out.chunks_mut(8) {
                let step = 0x9e37_79b9_7f4a_7c15;
                let mut z = self.0.fetch_add(step, std::sync::atomic::Ordering::Relaxed);
                z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                part.copy_from_slice(&(z ^ (z >> 31)).to_le_bytes()[..part.len()]);
            }
        }
    }
    std::sync::Arc::new(Seeded(seed.into()))
}
