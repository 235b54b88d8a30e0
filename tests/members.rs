//! Nodes that leave, come back, are lost, copied or replaced, as real processes.

mod support;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;
use support::cluster::{Cluster, HEALTHY_WITHIN, command_in, copy_dir, free_address};
use support::{Ran, bytes, ran, until};

/// How long a drain, a repair or a fill of a small cluster may take.
const MOVED_WITHIN: Duration = Duration::from_secs(120);

/// Inline, packed and large files in `/t`, and the same in the local `tree`.
fn put_tree(cluster: &Cluster) {
    for (at, len) in [700, 60_000, 90_000, 1_300_000, 3_000_000]
        .into_iter()
        .enumerate()
    {
        cluster.write(&format!("tree/f{at}"), &bytes(at as u64 + 5, len));
    }
    cluster.dfs(&["put", "-q", "-r", "tree", "/t"]).ok();
}

/// Every chunk of the files of `put_tree` is on every node that the ring gives it to, and on so
/// many.
fn all_copies(cluster: &Cluster, copies: usize) -> bool {
    (1..5).all(|at| {
        let path = format!("/t/f{at}");
        let ran = cluster.dfs(&["--json", "ring", "locate", &path]);
        let found: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap_or_default();
        let chunks = found.as_array().cloned().unwrap_or_default();
        let whole = |chunk: &serde_json::Value| {
            let count = |name: &str| chunk[name].as_array().map_or(0, Vec::len);
            count("present") >= copies && count("present") == count("owners")
        };
        !chunks.is_empty() && chunks.iter().all(whole)
    })
}

/// `state` of a node in `dfs node ls`.
fn state_of(cluster: &Cluster, id: u64) -> String {
    let ran = cluster.dfs(&["--json", "node", "ls"]);
    let nodes: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap_or_default();
    let nodes = nodes.as_array().cloned().unwrap_or_default();
    let node = nodes.into_iter().find(|node| node["node"] == id);
    let state = node.and_then(|node| node["state"].as_str().map(str::to_owned));
    state.unwrap_or_default()
}

/// Where a node is, as the cluster knows.
fn address_of(cluster: &Cluster, id: u64) -> String {
    let nodes = cluster.dfs_at(0, &["--json", "node", "ls"]).json();
    let node = nodes.as_array().unwrap().iter().find(|n| n["node"] == id);
    node.unwrap()["address"].as_str().unwrap().to_owned()
}

#[test]
fn a_node_on_all_addresses_is_told_as_those_see_it_that_it_joins() {
    let mut cluster = Cluster::start(1);
    cluster.write("f", &bytes(1, 200_000));
    cluster.dfs(&["put", "f", "/f"]).ok();
    let everywhere = "0.0.0.0:0";
    let place = cluster.add("n1", everywhere, &[]);
    cluster.enter(place);
    // A restart chooses by what it knows of the others; it has another port here.
    for start in 0..2 {
        if start > 0 {
            cluster.members[place].address = everywhere.to_owned();
            cluster.run(place);
        }
        // The other is on this machine alone, so it is not the one of the default route.
        let told = address_of(&cluster, cluster.members[place].id);
        assert!(told.starts_with("127.0.0.1:"), "{told}");
        let log = cluster.log(place);
        assert!(log.contains(&format!("address={told}")), "{log}");
        let warned = log.matches("--advertise HOST:PORT").count();
        assert_eq!(warned, start + 1, "{log}");
        cluster.members[place].address = told;
        cluster.until_settled();
        cluster.dfs_at(place, &["get", "-f", "/f", "back"]).ok();
        assert!(std::fs::read(cluster.path("back")).unwrap() == bytes(1, 200_000));
        assert_eq!(cluster.stop(place), 0);
    }
}

