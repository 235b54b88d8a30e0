//! Several real nodes on loopback: each with a data directory and an address of its own, which it
//! keeps over restarts; one user's home for all of them.

use super::{Ran, program, ran, until};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

/// How long a start may take, with what it must fetch; and how long a cluster may take until
/// nothing is missing. Generous, since machines that run tests are busy.
pub const READY_WITHIN: Duration = Duration::from_secs(60);
pub const HEALTHY_WITHIN: Duration = Duration::from_secs(60);

/// One node's place: the number of its place in the cluster is not the number the cluster gave.
pub struct Member {
    pub data: PathBuf,
    pub address: String,
    /// The cluster's number for it, once it was ready.
    pub id: u64,
    args: Vec<String>,
    env: Vec<(String, String)>,
    child: Option<Child>,
}

/// Killed when dropped, with all its nodes.
pub struct Cluster {
    home: Option<tempfile::TempDir>,
    pub dir: PathBuf,
    pub members: Vec<Member>,
    settings: Vec<(String, String)>,
    /// What is done to each node's process before it runs.
    prepare: Option<Prepare>,
}

/// Gets the node's place and its command.
pub type Prepare = Box<dyn Fn(usize, &mut Command) + Send + Sync>;

impl Cluster {
    /// So many nodes, joined by token; everything is where it belongs.
    pub fn start(nodes: usize) -> Cluster {
        Cluster::start_with(nodes, &[])
    }

    /// The same with settings of the nodes' environment.
    pub fn start_with(nodes: usize, settings: &[(&str, &str)]) -> Cluster {
        let mut cluster = Cluster::empty(settings);
        for _ in 0..nodes {
            cluster.join();
        }
        cluster.until_settled();
        cluster
    }

    /// No node yet.
    pub fn empty(settings: &[(&str, &str)]) -> Cluster {
        let home = tempfile::tempdir().unwrap();
        let own = |(key, value): &(&str, &str)| (key.to_string(), value.to_string());
        Cluster {
            dir: home.path().to_owned(),
            home: Some(home),
            members: Vec::new(),
            settings: settings.iter().map(own).collect(),
            prepare: None,
        }
    }

    /// Has something done to each node's process before it runs.
    pub fn prepared(mut self, prepare: Prepare) -> Cluster {
        self.prepare = Some(prepare);
        self
    }

    /// One more node, made or joined by token; waits until it serves. Returns its place.
    pub fn join(&mut self) -> usize {
        let place = self.members.len();
        self.add(&format!("n{place}"), &free_address(), &[]);
        self.enter(place);
        place
    }

    /// A place for a node that does not run yet.
    pub fn add(&mut self, data: &str, address: &str, env: &[(&str, &str)]) -> usize {
        let own = |(key, value): &(&str, &str)| (key.to_string(), value.to_string());
        self.members.push(Member {
            data: self.path(data),
            address: address.to_owned(),
            id: 0,
            args: Vec::new(),
            env: env.iter().map(own).collect(),
            child: None,
        });
        self.members.len() - 1
    }

    /// First start of a place: a new cluster if there is none, else a join by token.
    #[track_caller]
    pub fn enter(&mut self, place: usize) {
        let others: Vec<String> = self.running().map(|m| m.address.clone()).collect();
        if !others.is_empty() {
            let token = self.token(&[]);
            let join = ["--join", &others.join(","), "--token", &token];
            return self.run_with(place, &join);
        }
        self.run(place);
    }

    /// A token as `dfs token create ARGS` prints it.
    #[track_caller]
    pub fn token(&self, args: &[&str]) -> String {
        let text = self.dfs(&[&["token", "create", "-q"], args].concat()).ok();
        text.trim().to_owned()
    }

