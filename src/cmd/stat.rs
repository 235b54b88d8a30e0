//! `dfs stat`.

use super::context::Context;
use super::entry::EntryJson;
use super::failure::{Failure, Outcome};
use super::globals::ReadFlag;
use super::items::{Items, parse_paths};
use super::text::{ModeString, Shown, Time};
use crate::config::units::human_size;
use crate::error::Result;
use crate::limits::BATCH_ITEMS_MAX;
use crate::proto::EntryView;
use crate::types::{DfsPath, WallTime};
use std::io::{self, Write};

/// Show everything that is known of files and directories
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    read: ReadFlag,
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<String>,
}

pub async fn run(args: Args, cx: &Context) -> Outcome {
    let show = |path: &DfsPath, view: &EntryView| {
        if cx.json() {
            return cx.out.json(&EntryJson::new(path, view));
        }
        cx.out
            .write(|out| write_entry(out, path, view, cx.out.terminal))
    };
    each_entry(cx, &args.paths, args.read, show).await
}

/// Asks about all paths, many at once, and shows each.
///
/// # Errors
/// As `items` says.
pub async fn each_entry(
    cx: &Context,
    typed: &[String],
    read: ReadFlag,
    mut show: impl FnMut(&DfsPath, &EntryView) -> Outcome,
) -> Outcome {
    let paths = parse_paths(typed)?;
    let client = cx.connect().await?;
    let mut items = Items::new(paths.len(), cx);
    for part in paths.chunks(BATCH_ITEMS_MAX) {
        let views: Vec<Result<EntryView>> = match part {
            [only] => vec![client.stat(only, read.level()).await],
            several => client.stat_many(several, read.level()).await?,
        };
        for (path, view) in part.iter().zip(views) {
            let view = view.map_err(|e| Failure::Error(e.at(path)));
            if let Some(view) = items.take(view)? {
                show(path, &view)?;
            }
        }
    }
    items.finish()
}

fn write_entry(
    out: &mut dyn Write,
    path: &DfsPath,
    view: &EntryView,
    terminal: bool,
) -> io::Result<()> {
    let shown = |text| Shown::new(text, terminal);
    writeln!(out, "    path: {}", shown(path.as_str()))?;
    match view {
        EntryView::File(file) => {
            let a = &file.attrs;
            writeln!(out, "    kind: file, inode {}", file.inode)?;
            writeln!(out, "    size: {} ({})", a.size, human_size(a.size))?;
            writeln!(out, " version: {}", a.version)?;
            let mode = (ModeString(view.kind(), a.mode), a.mode);
            write_common(
                out,
                (&a.owner, &a.group),
                mode,
                (a.created, a.modified),
                terminal,
            )?;
            writeln!(out, "    hash: {}", a.hash)
        }
        EntryView::Dir(dir) => {
            let (entries, bytes) = (dir.totals.entries, dir.totals.bytes);
            writeln!(out, "    kind: directory, inode {}", dir.inode)?;
            writeln!(
                out,
                "   below: {entries} entries, {bytes} bytes ({})",
                human_size(bytes)
            )?;
            writeln!(out, " version: {}", dir.version)?;
            let mode = (ModeString(view.kind(), dir.mode), dir.mode);
            let times = (dir.created, dir.modified);
            write_common(out, (&dir.owner, &dir.group), mode, times, terminal)
        }
        EntryView::Bare { inode, .. } => writeln!(out, "   inode: {inode}"),
    }
}

fn write_common(
    out: &mut dyn Write,
    (owner, group): (&str, &str),
    (letters, mode): (ModeString, u16),
    (created, modified): (WallTime, WallTime),
    terminal: bool,
) -> io::Result<()> {
    let shown = |text| Shown::new(text, terminal);
    writeln!(out, "   owner: {}:{}", shown(owner), shown(group))?;
    writeln!(out, "    mode: {mode:04o} ({letters})")?;
    writeln!(out, " created: {}", Time::exact(created))?;
    writeln!(out, "modified: {}", Time::exact(modified))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::DirView;
    use crate::types::{DirTotals, DirVersion, Inode};

    #[test]
    fn a_directory_on_the_screen() {
        let view = EntryView::Dir(DirView {
            inode: Inode(2),
            version: DirVersion(9),
            owner: "ann".into(),
            group: "staff".into(),
            mode: 0o755,
            created: WallTime(0),
            modified: WallTime(1),
            totals: DirTotals {
                entries: 3,
                bytes: 1_536,
                mounts: 0,
            },
        });
        let mut out = Vec::new();
        write_entry(&mut out, &DfsPath::parse("/a").unwrap(), &view, false).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "    path: /a\n    kind: directory, inode 2\n   below: 3 entries, 1536 bytes (1.5KiB)\n \
             version: 9\n   owner: ann:staff\n    mode: 0755 (drwxr-xr-x)\n \
             created: 1970-01-01T00:00:00.000Z\nmodified: 1970-01-01T00:00:00.001Z\n"
        );
    }
}