#[test]
fn another_capacity_at_a_restart_is_told_and_changes_nothing() {
    let mut cluster = Cluster::empty(&[]);
    let place = cluster.add("n0", &free_address(), &[]);
    let weight = |cluster: &Cluster| {
        let nodes = cluster.dfs(&["--json", "node", "ls"]).json();
        nodes[0]["weight"].as_u64().unwrap()
    };
    let change = "`dfs node weight 1 20`";
    let mut told = 0;
    // What is given, whether it is told, and the weight then; without one nothing is said.
    let starts = [
        ("10GiB", 0, 10),
        ("20GiB", 1, 10),
        ("", 0, 10),
        ("20GiB", 0, 20),
    ];
    for (capacity, tells, known) in starts {
        if known == 20 {
            cluster.dfs(&["node", "weight", "1", "20"]).ok();
        }
        if cluster.is_running(place) {
            assert_eq!(cluster.stop(place), 0);
        }
        let given = ["--capacity", capacity];
        cluster.run_with(place, if capacity.is_empty() { &[] } else { &given });
        told += tells;
        let log = cluster.log(place);
        assert_eq!(log.matches(change).count(), told, "{capacity}: {log}");
        assert_eq!(weight(&cluster), known, "{capacity}");
    }
}

#[test]
fn a_node_that_was_drained_and_removed_ends_and_stays_out() {
    let mut cluster = Cluster::start(4);
    put_tree(&cluster);
    // Whoever leads everything: the lead moves away too.
    let leaves = cluster.leader(1);
    let id = cluster.members[leaves].id;
    let number = id.to_string();
    let early = cluster.dfs(&["--json", "node", "remove", &number]).error(4);
    let hint = early["hint"].as_str().unwrap().to_owned();
    assert!(hint.contains("drain"), "{early}");
    cluster.dfs(&["node", "drain", &number]).ok();
    until(MOVED_WITHIN, "the node is drained", || {
        state_of(&cluster, id) == "drained"
    });
    cluster.dfs(&["node", "remove", &number]).ok();
    // Whoever did not hear the answer asks again.
    cluster.dfs(&["node", "remove", &number]).ok();
    cluster.dfs(&["node", "remove", "99"]).fails(3);
    // While it lasts: that others refuse it is no refusal of whoever asks it.
    while cluster.ended_by_itself(leaves).is_none() {
        let asked = cluster.dfs_at(leaves, &["--timeout", "1s", "node", "remove", "99"]);
        assert!([3, 6].contains(&asked.status), "{}", asked.stderr);
    }
    assert_eq!(cluster.ended(leaves), 5, "{}", cluster.log(leaves));
    let said = cluster.log(leaves);
    assert!(said.contains("was removed from the cluster"), "{said}");

    let said = cluster.refused(leaves, &[], 5);
    assert!(said.contains("was removed from the cluster"), "{said}");
    assert!(said.contains("join with an empty directory"), "{said}");
    for reader in (0..4).filter(|place| *place != leaves) {
        cluster.same_tree(reader, "tree", "/t");
    }
    cluster.until_health("green", HEALTHY_WITHIN);
    assert!(all_copies(&cluster, 3));
    cluster.dfs(&["fsck"]).ok();
}

#[test]
fn a_wiped_node_joins_under_a_new_number_and_is_filled() {
    let mut cluster = Cluster::start(3);
    put_tree(&cluster);
    let lost = cluster.members[2].id;
    cluster.kill(2);
    std::fs::remove_dir_all(&cluster.members[2].data).unwrap();
    cluster.enter(2);
    let new = cluster.members[2].id;
    assert!(new > lost, "{new} is not a new number");
    cluster
        .dfs(&["node", "remove", "--force", &lost.to_string()])
        .ok();
    until(MOVED_WITHIN, "everything is there three times", || {
        all_copies(&cluster, 3)
    });
    cluster.until_health("green", MOVED_WITHIN);
    cluster.same_tree(2, "tree", "/t");
    // It votes: the others alone are no longer needed.
    cluster.kill(0);
    cluster.write("more", b"more");
    cluster.dfs(&["put", "more", "/more"]).ok();
    cluster.run(0);
    cluster.until_health("green", HEALTHY_WITHIN);
    cluster.dfs(&["fsck"]).ok();
}

