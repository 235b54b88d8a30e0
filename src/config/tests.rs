//! Tests of the overlay: which source wins, and what is refused.

use super::{Config, KEYS, addresses};
use crate::error::Code;
use crate::limits;
use std::path::PathBuf;
use std::time::Duration;

fn no_env(_: &str) -> Option<String> {
    None
}

fn read(text: &str) -> crate::error::Result<Config> {
    let mut config = Config::default();
    config.read_text("/x/dfs.toml", text)?;
    Ok(config)
}

#[test]
fn a_file_sets_both_tables() {
    let config = read(
        "[client]\ncluster = [\"a:1\", \"b:2\"]\ntimeout = \"5s\"\n\
         [server]\ndata = \"/var/lib/dfs\"\nlisten = \"0.0.0.0:7440\"\nchunk_size = \"4MiB\"\n\
         keep_versions = 3\ninline_size = 0\n",
    )
    .unwrap();
    assert_eq!(config.client.cluster, ["a:1", "b:2"]);
    assert_eq!(config.client.timeout, Some(Duration::from_secs(5)));
    assert_eq!(config.server.data, Some(PathBuf::from("/var/lib/dfs")));
    assert_eq!(config.server.chunk_bytes, Some(4 << 20));
    assert_eq!(config.server.keep_versions, Some(3));
    assert_eq!(config.server.inline_bytes, Some(0));
}

#[test]
fn an_unknown_key_names_file_and_key() {
    let error = read("[server]\nchunksize = \"4MiB\"\n").unwrap_err();
    assert_eq!(error.code, Code::Usage);
    assert!(
        error.to_string().starts_with(
            "/x/dfs.toml: unknown key `server.chunksize` (not a setting of dfs); the keys are "
        ),
        "{error}"
    );
    let error = read("[servers]\n").unwrap_err();
    assert!(error.message.contains("`servers`"), "{error}");
    let error = read("data = \"/x\"\n").unwrap_err();
    assert!(error.message.contains("`data`"), "{error}");
    // A key of the other table is not known here.
    let error = read("[client]\ndata = \"/x\"\n").unwrap_err();
    assert!(error.message.contains("`client.data`"), "{error}");
}

#[test]
fn a_bad_value_names_file_key_and_cause() {
    let error = read("[server]\ngrace = 24\n").unwrap_err();
    assert_eq!(
        error.to_string(),
        "/x/dfs.toml: server.grace: bad duration `24` (no unit); \
         write it as 500ms, 30s, 5m, 24h or 7d"
    );
    let error = read("[server]\nchunk_size = \"1GiB\"\n").unwrap_err();
    assert!(error.message.contains("not from 64KiB to 64MiB"), "{error}");
    let error = read("[server]\nzone = true\n").unwrap_err();
    assert!(
        error.message.contains("server.zone: bad value (boolean)"),
        "{error}"
    );
}

#[test]
fn a_lost_tail_is_accepted_for_one_start_only() {
    let error = read("[server]\naccept_lost_tail = \"yes\"\n").unwrap_err();
    assert!(error.message.contains("unknown key"), "{error}");
    let env = |name: &str| (name == "DFS_ACCEPT_LOST_TAIL").then(|| "yes".to_owned());
    let mut config = Config::default();
    config.read_env(&env).unwrap();
    assert_eq!(config, Config::default());
}

#[test]
fn leases_can_be_turned_off() {
    let said = |text: &str| read(text).map(|config| config.server.lease_reads);
    assert_eq!(said("[server]\n").unwrap(), None);
    assert_eq!(
        said("[server]\nlease_reads = \"no\"\n").unwrap(),
        Some(false)
    );
    assert_eq!(
        said("[server]\nlease_reads = \"yes\"\n").unwrap(),
        Some(true)
    );
    let error = said("[server]\nlease_reads = \"150ms\"\n").unwrap_err();
    assert!(error.message.contains("neither yes nor no"), "{error}");
}

