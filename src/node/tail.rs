//! Judges what the log found damaged, before groups start on it. What others have can be had
//! again: such a replica is not opened before its log is mended (`mend`). A group with a single
//! voter has nobody to ask: what is lost is lost, and going on must be somebody's decision. Called
//! by `core` at every start.

use crate::error::{Error, Result};
use crate::store::wal::{DamagedEntry, GroupState, LogPosition, Wal};
use crate::types::GroupId;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Refuses a log with holes; settles the doubt about a write that was cut off; refuses a last
/// batch that may have been acknowledged, unless `accept` says to go on without it. Groups that
/// are `shared` with other nodes are not refused: those that must be mended are returned, with why.
/// `folded` says up to where each replica's state holds what the log says: a hole up to there is
/// none, since nobody else needs these entries.
///
/// # Errors
/// `corrupt`, naming the segment and offset, or the group and what to do.
pub(super) async fn settle(
    wal: &Wal,
    dir: &Path,
    accept: bool,
    shared: &BTreeSet<GroupId>,
    folded: &BTreeMap<GroupId, LogPosition>,
) -> Result<BTreeMap<GroupId, String>> {
    for (group, upto) in folded.iter().filter(|(group, _)| !shared.contains(group)) {
        let holes = wal.damaged().into_iter();
        let holes = holes.filter(|entry| entry.group == *group && entry.index <= upto.index);
        let count = holes.count();
        if count > 0 {
            tracing::warn!(%group, count, %upto.index, "damaged entries of the log are let go: the state holds them");
            wal.purge(*group, *upto).await?;
        }
    }
    let damaged = wal.damaged();
    let own = damaged
        .iter()
        .filter(|entry| !shared.contains(&entry.group));
    if let Some(entry) = own.clone().next() {
        return Err(hole(entry, own.count(), dir));
    }
    let mut mend: BTreeMap<GroupId, String> = BTreeMap::new();
    for entry in &damaged {
        let first = || format!("its log is damaged from entry {} on", entry.index);
        mend.entry(entry.group).or_insert_with(first);
    }
    for group in wal.groups() {
        let state = wal.state(group);
        let Some(doubt) = state.doubt else { continue };
        if doubt.unwritten {
            tracing::warn!(
                %group,
                "the log's last write was cut off before it was acknowledged; going on without it"
            );
        } else if shared.contains(&group) {
            let why = || "the last batch of its log is damaged".to_owned();
            mend.entry(group).or_insert_with(why);
        } else if accept {
            tracing::warn!(
                %group,
                ?doubt,
                "going on without the damaged end of the log: acknowledged changes may be lost"
            );
        } else {
            return Err(lost(&state, dir).at(dir.display()));
        }
    }
    // Only once nothing refuses: a start that fails leaves every doubt as it was. A replica that is
    // to be mended keeps its own: it must not vote after another restart either.
    for group in wal.groups() {
        let unwritten = wal.state(group).doubt.is_some_and(|doubt| doubt.unwritten);
        if unwritten || !mend.contains_key(&group) {
            wal.clear_doubt(group).await?;
        }
    }
    Ok(mend)
}

fn hole(entry: &DamagedEntry, all: usize, dir: &Path) -> Error {
    let DamagedEntry { group, index, .. } = entry;
    let (file, at) = match entry.place {
        Some((segment, offset)) => (
            dir.join(format!("{segment:016x}.wal")),
            format!(" at byte {offset}"),
        ),
        None => (dir.to_owned(), String::new()),
    };
    let others = match all {
        1 => String::new(),
        _ => format!(", and {} more", all - 1),
    };
    Error::corrupt(format!(
        "entry {index} of group {group} is damaged{at}{others} (the checksum does not fit; \
         changes in it were acknowledged)"
    ))
    .at(file.display())
    .hint("check the disk, then restore the data directory from a backup")
}

fn lost(state: &GroupState, dir: &Path) -> Error {
    let last = state.last.map_or(0, |last| last.index.0);
    let upto = match state.doubt.and_then(|doubt| doubt.lost_to) {
        Some(index) => format!(" up to entry {index}"),
        None => String::new(),
    };
    Error::corrupt(format!(
        "the last batch of the log is damaged behind entry {last}{upto} and may have held \
         acknowledged changes"
    ))
    .at(dir.display())
    .hint(
        "restore the data directory from a backup, or start once with --accept-lost-tail to go \
           on without them",
    )
}