#[test]
fn the_founder_may_be_lost_as_soon_as_three_vote() {
    let mut cluster = Cluster::empty(&[]);
    for _ in 0..3 {
        cluster.join();
    }
    until(HEALTHY_WITHIN, "three replicas of each group", || {
        let status = cluster.status();
        let groups = status["shards"].as_array().cloned().unwrap_or_default();
        let whole = |group: &serde_json::Value| group["replicas"].as_array().unwrap().len() == 3;
        groups.len() == 2 && groups.iter().all(whole)
    });
    let lost = cluster.members[0].id;
    cluster.kill(0);
    std::fs::remove_dir_all(&cluster.members[0].data).unwrap();
    // The others can open the CA, and let it in again.
    cluster.enter(0);
    assert!(cluster.members[0].id > lost);
    cluster
        .dfs(&["node", "remove", "--force", &lost.to_string()])
        .ok();
    cluster.until_health("green", MOVED_WITHIN);
}

#[test]
fn an_old_copy_of_a_data_directory_is_refused() {
    let mut cluster = Cluster::start(3);
    put_tree(&cluster);
    assert_eq!(cluster.stop(2), 0);
    let (data, copy) = (cluster.members[2].data.clone(), cluster.path("copy"));
    copy_dir(&data, &copy);
    cluster.run(2);
    cluster.write("later", b"later");
    cluster.dfs(&["put", "later", "/later"]).ok();
    assert_eq!(cluster.stop(2), 0);
    std::fs::rename(&data, cluster.path("newest")).unwrap();
    copy_dir(&copy, &data);
    let said = cluster.refused(2, &[], 5);
    assert!(said.contains("copy of its data directory"), "{said}");
    assert!(said.contains("use the newest copy"), "{said}");
    // A service manager starts it again and again: it does not become newer by that.
    for _ in 0..3 {
        let again = cluster.refused(2, &[], 5);
        assert!(again.contains("copy of its data directory"), "{again}");
    }
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::rename(cluster.path("newest"), &data).unwrap();
    cluster.run(2);
    cluster.until_health("green", HEALTHY_WITHIN);
    assert_eq!(cluster.dfs_at(2, &["cat", "/later"]).ok(), "later");
    // Others may just have heard that it is starting, and do not dial it again for a moment.
    until(HEALTHY_WITHIN, "fsck is clean", || {
        cluster.dfs(&["fsck"]).status == 0
    });
}

/// A rack that was moved into another network: nobody is where anybody knows him to be.
#[test]
fn nodes_that_have_all_moved_find_each_other_where_the_operator_says() {
    let mut cluster = Cluster::start(3);
    put_tree(&cluster);
    for place in 0..3 {
        cluster.kill(place);
    }
    for member in &mut cluster.members {
        member.address = free_address();
    }
    let first = cluster.members[0].address.clone();
    cluster.run_without_waiting(0);
    for place in [1, 2] {
        cluster.run_with(place, &["--join", &first]);
    }
    cluster.until_health("green", HEALTHY_WITHIN);
    for place in 0..3 {
        cluster.same_tree(place, "tree", "/t");
    }
    // From here on they know each other again.
    cluster.kill(0);
    cluster.run(0);
    cluster.until_health("green", HEALTHY_WITHIN);
}

#[test]
fn a_clone_beside_the_original_is_refused() {
    let mut cluster = Cluster::start(3);
    put_tree(&cluster);
    assert_eq!(cluster.stop(2), 0);
    let (data, clone) = (cluster.members[2].data.clone(), cluster.path("clone"));
    copy_dir(&data, &clone);
    cluster.run(2);
    let place = cluster.add("clone", &free_address(), &[]);
    let said = cluster.refused(place, &[], 5);
    assert!(said.contains("copy of its data directory"), "{said}");
    // The original is not disturbed.
    assert!(cluster.is_running(2));
    assert_eq!(state_of(&cluster, cluster.members[2].id), "online");
    cluster.same_tree(2, "tree", "/t");
    cluster.until_health("green", HEALTHY_WITHIN);
    cluster.dfs(&["fsck"]).ok();
}

