//! Tests of entries on the screen and in JSON: exact texts.

use super::{EntryJson, LineStyle, write_line};
use crate::proto::{DirView, EntryView, FileView};
use crate::types::{
    ChunkHash, Content, DfsPath, DirTotals, DirVersion, FileAttrs, FileVersion, Inode, Kind,
    WallTime,
};

const PLAIN: LineStyle = LineStyle {
    long: false,
    human: false,
    terminal: false,
};
const LONG: LineStyle = LineStyle {
    long: true,
    human: false,
    terminal: false,
};

fn file() -> EntryView {
    EntryView::File(FileView {
        inode: Inode(42),
        attrs: FileAttrs {
            size: 1_572_864,
            version: FileVersion(7),
            created: WallTime(1_700_000_000_000),
            modified: WallTime(1_700_000_001_234),
            owner: "ann".into(),
            group: "staff".into(),
            mode: 0o640,
            hash: ChunkHash([0xab; 32]),
            content: Content::Empty,
        },
    })
}

fn dir() -> EntryView {
    EntryView::Dir(DirView {
        inode: Inode(2),
        version: DirVersion(9),
        owner: "ann".into(),
        group: "staff".into(),
        mode: 0o755,
        created: WallTime(1_700_000_000_000),
        modified: WallTime(1_700_000_000_001),
        totals: DirTotals {
            entries: 3,
            bytes: 1_024,
            mounts: 0,
        },
    })
}

fn line(name: &str, view: &EntryView, style: LineStyle) -> String {
    let mut out = Vec::new();
    write_line(&mut out, name, view, style).unwrap();
    String::from_utf8(out).unwrap()
}

fn json(path: &str, view: &EntryView) -> String {
    serde_json::to_string(&EntryJson::new(&DfsPath::parse(path).unwrap(), view)).unwrap()
}

#[test]
fn a_file_is_this_json() {
    assert_eq!(
        json("/a/b", &file()),
        format!(
            "{{\"path\":\"/a/b\",\"name\":\"b\",\"kind\":\"file\",\"inode\":42,\
             \"size\":1572864,\"version\":7,\"created\":\"2023-11-14T22:13:20.000Z\",\
             \"modified\":\"2023-11-14T22:13:21.234Z\",\"owner\":\"ann\",\"group\":\"staff\",\
             \"mode\":\"0640\",\"hash\":\"{}\"}}",
            "ab".repeat(32)
        )
    );
}

#[test]
fn a_directory_is_this_json() {
    assert_eq!(
        json("/", &dir()),
        "{\"path\":\"/\",\"name\":\"/\",\"kind\":\"dir\",\"inode\":2,\"dir_version\":9,\
         \"entries\":3,\"bytes\":1024,\"created\":\"2023-11-14T22:13:20.000Z\",\
         \"modified\":\"2023-11-14T22:13:20.001Z\",\"owner\":\"ann\",\"group\":\"staff\",\
         \"mode\":\"0755\"}"
    );
}

#[test]
fn a_plain_line_is_the_name_and_a_directory_ends_in_a_slash() {
    let bare = EntryView::Bare {
        inode: Inode(3),
        kind: Kind::Dir,
    };
    assert_eq!(line("b", &file(), PLAIN), "b\n");
    assert_eq!(line("d", &bare, PLAIN), "d/\n");
    assert_eq!(line("/", &dir(), PLAIN), "/\n");
}

#[test]
fn a_long_line_has_mode_owner_group_size_version_modified_name() {
    assert_eq!(
        line("b", &file(), LONG),
        "-rw-r----- ann      staff           1572864     7 2023-11-14T22:13:21Z b\n"
    );
    assert_eq!(
        line("d", &dir(), LONG),
        "drwxr-xr-x ann      staff              1024     - 2023-11-14T22:13:20Z d/\n"
    );
    let human = LineStyle {
        human: true,
        ..LONG
    };
    assert_eq!(
        line("b", &file(), human),
        "-rw-r----- ann      staff      1.5MiB     7 2023-11-14T22:13:21Z b\n"
    );
}

#[test]
fn a_hostile_name_is_escaped_on_a_terminal_only() {
    let terminal = LineStyle {
        terminal: true,
        ..PLAIN
    };
    assert_eq!(line("a\x1b[0mb", &file(), terminal), "a\\u{1b}[0mb\n");
    assert_eq!(line("a\x1b[0mb", &file(), PLAIN), "a\x1b[0mb\n");
}
