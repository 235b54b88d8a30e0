//! Pure: one entry as JSON and as a line of `ls -l`. Called by every verb that shows entries, so
//! that an entry looks the same everywhere.

use super::text::{ModeString, Shown, Time};
use crate::config::units::human_size;
use crate::proto::{DirView, EntryView, FileView};
use crate::types::{DfsPath, Inode, Kind, WallTime};
use serde::{Serialize, Serializer};
use std::io::{self, Write};

/// The JSON of an entry. Borrowed: made, written, forgotten.
#[derive(Serialize)]
#[serde(untagged)]
pub enum EntryJson<'a> {
    File(FileJson<'a>),
    Dir(DirJson<'a>),
    /// Listed without attributes.
    Bare(Head<'a>),
}

/// What every entry begins with.
#[derive(Serialize)]
pub struct Head<'a> {
    path: &'a str,
    name: &'a str,
    kind: Kind,
    inode: Inode,
}

#[derive(Serialize)]
pub struct FileJson<'a> {
    #[serde(flatten)]
    head: Head<'a>,
    size: u64,
    version: u64,
    #[serde(serialize_with = "time")]
    created: WallTime,
    #[serde(serialize_with = "time")]
    modified: WallTime,
    owner: &'a str,
    group: &'a str,
    #[serde(serialize_with = "octal")]
    mode: u16,
    #[serde(serialize_with = "text")]
    hash: crate::types::ChunkHash,
}

#[derive(Serialize)]
pub struct DirJson<'a> {
    #[serde(flatten)]
    head: Head<'a>,
    dir_version: u64,
    entries: u64,
    bytes: u64,
    #[serde(serialize_with = "time")]
    created: WallTime,
    #[serde(serialize_with = "time")]
    modified: WallTime,
    owner: &'a str,
    group: &'a str,
    #[serde(serialize_with = "octal")]
    mode: u16,
}

impl<'a> EntryJson<'a> {
    /// `path` is the entry's own; the name is its last part, `/` for the root.
    pub fn new(path: &'a DfsPath, view: &'a EntryView) -> Self {
        let head = |inode| Head {
            path: path.as_str(),
            name: last_part(path),
            kind: view.kind(),
            inode,
        };
        match view {
            EntryView::File(FileView { inode, attrs }) => EntryJson::File(FileJson {
                head: head(*inode),
                size: attrs.size,
                version: attrs.version.0,
                created: attrs.created,
                modified: attrs.modified,
                owner: &attrs.owner,
                group: &attrs.group,
                mode: attrs.mode,
                hash: attrs.hash,
            }),
            EntryView::Dir(dir) => EntryJson::Dir(DirJson {
                head: head(dir.inode),
                dir_version: dir.version.0,
                entries: dir.totals.entries,
                bytes: dir.totals.bytes,
                created: dir.created,
                modified: dir.modified,
                owner: &dir.owner,
                group: &dir.group,
                mode: dir.mode,
            }),
            EntryView::Bare { inode, .. } => EntryJson::Bare(head(*inode)),
        }
    }
}

/// The name at the end of a path; `/` for the root.
pub fn last_part(path: &DfsPath) -> &str {
    match path.as_str().rsplit_once('/') {
        Some((_, "")) | None => "/",
        Some((_, name)) => name,
    }
}

/// Serialises a time as RFC 3339 with milliseconds.
pub fn time<S: Serializer>(at: &WallTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&Time::exact(*at))
}

/// Serialises what has a text of its own (hashes, ids).
pub fn text<T: std::fmt::Display, S: Serializer>(
    value: &T,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// Serialises permission bits as people write them: `"0644"`.
pub fn octal<S: Serializer>(mode: &u16, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{mode:04o}"))
}

/// How lines of a listing are written.
#[derive(Clone, Copy)]
pub struct LineStyle {
    /// With attributes (`-l`).
    pub long: bool,
    /// Sizes as `1.5GiB` (`-h`).
    pub human: bool,
    /// Standard output is a terminal.
    pub terminal: bool,
}

/// Writes one line: a name (a directory's ends in `/`), with `long` its attributes before it.
pub fn write_line(
    out: &mut dyn Write,
    name: &str,
    view: &EntryView,
    style: LineStyle,
) -> io::Result<()> {
    if style.long {
        write_attributes(out, view, style)?;
    }
    let slash = match view.kind() {
        Kind::Dir if name != "/" => "/",
        _ => "",
    };
    writeln!(out, "{}{slash}", Shown::new(name, style.terminal))
}

fn write_attributes(out: &mut dyn Write, view: &EntryView, style: LineStyle) -> io::Result<()> {
    let (mode, owner, group, size, version, modified) = match view {
        EntryView::File(FileView { attrs: a, .. }) => (
            a.mode,
            &a.owner,
            &a.group,
            a.size,
            Some(a.version.0),
            a.modified,
        ),
        EntryView::Dir(DirView {
            mode,
            owner,
            group,
            totals,
            modified,
            ..
        }) => (*mode, owner, group, totals.bytes, None, *modified),
        EntryView::Bare { .. } => return Ok(()),
    };
    let kind = view.kind();
    let (owner, group) = (
        Shown::new(owner, style.terminal),
        Shown::new(group, style.terminal),
    );
    write!(out, "{} {owner:<8} {group:<8} ", ModeString(kind, mode))?;
    if style.human {
        write!(out, "{:>8} ", human_size(size))?;
    } else {
        write!(out, "{size:>14} ")?;
    }
    match version {
        Some(version) => write!(out, "{version:>5} ")?,
        None => write!(out, "    - ")?,
    }
    write!(out, "{} ", Time::human(modified))
}

#[cfg(test)]
#[path = "entry_tests.rs"]
mod tests;
