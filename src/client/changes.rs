//! The changing verbs: each one operation (or many) and one request.

use super::ask::To;
use super::core::Client;
use super::options::OpIds;
use super::report::{Changed, OpState};
use crate::client::core::odd;
use crate::client::opid::{BEGUN, OpId};
use crate::error::{Code, Error, Result};
use crate::limits::BATCH_ITEMS_MAX;
use crate::proto::{Answer, Call, EntryView};
use crate::shard::command::{Op, Removal};
use crate::shard::records::{Outcome, Settings};
use crate::types::{DfsPath, FileVersion, GroupId, Precondition, ReadLevel, Replacement};

impl Client {
    /// One operation under its own request.
    pub async fn change(&self, op: Op, ids: &OpIds) -> Result<Changed> {
        let shard = self.shard_of_op(&op);
        let path = path_of(&op).cloned();
        let named = |error: Error| match &path {
            Some(path) => error.at(path),
            None => error,
        };
        let sent = self.send(shard, vec![op], ids, "").await.map_err(named)?;
        let op_id = shown_id(ids, "", sent.id);
        let (_, done) = sent.one().map_err(named)?;
        Ok(Changed { done, op_id })
    }

    /// Operations of one shard in order as one request, at most `limits::BATCH_ITEMS_MAX`; one
    /// outcome each: a refused one does not stop the next. What verbs with many paths use.
    /// Returns the request's id and the outcomes.
    ///
    /// # Errors
    /// `usage` for too many operations or for paths of several shards.
    pub async fn change_many(&self, ops: Vec<Op>, ids: &OpIds) -> Result<(String, Vec<Outcome>)> {
        let Some(first) = ops.first() else {
            return Err(Error::usage("no operation was given"));
        };
        let shard = self.shard_of_op(first);
        if ops.len() > BATCH_ITEMS_MAX {
            return Err(Error::usage(format!(
                "more than {BATCH_ITEMS_MAX} operations in one request"
            )));
        }
        if ops.iter().any(|op| self.shard_of_op(op) != shard) {
            return Err(Error::usage("the paths belong to different shards")
                .hint("name them in several commands"));
        }
        let paths: Vec<_> = ops.iter().map(|op| path_of(op).cloned()).collect();
        let sent = self.send(shard, ops, ids, "").await;
        let sent = sent.map_err(|error| match paths.iter().flatten().next() {
            Some(first) => error.at_first_of(first, paths.len()),
            None => error,
        })?;
        let op_id = shown_id(ids, "", sent.id);
        let outcomes = sent.outcomes.into_iter().zip(paths);
        let outcomes = outcomes.map(|(outcome, path)| match path {
            Some(path) => outcome.map_err(|error| error.at(path)),
            None => outcome,
        });
        Ok((op_id, outcomes.collect()))
    }

    /// Makes a directory; with `parents` also what is missing above, and an existing one is fine.
    pub async fn mkdir(
        &self,
        path: &DfsPath,
        mode: u16,
        parents: bool,
        ids: &OpIds,
    ) -> Result<Changed> {
        let path = path.clone();
        let op = Op::Mkdir {
            path,
            mode,
            parents,
        };
        self.change(op, ids).await
    }

    pub async fn remove(
        &self,
        path: &DfsPath,
        what: Removal,
        precondition: Precondition,
        ids: &OpIds,
    ) -> Result<Changed> {
        let path = path.clone();
        let op = Op::Remove {
            path,
            what,
            precondition,
        };
        self.change(op, ids).await
    }

    pub async fn rename(
        &self,
        from: &DfsPath,
        to: &DfsPath,
        replace: Replacement,
        ids: &OpIds,
    ) -> Result<Changed> {
        let (from, to) = (from.clone(), to.clone());
        let op = Op::Rename { from, to, replace };
        self.change(op, ids).await
    }

    /// A new version of `to` with the content of `from` (or of an old version of it).
    pub async fn copy(
        &self,
        from: &DfsPath,
        version: Option<FileVersion>,
        to: &DfsPath,
        precondition: Precondition,
        ids: &OpIds,
    ) -> Result<Changed> {
        let (from, to) = (from.clone(), to.clone());
        let op = Op::Copy {
            from,
            version,
            to,
            precondition,
        };
        self.change(op, ids).await
    }

    /// A new version with an old version's content.
    pub async fn restore(
        &self,
        path: &DfsPath,
        version: FileVersion,
        ids: &OpIds,
    ) -> Result<Changed> {
        let path = path.clone();
        self.change(Op::Restore { path, version }, ids).await
    }

    /// Changes what is `Some`.
    pub async fn set_attrs(
        &self,
        path: &DfsPath,
        mode: Option<u16>,
        owner: Option<String>,
        group: Option<String>,
        ids: &OpIds,
    ) -> Result<Changed> {
        let path = path.clone();
        let op = Op::SetAttrs {
            path,
            mode,
            owner,
            group,
        };
        self.change(op, ids).await
    }

