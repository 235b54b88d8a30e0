//! Pure: what a command of the root group does to its records.

use super::command::{RootCommand, RootDone, RootEntry, RootReply, Seed};
use super::read::{self, cluster, node, one, ring_epochs, ticket_keys, tokens};
use super::records::{
    CA, CLUSTER, Cluster, EPOCHS, NODES, Role, Spent, TICKET_KEYS, TOKENS, TicketKey, TokenRecord,
    UserRecord, encoded, key, single, user_key,
};
use super::{EPOCHS_OPEN_MAX, NODES_MAX, TICKET_KEYS_KEPT, TOKEN_MS_MAX, TOKENS_MAX, USERS_MAX};
use crate::codec;
use crate::error::{Code, Error, Result};
use crate::proto::{NodeInfo, NodeState, REMOVED, RingEpoch, RingMember};
use crate::store::{Change, SlotRead};
use crate::types::{Epoch, NodeId, ReplicaId, ShardTime};
use bytes::Bytes;

/// The records of a new root group.
pub fn seed(seed: Seed) -> Vec<Change> {
    let record = Cluster {
        id: seed.cluster,
        created: seed.created,
        state_machine: 1,
        time: ShardTime(0),
        view: 1,
        next_node: seed.node.node.next(),
        next_replica: ReplicaId(seed.replicas + 1),
    };
    let ticket_key = TicketKey {
        epoch: 1,
        key: seed.ticket_key,
        made: ShardTime(0),
    };
    let admin = UserRecord {
        name: seed.admin.0,
        group: seed.admin.1,
        admin: true,
        certificates: 1,
        revoked: false,
    };
    let epoch = RingEpoch {
        epoch: Epoch(1),
        base: seed.node.weight.max(1),
        members: vec![member(&seed.node)],
    };
    vec![
        (single(CLUSTER), encoded(&record)),
        (key(NODES, seed.node.node.0), encoded(&seed.node)),
        (key(TICKET_KEYS, ticket_key.epoch), encoded(&ticket_key)),
        (single(CA), encoded(&seed.ca)),
        (user_key(&admin.name), encoded(&admin)),
        (key(EPOCHS, epoch.epoch.0), encoded(&epoch)),
    ]
}

fn member(node: &NodeInfo) -> RingMember {
    RingMember {
        node: node.node,
        weight: node.weight,
        zone: node.zone.clone(),
        rack: node.rack.clone(),
    }
}

/// Applies one entry to the records.
///
/// # Errors
/// The entry or a record cannot be read: the replica must stop. A refusal is not an error here;
/// the inner result is the answer to whoever proposed it.
pub fn apply(view: &dyn SlotRead, entry: &[u8]) -> Result<(Vec<Change>, RootReply)> {
    let RootEntry { time, command } = codec::decode(entry)?;
    let mut root = Root {
        view,
        cluster: cluster(view)?,
        changes: Vec::new(),
    };
    root.cluster.time = root.cluster.time.max(time);
    let reply = match root.run(command)? {
        Ok(done) => Ok(done),
        Err(refusal) => {
            root.changes.clear();
            root.cluster = Cluster {
                time: root.cluster.time,
                ..cluster(view)?
            };
            Err(refusal)
        }
    };
    let record = encoded(&root.cluster);
    root.changes.push((single(CLUSTER), record));
    Ok((root.changes, reply))
}

/// The state while one entry is applied.
struct Root<'a> {
    view: &'a dyn SlotRead,
    cluster: Cluster,
    changes: Vec<Change>,
}

/// Outer error: the replica must stop; inner: the command is refused.
type Applied = Result<RootReply>;

fn refuse(code: Code, why: impl Into<String>, hint: &str) -> Applied {
    Ok(Err(Error::new(code, why).hint(hint)))
}

