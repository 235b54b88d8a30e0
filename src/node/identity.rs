//! This node's certificate and its part of the CA: signing for those who join, renewing what ends
//! soon. Files are written by `cluster`; a simulated node keeps everything in memory.
//!
//! The CA's key is a record of the root group, sealed with a key that members of the group have in
//! their directories and give to each other. A copy of the records alone opens nothing.
//!
//! Invariant: whoever is made a voter of the root group has that key, as long as a voter has it
//! (`membership`). So the CA survives what the group survives; else the loss of the node that
//! founded the cluster, moments after two others came, would have ended all joining and renewing
//! for ever.

use super::Node;
use super::peers::odd;
use crate::cluster::{Authority, KeyRequest, NODE_DAYS, NodeFiles, Seal, Validity};
use crate::env::Env;
use crate::error::{Code, Error, Result};
use crate::limits::REQUEST_TIMEOUT;
use crate::net::{ClientTls, ServerTls};
use crate::proto::{NodeState, PeerAnswer, PeerCall};
use crate::root;
use crate::types::{Credentials, GroupId, NodeId, Subject, SubjectKind};
use bytes::Bytes;
use parking_lot::Mutex;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How often it is looked whether something is missing or ends soon.
const LOOK: Duration = Duration::from_secs(1);
/// The same while the key that opens the CA is missing: until it is here this node cannot vote.
const SEAL_LOOK: Duration = Duration::from_millis(100);
/// How often the certificate's end is looked at.
const RENEW_LOOK: Duration = Duration::from_secs(60);
const DAY_MS: i64 = 24 * 3_600 * 1_000;

/// What this node is, by certificate.
pub struct Identity {
    credentials: Mutex<Credentials>,
    /// Shared with what keeps it where there are no files.
    seal: Arc<Mutex<Option<Seal>>>,
    /// Opened when it was needed first.
    authority: Mutex<Option<Authority>>,
    /// Where it is kept; `None`: nowhere.
    files: Mutex<Option<(NodeFiles, PathBuf)>>,
}

impl Identity {
    /// Kept in a data directory.
    pub fn in_files(files: NodeFiles, dir: PathBuf) -> Identity {
        Identity {
            credentials: Mutex::new(files.credentials.clone()),
            seal: Arc::new(Mutex::new(files.seal.clone())),
            authority: Mutex::default(),
            files: Mutex::new(Some((files, dir))),
        }
    }

    /// Not in files; the seal is kept in `seal`, which may outlive this process's part.
    #[cfg(test)]
    pub fn in_memory(credentials: Credentials, seal: Arc<Mutex<Option<Seal>>>) -> Identity {
        Identity {
            credentials: Mutex::new(credentials),
            seal,
            authority: Mutex::default(),
            files: Mutex::default(),
        }
    }

    /// The data directory; `None`: nothing is kept.
    pub fn dir(&self) -> Option<PathBuf> {
        let files = self.files.lock();
        files.as_ref().map(|(_, dir)| dir.clone())
    }

    pub fn credentials(&self) -> Credentials {
        self.credentials.lock().clone()
    }

    /// The key that opens the CA is here, and will be after a restart.
    pub fn opens_ca(&self) -> bool {
        self.seal.lock().is_some()
    }

    fn keep_seal(&self, seal: Seal) -> Result<()> {
        if let Some((files, dir)) = &mut *self.files.lock() {
            files.keep_seal(dir, seal.clone())?;
        }
        *self.seal.lock() = Some(seal);
        Ok(())
    }

    fn replace(&self, credentials: Credentials) -> Result<()> {
        if let Some((files, dir)) = &mut *self.files.lock() {
            files.credentials = credentials.clone();
            files.write_credentials(dir)?;
        }
        *self.credentials.lock() = credentials;
        Ok(())
    }
}

/// A certificate's number: at random, so that no counter has to survive anything.
pub fn serial(env: &Env) -> u64 {
    (env.rng.u64() >> 1).max(1)
}

/// Fetches the seal where it is needed and renews the certificate, until the process ends.
pub(super) async fn run(node: Arc<Node>) {
    let mut renew_at = Duration::ZERO;
    loop {
        let needs_seal = || node.groups.root().is_some() && !node.identity.opens_ca();
        let pause = match needs_seal() {
            true => SEAL_LOOK,
            false => LOOK,
        };
        tokio::time::sleep(pause).await;
        if needs_seal() {
            match node.fetch_seal().await {
                // Whoever leads the root group waits to hear of it.
                Ok(()) => node.beat_now.notify_one(),
                Err(error) => {
                    tracing::debug!(%error, "the key that opens the CA is not here yet");
                }
            }
        }
        let now = node.env.clock.now();
        if now >= renew_at {
            renew_at = now + RENEW_LOOK;
            if let Err(error) = node.renew().await {
                tracing::warn!(%error, "the node's certificate could not be renewed; again later");
            }
            if let Err(error) = node.keep_admin(false) {
                tracing::warn!(%error, "the administrator's identity could not be kept");
            }
        }
    }
}

