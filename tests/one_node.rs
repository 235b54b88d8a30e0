//! What a user does with one node, through real processes: files in and out, names, versions.

mod support;

use std::process::{Command, Stdio};
use std::time::Duration;
use support::{Node, bytes, tree, until};

#[test]
fn a_tree_goes_in_and_comes_out_the_same() {
    let node = Node::start();
    for at in 0..40u64 {
        let dir = format!("tree/d{}/e{}", at % 5, at % 3);
        // From nothing over inline and packed to several chunks.
        let len = [0, 1, 100, 4096, 16 << 10, (16 << 10) + 1, 200_000][at as usize % 7];
        node.write(&format!("{dir}/f{at}"), &bytes(at, len));
    }
    node.write("tree/large", &bytes(99, (33 << 20) + 7));
    node.dfs(&["put", "-r", "tree", "/stored"]).ok();
    node.dfs(&["get", "-r", "/stored", "back"]).ok();
    assert_eq!(tree(&node.path("tree")), tree(&node.path("back")));

    let listing = node.dfs(&["ls", "/stored"]).ok();
    assert_eq!(listing, "d0/\nd1/\nd2/\nd3/\nd4/\nlarge\n");
    assert_eq!(node.dfs(&["cat", "/stored/large"]).status, 0);
    node.dfs(&["fsck"]).ok();
}

#[test]
fn a_pipe_goes_in_and_ranges_come_out() {
    let node = Node::start();
    let content = bytes(7, 20_000_000);
    let stored = node
        .dfs_with(&["--json", "put", "-", "/piped"], &content)
        .json();
    let stored = if stored.is_array() {
        stored[0].clone()
    } else {
        stored
    };
    assert_eq!(stored["size"], 20_000_000);
    assert_eq!(stored["version"], 1);
    assert_eq!(stored["hash"], blake3::hash(&content).to_hex().to_string());
    node.dfs(&["get", "/piped", "back"]).ok();
    assert!(std::fs::read(node.path("back")).unwrap() == content);
    node.dfs(&["get", "--range", "16777000-16777999", "/piped", "part"])
        .ok();
    assert!(std::fs::read(node.path("part")).unwrap() == content[16_777_000..16_778_000]);
}

#[test]
fn a_put_never_drops_a_write_it_has_not_seen() {
    let node = Node::start();
    node.write("a", b"one");
    node.write("b", b"two");
    node.dfs(&["put", "a", "/f"]).ok();
    let refused = node.dfs(&["--json", "put", "b", "/f"]).error(4);
    assert_eq!(
        (&refused["code"], &refused["current_version"]),
        (&"exists".into(), &1.into())
    );
    node.dfs(&["put", "--overwrite", "b", "/f"]).ok();
    let stale = node
        .dfs(&["--json", "put", "--if-version", "1", "a", "/f"])
        .error(4);
    assert_eq!(
        (&stale["code"], &stale["current_version"]),
        (&"conflict".into(), &2.into())
    );
    node.dfs(&["put", "--if-version", "2", "a", "/f"]).ok();
    assert_eq!(node.dfs(&["cat", "/f"]).ok(), "one");

    let versions = node.dfs(&["--json", "versions", "/f"]).ok();
    assert!(versions.contains("\"version\":3"), "{versions}");
    assert_eq!(node.dfs(&["cat", "--version", "2", "/f"]).ok(), "two");
    node.dfs(&["get", "--version", "1", "/f", "old"]).ok();
    assert_eq!(std::fs::read(node.path("old")).unwrap(), b"one");
    node.dfs(&["restore", "/f", "--version", "2"]).ok();
    assert_eq!(node.dfs(&["cat", "/f"]).ok(), "two");
    assert_eq!(node.dfs(&["--json", "stat", "/f"]).json()["version"], 4);
}

