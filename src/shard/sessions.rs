//! Pure: exactly once. A lane's row keeps the last request's sequence, digest and outcomes; see
//! the module's protocol in `shard/mod.rs`.
//!
//! 1. A request that was answered is never executed again; a repetition gets the same outcomes.
//! 2. Each row in `lanes` has exactly one row in `lanes by age`, at the minute of its `used`.
//! 3. No row that was dropped was used at or after `Header.lanes_horizon`.
//! 4. A row is answered from and replaced for the user it was made for, and for nobody else.

use super::apply::{Caller, check_user_name, run_op};
use super::command::{ChoreDone, HOLD_MS, Op, Request, too_late};
use super::keys;
use super::records::{LaneRow, Outcome, decode, encode};
use super::refuse::{Stop, damaged};
use super::txn::Batch;
use crate::error::{Code, Error, Result};
use crate::limits::{BATCH_ITEMS_MAX, SESSION_HORIZON_MS, SESSION_LANES_MAX, SESSION_ROWS_MAX};
use crate::types::{Inode, Lane, OpSeq, SessionId, ShardTime, WallTime};
use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

const MINUTE_MS: u64 = 60_000;

/// Applies a request unless it was applied before; one outcome for each of its operations.
pub(super) fn request(
    batch: &mut Batch<'_>,
    request: &Request,
    wall: WallTime,
) -> Result<Vec<Outcome>> {
    let refused = |error: Error| Ok(vec![Err(error); request.ops.len()]);
    if let Err(error) = check(request) {
        return refused(error);
    }
    let key = keys::lane(request.session, request.lane);
    let digest = digest(&request.ops)?;
    let last: Option<LaneRow> = batch.get(&key)?.map(|bytes| decode(&bytes)).transpose()?;
    match &last {
        Some(row) if request.user != row.user => return refused(another_user()),
        Some(row) if request.seq < row.seq => return refused(older(request.seq, row.seq)),
        Some(row) if request.seq == row.seq && digest == row.digest => {
            return Ok(row.outcomes.clone());
        }
        Some(row) if request.seq == row.seq => return refused(another_request()),
        Some(_) => {}
        None => {
            let met = request.met.min(batch.header().time);
            if met < batch.header().lanes_horizon {
                return refused(unknown_outcome());
            }
        }
    }
    if let Some(held) = request.held
        && batch.header().time.since(held) > HOLD_MS
    {
        // Nothing of it is kept: the same request may come again.
        return refused(too_late());
    }
    let caller = Caller {
        user: &request.user,
        group: &request.group,
        wall,
    };
    let mut outcomes = Vec::with_capacity(request.ops.len());
    for op in &request.ops {
        outcomes.push(run_op(batch, &caller, op)?);
    }
    let row = LaneRow {
        seq: request.seq,
        digest,
        used: batch.header().time,
        outcomes: outcomes.clone(),
        user: request.user.clone(),
    };
    store(batch, request.session, request.lane, key, last, &row)?;
    Ok(outcomes)
}

fn store(
    batch: &mut Batch<'_>,
    session: SessionId,
    lane: Lane,
    key: Bytes,
    last: Option<LaneRow>,
    row: &LaneRow,
) -> Result<()> {
    batch.put(key, encode(row));
    let minute = row.used.0 / MINUTE_MS;
    match last {
        Some(last) if last.used.0 / MINUTE_MS == minute => return Ok(()),
        Some(last) => {
            batch.delete(keys::lane_by_age(last.used.0 / MINUTE_MS, session, lane));
        }
        None => {
            batch.header_mut().lanes += 1;
        }
    }
    batch.put(keys::lane_by_age(minute, session, lane), Bytes::new());
    if batch.header().lanes > SESSION_ROWS_MAX {
        drop_oldest(batch, 1, |_| true)?;
    }
    Ok(())
}

