//! Pure: the two ways an operation stops, and the wording of refusals that several operations
//! share. A refusal is an outcome that the user reads; damage stops the replica.

use crate::error::{Code, Error, IS_DIRECTORY, NO_SUCH_ENTRY};
use crate::types::{FileVersion, Precondition};

use super::records::Entry;

/// Why an operation did not go through.
#[derive(Debug)]
pub(super) enum Stop {
    /// Stored and answered; the operation left nothing behind.
    Refused(Error),
    /// A record that cannot be read or is missing: `apply` fails, the replica stops.
    Damaged(Error),
}

/// Reading records fails only through damage; refusals are always made by hand.
impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Damaged(error)
    }
}

pub(super) type Step<T> = Result<T, Stop>;

/// A refusal without a hint.
pub(super) fn refuse<T>(code: Code, message: impl Into<String>) -> Step<T> {
    Err(Stop::Refused(Error::new(code, message)))
}

/// A refusal with what to do about it.
pub(super) fn refuse_hint<T>(
    code: Code,
    message: impl Into<String>,
    hint: impl Into<String>,
) -> Step<T> {
    Err(Stop::Refused(Error::new(code, message).hint(hint)))
}

/// Damage: a record that must be there is not, or says what cannot be.
pub(super) fn damaged(what: impl Into<String>) -> Error {
    Error::corrupt(what).hint("the replica must be replaced; run `dfs fsck` on the others")
}

pub(super) fn no_such<T>() -> Step<T> {
    refuse(Code::NotFound, NO_SUCH_ENTRY)
}

pub(super) fn is_dir<T>() -> Step<T> {
    refuse_hint(
        Code::Conflict,
        format!("{IS_DIRECTORY} (a file was expected)"),
        "name a file in it",
    )
}

pub(super) fn nested_shard<T>() -> Step<T> {
    refuse(
        Code::Redirect,
        "this part of the tree belongs to another shard",
    )
}

/// The current version of what a name stands for, if it is a file that may be overwritten under
/// this precondition.
pub(super) fn judge_content(
    precondition: Precondition,
    existing: Option<&Entry>,
) -> Step<Option<FileVersion>> {
    let file = match existing {
        None => None,
        Some(Entry::File { inode, attrs, .. }) => Some((*inode, attrs.version)),
        Some(Entry::Dir { .. }) => return is_dir(),
        Some(Entry::Mount { .. }) => return is_dir(),
    };
    let current = file.map(|(_, version)| version);
    match (precondition, current) {
        (Precondition::Any, _) => refuse_hint(
            Code::Usage,
            "content cannot be written without a precondition (it could drop a version that its \
             writer has not seen)",
            "ask for an absent name or for a version",
        ),
        (Precondition::Absent, None) => Ok(None),
        (Precondition::Absent, Some(current)) => exists(current),
        (Precondition::Version(wanted), Some(current)) if wanted == current => Ok(Some(current)),
        (Precondition::Version(wanted), Some(current)) => moved_on(wanted, current),
        (Precondition::Exactly { inode, version }, Some(current)) => match file {
            Some(found) if found == (inode, version) => Ok(Some(current)),
            Some((found, _)) if found != inode => replaced(current),
            _ => moved_on(version, current),
        },
        (
            Precondition::Version(wanted)
            | Precondition::Exactly {
                version: wanted, ..
            },
            None,
        ) => refuse_hint(
            Code::NotFound,
            format!("no such file (version {wanted} was expected)"),
            "it was removed or renamed; write it as a new file",
        ),
    }
}

fn exists<T>(current: FileVersion) -> Step<T> {
    Err(Stop::Refused(
        Error::new(
            Code::Exists,
            format!("the file exists already (version {current})"),
        )
        .version(current.0)
        .hint(format!("use --overwrite, or --if-version {current}")),
    ))
}

/// Another file has the name now than the one that was read.
pub(super) fn replaced<T>(current: FileVersion) -> Step<T> {
    Err(Stop::Refused(
        Error::new(
            Code::Conflict,
            format!("the file was replaced by another one (now at version {current})"),
        )
        .version(current.0)
        .hint("read the current version, then try again"),
    ))
}

pub(super) fn moved_on<T>(wanted: FileVersion, current: FileVersion) -> Step<T> {
    Err(Stop::Refused(
        Error::new(
            Code::Conflict,
            format!("the file is at version {current} (version {wanted} was expected)"),
        )
        .version(current.0)
        .hint("read the current version, then try again"),
    ))
}