#[test]
fn names_move_copy_and_go() {
    let node = Node::start();
    node.write("a", b"content");
    node.dfs(&["mkdir", "-p", "/x/y/z"]).ok();
    node.dfs(&["put", "a", "/x/y/"]).ok();
    node.dfs(&["mv", "/x/y", "/moved"]).ok();
    assert_eq!(node.dfs(&["ls", "/moved"]).ok(), "a\nz/\n");
    assert_eq!(node.dfs(&["ls", "/x"]).ok(), "");
    node.dfs(&["cp", "/moved/a", "/copy"]).ok();
    assert_eq!(node.dfs(&["cat", "/copy"]).ok(), "content");
    node.dfs(&["cp", "-r", "/moved", "/tree"]).ok();
    assert_eq!(node.dfs(&["cat", "/tree/a"]).ok(), "content");
    node.dfs(&["mv", "/moved", "/moved/z/inside"]).fails(2);
    node.dfs(&["rm", "/moved"]).fails(4);
    node.dfs(&["rm", "-r", "/moved"]).ok();
    node.dfs(&["stat", "/moved/a"]).fails(3);
    node.dfs(&["mkdir", "/moved"]).ok();
    assert_eq!(node.dfs(&["ls", "/moved"]).ok(), "");
    node.dfs(&["rmdir", "/moved"]).ok();
    node.dfs(&["rm", "/copy"]).ok();
    assert_eq!(node.dfs(&["--json", "du", "/"]).status, 0);
    node.dfs(&["fsck"]).ok();
}

#[test]
fn everything_is_there_after_a_stop_and_a_start() {
    let mut node = Node::start();
    node.write("a", &bytes(1, 3_000_000));
    node.write("b", b"small");
    node.dfs(&["mkdir", "/d"]).ok();
    node.dfs(&["put", "a", "b", "/d/"]).ok();
    let before = node.dfs(&["--json", "ls", "/d"]).ok();
    assert_eq!(node.stop(), 0);
    node.run();
    assert_eq!(node.dfs(&["--json", "ls", "/d"]).ok(), before);
    node.kill();
    node.run();
    assert_eq!(node.dfs(&["--json", "ls", "/d"]).ok(), before);
    node.dfs(&["get", "/d/a", "back"]).ok();
    assert!(std::fs::read(node.path("back")).unwrap() == bytes(1, 3_000_000));
    node.dfs(&["fsck"]).ok();
}

#[test]
fn a_second_process_on_the_data_directory_is_refused() {
    let node = Node::start();
    let second = node
        .command(&["serve", "--data", "data", "--listen", "127.0.0.1:0"])
        .output();
    let second = second.unwrap();
    assert_eq!(second.status.code(), Some(7));
    assert!(
        String::from_utf8_lossy(&second.stderr).contains("in use"),
        "{second:?}"
    );
}

