//! What `put` and `get` show of files and trees. The JSON of a put file is a contract.

use super::context::Context;
use super::failure::Outcome;
use super::text::{Count, Shown};
use crate::client::{GetReport, PutReport, TreeReport};
use crate::config::units::human_size;
use crate::types::{ChunkHash, DfsPath, FileVersion};
use serde::Serialize;
use std::borrow::Cow;
use std::path::Path;

#[derive(Serialize)]
struct PutJson<'a> {
    path: &'a DfsPath,
    version: FileVersion,
    size: u64,
    #[serde(serialize_with = "super::entry::text")]
    hash: ChunkHash,
    chunks: u64,
    sent_bytes: u64,
    reused_bytes: u64,
    op_id: &'a str,
}

#[derive(Serialize)]
struct GetJson<'a> {
    path: &'a DfsPath,
    /// Null for standard output.
    local: Option<Cow<'a, str>>,
    version: FileVersion,
    size: u64,
    #[serde(serialize_with = "super::entry::text")]
    hash: ChunkHash,
    chunks: u64,
    fetched_bytes: u64,
    kept_bytes: u64,
}

/// One file that was put. `text`: also when not in JSON.
pub fn show_put(cx: &Context, file: &PutReport, text: bool) -> Outcome {
    cx.note_op(&file.path, &file.op_id);
    if cx.json() {
        return cx.out.json(&put_json(file));
    }
    if !text {
        return Ok(());
    }
    let path = Shown::new(file.path.as_str(), cx.out.terminal);
    let reused = Reused(file.reused_bytes);
    let (size, sent) = (human_size(file.size), human_size(file.sent_bytes));
    cx.out.line(format_args!(
        "{path} version {}, {size}, sent {sent}{reused}",
        file.version
    ))
}

fn put_json(file: &PutReport) -> PutJson<'_> {
    PutJson {
        path: &file.path,
        version: file.version,
        size: file.size,
        hash: file.hash,
        chunks: file.chunks,
        sent_bytes: file.sent_bytes,
        reused_bytes: file.reused_bytes,
        op_id: &file.op_id,
    }
}

/// One file that was fetched. `text`: also when not in JSON.
pub fn show_got(cx: &Context, file: &GetReport, text: bool) -> Outcome {
    if cx.json() {
        return cx.out.json(&get_json(file));
    }
    let Some(local) = file.local.as_ref().filter(|_| text) else {
        return Ok(());
    };
    let local = local.display().to_string();
    let local = Shown::new(&local, cx.out.terminal);
    let kept = Reused(file.kept_bytes);
    let (size, fetched) = (human_size(file.size), human_size(file.fetched_bytes));
    cx.out.line(format_args!(
        "{local} version {}, {size}, fetched {fetched}{kept}",
        file.version
    ))
}

fn get_json(file: &GetReport) -> GetJson<'_> {
    GetJson {
        path: &file.path,
        // A name that is not UTF-8 cannot stand in JSON as it is.
        local: file.local.as_deref().map(Path::to_string_lossy),
        version: file.version,
        size: file.size,
        hash: file.hash,
        chunks: file.chunks,
        fetched_bytes: file.fetched_bytes,
        kept_bytes: file.kept_bytes,
    }
}

/// The sum of a tree, for people; in JSON each file had its line.
pub fn show_tree(cx: &Context, target: &str, tree: &TreeReport) -> Outcome {
    if cx.json() || cx.quiet() {
        return Ok(());
    }
    let files = Count(tree.files, "file", "files");
    let dirs = Count(tree.dirs, "directory", "directories");
    let (size, moved) = (human_size(tree.bytes), human_size(tree.moved_bytes));
    let target = Shown::new(target, cx.out.terminal);
    let reused = Reused(tree.reused_bytes);
    let failed = Failed(tree.failed);
    cx.out.line(format_args!(
        "{target}: {files}, {dirs}, {size}, transferred {moved}{reused}{failed}"
    ))
}

/// `, 3.0MiB were there`, or nothing.
struct Reused(u64);

impl std::fmt::Display for Reused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0 == 0 {
            return Ok(());
        }
        write!(f, ", {} were there", human_size(self.0))
    }
}

/// `; 3 failed`, or nothing.
struct Failed(u64);

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0 == 0 {
            return Ok(());
        }
        write!(f, "; {} failed", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Inode;

    #[test]
    fn a_put_file_is_this_json() {
        let report = PutReport {
            path: DfsPath::parse("/a").unwrap(),
            inode: Inode(5),
            version: FileVersion(3),
            size: 100,
            hash: ChunkHash([1; 32]),
            chunks: 2,
            sent_bytes: 60,
            reused_bytes: 40,
            op_id: "op".into(),
        };
        assert_eq!(
            serde_json::to_string(&put_json(&report)).unwrap(),
            format!(
                "{{\"path\":\"/a\",\"version\":3,\"size\":100,\"hash\":\"{}\",\"chunks\":2,\
                 \"sent_bytes\":60,\"reused_bytes\":40,\"op_id\":\"op\"}}",
                "01".repeat(32)
            )
        );
    }

    #[test]
    fn a_fetched_file_is_this_json() {
        let report = GetReport {
            path: DfsPath::parse("/a").unwrap(),
            local: Some("out/a".into()),
            version: FileVersion(3),
            size: 100,
            hash: ChunkHash([1; 32]),
            chunks: 2,
            fetched_bytes: 60,
            kept_bytes: 40,
        };
        assert_eq!(
            serde_json::to_string(&get_json(&report)).unwrap(),
            format!(
                "{{\"path\":\"/a\",\"local\":\"out/a\",\"version\":3,\"size\":100,\
                 \"hash\":\"{}\",\"chunks\":2,\"fetched_bytes\":60,\"kept_bytes\":40}}",
                "01".repeat(32)
            )
        );
    }

    #[test]
    fn what_was_there_is_said_only_if_there_was_some() {
        assert_eq!(Reused(0).to_string(), "");
        assert_eq!(Reused(3 << 20).to_string(), ", 3.0MiB were there");
    }
}