impl Root<'_> {
    fn put(&mut self, key: Bytes, value: Option<Bytes>) {
        self.changes.push((key, value));
    }

    /// Something that all nodes must know has changed.
    fn put_in_view(&mut self, key: Bytes, value: Option<Bytes>) {
        self.cluster.view += 1;
        self.put(key, value);
    }

    fn run(&mut self, command: RootCommand) -> Applied {
        match command {
            RootCommand::NodeStarted(info) => self.node_started(info),
            RootCommand::AddTicketKey(new) => self.add_ticket_key(new),
            RootCommand::AddToken {
                id,
                secret,
                role,
                ttl_ms,
            } => self.add_token(id, secret, role, ttl_ms),
            RootCommand::SpendToken {
                token,
                secret,
                key,
                node,
            } => self.spend_token(token, secret, key, node),
            RootCommand::SetState { node, state } => self.set_state(node, state, None),
            RootCommand::SetWeight { node, weight } => self.set_weight(node, weight, None),
            RootCommand::RemoveUser(name) => self.remove_user(&name),
            RootCommand::NextReplica => {
                let given = self.cluster.next_replica;
                self.cluster.next_replica = given.next();
                Ok(Ok(RootDone::Replica(given)))
            }
            RootCommand::OpenEpoch {
                after,
                base,
                members,
            } => self.open_epoch(after, base, members),
            RootCommand::CloseBefore(epoch) => self.close_before(epoch),
            RootCommand::SetStateAsSeen { node, state, seen } => {
                self.set_state(node, state, Some(seen))
            }
            RootCommand::SetWeightAsSeen { node, weight, seen } => {
                self.set_weight(node, weight, Some(seen))
            }
        }
    }

    /// Rules 3 and 4.
    fn node_started(&mut self, info: NodeInfo) -> Applied {
        let Some(known) = node(self.view, info.node)? else {
            return refuse(
                Code::Denied,
                format!("node {} is not a member of this cluster", info.node),
                "join it with a token",
            );
        };
        if known.state == NodeState::Removed {
            return refuse(
                Code::Denied,
                format!("node {} {REMOVED}", info.node),
                "to use the machine again, join with an empty directory and a new token",
            );
        }
        let same_life = known.life == info.life;
        if known.life.start >= info.life.start && !same_life {
            let why = match known.life.start == info.life.start {
                true => format!(
                    "node {} was started from another copy of its data directory (start number \
                     {} is taken)",
                    info.node, info.life.start
                ),
                false => format!(
                    "node {} was started {} times already, this start is number {}: its data \
                     directory is an old copy",
                    info.node, known.life.start, info.life.start
                ),
            };
            let hint = "use the newest copy, or an empty directory and join again";
            return refuse(Code::Denied, why, hint);
        }
        let now = NodeInfo {
            state: known.state,
            // The weight is the operator's once the node has joined.
            weight: known.weight,
            ..info
        };
        if now != known {
            self.put_in_view(key(NODES, now.node.0), encoded(&now));
        }
        Ok(Ok(RootDone::Life(now.life)))
    }

    fn add_ticket_key(&mut self, new: TicketKey) -> Applied {
        let newest = ticket_keys(self.view)?.last().map_or(0, |key| key.epoch);
        if new.epoch != newest + 1 {
            // A repeated command, or another leader was first: its key serves as well.
            return Ok(Ok(RootDone::Nothing));
        }
        self.put_in_view(key(TICKET_KEYS, new.epoch), encoded(&new));
        if let Some(old) = new.epoch.checked_sub(TICKET_KEYS_KEPT) {
            self.put(key(TICKET_KEYS, old), None);
        }
        Ok(Ok(RootDone::Nothing))
    }

    fn add_token(&mut self, id: u64, secret: [u8; 32], role: Role, ttl_ms: u64) -> Applied {
        let now = self.cluster.time;
        let known = tokens(self.view)?;
        let mut left = known.len();
        for old in known.iter().filter(|token| token.expires <= now) {
            self.put(key(TOKENS, old.id), None);
            left -= 1;
        }
        if left >= TOKENS_MAX {
            let why = format!("there are {TOKENS_MAX} tokens already");
            return refuse(Code::Failed, why, "wait until some of them have expired");
        }
        if ttl_ms == 0 || ttl_ms > TOKEN_MS_MAX {
            let why = "a token lasts between one millisecond and 30 days";
            return refuse(Code::Usage, why, "choose another --ttl");
        }
        if let Some(known) = known.iter().find(|token| token.id == id) {
            // A repeated command; another token under the same number is as good as impossible.
            if known.secret == secret {
                return Ok(Ok(RootDone::Nothing));
            }
            return refuse(Code::Conflict, "the token's number is taken", "try again");
        }
        let record = TokenRecord {
            id,
            secret,
            role,
            expires: now.plus_ms(ttl_ms),
            spent: None,
        };
        self.put(key(TOKENS, id), encoded(&record));
        Ok(Ok(RootDone::Nothing))
    }

    /// Rule 2. A wrong secret and an unknown token are not told apart.
    fn spend_token(
        &mut self,
        id: u64,
        secret: [u8; 32],
        asked_for: [u8; 32],
        info: Option<NodeInfo>,
    ) -> Applied {
        let fresh = "make a new one with `dfs token create`";
        let found = read::token(self.view, id)?.filter(|token| is_same(&token.secret, &secret));
        let Some(mut token) = found else {
            return refuse(Code::Denied, "the token is not known here", fresh);
        };
        if token.expires <= self.cluster.time {
            return refuse(Code::Denied, "the token has expired", fresh);
        }
        if let Some(spent) = &token.spent {
            if spent.key != asked_for {
                return refuse(Code::Denied, "the token was used already", fresh);
            }
            return Ok(Ok(match spent.node {
                Some(node) => RootDone::Joined(node),
                None => RootDone::User(token.role),
            }));
        }
        let done = match (&token.role, info) {
            (Role::Node, Some(info)) => {
                if read::nodes(self.view)?.len() >= NODES_MAX {
                    return refuse(Code::Failed, "the cluster is full", "remove no more nodes");
                }
                let node = self.cluster.next_node;
                self.cluster.next_node = node.next();
                let info = NodeInfo {
                    node,
                    state: NodeState::Member,
                    ..info
                };
                self.put_in_view(key(NODES, node.0), encoded(&info));
                RootDone::Joined(node)
            }
            (role @ Role::User { .. }, None) => match self.let_user_in(role)? {
                Ok(()) => RootDone::User(role.clone()),
                Err(refusal) => return Ok(Err(refusal)),
            },
            (Role::Node, None) => {
                let hint = "make one with `dfs token create --client --user NAME`";
                return refuse(Code::Denied, "the token is for a node", hint);
            }
            (Role::User { .. }, Some(_)) => {
                let hint = "make one with `dfs token create`";
                return refuse(Code::Denied, "the token is for a user", hint);
            }
        };
        token.spent = Some(Spent {
            key: asked_for,
            node: match &done {
                RootDone::Joined(node) => Some(*node),
                _ => None,
            },
        });
        self.put(key(TOKENS, id), encoded(&token));
        Ok(Ok(done))
    }

    fn let_user_in(&mut self, role: &Role) -> Result<Result<(), Error>> {
        let Role::User { name, group, admin } = role else {
            return Err(Error::failed("a node is not a user"));
        };
        let known: Option<UserRecord> = one(self.view, &user_key(name))?;
        if known.is_none() && read::users(self.view)?.len() >= USERS_MAX {
            return Ok(Err(Error::failed("there are too many users")));
        }
        if known.as_ref().is_some_and(|user| user.revoked) {
            let error = Error::new(Code::Denied, format!("user {name} was removed"));
            return Ok(Err(error.hint("use another name")));
        }
        let user = UserRecord {
            name: name.clone(),
            group: group.clone(),
            // Another certificate, with fewer rights, takes nothing from the one before.
            admin: *admin || known.as_ref().is_some_and(|user| user.admin),
            certificates: known.map_or(0, |user| user.certificates) + 1,
            revoked: false,
        };
        self.put(user_key(name), encoded(&user));
        Ok(Ok(()))
    }

    fn known_node(&self, id: NodeId) -> Result<Result<NodeInfo, Error>> {
        Ok(match node(self.view, id)? {
            Some(info) => Ok(info),
            None => {
                Err(Error::not_found(format!("there is no node {id}"))
                    .hint("`dfs node ls` lists them"))
            }
        })
    }

    /// Rule 3.
    fn set_state(&mut self, id: NodeId, state: NodeState, seen: Option<u64>) -> Applied {
        let mut info = match self.known_node(id)? {
            Ok(info) => info,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if info.state == state {
            return Ok(Ok(RootDone::Nothing));
        }
        if info.state == NodeState::Removed {
            let why = format!("node {id} {REMOVED}");
            return refuse(Code::Conflict, why, "join the machine as a new node");
        }
        if let Some(refusal) = self.changed_since(seen) {
            return refusal;
        }
        info.state = state;
        self.put_in_view(key(NODES, id.0), encoded(&info));
        Ok(Ok(RootDone::Nothing))
    }

    fn set_weight(&mut self, id: NodeId, weight: u32, seen: Option<u64>) -> Applied {
        let mut info = match self.known_node(id)? {
            Ok(info) => info,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if info.state == NodeState::Removed {
            let why = format!("node {id} {REMOVED}");
            return refuse(Code::Conflict, why, "join the machine as a new node");
        }
        if info.weight == weight {
            return Ok(Ok(RootDone::Nothing));
        }
        if let Some(refusal) = self.changed_since(seen) {
            return refusal;
        }
        info.weight = weight;
        self.put_in_view(key(NODES, id.0), encoded(&info));
        Ok(Ok(RootDone::Nothing))
    }

    /// The refusal of what was decided by an older view.
    fn changed_since(&self, seen: Option<u64>) -> Option<Applied> {
        let changed = seen.is_some_and(|seen| seen != self.cluster.view);
        let why = "the cluster's nodes have changed meanwhile";
        changed.then(|| refuse(Code::Conflict, why, "look at `dfs node ls` and ask again"))
    }

    fn remove_user(&mut self, name: &str) -> Applied {
        let Some(mut user) = one::<UserRecord>(self.view, &user_key(name))? else {
            let hint = "`dfs user ls` lists them";
            return refuse(Code::NotFound, format!("there is no user {name}"), hint);
        };
        let others = read::users(self.view)?
            .iter()
            .any(|other| other.admin && !other.revoked && other.name != name);
        if user.admin && !others {
            let why = format!("{name} is the only administrator");
            return refuse(Code::Conflict, why, "let another administrator in first");
        }
        if !user.revoked {
            user.revoked = true;
            self.put_in_view(user_key(name), encoded(&user));
        }
        Ok(Ok(RootDone::Nothing))
    }

    /// Rule 5.
    fn open_epoch(&mut self, after: Epoch, base: u32, members: Vec<RingMember>) -> Applied {
        let open = ring_epochs(self.view)?;
        let newest = open.last().map_or(Epoch(0), |epoch| epoch.epoch);
        if newest != after {
            return refuse(Code::Conflict, format!("the ring is at epoch {newest}"), "");
        }
        if open.len() >= EPOCHS_OPEN_MAX {
            let why = format!("{EPOCHS_OPEN_MAX} changes of the ring are under way");
            return refuse(Code::Busy, why, "wait until chunks have moved");
        }
        let epoch = after.next();
        let record = RingEpoch {
            epoch,
            base,
            members,
        };
        self.put_in_view(key(EPOCHS, epoch.0), encoded(&record));
        Ok(Ok(RootDone::Epoch(epoch)))
    }

    /// Rule 5: the newest stays whatever is asked.
    fn close_before(&mut self, epoch: Epoch) -> Applied {
        let open = ring_epochs(self.view)?;
        let newest = open.last().map_or(Epoch(0), |newest| newest.epoch);
        for old in open {
            if old.epoch < epoch.min(newest) {
                self.put_in_view(key(EPOCHS, old.epoch.0), None);
            }
        }
        Ok(Ok(RootDone::Nothing))
    }
}

/// Compares hashes of secrets, in the same time whatever differs.
fn is_same(kept: &[u8; 32], shown: &[u8; 32]) -> bool {
    blake3::Hash::from_bytes(*kept) == blake3::Hash::from_bytes(*shown)
}
