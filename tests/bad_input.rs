//! Wrong input of every kind: the exit status, the code in JSON, and a text that names what is
//! wrong and what to do.

mod support;

use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use support::{Node, bytes, until};

/// A command line, its exit status, its code in JSON, a part of what it says.
type Case<'a> = (&'a [&'a str], i32, &'a str, &'a str);

/// Runs each line twice: for people and as JSON.
#[track_caller]
fn refuse(node: &Node, cases: &[Case<'_>]) {
    for (line, status, code, text) in cases {
        let said = node.dfs(line).fails(*status);
        assert!(said.starts_with("dfs: "), "{line:?}: {said}");
        assert!(said.contains(text), "{line:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{line:?}: {said}");
        let error = node.dfs(&[&["--json"], *line].concat()).error(*status);
        assert_eq!(error["code"], *code, "{line:?}: {error}");
        assert_eq!(error["may_have_happened"], false, "{line:?}: {error}");
    }
}

/// `/d/f`, `/f` at version 2, and the local files `f` and `tree/f`.
fn with_files() -> Node {
    let node = Node::start();
    node.write("f", b"content");
    node.write("tree/f", b"content");
    node.dfs(&["mkdir", "/d"]).ok();
    node.dfs(&["put", "f", "/d/f"]).ok();
    node.dfs(&["put", "f", "/f"]).ok();
    node.dfs(&["put", "--overwrite", "f", "/f"]).ok();
    node
}

#[test]
fn names_kinds_versions_and_ranges() {
    let node = with_files();
    let long = format!("/{}", "x".repeat(256));
    let deep = "/d".repeat(256);
    refuse(
        &node,
        &[
            (
                &["mkdir", "/no/such"],
                3,
                "not_found",
                "/no/such: the directory /no does not exist",
            ),
            (&["put", "f", "/no/f"], 3, "not_found", "/no does not exist"),
            (&["mkdir", &long], 2, "usage", "longer than 255 bytes"),
            (
                &["mkdir", &deep],
                2,
                "usage",
                "more than 255 directories deep",
            ),
            (&["ls", "/d/../d"], 2, "usage", "`..` are not names"),
            (&["ls", "d"], 2, "usage", "not absolute"),
            (&["ls", ""], 2, "usage", "bad path (empty)"),
            (
                &["mkdir", "/d"],
                4,
                "exists",
                "/d: the directory exists already",
            ),
            (&["mkdir", "/f"], 4, "exists", "/f"),
            (&["put", "f", "/f"], 4, "exists", "use --overwrite"),
            (
                &["put", "f", "/f/"],
                4,
                "conflict",
                "not a directory (it is a file)",
            ),
            (
                &["put", "f", "/f/x"],
                4,
                "conflict",
                "`f` on the way is a file",
            ),
            (&["put", "f", "/none/"], 3, "not_found", "no such directory"),
            (&["put", "none", "/x"], 3, "not_found", "none: cannot read"),
            (&["put", "tree", "/x"], 2, "usage", "use put -r"),
            (&["put", "f"], 2, "usage", "<REMOTE>"),
            (&["cat", "/d"], 4, "conflict", "it is a directory"),
            (
                &["get", "/d", "x"],
                4,
                "conflict",
                "a directory needs get -r",
            ),
            (&["get", "/f", "f"], 4, "exists", "use -f to replace it"),
            (
                &["get", "/f", "none/x"],
                3,
                "not_found",
                "none/x: the local directory",
            ),
            (
                &["cp", "/d", "/x"],
                4,
                "conflict",
                "a directory needs cp -r",
            ),
            (&["rmdir", "/f"], 4, "conflict", "it is a file"),
            (&["rmdir", "/d"], 4, "not_empty", "not empty"),
            (&["rm", "/d"], 4, "not_empty", "use `dfs rm -r`"),
            (&["rm", "/none"], 3, "not_found", "/none: no such file"),
            (&["rm", "-r", "/"], 2, "usage", "the root cannot be removed"),
            (&["mv", "/d", "/d/x"], 2, "usage", "below itself"),
            (&["mv", "/f", "/d/f"], 4, "exists", "use --overwrite"),
            (&["mv", "/d", "/f"], 4, "exists", "/f"),
            (
                &["mv", "--overwrite", "/d", "/f"],
                4,
                "conflict",
                "a directory cannot replace it",
            ),
            (
                &["mv", "/none", "/x"],
                3,
                "not_found",
                "/none: no such file",
            ),
            (
                &["put", "--if-version", "1", "f", "/f"],
                4,
                "conflict",
                "at version 2",
            ),
            (
                &["rm", "--if-version", "1", "/f"],
                4,
                "conflict",
                "at version 2",
            ),
            (
                &["cat", "--version", "9", "/f"],
                3,
                "not_found",
                "no version 9",
            ),
            (
                &["get", "/f", "--version", "9", "x"],
                3,
                "not_found",
                "no version 9",
            ),
            (
                &["restore", "/f", "--version", "9"],
                3,
                "not_found",
                "no version 9",
            ),
            (
                &["cat", "--range", "7-9", "/f"],
                2,
                "usage",
                "beyond the end of the file",
            ),
            (
                &["cat", "--range", "3-1", "/f"],
                2,
                "usage",
                "ends before it begins",
            ),
            (&["undelete", "/none"], 3, "not_found", "undelete --list"),
            (
                &["op", "status", "none"],
                3,
                "not_found",
                "nothing is known of it",
            ),
            (&["chmod", "u+x", "/f"], 2, "usage", "not an octal number"),
            (&["frob"], 2, "usage", "unrecognized subcommand"),
            (&["ls", "--frob", "/"], 2, "usage", "unexpected argument"),
            (&[], 2, "usage", "no command given"),
        ],
    );
    let stale = node
        .dfs(&["--json", "put", "f", "/f", "--if-version", "1"])
        .error(4);
    assert_eq!(stale["current_version"], 2);
    assert_eq!(stale["path"], "/f");
    // Nothing of all this left anything behind.
    assert_eq!(node.dfs(&["ls", "-R", "/"]).ok(), "d/\nd/f\nf\n");
    node.dfs(&["fsck"]).ok();
}

#[test]
fn a_path_that_is_not_utf8_is_named() {
    let node = Node::stopped();
    let output = node
        .command(&["mkdir"])
        .arg(std::ffi::OsString::from_vec(b"/a\xff".to_vec()))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("/a\u{fffd}: bad path (not UTF-8)"), "{said}");
}

#[test]
fn what_cannot_be_read_of_a_tree_is_named_and_the_rest_goes_on() {
    let node = Node::start();
    for name in ["t/a", "t/deep/b", "t/z"] {
        node.write(name, name.as_bytes());
    }
    // Even root cannot put these.
    std::os::unix::fs::symlink("nowhere", node.path("t/deep/dangling")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(node.path("t/socket")).unwrap();
    let strange = std::ffi::OsString::from_vec(b"bad\xff".to_vec());
    std::fs::write(node.path("t").join(strange), b"x").unwrap();

    let ran = node.dfs(&["put", "-r", "t", "/t"]);
    let said = ran.stderr.clone();
    assert_eq!((ran.status, said.lines().count()), (10, 3), "{said}");
    for named in [
        "t/deep/dangling: it is a symbolic link",
        "t/socket: not a file",
        "not UTF-8",
    ] {
        assert!(said.contains(named), "{said}");
    }
    assert!(
        ran.stdout.contains("3 files, 2 directories, 14B"),
        "{}",
        ran.stdout
    );
    assert!(ran.stdout.contains("; 3 failed"), "{}", ran.stdout);
    assert_eq!(node.dfs(&["ls", "-R", "/t"]).ok(), "a\ndeep/\ndeep/b\nz\n");

    let ran = node.dfs(&["--json", "put", "-r", "t", "/again"]);
    assert_eq!(ran.status, 10);
    let documents = |text: &str| {
        text.lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect::<Vec<serde_json::Value>>()
    };
    assert_eq!(documents(&ran.stdout).len(), 3);
    assert!(
        documents(&ran.stderr)
            .iter()
            .all(|d| d["error"]["code"].is_string())
    );
}

#[test]
fn a_local_file_that_changes_while_it_is_sent_is_not_stored() {
    let node = Node::start();
    let path = node.write("growing", &bytes(1, 40 << 20));
    let done = AtomicBool::new(false);
    let ran = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut file = std::fs::OpenOptions::new()
                .append(true)
                .open(&path)
                .unwrap();
            while !done.load(Ordering::Relaxed) {
                file.write_all(b"more").unwrap();
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let ran = node.dfs(&["put", "growing", "/growing"]);
        done.store(true, Ordering::Relaxed);
        ran
    });
    let said = ran.fails(4);
    assert!(
        said.contains("growing: the local file changed while it was read"),
        "{said}"
    );
    node.dfs(&["stat", "/growing"]).fails(3);
    node.dfs(&["put", "growing", "/growing"]).ok();
}

#[test]
fn a_node_that_cannot_start_says_why() {
    let mut node = Node::start();
    let serve =
        |node: &Node, data: &str, listen: &str| node.refused(&["--data", data, "--listen", listen]);
    let taken = serve(&node, "other", &node.address).fails(1);
    assert!(
        taken.contains(&format!("{}: cannot listen on UDP", node.address)),
        "{taken}"
    );
    assert!(!node.path("other/log").exists(), "nothing was made for it");
    let locked = serve(&node, "data", "127.0.0.1:0").fails(7);
    assert!(
        locked.contains("data: in use by another dfs process (pid "),
        "{locked}"
    );

    let nothing = node.refused(&["--data", "other", "--capacity", "0"]);
    let nothing = nothing.fails(2);
    assert!(nothing.contains("bad capacity `0` (zero)"), "{nothing}");
    assert!(nothing.contains("dfs node weight N 0"), "{nothing}");
    node.write("none.toml", b"[server]\ncapacity = \"0GiB\"\n");
    let nothing = node.refused(&["--config", "none.toml", "--data", "fresh"]);
    assert!(nothing.fails(2).contains("server.capacity: bad capacity"));
    assert!(!node.path("fresh").exists(), "nothing was made for it");

    node.write("photos/cat.jpg", b"meow");
    let foreign = serve(&node, "photos", "127.0.0.1:0").fails(2);
    assert!(
        foreign.contains("photos: not a data directory (it holds `cat.jpg`)"),
        "{foreign}"
    );
    assert_eq!(std::fs::read(node.path("photos/cat.jpg")).unwrap(), b"meow");
    let file = serve(&node, "photos/cat.jpg", "127.0.0.1:0").fails(2);
    assert!(file.contains("it is not a directory"), "{file}");

    assert_eq!(node.stop(), 0);
    let meta = node.path("data/node");
    let text = std::fs::read_to_string(&meta).unwrap();
    std::fs::write(&meta, text.replace("format = 1", "format = 2")).unwrap();
    let newer = serve(&node, "data", "127.0.0.1:0").fails(1);
    assert!(
        newer.contains("written by a newer dfs (format 2, this build reads 1)"),
        "{newer}"
    );
    std::fs::remove_file(&meta).unwrap();
    let lost = serve(&node, "data", "127.0.0.1:0").fails(8);
    assert!(
        lost.contains("data/node: missing from the data directory"),
        "{lost}"
    );
    std::fs::write(&meta, text).unwrap();
    node.run();
    node.dfs(&["ls", "/"]).ok();
}

#[test]
#[allow(clippy::disallowed_methods)] // the test's own clock
fn clients_without_the_right_identity_or_node() {
    let node = Node::start();
    let other = Node::start();
    std::fs::copy(other.path("data/admin.dfs"), node.path("other.dfs")).unwrap();
    let junk = node.write("junk.dfs", b"junk");
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(junk, private).unwrap();
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let nobody = nobody.to_string();
    refuse(
        &node,
        &[
            (
                &["--identity", "other.dfs", "ls", "/"],
                5,
                "denied",
                "cluster",
            ),
            (
                &["--identity", "none.dfs", "ls", "/"],
                5,
                "denied",
                "none.dfs: no identity",
            ),
            (
                &["--identity", "junk.dfs", "ls", "/"],
                8,
                "corrupt",
                "junk.dfs: malformed file",
            ),
            (
                &["--cluster", "junk", "ls", "/"],
                2,
                "usage",
                "write it as HOST:PORT",
            ),
        ],
    );
    let begun = Instant::now();
    let alone = ["--cluster", &nobody, "--timeout", "1s", "ls", "/"];
    refuse(&node, &[(&alone, 6, "unavailable", &nobody)]);
    let took = begun.elapsed();
    assert!(
        took < Duration::from_secs(8),
        "two requests of 1 s each took {took:?}"
    );

    let stranger = Node::stopped();
    let said = stranger.dfs(&["ls", "/"]).fails(5);
    assert!(said.contains("no identity to connect with"), "{said}");
}

#[test]
fn garbage_on_the_port_does_no_harm() {
    let mut node = Node::start();
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut noise = Vec::new();
    for round in 0..400u64 {
        let mut packet = bytes(
            round,
            [0, 1, 7, 20, 100, 1200, 1452, 9000][round as usize % 8],
        );
        // Also what looks like the beginning of a QUIC connection.
        if let (0..=199, [first, a, b, c, d, ..]) = (round, &mut packet[..]) {
            (*first, [*a, *b, *c, *d]) = (0xc0 | (*first & 0x3f), 1u32.to_be_bytes());
        }
        noise.push(packet);
    }
    node.write("f", &bytes(7, 3 << 20));
    for part in noise.chunks(100) {
        for packet in part {
            // A full buffer of the receiver is no concern of this test.
            let _ = socket.send_to(packet, &node.address);
        }
        node.dfs(&["put", "--overwrite", "f", "/f"]).ok();
        node.dfs(&["get", "-f", "/f", "back"]).ok();
        assert!(std::fs::read(node.path("back")).unwrap() == bytes(7, 3 << 20));
    }
    assert_eq!(node.stop(), 0);
    assert!(!node.log().contains("panic"), "{}", node.log());
}

#[test]
fn a_first_start_may_be_killed_at_any_moment() {
    let mut node = Node::stopped();
    for step in 0..10u64 {
        // From before the first file to about when it serves.
        node.start_and_kill(Duration::from_millis(step * step * 6));
    }
    node.run();
    node.write("f", b"content");
    node.dfs(&["put", "f", "/f"]).ok();
    assert_eq!(node.dfs(&["cat", "/f"]).ok(), "content");
    node.kill();
    node.run();
    assert_eq!(node.dfs(&["cat", "/f"]).ok(), "content");
    node.dfs(&["fsck"]).ok();
}

/// A node that was stopped with a file of each kind in it, after its metadata was folded.
fn with_content() -> Node {
    let mut node = Node::start();
    node.write("inline", &bytes(1, 500));
    node.write("packed", &bytes(2, 60_000));
    node.write("other", &bytes(3, 60_000));
    node.write("large", &bytes(4, 5 << 20));
    node.dfs(&["put", "inline", "packed", "other", "large", "/"])
        .ok();
    assert_eq!(node.stop(), 0);
    node
}

/// Each file comes back as it was, or with exit status 8 and no byte; returns which failed.
fn readable(node: &Node) -> Vec<&'static str> {
    let mut failed = Vec::new();
    for name in ["inline", "packed", "other", "large"] {
        let ran = node.dfs(&["get", "-f", &format!("/{name}"), "back"]);
        if ran.status == 0 {
            let same = std::fs::read(node.path("back")).unwrap()
                == std::fs::read(node.path(name)).unwrap();
            assert!(same, "{name} has other bytes");
        } else {
            let said = ran.fails(8);
            assert!(said.contains(&format!("/{name}: ")), "{said}");
            assert!(said.contains("at byte "), "{said}");
            failed.push(name);
        }
    }
    failed
}

