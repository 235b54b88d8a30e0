//! Starts real nodes as real processes on loopback, and runs the command line against them.
#![allow(dead_code)] // each test file uses its part

pub mod cluster;
pub mod machine;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a node may take until it serves; generous, since machines that run tests are busy.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// One node with a data directory and a user's home of its own. Killed when dropped.
pub struct Node {
    pub home: tempfile::TempDir,
    child: Option<Child>,
    pub address: String,
    listen: String,
    args: Vec<String>,
}

/// What a command did.
#[derive(Debug)]
pub struct Ran {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// The command must have succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(
            self.status, 0,
            "stdout: {}\nstderr: {}",
            self.stdout, self.stderr
        );
        self.stdout
    }

    /// The command must have failed with this exit status; returns what it said.
    #[track_caller]
    pub fn fails(self, status: i32) -> String {
        assert_eq!(
            self.status, status,
            "stdout: {}\nstderr: {}",
            self.stdout, self.stderr
        );
        self.stderr
    }

    /// The only JSON document on stdout.
    #[track_caller]
    pub fn json(self) -> serde_json::Value {
        serde_json::from_str(&self.ok()).expect("one JSON document")
    }

    /// The error document on stderr.
    #[track_caller]
    pub fn error(self, status: i32) -> serde_json::Value {
        let text = self.fails(status);
        let line = text
            .lines()
            .find(|line| line.starts_with('{'))
            .expect("an error document");
        let document: serde_json::Value = serde_json::from_str(line).expect("JSON on stderr");
        document["error"].clone()
    }
}

impl Node {
    /// Starts a new one-node cluster.
    pub fn start() -> Node {
        Node::start_with(&[])
    }

    /// Starts a new one-node cluster with more arguments of `serve`.
    pub fn start_with(args: &[&str]) -> Node {
        let mut node = Node::stopped();
        node.args = args.iter().map(|arg| arg.to_string()).collect();
        node.run();
        node
    }

    /// Starts a new one-node cluster that listens there.
    pub fn listening(on: &str) -> Node {
        let mut node = Node::stopped();
        node.listen = on.to_owned();
        node.run();
        node
    }

    /// Starts the process on the data directory (again) and waits until it serves.
    pub fn run(&mut self) {
        assert!(self.child.is_none(), "the node runs already");
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path("log.txt"))
            .unwrap();
        let mut child = self
            .command(&["serve", "--data", "data", "--listen", &self.listen])
            .args(&self.args)
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        let (send, receive) = std::sync::mpsc::sync_channel(1);
        std::thread::spawn(move || {
            let mut line = String::new();
            let _ = BufReader::new(stdout).read_line(&mut line);
            let _ = send.send(line);
        });
        let line = receive.recv_timeout(READY_WITHIN).unwrap_or_default();
        self.child = Some(child);
        let address = line
            .split_whitespace()
            .find_map(|word| word.strip_prefix("listen="));
        let Some(address) = address.filter(|_| line.starts_with("ready ")) else {
            panic!("the node does not serve: {line:?}\n{}", self.log());
        };
        // All addresses of the machine are none that can be connected to.
        self.address = address.replace("0.0.0.0:", "127.0.0.1:");
    }

    /// kill -9.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("the node runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM; returns the exit status.
    pub fn stop(&mut self) -> i32 {
        let mut child = self.child.take().expect("the node runs");
        let pid = child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &pid])
                .status()
                .unwrap()
                .success()
        );
        child.wait().unwrap().code().unwrap_or(-1)
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("log.txt")).unwrap_or_default()
    }

    /// A path in the node's home.
    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// A command of the same user, run in its home.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program());
        command
            .current_dir(self.home.path())
            .env_clear()
            .env("HOME", self.home.path())
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .stdin(Stdio::null())
            .args(args);
        if !self.address.is_empty() && args.first() != Some(&"serve") {
            command.env("DFS_CLUSTER", &self.address);
        }
        command
    }

    /// Runs `dfs ARGS` as the local user.
    pub fn dfs(&self, args: &[&str]) -> Ran {
        ran(self.command(args).output().unwrap())
    }

    /// Runs `dfs ARGS` with bytes on stdin.
    pub fn dfs_with(&self, args: &[&str], stdin: &[u8]) -> Ran {
        use std::io::Write;
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut pipe = child.stdin.take().unwrap();
        let bytes = stdin.to_vec();
        let writer = std::thread::spawn(move || {
            let _ = pipe.write_all(&bytes);
        });
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        ran(output)
    }

    /// Writes a local file in the node's home.
    pub fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