    /// Starts a process on a place's data directory and waits until it serves.
    #[track_caller]
    pub fn run(&mut self, place: usize) {
        let line = self.begin(place);
        let said = |word: &str| line.split_whitespace().find_map(|w| w.strip_prefix(word));
        let Some(id) = said("node=").filter(|_| line.starts_with("ready ")) else {
            panic!("node {place} does not serve: {line:?}\n{}", self.log(place));
        };
        self.members[place].id = id.parse().unwrap();
    }

    /// The same with more arguments, for this start only.
    #[track_caller]
    pub fn run_with(&mut self, place: usize, args: &[&str]) {
        self.members[place].args = args.iter().map(|arg| arg.to_string()).collect();
        self.run(place);
        self.members[place].args.clear();
    }

    /// Starts several places at once: none of them can serve without the others.
    #[track_caller]
    pub fn run_all(&mut self, places: &[usize]) {
        let started = self.try_run_all(places);
        started.unwrap_or_else(|(place, said)| panic!("node {place}: {said}"));
    }

    /// The same; or the first place that does not serve, and its log.
    pub fn try_run_all(&mut self, places: &[usize]) -> Result<(), (usize, String)> {
        let lines: Vec<_> = (places.iter()).map(|place| self.spawn(*place)).collect();
        for (place, line) in places.iter().zip(lines) {
            let line = line.recv_timeout(READY_WITHIN).unwrap_or_default();
            if !line.starts_with("ready ") {
                return Err((*place, format!("{line:?}\n{}", self.log(*place))));
            }
        }
        Ok(())
    }

    fn begin(&mut self, place: usize) -> String {
        self.spawn(place)
            .recv_timeout(READY_WITHIN)
            .unwrap_or_default()
    }

    fn spawn(&mut self, place: usize) -> std::sync::mpsc::Receiver<String> {
        let mut command = self.serve(place);
        let member = &mut self.members[place];
        assert!(member.child.is_none(), "node {place} runs already");
        let mut child = command.spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        member.child = Some(child);
        let (send, receive) = std::sync::mpsc::sync_channel(1);
        std::thread::spawn(move || {
            let mut line = String::new();
            let _ = BufReader::new(stdout).read_line(&mut line);
            let _ = send.send(line);
        });
        receive
    }

