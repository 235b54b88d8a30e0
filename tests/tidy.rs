//! The house rules that a compiler does not check: layers, file sizes, openings, purity, scripts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What each top-level module may import with `use crate::…`. Run down only; siblings do not see
/// each other. `lib.rs` draws the same as a table.
const LAYERS: &[(&str, &[&str])] = &[
    ("limits", &[]),
    ("error", &["limits"]),
    ("types", &["error", "limits"]),
    ("codec", &["error"]),
    ("env", &["error", "types", "limits"]),
    ("config", &["error", "limits", "types"]),
    ("proto", &["error", "limits", "types", "codec"]),
    (
        "net",
        &["proto", "env", "error", "limits", "types", "codec"],
    ),
    (
        "store",
        &["proto", "env", "error", "limits", "types", "codec"],
    ),
    (
        "cluster",
        &["proto", "env", "error", "limits", "types", "codec"],
    ),
    (
        "ring",
        &["proto", "env", "error", "limits", "types", "codec"],
    ),
    (
        "shard",
        &["proto", "store", "env", "error", "limits", "types", "codec"],
    ),
    (
        "root",
        &["proto", "store", "env", "error", "limits", "types", "codec"],
    ),
    (
        "raft",
        &["proto", "store", "env", "error", "limits", "types", "codec"],
    ),
    (
        "client",
        &[
            "shard", "net", "cluster", "ring", "proto", "env", "error", "limits", "types", "codec",
        ],
    ),
    (
        "node",
        &[
            "shard", "root", "raft", "net", "store", "cluster", "ring", "proto", "env", "error",
            "limits", "types", "codec", "config",
        ],
    ),
    (
        "bench",
        &[
            "client", "shard", "proto", "env", "error", "limits", "types", "codec",
        ],
    ),
    (
        "cmd",
        &[
            "bench", "node", "client", "shard", "net", "cluster", "ring", "proto", "env", "error",
            "limits", "types", "codec", "config",
        ],
    ),
    (
        "sim",
        &[
            "node", "client", "shard", "net", "store", "cluster", "proto", "env", "error", "types",
        ],
    ),
    (
        "fuzzing",
        &[
            "raft", "root", "shard", "store", "cluster", "proto", "env", "error", "limits",
            "types", "codec", "config",
        ],
    ),
];

/// Lines of a file without its tests; above this nobody knows his way in it.
const FILE_LINES_MAX: usize = 500;

/// What a file that opens with `//! Pure:` may not speak of.
const IMPURE: &[&str] = &[
    "async fn",
    ".await",
    "tokio::",
    "std::time::Instant",
    "SystemTime",
    "std::fs",
    "UdpSocket",
    "TcpStream",
    "std::thread",
    "rand::",
    "Mutex",
    "RwLock",
    "use crate::env",
];

fn sources() -> BTreeMap<PathBuf, String> {
    fn collect(dir: &Path, found: &mut BTreeMap<PathBuf, String>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                found.insert(path, text);
            }
        }
    }
    let mut found = BTreeMap::new();
    collect(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &mut found,
    );
    assert!(found.len() > 20, "the sources were found");
    found
}

/// `src/shard/read.rs` → `shard`.
fn module_of(path: &Path) -> String {
    let inside = path
        .strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
        .unwrap();
    let first = inside
        .components()
        .next()
        .unwrap()
        .as_os_str()
        .to_str()
        .unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// Files that hold only tests, by name.
fn is_test(path: &Path) -> bool {
    let name = path.to_str().unwrap();
    ["tests", "testing", "conformance", "/src/sim/"]
        .iter()
        .any(|part| name.contains(part))
}

/// A file's text before its tests.
fn without_tests(text: &str) -> &str {
    text.find("#[cfg(test)]").map_or(text, |at| &text[..at])
}

fn report(problems: Vec<String>) {
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn imports_run_down() {
    let mut problems = Vec::new();
    for (path, text) in sources() {
        let module = module_of(&path);
        if module == "lib" || module == "main" || is_test(&path) {
            continue;
        }
        let allowed = LAYERS.iter().find(|(name, _)| *name == module);
        let Some((_, allowed)) = allowed else {
            problems.push(format!(
                "{}: module `{module}` has no layer",
                path.display()
            ));
            continue;
        };
        for (number, line) in without_tests(&text).lines().enumerate() {
            if line.trim_start().starts_with("//") {
                continue;
            }
            for part in line.split("crate::").skip(1) {
                let named: Vec<&str> = match part.strip_prefix('{') {
                    Some(group) => group.split(',').map(str::trim).collect(),
                    None => vec![part],
                };
                for name in named {
                    let word: String = name
                        .chars()
                        .take_while(|c| c.is_alphanumeric() || *c == '_')
                        .collect();
                    let known = LAYERS.iter().any(|(name, _)| *name == word);
                    if known && word != module && !allowed.contains(&word.as_str()) {
                        let place = format!("{}:{}", path.display(), number + 1);
                        problems.push(format!("{place}: `{module}` may not use `{word}`"));
                    }
                }
            }
        }
    }
    report(problems);
}

#[test]
fn files_stay_small() {
    let mut problems = Vec::new();
    for (path, text) in sources() {
        let lines = without_tests(&text).lines().count();
        if lines > FILE_LINES_MAX && !is_test(&path) {
            problems.push(format!("{}: {lines} lines", path.display()));
        }
    }
    report(problems);
}

#[test]
fn files_say_what_they_are() {
    let silent = |text: &str| !text.starts_with("//!");
    report(
        sources()
            .into_iter()
            .filter(|(_, text)| silent(text))
            .map(|(path, _)| format!("{}: does not open with //!", path.display()))
            .collect(),
    );
}

#[test]
fn pure_files_are_pure() {
    let mut problems = Vec::new();
    for (path, text) in sources() {
        if !text.starts_with("//! Pure:") {
            continue;
        }
        for (number, line) in without_tests(&text).lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for word in IMPURE.iter().filter(|word| code.contains(**word)) {
                let place = format!("{}:{}", path.display(), number + 1);
                problems.push(format!("{place}: a pure file speaks of `{word}`"));
            }
        }
    }
    report(problems);
}

#[test]
fn nothing_is_left_undone() {
    let marks = [
        "todo!(",
        "unimplemented!(",
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        "XXX",
    ];
    let mut problems = Vec::new();
    for (path, text) in sources() {
        for (number, line) in text.lines().enumerate() {
            for mark in marks.iter().filter(|mark| line.contains(**mark)) {
                problems.push(format!("{}:{}: {mark}", path.display(), number + 1));
            }
        }
    }
    report(problems);
}

#[test]
fn no_unwrap_outside_tests() {
    let mut problems = Vec::new();
    for (path, text) in sources() {
        if is_test(&path) {
            continue;
        }
        for (number, line) in without_tests(&text).lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if code.contains(".unwrap()") {
                problems.push(format!("{}:{}", path.display(), number + 1));
            }
        }
    }
    report(problems);
}

#[test]
fn scripts_that_run_dfs_leave_the_users_cluster_alone() {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
    let mut run = 0;
    for entry in std::fs::read_dir(scripts).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        if let Some(serves) = text.find("\"$dfs\" serve") {
            let apart = text.find("\napart \"$work\"\n");
            assert!(apart.is_some_and(|at| at < serves), "{}", path.display());
            run += 1;
        }
    }
    assert!(run > 2, "the scripts were found");
}
