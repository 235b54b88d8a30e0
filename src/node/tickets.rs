//! Tickets and proofs: what opens chunks to a user (`proto::Ticket`). Keyed BLAKE3 over exactly
//! what is granted; the key is a record of the root group that every node has.
//!
//! A ticket binds right, user and expiry. A proof binds one chunk to a right and a user; nobody
//! who was not told that he may read this content (or references the chunk already) can make
//! one. Proofs are shown together with a ticket of the same right.

use crate::codec;
use crate::error::{Code, Error, Result};
use crate::proto::{Ticket, TicketRight};
use crate::root::TicketKey;
use crate::types::{ChunkHash, Mac, ShardTime};
use parking_lot::RwLock;

/// The keys of the last days, newest last.
#[derive(Default)]
pub struct Tickets {
    keys: RwLock<Vec<TicketKey>>,
}

impl Tickets {
    /// Takes the keys that the root group holds.
    pub fn set_keys(&self, keys: Vec<TicketKey>) {
        *self.keys.write() = keys;
    }

    /// Makes a ticket with the newest key.
    pub fn issue(&self, right: TicketRight, user: &str, expires: ShardTime) -> Result<Ticket> {
        let keys = self.keys.read();
        let key = keys.last().ok_or_else(no_key)?;
        let mut ticket = Ticket {
            right,
            user: user.to_owned(),
            expires,
            key_epoch: key.epoch,
            mac: Mac([0; 16]),
        };
        ticket.mac = sign(&key.key, &ticket);
        Ok(ticket)
    }

    /// The proof that a user's right covers a chunk, by the newest key.
    pub fn prove(&self, right: &TicketRight, user: &str, chunk: &ChunkHash) -> Result<Mac> {
        let keys = self.keys.read();
        let key = keys.last().ok_or_else(no_key)?;
        Ok(proof(&key.key, right, user, chunk))
    }

    /// Checks that a ticket is genuine, was made for this user, and has not expired by `now`, the
    /// time of the shard that made it.
    pub fn check(&self, ticket: &Ticket, user: &str, now: ShardTime) -> Result<()> {
        let key = self.key_of(ticket)?;
        if !same(sign(&key, ticket), ticket.mac) || ticket.user != user {
            return Err(denied("the ticket is not genuine"));
        }
        if ticket.expires <= now {
            return Err(denied("the ticket has expired"));
        }
        Ok(())
    }

    /// Checks a ticket and the proof for one chunk.
    pub fn check_chunk(
        &self,
        ticket: &Ticket,
        user: &str,
        chunk: &ChunkHash,
        shown: Mac,
        now: ShardTime,
    ) -> Result<()> {
        self.check(ticket, user, now)?;
        // Not only by the ticket's key: the proof may be younger, made after a new day's key.
        let keys = self.keys.read();
        let covered = keys
            .iter()
            .any(|key| same(proof(&key.key, &ticket.right, user, chunk), shown));
        if !covered {
            return Err(denied("the ticket does not cover this chunk"));
        }
        Ok(())
    }

    fn key_of(&self, ticket: &Ticket) -> Result<[u8; 32]> {
        let keys = self.keys.read();
        let key = keys.iter().find(|key| key.epoch == ticket.key_epoch);
        key.map(|key| key.key)
            .ok_or_else(|| denied("the ticket has expired"))
    }
}

/// Compares in a time that does not depend on how much of a guess is right.
fn same(ours: Mac, shown: Mac) -> bool {
    ours.0
        .iter()
        .zip(shown.0)
        .fold(0, |different, (a, b)| different | (a ^ b))
        == 0
}

fn no_key() -> Error {
    Error::unavailable("this node has no ticket key yet").hint("try again")
}

fn denied(why: &str) -> Error {
    Error::new(Code::Denied, why.to_owned()).hint("ask for the file again")
}

fn keyed(key: &[u8; 32], context: &[u8], parts: &[&[u8]]) -> Mac {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(context);
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let mut mac = [0; 16];
    mac.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    Mac(mac)
}