/// Refusals that stand before the lane's row: the request itself is not one.
fn check(request: &Request) -> Result<(), Error> {
    let bad = |why: String| Err(Error::usage(format!("bad request ({why})")));
    if request.lane.0 >= SESSION_LANES_MAX {
        return bad(format!("lane {} of {SESSION_LANES_MAX}", request.lane));
    }
    if request.seq == OpSeq(0) {
        return bad("sequence 0".to_owned());
    }
    if request.ops.len() > BATCH_ITEMS_MAX {
        return bad(format!(
            "{} operations, at most {BATCH_ITEMS_MAX} are taken",
            request.ops.len()
        ));
    }
    for name in [&request.user, &request.group] {
        if let Err(Stop::Refused(error)) = check_user_name(name) {
            return Err(error);
        }
    }
    Ok(())
}

/// Says nothing of what the row holds: sessions are told apart by a number that is drawn, and
/// whoever learned another's may neither read nor disturb it.
fn another_user() -> Error {
    Error::new(Code::Denied, "the session belongs to another user").hint("start a new session")
}

fn older(seq: OpSeq, last: OpSeq) -> Error {
    Error::new(
        Code::Conflict,
        format!("an older request of this session (sequence {seq}, the last one was {last})"),
    )
    .unknown_outcome()
}

fn another_request() -> Error {
    Error::usage("this operation id was used for another request")
        .hint("use a new id for a new operation")
}

fn unknown_outcome() -> Error {
    Error::unavailable(
        "the request may have been executed before (the shard no longer remembers this session)",
    )
    .hint("look at the result, then start a new session")
    .unknown_outcome()
}

/// `Chore::ExpireLanes`: drops rows unused for longer than the horizon, and the oldest beyond
/// the bound.
pub(super) fn expire(batch: &mut Batch<'_>, lanes: u32) -> Result<ChoreDone> {
    let old = |minute: u64, time: ShardTime| {
        let end = ShardTime(minute.saturating_add(1).saturating_mul(MINUTE_MS));
        end.plus_ms(SESSION_HORIZON_MS) <= time
    };
    let time = batch.header().time;
    // One row is looked at beyond what is dropped, to know whether there is more.
    let (done, more) = drop_oldest(batch, lanes as usize, |minute| old(minute, time))?;
    Ok(ChoreDone {
        done,
        more,
        next: Inode(0),
    })
}

/// Drops up to `limit` rows by age while they are `old` or there are more than the bound.
fn drop_oldest(
    batch: &mut Batch<'_>,
    limit: usize,
    old: impl Fn(u64) -> bool,
) -> Result<(u64, bool)> {
    let prefix = keys::table(keys::LANES_BY_AGE);
    let mut done = 0;
    for (age_key, _) in batch.collect(&prefix, &prefix, limit.saturating_add(1))? {
        let minute = keys::number_at(&age_key, 1)
            .ok_or_else(|| damaged("a key of `lanes by age` is too short"))?;
        if !old(minute) && batch.header().lanes <= SESSION_ROWS_MAX {
            return Ok((done, false));
        }
        if done == limit as u64 {
            return Ok((done, true));
        }
        let key: Bytes = [&[keys::LANES][..], &age_key[9..]].concat().into();
        let row: LaneRow = match batch.get(&key)? {
            Some(bytes) => decode(&bytes)?,
            None => return Err(damaged("a row of `lanes by age` has no lane")),
        };
        batch.delete(key);
        batch.delete(age_key);
        let header = batch.header_mut();
        header.lanes = header.lanes.saturating_sub(1);
        header.lanes_horizon = header.lanes_horizon.max(row.used.plus_ms(1));
        done += 1;
    }
    Ok((done, false))
}

/// XXH3-64 of the encoded operations, without building the encoding.
pub(super) fn digest(ops: &[Op]) -> Result<u64> {
    struct Hashing(Xxh3);

    impl postcard::ser_flavors::Flavor for Hashing {
        type Output = u64;
        fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
            self.0.update(&[byte]);
            Ok(())
        }
        fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
            self.0.update(bytes);
            Ok(())
        }
        fn finalize(self) -> postcard::Result<u64> {
            Ok(self.0.digest())
        }
    }

    postcard::serialize_with_flavor(ops, Hashing(Xxh3::new()))
        .map_err(|error| Error::failed(format!("cannot encode operations ({error})")))
}