impl Node {
    async fn fetch_seal(&self) -> Result<()> {
        let call = PeerCall::Seal;
        match self
            .ask_leader(GroupId::ROOT, &call, REQUEST_TIMEOUT)
            .await?
        {
            PeerAnswer::Seal(key) => {
                let seal = Seal::from_key(&key);
                self.open_authority(&seal)?;
                self.identity.keep_seal(seal)
            }
            other => Err(odd(&other)),
        }
    }

    /// The seal, for another member of the root group.
    pub(super) fn give_seal(&self, to: NodeId) -> Result<[u8; 32]> {
        let root = self.groups.root();
        let members = root.map(|root| root.raft.members());
        let is_member = members.is_some_and(|members| {
            let mut all = members.voters.iter().chain(&members.learners);
            all.any(|(_, node)| *node == to)
        });
        if !is_member {
            let why = format!("node {to} is no member of the root group");
            return Err(Error::new(Code::Denied, why));
        }
        let seal = self.identity.seal.lock();
        let seal = seal
            .as_ref()
            .ok_or_else(|| Error::unavailable("this node has no seal itself yet"))?;
        Ok(*seal.key())
    }

    fn open_authority(&self, seal: &Seal) -> Result<Authority> {
        let root = self.groups.root().ok_or_else(|| {
            Error::new(Code::Redirect, "this node is no member of the root group")
        })?;
        let sealed = root.read(|view| root::ca(view))?.sealed;
        seal.open(self.cluster, &sealed)
    }

    /// The CA, on a member of the root group.
    pub(super) fn authority(&self) -> Result<Authority> {
        if let Some(authority) = &*self.identity.authority.lock() {
            return Ok(authority.clone());
        }
        let seal = self.identity.seal.lock().clone();
        let seal = seal.ok_or_else(|| {
            Error::unavailable("this node cannot open the CA yet").hint("try again in a moment")
        })?;
        let authority = self.open_authority(&seal)?;
        *self.identity.authority.lock() = Some(authority.clone());
        Ok(authority)
    }

    /// Signs a certificate for `days`.
    pub(super) fn sign(
        &self,
        request: &[u8],
        subject: &Subject,
        days: u32,
        addresses: &[String],
    ) -> Result<Vec<u8>> {
        let validity = Validity::days(self.env.clock.wall(), days);
        let serial = serial(&self.env);
        self.authority()?
            .sign_request(request, subject, serial, validity, addresses)
    }

    /// A new certificate for a node that asks for its own.
    pub(super) fn renew_for(&self, node: NodeId, request: &[u8]) -> Result<Vec<u8>> {
        let view = self.views.now();
        let known = view.node(node);
        if known.is_none_or(|info| info.state == NodeState::Removed) {
            let why = format!("node {node} is not in the cluster");
            return Err(Error::new(Code::Denied, why));
        }
        let addresses: Vec<String> = known.map(|info| info.address.clone()).into_iter().collect();
        self.sign(request, &Subject::Node(node), NODE_DAYS, &addresses)
    }

    /// Gets a new certificate when less than a third of its life is left; and when its life has not
    /// begun: then it was made while this machine's clock was ahead, and nobody believes it.
    async fn renew(self: &Arc<Self>) -> Result<()> {
        let facts = self.identity.credentials().facts()?;
        let now = self.env.clock.wall();
        let left = facts.not_after.0.saturating_sub(now.0);
        let has_begun = facts.not_before <= now;
        if has_begun && left >= i64::from(NODE_DAYS).saturating_mul(DAY_MS) / 3 {
            return Ok(());
        }
        let request = KeyRequest::new(&*self.env.rng)?;
        let certificate = match self.authority() {
            Ok(_) => self.renew_for(self.id, request.request_der())?,
            Err(_) => {
                let call = PeerCall::Renew {
                    request: Bytes::copy_from_slice(request.request_der()),
                };
                match self
                    .ask_leader(GroupId::ROOT, &call, REQUEST_TIMEOUT)
                    .await?
                {
                    PeerAnswer::Renewed(certificate) => certificate,
                    other => return Err(odd(&other)),
                }
            }
        };
        let ca = self.identity.credentials().ca;
        let credentials = request.into_credentials(&certificate, &ca, SubjectKind::Node)?;
        self.peers.set_tls(ClientTls::new(&credentials)?);
        if let Some(endpoint) = self.endpoint.get() {
            endpoint.renew(&ServerTls::new(&credentials)?)?;
        }
        self.identity.replace(credentials)?;
        tracing::info!("the node's certificate was renewed");
        Ok(())
    }
}