/// Damages the stopped node's directory, starts it, and tells which files fail now; fsck must
/// agree.
fn damaged(node: &mut Node, damage: impl FnOnce(&Node)) -> Vec<&'static str> {
    damage(node);
    node.run();
    let failed = readable(node);
    let fsck = node.dfs(&["fsck"]);
    assert_eq!(
        fsck.status,
        if failed.is_empty() { 0 } else { 8 },
        "{fsck:?}"
    );
    node.write("more", b"more");
    node.dfs(&["put", "--overwrite", "more", "/more"]).ok();
    assert_eq!(node.stop(), 0);
    assert!(!node.log().contains("panic"), "{}", node.log());
    failed
}

#[test]
fn damaged_chunks_cost_their_files_and_nothing_else() {
    let mut node = with_content();
    let at = |node: &Node, file: &Path, name: &str| {
        let content = std::fs::read(node.path(name)).unwrap();
        support::find(file, &content[..64]).unwrap()
    };
    let failed = damaged(&mut node, |node| {
        let chunk = &node.data_files("chunks")[0];
        support::flip(chunk, at(node, chunk, "large") + (3 << 20), 1);
    });
    assert_eq!(failed, ["large"]);
    // Found again and stored again it is whole again.
    node.run();
    assert_eq!(readable(&node), ["large"]);
    node.dfs(&["put", "--overwrite", "large", "/large"]).ok();
    assert_eq!(readable(&node), [""; 0]);
    assert_eq!(node.stop(), 0);

    let failed = damaged(&mut node, |node| {
        let pack = &node.data_files("packs")[0];
        support::flip(pack, at(node, pack, "packed") + 30_000, 1);
    });
    assert_eq!(failed, ["packed"]);
    let log = node.log();
    let pack = "packs/0000000001.pack";
    assert!(
        log.contains(pack) && log.contains("is damaged at byte"),
        "{log}"
    );
}

