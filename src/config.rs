//! Settings and where they come from. Called by `cmd`; `node` and `client` get plain values.
//!
//! What stands further up wins:
//! 1. flags of the command line (`cmd` sets them on the result);
//! 2. the environment: `DFS_` and the key in capitals (`DFS_CLUSTER`, `DFS_CHUNK_SIZE`, …);
//! 3. `$XDG_CONFIG_HOME/dfs/config.toml` (`~/.config/dfs/config.toml`);
//! 4. `/etc/dfs/dfs.toml`;
//! 5. defaults, which are in [`crate::limits`] and in [`ServerConfig::settings`].
//!
//! `--config FILE` or `DFS_CONFIG` names the one file to read instead of 3 and 4. A file has two
//! tables, `[client]` and `[server]`; a key that is not in `KEYS` is an error, because a
//! misspelt setting that is silently ignored is worse than a start that fails.

mod dirs;
pub mod units;
mod values;

pub use dirs::{config_dir, state_dir};
pub use values::{address, addresses, capacity, listen, place};

use crate::error::{Error, Result};
use crate::limits as l;
use dirs::{data_dir, said};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use units::parse_duration;
use values::{count, positive, size_between, value_text, yes_or_no};

/// Read when the user has no file of their own, and below it.
const SYSTEM_FILE: &str = "/etc/dfs/dfs.toml";
/// A settings file is short; a larger one is not one.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Where a node listens unless told.
const LISTEN_DEFAULT: &str = "0.0.0.0:7440";

/// Everything that was set, by whichever source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    pub client: ClientConfig,
    pub server: ServerConfig,
}

/// `[client]`. `None`: not set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientConfig {
    /// `cluster`: addresses of nodes, `HOST:PORT`; empty: those in the identity.
    pub cluster: Vec<String>,
    /// `identity`: file with the certificate and key; `None`: the default place.
    pub identity: Option<PathBuf>,
    /// `timeout`: of one operation with its retries; `None`: `limits::REQUEST_TIMEOUT`.
    pub timeout: Option<Duration>,
    /// `window`: bytes in flight of one transfer; `None`: `limits::WINDOW_BYTES_DEFAULT`.
    pub window: Option<u64>,
}

/// `[server]`. `None`: not set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerConfig {
    /// `data`: the node's directory.
    pub data: Option<PathBuf>,
    /// `listen`: UDP address; port 0 takes a free one.
    pub listen: Option<SocketAddr>,
    /// `advertise`: `HOST:PORT` that others reach this node by.
    pub advertise: Option<String>,
    /// `zone` and `rack`: where the node stands, for placement.
    pub zone: Option<String>,
    pub rack: Option<String>,
    /// `capacity`: bytes of chunks the node offers; not zero.
    pub capacity: Option<u64>,
    /// `inline_size`: largest content kept in the metadata, bytes.
    pub inline_bytes: Option<u64>,
    /// `chunk_size`: bytes.
    pub chunk_bytes: Option<u64>,
    /// `grace`: how long deleted things can be brought back.
    pub grace: Option<Duration>,
    /// `keep_versions`: superseded versions kept at most.
    pub keep_versions: Option<u32>,
    /// `keep_for`: how long a superseded version is kept.
    pub keep_for: Option<Duration>,
    /// `upload_ttl`: how long an upload may pause before it expires.
    pub upload_ttl: Option<Duration>,
    /// `fold_size`: bytes of changes in memory that start a fold.
    pub fold_bytes: Option<u64>,
    /// `fold_after`: age of the oldest change in memory that starts a fold.
    pub fold_after: Option<Duration>,
    /// `offline_after`: how long a node may be silent before its chunks are copied elsewhere.
    pub offline_after: Option<Duration>,
    /// `lease_reads`: a leader that a majority has just heard answers reads without asking again.
    pub lease_reads: Option<bool>,
    /// Nodes of the cluster to join, and the token for it: flags only.
    pub join: Vec<String>,
    pub token: Option<String>,
    /// Start although the log's last batch is damaged: a flag only, since it is for one start.
    pub accept_lost_tail: bool,
}