#[test]
fn a_file_that_is_not_toml_names_the_line() {
    let error = read("[client]\n\ncluster = \n").unwrap_err();
    assert!(
        error
            .message
            .starts_with("cannot read the settings (line 3: "),
        "{error}"
    );
}

#[test]
fn the_environment_wins_over_files_and_the_user_over_the_system() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("dfs").join("config.toml");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, "[client]\ncluster = \"file:1\"\ntimeout = \"7s\"\n").unwrap();
    let home = dir.path().display().to_string();
    let env = |name: &str| match name {
        "XDG_CONFIG_HOME" => Some(home.clone()),
        "DFS_CLUSTER" => Some("env:2".into()),
        "DFS_IDENTITY" => Some(String::new()),
        _ => None,
    };
    let config = Config::load(None, &env).unwrap();
    assert_eq!(config.client.cluster, ["env:2"]);
    assert_eq!(config.client.timeout, Some(Duration::from_secs(7)));
    assert_eq!(config.client.identity, None, "an empty variable is not set");

    // Later text replaces earlier text: that is all the overlay of files is.
    let mut config = read("[client]\ncluster = \"system:1\"\nwindow = \"64MiB\"\n").unwrap();
    config
        .read_text("user", "[client]\ncluster = \"user:1\"\n")
        .unwrap();
    assert_eq!(config.client.cluster, ["user:1"]);
    assert_eq!(config.client.window, Some(64 << 20));
}

#[test]
fn a_named_file_replaces_the_usual_ones_and_must_exist() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("mine.toml");
    std::fs::write(&file, "[server]\nzone = \"z1\"\n").unwrap();
    let config = Config::load(Some(&file), &no_env).unwrap();
    assert_eq!(config.server.zone.as_deref(), Some("z1"));
    let env = |name: &str| (name == "DFS_CONFIG").then(|| file.display().to_string());
    assert_eq!(Config::load(None, &env).unwrap(), config);

    let missing = dir.path().join("none.toml");
    let error = Config::load(Some(&missing), &no_env).unwrap_err();
    assert_eq!(error.code, Code::NotFound);
    assert_eq!(error.path, Some(missing.display().to_string()));
}

#[test]
fn a_bad_variable_is_named() {
    let env = |name: &str| (name == "DFS_TIMEOUT").then(|| "0".to_string());
    let error = Config::load(None, &env).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("the environment: DFS_TIMEOUT: bad duration"),
        "{error}"
    );
}

#[test]
fn defaults_come_from_limits() {
    let env = |name: &str| (name == "HOME").then(|| "/home/u".to_string());
    let settings = Config::default().server.settings(&env).unwrap();
    assert_eq!(settings.data, PathBuf::from("/home/u/.local/share/dfs"));
    assert_eq!(settings.listen.to_string(), "0.0.0.0:7440");
    assert_eq!(settings.inline_bytes, limits::INLINE_BYTES_DEFAULT);
    assert_eq!(settings.chunk_bytes, limits::CHUNK_BYTES_DEFAULT);
    assert_eq!(settings.grace, Duration::from_secs(24 * 3600));
    assert_eq!(settings.capacity, None);
    let error = Config::default().server.settings(&no_env).unwrap_err();
    assert_eq!(error.code, Code::Usage);
}

#[test]
fn addresses_need_host_and_port() {
    assert_eq!(addresses("a:1, [::1]:7440").unwrap(), ["a:1", "[::1]:7440"]);
    for bad in [
        "", "a", "a:", ":1", "a:0", "a:70000", "::1:7440", "a:1,,b:2",
    ] {
        assert_eq!(addresses(bad).unwrap_err().code, Code::Usage, "{bad}");
    }
}

#[test]
fn key_names_are_unique_so_the_environment_needs_no_table() {
    let mut names: Vec<_> = KEYS.iter().map(|(_, name, _)| *name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), KEYS.len());
}
