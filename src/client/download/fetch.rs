//! One chunk, or a part of one, from its owners: verified before it counts, taken from the next
//! owner where one is slow, dead or damaged.

use super::sink::{Hashed, Sink};
use crate::client::core::{Client, is_passing, odd, shown};
use crate::client::link::Live;
use crate::client::manifest::Want;
use crate::client::retry::{Pace, Retry};
use crate::client::upload::within;
use crate::codec;
use crate::error::{Code, Error, Result};
use crate::proto::{Answer, Call, Ticket};
use crate::types::NodeId;
use std::collections::BTreeMap;
use std::time::Duration;

/// Bytes taken from the stream at once.
const RECV_BYTES: usize = 256 << 10;
/// Rounds through the owners of one chunk that each got somewhere.
const ROUNDS_MAX: u32 = 32;
/// After so many failures a chunk is asked for in pieces of `CAREFUL_BYTES`.
const CAREFUL_AFTER: u32 = 2;
/// One piece that a node verifies before it answers.
const CAREFUL_BYTES: u32 = 512 << 10;
/// Times that an owner may give wrong bytes or none before it is not asked any more: what is
/// wrong may lie between it and us.
const STRIKES_MAX: u32 = 2;
/// The same for the only owner.
const STRIKES_ALONE_MAX: u32 = 4;
/// An owner that gives no byte for this long is given up while there is another to ask, and the
/// last of a round after the second; the only one has the request's own deadline.
const SLOW_AFTER: Duration = Duration::from_secs(1);
const LAST_SLOW_AFTER: Duration = Duration::from_secs(5);
/// To connect to an owner may take longer: there are some round trips in it.
const REACH_WITHIN: Duration = Duration::from_secs(2);

/// One chunk being fetched from one owner after the other.
struct Fetching<'a> {
    client: &'a Client,
    ticket: &'a Ticket,
    want: &'a Want,
    sink: &'a mut Sink,
    moved: &'a (dyn Fn(u64) + Sync),
    /// Bytes that `moved` was told of.
    reported: u64,
    owners: Vec<NodeId>,
    /// How often an owner gave wrong bytes or said that it has none.
    strikes: BTreeMap<NodeId, u32>,
    /// Attempts that failed.
    failures: u32,
    /// More bytes came in this round than in any before.
    advanced: bool,
    /// An owner did not have it: perhaps it is elsewhere now.
    missed: bool,
}

impl Client {
    /// Fetches what is wanted into `sink`; tells `moved` how many more bytes came. Returns the
    /// hashes of what came that its proof asks for.
    ///
    /// # Errors
    /// `corrupt` when no owner gave bytes that match the hash, if they are proved by it;
    /// `unavailable` while there is an owner that may have them and does not answer.
    pub(super) async fn fetch(
        &self,
        ticket: &Ticket,
        want: &Want,
        sink: &mut Sink,
        moved: &(dyn Fn(u64) + Sync),
    ) -> Result<Hashed> {
        let timeout = self.core.timeout;
        let mut retry = Retry::within(timeout);
        let mut fetching = Fetching {
            client: self,
            ticket,
            want,
            sink,
            moved,
            reported: 0,
            owners: want.location.owners.clone(),
            strikes: BTreeMap::new(),
            failures: 0,
            advanced: false,
            missed: false,
        };
        let mut renewed = false;
        loop {
            let cause = match fetching.round().await {
                Ok(hashed) => return Ok(hashed),
                Err(error) if is_passing(&error) || is_damage(&error) => error,
                Err(error) => return Err(error),
            };
            // Dead owners are replaced by others in time.
            let dead = is_passing(&cause) && retry.failures > 0;
            if fetching.missed && !renewed || dead {
                renewed = true;
                fetching.renew().await?;
            }
            if fetching.is_lost() {
                return Err(damaged(&cause));
            }
            if retry.failures >= ROUNDS_MAX {
                return Err(shown(cause));
            }
            if std::mem::take(&mut fetching.advanced) {
                retry.progressed(timeout);
            }
            let ended = retry.pause(&*self.core.env.rng, cause, Pace::Usual).await;
            ended.map_err(shown)?;
        }
    }
}

