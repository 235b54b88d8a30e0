//! Pure: the root group's state: nodes, ticket keys, and the counters that give out node ids.
//! No namespace. Driven by `node` like a shard; every command is idempotent, so that a retry
//! after a lost answer does no harm.
//!
//! | byte | table | key | value |
//! |---|---|---|---|
//! | 01 | cluster | | [`Cluster`] |
//! | 02 | nodes | node id u64 | [`NodeRecord`] |
//! | 03 | ticket keys | epoch u64 | [`TicketKey`] |
//! | 04 | age of the newest ticket key | | [`ShardTime`] of the shard of `/` |

use crate::codec;
use crate::error::{Error, Result};
use crate::store::{Change, SlotRead, VisitRecord};
use crate::types::{ClusterId, NodeId, ShardTime, WallTime};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Ticket keys kept: today's, and those that running transfers were given tickets with.
pub const TICKET_KEYS_KEPT: u64 = 3;

const CLUSTER: u8 = 1;
const NODES: u8 = 2;
const TICKET_KEYS: u8 = 3;
const NEWEST_KEY_MADE: u8 = 4;

/// The cluster as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    pub id: ClusterId,
    pub created: WallTime,
    /// What the root group's `apply` may do.
    pub state_machine: u32,
    /// The next node to join gets this.
    pub next_node: NodeId,
}

/// One member of the cluster, by its last start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    pub node: NodeId,
    /// HOST:PORT where others reach it.
    pub address: String,
    pub zone: String,
    pub rack: String,
    /// Counts the starts on its data directory; a lower one is an old copy of it.
    pub start: u64,
    /// Version of its program.
    pub version: String,
}

/// A key that chunk tickets are made with, shared by all nodes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketKey {
    pub epoch: u64,
    pub key: [u8; 32],
}

impl std::fmt::Debug for TicketKey {
    /// Keys do not go into logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TicketKey({})", self.epoch)
    }
}

/// One log entry of the root group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RootCommand {
    /// A node has started: its address and start number.
    NodeStarted(NodeRecord),
    /// From here on tickets are made with this key; the oldest goes.
    AddTicketKey(TicketKey),
    /// The same, with the time of the shard of `/` at which it was made.
    AddTicketKeyAt(TicketKey, ShardTime),
}

fn key(table: u8, number: u64) -> Bytes {
    [&[table][..], &number.to_be_bytes()].concat().into()
}

fn encoded<T: Serialize>(value: &T) -> Option<Bytes> {
    Some(codec::encode(value).into())
}

/// The records of a new root group.
pub fn seed(id: ClusterId, created: WallTime, ticket_key: TicketKey) -> Vec<Change> {
    let cluster = Cluster {
        id,
        created,
        state_machine: 1,
        next_node: NodeId(2),
    };
    vec![
        (Bytes::from_static(&[CLUSTER]), encoded(&cluster)),
        (key(TICKET_KEYS, ticket_key.epoch), encoded(&ticket_key)),
    ]
}

/// Applies one command to the records.
///
/// # Errors
/// The command or a record cannot be read: the replica must stop. A refusal is not an error
/// here; the inner result is the answer to whoever proposed it.
pub fn apply(view: &dyn SlotRead, command: &[u8]) -> Result<(Vec<Change>, Result<()>)> {
    match codec::decode::<RootCommand>(command)? {
        RootCommand::NodeStarted(record) => {
            let known = node(view, record.node)?;
            if let Some(known) = known.filter(|known| known.start > record.start) {
                let refusal = Error::failed(format!(
                    "node {} was started {} times already, this start is number {}: its data \
                     directory is an old copy",
                    record.node, known.start, record.start
                ))
                .hint("use the newest copy, or an empty directory and join again");
                return Ok((Vec::new(), Err(refusal)));
            }
            Ok((vec![(key(NODES, record.node.0), encoded(&record))], Ok(())))
        }
        RootCommand::AddTicketKey(new) => add_ticket_key(view, &new, None),
        RootCommand::AddTicketKeyAt(new, made) => add_ticket_key(view, &new, Some(made)),
    }
}