    /// `dfs serve` of a place, with its log appended to a file.
    pub fn serve(&self, place: usize) -> Command {
        let member = &self.members[place];
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_file(place))
            .unwrap();
        let mut command = self.command(&["serve", "--listen", &member.address, "--data"]);
        command
            .arg(&member.data)
            .args(&member.args)
            .envs(self.settings.iter().cloned())
            .envs(member.env.iter().cloned())
            .stdout(Stdio::piped())
            .stderr(log);
        if let Some(prepare) = &self.prepare {
            prepare(place, &mut command);
        }
        command
    }

    /// Starts a node that will not be ready, or not soon.
    pub fn run_without_waiting(&mut self, place: usize) {
        drop(self.spawn(place));
    }

    /// `dfs serve` of a place, which must end by itself with this exit status; what it said.
    #[track_caller]
    pub fn refused(&self, place: usize, args: &[&str], status: i32) -> String {
        let mut command = self.serve(place);
        command.args(args).stderr(Stdio::piped());
        let mut child = Killed(command.spawn().unwrap());
        until(READY_WITHIN, "`serve` refuses", || {
            child.0.try_wait().unwrap().is_some()
        });
        let mut said = String::new();
        let mut stderr = child.0.stderr.take().unwrap();
        std::io::Read::read_to_string(&mut stderr, &mut said).unwrap();
        let code = child.0.wait().unwrap().code();
        assert_eq!(code, Some(status), "{said}");
        said
    }

    /// kill -9.
    pub fn kill(&mut self, place: usize) {
        let mut child = self.members[place].child.take().expect("the node runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM; the exit status.
    pub fn stop(&mut self, place: usize) -> i32 {
        self.signal(place, "TERM");
        self.ended(place)
    }

    /// Waits until a node's process has ended by itself; the exit status.
    #[track_caller]
    pub fn ended(&mut self, place: usize) -> i32 {
        let child = self.members[place].child.as_mut().expect("the node runs");
        let mut status = None;
        until(READY_WITHIN, "the process ends", || {
            status = child.try_wait().unwrap();
            status.is_some()
        });
        self.members[place].child = None;
        status.unwrap().code().unwrap_or(-1)
    }

    /// The exit status of a node that should run and does not.
    pub fn ended_by_itself(&mut self, place: usize) -> Option<std::process::ExitStatus> {
        let child = self.members[place].child.as_mut()?;
        child.try_wait().unwrap()
    }

    /// Sends a signal: `STOP`, `CONT`, `TERM`.
    pub fn signal(&self, place: usize, name: &str) {
        let pid = self.pid(place).to_string();
        let status = Command::new("kill")
            .args([&format!("-{name}"), &pid])
            .status();
        assert!(status.unwrap().success());
    }

    pub fn pid(&self, place: usize) -> u32 {
        let child = self.members[place].child.as_ref().expect("the node runs");
        child.id()
    }

    pub fn is_running(&self, place: usize) -> bool {
        self.members[place].child.is_some()
    }

    fn running(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.child.is_some())
    }

    pub fn log(&self, place: usize) -> String {
        std::fs::read_to_string(self.log_file(place)).unwrap_or_default()
    }

    fn log_file(&self, place: usize) -> PathBuf {
        self.path(&format!("log{place}.txt"))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Writes a local file in the user's home.
    pub fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// A command of the user, run in his home; knows no node's address.
    pub fn command(&self, args: &[&str]) -> Command {
        command_in(&self.dir, args)
    }

    /// A command that asks one node, and knows of no other but through it.
    pub fn command_at(&self, place: usize, args: &[&str]) -> Command {
        let mut command = self.command(args);
        let state = self.path(&format!("state{place}"));
        command
            .env("DFS_CLUSTER", &self.members[place].address)
            .env("XDG_STATE_HOME", state);
        command
    }

    /// Runs `dfs ARGS` against all running nodes.
    pub fn dfs(&self, args: &[&str]) -> Ran {
        let all: Vec<_> = self.running().map(|m| m.address.clone()).collect();
        let mut command = self.command(args);
        ran(command.env("DFS_CLUSTER", all.join(",")).output().unwrap())
    }

    /// Runs `dfs ARGS` against one node.
    pub fn dfs_at(&self, place: usize, args: &[&str]) -> Ran {
        ran(self.command_at(place, args).output().unwrap())
    }

    /// `dfs status --json`.
    #[track_caller]
    pub fn status(&self) -> serde_json::Value {
        self.dfs(&["--json", "status"]).json()
    }

    /// Waits until the cluster is of this health. How full the disk of the machine is that runs the
    /// test does not count.
    #[track_caller]
    pub fn until_health(&self, health: &str, within: Duration) {
        let mut last = String::new();
        let is = || {
            let ran = self.dfs(&["--json", "status"]);
            last = format!("{}{}", ran.stdout, ran.stderr);
            let status: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap_or_default();
            let reasons = status["reasons"].as_array().cloned().unwrap_or_default();
            let is_disk = |reason: &serde_json::Value| {
                let text = reason.as_str().unwrap_or_default();
                text.ends_with("% of the disk is used")
            };
            let only_disk = health == "green" && reasons.iter().all(is_disk);
            ran.status == 0 && (status["health"] == health || only_disk)
        };
        let held = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            until(within, "health", is);
        }));
        assert!(held.is_ok(), "not {health} within {within:?}: {last}");
    }

    /// Waits until nothing is missing, moving or broken: green, or what fewer nodes than three
    /// leave to be wished.
    #[track_caller]
    pub fn until_settled(&self) {
        if self.running().count() >= 3 {
            return self.until_health("green", HEALTHY_WITHIN);
        }
        until(HEALTHY_WITHIN, "chunks have moved", || {
            let ran = self.dfs(&["--json", "status"]);
            let status: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap_or_default();
            ran.status == 0 && !status["reasons"].to_string().contains("moving")
        });
    }

    /// The place of the node that leads a group.
    #[track_caller]
    pub fn leader(&self, group: u64) -> usize {
        let mut found = None;
        until(READY_WITHIN, "the group has a leader", || {
            let ran = self.dfs(&["--json", "status"]);
            let status: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap_or_default();
            let shards = status["shards"].as_array().cloned().unwrap_or_default();
            let shard = shards.iter().find(|shard| shard["shard"] == group);
            let leader = shard.and_then(|shard| shard["leader"].as_u64());
            found = self.members.iter().position(|m| Some(m.id) == leader);
            found.is_some_and(|place| self.is_running(place))
        });
        found.unwrap()
    }

    /// A local tree and a remote one must be the same, read through this node.
    #[track_caller]
    pub fn same_tree(&self, place: usize, local: &str, remote: &str) {
        let back = format!("back{place}");
        let _ = std::fs::remove_dir_all(self.path(&back));
        self.dfs_at(place, &["get", "-q", "-r", remote, &back]).ok();
        let (local, back) = (
            super::tree(&self.path(local)),
            super::tree(&self.path(&back)),
        );
        let names =
            |tree: &std::collections::BTreeMap<PathBuf, Vec<u8>>| tree.keys().cloned().collect();
        let (wanted, found): (Vec<_>, Vec<_>) = (names(&local), names(&back));
        assert_eq!(wanted, found, "through node {place}");
        for (name, bytes) in &local {
            assert!(
                back[name] == *bytes,
                "{name:?} has other bytes through node {place}"
            );
        }
    }
}

