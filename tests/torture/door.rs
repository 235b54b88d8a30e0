//! One client of the tortured cluster: runs `dfs` processes, notes on disk what it is about to do
//! and what came of it, and does not rest until it knows.

use crate::dice::Dice;
use serde_json::Value;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long one `dfs` may try; then the same operation is sent again.
const TRY: &str = "4s";
/// A client that dies in the middle of its work does so within this.
const DIES_WITHIN_MS: u64 = 400;
/// Changes of which the client is killed, percent.
const KILLED: u64 = 4;

/// What came of a change, for certain.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    Done(Value),
    /// With its code; nothing was done.
    Refused(String),
}

/// Where and how a client asks.
#[derive(Clone)]
pub struct Way {
    pub home: PathBuf,
    pub nodes: Vec<String>,
}

pub struct Door {
    way: Way,
    name: String,
    journal: File,
    pub dice: Dice,
    operations: u64,
    /// Changes that were sent again before their outcome was known.
    pub again: u64,
}

impl Door {
    pub fn new(way: &Way, name: &str, dice: Dice) -> Door {
        let journal = way.home.join(format!("journal-{name}.txt"));
        Door {
            way: way.clone(),
            name: name.to_owned(),
            journal: File::create(journal).unwrap(),
            dice,
            operations: 0,
            again: 0,
        }
    }

    /// What this client keeps to put.
    pub fn local(&self) -> PathBuf {
        self.way.home.join(format!("local-{}", self.name))
    }

    pub fn home(&self) -> &Path {
        &self.way.home
    }

    /// The journal's line is on disk before this returns.
    fn note(&mut self, line: &str) {
        writeln!(self.journal, "{line}").unwrap();
        self.journal.sync_data().unwrap();
    }

    /// Any node first; the others are known as well.
    fn command(&mut self, args: &[&str]) -> Command {
        let mut nodes = self.way.nodes.clone();
        let first = self.dice.below(nodes.len() as u64) as usize;
        nodes.swap(0, first);
        let mut command = command_at(&self.way.home, &nodes.join(","));
        // Each client looks for itself who leads.
        let state = self.way.home.join(format!("state-{}", self.name));
        command.env("XDG_STATE_HOME", state);
        command.args(["--json", "--timeout", TRY]).args(args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Makes a change, again and again under one identity until it is known what came of it.
    pub fn change(&mut self, args: &[&str]) -> Outcome {
        self.operations += 1;
        let id = format!("{}-{}", self.name, self.operations);
        self.note(&format!("{id} intends {args:?}"));
        loop {
            let mut command = self.command(&[args, &["--op-id", &id]].concat());
            let mut child = command.spawn().unwrap();
            if self.dice.percent(KILLED) {
                std::thread::sleep(Duration::from_millis(self.dice.below(DIES_WITHIN_MS)));
                let _ = child.kill();
            }
            let output = child.wait_with_output().unwrap();
            let (out, err) = (
                String::from_utf8_lossy(&output.stdout).into_owned(),
                String::from_utf8_lossy(&output.stderr).into_owned(),
            );
            let known = match output.status.code() {
                Some(0) => Some(Outcome::Done(
                    serde_json::from_str(&out).unwrap_or(Value::Null),
                )),
                Some(_) => refusal(&err),
                None => None,
            };
            if let Some(known) = known {
                self.note(&format!("{id} {known:?} {}", err.trim()));
                return known;
            }
            self.again += 1;
            self.note(&format!("{id} unknown: {}", err.trim()));
        }
    }

    /// Asks until there is an answer: what was printed, or the code of the refusal.
    pub fn ask(&mut self, args: &[&str]) -> Result<Vec<u8>, String> {
        loop {
            let output = self.command(args).output().unwrap();
            if output.status.success() {
                return Ok(output.stdout);
            }
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            if let Some(Outcome::Refused(code)) = refusal(&said) {
                self.note(&format!("asked {args:?}: {}", said.trim()));
                return Err(code);
            }
        }
    }
}

/// `dfs` as the user of this home, against these nodes.
pub fn command_at(home: &Path, nodes: &str) -> Command {
    let mut command = Command::new(crate::support::program());
    command
        .env_clear()
        .env("HOME", home)
        .env("DFS_CLUSTER", nodes)
        .current_dir(home)
        .stdin(Stdio::null());
    command
}

/// A refusal that is certain; `None` for all that passes: nobody answers, too busy, unknown.
fn refusal(stderr: &str) -> Option<Outcome> {
    let line = stderr.lines().rfind(|line| line.starts_with('{'))?;
    let error: Value = serde_json::from_str(line).ok()?;
    let error = &error["error"];
    let code = error["code"].as_str()?;
    let passes = code == "unavailable" || error["may_have_happened"] == true;
    (!passes).then(|| Outcome::Refused(code.to_owned()))
}