    /// Brings back the newest deleted thing of that name.
    pub async fn undelete(&self, path: &DfsPath, ids: &OpIds) -> Result<Changed> {
        let path = path.clone();
        self.change(Op::Undelete { path }, ids).await
    }

    pub async fn settings(&self, settings: Settings, ids: &OpIds) -> Result<Changed> {
        self.change(Op::Settings(settings), ids).await
    }

    /// Marks that a command under a given id begins, of whose several requests each has a name of
    /// its own: whoever asks for the id finds the mark.
    ///
    /// # Errors
    /// `usage` for an automatic name, which stands for one request only.
    pub async fn begin_steps(&self, ids: &OpIds) -> Result<()> {
        self.mark(ids, BEGUN).await
    }

    /// Marks that all requests of such a command were executed.
    pub async fn end_steps(&self, ids: &OpIds) -> Result<()> {
        self.mark(ids, "").await
    }

    async fn mark(&self, ids: &OpIds, step: &str) -> Result<()> {
        if *ids == OpIds::Automatic {
            return Ok(());
        }
        // It is there: nothing changes, and the shard remembers the request.
        let op = Op::Mkdir {
            path: DfsPath::root(),
            mode: 0,
            parents: true,
        };
        let sent = self.send(GroupId::FIRST, vec![op], ids, step).await?;
        sent.one().map(drop)
    }

    /// What became of a request: `SESSION-LANE-SEQ`, or what was given as `--op-id`.
    pub async fn op_status(&self, id: &str) -> Result<OpState> {
        let whole = self.find_op(OpId::from_user(id)).await?;
        if OpId::parse(id).is_some() {
            return Ok(whole);
        }
        let begun = self.find_op(OpId::given(id, BEGUN)).await?;
        Ok(match (begun, whole) {
            (OpState::Unknown, whole) => whole,
            (_, OpState::Unknown) => OpState::Begun,
            // Its outcome is that of the mark.
            (_, _) => OpState::Applied(Vec::new()),
        })
    }

    /// All shards that we know are asked until one knows it.
    async fn find_op(&self, id: OpId) -> Result<OpState> {
        for shard in self.core.link.routes(|routes| routes.shards()) {
            match self.op_state(shard, id).await? {
                OpState::Unknown => {}
                known => return Ok(known),
            }
        }
        Ok(OpState::Unknown)
    }

    /// True if the directory at `path` is the one that a step of an operation under a given id
    /// made or moved: then it was not there when that operation began.
    pub async fn is_made_by(&self, path: &DfsPath, ids: &OpIds, step: &str) -> Result<bool> {
        let OpIds::Given(id) = ids else {
            return Ok(false);
        };
        let state = self.op_state(self.shard_of(path), OpId::named(id, step)?);
        let OpState::Applied(outcomes) = state.await? else {
            return Ok(false);
        };
        let Some(Ok(done)) = outcomes.into_iter().next() else {
            return Ok(false);
        };
        match self.stat(path, ReadLevel::Linearizable).await {
            Ok(EntryView::Dir(dir)) => Ok(dir.inode == done.inode),
            Ok(_) => Ok(false),
            Err(error) if error.code == Code::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn op_state(&self, shard: GroupId, id: OpId) -> Result<OpState> {
        let call = Call::OpStatus {
            session: id.session,
            lane: id.lane.0,
            seq: id.seq.0,
        };
        match self.ask(To::Shard(shard), &call).await? {
            Answer::OpStatus(None) => Ok(OpState::Unknown),
            Answer::OpStatus(Some(outcomes)) => {
                Ok(OpState::Applied(crate::codec::decode(&outcomes)?))
            }
            _ => Err(odd("the state of an operation")),
        }
    }

    pub(crate) fn shard_of(&self, path: &DfsPath) -> GroupId {
        self.core.link.routes(|routes| routes.shard_of(path))
    }

    fn shard_of_op(&self, op: &Op) -> GroupId {
        path_of(op).map_or(GroupId::FIRST, |path| self.shard_of(path))
    }
}

/// The identity to show, by which the request can be asked for: what the user gave, or where it
/// travelled, if it is one of several steps under what he gave too.
pub(crate) fn shown_id(ids: &OpIds, step: &str, sent: OpId) -> String {
    match ids {
        OpIds::Given(id) if step.is_empty() => id.clone(),
        _ => sent.to_string(),
    }
}

/// The path an operation is about, which names it in errors and finds its shard.
pub(crate) fn path_of(op: &Op) -> Option<&DfsPath> {
    match op {
        Op::Mkdir { path, .. }
        | Op::Put { path, .. }
        | Op::PutChunk { path, .. }
        | Op::Reserve { path, .. }
        | Op::Remove { path, .. }
        | Op::Restore { path, .. }
        | Op::SetAttrs { path, .. }
        | Op::Undelete { path } => Some(path),
        Op::Rename { from, .. } | Op::Copy { from, .. } => Some(from),
        Op::Stage { .. } | Op::Commit { .. } | Op::Abort { .. } | Op::Settings(_) => None,
    }
}
