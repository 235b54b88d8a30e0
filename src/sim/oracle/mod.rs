//! Was it right? One file for each thing that must hold whatever goes wrong. Called by `run`.
//!
//! | file | what must hold |
//! |---|---|
//! | `search`, `directory` | each directory's history is linearizable: files with versions and preconditions, whole listings |
//! | `report` | how a history that is not is shown |
//!
//! That a file's bytes are those of one version, whole, is seen where they are read
//! (`workload`): a content that nobody put is an error there. What must hold at the end (all that
//! was acknowledged can be read, `fsck` finds nothing, replicas agree) is asked in `run`.

mod directory;
mod report;
mod search;
#[cfg(test)]
mod tests;

pub use report::report;
pub use search::{EVENTS_MAX, Verdict, search};