/// What a node is started with: every setting decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSettings {
    /// The node's directory.
    pub data: PathBuf,
    pub listen: SocketAddr,
    /// `HOST:PORT` that others reach this node by; `None`: the address it listens on, and where that
    /// is unspecified, this machine's on the way to the others.
    pub advertise: Option<String>,
    /// Empty: not said.
    pub zone: String,
    /// Empty: not said.
    pub rack: String,
    /// Bytes of chunks the node offers, not zero; `None`: what its file system holds. Counts when the
    /// node enters the cluster; its weight is changed by `dfs node weight` from then on.
    pub capacity: Option<u64>,
    /// Largest content kept in the metadata, bytes. 0: none.
    pub inline_bytes: u64,
    /// Chunk size told to clients, bytes.
    pub chunk_bytes: u64,
    /// Deleted things can be brought back for this long. Zero: cleaned up at once.
    pub grace: Duration,
    /// Superseded versions kept at most. 0: none.
    pub keep_versions: u32,
    /// A superseded version goes after this.
    pub keep_for: Duration,
    /// An upload without a commit goes after this.
    pub upload_ttl: Duration,
    /// Bytes of changes in memory that start a fold.
    pub fold_bytes: u64,
    /// Age of the oldest change in memory that starts a fold.
    pub fold_after: Duration,
    /// A node that is silent for so long is offline: its chunks are copied elsewhere.
    pub offline_after: Duration,
    /// Whether a leader that a majority has just heard answers reads without asking again. Not
    /// where a machine's clock can be stopped from outside, as some hypervisors do.
    pub lease_reads: bool,
    /// `HOST:PORT` of nodes of the cluster to join; empty: make a new one.
    pub join: Vec<String>,
    /// Needed to join.
    pub token: Option<String>,
    /// Start although the log's last batch is damaged and may have held acknowledged changes:
    /// they are given up. For one start, not for good.
    pub accept_lost_tail: bool,
}

/// One key: its table, its name, and how its text is taken.
type Key = (
    &'static str,
    &'static str,
    fn(&mut Config, &str) -> Result<()>,
);

/// All keys there are. Names are unique over both tables, so that the environment needs no table.
const KEYS: [Key; 20] = [
    ("client", "cluster", |c, text| {
        c.client.cluster = addresses(text)?;
        Ok(())
    }),
    ("client", "identity", |c, text| {
        set(&mut c.client.identity, Ok(text.into()))
    }),
    ("client", "timeout", |c, text| {
        set(&mut c.client.timeout, positive(text))
    }),
    ("client", "window", |c, text| {
        let window = size_between(text, l::CHUNK_BYTES_MAX, 1 << 40);
        set(&mut c.client.window, window)
    }),
    ("server", "data", |c, text| {
        set(&mut c.server.data, Ok(text.into()))
    }),
    ("server", "listen", |c, text| {
        set(&mut c.server.listen, listen(text))
    }),
    ("server", "advertise", |c, text| {
        set(&mut c.server.advertise, address(text))
    }),
    ("server", "zone", |c, text| {
        set(&mut c.server.zone, place(text))
    }),
    ("server", "rack", |c, text| {
        set(&mut c.server.rack, place(text))
    }),
    ("server", "capacity", |c, text| {
        set(&mut c.server.capacity, capacity(text))
    }),
    ("server", "inline_size", |c, text| {
        set(
            &mut c.server.inline_bytes,
            size_between(text, 0, l::INLINE_BYTES_MAX),
        )
    }),
    ("server", "chunk_size", |c, text| {
        let size = size_between(text, l::INLINE_BYTES_MAX, l::CHUNK_BYTES_MAX);
        set(&mut c.server.chunk_bytes, size)
    }),
    ("server", "grace", |c, text| {
        set(&mut c.server.grace, parse_duration(text))
    }),
    ("server", "keep_versions", |c, text| {
        set(&mut c.server.keep_versions, count(text))
    }),
    ("server", "keep_for", |c, text| {
        set(&mut c.server.keep_for, parse_duration(text))
    }),
    ("server", "upload_ttl", |c, text| {
        set(&mut c.server.upload_ttl, positive(text))
    }),
    ("server", "fold_size", |c, text| {
        set(&mut c.server.fold_bytes, size_between(text, l::MIB, l::GIB))
    }),
    ("server", "fold_after", |c, text| {
        set(&mut c.server.fold_after, positive(text))
    }),
    ("server", "offline_after", |c, text| {
        set(&mut c.server.offline_after, positive(text))
    }),
    ("server", "lease_reads", |c, text| {
        set(&mut c.server.lease_reads, yes_or_no(text))
    }),
];

impl Config {
    /// Reads the files and the environment. `file`: the one file to read instead of the usual
    /// places; it must exist. `env` looks a variable up.
    ///
    /// # Errors
    /// `usage`, naming file (or variable), key and cause.
    pub fn load(file: Option<&Path>, env: &dyn Fn(&str) -> Option<String>) -> Result<Config> {
        let mut config = Config::default();
        let named = file
            .map(PathBuf::from)
            .or_else(|| said(env, "DFS_CONFIG").map(PathBuf::from));
        match named {
            Some(file) => config.read_file(&file)?,
            None => {
                let user = config_dir(env).map(|dir| dir.join("config.toml"));
                for file in [Some(PathBuf::from(SYSTEM_FILE)), user]
                    .into_iter()
                    .flatten()
                {
                    if file.exists() {
                        config.read_file(&file)?;
                    }
                }
            }
        }
        config.read_env(env)?;
        Ok(config)
    }

    /// Takes the text of one settings file; `file` is its name for errors.
    ///
    /// # Errors
    /// `usage`, naming file, key and cause.
    pub fn parse(file: &str, text: &str) -> Result<Config> {
        let mut config = Config::default();
        config.read_text(file, text)?;
        Ok(config)
    }