impl Fetching<'_> {
    /// Tries all owners once that may still have it. Fails with the last reason: one that may
    /// pass, if there is one.
    async fn round(&mut self) -> Result<Hashed> {
        let len = u64::from(self.want.len);
        let order = self.client.core.link.ranked(&self.asked(), len);
        // Nobody whose address we know: the cluster knows more.
        self.missed |= order.is_empty();
        let mut passing = None;
        let mut damage = Error::unavailable("no owner of the chunk can be reached");
        for (place, node) in order.iter().enumerate() {
            let timeout = self.client.core.timeout;
            let slow = match (order.len(), place + 1 == order.len()) {
                (1, _) => timeout,
                (_, true) => timeout.min(LAST_SLOW_AFTER),
                (_, false) => timeout.min(SLOW_AFTER),
            };
            let error = match self.fetch_from(*node, slow).await {
                Ok(hashed) => return Ok(hashed),
                Err(error) => error,
            };
            tracing::debug!(%error, %node, "an owner did not give a chunk");
            self.failures += 1;
            if is_passing(&error) {
                passing = Some(error);
            } else if is_damage(&error) {
                self.missed |= error.code == Code::NotFound;
                *self.strikes.entry(*node).or_insert(0) += 1;
                damage = error;
            } else {
                return Err(error);
            }
        }
        Err(passing.unwrap_or(damage))
    }

    /// The owners that were not found out to have nothing.
    fn asked(&self) -> Vec<NodeId> {
        let most = match self.owners.len() {
            1 => STRIKES_ALONE_MAX,
            _ => STRIKES_MAX,
        };
        let strikes = |node| self.strikes.get(node).copied().unwrap_or(0);
        let may = self.owners.iter().filter(|node| strikes(node) < most);
        may.copied().collect()
    }

    /// No owner is left that could have it.
    fn is_lost(&self) -> bool {
        !self.owners.is_empty() && self.asked().is_empty()
    }

    /// Asks where the chunk belongs by now.
    async fn renew(&mut self) -> Result<()> {
        let hash = self.want.location.hash;
        let owners = self.client.owners_of(hash, true).await?;
        for node in owners.iter() {
            if !self.owners.contains(node) {
                self.owners.push(*node);
            }
        }
        Ok(())
    }

    async fn fetch_from(&mut self, node: NodeId, slow: Duration) -> Result<Hashed> {
        let reach = slow.max(REACH_WITHIN.min(self.client.core.timeout));
        let live = self.client.core.link.node(node, reach).await?;
        self.sink.restart();
        // A node that finds damage on its way can only break the stream off. Asked piece by
        // piece it can say so.
        let step = match self.failures < CAREFUL_AFTER {
            true => self.want.len,
            false => CAREFUL_BYTES,
        };
        let mut done = 0;
        while done < self.want.len {
            let len = step.min(self.want.len - done);
            self.fetch_part(&live, (done, len), slow).await?;
            done += len;
        }
        let hashed = self.sink.end(&self.client.core.env).await?;
        let hash = self.want.location.hash;
        if self.want.is_whole() && hashed.own.is_some_and(|own| own != hash) {
            return Err(Error::corrupt(format!(
                "chunk {hash} came with other bytes from {}",
                live.address
            )));
        }
        Ok(hashed)
    }

    /// `len` bytes, of which those before `done` came already.
    async fn fetch_part(
        &mut self,
        live: &Live,
        (done, len): (u32, u32),
        slow: Duration,
    ) -> Result<()> {
        let frame = codec::encode(&Call::GetChunk {
            ticket: self.ticket.clone(),
            hash: self.want.location.hash,
            mac: self.want.location.mac,
            offset: self.want.from + done,
            len,
        });
        let wanted = u64::from(len);
        let mut carried = live.carry(wanted);
        let mut stream = within(slow, live.open()).await?;
        within(slow, stream.send_frame(&frame)).await?;
        stream.finish()?;
        let reply = within(slow, stream.recv_frame()).await?;
        let reply = reply.ok_or_else(|| Error::unavailable("the node closed the stream"))?;
        live.heard();
        match codec::decode(&reply)? {
            Answer::Chunk { len: told } if told == len => {}
            Answer::Failed(error) => return Err(error),
            _ => return Err(odd("a chunk")),
        }
        let (mut got, mut packets) = (0, Vec::new());
        while got < wanted {
            let most = usize::try_from(wanted - got).unwrap_or(RECV_BYTES);
            let more = stream.recv_packets(&mut packets, most.min(RECV_BYTES));
            let more = within(slow, more).await? as u64;
            if more == 0 {
                return Err(Error::unavailable("the node cut the chunk short"));
            }
            live.heard();
            got += more;
            carried.moved(more);
            let taken = self.sink.take(&self.client.core.env, &mut packets);
            taken.await?;
            self.came(u64::from(done) + got);
        }
        Ok(())
    }

    /// So many bytes came in this attempt. Those that came before are no progress.
    fn came(&mut self, now: u64) {
        if now > self.reported {
            self.advanced = true;
            (self.moved)(now - self.reported);
            self.reported = now;
        }
    }
}

/// What a node said of its copy: another may have a good one. A chunk that is not there is damage
/// too: the file says it has it.
fn is_damage(error: &Error) -> bool {
    matches!(error.code, Code::Corrupt | Code::NotFound)
}

/// What a node said of its copy, as news about the file.
fn damaged(error: &Error) -> Error {
    let place = match &error.path {
        Some(path) => format!("{path}: "),
        None => String::new(),
    };
    Error::corrupt(format!(
        "no node has its content whole ({place}{})",
        error.message
    ))
    .hint("put it again or restore it from a backup; `dfs fsck` shows all damage")
}
