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
//! | `DIR/ca.seal` | the key that opens the sealed CA; never in images and backups | [`Seal`] |
//! | `DIR/lock` | held by the process that uses the directory | [`DirLock`] |
//! | `DIR/admin.dfs`, `~/.config/dfs/identity.dfs` | a client's identity | [`Identity`] |
//!
//! **Joining.** Whoever wants a certificate keeps his key: he sends a request that the key has
//! signed ([`KeyRequest`]) and gets a certificate back. What lets a stranger ask is a token
//! ([`JoinToken`]): it names the CA that he must find at the other end and holds a secret of which
//! the cluster keeps a hash. A token is spent on a key ([`request_key_hash`]), so that one whose
//! answer was lost may ask again with the same request.
//!
//! **The CA's key** is kept by the cluster as sealed bytes ([`Seal`]), so that it outlives any one
//! directory and yet stands in no image, log or backup in clear.
//!
//! The files are read once, before anything else runs, with plain file calls; a simulated node is
//! handed the values instead.

mod authority;
mod files;
mod identity;
mod keys;
mod lock;
mod node_files;
mod place;
mod request;
mod seal;
mod token;

pub use authority::{ADMIN_DAYS, Authority, CA_DAYS, NODE_DAYS, Validity};
pub use identity::{Identity, Installed, default_identity_path, install_for_user};
pub use lock::DirLock;
pub use node_files::{NodeFiles, NodeMeta, prepare_dir};
pub use place::IdentityPlace;
pub use request::{KeyRequest, REQUEST_BYTES_MAX, request_key_hash};
pub use seal::{SEALED_BYTES_MAX, Seal};
pub use token::{JoinToken, join_secret_hash};

/// Repeatable randomness for tests.
#[cfg(test)]
fn test_rng(seed: u64) -> crate::env::sim::SeededRng {
    crate::env::sim::SeededRng::new(seed)
}