#[test]
fn what_a_dead_node_had_is_made_anew_on_one_that_joined() {
    let mut cluster = Cluster::start(3);
    put_tree(&cluster);
    cluster.join();
    cluster.until_health("green", MOVED_WITHIN);
    let dead = cluster.leader(1);
    cluster.kill(dead);
    // 30 s until it counts as gone, then the copies and the replicas.
    until(MOVED_WITHIN, "three copies without the dead node", || {
        let status = cluster.status();
        let offline = status["nodes"]
            .as_array()
            .unwrap()
            .iter()
            .any(|node| node["state"] == "offline" && node["node"] == cluster.members[dead].id);
        let replicas = status["shards"].as_array().unwrap().iter().all(|shard| {
            let replicas = shard["replicas"].as_array().unwrap();
            replicas.len() == 3 && !replicas.contains(&cluster.members[dead].id.into())
        });
        offline && replicas && all_copies(&cluster, 3)
    });
    let alive: Vec<_> = (0..4).filter(|place| *place != dead).collect();
    for reader in &alive {
        cluster.same_tree(*reader, "tree", "/t");
    }
    cluster.dfs(&["fsck"]).ok();
    // One more may die now.
    cluster.kill(alive[0]);
    cluster.same_tree(alive[1], "tree", "/t");
    cluster.run(alive[0]);
    cluster.run(dead);
    cluster.until_health("green", MOVED_WITHIN);
    cluster.dfs(&["fsck"]).ok();
}

/// A writer and a reader who work while nodes come and go. Any error ends them.
struct AtWork {
    dir: PathBuf,
    /// Addresses of the nodes that are there. Held while a command knows one of them: a node is
    /// taken out between commands.
    nodes: RwLock<Vec<String>>,
    /// Files so far: `w/f0` and so on, with the same bytes in `/w`.
    written: AtomicU64,
    read: AtomicU64,
    stop: AtomicBool,
}

impl AtWork {
    /// A command that knows one node alone, and others through it.
    fn dfs(&self, node: &str, args: &[&str]) -> Ran {
        let mut command = command_in(&self.dir, args);
        command
            .env("DFS_CLUSTER", node)
            .env("XDG_STATE_HOME", self.dir.join(format!("state-{node}")));
        ran(command.output().unwrap())
    }

    fn same_file(&self, node: &str, number: u64, back: &str) {
        let (local, remote) = (format!("w/f{number}"), format!("/w/f{number}"));
        self.dfs(node, &["get", "-q", "-f", &remote, back]).ok();
        let [wanted, found] = [&local, back].map(|file| std::fs::read(self.dir.join(file)));
        assert!(wanted.unwrap() == found.unwrap(), "{remote} at {node}");
    }