    fn read_file(&mut self, file: &Path) -> Result<()> {
        let failed = |e: std::io::Error| {
            Error::io("read the settings", file, &e).hint("name a settings file that can be read")
        };
        let meta = std::fs::metadata(file).map_err(failed)?;
        if meta.len() > FILE_BYTES_MAX {
            return Err(Error::usage("not a settings file (larger than 1 MiB)")
                .at(file.display())
                .hint("name another file"));
        }
        let text = std::fs::read_to_string(file).map_err(failed)?;
        self.read_text(&file.display().to_string(), &text)
    }

    /// Takes one file's text; what it sets replaces what was set before.
    fn read_text(&mut self, file: &str, text: &str) -> Result<()> {
        let tables: toml::Table = text.parse().map_err(|e: toml::de::Error| {
            let line = e
                .span()
                .map_or(1, |span| text[..span.start].lines().count().max(1));
            Error::usage(format!(
                "cannot read the settings (line {line}: {})",
                e.message()
            ))
            .at(file)
            .hint("write keys as `name = \"value\"` below [client] or [server]")
        })?;
        for (section, keys) in &tables {
            let Some(keys) = keys.as_table().filter(|_| is_section(section)) else {
                return Err(unknown(file, section));
            };
            for (name, value) in keys {
                let known = KEYS.iter().find(|(s, n, _)| s == section && n == name);
                let Some((_, _, take)) = known else {
                    return Err(unknown(file, &format!("{section}.{name}")));
                };
                let taken = value_text(value).and_then(|text| take(self, &text));
                taken.map_err(|e| within(e, file, &format!("{section}.{name}")))?;
            }
        }
        Ok(())
    }

    fn read_env(&mut self, env: &dyn Fn(&str) -> Option<String>) -> Result<()> {
        for (_, name, take) in &KEYS {
            let variable = format!("DFS_{}", name.to_ascii_uppercase());
            if let Some(text) = said(env, &variable) {
                take(self, &text).map_err(|e| within(e, "the environment", &variable))?;
            }
        }
        Ok(())
    }
}

impl ServerConfig {
    /// Fills in the defaults. `env` tells where the user's data lies.
    ///
    /// # Errors
    /// `usage` when no data directory is set and none can be guessed.
    pub fn settings(self, env: &dyn Fn(&str) -> Option<String>) -> Result<ServerSettings> {
        let data = self.data.or_else(|| data_dir(env)).ok_or_else(|| {
            Error::usage("no data directory (neither set nor HOME known)").hint("give --data DIR")
        })?;
        let ms = Duration::from_millis;
        Ok(ServerSettings {
            data,
            listen: match self.listen {
                Some(listen) => listen,
                None => listen(LISTEN_DEFAULT)?,
            },
            advertise: self.advertise,
            zone: self.zone.unwrap_or_default(),
            rack: self.rack.unwrap_or_default(),
            capacity: self.capacity,
            inline_bytes: self.inline_bytes.unwrap_or(l::INLINE_BYTES_DEFAULT),
            chunk_bytes: self.chunk_bytes.unwrap_or(l::CHUNK_BYTES_DEFAULT),
            grace: self.grace.unwrap_or(ms(l::GRACE_MS_DEFAULT)),
            keep_versions: self.keep_versions.unwrap_or(l::KEEP_VERSIONS_DEFAULT),
            keep_for: self.keep_for.unwrap_or(ms(l::KEEP_FOR_MS_DEFAULT)),
            upload_ttl: self.upload_ttl.unwrap_or(ms(l::UPLOAD_TTL_MS_DEFAULT)),
            fold_bytes: self.fold_bytes.unwrap_or(l::FOLD_BYTES_DEFAULT as u64),
            fold_after: self.fold_after.unwrap_or(l::FOLD_AFTER),
            offline_after: self.offline_after.unwrap_or(l::OFFLINE_AFTER),
            lease_reads: self.lease_reads.unwrap_or(true),
            join: self.join,
            token: self.token,
            accept_lost_tail: self.accept_lost_tail,
        })
    }
}

fn set<T>(field: &mut Option<T>, value: Result<T>) -> Result<()> {
    *field = Some(value?);
    Ok(())
}

fn is_section(name: &str) -> bool {
    KEYS.iter().any(|(section, _, _)| *section == name)
}

fn unknown(file: &str, key: &str) -> Error {
    let names: Vec<String> = KEYS
        .iter()
        .map(|(section, name, _)| format!("{section}.{name}"))
        .collect();
    Error::usage(format!("unknown key `{key}` (not a setting of dfs)"))
        .at(file)
        .hint(format!("the keys are {}", names.join(", ")))
}

/// Says in which file or variable a bad value stood.
fn within(mut error: Error, file: &str, key: &str) -> Error {
    error.message = format!("{key}: {}", error.message);
    error.at(file)
}

#[cfg(test)]
#[path = "config/tests.rs"]
mod tests;
