//! Golden transcripts: what the command line prints, byte for byte, against a node of its own.
//!
//! `testdata/transcripts/NAME.txt` holds commands and what came of them:
//! ```text
//! # a comment
//! = LOCAL TEXT           writes a local file (the text and a newline)
//! $ dfs ARGS             runs the program; words may stand in '…'; `< LOCAL` feeds standard input
//! anything               a line of standard output; `(empty line)` for one
//! ! anything             a line of standard error
//! ? STATUS               its exit status, if it is not 0
//! ```
//! Ids, addresses, times and sizes of the machine stand as placeholders. `DFS_BLESS=1` writes the
//! files anew.

mod support;

use std::path::PathBuf;
use std::time::Duration;
use support::{Node, until};

const HEALTHY_WITHIN: Duration = Duration::from_secs(60);

macro_rules! transcripts {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            check(stringify!($name));
        }
    )*};
}

transcripts! { names files versions moves removal owners cluster }

fn check(name: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("testdata/transcripts")
        .join(format!("{name}.txt"));
    let expected = std::fs::read_to_string(&path).unwrap();
    let node = Node::start();
    until(HEALTHY_WITHIN, "the node has counted its copies", || {
        let status = node.dfs(&["--json", "status"]).stdout;
        status.contains("counted_ms_ago") && !status.contains("\"counted_ms_ago\":null")
    });
    let mut actual = String::new();
    for line in expected.lines() {
        if let Some(file) = line.strip_prefix("= ") {
            let (local, text) = file.split_once(' ').expect("= LOCAL TEXT");
            node.write(local, format!("{text}\n").as_bytes());
        } else if let Some(command) = line.strip_prefix("$ dfs") {
            actual.push_str(&format!("{line}\n{}", run(&node, command)));
            continue;
        } else if !(line.is_empty() || line.starts_with('#')) {
            continue;
        }
        actual.push_str(&format!("{line}\n"));
    }
    if std::env::var_os("DFS_BLESS").is_some() {
        std::fs::write(&path, actual).unwrap();
    } else if actual != expected {
        let differs = actual
            .lines()
            .zip(expected.lines())
            .position(|(a, e)| a != e);
        let at = differs.unwrap_or(actual.lines().count().min(expected.lines().count()));
        panic!(
            "{} differs at line {} (DFS_BLESS=1 rewrites it)\nexpected: {}\n  actual: {}",
            path.display(),
            at + 1,
            expected.lines().nth(at).unwrap_or("the end"),
            actual.lines().nth(at).unwrap_or("the end"),
        );
    }
}

fn run(node: &Node, command: &str) -> String {
    let (command, stdin) = match command.split_once(" < ") {
        Some((command, local)) => (command, std::fs::read(node.path(local)).unwrap()),
        None => (command, Vec::new()),
    };
    let words = words(command);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let ran = node.dfs_with(&words, &stdin);
    let mut text = String::new();
    for line in ran.stdout.lines().filter(|line| !tells_of_the_disk(line)) {
        text.push_str(&format!("{}\n", settled(line, node)));
    }
    for line in ran.stderr.lines() {
        text.push_str(&format!("! {}\n", settled(line, node)));
    }
    if ran.status != 0 {
        text.push_str(&format!("? {}\n", ran.status));
    }
    text
}

fn words(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (index, part) in command.split('\'').enumerate() {
        match index % 2 {
            1 => words.push(part.to_owned()),
            _ => words.extend(part.split_whitespace().map(str::to_owned)),
        }
    }
    words
}

/// True for what `status` says of a disk that is nearly full: the machine's, not ours.
fn tells_of_the_disk(line: &str) -> bool {
    line.starts_with("  node 1: ") && line.ends_with(DISK_USED)
}

const DISK_USED: &str = " % of the disk is used";

