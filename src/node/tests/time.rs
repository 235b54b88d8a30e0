//! Shard time as nodes know it.

use super::{Life, run};
use crate::env::sim::SimDisk;
use crate::proto::TicketRight;
use crate::types::{ShardTime, UploadId};

const DAY_MS: u64 = 24 * 3_600_000;

/// A follower that answers a stale read makes a ticket by the time of the state. The leader may
/// have counted on for days in which nothing happened.
#[test]
fn a_ticket_of_a_follower_holds_where_the_leader_has_counted_on() {
    run(async {
        let life = Life::start(&SimDisk::new(4)).await.unwrap();
        let (node, shard) = (&life.node, life.shard());
        let right = TicketRight::Write {
            upload: UploadId([1; 16]),
        };
        let expires = shard.applied_time().plus_ms(DAY_MS);
        let ticket = node.tickets.issue(right, "ann", expires).unwrap();
        shard.proposer.set_time(ShardTime(10 * DAY_MS));
        assert!(shard.known_time() >= ShardTime(10 * DAY_MS));
        let check = || node.tickets.check(&ticket, "ann", node.ticket_time());
        check().unwrap();
        // With the next entry everybody has that time.
        shard.proposer.barrier().await.unwrap();
        assert!(shard.applied_time() >= ShardTime(10 * DAY_MS));
        check().unwrap_err();
        life.checked();
        life.end();
    });
}