fn sign(key: &[u8; 32], ticket: &Ticket) -> Mac {
    let right = codec::encode(&ticket.right);
    let numbers = [
        ticket.expires.0.to_le_bytes(),
        ticket.key_epoch.to_le_bytes(),
    ]
    .concat();
    keyed(
        key,
        b"dfs ticket 1",
        &[&right, ticket.user.as_bytes(), &numbers],
    )
}

fn proof(key: &[u8; 32], right: &TicketRight, user: &str, chunk: &ChunkHash) -> Mac {
    keyed(
        key,
        b"dfs chunk 1",
        &[&codec::encode(right), user.as_bytes(), &chunk.0],
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ContentId, Inode, UploadId};

    const NOW: ShardTime = ShardTime(8);

    fn tickets() -> Tickets {
        let tickets = Tickets::default();
        tickets.set_keys(vec![TicketKey {
            epoch: 4,
            key: [9; 32],
            made: ShardTime(0),
        }]);
        tickets
    }

    fn read(inode: u64) -> TicketRight {
        TicketRight::Read {
            inode: Inode(inode),
            content: ContentId(1),
        }
    }

    #[test]
    fn a_ticket_opens_its_chunk_to_its_user_only() {
        let tickets = tickets();
        let (mine, other) = (ChunkHash([1; 32]), ChunkHash([2; 32]));
        let ticket = tickets.issue(read(5), "ann", ShardTime(9)).unwrap();
        let proof = tickets.prove(&ticket.right, "ann", &mine).unwrap();
        tickets
            .check_chunk(&ticket, "ann", &mine, proof, NOW)
            .unwrap();
        assert!(
            tickets
                .check_chunk(&ticket, "ann", &other, proof, NOW)
                .is_err()
        );
        assert!(
            tickets
                .check_chunk(&ticket, "bob", &mine, proof, NOW)
                .is_err()
        );
        let foreign = tickets.issue(read(6), "ann", ShardTime(9)).unwrap();
        assert!(
            tickets
                .check_chunk(&foreign, "ann", &mine, proof, NOW)
                .is_err()
        );
    }

    #[test]
    fn a_proof_made_after_a_new_key_serves_an_older_ticket() {
        let tickets = tickets();
        let chunk = ChunkHash([1; 32]);
        let ticket = tickets.issue(read(5), "ann", ShardTime(9)).unwrap();
        let old = tickets.prove(&ticket.right, "ann", &chunk).unwrap();
        let keys = [(4, [9; 32]), (5, [8; 32])];
        tickets.set_keys(
            keys.map(|(epoch, key)| TicketKey {
                epoch,
                key,
                made: ShardTime(0),
            })
            .into(),
        );
        let young = tickets.prove(&ticket.right, "ann", &chunk).unwrap();
        assert_ne!(old, young);
        tickets
            .check_chunk(&ticket, "ann", &chunk, old, NOW)
            .unwrap();
        tickets
            .check_chunk(&ticket, "ann", &chunk, young, NOW)
            .unwrap();
        assert!(
            tickets
                .check_chunk(&ticket, "bob", &chunk, young, NOW)
                .is_err()
        );
    }

    #[test]
    fn a_changed_ticket_and_a_forgotten_key_are_refused() {
        let tickets = tickets();
        let ticket = tickets.issue(read(5), "ann", ShardTime(9)).unwrap();
        let mut later = ticket.clone();
        later.expires = ShardTime(10_000);
        assert!(tickets.check(&later, "ann", NOW).is_err());
        let mut wider = ticket.clone();
        wider.right = TicketRight::Write {
            upload: UploadId([0; 16]),
        };
        assert!(tickets.check(&wider, "ann", NOW).is_err());
        tickets.set_keys(vec![TicketKey {
            epoch: 5,
            key: [8; 32],
            made: ShardTime(0),
        }]);
        assert!(
            tickets
                .check(&ticket, "ann", NOW)
                .unwrap_err()
                .message
                .contains("expired")
        );
    }

    #[test]
    fn a_ticket_ends_with_its_time() {
        let tickets = tickets();
        let ticket = tickets.issue(read(5), "ann", ShardTime(9)).unwrap();
        tickets.check(&ticket, "ann", ShardTime(8)).unwrap();
        let refused = tickets.check(&ticket, "ann", ShardTime(9)).unwrap_err();
        assert!(refused.message.contains("expired"), "{refused}");
    }
}