impl Node {
    /// A home with no node in it yet; `run` starts one.
    pub fn stopped() -> Node {
        let home = tempfile::tempdir().unwrap();
        Node {
            home,
            child: None,
            address: String::new(),
            listen: "127.0.0.1:0".to_owned(),
            args: Vec::new(),
        }
    }

    /// Begins a start and kills it after `delay`, whatever it is at.
    pub fn start_and_kill(&self, delay: Duration) {
        let mut child = self
            .command(&["serve", "--data", "data", "--listen", "127.0.0.1:0"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(delay);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Runs `dfs serve ARGS`, which must end by itself.
    #[track_caller]
    pub fn refused(&self, args: &[&str]) -> Ran {
        let mut child = self
            .command(&["serve"])
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut status = None;
        until(READY_WITHIN, "`serve` refuses", || {
            status = child.try_wait().unwrap();
            status.is_some()
        });
        ran(child.wait_with_output().unwrap())
    }

    /// Files below a part of the data directory.
    pub fn data_files(&self, part: &str) -> Vec<PathBuf> {
        let top = self.path("data").join(part);
        let mut files: Vec<_> = tree(&top).into_keys().map(|name| top.join(name)).collect();
        files.sort();
        files
    }

    /// Starts the process on the data directory; `Err` with what it said if it ended instead.
    pub fn try_run(&mut self) -> Result<(), String> {
        let before = self.log().len();
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.run()));
        ran.map_err(|_| self.log()[before..].to_owned())
    }
}

/// Flips bits of a file.
pub fn flip(file: &Path, offset: u64, len: usize) {
    use std::os::unix::fs::FileExt;
    let opened = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(file)
        .unwrap();
    let mut bytes = vec![0; len];
    opened.read_exact_at(&mut bytes, offset).unwrap();
    bytes.iter_mut().for_each(|byte| *byte ^= 0x5a);
    opened.write_all_at(&bytes, offset).unwrap();
}

/// Where these bytes are in a file, the last time.
pub fn find(file: &Path, what: &[u8]) -> Option<u64> {
    let bytes = std::fs::read(file).unwrap();
    let at = bytes
        .windows(what.len())
        .rposition(|window| window == what)?;
    Some(at as u64)
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- log of the node\n{}", self.log());
        }
    }
}

/// The program under test: this build's, or the one `DFS_TEST_BINARY` names (a packaged one).
pub fn program() -> PathBuf {
    let named = std::env::var_os("DFS_TEST_BINARY");
    named.map_or_else(|| env!("CARGO_BIN_EXE_dfs").into(), PathBuf::from)
}

pub fn ran(output: std::process::Output) -> Ran {
    Ran {
        status: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Bytes that look random and can be made again.
pub fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(len);
    out
}

/// Every file below a directory, with its bytes.
pub fn tree(dir: &Path) -> std::collections::BTreeMap<PathBuf, Vec<u8>> {
    fn walk(top: &Path, dir: &Path, out: &mut std::collections::BTreeMap<PathBuf, Vec<u8>>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(top, &path, out);
            } else {
                out.insert(
                    path.strip_prefix(top).unwrap().into(),
                    std::fs::read(&path).unwrap(),
                );
            }
        }
    }
    let mut out = Default::default();
    walk(dir, dir, &mut out);
    out
}

/// Polls until a condition holds.
#[track_caller]
#[allow(clippy::disallowed_methods)] // the tests' own deadline
pub fn until(within: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + within;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
