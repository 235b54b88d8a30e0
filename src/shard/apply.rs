//! Pure: one command applied to a batch. Called by `node` for each committed entry of a shard.
//!
//! Refusals are outcomes. An error of [`apply`] itself is damage or an unknown command: the
//! replica must stop and drop the batch, because it cannot know what the others did.

use super::command::{Applied, Chore, ChoreDone, Command, Done, Op, Proposal};
use super::refuse::{Step, refuse};
use super::txn::{Batch, STATE_MACHINE};
use super::{attrs, changes, chores, cleanup, dirs, files, remove, rename, sessions, uploads};
use crate::codec;
use crate::error::{Code, Error, Result};
use crate::limits::USER_NAME_BYTES_MAX;
use crate::types::{DfsPath, FileVersion, Inode, Revision, WallTime};

/// Who asks, and when by the proposer's wall clock.
pub(super) struct Caller<'a> {
    pub user: &'a str,
    pub group: &'a str,
    pub wall: WallTime,
}

/// Applies one log entry's command to the batch.
///
/// # Errors
/// `corrupt` for damaged records and for bytes that are no command of this build, `failed` for a
/// state machine version it does not know. After an error the batch must not be finished.
pub fn apply_bytes(batch: &mut Batch<'_>, command: &[u8]) -> Result<Applied> {
    let command: Command = codec::decode(command).map_err(|error| Error {
        message: format!("unknown command in the log: {}", error.message),
        ..error
    })?;
    apply(batch, &command)
}

/// Applies one command to the batch; see [`apply_bytes`].
pub fn apply(batch: &mut Batch<'_>, command: &Command) -> Result<Applied> {
    match command {
        Command::Propose(proposal) => propose(batch, proposal),
        Command::StateMachine(version) => {
            if *version > STATE_MACHINE {
                return Err(Error::failed(format!(
                    "the shard goes on with state machine {version}, this build knows up to \
                     {STATE_MACHINE}"
                ))
                .hint("start a newer build on this node"));
            }
            let header = batch.header_mut();
            header.state_machine = header.state_machine.max(*version);
            Ok(Applied::default())
        }
    }
}

fn propose(batch: &mut Batch<'_>, proposal: &Proposal) -> Result<Applied> {
    let header = batch.header_mut();
    header.time = header.time.max(proposal.time);
    let mut applied = Applied::default();
    for request in &proposal.requests {
        applied
            .requests
            .push(sessions::request(batch, request, proposal.wall)?);
    }
    for chore in &proposal.chores {
        applied.chores.push(run_chore(batch, chore)?);
    }
    Ok(applied)
}

fn run_chore(batch: &mut Batch<'_>, chore: &Chore) -> Result<ChoreDone> {
    match chore {
        Chore::Cleanup { records, now } => cleanup::run(batch, *records, *now),
        Chore::ExpireUploads { uploads } => chores::expire_uploads(batch, *uploads),
        Chore::ExpireLanes { lanes } => sessions::expire(batch, *lanes),
        Chore::TrimChanges { upto, rows } => changes::trim(batch, *upto, *rows),
        Chore::ExpireVersions { behind, rows } => chores::expire_versions(batch, *behind, *rows),
    }
}

/// Runs one operation; whatever it is refused for names its path.
pub(super) fn run_op(
    batch: &mut Batch<'_>,
    caller: &Caller<'_>,
    op: &Op,
) -> Result<Result<Done, Error>> {
    let outcome = batch.attempt(|batch| dispatch(batch, caller, op))?;
    Ok(outcome.map_err(|error| match path_of(op) {
        Some(path) => error.at(path),
        None => error,
    }))
}

fn dispatch(batch: &mut Batch<'_>, caller: &Caller<'_>, op: &Op) -> Step<Done> {
    match op {
        Op::Mkdir {
            path,
            mode,
            parents,
        } => dirs::mkdir(batch, caller, path, *mode, *parents),
        Op::Put {
            path,
            precondition,
            mode,
            hash,
            data,
        } => files::put(batch, caller, path, *precondition, *mode, *hash, data),
        Op::Reserve {
            path,
            upload,
            precondition,
            mode,
        } => uploads::reserve(batch, caller, path, *upload, *precondition, *mode),
        Op::Stage {
            parent,
            upload,
            page,
            chunks,
        } => uploads::stage(batch, caller, *parent, *upload, *page, chunks),
        Op::Commit {
            parent,
            upload,
            size,
            hash,
            tail,
        } => uploads::commit(batch, caller, *parent, *upload, *size, *hash, tail),
        Op::Abort { parent, upload } => uploads::abort(batch, caller, *parent, *upload),
        Op::Remove {
            path,
            what,
            precondition,
        } => remove::remove(batch, caller, path, *what, *precondition),
        Op::Rename { from, to, replace } => rename::rename(batch, caller, from, to, *replace),
        Op::Copy {
            from,
            version,
            to,
            precondition,
        } => files::copy(batch, caller, from, *version, to, *precondition),
        Op::Restore { path, version } => files::restore(batch, caller, path, *version),
        Op::SetAttrs {
            path,
            mode,
            owner,
            group,
        } => attrs::set(
            batch,
            caller,
            path,
            *mode,
            owner.as_deref(),
            group.as_deref(),
        ),
        Op::Undelete { path } => remove::undelete(batch, caller, path),
        Op::Settings(settings) => attrs::settings(batch, settings),
        Op::PutChunk {
            path,
            precondition,
            mode,
            chunk,
        } => files::put_chunk(batch, caller, path, *precondition, *mode, chunk),
    }
}

/// The path an operation's refusal is about.
fn path_of(op: &Op) -> Option<&DfsPath> {
    match op {
        Op::Mkdir { path, .. }
        | Op::Put { path, .. }
        | Op::PutChunk { path, .. }
        | Op::Reserve { path, .. }
        | Op::Remove { path, .. }
        | Op::Restore { path, .. }
        | Op::SetAttrs { path, .. }
        | Op::Undelete { path } => Some(path),
        // Refusals about the target name it themselves.
        Op::Rename { from, .. } | Op::Copy { from, .. } => Some(from),
        Op::Stage { .. } | Op::Commit { .. } | Op::Abort { .. } | Op::Settings(_) => None,
    }
}

/// What a change answers.
pub(super) fn done(revision: Revision, inode: Inode, version: FileVersion, parent: Inode) -> Done {
    Done {
        revision,
        inode,
        version,
        parent,
        chunk_bytes: 0,
    }
}

/// Permission bits that a file or directory may have.
pub(super) fn check_mode(mode: u16) -> Step<()> {
    if mode > 0o7777 {
        return refuse(
            Code::Usage,
            format!("bad mode {mode:o} (only the 12 permission bits may be set)"),
        );
    }
    Ok(())
}

/// A user or group name as records keep it.
pub(super) fn check_user_name(name: &str) -> Step<()> {
    if name.is_empty() || name.len() > USER_NAME_BYTES_MAX || name.contains(['\0', '/', ':']) {
        return refuse(
            Code::Usage,
            format!(
                "bad user or group name (1 to {USER_NAME_BYTES_MAX} bytes without `/`, `:` and \
                 NUL)"
            ),
        );
    }
    Ok(())
}