fn add_ticket_key(
    view: &dyn SlotRead,
    new: &TicketKey,
    made: Option<ShardTime>,
) -> Result<(Vec<Change>, Result<()>)> {
    let newest = ticket_keys(view)?.last().map_or(0, |key| key.epoch);
    if new.epoch != newest + 1 {
        // A repeated command, or another leader was first: its key serves as well.
        return Ok((Vec::new(), Ok(())));
    }
    let mut changes = vec![(key(TICKET_KEYS, new.epoch), encoded(new))];
    if let Some(old) = new.epoch.checked_sub(TICKET_KEYS_KEPT) {
        changes.push((key(TICKET_KEYS, old), None));
    }
    let made = made.and_then(|made| encoded(&made));
    changes.push((Bytes::from_static(&[NEWEST_KEY_MADE]), made));
    Ok((changes, Ok(())))
}

/// Changes of several commands over one view, so that each sees those before it. Root records
/// are few: a scan merges them in memory.
pub struct Staged<'a> {
    view: &'a dyn SlotRead,
    changes: BTreeMap<Bytes, Option<Bytes>>,
}

impl<'a> Staged<'a> {
    pub fn new(view: &'a dyn SlotRead) -> Self {
        Staged {
            view,
            changes: BTreeMap::new(),
        }
    }

    pub fn write(&mut self, changes: Vec<Change>) {
        self.changes.extend(changes);
    }

    /// All changes, in key order.
    pub fn finish(self) -> Vec<Change> {
        self.changes.into_iter().collect()
    }
}

impl SlotRead for Staged<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        match self.changes.get(key) {
            Some(value) => Ok(value.clone()),
            None => self.view.get(key),
        }
    }

    fn scan(&self, from: &[u8], to: Option<&[u8]>, visit: &mut VisitRecord<'_>) -> Result<()> {
        let mut found = BTreeMap::new();
        self.view.scan(from, to, &mut |key, value| {
            found.insert(
                Bytes::copy_from_slice(key),
                Some(Bytes::copy_from_slice(value)),
            );
            Ok(true)
        })?;
        let inside = |key: &Bytes| key[..] >= *from && to.is_none_or(|to| key[..] < *to);
        let staged = self.changes.iter().filter(|(key, _)| inside(key));
        found.extend(staged.map(|(key, value)| (key.clone(), value.clone())));
        for (key, value) in found {
            if let Some(value) = value
                && !visit(&key, &value)?
            {
                break;
            }
        }
        Ok(())
    }
}

/// The cluster's own record.
pub fn cluster(view: &dyn SlotRead) -> Result<Cluster> {
    let bytes = view
        .get(&[CLUSTER])?
        .ok_or_else(|| Error::corrupt("the root group is empty"))?;
    codec::decode(&bytes)
}

fn node(view: &dyn SlotRead, node: NodeId) -> Result<Option<NodeRecord>> {
    view.get(&key(NODES, node.0))?
        .map(|bytes| codec::decode(&bytes))
        .transpose()
}

/// All nodes, by id.
pub fn nodes(view: &dyn SlotRead) -> Result<Vec<NodeRecord>> {
    table(view, NODES)
}

/// The keys tickets may have been made with, oldest first.
pub fn ticket_keys(view: &dyn SlotRead) -> Result<Vec<TicketKey>> {
    table(view, TICKET_KEYS)
}

/// When the newest ticket key was made, in the time of the shard of `/`; `None`: not known.
pub fn newest_key_made(view: &dyn SlotRead) -> Result<Option<ShardTime>> {
    view.get(&[NEWEST_KEY_MADE])?
        .map(|bytes| codec::decode(&bytes))
        .transpose()
}