    /// Puts file after file and reads each back through another node.
    fn write(&self) {
        while !self.stop.load(Ordering::SeqCst) {
            let number = self.written.load(Ordering::SeqCst);
            let len = [900, 60_000, 300_000, 1_300_000][number as usize % 4];
            let (local, remote) = (format!("w/f{number}"), format!("/w/f{number}"));
            std::fs::write(self.dir.join(&local), bytes(number + 100, len)).unwrap();
            let nodes = self.nodes.read().unwrap();
            let [through, other] = [0, 1].map(|next| (number as usize + next) % nodes.len());
            self.dfs(&nodes[through], &["put", "-q", &local, &remote])
                .ok();
            self.same_file(&nodes[other], number, "written-back");
            self.written.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Reads the first files and the newest again and again.
    fn read(&self) {
        while !self.stop.load(Ordering::SeqCst) {
            let round = self.read.fetch_add(1, Ordering::SeqCst);
            let written = self.written.load(Ordering::SeqCst);
            let nodes = self.nodes.read().unwrap();
            let node = &nodes[round as usize % nodes.len()];
            if round.is_multiple_of(4) {
                let listed = self.dfs(node, &["ls", "/w"]).ok().lines().count();
                assert!(listed as u64 >= written, "{listed} of {written} at {node}");
            } else {
                self.same_file(
                    node,
                    [round % 4, written - 1][round as usize % 2],
                    "read-back",
                );
            }
        }
    }

    /// Both do more from here on.
    #[track_caller]
    fn go_on(&self) {
        let counts = || [&self.written, &self.read].map(|count| count.load(Ordering::SeqCst));
        let [written, read] = counts();
        until(HEALTHY_WITHIN, "the writer and the reader go on", || {
            let now = counts();
            now[0] > written + 1 && now[1] > read + 1
        });
    }
}

#[test]
fn nodes_come_and_go_while_a_writer_and_a_reader_go_on() {
    let mut cluster = Cluster::start(3);
    put_tree(&cluster);
    cluster.dfs(&["mkdir", "/w"]).ok();
    std::fs::create_dir(cluster.path("w")).unwrap();
    let address = |cluster: &Cluster, place: usize| cluster.members[place].address.clone();
    let work = Arc::new(AtWork {
        dir: cluster.dir.clone(),
        nodes: RwLock::new((0..3).map(|place| address(&cluster, place)).collect()),
        written: AtomicU64::new(0),
        read: AtomicU64::new(0),
        stop: AtomicBool::new(false),
    });
    let (writer, reader) = (work.clone(), work.clone());
    let writer = std::thread::spawn(move || writer.write());
    until(HEALTHY_WITHIN, "there is something to read", || {
        work.written.load(Ordering::SeqCst) > 4
    });
    let reader = std::thread::spawn(move || reader.read());
    for nodes in [5, 7] {
        while cluster.members.len() < nodes {
            let place = cluster.join();
            work.nodes.write().unwrap().push(address(&cluster, place));
        }
        cluster.until_health("green", MOVED_WITHIN);
        work.go_on();
    }
    // Whoever leads everything goes with all that were there first, two at a time.
    let leads = cluster.leader(1);
    let others = (0..7).filter(|place| *place != leads);
    let leave: Vec<usize> = std::iter::once(leads).chain(others).take(4).collect();
    for two in leave.chunks(2) {
        let id = |cluster: &Cluster, place: usize| cluster.members[place].id;
        for place in two {
            let number = id(&cluster, *place).to_string();
            cluster.dfs(&["node", "drain", &number]).ok();
        }
        for place in two {
            until(MOVED_WITHIN, "the node is drained", || {
                state_of(&cluster, id(&cluster, *place)) == "drained"
            });
            let gone = address(&cluster, *place);
            work.nodes.write().unwrap().retain(|node| *node != gone);
            let number = id(&cluster, *place).to_string();
            cluster.dfs(&["node", "remove", &number]).ok();
            assert_eq!(cluster.ended(*place), 5, "{}", cluster.log(*place));
        }
        work.go_on();
    }
    work.stop.store(true, Ordering::SeqCst);
    for user in [writer, reader] {
        user.join().expect("no error");
    }
    cluster.until_health("green", MOVED_WITHIN);
    until(MOVED_WITHIN, "everything is there three times", || {
        all_copies(&cluster, 3)
    });
    for place in (0..7).filter(|place| !leave.contains(place)) {
        cluster.same_tree(place, "tree", "/t");
        cluster.same_tree(place, "w", "/w");
    }
    cluster.dfs(&["fsck"]).ok();
    eprintln!("written: {:?}, read: {:?}", work.written, work.read);
}

/// Any node is asked, also one that has no replica of the root group.
#[test]
fn a_node_without_a_replica_of_the_root_group_knows_the_users() {
    let cluster = Cluster::start(4);
    let status = cluster.status();
    let root = status["shards"][0]["replicas"].as_array().unwrap();
    let outside = |place: &usize| !root.contains(&cluster.members[*place].id.into());
    let asked = (0..4).find(outside).expect("three of four have a replica");
    let token = cluster.token(&["--user", "bob"]);
    let bob = cluster.path("bob.dfs").display().to_string();
    let to = cluster.members[asked].address.clone();
    cluster
        .dfs(&["--identity", &bob, "login", &to, "--token", &token])
        .ok();
    for (change, removed) in [(&["ls", "/"][..], false), (&["user", "rm", "bob"], true)] {
        cluster.dfs(change).ok();
        // At once: what was answered is known.
        for place in [asked, (asked + 1) % 4, (asked + 2) % 4, (asked + 3) % 4] {
            let users = cluster.dfs_at(place, &["--json", "user", "ls"]).json();
            let users = users.as_array().unwrap();
            let found = users.iter().find(|user| user["name"] == "bob").unwrap();
            assert_eq!(found["revoked"], removed, "through {place}: {found}");
        }
    }
}
