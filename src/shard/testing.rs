//! Test help: a slot in memory, and a shard driven by operations.

use super::command::{Applied, Chore, Command, Done, Op, Proposal, Removal, Request};
use super::records::{Outcome, Settings};
use super::txn::Batch;
use super::{apply, check, read, seed};
use crate::error::{Code, Error, Result};
use crate::store::{Change, SlotRead, VisitRecord};
use crate::types::{
    ChunkHash, DfsPath, FileVersion, GroupId, Lane, OpSeq, Precondition, SessionId, ShardTime,
    WallTime,
};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Bound;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemSlot(pub BTreeMap<Bytes, Bytes>);

impl SlotRead for MemSlot {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.0.get(key).cloned())
    }

    fn scan(&self, from: &[u8], to: Option<&[u8]>, visit: &mut VisitRecord<'_>) -> Result<()> {
        let to = to.map_or(Bound::Unbounded, Bound::Excluded);
        for (key, value) in self.0.range::<[u8], _>((Bound::Included(from), to)) {
            if !visit(key, value)? {
                break;
            }
        }
        Ok(())
    }
}

impl MemSlot {
    pub fn write(&mut self, changes: Vec<Change>) {
        for (key, value) in changes {
            match value {
                Some(value) => self.0.insert(key, value),
                None => self.0.remove(&key),
            };
        }
    }
}

/// A shard in memory, with one client whose requests are numbered.
#[derive(Clone)]
pub struct TestShard {
    pub slot: MemSlot,
    pub time: u64,
    pub seq: u64,
}

pub fn path(text: &str) -> DfsPath {
    DfsPath::parse(text).unwrap()
}

impl TestShard {
    pub fn new(settings: Settings) -> TestShard {
        let mut slot = MemSlot::default();
        slot.write(seed(GroupId::FIRST, "root", "root", settings, WallTime(1)));
        TestShard {
            slot,
            time: 1,
            seq: 0,
        }
    }

    /// Applies one command in a batch of its own and checks all records.
    pub fn command(&mut self, command: &Command) -> Applied {
        let mut batch = Batch::new(&self.slot).unwrap();
        let applied = apply(&mut batch, command).unwrap();
        let changes = batch.finish();
        assert!(
            changes.windows(2).all(|pair| pair[0].0 < pair[1].0),
            "changes are in key order"
        );
        self.slot.write(changes);
        self.check();
        applied
    }

    pub fn check(&self) {
        let report = check::check(&self.slot).unwrap();
        assert_eq!(report.problems, Vec::<String>::new());
    }

    pub fn proposal(&self, requests: Vec<Request>, chores: Vec<Chore>) -> Command {
        Command::Propose(Proposal {
            time: ShardTime(self.time),
            wall: WallTime(1_000 + self.time as i64),
            requests,
            chores,
        })
    }

    pub fn request(&mut self, ops: Vec<Op>) -> Request {
        self.seq += 1;
        Request {
            session: SessionId([7; 16]),
            lane: Lane(0),
            seq: OpSeq(self.seq),
            met: ShardTime(0),
            user: "ann".into(),
            group: "staff".into(),
            held: None,
            ops,
        }
    }

    pub fn send(&mut self, request: Request) -> Vec<Outcome> {
        let command = self.proposal(vec![request], Vec::new());
        self.command(&command).requests.remove(0)
    }

    pub fn try_op(&mut self, op: Op) -> Outcome {
        let request = self.request(vec![op]);
        self.send(request).remove(0)
    }

    pub fn op(&mut self, op: Op) -> Done {
        self.try_op(op).unwrap()
    }

    /// The refusal of an operation, which must leave nothing but the lane's row.
    pub fn refused(&mut self, op: Op) -> Error {
        let before = self.visible();
        let error = self.try_op(op).unwrap_err();
        assert_eq!(self.visible(), before, "a refused operation left something");
        assert!(!error.message.is_empty());
        error
    }

    pub fn refused_with(&mut self, op: Op, code: Code) -> Error {
        let error = self.refused(op);
        assert_eq!(error.code, code, "{error}");
        error
    }

    /// All records but header, lanes and their ages; the header with time and lanes left out.
    pub fn visible(&self) -> (BTreeMap<Bytes, Bytes>, super::records::Header) {
        use super::keys;
        let mut records = self.slot.0.clone();
        records.retain(|key, _| !matches!(key[0], keys::HEADER | keys::LANES | keys::LANES_BY_AGE));
        let mut header = read::header(&self.slot).unwrap();
        header.time = ShardTime(0);
        header.lanes = 0;
        (records, header)
    }

    pub fn chore(&mut self, chore: Chore) -> super::command::ChoreDone {
        let command = self.proposal(Vec::new(), vec![chore]);
        self.command(&command).chores[0]
    }

    pub fn mkdir(&mut self, at: &str) -> Done {
        self.op(mkdir(at))
    }

    pub fn put(&mut self, at: &str, text: &str, precondition: Precondition) -> Done {
        self.op(put(at, text, precondition))
    }

    /// Content of a file that is inline.
    pub fn text(&self, at: &str) -> String {
        let resolved = read::resolve(&self.slot, &path(at), None, 0, None).unwrap();
        String::from_utf8(resolved.inline.unwrap().to_vec()).unwrap()
    }

    pub fn names(&self, at: &str) -> Vec<String> {
        let query = read::ListQuery {
            after: None,
            limit: 0,
            attrs: false,
            known: None,
        };
        match read::list(&self.slot, &path(at), &query).unwrap() {
            read::Listing::Page { entries, .. } => {
                entries.iter().map(|(name, _)| name.to_string()).collect()
            }
            read::Listing::NotModified => unreachable!("no version was given"),
        }
    }

    /// Cleans up everything that was deleted, whatever its due time.
    pub fn clean(&mut self) {
        while self
            .chore(Chore::Cleanup {
                records: 100,
                now: true,
            })
            .more
        {}
        assert_eq!(read::header(&self.slot).unwrap().deletions, 0);
    }
}

pub fn mkdir(at: &str) -> Op {
    Op::Mkdir {
        path: path(at),
        mode: 0o755,
        parents: false,
    }
}

pub fn put(at: &str, text: &str, precondition: Precondition) -> Op {
    Op::Put {
        path: path(at),
        precondition,
        mode: 0o644,
        hash: ChunkHash::of(text.as_bytes()),
        data: Bytes::copy_from_slice(text.as_bytes()),
    }
}

pub fn remove(at: &str, what: Removal) -> Op {
    Op::Remove {
        path: path(at),
        what,
        precondition: Precondition::Any,
    }
}

pub fn version(number: u64) -> Precondition {
    Precondition::Version(FileVersion(number))
}