#[test]
fn a_lost_index_is_made_again() {
    let mut node = with_content();
    let failed = damaged(&mut node, |node| {
        std::fs::remove_dir_all(node.path("data/index")).unwrap();
    });
    assert_eq!(failed, [""; 0]);
}

#[test]
fn lost_stores_stop_the_start() {
    let mut node = with_content();
    for (store, named) in [("meta", "metadata of group"), ("log", "log of group")] {
        let (here, away) = (node.path("data").join(store), node.path("away"));
        std::fs::rename(&here, &away).unwrap();
        let said = node
            .refused(&["--data", "data", "--listen", "127.0.0.1:0"])
            .fails(8);
        assert!(said.contains(named) && said.contains("restore"), "{said}");
        let _ = std::fs::remove_dir_all(&here);
        std::fs::rename(&away, &here).unwrap();
    }
    node.run();
    assert_eq!(readable(&node), [""; 0]);
}

#[test]
fn a_damaged_entry_of_the_log_is_never_skipped() {
    let mut node = Node::start();
    let marks: Vec<String> = (0..6).map(|n| format!("mark-{n}-of-the-log")).collect();
    for (n, mark) in marks.iter().enumerate() {
        node.write("mark", mark.as_bytes());
        node.dfs(&["put", "mark", &format!("/m{n}")]).ok();
    }
    node.kill();
    let segment = node.data_files("log").into_iter().find(|f| {
        f.extension().is_some_and(|ext| ext == "wal")
            && support::find(f, marks[2].as_bytes()).is_some()
    });
    let segment = segment.expect("what was put is in the log");
    support::flip(
        &segment,
        support::find(&segment, marks[2].as_bytes()).unwrap(),
        4,
    );
    // Folded before the kill or not: the file is served as it was, or the node says which file
    // and where, and does not serve.
    match node.try_run() {
        Ok(()) => {
            for (n, mark) in marks.iter().enumerate() {
                assert_eq!(&node.dfs(&["cat", &format!("/m{n}")]).ok(), mark);
            }
        }
        Err(said) => {
            let name = segment.file_name().unwrap().to_string_lossy().into_owned();
            assert!(said.contains(&name) && said.contains("at byte"), "{said}");
        }
    }
    assert!(!node.log().contains("panicked"), "{}", node.log());
}

#[test]
fn a_stop_while_clients_wait_is_clean() {
    let mut node = Node::start();
    node.write("f", &bytes(5, 30 << 20));
    let mut put = node.command(&["--timeout", "2s", "put", "f", "/f"]);
    put.stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    let mut put = put.spawn().unwrap();
    until(Duration::from_secs(20), "the put is under way", || {
        !node.data_files("chunks").is_empty() || put.try_wait().unwrap().is_some()
    });
    assert_eq!(node.stop(), 0);
    let status = put.wait().unwrap().code();
    assert!(matches!(status, Some(0 | 6)), "{status:?}");
    node.run();
    node.dfs(&["put", "--overwrite", "f", "/f"]).ok();
    node.dfs(&["get", "/f", "back"]).ok();
    assert!(std::fs::read(node.path("back")).unwrap() == bytes(5, 30 << 20));
}