/// A put of a tree that is interrupted says how it goes on, and a get goes on by itself.
#[test]
fn trees_go_on_where_they_were_interrupted() {
    let node = Node::start();
    node.write("tree/d/f", b"content");
    node.write("tree/large", &bytes(3, 200 << 20));
    let interrupted = |args: &[&str], begun: &dyn Fn() -> bool| {
        let mut child = node
            .command(args)
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let within = std::time::Duration::from_secs(60);
        until(within, "it is under way", || {
            begun() || child.try_wait().unwrap().is_some()
        });
        let pid = child.id().to_string();
        let told = std::process::Command::new("kill")
            .args(["-INT", &pid])
            .status();
        assert!(told.unwrap().success());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let there = || node.dfs(&["stat", "/put"]).status == 0;
    let said = interrupted(&["put", "-r", "tree", "/put"], &there);
    let mut words = said
        .split_whitespace()
        .skip_while(|word| *word != "--op-id");
    let id = words.nth(1).unwrap_or_else(|| panic!("{said}"));
    node.dfs(&["op", "status", id]).fails(10);
    node.dfs(&["put", "-r", "tree", "/put", "--op-id", id]).ok();
    assert_eq!(node.dfs(&["ls", "-R", "/put"]).ok(), "d/\nd/f\nlarge\n");

    let there = || node.path("out").exists();
    interrupted(&["get", "-r", "/put", "out"], &there);
    node.dfs(&["get", "-r", "/put", "out"]).ok();
    assert!(tree(&node.path("tree")) == tree(&node.path("out")));
    // It has come to its end: the next one is another.
    node.dfs(&["rm", "/put/large"]).ok();
    node.dfs(&["get", "-r", "/put", "out"]).ok();
    assert_eq!(std::fs::read(node.path("out/put/d/f")).unwrap(), b"content");
}

/// Whoever sends a command again under its id does not know whether it was done.
#[test]
fn trees_put_moved_and_copied_again_under_their_ids_are_there_once() {
    let node = Node::start();
    node.write("tree/d/f", b"content");
    let tree = ["d", "d/f"].map(|name| format!("/put/{name}"));
    for _ in 0..2 {
        node.dfs(&["put", "-r", "tree", "/put", "--op-id", "one"])
            .ok();
        let found = node.dfs(&["find", "/put"]).ok();
        assert!(tree.iter().all(|path| found.contains(path)), "{found}");
        assert!(!found.contains("/put/tree"), "{found}");
    }
    for _ in 0..2 {
        node.dfs(&["cp", "-r", "/put", "/copied", "--op-id", "two"])
            .ok();
        assert_eq!(node.dfs(&["ls", "/copied"]).ok(), "d/\n");
    }
    for target in ["/moved", "/moved", "/moved/"] {
        node.dfs(&["mv", "/copied", target, "--op-id", "three"])
            .ok();
        assert_eq!(node.dfs(&["ls", "/moved"]).ok(), "d/\n");
    }
    // Without the id, or under another, the directory that is there is the target.
    node.dfs(&["put", "-r", "tree", "/put", "--op-id", "four"])
        .ok();
    assert_eq!(node.dfs(&["ls", "/put"]).ok(), "d/\ntree/\n");
    node.dfs(&["fsck"]).ok();
}

/// What was done under an id is never said to have not arrived, however many requests it took.
#[test]
fn commands_of_several_requests_are_known_by_their_ids() {
    let node = Node::start();
    let status = |id: &str| node.dfs(&["op", "status", id]);
    let known = |line: &[&str]| {
        let id = line.join(" ").replace(['/', ' '], "_");
        status(&id).fails(3);
        node.dfs(&[line, &["--op-id", &id]].concat()).ok();
        assert_eq!(status(&id).ok(), "done: all of it\n", "{line:?}");
    };
    node.write("tree/f", b"content");
    node.write("tree/d/g", &bytes(3, 100_000));
    known(&["put", "-r", "tree", "/put"]);
    known(&["put", "-r", "tree", "tree/d", "/put/d"]);
    known(&["put", "tree/f", "tree/d/g", "/"]);
    known(&["cp", "-r", "/put", "/copied"]);
    node.dfs(&["mkdir", "/some", "/others", "/half"]).ok();
    known(&["cp", "-r", "/put/d", "/put/f", "/some"]);
    known(&["cp", "/f", "/g", "/others"]);
    let many: Vec<String> = (0..600).map(|at| format!("/many{at}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    node.dfs(&[&["mkdir", "--op-id", "many"], &many[..]].concat())
        .ok();
    assert_eq!(status("many").ok(), "done: all of it\n");
    for part in ["many.0", "many.1"] {
        assert!(status(part).ok().starts_with("done\n"));
    }
    let found = node.dfs(&["--json", "op", "status", "many"]).json();
    assert_eq!(found["state"], "applied");
    assert_eq!(found["outcomes"].as_array().unwrap().len(), 0);

    // One that failed half way; the same again does the rest.
    let half = ["put", "tree/f", "later", "/half", "--op-id", "half"];
    node.dfs(&half).fails(10);
    let said = status("half").fails(10);
    assert!(
        said.contains("is not known to have come to its end"),
        "{said}"
    );
    assert!(said.contains("--op-id half again"), "{said}");
    let ran = node.dfs(&["--json", "op", "status", "half"]);
    assert!(ran.stdout.contains("\"state\":\"begun\""), "{}", ran.stdout);
    assert_eq!(ran.error(10)["code"], "partial");
    assert!(status("half.0").ok().starts_with("done: version 1"));
    node.write("later", b"later");
    node.dfs(&half).ok();
    assert_eq!(status("half").ok(), "done: all of it\n");

    // One request is known by its outcome, and of what did not arrive nothing.
    node.dfs(&["put", "tree/f", "/one", "--op-id", "one"]).ok();
    assert_eq!(status("one").ok(), "done: version 1\n");
    node.dfs(&["put", "missing", "/none", "--op-id", "none"])
        .fails(3);
    status("none").fails(3);
}

/// Whatever stops a get, it ends with the same status and leaves nothing that no get goes on with.
#[test]
fn a_get_that_is_told_to_stop_cleans_up_after_itself() {
    let node = Node::start();
    // One chunk: what came of it cannot be continued.
    node.write("large", &bytes(1, 15 << 20));
    node.dfs(&["put", "large", "/large"]).ok();
    for signal in ["-TERM", "-INT"] {
        let mut status = None;
        // A get may be through before it is stopped; then another one.
        until(Duration::from_secs(60), "a get is stopped half way", || {
            let _ = std::fs::remove_file(node.path("back"));
            let mut get = node
                .command(&["--json", "get", "/large", "back"])
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            until(Duration::from_secs(60), "the get writes", || {
                parts(&node) > 0 || get.try_wait().unwrap().is_some()
            });
            let pid = get.id().to_string();
            let sent = Command::new("kill").args([signal, &pid]).status();
            let ended = get.wait_with_output().unwrap();
            status = ended.status.code();
            sent.unwrap().success() && status != Some(0)
        });
        assert_eq!(status, Some(130), "{signal}");
        assert_eq!(parts(&node), 0, "{signal}");
    }
}

#[test]
fn a_benchmark_that_is_told_to_stop_removes_what_it_made() {
    let node = Node::start();
    let scratch = node.path("scratch");
    let large = || {
        let dirs = std::fs::read_dir(&scratch).into_iter().flatten();
        let mut large = dirs.map(|dir| dir.unwrap().path().join("large"));
        large.any(|file| file.exists())
    };
    for (what, size) in [("meta", "1KiB"), ("data", "64MiB")] {
        let bench = node
            .command(&["bench", what, "--size", size, "--scratch", "scratch"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        until(
            Duration::from_secs(60),
            "the benchmark is at work",
            || match what {
                "meta" => !node.dfs(&["find", "/", "--name", "f*"]).ok().is_empty(),
                _ => large(),
            },
        );
        let pid = bench.id().to_string();
        let sent = Command::new("kill").args(["-INT", &pid]).status();
        assert!(sent.unwrap().success());
        let ended = bench.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(130), "{ended:?}");
        assert_eq!(node.dfs(&["ls", "/"]).ok(), "");
        let left = std::fs::read_dir(&scratch).map_or(0, Iterator::count);
        assert_eq!(left, 0, "local files");
    }
}

#[test]
fn a_login_makes_its_cluster_the_one_that_is_spoken_to() {
    let (home, other) = (Node::start(), Node::start());
    other.dfs(&["mkdir", "/other"]).ok();
    let create = ["-q", "token", "create", "--client", "--user", "bob"];
    let token = other.dfs(&create).ok();
    let with_no_setting = |args: &[&str]| {
        let mut command = home.command(args);
        support::ran(command.env_remove("DFS_CLUSTER").output().unwrap())
    };
    let login = ["--json", "login", &other.address, "--token", token.trim()];
    // Nowhere to write to: that does not use the token up.
    home.write("file", b"");
    let nowhere = [&["--identity", "file/me.dfs"][..], &login].concat();
    assert_ne!(with_no_setting(&nowhere).status, 0);

    let done = with_no_setting(&login).json();
    assert_eq!(done["user"], "bob");
    assert_eq!(with_no_setting(&["ls", "/"]).ok(), "other/\n");
    let kept = done["kept"].as_str().unwrap();
    assert_eq!(with_no_setting(&["--identity", kept, "ls", "/"]).ok(), "");
}

#[test]
fn a_login_gives_up_when_its_time_is_over() {
    let node = Node::start();
    let create = ["-q", "token", "create", "--client", "--user", "bob"];
    let token = node.dfs(&create).ok();
    // Nobody answers there.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = silent.local_addr().unwrap().to_string();
    let mut login = node
        .command(&["--timeout", "1s", "login", &at, "--token", token.trim()])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    until(Duration::from_secs(60), "the login gives up", || {
        login.try_wait().unwrap().is_some()
    });
    let said = support::ran(login.wait_with_output().unwrap()).fails(6);
    assert!(said.contains("no node lets us in"), "{said}");
}

#[test]
fn a_private_key_that_others_may_read_is_warned_of() {
    use std::os::unix::fs::PermissionsExt;
    let node = Node::start();
    let identity = node.path(".config/dfs/identity.dfs");
    assert_eq!(node.dfs(&["ls", "/"]).stderr, "");
    std::fs::set_permissions(&identity, std::fs::Permissions::from_mode(0o644)).unwrap();
    let warned = node.dfs(&["ls", "/"]);
    assert_eq!(warned.status, 0);
    assert!(warned.stderr.contains("other users may read"), "{warned:?}");
    assert_eq!(node.dfs(&["-q", "ls", "/"]).stderr, "");
}

#[test]
fn a_token_for_nobody_by_name_is_for_who_made_it() {
    let node = Node::start();
    let token = node.dfs(&["-q", "token", "create", "--client"]).ok();
    let login = ["--json", "--identity", "me.dfs", "login", &node.address];
    let login = [&login[..], &["--token", token.trim()]].concat();
    assert_eq!(node.dfs(&login).json()["user"], "admin");
    // As whoever made it he may do the same.
    node.dfs(&["--identity", "me.dfs", "token", "create"]).ok();
    let users = node.dfs(&["--json", "user", "ls"]).json();
    assert_eq!(users[0]["admin"], true, "{users}");
}

/// This machine's address on its default route; loopback where it has none.
fn own_ip() -> String {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    // Chooses the way and sends nothing.
    let own = socket.connect("192.0.2.1:9");
    let own = own.and_then(|()| socket.local_addr());
    own.map_or("127.0.0.1".to_owned(), |own| own.ip().to_string())
}

#[test]
fn a_node_on_all_addresses_tells_the_one_that_others_see() {
    let node = Node::listening("0.0.0.0:0");
    let (_, port) = node.address.rsplit_once(':').unwrap();
    let told = format!("{}:{port}", own_ip());
    let create = ["token", "create", "--client", "--user", "bob"];
    let created = node.dfs(&create);
    let said = created.stderr.clone();
    created.ok();
    let (_, line) = said.trim().split_once(" dfs ").expect("what to run");
    assert!(line.starts_with(&format!("login {told} ")), "{said}");
    let log = node.log();
    assert!(log.contains(&format!("address={told}")), "{log}");
    let warned = log.contains("--advertise HOST:PORT");
    assert_eq!(warned, told.starts_with("127."), "{log}");

    // What it says is run as it stands, and needs no other address.
    let run = |words: &[&str]| {
        let mut command = node.command(words);
        support::ran(command.env_remove("DFS_CLUSTER").output().unwrap())
    };
    let words: Vec<&str> = line.split_whitespace().collect();
    run(&[&["--identity", "bob.dfs"], &words[..]].concat()).ok();
    run(&["--identity", "bob.dfs", "ls", "/"]).ok();
    // The local user's client finds the node in whatever network the machine is.
    let own = std::fs::read_to_string(node.path(".config/dfs/identity.dfs")).unwrap();
    assert!(own.contains(&format!("\"127.0.0.1:{port}\"")), "{told}");
    run(&["ls", "/"]).ok();
}

/// Local files beside the target of a get that are not it.
fn parts(node: &Node) -> usize {
    let names = std::fs::read_dir(node.home.path()).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names
        .filter(|name| name.contains("back") && name != "back")
        .count()
}