impl Member {
    /// Files below a part of the data directory, of which some may come and go meanwhile.
    pub fn files(&self, part: &str) -> Vec<PathBuf> {
        fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                match entry.path().is_dir() {
                    true if entry.file_name() != "tmp" => walk(&entry.path(), found),
                    true => {}
                    false => found.push(entry.path()),
                }
            }
        }
        let mut found = Vec::new();
        walk(&self.data.join(part), &mut found);
        found.sort();
        found
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in &mut self.members {
            if let Some(mut child) = member.child.take() {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
        if std::thread::panicking() {
            for place in 0..self.members.len() {
                let log = self.log(place);
                let from = log.len().saturating_sub(6_000);
                let from = (from..log.len()).find(|at| log.is_char_boundary(*at));
                eprintln!(
                    "--- log of node {place}\n{}",
                    &log[from.unwrap_or(log.len())..]
                );
            }
            if std::env::var_os("DFS_TEST_KEEP").is_some()
                && let Some(home) = self.home.take()
            {
                eprintln!("--- kept: {}", home.keep().display());
            }
        }
    }
}

/// A command of the user whose home is `dir`; knows no node's address.
pub fn command_in(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(program());
    command
        .current_dir(dir)
        .env_clear()
        .env("HOME", dir)
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .stdin(Stdio::null())
        .args(args);
    command
}

/// A process that does not outlive its test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An address nobody else has, now or while its node is down: all of 127.0.0.0/8 is this machine,
/// so the process has hosts of its own; the ports are none that the system gives away by itself.
pub fn free_address() -> String {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let [_, a, b, c] = std::process::id().to_be_bytes();
    let port = 7_440 + NEXT.fetch_add(1, Ordering::Relaxed);
    format!("127.{}.{b}.{c}:{port}", a.saturating_add(1))
}

/// Copies a directory with everything in it; holes stay holes.
pub fn copy_dir(from: &Path, to: &Path) {
    let status = Command::new("cp")
        .args(["-a", "--sparse=always"])
        .args([from, to])
        .status();
    assert!(status.unwrap().success(), "cp {from:?} {to:?}");
}
