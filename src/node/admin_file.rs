//! `DIR/admin.dfs`, the first administrator's identity on the node that made the cluster: where
//! the operator and the local user's client look for it, with the addresses and a certificate that
//! hold today. Called at a start and now and then while the node runs.

use super::Node;
use super::advertise::loopback;
use super::identity::serial;
use crate::cluster::{self, ADMIN_DAYS, Identity, Installed};
use crate::error::Result;
use crate::types::{Credentials, Subject};
use std::net::SocketAddr;
use std::path::Path;

const NAME: &str = "admin.dfs";

impl Node {
    /// Writes the identity anew when its addresses or its certificate should change, and at a
    /// start. Only the node that made the cluster has one; where it was removed it stays removed.
    ///
    /// # Errors
    /// The file could not be read or written, or the CA could not sign.
    pub(super) fn keep_admin(&self, at_start: bool) -> Result<()> {
        let Some(dir) = self.identity.dir() else {
            return Ok(());
        };
        let path = dir.join(NAME);
        if !path.exists() {
            return Ok(());
        }
        let kept = Identity::load(&path)?;
        let told = self.told_nodes().into_iter();
        let mut now = kept
            .clone()
            .with_addresses(told.map(|node| node.address).collect());
        if let Some(credentials) = self.renewed_admin(&kept.credentials)? {
            now.credentials = credentials;
            tracing::info!("the administrator's certificate was renewed");
        }
        if now == kept && !at_start {
            return Ok(());
        }
        publish(&path, &now, self.here())
    }

    /// Where programs on this machine reach the node whatever network it is in, if that is not the
    /// address it tells others.
    fn here(&self) -> Option<String> {
        let listen = self.endpoint.get()?.local_addr();
        let here = SocketAddr::new(loopback(listen), listen.port());
        listen.ip().is_unspecified().then(|| here.to_string())
    }

    /// New credentials when the old ones end soon and their user was not removed. Only members of
    /// the root group can sign; on others the identity lasts as long as it lasts.
    fn renewed_admin(&self, old: &Credentials) -> Result<Option<Credentials>> {
        let view = self.views.now();
        let removed = match old.facts()?.subject {
            Subject::User { name, .. } => view.cluster.revoked_users.binary_search(&name).is_ok(),
            Subject::Node(_) => true,
        };
        let Some(authority) = self.authority().ok().filter(|_| !removed) else {
            return Ok(None);
        };
        let until = (self.env.clock.wall(), ADMIN_DAYS);
        authority.renewed(&*self.env.rng, old, serial(&self.env), until, &[])
    }
}

/// `here` is for the local user's client alone: the file may be copied to another machine.
fn publish(path: &Path, admin: &Identity, here: Option<String>) -> Result<()> {
    admin.save(path)?;
    let others = admin
        .addresses
        .iter()
        .filter(|told| here.as_ref() != Some(told));
    let addresses = here.iter().chain(others).cloned().collect();
    match cluster::install_for_user(&admin.clone().with_addresses(addresses)) {
        Ok(Installed::KeptOther(other)) => {
            tracing::warn!(
                path = %other.display(),
                "another cluster's identity is there and stays; use --identity {}",
                path.display()
            );
        }
        Ok(done) => tracing::info!(?done, "the local user's client finds this cluster"),
        // A node without a home directory, or with a full one, serves all the same.
        Err(error) => tracing::warn!(%error, "no identity for the local user's client"),
    }
    Ok(())
}