fn table<T: serde::de::DeserializeOwned>(view: &dyn SlotRead, table: u8) -> Result<Vec<T>> {
    let mut found = Vec::new();
    view.scan(&[table], Some(&[table + 1]), &mut |_, bytes| {
        found.push(codec::decode(bytes)?);
        Ok(true)
    })?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Records(BTreeMap<Bytes, Bytes>);

    impl Records {
        fn write(&mut self, changes: Vec<Change>) {
            for (key, value) in changes {
                match value {
                    Some(value) => self.0.insert(key, value),
                    None => self.0.remove(&key),
                };
            }
        }

        fn apply(&mut self, command: &RootCommand) -> Result<()> {
            let (changes, answer) = apply(self, &codec::encode(command)).unwrap();
            self.write(changes);
            answer
        }
    }

    impl SlotRead for Records {
        fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
            Ok(self.0.get(key).cloned())
        }

        fn scan(&self, from: &[u8], to: Option<&[u8]>, visit: &mut VisitRecord<'_>) -> Result<()> {
            for (key, value) in self.0.range(Bytes::copy_from_slice(from)..) {
                if to.is_some_and(|to| key[..] >= *to) || !visit(key, value)? {
                    break;
                }
            }
            Ok(())
        }
    }

    fn founded() -> Records {
        let mut records = Records::default();
        let first = TicketKey {
            epoch: 1,
            key: [7; 32],
        };
        records.write(seed(ClusterId([1; 16]), WallTime(5), first));
        records
    }

    #[test]
    fn an_old_copy_of_a_data_directory_is_refused() {
        let mut records = founded();
        let mut record = NodeRecord {
            node: NodeId(1),
            address: "127.0.0.1:1".into(),
            zone: String::new(),
            rack: String::new(),
            start: 3,
            version: "0".into(),
        };
        records
            .apply(&RootCommand::NodeStarted(record.clone()))
            .unwrap();
        record.start = 2;
        let refusal = records
            .apply(&RootCommand::NodeStarted(record))
            .unwrap_err();
        assert!(refusal.message.contains("old copy"), "{refusal}");
        assert_eq!(nodes(&records).unwrap()[0].start, 3);
    }

    #[test]
    fn three_ticket_keys_are_kept_and_a_repeated_one_changes_nothing() {
        let mut records = founded();
        for epoch in 2..=5 {
            let add = RootCommand::AddTicketKey(TicketKey {
                epoch,
                key: [epoch as u8; 32],
            });
            records.apply(&add).unwrap();
            records.apply(&add).unwrap();
        }
        let kept: Vec<_> = ticket_keys(&records)
            .unwrap()
            .iter()
            .map(|key| key.epoch)
            .collect();
        assert_eq!(kept, [3, 4, 5]);
    }

    #[test]
    fn the_age_of_the_newest_ticket_key_is_kept() {
        let mut records = founded();
        assert_eq!(newest_key_made(&records).unwrap(), None);
        let key = |epoch| TicketKey {
            epoch,
            key: [0; 32],
        };
        records
            .apply(&RootCommand::AddTicketKeyAt(key(2), ShardTime(70)))
            .unwrap();
        // Another was first: its age counts.
        records
            .apply(&RootCommand::AddTicketKeyAt(key(2), ShardTime(90)))
            .unwrap();
        assert_eq!(newest_key_made(&records).unwrap(), Some(ShardTime(70)));
        records.apply(&RootCommand::AddTicketKey(key(3))).unwrap();
        assert_eq!(newest_key_made(&records).unwrap(), None);
        assert_eq!(ticket_keys(&records).unwrap().len(), 3);
    }

    #[test]
    fn staged_commands_see_each_other() {
        let records = founded();
        let mut staged = Staged::new(&records);
        for epoch in 2..=5 {
            let add = RootCommand::AddTicketKey(TicketKey {
                epoch,
                key: [0; 32],
            });
            let (changes, answer) = apply(&staged, &codec::encode(&add)).unwrap();
            answer.unwrap();
            staged.write(changes);
        }
        assert_eq!(ticket_keys(&staged).unwrap().len() as u64, TICKET_KEYS_KEPT);
        let mut after = founded();
        after.write(Staged::new(&records).finish());
        after.write(staged.finish());
        assert_eq!(ticket_keys(&after).unwrap().last().unwrap().epoch, 5);
    }

    #[test]
    fn an_unknown_command_stops_the_replica() {
        assert!(apply(&founded(), &[1, 99]).is_err());
    }
}