/// A line with placeholders where runs differ.
fn settled(line: &str, node: &Node) -> String {
    if line.is_empty() {
        return "(empty line)".to_owned();
    }
    let mut line = line.replace(&node.address, "ADDRESS");
    line = line.replace("\"state\":\"warning\"", "\"state\":\"healthy\"");
    if let Some((before, reason)) = line.split_once(",\"node 1: ")
        && let Some((_, behind)) = reason.split_once(&format!("{DISK_USED}\""))
    {
        line = format!("{before}{behind}");
    }
    for key in [
        "revision",
        "left_ms",
        "disk_total",
        "disk_available",
        "used",
        "uptime_ms",
        "applied",
        "counted_ms_ago",
    ] {
        line = number_of(&line, key);
    }
    let line = times(&ids(&line));
    // Tables of the screen: their widths and what the machine has.
    if line.contains("ADDRESS  ") || line.starts_with("NODE ") {
        return line
            .split_whitespace()
            .map(machine)
            .collect::<Vec<_>>()
            .join(" ");
    }
    if let Some((ring, _)) = line.split_once("(counted ") {
        return format!("{ring}(counted TIME ago)");
    }
    if let Some((_, name)) = line.split_once(" left  ") {
        return format!("TIME left  {name}");
    }
    line
}

/// Sizes and durations in a row of the node table.
fn machine(word: &str) -> &str {
    let digits = word.starts_with(|first: char| first.is_ascii_digit());
    match digits {
        true if word.ends_with("GiB") || word.ends_with("TiB") => "SIZE",
        true if word.ends_with(['s', 'm', 'h', 'd']) => "TIME",
        false if word == "warning" => "healthy",
        _ => word,
    }
}

fn number_of(line: &str, key: &str) -> String {
    let key = format!("\"{key}\":");
    let mut parts = line.split(key.as_str());
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push_str(&key);
        out.push('N');
        out.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit()));
    }
    out
}

/// Runs of exactly 32 hexadecimal digits, with what makes an operation's id of them.
fn ids(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while !rest.is_empty() {
        let hex = rest.len()
            - rest
                .trim_start_matches(|c: char| c.is_ascii_hexdigit())
                .len();
        let (run, behind) = rest.split_at(hex);
        rest = behind;
        if hex == 32 {
            let tail = behind.trim_start_matches(|c: char| c == '-' || c.is_ascii_digit());
            out.push_str(if tail.len() == behind.len() {
                "ID"
            } else {
                "OPERATION"
            });
            rest = tail;
        } else {
            out.push_str(run);
        }
        let other = rest.len()
            - rest
                .trim_start_matches(|c: char| !c.is_ascii_hexdigit())
                .len();
        out.push_str(&rest[..other]);
        rest = &rest[other..];
    }
    out
}

/// `2026-11-21T00:27:35.058Z`, with or without milliseconds.
fn times(line: &str) -> String {
    const SHAPE: &[u8] = b"dddd-dd-ddTdd:dd:dd";
    let mut out = String::new();
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        let fits = |(byte, shape): (u8, &u8)| match shape {
            b'd' => byte.is_ascii_digit(),
            shape => byte == *shape,
        };
        if rest.len() > SHAPE.len() && rest.bytes().zip(SHAPE).all(fits) {
            let behind = &rest[SHAPE.len()..];
            let behind = behind.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
            out.push_str("TIME");
            rest = behind.strip_prefix('Z').unwrap_or(behind);
        } else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    out
}

#[test]
fn what_differs_between_runs_becomes_a_placeholder() {
    assert_eq!(
        times("a 2026-11-21T00:27:35.058Z b 2026-11-21T00:27:35Z"),
        "a TIME b TIME"
    );
    let id = "0123456789abcdef".repeat(2);
    assert_eq!(ids(&format!("x {id}, {id}-0-1.")), "x ID, OPERATION.");
    assert_eq!(ids(&id.repeat(2)), id.repeat(2));
    assert_eq!(
        number_of("{\"applied\":12,\"b\":1}", "applied"),
        "{\"applied\":N,\"b\":1}"
    );
    assert_eq!(words(" put 'a b' /c"), ["put", "a b", "/c"]);
}
