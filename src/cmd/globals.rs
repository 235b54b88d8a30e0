//! The flags every verb takes, and flags that several verbs share.

use crate::client::OpIds;
use crate::config::units::{ByteRange, parse_duration, parse_range};
use crate::config::{Config, addresses};
use crate::error::{Error, Result};
use crate::types::{FileVersion, ReadLevel};
use clap::{ArgAction, Args};
use std::path::PathBuf;
use std::time::Duration;

/// Settings that hold for any verb.
#[derive(Args, Clone, Debug, Default)]
pub struct Globals {
    /// Nodes to connect to (else DFS_CLUSTER, the settings file, the identity)
    #[arg(
        long,
        global = true,
        value_name = "HOST:PORT,…",
        help_heading = "Global options"
    )]
    pub cluster: Option<String>,
    /// Settings file to read instead of the usual ones (else DFS_CONFIG)
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        help_heading = "Global options"
    )]
    pub config: Option<PathBuf>,
    /// Identity to connect with (else DFS_IDENTITY, the settings file, the default place)
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        help_heading = "Global options"
    )]
    pub identity: Option<PathBuf>,
    /// Results as JSON on standard output, errors as JSON on standard error
    #[arg(long, global = true, help_heading = "Global options")]
    pub json: bool,
    /// Neither progress nor notes nor summaries; errors still
    #[arg(short, long, global = true, help_heading = "Global options")]
    pub quiet: bool,
    /// Operation ids and notes on standard error; twice: debugging messages
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = "Global options")]
    pub verbose: u8,
    /// No progress bar, even on a terminal
    #[arg(long, global = true, help_heading = "Global options")]
    pub no_progress: bool,
    /// How long one request may take with its retries, such as 30s
    #[arg(
        long,
        global = true,
        value_name = "DUR",
        value_parser = parse_duration,
        help_heading = "Global options"
    )]
    pub timeout: Option<Duration>,
}

impl Globals {
    /// Puts the flags on top of what files and environment say.
    ///
    /// # Errors
    /// `usage` for addresses that are none and a timeout of zero.
    pub fn apply(&self, config: &mut Config) -> Result<()> {
        if let Some(cluster) = &self.cluster {
            config.client.cluster = addresses(cluster)?;
        }
        if let Some(identity) = &self.identity {
            config.client.identity = Some(identity.clone());
        }
        if let Some(timeout) = self.timeout {
            if timeout.is_zero() {
                return Err(
                    Error::usage("the timeout is zero").hint("give a longer one, such as 30s")
                );
            }
            config.client.timeout = Some(timeout);
        }
        Ok(())
    }
}

/// `--op-id`, taken by every verb that changes something.
#[derive(Args, Clone, Debug, Default)]
pub struct OpFlag {
    /// Identity of the operation: sent again by the same user within 1 h it is applied once
    #[arg(long, value_name = "ID")]
    pub op_id: Option<String>,
}

impl OpFlag {
    /// For the only item of a command.
    pub fn only(&self) -> OpIds {
        OpIds::from_flag(self.op_id.clone())
    }

    /// For the item at `index` of `count`: with several items each needs its own, and the same
    /// command again must give the same ones.
    pub fn nth(&self, index: usize, count: usize) -> OpIds {
        match &self.op_id {
            Some(id) if count > 1 => OpIds::Given(format!("{id}.{index}")),
            _ => self.only(),
        }
    }
}

/// `--read`, taken by every verb that only reads.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct ReadFlag {
    /// How fresh: linearizable, follower, bounded:DUR or stale
    #[arg(long = "read", value_name = "LEVEL", value_parser = parse_level)]
    level: Option<ReadLevel>,
}

impl ReadFlag {
    pub fn level(self) -> ReadLevel {
        self.level.unwrap_or_default()
    }
}

fn parse_level(text: &str) -> Result<ReadLevel> {
    let bounded = text
        .strip_prefix("bounded:")
        .map(parse_duration)
        .transpose()?;
    match (text, bounded) {
        (_, Some(age)) => Ok(ReadLevel::Bounded(
            u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
        )),
        ("linearizable", _) => Ok(ReadLevel::Linearizable),
        ("follower", _) => Ok(ReadLevel::Follower),
        ("stale", _) => Ok(ReadLevel::Stale),
        _ => Err(Error::usage("no such read level")
            .hint("choose linearizable, follower, bounded:DUR or stale")),
    }
}

/// `--version` and `--range`, taken by verbs that read content.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct PartFlags {
    /// This version instead of the current one
    #[arg(long, value_name = "N", value_parser = parse_version)]
    pub version: Option<FileVersion>,
    /// Only these bytes, both ends included (0-99 is the first 100), or START- to the end
    #[arg(long, value_name = "START-END", value_parser = parse_range)]
    pub range: Option<ByteRange>,
}

impl PartFlags {
    /// The range as the client takes it: behind the last byte instead of it.
    pub fn half_open(&self) -> Option<(u64, Option<u64>)> {
        // A last byte of 2^64-1 is behind the end of every file.
        self.range
            .map(|range| (range.start, range.last.and_then(|last| last.checked_add(1))))
    }
}

/// Reads a file's version: 1 and more.
pub fn parse_version(text: &str) -> Result<FileVersion> {
    match text.parse::<u64>() {
        Ok(number) if number > 0 => Ok(FileVersion(number)),
        _ => Err(Error::usage("not a version (1 and more)").hint("dfs versions PATH shows them")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_item_of_a_command_has_its_own_repeatable_id() {
        let flag = OpFlag {
            op_id: Some("job7".into()),
        };
        assert_eq!(flag.nth(0, 1), OpIds::Given("job7".into()));
        assert_eq!(flag.nth(2, 3), OpIds::Given("job7.2".into()));
        assert_eq!(OpFlag::default().nth(2, 3), OpIds::Automatic);
    }

    #[test]
    fn read_levels_as_typed() {
        assert_eq!(
            parse_level("bounded:5s").unwrap(),
            ReadLevel::Bounded(5_000)
        );
        assert_eq!(parse_level("stale").unwrap(), ReadLevel::Stale);
        assert!(parse_level("fresh").is_err());
        assert!(parse_level("bounded:5").is_err());
    }

    #[test]
    fn a_range_includes_its_last_byte() {
        let part = |text| PartFlags {
            version: None,
            range: Some(parse_range(text).unwrap()),
        };
        assert_eq!(part("0-99").half_open(), Some((0, Some(100))));
        assert_eq!(part("5-").half_open(), Some((5, None)));
        assert_eq!(part("5-18446744073709551615").half_open(), Some((5, None)));
    }

    #[test]
    fn flags_win_over_the_settings() {
        let mut config = Config::default();
        config.client.cluster = vec!["file:1".into()];
        let globals = Globals {
            cluster: Some("flag:2,flag:3".into()),
            ..Globals::default()
        };
        globals.apply(&mut config).unwrap();
        assert_eq!(config.client.cluster, ["flag:2", "flag:3"]);
    }
}
